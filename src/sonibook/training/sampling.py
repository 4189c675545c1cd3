"""What each batch draws: random numbers, and clips of several data sets as one.

Every clip of every step has a stream of random numbers of its own, so that what is drawn for it is
the same however the batch is divided among processes, whatever was drawn before, and after a
restart. Recordings for pretraining come in all lengths. Taken file by file, a minute of birdsong
would count as much as a door that shuts; cut into stretches, it counts for what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from sonibook.audio import SAMPLE_RATE, dequantise, quantise
from sonibook.datasets.base import Clip, ClipReader, Dataset
from sonibook.errors import AudioError, ConfigError, DatasetError

#: Clips that are mixed are partners within stretches of this many rows of the whole batch, so that
#: a process finds every partner in its own part.
PARTNERS = 16


def seeded(*keys: int) -> np.random.Generator:
    """A random generator that depends on nothing but `keys` (integers >= 0).

    Zeros at the end make no difference among the first four `keys`.
    """
    return np.random.default_rng(np.random.SeedSequence(keys))


class RandomStreams:
    """A stream of random numbers for each row of a batch.

    Parameters
    ----------
    seed, step : int >= 0
        Of the run, and within it.
    rows : sequence of int >= 0
        The rows' places in the whole batch.
    purpose : int >= 0
        Tells streams of the same row and step apart.
    """

    def __init__(self, seed: int, step: int, rows: Sequence[int], *, purpose: int = 0) -> None:
        key = np.array([seed, step], np.uint64)
        self._streams = [
            np.random.Generator(np.random.Philox(key=key, counter=[0, 0, purpose, row]))
            for row in rows
        ]

    def __len__(self) -> int:
        return len(self._streams)

    def where(self, chosen: Bool[Tensor, " batch"]) -> RandomStreams:
        """The streams of some of the rows."""
        some = RandomStreams(0, 0, ())
        some._streams = [self._streams[row] for row in chosen.nonzero()[:, 0].tolist()]
        return some

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "batch 1 1"]:
        """One number a row, uniform in [low, high)."""
        return self._column([stream.uniform(low, high) for stream in self._streams])

    def integers(self, count: int) -> Int[Tensor, " batch"]:
        """One whole number a row, from 0 to `count` - 1."""
        return torch.tensor([int(stream.integers(count)) for stream in self._streams])

    def chosen(self, share: float) -> Bool[Tensor, " batch"]:
        """True with probability `share`; nothing is drawn where that is 1."""
        if share == 1.0:
            return torch.ones(len(self), dtype=torch.bool)
        return torch.tensor([stream.random() < share for stream in self._streams]).bool()

    def beta(self, alpha: float) -> Float[Tensor, "batch 1 1"]:
        """One number a row, from the Beta distribution with both parameters `alpha`."""
        return self._column([stream.beta(alpha, alpha) for stream in self._streams])

    def normal(self, samples: int) -> Float[Tensor, "batch 1 samples"]:
        """Independent standard normal numbers."""
        numbers = torch.empty(len(self), 1, samples)
        for row, stream in zip(numbers.numpy(), self._streams, strict=True):
            stream.standard_normal(dtype=np.float32, out=row[0])
        return numbers

    def kept(self, share: float, count: int) -> Float[Tensor, "batch count"]:
        """1 with probability `share`, else 0."""
        numbers = [stream.random(count, dtype=np.float32) < share for stream in self._streams]
        return torch.from_numpy(np.stack(numbers).astype(np.float32))

    def partners(self) -> Int[Tensor, " batch"]:
        """Another row for each, near it (`PARTNERS`); its own only if there is no other.

        The rows must be a whole stretch of the batch that begins at a multiple of `PARTNERS`.
        """
        count = len(self)
        stretches = max(1, count // PARTNERS)
        partners = []
        for row, stream in enumerate(self._streams):
            stretch = min(row // PARTNERS, stretches - 1)
            first = stretch * PARTNERS
            # The last stretch takes in what is left over.
            size = count - first if stretch == stretches - 1 else PARTNERS
            away = 1 + int(stream.integers(size - 1)) if size > 1 else 0
            partners.append(first + (row - first + away) % size)
        return torch.tensor(partners)

    def _column(self, numbers: list[float]) -> Float[Tensor, "batch 1 1"]:
        return torch.tensor(numbers, dtype=torch.float32)[:, None, None]


def sounding_span(x: Float[ndarray, " time"]) -> tuple[int, int]:
    """Where the sound of a clip begins, silence at its ends apart, and how long it is."""
    loud = np.flatnonzero(np.abs(x) > 1e-3 * np.abs(x).max())  # -60 dB, as for `sounding_starts`
    return (int(loud[0]), int(loud[-1]) + 1 - int(loud[0])) if loud.size else (0, len(x))


class Mixture(Dataset):
    """The clips of several data sets, one after the other, cut into stretches.

    The first part says what the classes are; clips of the others have no labels. An epoch draws
    `quotas` of the `counts` clips of the parts. Without `read` no sound is read: what has too
    little of it is then known by its length alone. AudioError as `ClipReader`, and DatasetError if
    no clip of a part is left, or one is at another rate than 8 kHz.
    """

    def __init__(
        self,
        parts: Sequence[Dataset],
        *,
        weights: Sequence[float],
        stretch_seconds: float | None = None,
        least_sound: float = 0.0,
        in_memory: bool = False,
        read: bool = True,
    ) -> None:
        first = parts[0]
        self.parts, self.classes, self.task = tuple(parts), first.classes, first.task
        if {part.sample_rate for part in parts} != {SAMPLE_RATE}:
            raise DatasetError(f"Data sets can be joined at {SAMPLE_RATE} Hz alone.")
        self.name = " and ".join(part.name for part in parts)
        self.split = "; ".join(part.split for part in parts)
        self.licence = "; ".join(dict.fromkeys(part.licence or "unknown" for part in parts))
        self._stretch, self._least = stretch_seconds, least_sound * SAMPLE_RATE
        self._held: dict[tuple[int, int], ndarray] = {}
        rows: list[tuple[int, int, int, int]] = []
        counts, self.unreadable = [], 0
        for number, part in enumerate(parts):
            before, reader = len(rows), ClipReader(part)
            for index in tqdm(range(len(part)), desc=f"read {part.name}", disable=None):
                if not read:
                    stretches = self._by_length(part, index)
                elif (clip := reader(index)) is None:
                    continue
                else:
                    if in_memory:
                        self._held[number, index] = quantise(clip.waveform)
                    stretches = self._with_sound(clip.waveform)
                rows += [(number, index, *stretch) for stretch in stretches]
            self.unreadable += len(reader.bad)
            if len(rows) == before:
                raise DatasetError(
                    f"{part.name} ({part.split}) has no clip with {least_sound:g} s of sound: "
                    "lower data.least_sound."
                )
            counts.append(len(rows) - before)
        self._rows: Int[ndarray, "clips 4"] = np.array(rows)
        self.counts = tuple(counts)
        self.quotas = tuple(
            max(1, round(weight * count)) for weight, count in zip(weights, counts, strict=True)
        )

    def _stretches(self, length: int) -> list[tuple[int, int]]:
        """A clip that holds n stretches counts as n clips, of its length by n each."""
        seconds = self._stretch
        count = 1 if seconds is None else max(1, int(length / (seconds * SAMPLE_RATE)))
        ends = [number * length // count for number in range(count + 1)]
        return list(pairwise(ends))

    def _with_sound(self, x: Float[ndarray, " time"]) -> list[tuple[int, int]]:
        """The stretches that hold enough from their first to their last sample that sounds."""
        parts = ((stretch, x[slice(*stretch)]) for stretch in self._stretches(len(x)))
        return [ends for ends, y in parts if (sounding_span(y)[1] if y.any() else 0) >= self._least]

    def _by_length(self, part: Dataset, index: int) -> list[tuple[int, int]]:
        try:
            return [(a, b) for a, b in self._stretches(part.samples(index)) if b - a >= self._least]
        except AudioError:
            return []

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Clip:
        number, clip, start, stop = map(int, self._rows[index])
        held = self._held.get((number, clip))
        if held is None:
            x = self.parts[number][clip].waveform[start:stop]
        else:
            x = dequantise(held[start:stop])
        loudest = np.abs(x).max(initial=0.0)
        scaled = x if loudest in (0.0, 1.0) else x / loudest
        return Clip(scaled, self.labels(index), self.clip_id(index))

    def clip_id(self, index: int) -> str:
        number, clip, start, _ = map(int, self._rows[index])
        return f"{self.parts[number].name}/{self.parts[number].clip_id(clip)}@{start}"

    def labels(self, index: int) -> tuple[int, ...]:
        number, clip, *_ = map(int, self._rows[index])
        return self.parts[0].labels(clip) if number == 0 else ()


class Batches:
    """The batches of a data set: which clips are in each, and which of them this process sees."""

    def __init__(
        self,
        data: Dataset,
        *,
        seed: int,
        batch_size: int,
        shuffle_labels: bool,
        rank: int,
        processes: int,
        stretch: int = PARTNERS,
    ) -> None:
        clips = sum(data.quotas) if isinstance(data, Mixture) else len(data)
        if clips < batch_size:
            raise DatasetError(
                f"{data.name} ({data.split}) has {clips} clips, fewer than one batch of "
                f"{batch_size}: lower optimiser.batch_size."
            )
        if processes > 1 and batch_size % (processes * stretch):
            raise ConfigError(
                f"optimiser.batch_size: {batch_size} clips cannot be divided among {processes} "
                f"processes: choose a multiple of {processes * stretch}."
            )
        self.data, self.reader = data, ClipReader(data)
        self.seed, self.batch_size, self.drawn = seed, batch_size, clips
        share = batch_size // processes
        self.own = np.arange(rank * share, (rank + 1) * share)
        dealt = seeded(seed, 0, 2).permutation(len(data)) if shuffle_labels else range(len(data))
        self.label_of = np.asarray(dealt)

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.drawn // self.batch_size

    def whole_epoch(self, epoch: int) -> Int[ndarray, "batches all"]:
        """The clips of all batches of an epoch; a second time, counted on from their number."""
        random = seeded(self.seed, epoch, 0)
        order = np.arange(len(self.data))
        if isinstance(self.data, Mixture):
            # Each part as often as it is asked for, what is left over at random.
            drawn, first = [], 0
            for count, quota in zip(self.data.counts, self.data.quotas, strict=True):
                times, rest = divmod(quota, count)
                part = np.arange(first, first + count)
                drawn += [part + time * len(self.data) for time in range(times)]
                drawn.append(random.permutation(part)[:rest] + times * len(self.data))
                first += count
            order = np.concatenate(drawn)
        order = random.permutation(order)
        return order[: len(self) * self.batch_size].reshape(len(self), -1)
