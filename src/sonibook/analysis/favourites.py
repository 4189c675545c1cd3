"""What a filter's favourite clips have in common, and pairs to look at (paper, figures 2 and 3).

The paper shows pairs of input and sonification that its authors chose. Here a rule chooses: of a
layer, the filter whose three favourite clips agree most in class; of equals, the one that likes
the third nearly as much as the first. And what the paper says of "content coupling" is counted:
how often two favourites of a filter share a class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Literal, Unpack

import numpy as np
import torch
from torch import nn

from sonibook.analysis.activations import (
    FilterActivations,
    LayerActivations,
    TopClip,
    top_activations,
)
from sonibook.analysis.baselines import is_baseline, with_random_weights
from sonibook.analysis.evolution import packed, small_spectrogram
from sonibook.analysis.result import Estimate, Record, Result, estimate, key_of
from sonibook.analysis.stream import Streaming, quietly_on_one_thread
from sonibook.datasets.base import Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError
from sonibook.metrics.coherence import mean_top_coherence

#: Clips of each filter that are compared.
FAVOURITES = 3


class SelectedPair(Record):
    """An input and its sonification, chosen by the rule.

    Attributes
    ----------
    layer, filter : int
    clip : TopClip
    label : str
        The clip's class.
    agreement : float in [0, 1]
        Share of pairs of the filter's favourites that share a class.
    coherence : float in [0, 1]
        Mean top-5 coherence of the two.
    input, sonification : str
        Spectrograms, as in `EvolutionStep`.
    """

    layer: int
    filter: int
    clip: TopClip
    label: str
    agreement: float
    coherence: float
    input: str
    sonification: str


class LayerFavourites(Record):
    """One layer.

    Attributes
    ----------
    layer : int
    agreement : Estimate
        Over filters: the share of pairs of favourites that share a class.
    filters, dead : int
        How many have as many favourites as are compared, and how many are live on no clip.
    """

    layer: int
    agreement: Estimate
    filters: int
    dead: int


class NetworkFavourites(Record):
    """One network.

    Attributes
    ----------
    network : str
    baseline : bool
    layers : tuple of LayerFavourites
    pairs : tuple of SelectedPair
        One a layer that has one; none of a baseline.
    """

    network: str
    baseline: bool
    layers: tuple[LayerFavourites, ...]
    pairs: tuple[SelectedPair, ...]


class FavouritesResult(Result):
    """What `favourite_clips` found.

    Attributes
    ----------
    chance : float
        The share of all pairs of clips that share a class.
    favourites : tuple of NetworkFavourites
    """

    analysis: Literal["favourites"] = "favourites"
    chance: float
    favourites: tuple[NetworkFavourites, ...]


def favourite_clips(
    networks: Mapping[str, nn.Module],
    data: Dataset,
    *,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> FavouritesResult:
    """How much the clips agree that a filter likes most, and a pair of each layer.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
        By name; each as `sonibook.model.stack.blocks_of` takes it.
    data : Dataset
        Single-label.
    seed : int >= 0
        Of the random weights and the intervals.
    **streaming
        As for `stream`.

    Returns
    -------
    FavouritesResult

    Raises
    ------
    AnalysisError
        If the data is not single-label, or as `top_activations`.
    StackError
        If a network cannot be inverted.
    """
    if data.task != "single-label":
        raise AnalysisError(f"{data.name} is {data.task}: favourites are compared by one label.")
    everything = with_random_weights(networks, seed=seed)
    found = top_activations(everything, data, k=FAVOURITES, **streaming)
    counts = Counter(data.labels(index)[0] for index in range(len(data)))
    pairs = len(data) * (len(data) - 1)
    return FavouritesResult(
        **key_of("favourites", everything, {"seed": seed}),
        data=found.data,
        chance=sum(count * (count - 1) for count in counts.values()) / max(pairs, 1),
        favourites=tuple(
            NetworkFavourites(
                network=one.network,
                baseline=is_baseline(one.network),
                layers=tuple(_layer(layer, data, seed) for layer in one.layers),
                pairs=()
                if is_baseline(one.network)
                else tuple(
                    _pair(everything[one.network], layer.layer, chosen, data)
                    for layer in one.layers
                    if (chosen := chosen_filter(layer, data)) is not None
                ),
            )
            for one in found.activations
        ),
    )


def agreement(filter: FilterActivations, data: Dataset) -> float:
    """The share of pairs of a filter's favourites that share a class; NaN where there are few."""
    if len(filter.top) < FAVOURITES:
        return float("nan")
    labels = [data.labels(one.index)[0] for one in filter.top]
    return float(np.mean([a == b for a, b in combinations(labels, 2)]))


def chosen_filter(layer: LayerActivations, data: Dataset) -> FilterActivations | None:
    """The filter that the rule chooses; None where none has enough favourites."""
    able = [one for one in layer.filters if len(one.top) == FAVOURITES]
    if not able:
        return None
    return max(able, key=lambda one: (agreement(one, data), one.top[-1].energy / one.top[0].energy))


def _layer(layer: LayerActivations, data: Dataset, seed: int) -> LayerFavourites:
    values = np.array([agreement(one, data) for one in layer.filters])
    return LayerFavourites(
        layer=layer.layer,
        agreement=estimate(values, seed=seed),
        filters=int((~np.isnan(values)).sum()),
        dead=layer.dead_filters,
    )


def _pair(network: nn.Module, layer: int, chosen: FilterActivations, data: Dataset) -> SelectedPair:
    top = chosen.top[0]
    x = torch.from_numpy(data[top.index].waveform)
    with quietly_on_one_thread():
        s = ForwardPass(network, x, depth=layer).sonify(layer, [chosen.filter])[0]
    both = x.double(), s[: len(x)].double()
    return SelectedPair(
        layer=layer,
        filter=chosen.filter,
        clip=top,
        label=data.classes[data.labels(top.index)[0]],
        agreement=agreement(chosen, data),
        coherence=float(mean_top_coherence(both[0][None], both[1][None])[0]),
        input=packed(small_spectrogram(both[0])),
        sonification=packed(small_spectrogram(both[1])),
    )
