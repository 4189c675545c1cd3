"""Train a network: one config in, one folder out.

The folder holds ``config.yaml`` (what was asked), ``start.json`` (what it started from, if from a
checkpoint), ``log.csv`` (a row an epoch), ``state.safetensors`` (where the run stands), ``kept/``
(published copies of some epochs) and, when the run has ended, ``encoder.safetensors`` (what is
published) and ``metrics.json``.
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sonibook.errors import ConfigError, SonibookWarning
from sonibook.files import folds_in_words, provenance, write_result
from sonibook.model.checkpoint import canonical, save_checkpoint
from sonibook.training.config import TrainConfig
from sonibook.training.distributed import Runtime, find_runtime
from sonibook.training.experiment import Experiment, prepare
from sonibook.training.folder import (
    RunFolder,
    check_loggers,
    load_state,
    open_loggers,
    sample_sounds,
    save_state,
)

#: Steps between two saved states within an epoch: what a kill can cost.
_SAVE_EVERY = 500
#: Losses that are looked at together where looking would make a device wait.
_LOOK_EVERY = 50
#: Where a run stands.
_STANDING = ("step", "seconds", "losses", "log", "extended")
#: Of glibc's mallopt: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, the sizes at and over which freed
#: memory goes back to the system, and M_TOP_PAD.
_KEEPING = {-3: 2**30, -1: 2**31 - 1, -2: 2**26}


def train(
    config: TrainConfig,
    *,
    out: str | Path,
    data_root: str | Path | None = None,
    start: str | Path | None = None,
    runtime: Runtime | None = None,
) -> dict[str, Any]:
    """Run an experiment, or take it up where it was interrupted.

    Parameters
    ----------
    config : TrainConfig
    out : str or Path
        The run's folder. A run of the same config that it holds goes on, and ends in the same
        weights as one that was never interrupted (on the same machine with as many threads and
        processes). A finished run of fewer epochs is extended, which its card says.
    data_root : str or Path or None
        Where the data set lies.
    start : str or Path or None
        The checkpoint to start from, where `config.encoder.start` names another configuration.
    runtime : Runtime or None
        Where to run; None finds out (`find_runtime`).

    Returns
    -------
    dict
        The card of the published checkpoint: what made it, what it started from, and its metrics
        on the test part.

    Raises
    ------
    ConfigError
        If `out` belongs to another experiment or began from other weights, the config asks for
        what cannot be (`prepare`), or the loss stops being finite. Nothing is written but in the
        last case.
    DatasetError, AudioError
        From the data set.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_memory()
    folder = RunFolder(out, config, start=config.encoder.start if start is None else start)
    check_loggers(config.log.to)
    experiment = prepare(config, data_root=data_root, start=start)
    runtime = find_runtime(precision=config.optimiser.precision) if runtime is None else runtime
    return _Run(experiment, folder, runtime).to_the_end()


