"""Windows, which are what has to be computed of a clip's maps, and many of them together.

What lies between windows cannot be other than zero. The switches are the same for all sounds of a
clip: unpooling and deconvolution together are one small matrix for each step, which all share
(`Weights.down`).

A deconvolution's output depends on no later step of its input. So a stretch of time can go all the
way down to the sound before the next one is begun: each block keeps the last few steps that the
next stretch needs (`_kept`), and what is large, the maps near the sound, never leaves the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from sonibook.deconvnet.cpu.weights import SwitchMasks, Weights, reach
from sonibook.model.layers import CACHED_FLOATS

#: Zeros between two windows, in input samples, below which cutting costs more than it saves.
_LEAST_GAP = 2048


@dataclass(frozen=True)
class Window:
    """A stretch of one map, in steps, up to the next of which the map is zero."""

    row: int
    filter: int
    first: int
    last: int


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


def pack(windows: Iterable[Window], gap: int) -> Iterator[list[list[Window]]]:
    """Lay windows side by side and, where there are `gap` zeros between them, behind each other.

    What lies behind each other is computed in one column of the matrices. As few columns as there
    can be for a stretch of the clip; nothing sounds between stretches.
    """
    columns: list[list[Window]] = []
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

    Steps are counted as if what the network pads were part of each map (see `Engine`).
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


#: Maps near the sound are computed in tiles of this size.
_TILE = CACHED_FLOATS // 2


@torch.inference_mode()
def sonify_tiled(
    clip: Clip,
    weights: Sequence[Weights],
    columns: Sequence[Sequence[Window]],
    steps: range,
    result: Float[Tensor, "row samples"],
) -> None:
    """Write the raw sonifications of some columns to their places, from and to some step.

    What they sound beyond the last of `steps` is left to whoever goes on from there, except where
    no column goes on.
    """
    windows = [window for column in columns for window in column]
    end = max(window.last for window in windows)
    # Early by what the first sample depends on.
    first = max(min(window.first for window in windows), steps.start - reach(weights).context)
    last = min(end, steps.stop)
    if first >= last:
        return
    run = _Run(clip, weights, columns, first, last, whole=last == end)
    sounds, begin = run.sounds, run.begin
    (stride, beyond), within = reach(weights), clip.bounds[0]
    for sound, column in zip(sounds, columns, strict=True):
        for window in column:
            start = max(max(window.first, steps.start) * stride, within[0])
            stop = min(window.last * stride + beyond, begin + len(sound), within[1])
            if start < stop:
                here = slice(start - within[0], stop - within[0])
                result[window.row, here] = sound[start - begin : stop - begin]


class _Run:
    """Columns on their way to the sound, of which they hold what the next stretch of time needs."""

    def __init__(
        self,
        clip: Clip,
        weights: Sequence[Weights],
        columns: Sequence[Sequence[Window]],
        first: int,
        last: int,
        *,
        whole: bool,
    ) -> None:
        self.clip, self.weights, self.columns = clip, weights, columns
        self.top = len(weights)
        #: Steps that a layer sounds for after its last.
        self._further = [block.steps - 1 if whole else 0 for block in weights]
        #: Where the computed stretch of each layer ends.
        self._ends = [0] * self.top
        self._ends[-1] = last
        for layer in range(self.top - 1, 0, -1):
            reached = weights[layer].step * (self._ends[layer] + self._further[layer])
            self._ends[layer - 1] = min(clip.bounds[layer][1], reached)
        self._kept: dict[int, Tensor] = {}
        self._buffers: dict[int, Tensor] = {}
        self._signal = self._unpooled()
        #: The first sample.
        self.begin = first * reach(weights)[0]
        samples = weights[0].step * (self._ends[0] + self._further[0]) - self.begin
        #: The columns' sounds from there on.
        self.sounds = clip.maps[0].new_empty(len(columns), samples)
        self._down(self.top, None, first, last + self._further[-1])

    def _down(self, layer: int, y: Tensor | None, first: int, last: int) -> None:
        """Take steps `first` to `last` of a layer to the sound.

        `y` are the rectified maps that came from above; they begin as many steps before `first`
        as `Weights.down` wants. None at the top, where the columns enter.
        """
        block = self.weights[layer - 1]
        floats = (last - first) * block.step * block.channels * len(self.columns)
        size = max(1, -(-(last - first) // (1 + floats // _TILE)))
        if layer > 1:  # no less than what the block below keeps from one stretch to the next
            size = max(size, -(-self.weights[layer - 2].steps // block.step))
        end = self._ends[layer - 1] + self._further[layer - 1]
        for start in range(first, last, size):
            stop = min(start + size, last)
            begin, rows = start * block.step, (stop - start) * block.step
            if layer == 1:
                here = slice(begin - self.begin, begin - self.begin + rows)
                below = out = self.sounds[:, here].unsqueeze(2)
            else:
                below = self._buffer(layer - 1, rows)
                early = self.weights[layer - 2].steps - 1
                out = below[:, early : early + rows]
            if y is None:
                out[:] = self._enter(begin, begin + rows)
            else:
                seen = slice(start - first, stop - first + block.steps - 1)
                masks = self.clip.masks(layer, slice(start, stop + block.steps - 1))
                block.down(y[:, seen], masks, out)
            if layer > 1:
                self._pass_on(layer - 1, below, begin, begin + rows, stop == end)

    def _buffer(self, layer: int, rows: int) -> Tensor:
        """Where the maps of a layer are written, with the steps that its block keeps around them.

        The same memory for every stretch of time, laid out as the block's `down` wants it.
        """
        block, columns = self.weights[layer - 1], len(self.columns)
        steps, channels = rows + 2 * block.steps + block.pool, block.filters
        buffer = self._buffers.get(layer)
        if buffer is None or buffer.numel() < steps * channels * columns:
            buffer = self._buffers[layer] = self.sounds.new_empty(steps * channels * columns)
        buffer = buffer[: steps * channels * columns]
        if block.is_switched:
            return buffer.view(steps, channels, columns).permute(2, 0, 1)
        return buffer.view(columns, steps, channels)

    def _pass_on(self, layer: int, y: Tensor, start: int, stop: int, final: bool) -> None:
        """Rectify what came out of the block above, and go on with it."""
        early, end = self.weights[layer - 1].steps - 1, self._ends[layer - 1]
        # Never past the end of the map: what the pool had left over is zero.
        start, stop = min(start, end), min(stop, end)
        last = end + self._further[layer - 1] if final else stop
        kept = self._kept.get(layer)
        y[:, :early] = 0 if kept is None else kept
        self.weights[layer - 1].rectify(y[:, early : early + stop - start])
        padding = self.clip.bounds[layer][0] - start
        y[:, early : early + max(0, padding)] = 0
        y[:, early + stop - start : early + last - start] = 0
        if not final:
            self._kept[layer] = y[:, last - start : early + last - start].clone()
        self._down(layer, y[:, : early + last - start], start, last)

    def _unpooled(self) -> Float[Tensor, "column time"]:
        """The live maps of the columns, with room for all taps."""
        block = self.weights[-1]
        length = self.clip.bounds[self.top][1] * block.pool
        signal = self.clip.maps[0].new_zeros(len(self.columns), length)
        for row, column in zip(signal, self.columns, strict=True):
            for window in column:
                here = slice(window.first * block.pool, window.last * block.pool)
                row[here] = self.clip.unpooled(self.top, window, block)
        return F.pad(signal, (block.beyond, block.pool * (block.steps - 1)))

    def _enter(self, start: int, stop: int) -> Float[Tensor, "column time channel"]:
        """Deconvolve the one live channel of every column, each by its own filter."""
        block, signal, columns = self.weights[-1], self._signal, self.columns
        out = signal.new_zeros(len(columns), stop - start, block.channels)
        start, stop = start // block.stride, stop // block.stride
        present = [
            (max(window.first * block.pool, start), row, window.filter)
            for row, column in enumerate(columns)
            for window in column
            if window.first * block.pool < stop and window.last * block.pool + block.beyond > start
        ]
        # A column's later window overwrites what the earlier one's filter would have made of it.
        for begin, group in groupby(sorted(present), key=lambda window: window[0]):
            _, rows, filters = map(list, zip(*group, strict=True))
            deconvolved = block.enter(signal[rows, begin : stop + block.beyond], filters)
            if len(rows) == len(columns) and begin == start:
                out = deconvolved  # of all columns, in order
            else:
                out[rows, (begin - start) * block.stride :] = deconvolved
        return out
