"""Many means over clips at once, by name."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from numpy import ndarray

from sonibook.analysis import result
from sonibook.analysis.result import Estimate


def estimates(
    names: Sequence[str], values: Float[ndarray, "clips names"], *, seed: int = 0
) -> dict[str, Estimate]:
    """As `sonibook.analysis.result.estimates`, by name."""
    return dict(zip(names, result.estimates(values, seed=seed), strict=True))
