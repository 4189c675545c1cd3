"""Runs as configurations name them: what each starts from, its seeds, and what it would cost.

A configuration becomes a chain of runs (`load_run`): the run itself and, beside it by their own
names, those that it starts from. Training the last trains what is missing of the others.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sonibook.audio import SAMPLE_RATE
from sonibook.errors import ConfigError, SonibookWarning
from sonibook.files import parse_yaml, write_result
from sonibook.metrics.intervals import runs_interval
from sonibook.model.checkpoint import read_card
from sonibook.model.encoder import CNN12, Classifier
from sonibook.training.config import TrainConfig, load_config
from sonibook.training.distributed import Runtime, find_runtime
from sonibook.training.experiment import starting_encoder
from sonibook.training.folder import PUBLISHED, weights_of
from sonibook.training.loop import train

#: Seconds of sound that the trial step takes in: enough to fill a laptop's cores.
_TRIAL_SECONDS = 20.0


@dataclass(frozen=True)
class Run:
    """A run to make, its folder `out`, and the run to start from if another configuration is named.

    `load_run` reads it.
    """

    config: TrainConfig
    out: Path
    start: Run | None = None

    @property
    def published(self) -> Path:
        """The checkpoint that it publishes."""
        return self.out / PUBLISHED

    def from_scratch(self) -> TrainConfig:
        """The same run from random weights, of the size that it would start from: for planning.

        ConfigError if what it starts from is of another size than it asks for.
        """
        if self.config.encoder.start is None:
            return self.config
        first = None if self.start is None else starting_encoder(self.start.from_scratch())
        encoder = starting_encoder(self.config, first)
        size = {name: getattr(encoder, name) for name in ("width", "depth", "downsample")}
        fresh = self.config.encoder.model_copy(update={"start": None, **size})
        return self.config.model_copy(update={"encoder": fresh})

    def is_finished(self) -> bool:
        """Whether the run that lies in its folder has come to its end."""
        return self.published.exists() and self._differs(self._card().get("config")) is None

    def mismatch(self) -> str | None:
        """Why what lies in its folder, or what that started from, is not this run; else None."""
        path, finished = self.out / "config.yaml", self.is_finished()
        try:
            made = parse_yaml(path.read_text(encoding="utf-8")) if path.exists() else None
        except ValueError:
            return f"{path} is not YAML"
        if made is None and self.published.exists() and not finished:
            made = self._card().get("config", {})
        if made is not None and (reason := self._differs(made)) is not None:
            return reason
        if self.start is None or not finished:
            return None
        recorded = self._card().get("start")
        if not isinstance(recorded, dict):
            return "its card does not say what it started from"
        reason = self.start._differs(recorded.get("config"))
        if reason is not None:
            return f"of the run that it started from, {reason}"
        if self.start.is_finished() and weights_of(self.start.published) != recorded["weights"]:
            return f"it started from other weights than {self.start.out} has now"
        return None

    def _card(self) -> dict[str, Any]:
        return read_card(self.published)

    def _differs(self, made: Any) -> str | None:
        """The first setting with a bearing on the weights that another configuration has."""
        try:
            before = TrainConfig.model_validate(made).what_matters()
        except ValueError:
            return "its configuration is of another kind"
        for key, value in self.config.what_matters().items():
            if before.get(key) != value:
                return f"{key} is {before.get(key)} there, not {value}"
        return None

    def train(
        self, *, data_root: str | Path | None = None, retrain_start: bool = False
    ) -> dict[str, Any]:
        """Train it, or go on with it, after the run that it starts from; see `loop.train`.

        ConfigError where another run lies in that one's folder, unless `retrain_start` moves it
        aside.
        """
        start = self.ready_start(data_root=data_root, retrain=retrain_start)
        return train(self.config, out=self.out, data_root=data_root, start=start)

    def ready_start(
        self, *, data_root: str | Path | None = None, retrain: bool = False
    ) -> Path | None:
        """The checkpoint to start from, its run done if it was not yet; None for the config's."""
        start = self.start
        if start is None:
            return None
        reason = self.check_start(retrain=retrain)
        missing = reason is not None or not start.is_finished()
        if missing:
            self.from_scratch()  # what cannot fit is refused before the first run, not after it
        if retrain:
            _move_aside(start.out, reason)
        if missing:
            start.train(data_root=data_root, retrain_start=retrain)
        return start.published

    def check_start(self, *, retrain: bool = False) -> str | None:
        """Why the folder of the run to start from holds another; refused unless `retrain`."""
        if self.start is None or (reason := self.start.mismatch()) is None:
            return None
        if not retrain:
            raise ConfigError(
                f"{self.start.out}: is not the run that {self.config.name} starts from ({reason}): "
                "move it away, train it anew by --retrain-start, or give its own settings by --set "
                "start.KEY=VALUE."
            )
        return reason


def _move_aside(folder: Path, reason: str | None) -> None:
    """Rename a run's folder, if there is a reason to, once for all processes."""
    runtime = find_runtime()
    runtime.wait()  # all have looked at it
    if reason is not None and runtime.is_main:
        number = 1
        while (aside := folder.with_name(f"{folder.name}-before-{number}")).exists():
            number += 1
        folder.rename(aside)
        warnings.warn(
            f"{folder}: is trained anew, since {reason}; the run that was there is now {aside}.",
            SonibookWarning,
            stacklevel=4,
        )
    runtime.wait()


