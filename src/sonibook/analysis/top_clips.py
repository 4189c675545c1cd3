"""What the clips that activate a filter most have in common, and pairs to look at (figures 2, 3).

The paper shows pairs of input and sonification that its authors chose. Here a rule chooses: of a
layer, the filter whose three top clips agree most in class; of equals, the one that the third
activates nearly as much as the first. And what the paper says of "content coupling" is counted:
how often two top clips of a filter share a class; of clips with any number of labels, which share
of the classes of either is of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, Unpack

import numpy as np
import torch
from torch import nn

from sonibook.analysis.activations import FilterActivations, TopClip, top_activations
from sonibook.analysis.evolution import packed, small_spectrogram
from sonibook.analysis.networks import Networks, with_random_weights
from sonibook.analysis.result import Record, ResultTable, Row, estimate, key_of
from sonibook.analysis.stream import Streaming, quietly_on_one_thread
from sonibook.datasets.base import Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.metrics.coherence import mean_top_coherence
from sonibook.metrics.scores import targets_of
from sonibook.model.stack import blocks_of

#: Top clips of each filter that are compared.
_COMPARED = 3


class SelectedPair(Record):
    """A clip and its sonification, chosen by the rule: its classes, the `agreement` of the filter's
    top clips, the coherence of the two, and their spectrograms (see `unpacked`).
    """

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

    Parameters
    ----------
    networks, data, seed, streaming
        As for every analysis: see `sonibook.analysis`.

    Returns
    -------
    TopClipsResult
    """
    every = with_random_weights(networks, data, seed=seed)
    found = top_activations(every, data, k=_COMPARED, **streaming)
    rows: list[Row] = []
    pairs: list[SelectedPair] = []
    for network in every:
        for layer in range(1, len(blocks_of(network.module)) + 1):
            filters = found.of_layer(network.name, layer)
            shares = np.array([agreement_of(one, data) for one in filters])
            over_filters = estimate(shares, seed=seed)
            rows.append(network.row("agreement", over_filters, layer=layer))
            chosen = None if network.baseline else chosen_filter(filters, data)
            if chosen is not None:
                pairs.append(_pair(network.module, chosen, data))
    rows += found.select(quantity="dead filters")
    chance = _chance(data)
    rows.append(Row(quantity="agreement", condition="chance", mean=chance, clips=len(data)))
    modules = {network.name: network.module for network in every}
    return TopClipsResult(
        **key_of("top clips", modules, {"seed": seed}),
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


def agreement_of(filter: FilterActivations, data: Dataset) -> float:
    """Of a filter's top clips, in [0, 1]; NaN if there are too few. See `TopClipsResult`."""
    if len(filter.top) < _COMPARED:
        return float("nan")
    classes = [set(data.labels(one.index)) for one in filter.top]
    return float(np.mean([len(a & b) / max(len(a | b), 1) for a, b in combinations(classes, 2)]))


def chosen_filter(filters: Sequence[FilterActivations], data: Dataset) -> FilterActivations | None:
    """The filter of a layer that the rule chooses; None where none has enough top clips."""
    able = [one for one in filters if len(one.top) == _COMPARED]
    if not able:
        return None
    return max(
        able, key=lambda one: (agreement_of(one, data), one.top[-1].energy / one.top[0].energy)
    )


def _pair(network: nn.Module, chosen: FilterActivations, data: Dataset) -> SelectedPair:
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
