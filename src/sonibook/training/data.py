"""Training batches: seeded crops, augmented, read ahead of the step that needs them.

What is drawn depends on (seed, epoch, clip) or (seed, step, row) alone, never on what was drawn
before. A run that was killed therefore continues with just the batches it would have seen, and
several processes see, between them, just the batches that one would.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from sonibook.audio import SAMPLE_RATE, cut, pad, sounding_starts
from sonibook.datasets.base import Clip, ClipReader, Dataset
from sonibook.errors import ConfigError, DatasetError, SonibookWarning
from sonibook.training.augment import augmented, source_samples
from sonibook.training.config import AugmentConfig
from sonibook.training.mixture import Mixture
from sonibook.training.random_streams import PARTNERS, RandomStreams, seeded

#: Batches that are made while a step runs, and threads that make them.
_AHEAD = 2
#: How often a pair of crops of unequal levels is drawn.
_TRIES = 6
_SILENCE_DB = -120.0
#: What random numbers are for; see `RandomStreams`.
AUGMENTING, DROPPING = 0, 1


@dataclass(frozen=True, eq=False)
class Batch:
    """What one process sees of one step.

    Attributes
    ----------
    x : Tensor, shape (views * clips, 1, time)
        Waveforms: all first views, then all second ones. For a frozen encoder its features, of
        shape (clips, dim).
    targets : Tensor, shape (clips, classes)
        1 where the clip has the label, else 0; mixup leaves shares.
    rows : ndarray of int, shape (views * clips,)
        The places of the rows of `x` in the whole batch.
    """

    x: Tensor
    targets: Float[Tensor, "clips classes"]
    rows: Int[ndarray, " rows"]


class Shares:
    """Which clips are in which batch, and which of them this process sees."""

    def __init__(
        self,
        data: Dataset,
        *,
        seed: int,
        batch_size: int,
        shuffle_labels: bool,
        rank: int,
        processes: int,
        stretch: int = 1,
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
        self.clips, self.seed, self.batch_size = len(data), seed, batch_size
        share = batch_size // processes
        self.own = np.arange(rank * share, (rank + 1) * share)
        order = seeded(seed, 0, 2).permutation(self.clips) if shuffle_labels else range(self.clips)
        self.label_of = np.asarray(order)
        self._mixture, self._drawn_clips = data if isinstance(data, Mixture) else None, clips

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._drawn_clips // self.batch_size

    def epoch(self, epoch: int) -> Int[ndarray, "batches own"]:
        """The clips of every batch of an epoch that are this process's.

        A clip that an epoch has a second time is counted on from the number of clips.
        """
        return self.whole_epoch(epoch)[:, self.own]

    def whole_epoch(self, epoch: int) -> Int[ndarray, "batches all"]:
        """The clips of every batch of an epoch, of all processes."""
        random = seeded(self.seed, epoch, 0)
        if self._mixture is None:
            order = random.permutation(self.clips)
        else:
            order = random.permutation(self._drawn(self._mixture, random))
        return order[: len(self) * self.batch_size].reshape(len(self), -1)

    def _drawn(self, mixture: Mixture, random: np.random.Generator) -> Int[ndarray, " clips"]:
        """Each part of a mixture as often as it is asked for, what is left over at random."""
        drawn, first = [], 0
        for count, quota in zip(mixture.counts, mixture.quotas, strict=True):
            times, rest = divmod(quota, count)
            part = np.arange(first, first + count)
            drawn += [part + time * self.clips for time in range(times)]
            drawn.append(random.permutation(part)[:rest] + times * self.clips)
            first += count
        return np.concatenate(drawn)


class CropBatches:
    """The batches of one data set, epoch by epoch.

    Parameters
    ----------
    data, seed, batch_size, shuffle_labels, rank, processes
        As for `Shares`.
    crop_seconds : float > 0, in s
        Crops are drawn where there is sound (`sonibook.audio.sounding_starts`); shorter clips
        are padded with zeros.
    augment : AugmentConfig or None
        None leaves the crops as they are.
    views : {1, 2}
        Crops of a clip; two do not overlap.
    pair_level_db : float or None
        As for `two_crops`.

    Attributes
    ----------
    reader : ClipReader
        The next clip stands in for one that cannot be read, which is counted.

    Raises
    ------
    DatasetError, ConfigError
        As `Shares`, and if backgrounds are asked for and no clip is left outside a batch.

    Warns
    -----
    SonibookWarning
        Once, if over three quarters of a batch's pairs are cut shorter than their crops: their
        lengths give them away, and a network need not listen.
    """

    def __init__(
        self,
        data: Dataset,
        *,
        seed: int,
        batch_size: int,
        crop_seconds: float,
        augment: AugmentConfig | None = None,
        views: int = 1,
        pair_level_db: float | None = None,
        shuffle_labels: bool = False,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.shares = Shares(
            data,
            seed=seed,
            batch_size=batch_size,
            shuffle_labels=shuffle_labels,
            rank=rank,
            processes=processes,
            stretch=PARTNERS,
        )
        self.data, self.seed, self.batch_size = data, seed, batch_size
        self.reader = ClipReader(data)
        self.crop, self.augment, self.views = round(crop_seconds * SAMPLE_RATE), augment, views
        self.pair_level_db, self._warned = pair_level_db, rank > 0  # one process speaks
        outside = augment is not None and augment.background_min_snr_db is not None
        if outside and len(data) <= batch_size:
            raise ConfigError(
                f"augment.background_min_snr_db: a batch of {batch_size} leaves none of "
                f"{data.name}'s {len(data)} clips for a background: lower optimiser.batch_size."
            )

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.shares)

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, in order.

        Parameters
        ----------
        epoch : int >= 0
        first : int from 0 to the number of batches
            The batch to begin with.

        Yields
        ------
        Batch
        """
        groups = self.shares.whole_epoch(epoch)
        with ThreadPoolExecutor(max_workers=_AHEAD) as makers:
            ahead = deque(
                makers.submit(self._make, groups[number], epoch, number)
                for number in range(first, min(first + _AHEAD, len(self)))
            )
            for following in range(first + _AHEAD, len(self) + _AHEAD):
                batch = ahead.popleft().result()
                if following < len(self):
                    ahead.append(makers.submit(self._make, groups[following], epoch, following))
                yield batch

    def _make(self, group: Int[ndarray, " all"], epoch: int, number: int) -> Batch:
        own = group[self.shares.own]
        length = source_samples(self.augment, self.crop)
        waveforms = torch.zeros(self.views, len(own), 1, length)
        targets = torch.zeros(len(own), len(self.data.classes))
        short = 0
        for row, drawn in enumerate(map(int, own)):
            time, index = divmod(drawn, len(self.data))
            clip = self.reader.nearest(index)
            # A fifth key, even 0, is another stream: a data set that gives no clip twice has four.
            again = (time,) if isinstance(self.data, Mixture) else ()
            random = seeded(self.seed, epoch, 1, index, *again)
            if self.views == 1:
                begin, end = sounding_starts(clip.waveform, length)
                crops = [cut(clip.waveform, int(random.integers(begin, end + 1)), length)]
            else:
                crops = two_crops(clip.waveform, length, random, most_level_db=self.pair_level_db)
                short += _sound(clip.waveform)[1] < 2 * length
            for view, crop in enumerate(crops):
                waveforms[view, row, 0] = torch.from_numpy(crop)
            targets[row, list(self._labels(clip, index))] = 1.0
        if 4 * short > 3 * len(own):
            self._warn_of_short_pairs(short, len(own))
        step, rows, views = epoch * len(self) + number, [], []
        outside = np.delete(np.arange(len(self.data)), np.unique(group % len(self.data)))
        for view in range(self.views):
            rows.append(self.shares.own + view * self.batch_size)
            x = waveforms[view]
            if self.augment is not None:
                streams = RandomStreams(self.seed, step, rows[-1].tolist(), purpose=AUGMENTING)
                x, mixed = augmented(
                    x,
                    targets,
                    config=self.augment,
                    streams=streams,
                    samples=self.crop,
                    backgrounds=lambda some: self._backgrounds(outside, some),
                )
                targets = mixed if self.views == 1 else targets
            views.append(x)
        return Batch(torch.cat(views), targets, np.concatenate(rows))

    def _backgrounds(
        self, outside: Int[ndarray, " clips"], streams: RandomStreams
    ) -> Float[Tensor, "batch 1 time"]:
        """A crop of a clip outside the batch for each row of the streams."""
        clips, places = streams.integers(len(outside)), streams.uniform()[:, 0, 0]
        sounds = torch.zeros(len(streams), 1, self.crop)
        for row, (clip, place) in enumerate(zip(clips.tolist(), places.tolist(), strict=True)):
            x = self.reader.nearest(int(outside[clip])).waveform
            first, last = map(int, sounding_starts(x, self.crop))
            start = min(first + int(place * (last - first + 1)), last)
            sounds[row, 0] = torch.from_numpy(cut(x, start, self.crop))
        return sounds

    def _labels(self, clip: Clip, index: int) -> tuple[int, ...]:
        dealt = int(self.shares.label_of[index])
        return clip.labels if dealt == index else self.data.labels(dealt)

    def _warn_of_short_pairs(self, short: int, clips: int) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.data.name} ({self.data.split}): {short} of {clips} clips hold less sound "
                f"than two crops of {self.crop / SAMPLE_RATE:g} s. Their halves are padded with "
                "zeros, and may be known by their length: lower data.crop_seconds.",
                SonibookWarning,
                stacklevel=2,
            )


