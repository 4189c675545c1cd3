"""What a configuration asks for, opened and checked before anything runs or is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets import Dataset, open_dataset
from sonibook.encoder import CNN12, Classifier
from sonibook.errors import ConfigError, SonibookError
from sonibook.training.batches import CropBatches
from sonibook.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class Experiment:
    """A configuration's data, batches and untrained network."""

    train_data: Dataset
    test_data: Dataset
    batches: CropBatches
    network: Classifier


def prepare(config: TrainConfig, *, data_root: str | Path | None = None) -> Experiment:
    """Open what a configuration names.

    Parameters
    ----------
    config : TrainConfig
    data_root : str or Path or None
        Where the data set lies.

    Returns
    -------
    Experiment

    Raises
    ------
    ConfigError
        If an option of the data set is impossible, or its two parts do not fit the objective or
        each other.
    DatasetError
        From the data set.
    """
    train_data = _open(config, "train", config.data.train, data_root)
    test_data = _open(config, "test", config.data.test, data_root)
    if train_data.classes != test_data.classes:
        raise ConfigError(
            f"data.train and data.test have different classes ({len(train_data.classes)} and "
            f"{len(test_data.classes)}): give both the same options but for the split."
        )
    for part in (train_data, test_data):
        if part.task != "single-label":
            raise ConfigError(
                f"{part.name} ({part.split}) is {part.task}, and {config.objective} needs one "
                "label for every clip: choose another data set or task."
            )
    batches = CropBatches(
        train_data,
        seed=config.seed,
        batch_size=config.optimiser.batch_size,
        crop_seconds=config.data.crop_seconds,
    )
    encoder = CNN12(width=config.encoder.width, norm=config.encoder.norm, seed=config.seed)
    if batches.crop < encoder.least_length:
        raise ConfigError(
            f"data.crop_seconds: {batches.crop} samples are fewer than the "
            f"{encoder.least_length} that the network needs: choose at least "
            f"{encoder.least_length / SAMPLE_RATE}."
        )
    network = Classifier(encoder, train_data.classes, seed=config.seed)
    return Experiment(train_data, test_data, batches, network)


def _open(
    config: TrainConfig, part: str, options: dict[str, Any], data_root: str | Path | None
) -> Dataset:
    if {"name", "root"} & options.keys():
        raise ConfigError(
            f"data.{part}: name and root are no options; give data.name and --data-root."
        )
    try:
        return open_dataset(config.data.name, root=data_root, **options)
    except SonibookError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        # A value of the wrong kind, such as text for a number, as far as the data set tells.
        reason = " ".join(str(error).split())
        raise ConfigError(f"data.{part}: {config.data.name} cannot take it ({reason}).") from None
