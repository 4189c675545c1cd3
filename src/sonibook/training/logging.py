"""What a run tells while it goes on: a table, always, and dashboards where that is asked for.

A run that is taken up again goes on in the same table and on the same dashboards, at the epoch that
comes next. Each dashboard (TensorBoard, Weights & Biases, trackio) needs the extra of its name, and
is imported only where a configuration asks for it.
"""

from __future__ import annotations

import csv
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int16
from numpy import ndarray

from sonibook.audio import SAMPLE_RATE, pad, write_wav
from sonibook.datasets.base import ClipReader, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import ConfigError, SonibookWarning
from sonibook.files import atomic
from sonibook.model.encoder import CNN12, Classifier
from sonibook.training.config import TrainConfig

Values = Mapping[str, float | int]
#: What the runs are filed under.
_PROJECT = "sonibook"
#: Layers to listen to: shallow, where the last pool is, the last.
_LAYERS = (3, 8, 11)


@dataclass(frozen=True, eq=False)
class Sounds:
    """Sounds of an epoch, as loud as they are; `name` and `captions` are those of every epoch."""

    name: str
    waveforms: Float[ndarray, "sounds time"]
    captions: Sequence[str]
    sample_rate: int = SAMPLE_RATE

    def captioned(self) -> Iterator[tuple[str, Float[ndarray, " time"]]]:
        """Each caption with its sound."""
        yield from zip(self.captions, self.waveforms, strict=True)


class Logger:
    """What is told how a run goes, and tells several loggers the same."""

    def __init__(self, *loggers: Any) -> None:
        self.loggers = loggers

    def values(self, epoch: int, values: Values) -> None:
        """Take in what was measured in an epoch, the first being 1."""
        for logger in self.loggers:
            logger.values(epoch, values)

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        """Take in sounds of the epoch of the last `values`."""
        for logger in self.loggers:
            logger.sounds(epoch, sounds)


@contextmanager
def open_loggers(
    folder: str | Path, config: TrainConfig, *, columns: Sequence[str], before: Sequence[Values]
) -> Iterator[Logger]:
    """All loggers of a run, as one."""
    check_loggers(config.log.to)
    with ExitStack() as stack:
        loggers: list[Any] = [FileLogger(Path(folder), columns, before)]
        for name in config.log.to:
            loggers.append(_DASHBOARDS[name](Path(folder), config, len(before) + 1))
            stack.callback(loggers[-1].close)
        yield Logger(*loggers)


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

    def __init__(self, folder: Path, columns: Sequence[str], before: Sequence[Values]) -> None:
        self.folder = folder
        self.columns = ["epoch", *(name for name in columns if name != "epoch")]
        self.table = [{"epoch": epoch, **values} for epoch, values in enumerate(before, start=1)]
        self._write()

    def values(self, epoch: int, values: Values) -> None:
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

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        folder, lines = self.folder / "sounds" / f"epoch-{epoch:04d}" / sounds.name, []
        for number, (caption, waveform) in enumerate(sounds.captioned(), start=1):
            write_wav(folder / f"{number}.wav", waveform, sample_rate=sounds.sample_rate)
            lines.append(f"{number}.wav: {caption}\n")
        with atomic(folder / "captions.txt") as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


class _TensorBoard:
    """Event files in ``tensorboard/``: ``tensorboard --logdir`` on any folder above shows them."""

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What the files hold of the epoch that comes next, and of later ones, is purged.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch)
        self.close = self.writer.close

    def values(self, epoch: int, values: Values) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        for caption, waveform in sounds.captioned():
            tag = f"{sounds.name}/{caption}"
            self.writer.add_audio(tag, waveform[None], epoch, sounds.sample_rate)
        self.writer.flush()


class _Wandb:
    """Weights & Biases, offline with WANDB_MODE=offline; it keeps a step that it has already."""

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int) -> None:
        import wandb

        self._audio = wandb.Audio
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

    def values(self, epoch: int, values: Values) -> None:
        self.run.log(dict(values), step=epoch)

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        players = [
            self._audio(_in_16_bits(waveform), caption=caption, sample_rate=sounds.sample_rate)
            for caption, waveform in sounds.captioned()
        ]
        self.run.log({sounds.name: players}, step=epoch)


class _Trackio:
    """trackio: a dashboard on this machine (``trackio show``), or where TRACKIO_SPACE_ID says.

    An epoch that was logged but not saved when the run was killed has two equal points.
    """

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int) -> None:
        import trackio

        self._audio = trackio.Audio
        self.run = trackio.init(
            project=_PROJECT,
            name=f"{config.name}-{_run_id(folder)}",
            resume="allow",
            config=config.described(),
            embed=False,
        )
        self.close = self.run.finish

    def values(self, epoch: int, values: Values) -> None:
        self.run.log(dict(values), step=epoch)

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        players = {
            f"{sounds.name}/{caption}": self._audio(
                _in_16_bits(waveform), caption=caption, sample_rate=sounds.sample_rate
            )
            for caption, waveform in sounds.captioned()
        }
        self.run.log(players, step=epoch)


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
        with atomic(path) as temporary:
            temporary.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def _in_16_bits(waveform: Float[ndarray, " time"]) -> Int16[ndarray, " time"]:
    """As whole numbers: trackio would scale floats to their peak."""
    return np.rint(waveform.clip(-1, 1) * 32767).astype(np.int16)


def sample_sounds(network: CNN12 | Classifier, data: Dataset) -> list[Sounds]:
    """Some layers' most active filters on three clips, sonified, after the clips themselves."""
    encoder = network.encoder if isinstance(network, Classifier) else network
    chosen = np.unique(np.linspace(0, len(data) - 1, 3).round().astype(int))
    heard = [clip for clip in map(ClipReader(data), map(int, chosen)) if clip is not None]
    if not heard:
        return []
    longest = max(len(clip.waveform) for clip in heard)
    x = np.stack([pad(clip.waveform, longest) for clip in heard])
    present = [layer for layer in _LAYERS if layer <= encoder.depth]
    captions = [clip.clip_id for clip in heard]
    with warnings.catch_warnings():
        # Early in a run maps are often dead: their silence can be heard.
        warnings.simplefilter("ignore", SonibookWarning)
        forward = ForwardPass(encoder.fold(), x[:, None], depth=max(present, default=1))
        sounds, _ = forward.sonify_most_active(present)
    return [
        Sounds("input", x, captions),
        *(
            Sounds(f"layer-{layer}", sounds[:, place].numpy(), captions)
            for place, layer in enumerate(present)
        ),
    ]
