"""The backward pass on a CPU, at the speed of its matrix multiplication.

The numbers of `ForwardPass.backward`, with the work that cannot matter left out:

- The forward pass and its switches are shared by all filters and layers.
- At the top one channel is alive: its step is a product with that filter's weights alone.
- There is no bias on the backward pass and ReLU(0) = 0. What lies outside the receptive fields of a
  map's non-zero steps is therefore exactly zero and is not computed: each map is cut into
  *windows* whose sounds do not touch (`cut`).
- A few sounds share the weights: one convolution takes all of them down a block, whatever their
  clips and layers (`batched`).
- Many sounds of one clip share its switches, too: unpooling and deconvolution together are one
  small matrix for each step, without the zeros that unpooling makes (`tiled`). Windows then lie
  behind each other in *columns* where there is room.

Threads share the sounds or the time, not the matrices: each core works on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from sonibook.deconvnet.cpu.batched import Entry, sonify_batched
from sonibook.deconvnet.cpu.tiled import Clip, Window, cut, pack, sonify_tiled
from sonibook.deconvnet.cpu.weights import SwitchMasks, reach, weights_of
from sonibook.deconvnet.forward import FeatureMaps

_Member = TypeVar("_Member")
#: Sounds at once from which on a matrix for every step is worth making.
_TILED_FROM = 16
#: Columns that share a matrix: more would not fit the cache.
_COLUMNS = 128
#: Clips whose most active filters go down together, and share the reading of weights.
_CLIPS = 4


def supports(passed: FeatureMaps) -> bool:
    """Whether the engine can compute this network here: on a CPU, mono, of blocks that it takes.

    These hold a convolution of any stride, dilation and padding, an activation, and perhaps a
    max-pool whose windows do not overlap, and batch normalisation.
    """
    return (
        passed.x.device.type == "cpu"
        and passed.x.dtype in (torch.float32, torch.float64)
        and passed.x.shape[1] == 1
        and all(weights_of(block) is not None for block in passed.blocks)
    )


class Engine:
    """The backward pass for one `FeatureMaps`.

    Parameters
    ----------
    passed : FeatureMaps
        For which `supports` is true.
    memory : int, in bytes
        What the engine may keep beside the maps and the result (at least one sound's worth).
    """

    def __init__(self, passed: FeatureMaps, *, memory: int = 2**30) -> None:
        # A copy, which shares the tensors: a pass and its engine that held each other would keep
        # them until the garbage collector comes by, which for a folder of clips is too late.
        self.passed, self.memory = copy(passed), memory
        weights = [weights_of(block) for block in passed.blocks]
        self._weights = [block for block in weights if block is not None]
        # Of the sound and each layer's map, where they are when what the network pads is counted.
        lengths = [passed.x.shape[2], *(maps.shape[2] for maps in passed.maps)]
        begins = [0]
        for block in reversed(self._weights):
            begins.append(begins[-1] * block.step + block.before)
        self._bounds = [(n, n + size) for n, size in zip(reversed(begins), lengths, strict=True)]
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._lock = Lock()

    def sonify(self, layer: int, filters: Sequence[int]) -> Float[Tensor, "batch filters time"]:
        """The raw sonifications of some filters of a layer, for every clip."""
        clips, _, samples = self.passed.x.shape
        result = self.passed.x.new_zeros(clips, len(filters), samples)
        known = self._clips()
        jobs: list[Callable[[], None]] = []
        rest: list[Entry] = []
        for clip, sounds in enumerate(result):
            for columns in self.columns(layer, clip, filters):
                if len(columns) >= _TILED_FROM:
                    jobs += self._tiled(layer, known[clip], columns, sounds)
                else:
                    windows = [window for column in columns for window in column]
                    rest += [(known[clip], window, sounds[window.row]) for window in windows]
        threads = torch.get_num_threads()
        parts = _divided(rest, max(len(rest) // _TILED_FROM, min(len(rest), threads)))
        jobs += [partial(sonify_batched, {layer: part}, self._weights) for part in parts]
        self._work(jobs)
        return result

    def sonify_one_each(
        self, layers: Sequence[int], filters: Int[ndarray, "batch layers"]
    ) -> Float[Tensor, "batch layers time"]:
        """The raw sonification of one filter of each layer, another for every clip."""
        clips, _, samples = self.passed.x.shape
        result = self.passed.x.new_zeros(clips, len(layers), samples)
        known = self._clips()
        jobs = []
        for members in _divided(range(clips), max(clips // _CLIPS, torch.get_num_threads())):
            entries: dict[int, list[Entry]] = {layer: [] for layer in layers}
            for clip in members:
                for row, layer in enumerate(layers):
                    for window in self._windows(layer, clip, [int(filters[clip, row])]):
                        entries[layer].append((known[clip], window, result[clip, row]))
            jobs.append(partial(sonify_batched, entries, self._weights))
        self._work(jobs)
        return result

    def _work(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Do what is to be done, each core a job of its own."""
        threads = torch.get_num_threads()
        if threads == 1 or len(jobs) == 1:
            for job in jobs:
                job()
            return
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as p:
                for future in [p.submit(job) for job in jobs]:
                    future.result()
        finally:
            torch.set_num_threads(threads)

    def _windows(self, layer: int, clip: int, filters: Sequence[int]) -> Iterator[Window]:
        """What has to be computed of some maps of a clip."""
        maps = self.passed.maps[layer - 1][clip, list(filters)].numpy()
        stride, begin = reach(self._weights[:layer]).stride, self._bounds[layer][0]
        return cut(maps, filters, gap=self._gap(layer), stride=stride, begin=begin)

    def _gap(self, layer: int) -> int:
        """Zeros between two stretches of a layer's map for which their sounds do not meet."""
        gap = 0
        for block in self._weights[:layer]:
            gap = -(-(gap + block.beyond * block.stride) // block.step)
        return gap

    def columns(self, layer: int, clip: int, filters: Sequence[int]) -> list[list[list[Window]]]:
        """The windows of some maps of a clip, packed; see `sonibook.deconvnet.cpu.tiled`."""
        return list(pack(self._windows(layer, clip, filters), self._gap(layer)))

    def _tiled(
        self,
        layer: int,
        clip: Clip,
        columns: Sequence[list[Window]],
        result: Float[Tensor, "row time"],
    ) -> list[Callable[[], None]]:
        """Columns of one clip in groups that share matrices, and every core as many of them."""
        threads, weights = torch.get_num_threads(), self._weights[:layer]
        # Its sound, its signal, and what is near the sound of it.
        column = 4 * 4 * self.passed.x.shape[2]
        column += sum(4 * 4 * block.steps * block.filters for block in weights)
        size = max(1, min(_COLUMNS, self.memory // (column * threads)))
        groups = _divided(columns, -(-len(columns) // size))
        first = min(window.first for column in columns for window in column)
        last = max(window.last for column in columns for window in column)
        # Where the groups cannot be shared out evenly, the time of each is.
        even = len(groups) % threads == 0 or last - first < 4 * threads * reach(weights).context
        bounds = _bounds(last - first, 1 if even else threads)
        stretches = [range(first + begin, first + end) for begin, end in bounds]
        return [
            partial(sonify_tiled, clip, weights, group, steps, result)
            for group in groups
            for steps in stretches
        ]

    def _clips(self) -> list[Clip]:
        """Every clip of the pass; made for each call: they hold the engine by its masks."""
        passed = self.passed
        return [
            Clip(
                [maps[clip] for maps in passed.maps],
                [None if switches is None else switches[clip] for switches in passed.switches],
                partial(self._mask, clip),
                self._bounds,
            )
            for clip in range(len(passed.x))
        ]

    def _mask(self, clip: int, layer: int, steps: slice) -> SwitchMasks:
        """As `Clip.masks`; kept within `memory`, all of them or none.

        Of a long clip each stretch gets its own: what has no room for every layer would be made
        anew, from end to end, for every stretch.
        """
        every = zip(self._weights, self.passed.maps, strict=True)
        if 4 * sum((block.pool - 1) * maps[0].numel() for block, maps in every) > self.memory:
            return self._make_mask(clip, layer, steps)
        key = (clip, layer)
        with self._lock:
            if key in self._masks:
                return self._masks[key][:, steps]
        whole = self._bounds[layer][1] + 2 * (self._weights[layer - 1].steps - 1)
        mask = self._make_mask(clip, layer, slice(0, whole))
        with self._lock:
            kept = sum(other.numel() for other in self._masks.values())
            while self._masks and 4 * (kept + mask.numel()) > self.memory:
                kept -= self._masks.pop(next(iter(self._masks))).numel()
            self._masks[key] = mask
        return mask[:, steps]

    def _make_mask(self, clip: int, layer: int, steps: slice) -> SwitchMasks:
        block, switches = self._weights[layer - 1], self.passed.switches[layer - 1]
        maps = self.passed.maps[layer - 1][clip]
        mask = maps.new_zeros(block.pool - 1, steps.stop - steps.start, len(maps))
        first = steps.start - (block.steps - 1) - self._bounds[layer][0]
        begin, end = max(first, 0), min(first + mask.shape[1], maps.shape[1])
        if switches is not None and begin < end:
            here = block.phases(switches[clip, :, begin:end], begin).t()
            for phase in range(1, block.pool):
                # Of two phases the switch itself says which.
                is_here = here if here.dtype is torch.bool else here == phase
                mask[phase - 1, begin - first : end - first] = is_here
        return mask


def _bounds(size: int, count: int) -> list[tuple[int, int]]:
    """Where `count` parts of about one size begin and end."""
    return list(pairwise(round(part * size / max(count, 1)) for part in range(count + 1)))


def _divided(members: Sequence[_Member], count: int) -> list[Sequence[_Member]]:
    """In `count` parts of about one size, in order."""
    return [members[begin:end] for begin, end in _bounds(len(members), count)]
