"""Some sounds of one clip on their way back together, a cacheful of time after the other.

A deconvolution's output depends on no later step of its input. So a stretch of time can go all the
way down to the sound before the next one is begun: each block keeps the last few steps that the
next stretch needs (`_kept`), and what is large, the maps near the sound, never leaves the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sonibook.engine.steps import is_many, single, step
from sonibook.engine.weights import Weights
from sonibook.engine.windows import Lane
from sonibook.layers import CACHED_FLOATS

#: Maps near the sound are computed in pieces of this size.
_PIECE = CACHED_FLOATS // 2


@dataclass(frozen=True)
class Clip:
    """What the way back needs to know of a clip, layer 1 first.

    Attributes
    ----------
    maps : sequence of Tensor, shapes (filter, steps)
    switches : sequence of Tensor or None, the shapes of `maps`
    gates : sequence of Tensor, shapes (phase, steps + 2 * early, filter)
        1 where the maximum was at phase 1, 2 …, else 0; `early` steps are added at both ends, one
        less than `Weights.steps`.
    """

    maps: Sequence[Float[Tensor, "_ _"]]
    switches: Sequence[Bool[Tensor, "_ _"] | UInt8[Tensor, "_ _"] | None]
    gates: Sequence[Float[Tensor, "_ _ _"]]


class Descent:
    """Lanes of windows, each entering at its layer, on their way to the sound.

    Parameters
    ----------
    clip : Clip
    weights : sequence of Weights
        Of the blocks, first layer first.
    lanes : mapping of int to list of Lane
        By layer, deepest first.
    first, last : int, in steps of the deepest layer
        What is to be computed; where lanes enter at several layers, all of the clip.
    """

    def __init__(
        self,
        clip: Clip,
        weights: Sequence[Weights],
        lanes: Mapping[int, Sequence[Lane]],
        first: int,
        last: int,
    ) -> None:
        self.clip, self.weights, self.lanes = clip, weights, lanes
        self.top = next(iter(lanes))
        #: Where the computed stretch of each layer ends.
        self._ends = [0] * self.top
        self._ends[-1] = last
        for layer in range(self.top - 1, 0, -1):
            made, steps = weights[layer], clip.maps[layer - 1].shape[1]
            reached = made.pool * (self._ends[layer] + made.steps - 1)
            self._ends[layer - 1] = min(steps, reached) if len(lanes) == 1 else steps
        self._first = first
        self._signals = {layer: self._signal(layer) for layer in lanes}
        self._kept: dict[int, Tensor] = {}
        self._rooms: dict[int, Tensor] = {}
        count = sum(map(len, lanes.values()))
        step_samples = 1
        for made in weights[: self.top]:
            step_samples *= made.pool
        self._begin = first * step_samples
        bottom = weights[0]
        samples = bottom.pool * (self._ends[0] + bottom.steps - 1) - self._begin
        self._sounds = clip.maps[0].new_empty(count, samples)

    def run(self) -> Float[Tensor, "lane samples"]:
        """The lanes' sounds from the first step on, deepest layer first."""
        last = self._ends[-1] + self.weights[self.top - 1].steps - 1
        self._down(self.top, None, self._first, last)
        return self._sounds

    def _down(self, layer: int, y: Tensor | None, first: int, last: int) -> None:
        """Take steps `first` to `last` of a layer to the sound.

        `y` are the rectified maps that came from above; they begin as many steps before `first`
        as `step` wants.
        """
        made, entering = self.weights[layer - 1], self.lanes.get(layer, ())
        coming = 0 if y is None else len(y)
        channels = made.weight.shape[1]
        floats = (last - first) * made.pool * channels * (coming + len(entering))
        size = max(1, -(-(last - first) // (1 + floats // _PIECE)))
        end = self._ends[layer - 1] + made.steps - 1
        for start in range(first, last, size):
            stop = min(start + size, last)
            begin, rows = start * made.pool, (stop - start) * made.pool
            if layer == 1:
                here = slice(begin - self._begin, begin - self._begin + rows)
                below = out = self._sounds[:, here].unsqueeze(2)
            else:
                below = self._room(layer - 1, coming + len(entering), rows)
                early = self.weights[layer - 2].steps - 1
                out = below[:, early : early + rows]
            if y is not None:
                seen = slice(start - first, stop - first + made.steps - 1)
                gates = self.clip.gates[layer - 1][:, start : stop + made.steps - 1]
                step(y[:, seen], gates, made, out[:coming])
            if entering:
                out[coming:] = self._enter(layer, begin, begin + rows)
            if layer > 1:
                self._pass_on(layer - 1, below, begin, begin + rows, stop == end)

    def _room(self, layer: int, lanes: int, rows: int) -> Tensor:
        """Where the maps of a layer are written, with the steps that its block keeps around them.

        The same memory for every stretch of time, laid out as the block's `step` wants it.
        """
        made = self.weights[layer - 1]
        steps, channels = rows + 2 * made.steps + made.pool, made.weight.shape[0]
        rooms = self._rooms.get(layer)
        if rooms is None or rooms.numel() < steps * channels * lanes:
            rooms = self._rooms[layer] = self._sounds.new_empty(steps * channels * lanes)
        rooms = rooms[: steps * channels * lanes]
        if is_many(lanes, made):
            return rooms.view(steps, channels, lanes).permute(2, 0, 1)
        return rooms.view(lanes, steps, channels)

    def _pass_on(self, layer: int, y: Tensor, start: int, stop: int, final: bool) -> None:
        """Rectify what came out of the block above, and go on with it."""
        early, end = self.weights[layer - 1].steps - 1, self._ends[layer - 1]
        # Never past the end of the map: what the pool had left over is zero.
        start, stop = min(start, end), min(stop, end)
        last = end + early if final else stop
        kept = self._kept.get(layer)
        y[:, :early] = 0 if kept is None else kept
        y[:, early : early + stop - start].relu_()
        y[:, early + stop - start : early + last - start] = 0
        if not final:
            self._kept[layer] = y[:, last - start : early + last - start].clone()
        self._down(layer, y[:, : early + last - start], start, last)

    def _signal(self, layer: int) -> Float[Tensor, "lane time"]:
        """The unpooled maps of the lanes that enter at a layer, with room for all its taps."""
        made, maps = self.weights[layer - 1], self.clip.maps[layer - 1]
        switches = self.clip.switches[layer - 1]
        lanes = self.lanes[layer]
        signal = maps.new_zeros(len(lanes), maps.shape[1], made.pool)
        for row, lane in enumerate(lanes):
            for window in lane:
                steps = slice(window.first, window.last)
                values = maps[window.filter, steps]
                if switches is None:
                    signal[row, steps, 0] = values
                else:
                    chosen = switches[window.filter, steps]
                    for phase in range(made.pool):
                        torch.mul(values, chosen == phase, out=signal[row, steps, phase])
        room = made.pool * (made.steps - 1)
        return F.pad(signal.flatten(1), (made.taps - 1, room))

    def _enter(self, layer: int, start: int, stop: int) -> Float[Tensor, "lane time channel"]:
        """Deconvolve the one live channel of the lanes that enter, each by its own filter."""
        made, signal, lanes = self.weights[layer - 1], self._signals[layer], self.lanes[layer]
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