def load_run(
    path: str | Path, *, out: str | Path | None = None, changes: Sequence[str] = ()
) -> Run:
    """Read a configuration, and those that it starts from in turn.

    Parameters
    ----------
    path : str or Path
        YAML, as in ``configs/``.
    out : str or Path or None
        The run's folder; the others lie beside it. None takes one below ``runs``, by its name.
    changes : sequence of str
        As for `load_config`. ``"start.optimiser.epochs=1"`` changes the configuration that it
        starts from, ``"start.start…"`` the one that this starts from, and so on.

    Raises
    ------
    ConfigError
        As `load_config`; if a configuration starts from itself; if a change is to be made to a
        configuration that no other starts from.
    """
    return _load(path, None if out is None else Path(out), Path("runs"), changes, ())


def _load(
    path: str | Path,
    out: Path | None,
    beside: Path,
    changes: Sequence[str],
    waiting: tuple[str, ...],
) -> Run:
    below = [change for change in changes if change.startswith("start.")]
    config = load_config(path, changes=tuple(c for c in changes if c not in below))
    out, start = out or beside / config.name, config.encoder.start
    if start is None or not start.endswith(".yaml"):
        if below:
            raise ConfigError(f"{below[0]!r}: {config.name} starts from no other configuration.")
        return Run(config, out)
    if start in waiting:
        raise ConfigError(f"encoder.start: {start} starts from itself: name another.")
    below = [change.removeprefix("start.") for change in below]
    return Run(config, out, _load(start, None, out.parent, below, (*waiting, start)))


def train_seeds(
    run: Run,
    seeds: Sequence[int],
    *,
    data_root: str | Path | None = None,
    retrain_start: bool = False,
) -> dict[str, Any]:
    """Make a run with several seeds, all from the same start, and say how its metrics spread."""
    if len(set(seeds)) != len(seeds) or len(seeds) < 2:
        raise ConfigError(f"The seeds {list(seeds)} give no interval: name two or more, once each.")
    start = run.ready_start(data_root=data_root, retrain=retrain_start)
    cards = [
        train(
            run.config.model_copy(update={"seed": seed}),
            out=run.out / f"seed-{seed}",
            data_root=data_root,
            start=start,
        )
        for seed in seeds
    ]
    if not all(cards):
        return {}  # the main process writes
    metrics = {}
    for name in cards[0]["test"]:
        values = [card["test"].get(name) for card in cards]
        # Counts have no interval, and an infinite d' is left out of a card.
        if all(isinstance(value, float) for value in values):
            metrics[name] = {
                "mean": sum(values) / len(values),
                "interval": list(runs_interval(values)),
                "values": values,
            }
    content = {
        "name": run.config.name,
        "seeds": list(seeds),
        "data": cards[0]["data"],
        "test_clips": cards[0]["test_clips"],
        "metrics": metrics,
        "interval": "95 % interval of the mean over runs, Student's t",
        "config": run.config.described(),
    }
    write_result(run.out / "metrics.json", content)
    return content


@dataclass(frozen=True)
class Plan:
    """The size of a run: its published encoder's parameters, batches an epoch, steps, hours."""

    parameters: int
    batches: int
    steps: int
    hours: float


def plan(
    config: TrainConfig, encoder: CNN12, *, clips: int, classes: int, runtime: Runtime
) -> Plan:
    """Count a run's steps and time a few like them on noise; reading and evaluation apart.

    Parameters
    ----------
    config : TrainConfig
    encoder : CNN12
        As it is before the first step.
    clips, classes : int
        Of the training part. Of a frozen encoder, the clips are gone through once.
    runtime : Runtime
        Where the run would be; one process.
    """
    batches = clips // config.optimiser.batch_size
    steps = config.optimiser.epochs * batches
    views = 2 if config.objective == "nt_xent" else 1
    frozen = config.encoder.fc_only
    crops = clips if frozen else steps * config.optimiser.batch_size * views
    hours = crops * _seconds_a_crop(config, encoder, classes, runtime) / 3600
    return Plan(sum(p.numel() for p in encoder.fold().parameters()), batches, steps, hours)


def _seconds_a_crop(config: TrainConfig, encoder: CNN12, classes: int, runtime: Runtime) -> float:
    """How long a crop takes through a step, forward and backward."""
    crops = max(1, round(_TRIAL_SECONDS / config.data.crop_seconds))
    network = Classifier(encoder, tuple(map(str, range(classes))), seed=0)
    network = runtime.place(network).train(not config.encoder.fc_only)
    samples = round(config.data.crop_seconds * SAMPLE_RATE)
    x = runtime.put(torch.randn(crops, 1, samples, generator=torch.Generator().manual_seed(0)))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        with runtime.autocast(), torch.set_grad_enabled(not config.encoder.fc_only):
            total = network(x).float().sum()
            if total.requires_grad:
                total.backward()
        total.detach().item()
        times.append(time.perf_counter() - started)
    return min(times) / crops
