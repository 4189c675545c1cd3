"""Training batches: seeded crops, augmented, read ahead of the step that needs them.

What is drawn depends on (seed, epoch, clip) or (seed, step, row) alone, never on what was drawn
before. A run that was killed therefore continues with just the batches it would have seen, and
several processes see, between them, just the batches that one would.
"""

from __future__ import annotations

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
from sonibook.datasets.base import Clip, Dataset
from sonibook.errors import ConfigError, DatasetError
from sonibook.training.augment import augmented
from sonibook.training.config import AugmentConfig
from sonibook.training.draws import PARTNERS, Draws, seeded

#: Batches that are made while a step runs, and threads that make them.
_AHEAD = 2
#: What random numbers are for; see `Draws`.
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
    """Which clips are in which batch, and which of them this process sees.

    Parameters
    ----------
    data : Dataset
    seed : int >= 0
    batch_size : int >= 1
        Clips of a whole batch. The last, smaller batch of an epoch is left out, so that all have
        one shape.
    shuffle_labels : bool
        Deal the labels out among the clips at random, once.
    rank, processes : int
        Which process this is, of how many.
    stretch : int >= 1
        Clips that must not be divided among processes.

    Attributes
    ----------
    own : ndarray of int
        This process's places in a whole batch.
    label_of : ndarray of int, shape (clips,)
        The clip whose labels each clip has.

    Raises
    ------
    DatasetError
        If the data set is smaller than one batch.
    ConfigError
        If the batch cannot be divided among the processes.
    """

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
        if len(data) < batch_size:
            raise DatasetError(
                f"{data.name} ({data.split}) has {len(data)} clips, fewer than one batch of "
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

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.clips // self.batch_size

    def epoch(self, epoch: int) -> Int[ndarray, "batches own"]:
        """The clips of every batch of an epoch that are this process's."""
        order = seeded(self.seed, epoch, 0).permutation(self.clips)
        return order[: len(self) * self.batch_size].reshape(len(self), -1)[:, self.own]


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

    Raises
    ------
    DatasetError, ConfigError
        As `Shares`.
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
        self.crop, self.augment, self.views = round(crop_seconds * SAMPLE_RATE), augment, views

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
        groups = self.shares.epoch(epoch)
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

    def _make(self, indices: Int[ndarray, " own"], epoch: int, number: int) -> Batch:
        waveforms = torch.zeros(self.views, len(indices), 1, self.crop)
        targets = torch.zeros(len(indices), len(self.data.classes))
        for row, index in enumerate(map(int, indices)):
            clip = self.data[index]
            for view, crop in enumerate(self._crops(clip, seeded(self.seed, epoch, 1, index))):
                waveforms[view, row, 0] = torch.from_numpy(crop)
            targets[row, list(self._labels(clip, index))] = 1.0
        step, rows = epoch * len(self) + number, []
        for view in range(self.views):
            rows.append(self.shares.own + view * self.batch_size)
            if self.augment is not None:
                draws = Draws(self.seed, step, rows[-1].tolist(), purpose=AUGMENTING)
                waveforms[view], mixed = augmented(
                    waveforms[view], targets, config=self.augment, draws=draws
                )
                targets = mixed if self.views == 1 else targets
        return Batch(waveforms.flatten(0, 1), targets, np.concatenate(rows))

    def _labels(self, clip: Clip, index: int) -> tuple[int, ...]:
        dealt = int(self.shares.label_of[index])
        return clip.labels if dealt == index else self.data.labels(dealt)

    def _crops(self, clip: Clip, random: np.random.Generator) -> list[Float[ndarray, " crop"]]:
        if self.views == 1:
            first, last = sounding_starts(clip.waveform, self.crop)
            return [cut(clip.waveform, int(random.integers(first, last + 1)), self.crop)]
        return two_crops(clip.waveform, self.crop, random)


def two_crops(
    x: Float[ndarray, " time"], length: int, random: np.random.Generator
) -> list[Float[ndarray, " crop"]]:
    """Two stretches of a clip that do not overlap, in random order (paper, section 3.1).

    Parameters
    ----------
    x : ndarray, shape (time,)
    length : int > 0, in samples
        Of each. From a clip with less than two lengths of sound, silence at its ends apart, two
        halves of that sound are taken, and padded with zeros.
    random : numpy.random.Generator

    Returns
    -------
    list of two ndarray, shape (length,)
    """
    loud = np.flatnonzero(np.abs(x) > 1e-3 * np.abs(x).max())
    begin, end = (int(loud[0]), int(loud[-1]) + 1) if loud.size else (0, len(x))
    taken = min(length, max((end - begin) // 2, 1))
    free = end - begin - 2 * taken
    one, two = np.sort(random.integers(0, max(free, 0) + 1, size=2))
    starts = random.permutation([begin + int(one), begin + int(two) + taken])
    return [pad(x[start : start + taken], length) for start in starts]
