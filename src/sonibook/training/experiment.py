"""What a configuration asks for, opened and checked before anything runs or is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets import Dataset, open_dataset
from sonibook.errors import ConfigError
from sonibook.model.checkpoint import load_encoder
from sonibook.model.encoder import CHANNELS, CNN12, Classifier
from sonibook.training.config import EncoderConfig, TrainConfig
from sonibook.training.data import CropBatches
from sonibook.training.distributed import Runtime
from sonibook.training.evaluate import FeatureBatches
from sonibook.training.mixture import Mixture
from sonibook.training.tasks import Contrastive, ContrastiveNetwork, FcOnly, Supervised, Task

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

    def task(self, runtime: Runtime) -> Task:
        """What is to be trained, on its device."""
        config, encoder = self.config, self.encoder
        if config.encoder.fc_only:
            encoder = runtime.place(encoder).eval()
            features = FeatureBatches(
                encoder,
                self.train_data,
                seed=config.seed,
                batch_size=config.optimiser.batch_size,
                shuffle_labels=config.data.shuffle_labels,
                runtime=runtime,
            )
            fc_only = FcOnly(config, encoder, features, self.test_data)
            fc_only.network = runtime.place(fc_only.network)
            return fc_only
        batches = self.batches(self.train_data, runtime=runtime)
        if config.objective == "nt_xent":
            head = config.contrastive
            whole = ContrastiveNetwork(
                encoder,
                projection=head.projection,
                seed=config.seed,
                hidden=head.hidden,
                features=head.features,
            )
            test = self.batches(self.test_data, training=False)
            return Contrastive(config, runtime.place(whole), batches, test)
        classifier = Classifier(encoder, self.train_data.classes, seed=config.seed)
        return Supervised(config, runtime.place(classifier), batches, self.test_data)


def prepare(
    config: TrainConfig, *, data_root: str | Path | None = None, start: str | Path | None = None
) -> Experiment:
    """Open what a configuration names."""
    train_data = _open_training(config, data_root)
    test_data = _open(config.data.name, "test", config.data.test, data_root)
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
    encoder = starting_encoder(config, start)
    experiment = Experiment(config, train_data, test_data, encoder)
    crop = experiment.batches(train_data).crop
    if crop < encoder.least_length:
        raise ConfigError(
            f"data.crop_seconds: {crop} samples are fewer than the {encoder.least_length} that "
            f"the network needs: choose at least {encoder.least_length / SAMPLE_RATE}."
        )
    return experiment


def starting_encoder(config: TrainConfig, start: str | Path | None = None) -> CNN12:
    """The encoder before the first step: fresh, or a published one, cut to the depth asked for.

    Parameters
    ----------
    config : TrainConfig
    start : str or Path or None
        As for `prepare`.

    Returns
    -------
    CNN12

    Raises
    ------
    ConfigError
        If the checkpoint is not of the size asked for.
    CheckpointError
        If the checkpoint cannot be loaded.
    """
    asked = config.encoder
    start = asked.start if start is None else start
    if start is None:
        width = _WIDTH if asked.width is None else asked.width
        depth = len(CHANNELS) if asked.depth is None else asked.depth
        return CNN12(width=width, norm=asked.norm, depth=depth, seed=config.seed)
    encoder = load_encoder(start)
    check_size(asked, start, width=encoder.width, depth=encoder.depth)
    return encoder if asked.depth is None else encoder.truncate(asked.depth)


def check_size(asked: EncoderConfig, start: str | Path, *, width: float, depth: int) -> None:
    """See that what a run starts from, of that width and depth, is what it asks for."""
    if asked.width is not None and asked.width != width:
        raise ConfigError(
            f"encoder.width: {start} has the width {width:g}, not {asked.width:g}: give that, or "
            "leave it out."
        )
    if asked.depth is not None and asked.depth > depth:
        raise ConfigError(
            f"encoder.depth: {start} has {depth} blocks, not {asked.depth}: give that or fewer, or "
            "leave it out."
        )


def _open_training(config: TrainConfig, data_root: str | Path | None) -> Dataset:
    """The training part, with what is joined to it, and cut as the configuration asks."""
    data = config.data
    first = _open(data.name, "train", data.train, data_root)
    plain = data.weight == 1.0 and data.stretch_seconds is None and data.least_sound == 0.0
    if plain and not data.joined and not data.in_memory:
        return first
    return Mixture(
        [first, *(_open(part.name, "joined", part.train, data_root) for part in data.joined)],
        weights=[data.weight, *(part.weight for part in data.joined)],
        stretch_seconds=data.stretch_seconds,
        least_sound=data.least_sound,
        in_memory=data.in_memory,
    )


def _open(name: str, part: str, options: dict[str, Any], data_root: str | Path | None) -> Dataset:
    if {"name", "root"} & options.keys():
        raise ConfigError(
            f"data.{part}: name and root are no options; give data.name and --data-root."
        )
    opened = open_dataset(name, root=data_root, **options)
    if opened.sample_rate != SAMPLE_RATE:
        raise ConfigError(
            f"data.{part}: its clips have the rate {opened.sample_rate:,} Hz, and networks are "
            f"trained at {SAMPLE_RATE:,} Hz."
        )
    return opened
