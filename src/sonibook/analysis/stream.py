"""Any measure over any data set: in chunks, in several processes, resumed where it stopped.

A *measure* takes one network and a few clips, and gives arrays with a row for each clip, by the
name of what it measured; `measure_networks` makes a result of it, and a table of means::

    def loudness(network: nn.Module, clips: Sequence[Clip]) -> Measured:
        return {"rms": np.stack([rms_by_layer(network, clip.waveform) for clip in clips])}

An array of shape (clips, layers) becomes a row of the result for each layer, one of shape (clips,)
a single row; NaN stands for what could not be measured, and is left out. A name may come with a
condition: ``{("coherence", "another clip"): …}``.

The chunks come in the order of the data set and hold the same bits whatever the number of
processes: PyTorch adds up in another order with another number of threads, so each process, even
a single one, computes with one. What is random is drawn from `seeded`, by the clip and not by the
order in which clips are met. Worker processes unpickle measures: they stand at the top of a module.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import nn

from sonibook.analysis.networks import Network
from sonibook.analysis.result import MeasuredOn, ResultTable, Row, estimates, key_of
from sonibook.analysis.workers import in_order
from sonibook.datasets.base import Clip, Dataset
from sonibook.errors import AnalysisError, AudioError, MissingAudioError, SonibookWarning
from sonibook.files import atomic, parse_json, read_arrays

#: Measures some clips. Every array has a row for each clip, in their order.
_Work = Callable[[Sequence[Clip]], dict[str, ndarray]]
#: Arrays by quantity, or by quantity and condition.
Measured: TypeAlias = dict[str | tuple[str, str], ndarray]
Measure: TypeAlias = Callable[[nn.Module, Sequence[Clip]], Measured]

#: Clips of fewer samples are not measured, unless an analysis asks for more.
_LEAST_SAMPLES = 256
#: A chunk of so many clips of which none can be read means a bad disk, not a run of bad files.
_BAD_TOGETHER = 4


@dataclass(frozen=True)
class Chunk:
    """Some clips, and where they stand in the data set: arrays with a row each; others skipped."""

    index: Int[ndarray, " clips"]
    clip_ids: tuple[str, ...]
    skipped: dict[str, int]
    arrays: dict[str, ndarray]


@dataclass(frozen=True)
class ChunkCache:
    """The chunks of one analysis of one data set."""

    folder: Path

    @classmethod
    def of(cls, parts: str | Path, key: list[Any], data: Dataset) -> ChunkCache:
        """Those below the folder `parts` that were measured with the same key on the same data."""
        whole = [version("sonibook"), key, _traits(data)]
        text = json.dumps(whole, sort_keys=True, allow_nan=False)
        return cls(Path(parts) / hashlib.sha256(text.encode()).hexdigest()[:16])

    def read(self, number: int) -> Chunk | None:
        """Chunk `number`, or None if it is not there, or damaged."""
        try:
            path = self._file(number)
            head = read_arrays(path, ("head", "index"))
            clip_ids, skipped, names = parse_json(str(head["head"]))
            arrays = read_arrays(path, [f"array{place}" for place in range(len(names))])
            measured = dict(zip(names, arrays.values(), strict=True))
            return Chunk(head["index"], tuple(clip_ids), skipped, measured)
        except (OSError, ValueError, TypeError):
            return None

    def write(self, number: int, chunk: Chunk) -> None:
        """Keep `chunk` as number `number`, whole or not at all."""
        head = json.dumps([chunk.clip_ids, chunk.skipped, list(chunk.arrays)])
        arrays: dict[str, Any] = {
            f"array{place}": value for place, value in enumerate(chunk.arrays.values())
        }
        with atomic(self._file(number)) as temporary:
            np.savez(temporary, head=np.array(head), index=chunk.index, **arrays)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def _traits(data: Dataset) -> list[object]:
    """What tells a data set from others, also by options that only its sounds betray."""
    ends: list[str] = []
    for place in (0, len(data) - 1) if len(data) else ():
        try:
            clip = data[place]
            ends += [clip.clip_id, hashlib.sha256(clip.waveform.tobytes()).hexdigest()]
        except AudioError as error:
            ends.append(str(error))
    return [data.name, data.split, len(data), data.task, list(data.classes), ends]


class Streaming(TypedDict, total=False):
    """How to go through a data set, for ``**streaming: Unpack[Streaming]``."""

    #: A folder in which measured chunks are kept, so that what was interrupted goes on.
    parts: str | Path | None
    #: Clips that are measured together.
    chunk: int
    #: None for as many as there are cores.
    processes: int | None
    #: Measure only so many clips, evenly spaced.
    limit: int | None


def stream(
    work: _Work,
    data: Dataset,
    *,
    key: dict[str, Any],
    parts: str | Path | None = None,
    chunk: int = 16,
    processes: int | None = 1,
    limit: int | None = None,
    least_samples: int = _LEAST_SAMPLES,
    description: str = "analyse",
) -> Iterator[Chunk]:
    """Measure a data set, a chunk at a time; clips that cannot be measured never reach the work."""
    from tqdm.auto import tqdm

    check_least(1, chunk=chunk, processes=processes, limit=limit)
    count = len(data) if limit is None else min(limit, len(data))
    kept = None if parts is None else ChunkCache.of(parts, [key, count, chunk, least_samples], data)
    job = partial(_chunk, work, data, least_samples, kept)
    indices = [
        tuple(place * len(data) // count for place in range(start, min(start + chunk, count)))
        for start in range(0, count, chunk)
    ]
    workers = min(processes or os.cpu_count() or 1, max(len(indices), 1))
    with tqdm(total=count, desc=description, unit="clip", disable=None, leave=False) as bar:
        try:
            for measured in in_order(job, list(enumerate(indices)), workers):
                bar.update(min(chunk, count - bar.n))
                yield measured
        except BrokenProcessPool:
            note = "" if parts is None else " What was measured is kept: run it again to go on."
            raise AnalysisError(
                f"One of {workers} processes died, as where memory runs out: try fewer.{note}"
            ) from None


def check_least(least: int, **values: int | None) -> None:
    """Raise an `AnalysisError` for the first value that is less; None stands for no limit."""
    for name, value in values.items():
        if value is not None and value < least:
            raise AnalysisError(f"{name} {value} is impossible: choose {least} or more.")


def gather(chunks: Iterable[Chunk]) -> Chunk:
    """All chunks as one; `AnalysisError`, which says why, if not one clip was measured."""
    every = list(chunks)
    full = [one for one in every if one.clip_ids]
    counts = sum((Counter(one.skipped) for one in every), Counter[str]())
    skipped = dict(sorted(counts.items()))
    if not full:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise AnalysisError(f"There is no clip to measure ({reasons or 'the data set is empty'}).")
    return Chunk(
        np.concatenate([one.index for one in full]),
        tuple(clip_id for one in full for clip_id in one.clip_ids),
        skipped,
        {name: np.concatenate([one.arrays[name] for one in full]) for name in full[0].arrays},
    )


def seeded(seed: int, *names: str) -> np.random.Generator:
    """A generator for a clip's id, a control …: the same in whatever order they are met."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, np.uint32)])