class _Run:
    """One run: its task, its optimiser, and where it stands."""

    def __init__(self, experiment: Experiment, folder: RunFolder, runtime: Runtime) -> None:
        config = experiment.config
        self.config, self.experiment, self.runtime = config, experiment, runtime
        self.folder, self.out = folder, folder.path
        self.task = experiment.task(runtime)
        self.per_epoch = len(self.task.batches)
        self.total = config.optimiser.epochs * self.per_epoch
        self.warmup = round(config.optimiser.warmup_epochs * self.per_epoch)
        self.optimiser = adam(config, self.task.network)
        self.step, self.seconds = 0, 0.0
        self.log: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self._waiting: list[Tensor] = []
        self.extended: list[int] = []  # from how many epochs, where a finished run goes on

    def to_the_end(self) -> dict[str, Any]:
        """Every epoch that is left, then what is published."""
        runtime = self.runtime
        if runtime.is_main:
            self.folder.begin()
        runtime.wait()
        if self.folder.state.exists():
            self._load()
        elif self.config.keep_every is not None:
            self._keep(0)
        tested = [f"test_{name}" for name in self.task.measures]
        columns = ["learning_rate", "train_loss", *tested, "seconds"]
        told: AbstractContextManager[list[Any]] = nullcontext([])
        if runtime.is_main:
            told = open_loggers(self.out, self.config, columns=columns, before=self.log)
        look: Any = {"desc": self.config.name, "unit": "step", "mininterval": 1}
        with (
            told as loggers,
            tqdm(total=self.total, initial=self.step, disable=not runtime.is_main, **look) as bar,
        ):
            while self.step < self.total:
                self._epoch(bar)
                self._end_of_epoch(bar, loggers)
        # Clips of the training part that cannot be read, as far as any process has met.
        reader = self.task.batches.reader
        met = torch.zeros(len(reader.data))
        met[list(reader.bad)] = 1
        unreadable = int(runtime.largest(met).sum()) + getattr(reader.data, "unreadable", 0)
        card = self._publish(unreadable) if runtime.is_main else {}
        runtime.wait()
        return card

    def _epoch(self, bar: Any) -> None:
        """The rest of the epoch that the run stands in."""
        self.task.network.train()
        epoch, first = divmod(self.step, self.per_epoch)
        started = time.monotonic() - self.seconds
        for batch in self.task.batches.epoch(epoch, first=first):
            part = warmup_cosine(self.step, warmup=self.warmup, total=self.total)
            rate = self.config.optimiser.learning_rate * part
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            with self.runtime.autocast():
                loss = self.task.loss(batch, self.step)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.runtime.average_gradients(self.task.network.parameters())
            self.runtime.step(self.optimiser)
            self._waiting.append(self.runtime.mean(loss.detach()))
            self.step, self.seconds = self.step + 1, time.monotonic() - started
            if self.runtime.device.type == "cpu" or len(self._waiting) == _LOOK_EVERY:
                self._look_at_losses()
            if self.step % _SAVE_EVERY == 0 and self.step % self.per_epoch:
                self._look_at_losses()
                self._save()
            bar.update()
        self._look_at_losses()

    def _look_at_losses(self) -> None:
        first = self.step - len(self._waiting)
        for step, value in enumerate(map(float, self._waiting), start=first):
            self.losses.append(value)
            if not math.isfinite(value):
                raise ConfigError(
                    f"The loss is {value} at step {step}: lower optimiser.learning_rate, or "
                    "lengthen optimiser.warmup_epochs."
                )
        self._waiting = []

    def _end_of_epoch(self, bar: Any, loggers: list[Any]) -> None:
        """Evaluate where it is time to, write the log, the state and what is kept."""
        config, epoch = self.config, self.step // self.per_epoch
        started, last = time.monotonic(), self.step == self.total
        row: dict[str, Any] = {
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "train_loss": sum(self.losses) / len(self.losses),
        }
        if self.runtime.is_main and (last or epoch % config.evaluate_every == 0):
            measured = self.task.evaluate()
            row |= {f"test_{n}": measured[n] for n in self.task.measures if n in measured}
        row["seconds"] = self.seconds + time.monotonic() - started
        self.log.append(row)
        self.losses, self.seconds = [], 0.0
        if config.keep_every is not None and (last or epoch % config.keep_every == 0):
            self._keep(epoch)
        every, sounds = config.log.sounds_every, {}
        if loggers and every is not None and (last or epoch % every == 0):
            sounds = sample_sounds(self.task.published(), self.experiment.test_data)
        for logger in loggers:
            logger.values(epoch, row)
            for name, heard in sounds.items():
                logger.sounds(epoch, name, heard)
        # Last: a run that is killed before goes through the end of this epoch again.
        self._save()
        shown = {name.removeprefix("test_"): row[name] for name in row if name.startswith("test_")}
        bar.set_postfix({"loss": row["train_loss"], **shown})
        self.runtime.wait()

    def _save(self) -> None:
        """Write where the run stands (one process does)."""
        if self.runtime.is_main:
            position = {name: getattr(self, name) for name in _STANDING}
            position["epochs"] = self.config.optimiser.epochs
            position["unreadable"] = list(self.task.batches.reader.bad.items())
            save_state(self.folder.state, self.task.network, self.optimiser, position)

    def _load(self) -> None:
        position = load_state(self.folder.state, self.task.network, self.optimiser)
        for name in _STANDING:
            setattr(self, name, position[name])
        self.task.batches.reader.bad.update(position["unreadable"])
        if position["epochs"] < self.config.optimiser.epochs:
            self.extended.append(position["epochs"])

    def _keep(self, epoch: int) -> None:
        """Publish the network as it is after an epoch, to be watched later."""
        if self.runtime.is_main:
            card = {"name": self.config.name, "epoch": epoch, "provenance": provenance()}
            path = self.out / "kept" / f"epoch-{epoch:04d}.safetensors"
            save_checkpoint(path, self.task.published(), card)

    def _publish(self, unreadable: int) -> dict[str, Any]:
        """Write the network and how it stands on the test part."""
        train_data, test_data = self.experiment.train_data, self.experiment.test_data
        data = f"{train_data.name} ({train_data.split}), tested on ({test_data.split})"
        published = canonical(self.task.published())
        measured = self.task.evaluate(published)
        left_out = {"training": unreadable, "test": len(self.task.test_reader.bad)}
        if any(left_out.values()):
            reasons = [*self.task.batches.reader.bad.values(), *self.task.test_reader.bad.values()]
            warnings.warn(
                f"{left_out['training']} training clips and {left_out['test']} test clips cannot "
                "be read: others stood in for the former, the latter are left out. "
                + " ".join(reasons[:1]),
                SonibookWarning,
                stacklevel=2,
            )
        card = {
            "name": self.config.name,
            "task": self.config.objective.replace("_", " "),
            "data": folds_in_words(data),
            "licence_of_data": train_data.licence or "unknown",
            "test": measured,
            "test_clips": len(test_data) - left_out["test"],
            **({"unreadable_clips": left_out} if any(left_out.values()) else {}),
            "chance": 1 / len(train_data.classes) if "accuracy" in measured else None,
            "epochs": len(self.log),
            **({"extended_from_epochs": self.extended} if self.extended else {}),
            **({} if self.folder.started_from is None else {"start": self.folder.started_from}),
            "processes": self.runtime.processes,
            "config": self.config.described(),
            "provenance": provenance(),
        }
        save_checkpoint(self.folder.published, published, card)
        write_result(self.out / "metrics.json", {k: card[k] for k in card if k != "provenance"})
        return card


def warmup_cosine(step: int, *, warmup: int, total: int) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine to zero, without restarts.

    Parameters
    ----------
    step : int from 0 to `total`
    warmup, total : int
        Steps of the warm-up and of the whole run.

    Returns
    -------
    float in [0, 1]

    References
    ----------
    Paper, section 3.1; Loshchilov & Hutter 2016.

    Examples
    --------
    >>> [round(warmup_cosine(s, warmup=2, total=6), 2) for s in range(7)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def adam(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Adam; biases and gains are not decayed."""
    settings = config.optimiser
    parameters = [p for p in network.parameters() if p.requires_grad]
    decayed: dict[str, Any] = {"params": [p for p in parameters if p.ndim > 1]}
    others: dict[str, Any] = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    kind = torch.optim.AdamW if settings.decoupled else torch.optim.Adam
    rate, decay = settings.learning_rate, settings.weight_decay
    return kind([decayed, others], lr=rate, weight_decay=decay)


def keep_memory() -> None:
    """Ask glibc not to hand large blocks back to the system when they are freed.

    A training step frees and asks for the same blocks again and again, and the kernel clears their
    pages anew every time: a third of the time of a step at width 1/4.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for what, size in _KEEPING.items():
            mallopt(what, size)
