"""Many sounds of one clip on their backward pass together, a cacheful of time after the other.

The switches are the same for all sounds of a clip: unpooling and deconvolution together are one
small matrix for each step, which all share (`multiply`).

A deconvolution's output depends on no later step of its input. So a stretch of time can go all the
way down to the sound before the next one is begun: each block keeps the last few steps that the
next stretch needs (`_kept`), and what is large, the maps near the sound, never leaves the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sonibook.deconvnet.cpu.weights import Weights, context, reach, single, step
from sonibook.deconvnet.cpu.windows import Clip, Column
from sonibook.model.layers import CACHED_FLOATS

#: Maps near the sound are computed in tiles of this size.
_TILE = CACHED_FLOATS // 2


def sonify_tiled(
    clip: Clip,
    weights: Sequence[Weights],
    columns: Sequence[Column],
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
    first = max(min(window.first for window in windows), steps.start - context(weights))
    last = min(end, steps.stop)
    if first >= last:
        return
    run = _Run(clip, weights, columns, first, last, whole=last == end)
    sounds, begin = run.sounds(), run.begin
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
        columns: Sequence[Column],
        first: int,
        last: int,
        *,
        whole: bool,
    ) -> None:
        self.clip, self.weights, self.columns = clip, weights, columns
        self.top, self._first = len(weights), first
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
        self._sounds = clip.maps[0].new_empty(len(columns), samples)

    def sounds(self) -> Float[Tensor, "column samples"]:
        """The columns' sounds from sample `begin` on."""
        self._down(self.top, None, self._first, self._ends[-1] + self._further[-1])
        return self._sounds

    def _down(self, layer: int, y: Tensor | None, first: int, last: int) -> None:
        """Take steps `first` to `last` of a layer to the sound.

        `y` are the rectified maps that came from above; they begin as many steps before `first`
        as `step` wants. None at the top, where the columns enter.
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
                below = out = self._sounds[:, here].unsqueeze(2)
            else:
                below = self._buffer(layer - 1, rows)
                early = self.weights[layer - 2].steps - 1
                out = below[:, early : early + rows]
            if y is None:
                out[:] = self._enter(begin, begin + rows)
            else:
                seen = slice(start - first, stop - first + block.steps - 1)
                masks = self.clip.masks(layer, slice(start, stop + block.steps - 1))
                step(y[:, seen], masks, block, out)
            if layer > 1:
                self._pass_on(layer - 1, below, begin, begin + rows, stop == end)

    def _buffer(self, layer: int, rows: int) -> Tensor:
        """Where the maps of a layer are written, with the steps that its block keeps around them.

        The same memory for every stretch of time, laid out as the block's `step` wants it.
        """
        block, columns = self.weights[layer - 1], len(self.columns)
        steps, channels = rows + 2 * block.steps + block.pool, block.filters
        buffer = self._buffers.get(layer)
        if buffer is None or buffer.numel() < steps * channels * columns:
            buffer = self._buffers[layer] = self._sounds.new_empty(steps * channels * columns)
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
            deconvolved = single(signal[rows, begin : stop + block.beyond], block, filters)
            if len(rows) == len(columns) and begin == start:
                out = deconvolved  # of all columns, in order
            else:
                out[rows, (begin - start) * block.stride :] = deconvolved
        return out
