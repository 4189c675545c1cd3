"""Train a network: one config in, one folder out.

The folder holds ``config.yaml`` (what was asked), ``log.csv`` (a row an epoch),
``state.safetensors`` (where the run stands), ``kept/`` (published copies of some epochs) and, when
the run has ended, ``encoder.safetensors`` (what is published) and ``metrics.json``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from tqdm.auto import tqdm

from sonibook.errors import ConfigError
from sonibook.files import atomic, remove_leftovers
from sonibook.model.checkpoint import canonical, save_checkpoint
from sonibook.results import provenance, write_result
from sonibook.training.allocator import keep_memory
from sonibook.training.config import TrainConfig
from sonibook.training.distributed import Runtime, find_runtime
from sonibook.training.experiment import Experiment, prepare
from sonibook.training.logging import Logger, check_loggers, open_loggers, sample_sounds
from sonibook.training.run_state import load_run, save_run
from sonibook.training.schedule import warmup_cosine
from sonibook.training.tasks import Task

#: Steps between two saved states within an epoch: what a kill can cost.
_SAVE_EVERY = 500
#: Losses that are looked at together where looking would make a device wait.
_LOOK_EVERY = 50


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
        The run's folder. If it holds a checkpoint of the same config, the run goes on from it
        and ends in the same weights as one that was never interrupted (on the same machine with
        the same number of threads and processes).
    data_root : str or Path or None
        Where the data set lies.
    start : str or Path or None
        The checkpoint to start from, where `config.encoder.start` names another configuration.
    runtime : Runtime or None
        Where to run; None finds out (`find_runtime`).

    Returns
    -------
    dict
        The card of the published checkpoint: what made it and its metrics on the test part.

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
    keep_memory()
    out = Path(out)
    check_folder(out, config)
    check_loggers(config.log.to)
    experiment = prepare(config, data_root=data_root, start=start)
    runtime = find_runtime(precision=config.optimiser.precision) if runtime is None else runtime
    return _Run(config, experiment, out, runtime).to_the_end()


class _Run:
    """One run: its task, its optimiser, and where it stands."""

    def __init__(
        self, config: TrainConfig, experiment: Experiment, out: Path, runtime: Runtime
    ) -> None:
        self.config, self.experiment, self.out, self.runtime = config, experiment, out, runtime
        self.task: Task = experiment.task(runtime)
        self.per_epoch = len(self.task.batches)
        self.total = config.optimiser.epochs * self.per_epoch
        self.warmup = round(config.optimiser.warmup_epochs * self.per_epoch)
        self.optimiser = _optimiser(config, self.task.network)
        self.step, self.seconds = 0, 0.0
        self.log: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self._waiting: list[Tensor] = []
        self.state = out / "state.safetensors"

    def to_the_end(self) -> dict[str, Any]:
        """Every epoch that is left, then what is published."""
        runtime = self.runtime
        if runtime.is_main:
            with atomic(self.out / "config.yaml") as temporary:
                temporary.write_text(_as_text(self.config), encoding="utf-8")
            remove_leftovers(self.state)  # as large as three networks
        runtime.wait()
        if self.state.exists():
            self._load()
        elif self.config.keep_every is not None:
            self._keep(0)
        with (
            open_loggers(self.out, self.config, columns=self._columns(), before=self.log)
            if runtime.is_main
            else nullcontext() as logger,
            tqdm(
                total=self.total,
                initial=self.step,
                desc=self.config.name,
                unit="step",
                mininterval=1,
                disable=not runtime.is_main,
            ) as bar,
        ):
            while self.step < self.total:
                self._epoch(bar)
                self._end_of_epoch(bar, logger)
        card = self._publish() if runtime.is_main else {}
        runtime.wait()
        return card

    def _epoch(self, bar: Any) -> None:
        """The rest of the epoch that the run stands in."""
        self.task.network.train()
        epoch, first = divmod(self.step, self.per_epoch)
        for batch in self._timed(self.task.batches.epoch(epoch, first=first)):
            rate = self.config.optimiser.learning_rate * warmup_cosine(
                self.step, warmup=self.warmup, total=self.total
            )
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            with self.runtime.autocast():
                loss = self.task.loss(batch, self.step, self.runtime)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.runtime.average_gradients(self.task.network.parameters())
            self.runtime.step(self.optimiser)
            self._waiting.append(self.runtime.mean(loss.detach()))
            self.step += 1
            if self.runtime.device.type == "cpu" or len(self._waiting) == _LOOK_EVERY:
                self._look_at_losses()
            if self.step % _SAVE_EVERY == 0 and self.step % self.per_epoch:
                self._look_at_losses()
                self._save()
            bar.update()
        self._look_at_losses()

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, the time between them added to the epoch's."""
        started = time.monotonic()
        for batch in batches:
            yield batch
            now = time.monotonic()
            self.seconds, started = self.seconds + now - started, now

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

    def _end_of_epoch(self, bar: Any, logger: Logger | None) -> None:
        """Evaluate where it is time to, write the log, the state and what is kept."""
        config, epoch = self.config, self.step // self.per_epoch
        started, last = time.monotonic(), self.step == self.total
        row: dict[str, Any] = {
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "train_loss": sum(self.losses) / len(self.losses),
        }
        if self.runtime.is_main and (last or epoch % config.evaluate_every == 0):
            measured = self.task.evaluate(self.runtime)
            row |= {f"test_{n}": measured[n] for n in self.task.measures if n in measured}
        row["seconds"] = self.seconds + time.monotonic() - started
        self.log.append(row)
        self.losses, self.seconds = [], 0.0
        if config.keep_every is not None and (last or epoch % config.keep_every == 0):
            self._keep(epoch)
        if logger is not None:
            logger.values(epoch, row)
            every = config.log.sounds_every
            if every is not None and (last or epoch % every == 0):
                for sounds in sample_sounds(self.task.published(), self.experiment.test_data):
                    logger.sounds(epoch, sounds)
        # Last: a run that is killed before goes through the end of this epoch again.
        self._save()
        shown = {name.removeprefix("test_"): row[name] for name in row if name.startswith("test_")}
        bar.set_postfix({"loss": row["train_loss"], **shown})
        self.runtime.wait()

    def _save(self) -> None:
        """Write where the run stands (one process does)."""
        if self.runtime.is_main:
            position = {
                "step": self.step,
                "seconds": self.seconds,
                "losses": self.losses,
                "log": self.log,
            }
            save_run(self.state, self.task.network, self.optimiser, position)

    def _load(self) -> None:
        position = load_run(self.state, self.task.network, self.optimiser)
        self.step, self.log = position["step"], position["log"]
        self.losses, self.seconds = position["losses"], position["seconds"]

    def _columns(self) -> list[str]:
        tested = [f"test_{name}" for name in self.task.measures]
        return ["learning_rate", "train_loss", *tested, "seconds"]

    def _keep(self, epoch: int) -> None:
        """Publish the network as it is after an epoch, to be watched later."""
        if self.runtime.is_main:
            card = {"name": self.config.name, "epoch": epoch, "provenance": provenance()}
            path = self.out / "kept" / f"epoch-{epoch:04d}.safetensors"
            save_checkpoint(path, self.task.published(), card)

    def _publish(self) -> dict[str, Any]:
        """Write the network and how it stands on the test part."""
        train_data, test_data = self.experiment.train_data, self.experiment.test_data
        published = canonical(self.task.published())
        measured = self.task.evaluate(self.runtime, published)
        card = {
            "name": self.config.name,
            "task": self.config.objective.replace("_", " "),
            "data": f"{train_data.name} ({train_data.split}), tested on ({test_data.split})",
            "licence_of_data": train_data.licence or "unknown",
            "test": measured,
            "test_clips": len(test_data),
            "chance": 1 / len(train_data.classes) if "accuracy" in measured else None,
            "epochs": len(self.log),
            "processes": self.runtime.processes,
            "config": self.config.described(),
            "provenance": provenance(),
        }
        save_checkpoint(self.out / "encoder.safetensors", published, card)
        write_result(self.out / "metrics.json", {k: card[k] for k in card if k != "provenance"})
        return card


def _optimiser(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Adam; biases and gains are not decayed."""
    settings = config.optimiser
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for p in parameters if p.ndim > 1],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
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
    return yaml.safe_dump(config.described(), sort_keys=False, allow_unicode=True)
