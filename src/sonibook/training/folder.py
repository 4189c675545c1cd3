"""A run's folder: whose it is, where the run stands, and what it tells while it goes on.

Random numbers need no saving, since every one of them is drawn from a seed and a step number. A run
that is taken up again goes on in the same table and on the same dashboards, at the epoch that comes
next. Each dashboard (TensorBoard, Weights & Biases, trackio) needs the extra of its name, and is
imported only where a configuration asks for it.
"""

from __future__ import annotations

import csv
import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from sonibook.audio import SAMPLE_RATE, pad, quantise, write_wav
from sonibook.datasets.base import ClipReader, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import CheckpointError, ConfigError, SonibookWarning
from sonibook.files import (
    atomic,
    parse_json,
    parse_yaml,
    read_json,
    remove_leftovers,
    write_text,
)
from sonibook.model.checkpoint import load_encoder, read_card
from sonibook.model.encoder import CNN12, Classifier
from sonibook.model.stack_file import weights_digest
from sonibook.training.config import TrainConfig

_Values = Mapping[str, float | int]
#: By their captions, which are those of every epoch; as loud as they are.
_Sounds = Mapping[str, Float[ndarray, " time"]]
#: What the runs are filed under.
_PROJECT = "sonibook"
#: Layers to listen to: shallow, where the last pool is, the last.
_LAYERS = (3, 8, 11)
#: What a run publishes.
PUBLISHED = "encoder.safetensors"
#: What is saved of where a run stands.
_POSITION = ("step", "seconds", "losses", "log", "epochs", "extended", "unreadable")


class RunFolder:
    """The folder of one run; making it sees that the folder is free, or holds this very run."""

    def __init__(
        self, path: str | Path, config: TrainConfig, *, start: str | Path | None = None
    ) -> None:
        self.path, self.config = Path(path), config
        self.published, self.state = self.path / PUBLISHED, self.path / "state.safetensors"
        self._check_config()
        self.started_from = None if start is None else self._check_start(start)

    def _check_config(self) -> None:
        path, asked = self.path / "config.yaml", _as_text(self.config)
        if not path.exists():
            return
        try:
            if (text := path.read_text(encoding="utf-8")) == asked:
                return
            made = TrainConfig.model_validate(parse_yaml(text))
            epochs, wanted = made.optimiser.epochs, self.config.optimiser.epochs
            longer = made.optimiser.model_copy(update={"epochs": wanted})
            extends = _as_text(made.model_copy(update={"optimiser": longer})) == asked
            extends = extends and wanted > epochs == read_card(self.published)["epochs"]
        except (ValueError, LookupError):
            extends = False
        if not extends:
            raise ConfigError(
                f"{self.path}: holds a run with another configuration: choose another folder, or "
                "delete it."
            )
        warnings.warn(
            f"{self.path}: extends a finished run of {epochs} epochs, whose learning rate rises "
            f"again: this is not what {wanted} epochs at once would give.",
            SonibookWarning,
            stacklevel=4,
        )

    def _check_start(self, start: str | Path) -> dict[str, Any] | None:
        card = read_card(start)
        found = {"checkpoint": Path(start).name, "weights": weights_of(start)}
        found |= {key: card[key] for key in ("config", "start") if key in card}
        path = self.path / "start.json"
        if not path.exists():
            return None if self.state.exists() else found
        try:
            before = dict(read_json(path))
            same = before["weights"] == found["weights"]
        except (ValueError, LookupError, TypeError):
            raise ConfigError(f"{path}: is damaged: choose another folder, or delete it.") from None
        if not same:
            raise ConfigError(
                f"{self.path}: holds a run that started from other weights than {start} has now: "
                "choose another folder, or delete it."
            )
        return before

    def begin(self) -> None:
        """Write down what is asked for, and remove what a killed run left half written."""
        write_text(self.path / "config.yaml", _as_text(self.config))
        if self.started_from is not None:
            write_text(self.path / "start.json", json.dumps(self.started_from, indent=1))
        remove_leftovers(self.state)  # as large as three networks


