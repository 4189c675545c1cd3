"""Train a network: one config in, one folder out.

The folder holds ``config.yaml`` (what was asked), ``log.csv`` (a row an epoch),
``state.safetensors`` (where the run stands) and, when it has ended, ``encoder.safetensors`` (what
is published).
"""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from tqdm.auto import tqdm

from sonibook.checkpoint import canonical, save_checkpoint
from sonibook.encoder import Classifier
from sonibook.errors import ConfigError
from sonibook.files import atomic
from sonibook.provenance import provenance
from sonibook.training import augment
from sonibook.training.batches import seeded
from sonibook.training.config import AugmentConfig, TrainConfig
from sonibook.training.evaluate import accuracy, predict
from sonibook.training.experiment import prepare
from sonibook.training.objectives import cross_entropy
from sonibook.training.run_state import load_run, save_run
from sonibook.training.schedule import warmup_cosine

_LOG = ("epoch", "learning_rate", "train_loss", "test_accuracy", "seconds")


def train(
    config: TrainConfig, *, out: str | Path, data_root: str | Path | None = None
) -> dict[str, Any]:
    """Run an experiment, or take it up where it was interrupted.

    Parameters
    ----------
    config : TrainConfig
    out : str or Path
        The run's folder. If it holds a checkpoint of the same config, the run goes on from it
        and ends in the same weights as one that was never interrupted (on the same machine with
        the same number of threads).
    data_root : str or Path or None
        Where the data set lies.

    Returns
    -------
    dict
        The card of the published checkpoint: what made it and its accuracy on the test part.

    Raises
    ------
    ConfigError
        If `out` belongs to another experiment, the config asks for what cannot be (`prepare`),
        or the loss stops being finite. Nothing is written in the first two cases.
    DatasetError, AudioError
        From the data set.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    out = Path(out)
    check_folder(out, config)
    experiment = prepare(config, data_root=data_root)
    train_data, test_data = experiment.train_data, experiment.test_data
    network, batches = experiment.network, experiment.batches
    encoder = network.encoder
    _claim(out, config)
    optimiser = _optimiser(config, network)
    state = out / "state.safetensors"
    log: list[dict[str, Any]] = []
    if state.exists():
        log = load_run(state, network, optimiser)["log"]
        _write_log(out / "log.csv", log)  # the run may have ended between state and log
    total = config.optimiser.epochs * len(batches)
    warmup = round(config.optimiser.warmup_epochs * len(batches))
    with tqdm(
        total=total, initial=len(log) * len(batches), desc=config.name, unit="step", mininterval=1
    ) as bar:
        for epoch in range(len(log), config.optimiser.epochs):
            started, losses = time.monotonic(), []
            network.train()
            for number, (x, targets) in enumerate(batches.epoch(epoch)):
                step = epoch * len(batches) + number
                rate = config.optimiser.learning_rate * warmup_cosine(
                    step, warmup=warmup, total=total
                )
                for group in optimiser.param_groups:
                    group["lr"] = rate
                losses.append(_step(network, optimiser, x, targets, config, step))
                bar.update()
            row = {
                "epoch": epoch + 1,
                "learning_rate": rate,
                "train_loss": sum(losses) / len(losses),
            }
            last = epoch + 1 == config.optimiser.epochs
            if last or (epoch + 1) % config.evaluate_every == 0:
                network.eval()
                scores, truth = predict(network, test_data, least_length=encoder.least_length)
                row["test_accuracy"] = accuracy(scores, truth)
            row["seconds"] = time.monotonic() - started
            log.append(row)
            save_run(state, network, optimiser, {"log": log})
            _write_log(out / "log.csv", log)
            bar.set_postfix(loss=f"{row['train_loss']:.3f}", accuracy=row.get("test_accuracy"))
    published = canonical(network)
    scores, truth = predict(published, test_data, least_length=encoder.least_length)
    card = {
        "name": config.name,
        "task": "supervised classification",
        "data": f"{train_data.name} ({train_data.split}), tested on ({test_data.split})",
        "licence_of_data": train_data.licence or "unknown",
        "test_accuracy": accuracy(scores, truth),
        "test_clips": len(test_data),
        "chance": 1 / len(train_data.classes),
        "epochs": len(log),
        "config": config.model_dump(),
        "provenance": provenance(),
    }
    save_checkpoint(out / "encoder.safetensors", published, card)
    return card


def _step(
    network: Classifier,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    targets: Tensor,
    config: TrainConfig,
    step: int,
) -> float:
    """One step of gradient descent; all its random numbers follow from the seed and the step."""
    numbers = seeded(config.seed, 2, step).integers(2**62, size=2)
    generator = torch.Generator().manual_seed(int(numbers[0]))
    torch.manual_seed(int(numbers[1]))  # dropout
    x, targets = _augmented(x, targets, config.augment, generator)
    loss = cross_entropy(network(x), targets)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ConfigError(
            f"The loss is {value} at step {step}: lower optimiser.learning_rate, or lengthen "
            "optimiser.warmup_epochs."
        )
    return value


def _augmented(
    x: Tensor, targets: Tensor, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    if config.mixup_alpha is not None:
        x, targets = augment.mixup(x, targets, alpha=config.mixup_alpha, generator=generator)
    if config.time_mask_share is not None:
        x = augment.time_mask(x, max_share=config.time_mask_share, generator=generator)
    if config.noise_min_snr_db is not None:
        x = augment.gaussian_noise(x, min_snr_db=config.noise_min_snr_db, generator=generator)
    if config.gain_db is not None:
        x = augment.random_gain(x, max_db=config.gain_db, generator=generator)
    return x, targets


def _optimiser(config: TrainConfig, network: Classifier) -> torch.optim.Optimizer:
    """Adam; biases and gains are not decayed."""
    settings = config.optimiser
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if settings.decoupled else torch.optim.Adam
    return kind(groups, lr=settings.learning_rate)


def check_folder(out: str | Path, config: TrainConfig) -> None:
    """See that a run's folder is free, or holds this very run.

    Raises
    ------
    ConfigError
        If it holds another.
    """
    path = Path(out) / "config.yaml"
    if path.exists() and path.read_text(encoding="utf-8") != _as_text(config):
        raise ConfigError(
            f"{out}: holds a run with another configuration: choose another folder, or delete it."
        )


def _as_text(config: TrainConfig) -> str:
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def _claim(out: Path, config: TrainConfig) -> None:
    """Make `out` this experiment's folder."""
    with atomic(out / "config.yaml") as temporary:
        temporary.write_text(_as_text(config), encoding="utf-8")


def _write_log(path: Path, log: list[dict[str, Any]]) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _LOG)
        writer.writeheader()
        writer.writerows(log)