def measure_networks(
    analysis: str,
    measure: Measure,
    networks: Sequence[Network],
    data: Dataset,
    *,
    settings: Mapping[str, Any],
    **options: Any,
) -> ResultTable:
    """A measure of each network as a table: options of `measure_clips`.

    Of the `settings`, ``layers`` are those that arrays are of, and ``seed`` that of intervals.
    """
    measured = measure_clips(analysis, measure, networks, data, settings=settings, **options)
    layers, seed = settings.get("layers"), settings.get("seed", 0)
    rows = tuple(table_rows(networks, measured.arrays, layers=layers, seed=seed))
    return ResultTable(**measured.fields, rows=rows)


def stacked(rows: Iterable[Measured]) -> Measured:
    """What was measured of clips one by one, as arrays with a row for each clip."""
    every = list(rows)
    return {name: np.stack([row[name] for row in every]) for name in every[0]}


def by_clip(
    measure: Callable[[nn.Module, Clip], Measured], network: nn.Module, clips: Sequence[Clip]
) -> Measured:
    """The measure of clips that ``partial(by_clip, measure)`` makes of one of a single clip."""
    return stacked(measure(network, clip) for clip in clips)


@dataclass(frozen=True)
class ClipArrays:
    """What a measure gives of all clips, by (network, quantity, condition); a `Result`'s fields."""

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
    of_clips: Callable[[Sequence[Clip]], Measured] | None = None,
    beside: Mapping[str, nn.Module] | None = None,
    least_samples: int = _LEAST_SAMPLES,
    **streaming: Unpack[Streaming],
) -> ClipArrays:
    """What `measure_networks` makes means of; `beside` are networks that the measure itself has."""
    modules = {network.name: network.module for network in networks}
    key = key_of(analysis, {**modules, **(beside or {})}, settings)
    chunks = stream(
        partial(_of_networks, modules, measure, of_clips),
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


def _of_networks(
    networks: Mapping[str, nn.Module],
    measure: Measure,
    of_clips: Callable[[Sequence[Clip]], Measured] | None,
    clips: Sequence[Clip],
) -> dict[str, ndarray]:
    """A measure of some clips for every network, as `stream` wants it."""
    found = {name: measure(module, clips) for name, module in networks.items()}
    if of_clips is not None:
        found[""] = of_clips(clips)
    return {
        json.dumps([name, key, ""] if isinstance(key, str) else [name, *key]): np.asarray(array)
        for name, measured in found.items()
        for key, array in measured.items()
    }


def _chunk(
    work: _Work,
    data: Dataset,
    least_samples: int,
    parts: ChunkCache | None,
    number: int,
    places: Sequence[int],
) -> Chunk:
    """A chunk as it was kept, else measured, in whatever process."""
    kept = None if parts is None else parts.read(number)
    if kept is not None:
        return kept
    found: dict[int, Clip] = {}
    skipped: Counter[str] = Counter()
    for place in places:
        try:
            clip = data[place]
        except MissingAudioError:
            raise  # a chunk without it would be kept, and never measured again
        except AudioError:
            skipped["unreadable"] += 1
            if skipped["unreadable"] == len(places) >= _BAD_TOGETHER:
                raise
            continue
        if len(clip.waveform) < least_samples:
            skipped["short"] += 1
        elif not clip.waveform.any():
            skipped["silent"] += 1
        else:
            found[place] = clip
    clips = list(found.values())
    with quietly_on_one_thread():
        arrays = work(clips) if clips else {}
    ids = tuple(clip.clip_id for clip in clips)
    measured = Chunk(np.array([*found], dtype=np.int64), ids, dict(skipped), arrays)
    if parts is not None:
        parts.write(number, measured)
    return measured


@contextmanager
def quietly_on_one_thread() -> Iterator[None]:
    """Compute with one thread, and without notices of padded clips and silent maps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SonibookWarning)
            yield
    finally:
        torch.set_num_threads(threads)
