"""Which stretches of a clip's maps have to be computed, and which cannot be other than zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from sonibook.model.stack import Block, stride

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


def least_gap(blocks: Sequence[Block]) -> int:
    """Zeros between two stretches of the last block's map for which their sounds do not meet."""
    gap = 0
    for block in blocks:
        gap = -(-(gap + block.extent - 1) // block.pool)
    return gap


def cut(
    maps: Float[ndarray, "row steps"], blocks: Sequence[Block], filters: Sequence[int]
) -> Iterator[Window]:
    """Cut maps where they are zero for so long that the sounds on both sides do not meet.

    There is no bias on the backward pass and ReLU(0) = 0: what lies outside the receptive fields
    of a map's non-zero steps stays exactly zero.
    """
    gap = max(least_gap(blocks), _LEAST_GAP // stride(blocks, len(blocks)))
    places = np.flatnonzero(np.ascontiguousarray(maps).ravel() != 0)
    if places.size == 0:
        return
    rows, steps = np.divmod(places, maps.shape[1])
    fresh = np.flatnonzero((np.diff(rows) != 0) | (np.diff(steps) > gap)) + 1
    begin, end = np.append(0, fresh), np.append(fresh, rows.size) - 1
    for row, first, last in zip(rows[begin], steps[begin], steps[end] + 1, strict=True):
        yield Window(int(row), filters[row], int(first), int(last))


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


#: 1 where the maximum was at phase 1, 2 …, else 0.
SwitchMasks = Float[Tensor, "phase steps channel"]


@dataclass(frozen=True)
class Clip:
    """One clip of a forward pass, layer 1 first."""

    maps: Sequence[Float[Tensor, "_ _"]]
    switches: Sequence[Bool[Tensor, "_ _"] | UInt8[Tensor, "_ _"] | None]
    #: For a layer and a stretch of its steps, which are counted from `early` steps before the
    #: first, one less than `Weights.steps`; as many are added at the end.
    masks: Callable[[int, slice], SwitchMasks]

    def unpooled(self, layer: int, window: Window, pool: int) -> Float[Tensor, " time"]:
        """The one live map of a window, each value where its maximum was."""
        steps = slice(window.first, window.last)
        values = self.maps[layer - 1][window.filter, steps]
        switches = self.switches[layer - 1]
        if switches is None:
            return values
        position = torch.arange(pool)
        return (values[:, None] * (switches[window.filter, steps, None] == position)).flatten()
