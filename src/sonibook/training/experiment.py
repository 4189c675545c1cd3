"""What a configuration asks for: its data and network, opened and checked before anything is
written, and the task to train.

A task is a classifier, a classifier on frozen features, or a contrastive encoder. It says what a
step's loss is, how the network stands on the test part, and what is published.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets import Dataset, open_dataset
from sonibook.datasets.base import ClipReader, Subset
from sonibook.errors import ConfigError
from sonibook.metrics.scores import multilabel_metrics, single_label_metrics
from sonibook.model.checkpoint import load_encoder
from sonibook.model.encoder import CHANNELS, CNN12, DROPOUT, Classifier
from sonibook.training.config import TrainConfig
from sonibook.training.data import DROPPING, Batch, CropBatches, FeatureBatches, predict
from sonibook.training.distributed import Runtime
from sonibook.training.objectives import LOSSES, ContrastiveNetwork, nt_xent
from sonibook.training.sampling import Mixture, RandomStreams, seeded

_Published: TypeAlias = CNN12 | Classifier
_Scores: TypeAlias = dict[str, float]
#: Of a fresh encoder, unless the configuration says: it suits a laptop.
_WIDTH = 0.25


@dataclass(frozen=True, eq=False)
class Experiment:
    """A configuration's data and untrained encoder."""

    config: TrainConfig
    train_data: Dataset
    test_data: Dataset
    encoder: CNN12

    def batches(
        self, data: Dataset, *, runtime: Runtime | None = None, training: bool = True
    ) -> CropBatches:
        """Batches of crops of a part; augmented, and shared among processes, while training."""
        config, size = self.config, self.config.optimiser.batch_size
        return CropBatches(
            data,
            seed=config.seed,
            batch_size=size if training else min(size, len(data)),
            crop_seconds=config.data.crop_seconds,
            augment=config.augment if training else None,
            views=2 if config.objective == "nt_xent" else 1,
            pair_level_db=config.contrastive.pair_level_db,
            shuffle_labels=config.data.shuffle_labels and training,
            rank=0 if runtime is None else runtime.rank,
            processes=1 if runtime is None else runtime.processes,
        )

    def task(self, runtime: Runtime) -> _Task:
        """What is to be trained, on its device."""
        if self.config.encoder.fc_only:
            return FcOnly(self, runtime)
        contrastive = self.config.objective == "nt_xent"
        return Contrastive(self, runtime) if contrastive else Supervised(self, runtime)


def prepare(
    config: TrainConfig,
    *,
    data_root: str | Path | None = None,
    start: str | Path | None = None,
    read: bool = True,
) -> Experiment:
    """Open what a configuration names; without `read`, no recording that can be sized unread."""
    data = config.data
    train_data = _open(data.name, "train", data.train, data_root)
    if data.hold_out:
        train_data, test_data = _held_out(train_data, data.hold_out, config.seed)
    else:
        test_data = _open(data.name, "test", data.test, data_root)
    plain = data.weight == 1.0 and data.stretch_seconds is None and data.least_sound == 0.0
    if data.joined or data.in_memory or not plain:
        joined = (_open(part.name, "joined", part.train, data_root) for part in data.joined)
        train_data = Mixture(
            [train_data, *joined],
            weights=[data.weight, *(part.weight for part in data.joined)],
            stretch_seconds=data.stretch_seconds,
            least_sound=data.least_sound,
            in_memory=data.in_memory,
            read=read,
        )
    if train_data.classes != test_data.classes:
        raise ConfigError(
            f"data.train and data.test have different classes ({len(train_data.classes)} and "
            f"{len(test_data.classes)}): give both the same options but for the split."
        )
    for part in (train_data, test_data):
        if part.task != "single-label" and config.objective == "cross_entropy":
            raise ConfigError(
                f"{part.name} ({part.split}) is {part.task}, and {config.objective} needs one "
                "label for every clip: choose another data set or task, or the objective "
                "binary_cross_entropy."
            )
    experiment = Experiment(config, train_data, test_data, starting_encoder(config, start))
    crop, least = experiment.batches(train_data).crop, experiment.encoder.least_length
    if crop < least:
        raise ConfigError(
            f"data.crop_seconds: {crop} samples are fewer than the {least} that the network "
            f"needs: choose at least {least / SAMPLE_RATE}."
        )
    return experiment