def _sound(x: Float[ndarray, " time"]) -> tuple[int, int]:
    """Where the sound of a clip begins, silence at its ends apart, and how long it is."""
    loud = np.flatnonzero(np.abs(x) > 1e-3 * np.abs(x).max())
    return (int(loud[0]), int(loud[-1]) + 1 - int(loud[0])) if loud.size else (0, len(x))


def two_crops(
    x: Float[ndarray, " time"],
    length: int,
    random: np.random.Generator,
    *,
    most_level_db: float | None = None,
) -> list[Float[ndarray, " crop"]]:
    """Two stretches of a clip that do not overlap, in random order (paper, section 3.1).

    Parameters
    ----------
    x : ndarray, shape (time,)
    length : int > 0, in samples
        Of each. From a clip with less than two lengths of sound, silence at its ends apart, two
        halves of that sound are taken, and padded with zeros.
    random : numpy.random.Generator
    most_level_db : float > 0, in dB, or None
        Stretches are drawn anew, up to six times, until their RMS levels differ by no more, so
        that an event is not paired with the silence after it; if they never do, the pair that
        differs least is taken. None takes the first.

    Returns
    -------
    list of two ndarray, shape (length,)
    """
    begin, sound = _sound(x)
    taken = min(length, max(sound // 2, 1))
    free = sound - 2 * taken
    tries: list[tuple[float, list[int]]] = []
    while len(tries) < (1 if most_level_db is None else _TRIES):
        one, two = np.sort(random.integers(0, max(free, 0) + 1, size=2))
        starts = random.permutation([begin + int(one), begin + int(two) + taken]).tolist()
        first, second = (_level_db(x[start : start + taken]) for start in starts)
        # Two stretches of digital silence are no pair, either.
        difference = abs(first - second) if min(first, second) > _SILENCE_DB else np.inf
        tries.append((difference, starts))
        if most_level_db is not None and difference <= most_level_db:
            break
    _, starts = min(tries, key=lambda tried: tried[0])
    return [pad(x[start : start + taken], length) for start in starts]


def _level_db(x: Float[ndarray, " time"]) -> float:
    """The RMS level in dB re full scale; digital silence counts as `_SILENCE_DB`."""
    power = float(np.dot(x, x)) / max(len(x), 1)
    return max(10 * float(np.log10(power)), _SILENCE_DB) if power else _SILENCE_DB
