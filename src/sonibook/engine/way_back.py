"""The way back on a CPU, at the speed of its matrix multiplication.

The numbers of `ForwardPass.way_back`, with the work that cannot matter left out:

- The forward pass and its switches are shared by all filters and layers.
- At the top one channel is alive: its step is a product with that filter's weights alone.
- There is no bias on the way back and ReLU(0) = 0. What lies outside the receptive fields of a
  map's non-zero steps is therefore exactly zero and is not computed: each map is cut into
  *windows* whose sounds do not touch, and windows of one length are computed together.
- Memory is (window, time, channel): a transposed convolution is a channels-last convolution with
  flipped weights. Batches shrink on the way down, so that they stay in the processor's cache.
- The last step, to one channel, is one product per pooled step that gives all samples it reaches.

Threads share the windows, not the matrices: each core works on sounds of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import groupby
from threading import Lock

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from sonibook.engine.weights import last_step, prepared, surplus
from sonibook.engine.windows import Window, cut
from sonibook.forward import FeatureMaps
from sonibook.layers import CACHED_FLOATS, effective_weight
from sonibook.stack import stride


def supports(passed: FeatureMaps) -> bool:
    """Whether the engine can compute this network here: on a CPU, unpadded, undilated."""
    return passed.x.device.type == "cpu" and all(
        block.padding == 0 and block.conv.dilation == (1,) for block in passed.blocks
    )


#: A layer, a clip, some filters, and where their sounds shall go, (filters, time).
_Request = tuple[int, int, Sequence[int], Tensor]


class Engine:
    """The way back for one `FeatureMaps`.

    Parameters
    ----------
    passed : FeatureMaps
        For which `supports` is true.
    memory : int, in bytes
        What the engine may keep beside the maps and the result (at least one window's worth).
    """

    def __init__(self, passed: FeatureMaps, *, memory: int = 2**30) -> None:
        # A copy, which shares the tensors: a pass and its engine that held each other would keep
        # them until the garbage collector comes by, which for a folder of clips is too late.
        self.passed, self.memory = copy(passed), memory
        weights = [prepared(block) for block in passed.blocks]
        self._top = [made.top for made in weights]
        self._full = [made.full for made in weights]
        self._last = last_step(effective_weight(passed.blocks[0].conv), passed.blocks[0].pool)
        self._gates: dict[tuple[int, int], Tensor] = {}
        self._lock = Lock()

    def sonify(self, layer: int, filters: Sequence[int]) -> Float[Tensor, "batch filters time"]:
        """The raw sonifications of some filters of a layer, for every clip.

        Parameters
        ----------
        layer : int
        filters : sequence of int
            Both checked by the caller.

        Returns
        -------
        Tensor, shape (batch, filters, time)
        """
        clips, _, samples = self.passed.x.shape
        result = self.passed.x.new_zeros(clips, len(filters), samples)
        self._work([(layer, clip, filters, result[clip]) for clip in range(clips)])
        return result

    def sonify_one_each(
        self, layers: Sequence[int], filters: Int[ndarray, "batch layers"]
    ) -> Float[Tensor, "batch layers time"]:
        """The raw sonification of one filter of each layer, another for every clip.

        Parameters
        ----------
        layers : sequence of int
        filters : ndarray of int, shape (batch, layers)

        Returns
        -------
        Tensor, shape (batch, layers, time)
        """
        clips, _, samples = self.passed.x.shape
        result = self.passed.x.new_zeros(clips, len(layers), samples)
        self._work(
            [
                (layer, clip, [int(filters[clip, row])], result[clip, row : row + 1])
                for clip in range(clips)
                for row, layer in enumerate(layers)
            ]
        )
        return result

    def _work(self, requests: list[_Request]) -> None:
        """Compute what is asked for, each core on windows of its own."""
        jobs = [
            (layer, clip, windows, result)
            for layer, clip, filters, result in requests
            for windows in self._batches(layer, clip, filters)
        ]
        threads = torch.get_num_threads()
        if threads == 1 or len(jobs) == 1:
            for job in jobs:
                self._run(*job)
            return
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as p:
                for future in [p.submit(self._run, *job) for job in jobs]:
                    future.result()
        finally:
            torch.set_num_threads(threads)

    def _batches(self, layer: int, clip: int, filters: Sequence[int]) -> Iterator[list[Window]]:
        """The windows of a clip, in batches of one length."""
        windows = sorted(self.windows(layer, clip, filters), key=lambda window: window.length)
        for length, group in groupby(windows, key=lambda window: window.length):
            block = self.passed.blocks[layer - 1]
            floats = (length * block.pool + block.extent) * block.conv.in_channels
            # The weights of a deep layer outgrow the cache: share each reading of them.
            size = max(CACHED_FLOATS, self._full[layer - 1].numel() // 4) // floats
            size = max(1, min(size, self.memory // (8 * 4 * floats), 64))
            members = list(group)
            # Every core shall have some.
            size = min(size, -(-len(members) // torch.get_num_threads()))
            for index in range(0, len(members), size):
                yield members[index : index + size]

    def windows(self, layer: int, clip: int, filters: Sequence[int]) -> Iterator[Window]:
        """What has to be computed of some maps of a clip; see `sonibook.engine.windows.cut`."""
        maps = self.passed.maps[layer - 1][clip, list(filters)].numpy()
        return cut(maps, self.passed.blocks[:layer], filters)

    @torch.inference_mode()
    def _run(self, layer: int, clip: int, windows: list[Window], result: Tensor) -> None:
        """Compute a batch of windows of one length and write it to its place in `result`."""
        blocks = self.passed.blocks[:layer]
        maps, block = self.passed.maps[layer - 1][clip], blocks[-1]
        y = maps.new_zeros(len(windows), windows[0].length)
        for row, window in enumerate(windows):
            inside = slice(window.first - window.start, window.last - window.start)
            y[row, inside] = maps[window.filter, window.first : window.last]
        filters = [window.filter for window in windows]
        starts = [window.start for window in windows]
        if block.pool > 1:
            position = self.passed.switches[layer - 1][clip]  # type: ignore[index]
            z = y.new_empty(*y.shape, block.pool)
            for row, (index, start) in enumerate(zip(filters, starts, strict=True)):
                chosen = position[index, start : start + y.shape[1]]
                rest = y[row]
                for phase in range(1, block.pool):
                    torch.mul(y[row], chosen == phase, out=z[row, :, phase])
                    rest = rest - z[row, :, phase]
                z[row, :, 0] = rest
            y = z.flatten(1)
        starts = [start * block.pool for start in starts]
        sound = self._descend(layer - 1, clip, self._first_step(layer, y, filters), starts)
        step = stride(blocks, layer)
        reach = sound.shape[1] - windows[0].length * step
        for row, window in enumerate(windows):
            length = (window.last - window.first) * step + reach
            begin = (window.first - window.start) * step
            place = slice(window.first * step, window.first * step + length)
            result[window.row, place] = sound[row, begin : begin + length]

    def _first_step(
        self, layer: int, y: Float[Tensor, "window steps"], filters: list[int]
    ) -> Float[Tensor, "window time channel"]:
        """Deconvolve one live channel, each window by its own filter."""
        top, taps = self._top[layer - 1][filters], self.passed.blocks[layer - 1].extent
        if top.shape[2] > 1:
            return torch.bmm(F.pad(y, (taps - 1, taps - 1)).unfold(1, taps, 1), top)
        sound = y.new_zeros(len(y), y.shape[1] + taps - 1)
        for tap in range(taps):
            sound[:, tap : tap + y.shape[1]].addcmul_(y, top[:, taps - 1 - tap])
        return sound.unsqueeze(2)

    def _descend(
        self, layer: int, clip: int, y: Float[Tensor, "window steps channel"], starts: list[int]
    ) -> Float[Tensor, "window samples"]:
        """From layer `layer` down to the sound; a batch too large for the cache is halved."""
        if layer == 0:
            return y[:, :, 0]
        block, weight = self.passed.blocks[layer - 1], self._full[layer - 1]
        room = max(CACHED_FLOATS, weight.numel() // 4)
        if len(y) > 1 and y.numel() * block.pool > room:
            half = len(y) // 2
            first = self._descend(layer, clip, y[:half], starts[:half])
            second = self._descend(layer, clip, y[half:], starts[half:])
            return torch.cat((first, second))
        y = y.relu_()
        below = [start * block.pool for start in starts]
        if layer == 1:
            return self._to_sound(clip, y, starts)
        if block.pool > 1:
            y = self._unpool(layer, clip, y, starts)
        y = F.conv2d(y.transpose(1, 2).unsqueeze(2), weight, padding=(0, block.extent - 1))
        return self._descend(layer - 1, clip, y.squeeze(2).transpose(1, 2), below)

    def _unpool(self, layer: int, clip: int, y: Tensor, starts: list[int]) -> Tensor:
        """Max-unpool (window, time, channel) to (window, pool * time, channel)."""
        pool = self.passed.blocks[layer - 1].pool
        windows, steps, channels = y.shape
        z = y.new_empty(windows, steps, pool, channels)
        gates = self._gate(layer, clip)
        for row, start in enumerate(starts):
            rest = y[row]
            for phase in range(1, pool):
                gate = gates[phase - 1, start : start + steps]
                torch.mul(y[row], gate, out=z[row, :, phase])
                last = phase == pool - 1
                rest = torch.sub(rest, z[row, :, phase], out=z[row, :, 0] if last else None)
        return z.flatten(1, 2)

    def _to_sound(self, clip: int, y: Tensor, starts: list[int]) -> Float[Tensor, "window samples"]:
        """Unpool and deconvolve the first block: (window, time, 64) to (window, samples).

        A step's value v goes to phase 0, or to the phase that its gate g says: v times the
        weights at phase 0, plus v g times what the weights at that phase have more.
        """
        pool, reach = self.passed.blocks[0].pool, self._last.shape[2]
        windows, steps, channels = y.shape
        gates = self._gate(1, clip) if pool > 1 else y.new_zeros(0)
        spread = y.new_empty(windows, steps, reach)
        tile = max(1, CACHED_FLOATS // (4 * channels))
        for row, start in enumerate(starts):
            for begin in range(0, steps, tile):
                here = slice(begin, begin + tile)
                part, target = y[row, here], spread[row, here]
                torch.mm(part, self._last[0], out=target)
                for phase in range(1, pool):
                    gate = gates[phase - 1, start + begin : start + begin + len(part)]
                    target.addmm_(part * gate, self._last[phase])
        sound = y.new_zeros(windows, pool * steps + reach - pool)
        for phase in range(0, reach, pool):
            piece = sound[:, phase : phase + pool * steps].unflatten(1, (steps, pool))
            piece += spread[:, :, phase : phase + pool]
        extra = surplus(self.passed.blocks[0])
        return sound[:, : sound.shape[1] - extra] if extra else sound

    def _gate(self, layer: int, clip: int) -> Float[Tensor, "phase time channel"]:
        """1 where the maximum was at phase 1, 2 … of its window, else 0; kept within `memory`."""
        key = (clip, layer)
        with self._lock:
            if key in self._gates:
                return self._gates[key]
        pool = self.passed.blocks[layer - 1].pool
        turned = self.passed.switches[layer - 1][clip].t()  # type: ignore[index]
        gate = torch.stack([turned == phase for phase in range(1, pool)]).to(torch.float32)
        with self._lock:
            kept = sum(other.numel() for other in self._gates.values())
            while self._gates and 4 * (kept + gate.numel()) > self.memory:
                kept -= self._gates.pop(next(iter(self._gates))).numel()
            self._gates[key] = gate
        return gate