def starting_encoder(config: TrainConfig, start: str | Path | CNN12 | None = None) -> CNN12:
    """The encoder before the first step: fresh, or a published one, cut to the depth asked for.

    Parameters
    ----------
    config : TrainConfig
    start : str, Path, CNN12 or None
        The checkpoint to start from, or an encoder of its size, where `config.encoder.start` names
        another configuration; ConfigError if it is not of the size asked for, CheckpointError if it
        cannot be loaded.
    """
    asked = config.encoder
    start = asked.start if start is None else start
    if start is None:
        width, depth = asked.width or _WIDTH, asked.depth or len(CHANNELS)
        return CNN12(
            width=width, norm=asked.norm, downsample=asked.downsample, depth=depth, seed=config.seed
        )
    encoder = start if isinstance(start, CNN12) else load_encoder(start)
    name = asked.start if encoder is start else start
    if asked.width is not None and asked.width != encoder.width:
        raise ConfigError(
            f"encoder.width: {name} has the width {encoder.width:g}, not {asked.width:g}: give "
            "that, or leave it out."
        )
    if asked.depth is not None and asked.depth > encoder.depth:
        raise ConfigError(
            f"encoder.depth: {name} has {encoder.depth} blocks, not {asked.depth}: give that or "
            "fewer, or leave it out."
        )
    return encoder if asked.depth is None else encoder.truncate(asked.depth)


