"""Which stretches of a map have to be computed, and which cannot be other than zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sonibook.stack import Block, stride

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
        The map is zero between this stretch and the next.
    start, length : int, in steps
        What is computed: `first` to `last` and a few zeros more, so that windows share a shape.
    """

    row: int
    filter: int
    first: int
    last: int
    start: int
    length: int


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
    gap = 0
    for block in blocks:
        gap = -(-(gap + block.extent - 1) // block.pool)
    gap = max(gap, _LEAST_GAP // stride(blocks, len(blocks)))
    places = np.flatnonzero(np.ascontiguousarray(maps).ravel() != 0)
    if places.size == 0:
        return
    rows, steps = np.divmod(places, maps.shape[1])
    fresh = np.flatnonzero((np.diff(rows) != 0) | (np.diff(steps) > gap)) + 1
    begin, end = np.append(0, fresh), np.append(fresh, rows.size) - 1
    total = maps.shape[1]
    for row, first, last in zip(rows[begin], steps[begin], steps[end] + 1, strict=True):
        length = _rounded(int(last - first), total)
        start = min(int(first), total - length)
        yield Window(int(row), filters[row], int(first), int(last), start, length)


def _rounded(length: int, limit: int) -> int:
    """`length` up to the next of few values, an eighth apart, so that windows share a shape."""
    grain = max(1, 2 ** (max(length - 1, 1).bit_length() - 3))
    return min(-(-length // grain) * grain, limit)
