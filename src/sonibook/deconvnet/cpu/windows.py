"""Which stretches of a clip's maps have to be computed, and which cannot be other than zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from sonibook.deconvnet.cpu.weights import SwitchMasks, Weights

#: Zeros between two windows, in input samples, below which cutting costs more than it saves.
_LEAST_GAP = 2048


@dataclass(frozen=True)
class Window:
    """A stretch of one map, in steps, up to the next of which the map is zero."""

    row: int
    filter: int
    first: int
    last: int


#: Windows that are computed one after the other in one column of the matrices.
Column = list[Window]


def cut(
    maps: Float[ndarray, "row steps"], filters: Sequence[int], *, gap: int, stride: int, begin: int
) -> Iterator[Window]:
    """Cut maps where they are zero for so long that the sounds on both sides do not meet.

    There is no bias on the backward pass and ReLU(0) = 0: what lies outside the receptive fields
    of a map's non-zero steps stays exactly zero. The maps begin at step `begin`, have a step every
    `stride` samples, and `gap` zeros keep two sounds apart.
    """
    gap = max(gap, _LEAST_GAP // stride)
    places = np.flatnonzero(np.ascontiguousarray(maps).ravel() != 0)
    if places.size == 0:
        return
    rows, steps = np.divmod(places, maps.shape[1])
    fresh = np.flatnonzero((np.diff(rows) != 0) | (np.diff(steps) > gap)) + 1
    firsts, lasts = np.append(0, fresh), np.append(fresh, rows.size) - 1
    for row, first, last in zip(rows[firsts], steps[firsts], steps[lasts] + 1, strict=True):
        yield Window(int(row), filters[row], begin + int(first), begin + int(last))


def pack(windows: Iterable[Window], gap: int) -> Iterator[list[Column]]:
    """Lay windows side by side and, where there are `gap` zeros between them, behind each other.

    As few columns as there can be for a stretch of the clip; nothing sounds between stretches.
    """
    columns: list[Column] = []
    free: list[tuple[int, int]] = []
    latest = 0
    for window in sorted(windows, key=lambda window: window.first):
        if columns and window.first >= latest + gap:
            yield columns
            columns, free = [], []
        if free and window.first >= free[0][0] + gap:
            _, column = heappop(free)
            columns[column].append(window)
        else:
            column = len(columns)
            columns.append([window])
        heappush(free, (window.last, column))
        latest = max(latest, window.last)
    if columns:
        yield columns


@dataclass(frozen=True)
class Clip:
    """One clip of a forward pass: its maps and where in their windows the maxima were.

    Steps are counted as if what the network pads were part of each map (`weights.offsets`).
    """

    maps: Sequence[Float[Tensor, "_ _"]]
    switches: Sequence[Tensor | None]
    #: For a layer and a stretch of its steps, which are counted from `early` steps before the
    #: first, one less than `Weights.steps`; as many are added at the end.
    masks: Callable[[int, slice], SwitchMasks]
    #: First and last (excluded) sample, and then steps of each layer, that are not padding.
    bounds: Sequence[tuple[int, int]]

    def unpooled(self, layer: int, window: Window, weights: Weights) -> Float[Tensor, " time"]:
        """The one live map of a window, rectified, each value where its maximum was."""
        first = window.first - self.bounds[layer][0]
        steps = slice(first, window.last - self.bounds[layer][0])
        values = self.maps[layer - 1][window.filter, steps]
        if weights.scale is not None:
            values = values * weights.scale[window.filter]
        values, switches = values.relu(), self.switches[layer - 1]
        if switches is None:
            return values
        phases = weights.phases(switches[window.filter, steps], first)
        return (values[:, None] * (phases[:, None] == torch.arange(weights.pool))).flatten()
