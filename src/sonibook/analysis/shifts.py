"""Does a sonification follow a shift of its clip? (paper, section 3.2 and figure B.3)

The paper says so of any offset. A max-pool looks at fixed pairs of steps, so that the law can hold
for multiples of a layer's pooling stride alone; this measures how far it holds elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, Unpack

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.measure import Measured, measure_networks
from sonibook.analysis.networks import Networks, as_networks
from sonibook.analysis.result import Estimate, ResultTable, Row
from sonibook.analysis.stream import Streaming
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError
from sonibook.model.stack import blocks_of, receptive_field, stride

#: One sample, multiples of the deepest stride, others, and the paper's 8645.
SHIFTS = (1, 2, 16, 128, 256, 1000, 1024, 8645, 8704)


class ShiftResult(ResultTable):
    """How far sonifications follow a shift of their clips; make it with `shift_law`.

    ``cosine``, in [-1, 1], by the shift in samples as condition: of the shifted clip's sonification
    with the shifted sonification. ``stride``: samples between two steps of a layer's pooled maps.
    """

    analysis: Literal["shifts"] = "shifts"

    def is_exact(self, row: Row) -> bool:
        """Whether the shift of a row is a multiple of its layer's stride."""
        step = self.row("stride", network=row.network, layer=row.layer).mean or 1
        return int(row.condition) % step == 0


def _cosines(shifts: Sequence[int], network: nn.Module, clips: Sequence[Clip]) -> Measured:
    cosines = np.stack([shift_cosines(network, clip.waveform, shifts) for clip in clips])
    columns = np.moveaxis(cosines, 2, 0)
    return {("cosine", str(shift)): own for shift, own in zip(shifts, columns, strict=True)}


def shift_cosines(
    network: nn.Module, x: Float[ndarray, " time"], shifts: Sequence[int]
) -> Float[ndarray, "layers shifts"]:
    """Of one clip: how far the most active filter's sonification follows each shift; else NaN."""
    straight = ForwardPass(network, x)
    depth = len(straight.blocks)
    found = np.full((depth, len(shifts)), np.nan)
    chosen = [straight.most_active(layer)[0] for layer in range(1, depth + 1)]
    whole = [straight.sonify(n, [f], rescale=False)[0] for n, f in enumerate(chosen, start=1)]
    for column, shift in enumerate(shifts):
        if shift >= len(x):
            continue
        later = ForwardPass(network, x[shift:])
        for layer, index in enumerate(chosen, start=1):
            # Within a receptive field of its start the shifted clip lacks what was cut off.
            margin = receptive_field(straight.blocks, layer)
            found[layer - 1, column] = _cosine(
                later.sonify(layer, [index], rescale=False)[0][margin:],
                whole[layer - 1][shift + margin :],
            )
    return found


def _cosine(a: Float[Tensor, " time"], b: Float[Tensor, " time"]) -> float:
    """NaN where either is silent, or nothing is left."""
    a, b = a.double(), b.double()
    power = a.norm() * b.norm()
    return float(a @ b / power) if power > 0 else float("nan")


def shift_law(
    networks: Networks,
    data: Dataset,
    *,
    shifts: Sequence[int] = SHIFTS,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ShiftResult:
    """Sonify clips that start later, and compare with sonifications that are shifted.

    Parameters
    ----------
    networks, data, seed, streaming
        As for every analysis: see `sonibook.analysis`.
    shifts : sequence of int >= 1, in samples

    Returns
    -------
    ShiftResult
        Of each layer's most active filter on each clip.
    """
    if not shifts or min(shifts) < 1:
        raise AnalysisError("A shift law needs shifts of one sample or more.")
    given = as_networks(networks)
    settings = {"shifts": list(shifts), "seed": seed}
    measure = partial(_cosines, tuple(shifts))
    fields = measure_networks(
        "shifts", measure, given, data, settings=settings, seed=seed, **streaming
    )
    for network in given:
        for layer in range(1, len(blocks := blocks_of(network.module)) + 1):
            step = Estimate(mean=float(stride(blocks, layer)), clips=fields["data"].clips)
            fields["rows"] += (network.row("stride", step, layer=layer),)
    return ShiftResult(**fields)
