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
from dataclasses import dataclass
from itertools import groupby
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.layers import effective_weight
from sonibook.stack import Block, stride

if TYPE_CHECKING:
    from sonibook.deconvnet import ForwardPass

#: Floats that one step's largest array should hold: a megabyte, half of a usual core's cache.
CACHED_FLOATS = 2**18
#: Zeros between two windows, in input samples, below which cutting costs more than it saves.
_LEAST_GAP = 2048


def supports(passed: ForwardPass) -> bool:
    """Whether the engine can compute this network here: on a CPU, unpadded, undilated."""
    return passed.x.device.type == "cpu" and all(
        block.padding == 0 and block.conv.dilation == (1,) for block in passed.blocks
    )


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


@dataclass(frozen=True)
class _Weights:
    """A convolution's weights as the way back wants them, and what they were made from."""

    source: tuple[int, int]
    top: Tensor  # (filter, kernel, channel): for the step with one live channel
    full: Tensor  # (channel, filter, 1, kernel), channels last: for those with many


_PREPARED: WeakKeyDictionary[nn.Conv1d, _Weights] = WeakKeyDictionary()


def _prepared(block: Block) -> _Weights:
    """A block's weights, flipped once for all clips; made anew when the weights have changed."""
    weight = effective_weight(block.conv).detach()
    lasting = weight.data_ptr() == block.conv.weight.data_ptr() and not weight.is_inference()
    source = (weight.data_ptr(), weight._version) if lasting else (0, 0)
    known = _PREPARED.get(block.conv)
    if known is not None and lasting and known.source == source:
        return known
    flipped = weight.flip(2)
    fresh = _Weights(
        source,
        top=flipped.transpose(1, 2).contiguous(),
        full=flipped.transpose(0, 1).unsqueeze(2).contiguous(memory_format=torch.channels_last),
    )
    if lasting:
        _PREPARED[block.conv] = fresh
    return fresh


class Engine:
    """The way back for one `ForwardPass`.

    Parameters
    ----------
    passed : ForwardPass
        For which `supports` is true.
    memory : int, in bytes
        What the engine may keep beside the maps and the result (at least one window's worth).
    """

    def __init__(self, passed: ForwardPass, *, memory: int = 2**30) -> None:
        # A copy, which shares the tensors: a pass and its engine that held each other would keep
        # them until the garbage collector comes by, which for a folder of clips is too late.
        self.passed, self.memory = copy(passed), memory
        prepared = [_prepared(block) for block in passed.blocks]
        self._top = [weights.top for weights in prepared]
        self._full = [weights.full for weights in prepared]
        self._last = _last_step(effective_weight(passed.blocks[0].conv), passed.blocks[0].pool)
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
        jobs = [job for clip in range(clips) for job in self._jobs(layer, clip, filters)]
        threads = torch.get_num_threads()
        if threads == 1 or len(jobs) == 1:
            for clip, windows in jobs:
                self._run(layer, clip, windows, result[clip])
            return result
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as p:
                for future in [p.submit(self._run, layer, c, w, result[c]) for c, w in jobs]:
                    future.result()
        finally:
            torch.set_num_threads(threads)
        return result

    def _jobs(
        self, layer: int, clip: int, filters: Sequence[int]
    ) -> Iterator[tuple[int, list[Window]]]:
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
                yield clip, members[index : index + size]

    def windows(self, layer: int, clip: int, filters: Sequence[int]) -> Iterator[Window]:
        """Cut every map where it is zero for so long that the sounds on both sides do not meet.

        Parameters
        ----------
        layer, clip : int
        filters : sequence of int

        Yields
        ------
        Window
            Together they hold every non-zero step of the maps; a silent map has none.
        """
        maps = self.passed.maps[layer - 1][clip, list(filters)].numpy()
        gap = 0
        for block in self.passed.blocks[:layer]:
            gap = -(-(gap + block.extent - 1) // block.pool)
        gap = max(gap, _LEAST_GAP // stride(self.passed.blocks, layer))
        rows, steps = np.nonzero(maps)
        if rows.size == 0:
            return
        fresh = np.flatnonzero((np.diff(rows) != 0) | (np.diff(steps) > gap)) + 1
        begin, end = np.append(0, fresh), np.append(fresh, rows.size) - 1
        total = maps.shape[1]
        for row, first, last in zip(rows[begin], steps[begin], steps[end] + 1, strict=True):
            length = _rounded(int(last - first), total)
            start = min(int(first), total - length)
            yield Window(int(row), filters[row], int(first), int(last), start, length)

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
            chosen = torch.stack(
                [position[f, s : s + y.shape[1]] for f, s in zip(filters, starts, strict=True)]
            )
            phases = torch.arange(block.pool, dtype=torch.uint8)
            y = (y.unsqueeze(2) * (chosen.unsqueeze(2) == phases)).flatten(1)
        taps = block.extent
        spread = F.pad(y, (taps - 1, taps - 1)).unfold(1, taps, 1)
        y = torch.bmm(spread, self._top[layer - 1][filters])
        starts = [start * block.pool for start in starts]
        sound = self._descend(layer - 1, clip, y, starts)
        step = stride(blocks, layer)
        reach = sound.shape[1] - windows[0].length * step
        for row, window in enumerate(windows):
            length = (window.last - window.first) * step + reach
            begin = (window.first - window.start) * step
            place = slice(window.first * step, window.first * step + length)
            result[window.row, place] = sound[row, begin : begin + length]

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
        """Unpool and deconvolve the first block: (window, time, 64) to (window, samples)."""
        pool, reach = self.passed.blocks[0].pool, self._last.shape[1]
        windows, steps, channels = y.shape
        spread = y.new_empty(windows, steps, reach)
        tile = max(1, CACHED_FLOATS // (2 * pool * channels))
        for begin in range(0, steps, tile):
            piece = y[:, begin : begin + tile]
            z = piece
            if pool > 1:
                z = self._unpool(1, clip, piece, [start + begin for start in starts])
            spread[:, begin : begin + tile] = z.reshape(*piece.shape[:2], -1) @ self._last
        sound = y.new_zeros(windows, pool * steps + reach - pool)
        for phase in range(0, reach, pool):
            piece = sound[:, phase : phase + pool * steps].unflatten(1, (steps, pool))
            piece += spread[:, :, phase : phase + pool]
        extra = _padding(self.passed.blocks[0])
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


def _rounded(length: int, limit: int) -> int:
    """`length` up to the next of few values, an eighth apart, so that windows share a shape."""
    grain = max(1, 2 ** (max(length - 1, 1).bit_length() - 3))
    return min(-(-length // grain) * grain, limit)


def _padding(first: Block) -> int:
    """Columns that `_last_step` adds so that they divide by the pool."""
    return -(first.extent + first.pool - 1) % first.pool


def _last_step(weight: Float[Tensor, "filter 1 kernel"], pool: int) -> Float[Tensor, "in out"]:
    """The last deconvolution as a matrix: from one pooled step, unpooled, to all it reaches."""
    kernel = weight[:, 0]
    reach = kernel.shape[1] + pool - 1
    reach += -reach % pool
    rows = [F.pad(kernel, (phase, reach - kernel.shape[1] - phase)) for phase in range(pool)]
    return torch.cat(rows)
