"""Which clips activate each filter most, which filters are dead, and what top clips have in common.

Paper, section 3.3, and figures 2 and 3. One pass over the data: of every filter of every layer the
few best clips so far are kept, so that memory hardly grows with the number of clips.

The paper shows pairs of input and sonification that its authors chose. Here a rule chooses: of a
layer, the filter whose three top clips agree most in class; of equals, the one that the third
activates nearly as much as the first. "Content coupling" is counted by how much they agree.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Literal, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis import result, stream
from sonibook.analysis.networks import Networks, as_networks, with_random_weights
from sonibook.analysis.result import Estimate, MeasuredOn, Record, ResultTable, Row
from sonibook.analysis.stream import Chunk, Streaming, quietly_on_one_thread
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.metrics.scores import targets_of
from sonibook.metrics.similarity import mean_top_coherence, short_time_spectra
from sonibook.model.stack import blocks_of

#: Top clips of each filter that are compared.
_COMPARED = 3
#: Bands and frames of the small spectrograms that a result holds, and their range in dB.
_BANDS, _FRAMES, RANGE_DB = 64, 80, 80
_FRAME, _HOP = 256, 64


class TopClip(Record):
    """A clip by its place in the data set, and the energy > 0 of a filter's map on it."""

    clip_id: str
    index: int
    energy: float


class _Filter(Record):
    """On how many clips a filter is live, and those of most energy; of equal ones the earlier."""

    network: str
    layer: int
    filter: int
    live_clips: int
    top: tuple[TopClip, ...]


class ActivationsResult(ResultTable):
    """The top clips of every filter; make it with `top_activations`.

    Its quantities are ``dead maps``, the share of a layer's maps that are zero throughout;
    ``dead filters``, the share of its filters that are live on no clip; and ``top clips``, how many
    different clips some filter's map has most energy on. The last two have no interval. `filters`
    stand network by network, layer by layer.
    """

    analysis: Literal["activations"] = "activations"
    filters: tuple[_Filter, ...]

    def of_layer(self, network: str, layer: int) -> list[_Filter]:
        """The filters of one layer."""
        return [one for one in self.filters if (one.network, one.layer) == (network, layer)]


def _energies(networks: Mapping[str, nn.Module], clips: Sequence[Clip]) -> dict[str, ndarray]:
    """Energies of all filters of all layers of several networks, on some clips."""
    found: dict[str, list[ndarray]] = {}
    for name, network in networks.items():
        for clip in clips:
            maps = FeatureMaps(network, clip.waveform)
            for layer in range(1, len(maps.blocks) + 1):
                found.setdefault(f"{layer} {name}", []).append(maps.energy(layer).cpu().numpy())
    return {name: np.concatenate(rows) for name, rows in found.items()}


class _Best:
    """The clips of most energy so far, for each filter of one layer, and how many maps are dead."""

    def __init__(self, filters: int, k: int) -> None:
        self.k = k
        self.energy = np.zeros((filters, 0), np.float32)
        self.place = np.zeros((filters, 0), np.int64)
        self.live_clips = np.zeros(filters, np.int64)
        self.dead: list[float] = []

    def add(self, energy: Float[ndarray, "clips filters"], index: ndarray) -> None:
        """Take note of further clips, which stand after all before in the data set."""
        energies = np.concatenate([self.energy, energy.T], axis=1)
        places = np.concatenate([self.place, np.broadcast_to(index, energy.T.shape)], axis=1)
        # Stable, so that of equal clips the first is kept.
        order = np.argsort(-energies, axis=1, kind="stable")[:, : self.k]
        self.energy = np.take_along_axis(energies, order, axis=1)
        self.place = np.take_along_axis(places, order, axis=1)
        self.live_clips += (energy > 0).sum(axis=0)
        self.dead += (energy == 0).mean(axis=1).tolist()

    def filters(self, network: str, layer: int, names: Mapping[int, str]) -> Iterator[_Filter]:
        """What was found, with the ids of clips by their places."""
        columns = zip(self.live_clips, self.energy, self.place, strict=True)
        for number, (live, energies, places) in enumerate(columns):
            top = tuple(
                TopClip(clip_id=names[int(place)], index=int(place), energy=float(energy))
                for energy, place in zip(energies, places, strict=True)
                if energy > 0
            )
            yield _Filter(
                network=network, layer=layer, filter=number, live_clips=int(live), top=top
            )


