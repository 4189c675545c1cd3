"""Which stretches of a map have to be computed, and which cannot be other than zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sonibook.model.stack import Block, stride

#: Zeros between two windows, in input samples, below which cutting costs more than it saves.
_LEAST_GAP = 2048


@dataclass(frozen=True)
class Window:
    """A stretch of one map that is computed by itself.

    Attributes
    ----------
    row : int
        Of the result.
    filter : int
    first, last : int, in steps
        The map is zero between the end of this stretch and the next.
    """

    row: int
    filter: int
    first: int
    last: int


#: Windows that are computed one after the other in one column of the matrices.
Lane = list[Window]


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

    There is no bias on the way back and ReLU(0) = 0: what lies outside the receptive fields of a
    map's non-zero steps stays exactly zero.

    Parameters
    ----------
    maps : ndarray, shape (row, steps)
        The maps of `filters` in the last of `blocks`.
    blocks : sequence of Block
        From the first to that layer.
    filters : sequence of int

    Yields
    ------
    Window
        Together they hold every non-zero step of the maps; a silent map has none.
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


def pack(windows: Iterable[Window], gap: int) -> Iterator[list[Lane]]:
    """Lay windows side by side and, where there is room, behind each other.

    Parameters
    ----------
    windows : iterable of Window
    gap : int, in steps
        Zeros that windows of one lane must have between them.

    Yields
    ------
    list of Lane
        As few lanes as there can be for a stretch of the clip; nothing sounds between stretches.
    """
    lanes: list[Lane] = []
    free: list[tuple[int, int]] = []
    latest = 0
    for window in sorted(windows, key=lambda window: window.first):
        if lanes and window.first >= latest + gap:
            yield lanes
            lanes, free = [], []
        if free and window.first >= free[0][0] + gap:
            _, lane = heappop(free)
            lanes[lane].append(window)
        else:
            lane = len(lanes)
            lanes.append([window])
        heappush(free, (window.last, lane))
        latest = max(latest, window.last)
    if lanes:
        yield lanes
