"""Which clips activate each filter most, and which filters are dead (paper, section 3.3).

One pass over the data: of every filter of every layer the few best clips so far are kept, so that
memory does not grow with the number of clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.analysis.parts import Tally
from sonibook.analysis.result import Measured, Record, Result, key_of
from sonibook.analysis.stream import Streaming, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.model.stack import blocks_of


class TopClip(Record):
    """A clip that activates a filter.

    Attributes
    ----------
    clip_id : str
    index : int
        Where it stands in the data set.
    energy : float > 0
        Mean square of the filter's map.
    """

    clip_id: str
    index: int
    energy: float


class FilterActivations(Record):
    """What one filter did.

    Attributes
    ----------
    filter : int
    live_clips : int
        On how many clips its map was not zero throughout; 0 for a dead filter.
    top : tuple of TopClip
        The clips of most energy, most first; of equal ones the earlier. Fewer than k where it
        was live on fewer.
    """

    filter: int
    live_clips: int
    top: tuple[TopClip, ...]


class LayerActivations(Record):
    """What the filters of one layer did.

    Attributes
    ----------
    layer : int
    filters : tuple of FilterActivations
    dead_filters : int
        Filters that were live on no clip.
    dead_pairs : int
        Pairs of a clip and a filter whose map was zero throughout.
    pairs : int
        Pairs in all.
    """

    layer: int
    filters: tuple[FilterActivations, ...]
    dead_filters: int
    dead_pairs: int
    pairs: int


class NetworkActivations(Record):
    """What the layers of one network did.

    Attributes
    ----------
    network : str
    layers : tuple of LayerActivations
    """

    network: str
    layers: tuple[LayerActivations, ...]


class ActivationsResult(Result):
    """The top clips of every filter; make it with `top_activations`.

    Attributes
    ----------
    activations : tuple of NetworkActivations
        One a network, as they were given.
    """

    analysis: Literal["activations"] = "activations"
    activations: tuple[NetworkActivations, ...]


@dataclass(frozen=True)
class _Energies:
    """Energies of all filters of all layers of several networks, on some clips."""

    networks: dict[str, nn.Module]

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        return {
            _name(number, layer): np.stack(rows)
            for number, network in enumerate(self.networks.values())
            for layer, rows in enumerate(
                zip(*(_energies(network, clip) for clip in clips), strict=True), start=1
            )
        }


def _energies(network: nn.Module, clip: Clip) -> list[Float[ndarray, " filters"]]:
    maps = FeatureMaps(network, clip.waveform)
    return [maps.energy(layer)[0].numpy() for layer in range(1, len(maps.blocks) + 1)]


def _name(number: int, layer: int) -> str:
    return f"{number}.{layer}"


class _Best:
    """The clips of most energy so far, for each filter of one layer."""

    def __init__(self, filters: int, k: int) -> None:
        self.k = k
        self.energy = np.zeros((filters, 0), np.float32)
        self.place = np.zeros((filters, 0), np.int64)
        self.live_clips = np.zeros(filters, np.int64)

    def add(self, energy: Float[ndarray, "clips filters"], index: ndarray) -> None:
        """Take note of further clips, which stand after all before in the data set."""
        energies = np.concatenate([self.energy, energy.T], axis=1)
        places = np.concatenate([self.place, np.broadcast_to(index, energy.T.shape)], axis=1)
        # Stable, so that of equal clips the first is kept.
        order = np.argsort(-energies, axis=1, kind="stable")[:, : self.k]
        self.energy = np.take_along_axis(energies, order, axis=1)
        self.place = np.take_along_axis(places, order, axis=1)
        self.live_clips += (energy > 0).sum(axis=0)

    def of_layer(self, layer: int, clips: int, names: Mapping[int, str]) -> LayerActivations:
        """What was found, of `clips` clips in all."""
        filters = tuple(
            FilterActivations(
                filter=index,
                live_clips=int(live),
                top=tuple(
                    TopClip(clip_id=names[int(place)], index=int(place), energy=float(energy))
                    for energy, place in zip(energies, places, strict=True)
                    if energy > 0
                ),
            )
            for index, (live, energies, places) in enumerate(
                zip(self.live_clips, self.energy, self.place, strict=True)
            )
        )
        pairs = clips * len(filters)
        return LayerActivations(
            layer=layer,
            filters=filters,
            dead_filters=int((self.live_clips == 0).sum()),
            dead_pairs=pairs - int(self.live_clips.sum()),
            pairs=pairs,
        )


def top_activations(
    networks: Mapping[str, nn.Module],
    data: Dataset,
    *,
    k: int = 3,
    **streaming: Unpack[Streaming],
) -> ActivationsResult:
    """The `k` clips that activate each filter of each layer most, in one pass over the data.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
        By name; each as `sonibook.model.stack.blocks_of` takes it.
    data : Dataset
    k : int >= 1
    **streaming
        `parts`, `chunk`, `processes` and `limit`, as for `stream`.

    Returns
    -------
    ActivationsResult

    Raises
    ------
    AnalysisError
        If there is no network, `k` is below 1, no clip can be measured, or as `stream`.
    StackError
        If a network cannot be inverted.
    """
    if not networks:
        raise AnalysisError("There is no network to analyse: give one at least.")
    if k < 1:
        raise AnalysisError(f"k {k} is impossible: choose 1 or more.")
    key = key_of("activations", networks, {"k": k})
    work = _Energies(dict(networks))
    best = {
        _name(number, layer): _Best(block.conv.out_channels, k)
        for number, network in enumerate(networks.values())
        for layer, block in enumerate(blocks_of(network), start=1)
    }
    names: dict[int, str] = {}
    tally = Tally()
    for chunk in stream(work, data, key=key, description="activations", **streaming):
        tally.add(chunk)
        if chunk.clip_ids:
            names |= zip(chunk.index.tolist(), chunk.clip_ids, strict=True)
            for name, one in best.items():
                one.add(chunk.arrays[name], chunk.index)
            named = set().union(*(one.place.ravel().tolist() for one in best.values()))
            names = {place: names[place] for place in named}
    tally.check()
    return ActivationsResult(
        **key,
        data=Measured.of(data, clips=tally.clips, skipped=tally.skipped),
        activations=tuple(
            NetworkActivations(
                network=name,
                layers=tuple(
                    best[_name(number, layer)].of_layer(layer, tally.clips, names)
                    for layer in range(1, len(blocks_of(network)) + 1)
                ),
            )
            for number, (name, network) in enumerate(networks.items())
        ),
    )
