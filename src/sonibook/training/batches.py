"""Training batches: seeded crops, read one batch ahead.

What is drawn depends on (seed, epoch, clip) alone, never on what was drawn before. A run that was
killed therefore continues with just the batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sonibook.audio import SAMPLE_RATE, cut, sounding_starts
from sonibook.datasets.base import Dataset
from sonibook.errors import DatasetError


def seeded(*keys: int) -> np.random.Generator:
    """A random generator that depends on nothing but `keys` (integers >= 0)."""
    return np.random.default_rng(np.random.SeedSequence(keys))


class CropBatches:
    """The batches of one data set, epoch by epoch.

    Parameters
    ----------
    data : Dataset
    seed : int >= 0
    batch_size : int >= 1
        The last, smaller batch of an epoch is left out, so that all have one shape.
    crop_seconds : float > 0, in s
        Crops are drawn where there is sound (`sonibook.audio.sounding_starts`); shorter clips
        are padded with zeros.

    Raises
    ------
    DatasetError
        If the data set is smaller than one batch.
    """

    def __init__(self, data: Dataset, *, seed: int, batch_size: int, crop_seconds: float) -> None:
        if len(data) < batch_size:
            raise DatasetError(
                f"{data.name} ({data.split}) has {len(data)} clips, fewer than one batch of "
                f"{batch_size}: lower optimiser.batch_size."
            )
        self.data, self.seed, self.batch_size = data, seed, batch_size
        self.crop = round(crop_seconds * SAMPLE_RATE)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.data) // self.batch_size

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, in order.

        Parameters
        ----------
        epoch : int >= 0

        Yields
        ------
        waveforms : Tensor, shape (batch, 1, time)
        targets : Tensor, shape (batch, classes)
            1 where the clip has the label, else 0.
        """
        order = seeded(self.seed, epoch, 0).permutation(len(self.data))
        groups = order[: len(self) * self.batch_size].reshape(len(self), self.batch_size)
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = reader.submit(self._read, groups[0], epoch)
            for following in [*groups[1:], None]:
                batch = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following, epoch)
                yield batch

    def _read(
        self, indices: np.ndarray, epoch: int
    ) -> tuple[Float[Tensor, "batch 1 time"], Float[Tensor, "batch classes"]]:
        waveforms = torch.zeros(len(indices), 1, self.crop)
        targets = torch.zeros(len(indices), len(self.data.classes))
        for row, index in enumerate(indices):
            clip = self.data[int(index)]
            first, last = sounding_starts(clip.waveform, self.crop)
            start = int(seeded(self.seed, epoch, 1, int(index)).integers(first, last + 1))
            waveforms[row, 0] = torch.from_numpy(cut(clip.waveform, start, self.crop))
            targets[row, list(clip.labels)] = 1.0
        return waveforms, targets
