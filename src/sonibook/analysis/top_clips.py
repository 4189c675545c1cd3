"""What the clips that activate a filter most have in common, and pairs to look at (figures 2, 3).

The paper shows pairs of input and sonification that its authors chose. Here a rule chooses: of a
layer, the filter whose three top clips agree most in class; of equals, the one that the third
activates nearly as much as the first. And what the paper says of "content coupling" is counted:
how often two top clips of a filter share a class.
"""

from __future__ import annotations

from collections import Counter
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
from sonibook.errors import AnalysisError
from sonibook.metrics.coherence import mean_top_coherence
from sonibook.model.stack import blocks_of

#: Top clips of each filter that are compared.
_COMPARED = 3


class SelectedPair(Record):
    """An input and its sonification, chosen by the rule.

    Attributes
    ----------
    network : str
    layer, filter : int
    clip : TopClip
    label : str
        The clip's class.
    agreement : float in [0, 1]
        Share of pairs of the filter's top clips that share a class.
    coherence : float in [0, 1]
        Mean top-5 coherence of the two.
    input, sonification : str
        Spectrograms; see `sonibook.analysis.evolution.unpacked`.
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

    Its quantity is ``agreement``, in [0, 1]: the share of pairs of a filter's three top clips that
    share a class, its mean and interval over filters that have as many (which ``clips`` counts);
    of no network, under the condition ``chance``, the share of all pairs of clips. Then ``dead
    filters``, as of `ActivationsResult`.

    Attributes
    ----------
    pairs : tuple of SelectedPair
        One for each layer that has one, but of no baseline.
    """

    analysis: Literal["top clips"] = "top clips"
    pairs: tuple[SelectedPair, ...]


def top_clip_agreement(
    networks: Networks, data: Dataset, *, seed: int = 0, **streaming: Unpack[Streaming]
) -> TopClipsResult:
    """How much the clips that activate a filter most agree in class, and a pair of each layer.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module, or sequence of Network
    data : Dataset
        Single-label.
    seed : int >= 0
        Of the random weights and the intervals.
    **streaming
        As for `sonibook.analysis.stream.stream`.

    Returns
    -------
    TopClipsResult

    Raises
    ------
    AnalysisError
        If the data is not single-label, or as `top_activations`.
    StackError
        If a network cannot be inverted.
    """
    if data.task != "single-label":
        raise AnalysisError(f"{data.name} is {data.task}: top clips are compared by one label.")
    every = with_random_weights(networks, seed=seed)
    found = top_activations(every, data, k=_COMPARED, **streaming)
    rows: list[Row] = []
    pairs: list[SelectedPair] = []
    for network in every:
        for layer in range(1, len(blocks_of(network.module)) + 1):
            filters = found.of_layer(network.name, layer)
            shares = np.array([_agreement(one, data) for one in filters])
            over_filters = estimate(shares, seed=seed).model_dump()
            rows.append(Row(**network.identity, layer=layer, quantity="agreement", **over_filters))
            chosen = None if network.baseline else chosen_filter(filters, data)
            if chosen is not None:
                pairs.append(_pair(network.module, chosen, data))
    counts = Counter(data.labels(index)[0] for index in range(len(data)))
    chance = sum(count * (count - 1) for count in counts.values())
    chance_row = Row(
        quantity="agreement",
        condition="chance",
        mean=chance / max(len(data) * (len(data) - 1), 1),
        low=None,
        high=None,
        clips=len(data),
    )
    modules = {network.name: network.module for network in every}
    return TopClipsResult(
        **key_of("top clips", modules, {"seed": seed}),
        data=found.data,
        rows=(*rows, *found.select(quantity="dead filters"), chance_row),
        pairs=tuple(pairs),
    )


def _agreement(filter: FilterActivations, data: Dataset) -> float:
    """The share of pairs of a filter's top clips that share a class; NaN if there are too few."""
    if len(filter.top) < _COMPARED:
        return float("nan")
    labels = [data.labels(one.index)[0] for one in filter.top]
    return float(np.mean([a == b for a, b in combinations(labels, 2)]))


def chosen_filter(filters: Sequence[FilterActivations], data: Dataset) -> FilterActivations | None:
    """The filter of a layer that the rule chooses; None where none has enough top clips."""
    able = [one for one in filters if len(one.top) == _COMPARED]
    if not able:
        return None
    return max(
        able, key=lambda one: (_agreement(one, data), one.top[-1].energy / one.top[0].energy)
    )


def _pair(network: nn.Module, chosen: FilterActivations, data: Dataset) -> SelectedPair:
    top = chosen.top[0]
    x = torch.from_numpy(data[top.index].waveform)
    with quietly_on_one_thread():
        passed = ForwardPass(network, x, depth=chosen.layer)
        s = passed.sonify(chosen.layer, [chosen.filter])[0]
    both = x.double(), s[: len(x)].double()
    return SelectedPair(
        network=chosen.network,
        layer=chosen.layer,
        filter=chosen.filter,
        clip=top,
        label=data.classes[data.labels(top.index)[0]],
        agreement=_agreement(chosen, data),
        coherence=float(mean_top_coherence(both[0][None], both[1][None])[0]),
        input=packed(small_spectrogram(both[0])),
        sonification=packed(small_spectrogram(both[1])),
    )
