"""Which clips activate each filter most, and which filters are dead (paper, section 3.3).

One pass over the data: of every filter of every layer the few best clips so far are kept, so that
memory hardly grows with the number of clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.analysis.measure import table_rows
from sonibook.analysis.networks import Networks, as_networks
from sonibook.analysis.result import Estimate, Measured, Record, ResultTable, Row, key_of
from sonibook.analysis.stream import Streaming, Tally, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.model.stack import blocks_of


class TopClip(Record):
    """A clip by its place in the data set, and the energy > 0 (mean square) of a filter's map on
    it.
    """

    clip_id: str
    index: int
    energy: float


class FilterActivations(Record):
    """On how many clips a filter's map was not zero throughout, and those of most energy.

    The clip of most energy is the first; of equal ones the earlier.
    """

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
    filters: tuple[FilterActivations, ...]

    def of_layer(self, network: str, layer: int) -> list[FilterActivations]:
        """The filters of one layer."""
        return [one for one in self.filters if (one.network, one.layer) == (network, layer)]


@dataclass(frozen=True)
class _Energies:
    """Energies of all filters of all layers of several networks, on some clips."""

    networks: dict[str, nn.Module]

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        return {
            f"{layer} {name}": np.stack(rows)
            for name, network in self.networks.items()
            for layer, rows in enumerate(
                zip(*(_energies(network, clip) for clip in clips), strict=True), start=1
            )
        }


def _energies(network: nn.Module, clip: Clip) -> list[Float[ndarray, " filters"]]:
    maps = FeatureMaps(network, clip.waveform)
    return [maps.energy(layer)[0].cpu().numpy() for layer in range(1, len(maps.blocks) + 1)]


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

    def filters(
        self, network: str, layer: int, names: Mapping[int, str]
    ) -> Iterator[FilterActivations]:
        """What was found, with the ids of clips by their places."""
        columns = zip(self.live_clips, self.energy, self.place, strict=True)
        for number, (live, energies, places) in enumerate(columns):
            top = tuple(
                TopClip(clip_id=names[int(place)], index=int(place), energy=float(energy))
                for energy, place in zip(energies, places, strict=True)
                if energy > 0
            )
            yield FilterActivations(
                network=network, layer=layer, filter=number, live_clips=int(live), top=top
            )


def top_activations(
    networks: Networks,
    data: Dataset,
    *,
    k: int = 3,
    **streaming: Unpack[Streaming],
) -> ActivationsResult:
    """The `k` clips that activate each filter of each layer most, in one pass over the data.

    Parameters
    ----------
    networks, data, streaming
        As for every analysis: see `sonibook.analysis`.
    k : int >= 1

    Returns
    -------
    ActivationsResult
    """
    given = as_networks(networks)
    if k < 1:
        raise AnalysisError(f"k {k} is impossible: choose 1 or more.")
    modules = {network.name: network.module for network in given}
    key = key_of("activations", modules, {"k": k})
    best = {
        f"{layer} {name}": _Best(block.conv.out_channels, k)
        for name, network in modules.items()
        for layer, block in enumerate(blocks_of(network), start=1)
    }
    names: dict[int, str] = {}
    tally = Tally()
    for chunk in stream(_Energies(modules), data, key=key, description="activations", **streaming):
        tally.add(chunk)
        if chunk.clip_ids:
            names |= zip(chunk.index.tolist(), chunk.clip_ids, strict=True)
            for name, one in best.items():
                one.add(chunk.arrays[name], chunk.index)
            named = set().union(*(one.place.ravel().tolist() for one in best.values()))
            names = {place: names[place] for place in named}
    tally.check()
    rows: list[Row] = []
    filters: list[FilterActivations] = []
    for network in given:
        layers = [
            best[f"{layer} {network.name}"]
            for layer in range(1, len(blocks_of(network.module)) + 1)
        ]
        dead = np.array([one.dead for one in layers]).T
        rows += table_rows([network], {(network.name, "dead maps", ""): dead})
        counted: dict[str, list[float]] = {
            "dead filters": [float((one.live_clips == 0).mean()) for one in layers],
            "top clips": [len({*one.place[one.live_clips > 0, 0].tolist()}) for one in layers],
        }
        for quantity, values in counted.items():
            for layer, value in enumerate(values, start=1):
                found = Estimate(mean=value, clips=tally.clips)
                rows.append(network.row(quantity, found, layer=layer))
        for layer, one in enumerate(layers, start=1):
            filters += one.filters(network.name, layer, names)
    on = Measured.of(data, clips=tally.clips, skipped=tally.skipped)
    return ActivationsResult(**key, data=on, rows=tuple(rows), filters=tuple(filters))
