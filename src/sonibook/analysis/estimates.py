"""Many means over clips at once, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sonibook.analysis.result import Estimate

_REPEATS = 2000


def estimates(
    names: Sequence[str], values: Float[ndarray, "clips names"], *, seed: int = 0
) -> dict[str, Estimate]:
    """The means of several measures over clips, and their bootstrap intervals.

    All measures are redrawn with the same clips, those that one could not be measured on included:
    quick, since a redrawn mean is a product of matrices, and `estimate`'s interval but for that.

    Parameters
    ----------
    names : sequence of str
    values : ndarray, shape (clips, names)
        NaN where a measure could not be taken, which is left out and counted.
    seed : int >= 0
        Of the bootstrap.

    Returns
    -------
    dict of str to Estimate
    """
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    times = _times(len(values), seed)
    drawn = times @ known
    sums = times @ np.nan_to_num(values)
    means = np.divide(sums, drawn, out=np.full_like(sums, np.nan), where=drawn > 0)
    found = {}
    for column, (name, count) in enumerate(zip(names, counts, strict=True)):
        mean = float(values[known[:, column], column].mean()) if count else None
        low = high = None
        if count > 1:
            low, high = map(float, np.nanquantile(means[:, column], [0.025, 0.975]))
        found[name] = Estimate(mean=mean, low=low, high=high, clips=int(count))
    return found


@lru_cache(maxsize=2)
def _times(clips: int, seed: int) -> Float[ndarray, "repeats clips"]:
    """How often each clip is drawn, repeat by repeat."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(clips, np.full(clips, 1 / clips), size=_REPEATS).astype(float)