def top_activations(
    networks: Networks, data: Dataset, *, k: int = 3, **streaming: Unpack[Streaming]
) -> ActivationsResult:
    """The `k` >= 1 clips that activate each filter of each layer most, in one pass over the data.

    Other parameters are those of every analysis: see `sonibook.analysis`.
    """
    given = as_networks(networks)
    stream.check_least(1, k=k)
    modules = {network.name: network.module for network in given}
    key = result.key_of("activations", modules, {"k": k})
    best = {
        f"{layer} {name}": _Best(block.conv.out_channels, k)
        for name, network in modules.items()
        for layer, block in enumerate(blocks_of(network), start=1)
    }

    def noted() -> Iterator[Chunk]:
        """The chunks without their arrays, once each filter has taken note of its best clips."""
        work = partial(_energies, modules)
        for chunk in stream.stream(work, data, key=key, description="activations", **streaming):
            for name, energies in chunk.arrays.items():
                best[name].add(energies, chunk.index)
            yield replace(chunk, arrays={})

    whole = stream.gather(noted())
    clips, names = len(whole.clip_ids), dict(zip(whole.index.tolist(), whole.clip_ids, strict=True))
    rows: list[Row] = []
    filters: list[_Filter] = []
    for network in given:
        depth = len(blocks_of(network.module))
        layers = [best[f"{layer} {network.name}"] for layer in range(1, depth + 1)]
        dead = np.array([one.dead for one in layers]).T
        rows += stream.table_rows([network], {(network.name, "dead maps", ""): dead})
        counted: dict[str, list[float]] = {
            "dead filters": [float((one.live_clips == 0).mean()) for one in layers],
            "top clips": [len({*one.place[one.live_clips > 0, 0].tolist()}) for one in layers],
        }
        rows += [
            network.row(quantity, Estimate(mean=value, clips=clips), layer=layer)
            for quantity, values in counted.items()
            for layer, value in enumerate(values, start=1)
        ]
        for layer, one in enumerate(layers, start=1):
            filters += one.filters(network.name, layer, names)
    on = MeasuredOn.of(data, clips=clips, skipped=whole.skipped)
    return ActivationsResult(**key, data=on, rows=tuple(rows), filters=tuple(filters))


class SelectedPair(Record):
    """A clip and its sonification, chosen by the rule, and their spectrograms: see `unpacked`."""

    network: str
    layer: int
    filter: int
    clip: TopClip
    label: str
    agreement: float
    coherence: float
    input: str
    sonification: str


class TopClipsResult(ResultTable):
    """What the top clips of filters have in common; make it with `top_clip_agreement`.

    Its quantity is ``agreement``, in [0, 1]: the mean over pairs of a filter's three top clips of
    their classes in common, as a share of the classes that either has (Jaccard 1901). Of clips with
    one label each it is the share of pairs that share a class. Its mean and interval are over
    filters that have as many top clips (which ``clips`` counts); of no network, under the condition
    ``chance``, it is the mean over all pairs of clips. Then ``dead filters``, as of
    `ActivationsResult`.

    Attributes
    ----------
    pairs : tuple of SelectedPair
        One for each layer that has one, but of no baseline.
    sample_rate : int, in Hz
        Of the clips.
    """

    analysis: Literal["top clips"] = "top clips"
    pairs: tuple[SelectedPair, ...]
    sample_rate: int