def _held_out(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """All but a random share of a part's clips, and that share."""
    order, count = seeded(seed, len(data)).permutation(len(data)), round(share * len(data))
    if not 0 < count < len(data):
        raise ConfigError(f"data.hold_out: {share:g} of {len(data)} clips leaves one part empty.")
    parts = [Subset(data, sorted(places.tolist())) for places in (order[count:], order[:count])]
    parts[0].split = f"{data.split} less a random {share:.0%}"
    parts[1].split = f"a random {share:.0%} of {data.split}"
    return parts[0], parts[1]


def _open(name: str, part: str, options: dict[str, Any], data_root: str | Path | None) -> Dataset:
    if {"name", "root"} & options.keys():
        raise ConfigError(
            f"data.{part}: name and root are not options: give data.name and --data-root."
        )
    opened = open_dataset(name, root=data_root, **options)
    if opened.sample_rate != SAMPLE_RATE:
        raise ConfigError(
            f"data.{part}: its clips have the rate {opened.sample_rate:,} Hz, and networks are "
            f"trained at {SAMPLE_RATE:,} Hz."
        )
    return opened


class Supervised:
    """A classifier, trained whole (the paper's "full")."""

    network: Classifier
    batches: CropBatches | FeatureBatches

    def __init__(self, experiment: Experiment, runtime: Runtime) -> None:
        self._test_on(experiment, runtime)
        self.batches = experiment.batches(experiment.train_data, runtime=runtime)
        classes, seed = experiment.test_data.classes, self.config.seed
        self.network = runtime.place(Classifier(experiment.encoder, classes, seed=seed))

    def _test_on(self, experiment: Experiment, runtime: Runtime) -> None:
        self.config, self.runtime, data = experiment.config, runtime, experiment.test_data
        self.test_reader, self.least_length = ClipReader(data), experiment.encoder.least_length
        several = data.task != "single-label"
        self.measures = ("mAP", "mAUC", "d_prime") if several else ("accuracy",)
        self._measured = multilabel_metrics if several else single_label_metrics

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        """The mean loss of this process's part of a batch."""
        logits = self.network(self.runtime.put(batch.x), kept=_kept(self, batch, step))
        return LOSSES[self.config.objective](logits.float(), self.runtime.put(batch.targets))

    def evaluate(self, published: _Published | None = None) -> _Scores:
        """How the network, or what was published of it, stands on the test part."""
        network = self.network.eval() if published is None else published.to(self.runtime.device)
        scores, targets = predict(
            lambda x: network(self.runtime.put(x)).float().cpu(),
            self.test_reader,
            least_length=self.least_length,
        )
        return self._measured(scores, targets)

    def published(self) -> Classifier:
        """What is saved, as it is now: on the CPU, in evaluation mode."""
        return deepcopy(self.network).to("cpu").eval()


class FcOnly(Supervised):
    """A linear classifier on a frozen encoder's features (the paper's "fc-only")."""

    network: nn.Linear  # type: ignore[assignment]
    batches: FeatureBatches

    def __init__(self, experiment: Experiment, runtime: Runtime) -> None:
        self._test_on(experiment, runtime)
        encoder = runtime.place(experiment.encoder).eval()
        self.batches = FeatureBatches(encoder, experiment.train_data, self.config, runtime)
        self._test = self.batches.features_of(self.test_reader)
        classes, seed = experiment.test_data.classes, self.config.seed
        self.network = runtime.place(Classifier(encoder, classes, seed=seed).head)

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        logits = self.network(self.runtime.put(batch.x))
        return LOSSES[self.config.objective](logits, self.runtime.put(batch.targets))

    def evaluate(self, published: _Published | None = None) -> _Scores:
        if published is not None:
            return super().evaluate(published)
        features, targets = self._test
        with torch.no_grad():
            scores = self.network(self.runtime.put(features)).cpu().numpy()
        return self._measured(scores, targets.numpy())

    def published(self) -> Classifier:
        return self.batches.folded(self.network)


class Contrastive:
    """An encoder that learns to know two stretches of one clip among all others."""

    measures = ("loss", "retrieval")

    def __init__(self, experiment: Experiment, runtime: Runtime) -> None:
        self.config, self.runtime = experiment.config, runtime
        self.batches = experiment.batches(experiment.train_data, runtime=runtime)
        self.test_batches = experiment.batches(experiment.test_data, training=False)
        self.test_reader = self.test_batches.reader
        asked = self.config.contrastive
        head: Any = asked.model_dump(include={"projection", "hidden", "features"})
        network = ContrastiveNetwork(experiment.encoder, seed=self.config.seed, **head)
        self.network = runtime.place(network)

    def loss(self, batch: Batch, step: int) -> Float[Tensor, ""]:
        """The mean loss of this process's part of a batch."""
        kept = _kept(self, batch, step) if self.network.features == "h" else None
        z = self.network(self.runtime.put(batch.x), kept=kept)
        return nt_xent(z, temperature=self.config.contrastive.temperature, runtime=self.runtime)

    @torch.no_grad()
    def evaluate(self, published: _Published | None = None) -> _Scores:
        """Loss, and the share of rows nearest to their partner, on the test part, not augmented."""
        self.network.eval()
        encoder = self.network.encoder
        if isinstance(published, CNN12):
            encoder = published.to(self.runtime.device)
        losses, found = [], []
        for batch in self.test_batches.epoch(0):
            z = self.network.projected(encoder, self.runtime.put(batch.x)).float().cpu()
            losses.append(float(nt_xent(z, temperature=self.config.contrastive.temperature)))
            unit = F.normalize(z, dim=1)
            similarity = (unit @ unit.T).fill_diagonal_(-2.0)
            partner = torch.arange(len(z)).roll(len(z) // 2)
            found.append(float((similarity.argmax(dim=1) == partner).float().mean()))
        return {"loss": sum(losses) / len(losses), "retrieval": sum(found) / len(found)}

    def published(self) -> CNN12:
        """The encoder, as it is now: on the CPU, in evaluation mode."""
        return deepcopy(self.network.encoder).to("cpu").eval()


#: Something to train: a `network` on `batches`, and the `measures` that are logged of it.
_Task: TypeAlias = Supervised | FcOnly | Contrastive


def _kept(task: Supervised | Contrastive, batch: Batch, step: int) -> Tensor | None:
    """What dropout keeps of this step: the same however the batch is divided among processes."""
    encoder = task.network.encoder
    if not encoder.fc1:
        return None
    streams = RandomStreams(task.config.seed, step, batch.rows.tolist(), purpose=DROPPING)
    return task.runtime.put(streams.kept(1 - DROPOUT, encoder.channels))
