"""Does a sonification follow a shift of its clip? (paper, section 3.2 and figure B.3)

The paper says so of any offset. A max-pool looks at fixed pairs of steps, so that the law can hold
for multiples of a layer's pooling stride alone; this measures how far it holds elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.result import Estimate, Measured, Record, Result, estimate, key_of
from sonibook.analysis.stream import Streaming, gather, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError
from sonibook.model.stack import blocks_of, receptive_field

#: One sample, some that are no multiple of the deepest stride, some that are, and the paper's 8645.
SHIFTS = (1, 2, 16, 128, 256, 1000, 1024, 8645, 8704)


class ShiftRow(Record):
    """One layer under one shift.

    Attributes
    ----------
    layer : int
    stride : int
        Samples between two steps of the layer's pooled maps.
    shift : int
    cosine : Estimate, in [-1, 1]
        Of the shifted clip's sonification with the shifted sonification.
    """

    layer: int
    stride: int
    shift: int
    cosine: Estimate

    @property
    def exact(self) -> bool:
        """Whether the shift is a multiple of the stride."""
        return self.shift % self.stride == 0


class NetworkShifts(Record):
    """One network's rows.

    Attributes
    ----------
    network : str
    rows : tuple of ShiftRow
    """

    network: str
    rows: tuple[ShiftRow, ...]


class ShiftResult(Result):
    """What `shift_law` found.

    Attributes
    ----------
    shifts : tuple of NetworkShifts
    """

    analysis: Literal["shifts"] = "shifts"
    shifts: tuple[NetworkShifts, ...]


@dataclass(frozen=True)
class _Cosines:
    """Cosines of some clips, for every network, layer and shift."""

    networks: dict[str, nn.Module]
    shifts: tuple[int, ...]

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        return {
            name: np.stack([self._clip(network, clip.waveform) for clip in clips])
            for name, network in self.networks.items()
        }

    def _clip(
        self, network: nn.Module, x: Float[ndarray, " time"]
    ) -> Float[ndarray, "layers shifts"]:
        straight = ForwardPass(network, x)
        depth = len(straight.blocks)
        found = np.full((depth, len(self.shifts)), np.nan)
        chosen = [straight.most_active(layer)[0] for layer in range(1, depth + 1)]
        whole = [straight.sonify(n, [f], rescale=False)[0] for n, f in enumerate(chosen, start=1)]
        for column, shift in enumerate(self.shifts):
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
    networks: Mapping[str, nn.Module],
    data: Dataset,
    *,
    shifts: Sequence[int] = SHIFTS,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ShiftResult:
    """Sonify clips that start later, and compare with sonifications that are shifted.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
        By name; each as `sonibook.model.stack.blocks_of` takes it.
    data : Dataset
    shifts : sequence of int >= 1, in samples
    seed : int >= 0
        Of the intervals.
    **streaming
        As for `stream`.

    Returns
    -------
    ShiftResult
        Of each layer's most active filter on each clip.

    Raises
    ------
    AnalysisError
        If there is no network, no shift or an impossible one, or as `stream`.
    StackError
        If a network cannot be inverted.
    """
    if not networks or not shifts or min(shifts) < 1:
        raise AnalysisError("A shift law needs a network, and shifts of one sample or more.")
    key = key_of("shifts", networks, {"shifts": list(shifts), "seed": seed})
    work = _Cosines(dict(networks), tuple(shifts))
    whole = gather(stream(work, data, key=key, description="shifts", **streaming))
    return ShiftResult(
        **key,
        data=Measured.of(data, clips=len(whole.clip_ids), skipped=whole.skipped),
        shifts=tuple(
            NetworkShifts(network=name, rows=_rows(network, whole.arrays[name], shifts, seed))
            for name, network in networks.items()
        ),
    )


def _rows(
    network: nn.Module,
    cosines: Float[ndarray, "clips layers shifts"],
    shifts: Sequence[int],
    seed: int,
) -> tuple[ShiftRow, ...]:
    strides = np.cumprod([block.step for block in blocks_of(network)])
    return tuple(
        ShiftRow(
            layer=layer,
            stride=int(stride),
            shift=shift,
            cosine=estimate(cosines[:, layer - 1, column], seed=seed),
        )
        for layer, stride in enumerate(strides, start=1)
        for column, shift in enumerate(shifts)
    )