def top_clip_agreement(
    networks: Networks, data: Dataset, *, seed: int = 0, **streaming: Unpack[Streaming]
) -> TopClipsResult:
    """How much the clips that activate a filter most agree in class, and a pair of each layer.

    Parameters are those of every analysis: see `sonibook.analysis`.
    """
    every = with_random_weights(networks, data, seed=seed)
    found = top_activations(every, data, k=_COMPARED, **streaming)
    rows: list[Row] = []
    pairs: list[SelectedPair] = []
    for network in every:
        for layer in range(1, len(blocks_of(network.module)) + 1):
            filters = found.of_layer(network.name, layer)
            shares = np.array([agreement_of(one, data) for one in filters])
            over_filters = result.estimate(shares, seed=seed)
            rows.append(network.row("agreement", over_filters, layer=layer))
            chosen = None if network.baseline else chosen_filter(filters, data)
            if chosen is not None:
                pairs.append(_pair(network.module, chosen, data))
    rows += found.select(quantity="dead filters")
    chance = _chance(data)
    rows.append(Row(quantity="agreement", condition="chance", mean=chance, clips=len(data)))
    modules = {network.name: network.module for network in every}
    return TopClipsResult(
        **result.key_of("top clips", modules, {"seed": seed}),
        data=found.data,
        rows=tuple(rows),
        pairs=tuple(pairs),
        sample_rate=data.sample_rate,
    )


def _chance(data: Dataset) -> float:
    """The agreement of two clips drawn at random."""
    labels = [data.labels(index) for index in range(len(data))]
    classes = targets_of(labels, len(data.classes)).astype(float)
    sets, counts = np.unique(classes, axis=0, return_counts=True)
    common, sizes = sets @ sets.T, sets.sum(axis=1)
    shares = common / np.maximum(sizes[:, None] + sizes - common, 1)
    # Of all ordered pairs, those of a clip with itself are none.
    total = counts @ shares @ counts - counts @ shares.diagonal()
    return float(total / max(len(data) * (len(data) - 1), 1))


def agreement_of(filter: _Filter, data: Dataset) -> float:
    """Of a filter's top clips, in [0, 1]; NaN if there are too few. See `TopClipsResult`."""
    if len(filter.top) < _COMPARED:
        return float("nan")
    classes = [set(data.labels(one.index)) for one in filter.top]
    return float(np.mean([len(a & b) / max(len(a | b), 1) for a, b in combinations(classes, 2)]))


def chosen_filter(filters: Sequence[_Filter], data: Dataset) -> _Filter | None:
    """The filter of a layer that the rule chooses; None where none has enough top clips."""

    def rank(one: _Filter) -> tuple[float, float]:
        return agreement_of(one, data), one.top[-1].energy / one.top[0].energy

    return max((one for one in filters if len(one.top) == _COMPARED), key=rank, default=None)


def _pair(network: nn.Module, chosen: _Filter, data: Dataset) -> SelectedPair:
    top = chosen.top[0]
    x = torch.from_numpy(data[top.index].waveform)
    with quietly_on_one_thread():
        passed = ForwardPass(network, x, depth=chosen.layer)
        s = passed.sonify(chosen.layer, [chosen.filter])[0].cpu()
    both = x.double(), s[: len(x)].double()
    return SelectedPair(
        network=chosen.network,
        layer=chosen.layer,
        filter=chosen.filter,
        clip=top,
        label=", ".join(data.classes[label] for label in data.labels(top.index)),
        agreement=agreement_of(chosen, data),
        coherence=float(mean_top_coherence(both[0][None], both[1][None])[0]),
        input=packed(small_spectrogram(both[0])),
        sonification=packed(small_spectrogram(both[1])),
    )


def small_spectrogram(x: Float[Tensor, " time"]) -> UInt8[ndarray, "64 80"]:
    """A spectrogram for a results file, in dB above a floor 80 dB below its loudest point."""
    frames = short_time_spectra(x, frame=_FRAME, hop=_HOP)
    power = F.adaptive_avg_pool2d(frames.abs().square()[None], (_BANDS, _FRAMES))[0]
    relative = power / power.max().clamp_min(torch.finfo(x.dtype).tiny)
    levels = 10 * relative.clamp_min(10 ** (-RANGE_DB / 10)).log10() + RANGE_DB
    return levels.round().to(torch.uint8).numpy()


def packed(levels: UInt8[ndarray, "64 80"]) -> str:
    """A small spectrogram as text: compressed, in base64."""
    return base64.b64encode(zlib.compress(levels.tobytes(), 9)).decode()


def unpacked(text: str) -> UInt8[ndarray, "64 80"]:
    """What `packed` was given. What decompresses to more than a spectrogram is cut off there."""
    raw = zlib.decompressobj().decompress(base64.b64decode(text), _BANDS * _FRAMES)
    return np.frombuffer(raw, np.uint8).reshape(_BANDS, _FRAMES)
