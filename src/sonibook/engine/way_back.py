"""The way back on a CPU, at the speed of its matrix multiplication.

The numbers of `ForwardPass.way_back`, with the work that cannot matter left out:

- The forward pass and its switches are shared by all filters and layers.
- At the top one channel is alive: its step is a product with that filter's weights alone.
- There is no bias on the way back and ReLU(0) = 0. What lies outside the receptive fields of a
  map's non-zero steps is therefore exactly zero and is not computed: each map is cut into
  *windows* whose sounds do not touch, and windows share a *lane* where there is room (`windows`).
- The switches are the same for all sounds of a clip: unpooling and deconvolution together are one
  small matrix for each step, which all lanes share (`steps`).
- A stretch of time goes all the way down before the next is begun (`descent`).

Threads share the lanes, not the matrices: each core works on sounds of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import pairwise
from threading import Lock

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from sonibook.engine.descent import Clip, Descent
from sonibook.engine.steps import Gates
from sonibook.engine.weights import prepared
from sonibook.engine.windows import Lane, Window, cut, least_gap, pack
from sonibook.forward import FeatureMaps
from sonibook.stack import stride


def supports(passed: FeatureMaps) -> bool:
    """Whether the engine can compute this network here: on a CPU, unpadded, undilated."""
    return passed.x.device.type == "cpu" and all(
        block.padding == 0 and block.conv.dilation == (1,) for block in passed.blocks
    )


class Engine:
    """The way back for one `FeatureMaps`.

    Parameters
    ----------
    passed : FeatureMaps
        For which `supports` is true.
    memory : int, in bytes
        What the engine may keep beside the maps and the result (at least one lane's worth).
    """

    def __init__(self, passed: FeatureMaps, *, memory: int = 2**30) -> None:
        # A copy, which shares the tensors: a pass and its engine that held each other would keep
        # them until the garbage collector comes by, which for a folder of clips is too late.
        self.passed, self.memory = copy(passed), memory
        self._weights = [prepared(block) for block in passed.blocks]
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
        self._work(
            [
                (result[clip], clip, {layer: lanes})
                for clip in range(clips)
                for stretch in self.lanes(layer, clip, filters)
                for lanes in self._groups(stretch)
            ]
        )
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
        jobs = []
        for clip in range(clips):
            lanes: dict[int, list[Lane]] = {}
            for row, layer in sorted(enumerate(layers), key=lambda item: -item[1]):
                steps = self.passed.maps[layer - 1].shape[2]
                lanes.setdefault(layer, []).append([Window(row, int(filters[clip, row]), 0, steps)])
            jobs.append((result[clip], clip, lanes))
        self._work(jobs)
        return result

    def _work(self, jobs: Sequence[tuple[Tensor, int, Mapping[int, Sequence[Lane]]]]) -> None:
        """Compute what is asked for, each core on lanes of its own."""
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

    def lanes(self, layer: int, clip: int, filters: Sequence[int]) -> list[list[Lane]]:
        """What has to be computed of some maps of a clip; see `sonibook.engine.windows`."""
        blocks = self.passed.blocks[:layer]
        maps = self.passed.maps[layer - 1][clip, list(filters)].numpy()
        return list(pack(cut(maps, blocks, filters), least_gap(blocks)))

    def _groups(self, lanes: list[Lane]) -> list[list[Lane]]:
        """Lanes that are computed together: enough to share matrices, and some for every core."""
        threads = torch.get_num_threads()
        size = min(128, max(32, -(-len(lanes) // threads)))
        # Its sound, its signal, and what is near the sound of it.
        lane = 4 * 4 * self.passed.x.shape[2]
        size = max(1, min(size, self.memory // (lane * threads)))
        bounds = [*range(0, len(lanes), -(-len(lanes) // -(-len(lanes) // size))), len(lanes)]
        return [lanes[begin:end] for begin, end in pairwise(bounds)]

    @torch.inference_mode()
    def _run(self, result: Tensor, clip: int, lanes: Mapping[int, Sequence[Lane]]) -> None:
        """Compute lanes of one clip and write their windows to their places in `result`."""
        top = next(iter(lanes))
        blocks = self.passed.blocks[:top]
        maps = [m[clip] for m in self.passed.maps[:top]]
        if len(lanes) == 1:
            windows = [window for lane in lanes[top] for window in lane]
            first, last = min(w.first for w in windows), max(w.last for w in windows)
        else:
            first, last = 0, maps[-1].shape[1]
        switches = [None if s is None else s[clip] for s in self.passed.switches[:top]]
        gates = [self._gate(layer, clip) for layer in range(1, top + 1)]
        parts = Clip(maps, switches, gates)
        sounds = Descent(parts, self._weights[:top], lanes, first, last).run()
        begin = first * stride(blocks, top)
        row = 0
        for layer, members in lanes.items():
            step, reach = stride(blocks, layer), 0
            for block in reversed(blocks[:layer]):
                reach = reach * block.pool + block.extent - 1
            for lane in members:
                for window in lane:
                    place = slice(window.first * step, window.last * step + reach)
                    here = slice(place.start - begin, place.stop - begin)
                    result[window.row, place] = sounds[row, here]
                row += 1

    def _gate(self, layer: int, clip: int) -> Gates:
        """As `sonibook.engine.descent.Clip.gates`; kept within `memory`."""
        key = (clip, layer)
        with self._lock:
            if key in self._gates:
                return self._gates[key]
        made, switches = self._weights[layer - 1], self.passed.switches[layer - 1]
        early, maps = made.steps - 1, self.passed.maps[layer - 1][clip]
        gate = maps.new_zeros(made.pool - 1, maps.shape[1] + 2 * early, len(maps))
        if switches is not None:
            for phase in range(1, made.pool):
                gate[phase - 1, early : early + maps.shape[1]] = switches[clip].t() == phase
        with self._lock:
            kept = sum(other.numel() for other in self._gates.values())
            while self._gates and 4 * (kept + gate.numel()) > self.memory:
                kept -= self._gates.pop(next(iter(self._gates))).numel()
            self._gates[key] = gate
        return gate
