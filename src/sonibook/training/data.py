"""How clips reach a network: whole, to be measured; in seeded crops, augmented, to train on.

What is drawn depends on (seed, epoch, clip) or (seed, step, row) alone, never on what was drawn
before. A run that was killed therefore continues with just the batches it would have seen, and
several processes see, between them, just the batches that one would. What a network says of a
whole clip does not depend on what it is batched with.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn
from tqdm.auto import tqdm

from sonibook.audio import SAMPLE_RATE, cut, pad, sounding_starts
from sonibook.datasets.base import Clip, ClipReader, Dataset, read_ahead
from sonibook.errors import ConfigError, SonibookWarning
from sonibook.model.encoder import CNN12, Classifier
from sonibook.training.augment import augmented, source_samples
from sonibook.training.config import AugmentConfig, TrainConfig
from sonibook.training.distributed import Runtime
from sonibook.training.sampling import Batches, Mixture, RandomStreams, seeded, sounding_span

#: Batches that are made while a step runs, and threads that make them.
_AHEAD = 2
#: How often a pair of crops of unequal levels is drawn.
_TRIES = 6
#: The purpose of random numbers for dropout; those for augmentations have 0. See `RandomStreams`.
DROPPING = 1


@dataclass(frozen=True, eq=False)
class Batch:
    """What one process sees of one step.

    `x`, (views * clips, 1, time), has all first views, then all second ones; of a frozen encoder it
    is features, (clips, dim). `targets` are 1 or 0, but for mixup's shares; `rows` are places in
    the whole batch.
    """

    x: Tensor
    targets: Float[Tensor, "clips classes"]
    rows: Int[ndarray, " rows"]


class CropBatches(Batches):
    """The batches of one data set, epoch by epoch.

    Parameters
    ----------
    data : Dataset
    seed : int >= 0
    batch_size : int >= 1
        Of all processes together; `rank` says which of `processes` this one is.
    crop_seconds : float > 0, in s
        Crops are drawn where there is sound (`sonibook.audio.sounding_starts`); shorter clips
        are padded with zeros.
    augment : AugmentConfig or None
    views : {1, 2}
        Crops of a clip; two do not overlap.
    pair_level_db : float or None
        As for `two_crops`.
    shuffle_labels : bool
        Deal the labels out among the clips at random, once.

    Attributes
    ----------
    reader : ClipReader
        The next clip stands in for one that cannot be read, which is counted.

    Raises
    ------
    DatasetError, ConfigError
        If a batch is larger than the data or cannot be divided among the processes, or leaves no
        clip outside where backgrounds are asked for.

    Warns
    -----
    SonibookWarning
        Once, if over three quarters of a batch's pairs are cut shorter than their crops: their
        lengths give them away.
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
        share: Any = {"shuffle_labels": shuffle_labels, "rank": rank, "processes": processes}
        super().__init__(data, seed=seed, batch_size=batch_size, **share)
        self.crop, self.augment, self.views = round(crop_seconds * SAMPLE_RATE), augment, views
        self.pair_level_db, self._warned = pair_level_db, rank > 0  # one process speaks
        outside = augment is not None and augment.background_min_snr_db is not None
        if outside and len(data) <= batch_size:
            raise ConfigError(
                f"augment.background_min_snr_db: a batch of {batch_size} leaves none of "
                f"{data.name}'s {len(data)} clips for a background: lower optimiser.batch_size."
            )

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, in order, from batch `first` on."""
        groups = self.whole_epoch(epoch)
        yield from read_ahead(
            lambda number: self._make(groups[number], epoch, number),
            range(first, len(self)),
            threads=_AHEAD,
            ahead=_AHEAD,
        )

    def _make(self, group: Int[ndarray, " all"], epoch: int, number: int) -> Batch:
        own = group[self.own]
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
                short += sounding_span(clip.waveform)[1] < 2 * length
            for view, crop in enumerate(crops):
                waveforms[view, row, 0] = torch.from_numpy(crop)
            dealt = int(self.label_of[index])
            labels = clip.labels if dealt == index else self.data.labels(dealt)
            targets[row, list(labels)] = 1.0
        if 4 * short > 3 * len(own) and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.data.name} ({self.data.split}): {short} of {len(own)} clips hold less "
                f"sound than two crops of {self.crop / SAMPLE_RATE:g} s. Their halves are "
                "padded with zeros, and may be known by their length: lower data.crop_seconds.",
                SonibookWarning,
                stacklevel=2,
            )
        step, views = epoch * len(self) + number, []
        rows = self.own + self.batch_size * np.arange(self.views)[:, None]
        outside = np.setdiff1d(np.arange(len(self.data)), group % len(self.data))
        for x, places in zip(waveforms, rows, strict=True):
            if self.augment is not None:
                streams = RandomStreams(self.seed, step, places.tolist())
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
        return Batch(torch.cat(views), targets, rows.ravel())

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
    """
    begin, sound = sounding_span(x)
    taken = min(length, max(sound // 2, 1))
    free = sound - 2 * taken
    tries: list[tuple[float, list[int]]] = []
    while len(tries) < (1 if most_level_db is None else _TRIES):
        one, two = np.sort(random.integers(0, max(free, 0) + 1, size=2))
        starts = random.permutation([begin + int(one), begin + int(two) + taken]).tolist()
        first, second = (_level_db(x[start : start + taken]) for start in starts)
        # Two stretches of digital silence do not make a pair, either.
        difference = abs(first - second) if min(first, second) > -120.0 else np.inf
        tries.append((difference, starts))
        if most_level_db is not None and difference <= most_level_db:
            break
    _, starts = min(tries, key=lambda tried: tried[0])
    return [pad(x[start : start + taken], length) for start in starts]


def _level_db(x: Float[ndarray, " time"]) -> float:
    """The RMS level in dB re full scale; below -120 dB, as digital silence, it counts as that."""
    return 10 * float(np.log10(max(float(np.dot(x, x)) / max(len(x), 1), 1e-12)))


class FeatureBatches(Batches):
    """Batches of a frozen encoder's standardised features of whole clips, each computed once."""

    def __init__(
        self, encoder: CNN12, data: Dataset, config: TrainConfig, runtime: Runtime
    ) -> None:
        share: Any = {"rank": runtime.rank, "processes": runtime.processes, "stretch": 1}
        share |= {"seed": config.seed, "batch_size": config.optimiser.batch_size}
        super().__init__(data, shuffle_labels=config.data.shuffle_labels, **share)
        self._encoder, self._runtime = encoder, runtime
        self.mean, self.scale = torch.zeros(encoder.dim), torch.ones(encoder.dim)
        features, targets = self.features_of(self.reader)
        # The next clip stands in for one that cannot be read.
        there = np.array([place for place in range(len(data)) if place not in self.reader.bad])
        nearest = there.searchsorted(np.arange(len(data))) % len(there)
        features, targets = features[nearest], targets[nearest]
        self.mean, spread = features.mean(dim=0), features.std(dim=0)
        # A feature that never changes, such as a dead filter's, is not blown up where it does.
        changes = spread > 1e-5 * features.abs().amax(dim=0)
        self.scale = torch.where(changes, spread, 1.0)
        self._features = (features - self.mean) / self.scale
        self._targets = targets[torch.from_numpy(self.label_of)]

    def features_of(
        self, data: Dataset | ClipReader
    ) -> tuple[Float[Tensor, "clips dim"], Float[Tensor, "clips classes"]]:
        """The standardised representation of every clip that can be read, and its targets."""
        features, targets = predict(
            lambda x: self._encoder(self._runtime.put(x)).float().cpu(),
            data,
            least_length=self._encoder.least_length,
            progress=self._runtime.is_main,
        )
        return (torch.from_numpy(features) - self.mean) / self.scale, torch.from_numpy(targets)

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, in order; see `CropBatches.epoch`."""
        for clips in self.whole_epoch(epoch)[first:, self.own]:
            rows = torch.from_numpy(clips)
            yield Batch(self._features[rows], self._targets[rows], self.own)

    def folded(self, head: nn.Linear) -> Classifier:
        """The classifier of waveforms that `head`, a classifier of these features, makes."""
        whole = Classifier(deepcopy(self._encoder).to("cpu"), self.data.classes)
        weight: Float[Tensor, "classes dim"] = head.weight.detach().cpu() / self.scale
        with torch.no_grad():
            whole.head.weight.copy_(weight)
            whole.head.bias.copy_(head.bias.detach().cpu() - weight @ self.mean)
        return whole.eval()


@torch.no_grad()  # XLA takes no views of parameters in inference_mode
def predict(
    network: nn.Module | Callable[[Tensor], Tensor],
    data: Dataset | ClipReader,
    *,
    least_length: int,
    batch_size: int = 16,
    progress: bool = False,
) -> tuple[Float[ndarray, "clips outputs"], Float[ndarray, "clips classes"]]:
    """The network's output for every clip of a data set, and the clip's targets.

    Clips are batched only with clips of the same length: a clip is never padded to its
    neighbours' length, so that its result depends on it alone.

    Parameters
    ----------
    network : callable
        Maps waveforms (batch, 1, time) to (batch, outputs); modules should be in `eval` mode.
    data : Dataset or ClipReader
        What a reader cannot read is left out.
    least_length : int, in samples
        Shorter clips are padded with zeros to it.
    batch_size : int >= 1
    progress : bool
        Show a progress bar.

    Returns
    -------
    outputs : ndarray, shape (clips, outputs)
    targets : ndarray, shape (clips, classes)
    """
    read: Callable[[int], Clip | None] = data.__getitem__ if isinstance(data, Dataset) else data
    data = data if isinstance(data, Dataset) else data.data
    outputs: list[ndarray | None] = [None] * len(data)
    targets = np.zeros((len(data), len(data.classes)), np.float32)
    waiting: dict[int, list[tuple[int, ndarray]]] = {}

    def run(group: list[tuple[int, ndarray]]) -> None:
        x = torch.from_numpy(np.stack([waveform for _, waveform in group])).unsqueeze(1)
        for (index, _), row in zip(group, network(x).numpy(), strict=True):
            outputs[index] = row

    for index in tqdm(range(len(data)), desc="evaluate", disable=not progress, leave=False):
        if (clip := read(index)) is None:
            continue
        targets[index, list(clip.labels)] = 1.0
        waveform = pad(clip.waveform, least_length)
        group = waiting.setdefault(len(waveform), [])
        group.append((index, waveform))
        if len(group) == batch_size:
            run(waiting.pop(len(waveform)))
        elif sum(map(len, waiting.values())) > 8 * batch_size:
            # Bound what waits: clips of many different lengths are run in smaller groups.
            run(waiting.pop(max(waiting, key=lambda length: len(waiting[length]))))
    for group in waiting.values():
        run(group)
    there = [row is not None for row in outputs]
    return np.stack([row for row in outputs if row is not None]), targets[there]
