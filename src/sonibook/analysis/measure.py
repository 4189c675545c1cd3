"""From a measure to a result: networks and clips in, means with intervals out.

A *measure* takes one network and a few clips and gives arrays with a row for each clip, by the name
of what it measured::

    def loudness(network: nn.Module, clips: Sequence[Clip]) -> Measured:
        return {"rms": np.stack([rms_by_layer(network, clip.waveform) for clip in clips])}

An array of shape (clips, layers) becomes a row of the result for each layer, one of shape (clips,)
a single row; NaN stands for what could not be measured, and is left out. A name may come with a
condition: ``{("coherence", "another clip"): …}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Unpack

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import nn

from sonibook.analysis.networks import Network
from sonibook.analysis.result import MeasuredOn, ResultTable, Row, estimates, key_of
from sonibook.analysis.stream import LEAST_SAMPLES, Streaming, gather, stream
from sonibook.datasets.base import Clip, Dataset

#: Arrays by quantity, or by quantity and condition.
Measured: TypeAlias = dict[str | tuple[str, str], ndarray]
Measure: TypeAlias = Callable[[nn.Module, Sequence[Clip]], Measured]
_OfClips: TypeAlias = Callable[[Sequence[Clip]], Measured]


def measure_networks(
    analysis: str,
    measure: Measure,
    networks: Sequence[Network],
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    **options: Any,
) -> ResultTable:
    """A measure of each network as a table: options of `measure_clips`."""
    measured = measure_clips(analysis, measure, networks, data, **options)
    rows = tuple(table_rows(networks, measured.arrays, layers=layers, seed=seed))
    return ResultTable(**measured.fields, rows=rows)


@dataclass(frozen=True)
class ClipArrays:
    """What a measure gives of all clips, by (network, quantity, condition), and a `Result`'s
    fields.

    `index` says where the clips stand in the data set. What concerns no network has an empty name.
    """

    index: Int[ndarray, " clips"]
    arrays: dict[tuple[str, str, str], ndarray]
    fields: dict[str, Any]


def measure_clips(
    analysis: str,
    measure: Measure,
    networks: Sequence[Network],
    data: Dataset,
    *,
    settings: Mapping[str, Any],
    of_clips: _OfClips | None = None,
    least_samples: int = LEAST_SAMPLES,
    **streaming: Unpack[Streaming],
) -> ClipArrays:
    """What `measure_networks` makes means of."""
    modules = {network.name: network.module for network in networks}
    key = key_of(analysis, modules, settings)
    chunks = stream(
        _Work(modules, measure, of_clips),
        data,
        key=key,
        least_samples=least_samples,
        description=analysis,
        **streaming,
    )
    whole = gather(chunks)
    return ClipArrays(
        whole.index,
        {tuple(json.loads(name)): array for name, array in whole.arrays.items()},
        {**key, "data": MeasuredOn.of(data, clips=len(whole.clip_ids), skipped=whole.skipped)},
    )


def table_rows(
    networks: Sequence[Network],
    arrays: Mapping[tuple[str, str, str], Float[ndarray, "clips ..."]],
    *,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> Iterator[Row]:
    """Means over clips with their 95 % intervals, network by network."""
    identity = {network.name: network.identity for network in networks}
    order = [*identity, ""]
    for network, quantity, condition in sorted(arrays, key=lambda name: order.index(name[0])):
        array = arrays[network, quantity, condition]
        of_layers: Iterable[int | None] = (
            [None] if array.ndim == 1 else layers or range(1, array.shape[1] + 1)
        )
        found = estimates(array.reshape(len(array), -1), seed=seed)
        for layer, mean in zip(of_layers, found, strict=True):
            yield Row(
                **identity.get(network, {}),
                layer=layer,
                quantity=quantity,
                condition=condition,
                **mean.model_dump(),
            )


@dataclass(frozen=True)
class _Work:
    """A measure of some clips for every network, as `stream` wants it."""

    networks: dict[str, nn.Module]
    measure: Measure
    of_clips: _OfClips | None

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        found = {name: self.measure(module, clips) for name, module in self.networks.items()}
        if self.of_clips is not None:
            found[""] = self.of_clips(clips)
        return {
            json.dumps([name, key, ""] if isinstance(key, str) else [name, *key]): np.asarray(array)
            for name, measured in found.items()
            for key, array in measured.items()
        }
