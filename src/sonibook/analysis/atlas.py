"""Every filter's top clips and their sonifications: what the authors listened to (section 3.3).

`top_activations` finds the clips in one pass over the data. Then each clip that some filter chose
is read once more, and all the filters that chose it are sonified from one forward pass. Only a
stretch of each sonification is kept: the one around the largest value of the filter's map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Unpack

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.analysis.activations import ActivationsResult
from sonibook.analysis.coherence import spectral_shape
from sonibook.analysis.networks import Networks, as_networks
from sonibook.analysis.result import key_of
from sonibook.analysis.stream import Streaming, stream
from sonibook.audio import excerpt
from sonibook.datasets.base import Clip, Dataset, Subset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError
from sonibook.model.stack import receptive_field, stride

#: A filter of a layer of a network, and which of its top clips, from 0.
_Place = tuple[str, int, int, int]


class TopSound(NamedTuple):
    """A stretch of a top clip's sonification, from where on, and the shape, in Hz, of the whole."""

    network: str
    layer: int
    filter: int
    #: Which of the filter's top clips, from 0.
    rank: int
    start: int
    stretch: Float[ndarray, " time"]
    centroid: float
    bandwidth: float


class Shortened(Subset):
    """At most so many seconds of each clip of a data set: the first ones, or the loudest."""

    def __init__(self, data: Dataset, seconds: float, *, loudest: bool = False) -> None:
        super().__init__(data)
        self._most, self._loudest = max(1, round(seconds * data.sample_rate)), loudest
        if loudest:
            self.split = f"{data.split}, the loudest {seconds:g} s"

    def __getitem__(self, index: int) -> Clip:
        clip, rate = super().__getitem__(index), self.sample_rate
        if self._loudest:
            x = excerpt(clip.waveform, seconds=self._most / rate, sample_rate=rate)
            return replace(clip, waveform=x)
        return replace(clip, waveform=clip.waveform[: self._most])

    def samples(self, index: int) -> int:
        return min(super().samples(index), self._most)


class _Numbered(Subset):
    """Some clips of a data set, each called by its place there."""

    def __getitem__(self, index: int) -> Clip:
        return replace(super().__getitem__(index), clip_id=str(self.places[index]))


def _sonified(
    networks: Mapping[str, nn.Module],
    places: Mapping[str, Sequence[_Place]],
    samples: int,
    sample_rate: int,
    clips: Sequence[Clip],
) -> dict[str, ndarray]:
    """The sonifications of one clip at all places that chose it."""
    (clip,) = clips
    x, chosen = clip.waveform, places[clip.clip_id]
    size = min(samples, len(x))
    stretches = np.empty((len(chosen), size), np.float32)
    starts = np.empty(len(chosen), np.int64)
    shapes = np.empty((len(chosen), 2))
    by_layer: dict[str, dict[int, list[int]]] = {}
    for number, (name, layer, *_) in enumerate(chosen):
        by_layer.setdefault(name, {}).setdefault(layer, []).append(number)
    for name, layers in by_layer.items():
        passed = ForwardPass(networks[name], x, depth=max(layers))
        for layer, numbers in layers.items():
            filters = [chosen[number][2] for number in numbers]
            sounds = passed.sonify(layer, filters)[:, : len(x)].cpu().numpy()
            shapes[numbers] = spectral_shape(sounds, sample_rate=sample_rate)[:, :2]
            # The samples in the middle of what the largest values of maps respond to.
            steps = passed.maps[layer - 1][0, filters].argmax(dim=1).cpu().numpy()
            middles = steps * stride(passed.blocks, layer)
            middles += receptive_field(passed.blocks, layer) // 2
            starts[numbers] = np.clip(middles - size // 2, 0, len(x) - size)
            for number, sound in zip(numbers, sounds, strict=True):
                stretches[number] = sound[starts[number] :][:size]
    found = {"input": x, "stretch": stretches, "start": starts, "shape": shapes}
    return {key: value[None] for key, value in found.items()}


def sonify_top_clips(
    networks: Networks,
    data: Dataset,
    found: ActivationsResult,
    *,
    seconds: float = 1.0,
    **streaming: Unpack[Streaming],
) -> Iterator[tuple[int, Float[ndarray, " time"], list[TopSound]]]:
    """Sonify top clips, each read once; gives their places in the data set, and waveforms, too."""
    samples = round(seconds * data.sample_rate)
    if samples < 1:
        raise AnalysisError(f"A stretch of {seconds:g} s is impossible: choose more than 0.")
    modules = {network.name: network.module for network in as_networks(networks)}
    by_clip: dict[int, list[_Place]] = {}
    for one in found.filters:
        for rank, top in enumerate(one.top):
            place = (one.network, one.layer, one.filter, rank)
            by_clip.setdefault(top.index, []).append(place)
    indices = sorted(by_clip)
    places = {str(index): by_clip[index] for index in indices}
    work = partial(_sonified, modules, places, samples, data.sample_rate)
    key: dict[str, Any] = key_of("atlas", modules, {"samples": samples})
    key["places"] = [[index, len(by_clip[index])] for index in indices]
    own: Streaming = {**streaming, "chunk": 1, "limit": None}
    chunks = stream(work, _Numbered(data, indices), key=key, description="sonify", **own)
    for index, chunk in zip(indices, chunks, strict=True):
        if not chunk.clip_ids:
            raise AnalysisError(
                f"{data.clip_id(index)} was read, and now cannot be: is the disk there?"
            )
        part = {name: value[0] for name, value in chunk.arrays.items()}
        rows = zip(by_clip[index], part["start"], part["stretch"], part["shape"], strict=True)
        sounds = [
            TopSound(*place, int(start), stretch, float(shape[0]), float(shape[1]))
            for place, start, stretch, shape in rows
        ]
        yield index, part["input"], sounds
