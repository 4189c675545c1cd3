"""Many sounds of one clip on their way back together, a cacheful of time after the other.

The switches are the same for all sounds of a clip: unpooling and deconvolution together are one
small matrix for each step, which all share (`steps`).

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

from sonibook.deconvnet.cpu.clip import Clip
from sonibook.deconvnet.cpu.steps import is_switched, single, step
from sonibook.deconvnet.cpu.weights import Weights, context, reach
from sonibook.deconvnet.cpu.windows import Lane
from sonibook.model.gradients import CACHED_FLOATS

#: Maps near the sound are computed in pieces of this size.
_PIECE = CACHED_FLOATS // 2


def sonify_many(
    clip: Clip,
    weights: Sequence[Weights],
    lanes: Sequence[Lane],
    steps: range,
    result: Float[Tensor, "row samples"],
) -> None:
    """Write the raw sonifications of some lanes to their places, from and to some step.

    Parameters
    ----------
    clip : Clip
    weights : sequence of Weights
        Of the blocks up to the lanes' layer, first layer first.
    lanes : sequence of Lane
    steps : range
        Of that layer. What they sound beyond the last is left to whoever goes on from there,
        except where no lane goes on.
    result : Tensor, shape (row, samples)
    """
    windows = [window for lane in lanes for window in lane]
    end = max(window.last for window in windows)
    # Early by what the first sample depends on.
    first = max(min(window.first for window in windows), steps.start - context(weights))
    last = min(end, steps.stop)
    if first >= last:
        return
    descent = _Descent(clip, weights, lanes, first, last, whole=last == end)
    sounds, begin = descent.run(), descent.begin
    stride, beyond = reach(weights)
    for sound, lane in zip(sounds, lanes, strict=True):
        for window in lane:
            start = max(window.first, steps.start) * stride
            stop = min(window.last * stride + beyond, begin + len(sound))
            if start < stop:
                result[window.row, start:stop] = sound[start - begin : stop - begin]


class _Descent:
    """Lanes on their way to the sound, of which they hold what the next stretch of time needs.

    Parameters
    ----------
    clip, weights, lanes
        As for `sonify_many`.
    first, last : int
        Steps of the lanes' layer.
    whole : bool
        Whether to go on until the last step has sounded.
    """

    def __init__(
        self,
        clip: Clip,
        weights: Sequence[Weights],
        lanes: Sequence[Lane],
        first: int,
        last: int,
        *,
        whole: bool,
    ) -> None:
        self.clip, self.weights, self.lanes = clip, weights, lanes
        self.top, self._first = len(weights), first
        #: Steps that a layer sounds for after its last.
        self._further = [made.steps - 1 if whole else 0 for made in weights]
        #: Where the computed stretch of each layer ends.
        self._ends = [0] * self.top
        self._ends[-1] = last
        for layer in range(self.top - 1, 0, -1):
            reached = weights[layer].pool * (self._ends[layer] + self._further[layer])
            self._ends[layer - 1] = min(clip.maps[layer - 1].shape[1], reached)
        self._kept: dict[int, Tensor] = {}
        self._rooms: dict[int, Tensor] = {}
        self._signal = self._unpooled()
        #: The first sample.
        self.begin = first * reach(weights)[0]
        samples = weights[0].pool * (self._ends[0] + self._further[0]) - self.begin
        self._sounds = clip.maps[0].new_empty(len(lanes), samples)

    def run(self) -> Float[Tensor, "lane samples"]:
        """The lanes' sounds from sample `begin` on."""
        self._down(self.top, None, self._first, self._ends[-1] + self._further[-1])
        return self._sounds

    def _down(self, layer: int, y: Tensor | None, first: int, last: int) -> None:
        """Take steps `first` to `last` of a layer to the sound.

        `y` are the rectified maps that came from above; they begin as many steps before `first`
        as `step` wants. None at the top, where the lanes enter.
        """
        made = self.weights[layer - 1]
        floats = (last - first) * made.pool * made.weight.shape[1] * len(self.lanes)
        size = max(1, -(-(last - first) // (1 + floats // _PIECE)))
        end = self._ends[layer - 1] + self._further[layer - 1]
        for start in range(first, last, size):
            stop = min(start + size, last)
            begin, rows = start * made.pool, (stop - start) * made.pool
            if layer == 1:
                here = slice(begin - self.begin, begin - self.begin + rows)
                below = out = self._sounds[:, here].unsqueeze(2)
            else:
                below = self._room(layer - 1, rows)
                early = self.weights[layer - 2].steps - 1
                out = below[:, early : early + rows]
            if y is None:
                out[:] = self._enter(begin, begin + rows)
            else:
                seen = slice(start - first, stop - first + made.steps - 1)
                gates = self.clip.gates(layer, slice(start, stop + made.steps - 1))
                step(y[:, seen], gates, made, out)
            if layer > 1:
                self._pass_on(layer - 1, below, begin, begin + rows, stop == end)

    def _room(self, layer: int, rows: int) -> Tensor:
        """Where the maps of a layer are written, with the steps that its block keeps around them.

        The same memory for every stretch of time, laid out as the block's `step` wants it.
        """
        made, lanes = self.weights[layer - 1], len(self.lanes)
        steps, channels = rows + 2 * made.steps + made.pool, made.weight.shape[0]
        rooms = self._rooms.get(layer)
        if rooms is None or rooms.numel() < steps * channels * lanes:
            rooms = self._rooms[layer] = self._sounds.new_empty(steps * channels * lanes)
        rooms = rooms[: steps * channels * lanes]
        if is_switched(made):
            return rooms.view(steps, channels, lanes).permute(2, 0, 1)
        return rooms.view(lanes, steps, channels)

    def _pass_on(self, layer: int, y: Tensor, start: int, stop: int, final: bool) -> None:
        """Rectify what came out of the block above, and go on with it."""
        early, end = self.weights[layer - 1].steps - 1, self._ends[layer - 1]
        # Never past the end of the map: what the pool had left over is zero.
        start, stop = min(start, end), min(stop, end)
        last = end + self._further[layer - 1] if final else stop
        kept = self._kept.get(layer)
        y[:, :early] = 0 if kept is None else kept
        y[:, early : early + stop - start].relu_()
        y[:, early + stop - start : early + last - start] = 0
        if not final:
            self._kept[layer] = y[:, last - start : early + last - start].clone()
        self._down(layer, y[:, : early + last - start], start, last)

    def _unpooled(self) -> Float[Tensor, "lane time"]:
        """The live maps of the lanes, with room for all taps."""
        made = self.weights[-1]
        map_ = self.clip.maps[self.top - 1]
        signal = map_.new_zeros(len(self.lanes), map_.shape[1] * made.pool)
        for row, lane in zip(signal, self.lanes, strict=True):
            for window in lane:
                here = slice(window.first * made.pool, window.last * made.pool)
                row[here] = self.clip.unpooled(self.top, window, made.pool)
        return F.pad(signal, (made.taps - 1, made.pool * (made.steps - 1)))

    def _enter(self, start: int, stop: int) -> Float[Tensor, "lane time channel"]:
        """Deconvolve the one live channel of every lane, each by its own filter."""
        made, signal, lanes = self.weights[-1], self._signal, self.lanes
        taps, pool = made.taps, made.pool
        present = [
            (max(window.first * pool, start), row, window.filter)
            for row, lane in enumerate(lanes)
            for window in lane
            if window.first * pool < stop and window.last * pool + taps - 1 > start
        ]
        out = signal.new_zeros(len(lanes), stop - start, made.single.shape[2])
        # A lane's later window overwrites what the earlier one's filter would have made of it.
        for begin, group in groupby(sorted(present), key=lambda window: window[0]):
            _, rows, filters = map(list, zip(*group, strict=True))
            piece = single(signal[rows, begin : stop + taps - 1], made, filters)
            if len(rows) == len(lanes) and begin == start:
                out = piece  # of all lanes, in order
            else:
                out[rows, begin - start :] = piece
        return out