def weights_of(checkpoint: str | Path) -> str:
    """A digest of a published encoder's weights: 16 hexadecimal digits."""
    return weights_digest(load_encoder(checkpoint).state_dict())[:16]


def _as_text(config: TrainConfig) -> str:
    return yaml.safe_dump(config.described(), sort_keys=False, allow_unicode=True)


def save_state(
    path: str | Path, network: nn.Module, optimiser: torch.optim.Optimizer, position: dict[str, Any]
) -> None:
    """Write where a run stands, whole or not at all; `position` is JSON."""
    tensors = {f"model/{name}": value for name, value in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": value for name, value in state.items()}
    with atomic(path) as temporary:
        # Not save_file, whose errors do not say that a disk is full.
        content = save(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            metadata={"position": json.dumps(position)},
        )
        temporary.write_bytes(content)


def load_state(
    path: str | Path, network: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a run back where `save_state` left it; returns the position."""
    try:
        with safe_open(path, framework="pt") as file:
            position = parse_json(file.metadata()["position"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights: dict[str, torch.Tensor] = {}
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "model":
                weights[rest] = tensor
            elif kind == "optimiser":
                index, field = rest.split("/")
                state.setdefault(int(index), {})[field] = tensor
        network.load_state_dict(weights)
        _check_moments(state, optimiser)
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})
        return {name: position[name] for name in _POSITION}
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: is not a checkpoint of this run ({reason}).") from None


def _check_moments(
    state: dict[int, dict[str, torch.Tensor]], optimiser: torch.optim.Optimizer
) -> None:
    """See that Adam's state is there for all parameters or, where none is trained, for none."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    if state and state.keys() != set(range(len(parameters))):
        raise ValueError("the optimiser's state is of other parameters")
    for index, moments in state.items():
        shape = parameters[index].shape
        found = {name: moments[name].shape for name in ("exp_avg", "exp_avg_sq", "step")}
        if found != {"exp_avg": shape, "exp_avg_sq": shape, "step": torch.Size([])}:
            raise ValueError(f"the optimiser's state of parameter {index} has other shapes")
        real = all(m.is_floating_point() and m.isfinite().all() for m in moments.values())
        if not real or moments["step"] < 1 or (moments["exp_avg_sq"] < 0).any():
            raise ValueError(f"the optimiser's state of parameter {index} holds impossible values")


@contextmanager
def open_loggers(
    folder: Path, config: TrainConfig, *, columns: Sequence[str], before: Sequence[_Values]
) -> Iterator[list[Any]]:
    """All that is told of each epoch, the first being 1: its `values`, then its `sounds`."""
    with ExitStack() as stack:
        loggers: list[Any] = [FileLogger(folder, columns, before)]
        for name in config.log.to:
            loggers.append(_DASHBOARDS[name](folder, config, len(before) + 1))
            stack.callback(loggers[-1].close)
        yield loggers


def check_loggers(names: Sequence[str]) -> None:
    """See that the extras of some dashboards are installed; raises ConfigError where one is not."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(
                f"log.to: {name} is not installed: run `pip install 'sonibook[{name}]'`, or leave "
                "it out."
            )


class FileLogger:
    """A table ``log.csv`` and, where sounds are logged, WAV files below ``sounds/``."""

    def __init__(self, folder: Path, columns: Sequence[str], before: Sequence[_Values]) -> None:
        self.folder = folder
        self.columns = ["epoch", *(name for name in columns if name != "epoch")]
        self.table = [{"epoch": epoch, **values} for epoch, values in enumerate(before, start=1)]
        self._write()

    def values(self, epoch: int, values: _Values) -> None:
        self.table.append({"epoch": epoch, **values})
        self._write()

    def _write(self) -> None:
        with (
            atomic(self.folder / "log.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.table)

    def sounds(self, epoch: int, name: str, sounds: _Sounds) -> None:
        folder, lines = self.folder / "sounds" / f"epoch-{epoch:04d}" / name, []
        for number, (caption, waveform) in enumerate(sounds.items(), start=1):
            write_wav(folder / f"{number}.wav", waveform)
            lines.append(f"{number}.wav: {caption}\n")
        write_text(folder / "captions.txt", "".join(lines))


class _TensorBoard:
    """Event files in ``tensorboard/``: ``tensorboard --logdir`` on any folder above shows them."""

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What the files hold of the epoch that comes next, and of later ones, is purged.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch)
        self.close = self.writer.close

    def values(self, epoch: int, values: _Values) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def sounds(self, epoch: int, name: str, sounds: _Sounds) -> None:
        for caption, waveform in sounds.items():
            self.writer.add_audio(f"{name}/{caption}", waveform[None], epoch, SAMPLE_RATE)
        self.writer.flush()


class _Wandb:
    """Weights & Biases, offline with WANDB_MODE=offline; it keeps a step that it has already."""

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int) -> None:
        import wandb

        self.audio = wandb.Audio
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                dir=str(folder),
                id=_run_id(folder),
                resume="allow",
                name=config.name,
                config=config.described(),
            )
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ConfigError(
                f"log.to: wandb does not start ({reason}): log in with `wandb login`, or set "
                "WANDB_MODE=offline."
            ) from None
        self.close = self.run.finish

    def values(self, epoch: int, values: _Values) -> None:
        self.run.log(dict(values), step=epoch)

    def sounds(self, epoch: int, name: str, sounds: _Sounds) -> None:
        self.run.log({name: list(self._players(sounds).values())}, step=epoch)

    def _players(self, sounds: _Sounds) -> dict[str, Any]:
        """By their captions; as whole numbers, since trackio would scale floats to their peak."""
        return {
            caption: self.audio(
                quantise(waveform.clip(-1, 1)), caption=caption, sample_rate=SAMPLE_RATE
            )
            for caption, waveform in sounds.items()
        }


class _Trackio(_Wandb):
    """trackio: a dashboard on this machine (``trackio show``), or where TRACKIO_SPACE_ID says.

    An epoch that was logged but not saved when the run was killed has two equal points.
    """

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int) -> None:
        import trackio

        self.audio = trackio.Audio
        self.run = trackio.init(
            project=_PROJECT,
            name=f"{config.name}-{_run_id(folder)}",
            resume="allow",
            config=config.described(),
            embed=False,
        )
        self.close = self.run.finish

    def sounds(self, epoch: int, name: str, sounds: _Sounds) -> None:
        players = self._players(sounds).items()
        self.run.log({f"{name}/{caption}": player for caption, player in players}, step=epoch)


#: By the name that a configuration gives them. Each takes the run's folder, its configuration and
#: the epoch that comes next.
_DASHBOARDS: dict[str, Callable[[Path, TrainConfig, int], Any]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "trackio": _Trackio,
}


def _run_id(folder: Path) -> str:
    """What a dashboard knows this run by, wherever its folder is moved."""
    path = folder / "run-id"
    if not path.exists():
        write_text(path, uuid.uuid4().hex[:8])
    return path.read_text(encoding="utf-8").strip()


def sample_sounds(network: CNN12 | Classifier, data: Dataset) -> dict[str, _Sounds]:
    """Some layers' most active filters on three clips, sonified, after the clips themselves."""
    encoder = network.encoder if isinstance(network, Classifier) else network
    chosen = np.unique(np.linspace(0, len(data) - 1, 3).round().astype(int))
    heard = [clip for clip in map(ClipReader(data), map(int, chosen)) if clip is not None]
    if not heard:
        return {}
    longest = max(len(clip.waveform) for clip in heard)
    x = np.stack([pad(clip.waveform, longest) for clip in heard])
    present = [layer for layer in _LAYERS if layer <= encoder.depth]
    with warnings.catch_warnings():
        # Early in a run maps are often dead: their silence can be heard.
        warnings.simplefilter("ignore", SonibookWarning)
        forward = ForwardPass(encoder.fold(), x[:, None], depth=max(present, default=1))
        sounds, _ = forward.sonify_most_active(present)
    names = ["input", *(f"layer-{layer}" for layer in present)]
    captions = [clip.clip_id for clip in heard]
    by_name = zip(names, [x, *sounds.numpy().swapaxes(0, 1)], strict=True)
    return {name: dict(zip(captions, waveforms, strict=True)) for name, waveforms in by_name}
