"""The services that draw curves and play sounds of a run: TensorBoard, Weights & Biases, trackio.

Each needs the extra of its name, and is imported only where a configuration asks for it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int16
from numpy import ndarray

from sonibook.errors import ConfigError
from sonibook.files import atomic
from sonibook.training.config import TrainConfig
from sonibook.training.loggers import Logger, Sounds, Values

#: What the runs are filed under.
_PROJECT = "sonibook"


@runtime_checkable
class Dashboard(Logger, Protocol):
    """A logger that has something to hand over at the end."""

    def close(self) -> None:
        """Hand over what is still to be handed over."""


class TensorBoard:
    """Event files in ``tensorboard/``: ``tensorboard --logdir`` on any folder above shows them.

    Parameters
    ----------
    folder : Path
        The run's.
    config : TrainConfig
    first_epoch : int >= 1
        The epoch that comes next; what the files hold of it and of later ones is purged.
    """

    def __init__(self, folder: Path, config: TrainConfig, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch)

    def row(self, epoch: int, values: Values) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        for caption, waveform in zip(sounds.captions, sounds.waveforms, strict=True):
            tag = f"{sounds.name}/{caption}"
            self.writer.add_audio(tag, waveform[None], epoch, sounds.sample_rate)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """Weights & Biases. Its own variables rule: with WANDB_MODE=offline it needs no account.

    A step that it has of a run already, it keeps.

    Parameters
    ----------
    folder : Path
        The run's. Its file ``run-id`` says which run on the dashboard goes on.
    config : TrainConfig
        Shown beside the run.
    first_epoch : int >= 1

    Raises
    ------
    ConfigError
        If the run cannot be started, such as without an account.
    """

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

    def row(self, epoch: int, values: Values) -> None:
        self.run.log(dict(values), step=epoch)

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        players = [
            self._audio(samples, caption=caption, sample_rate=sounds.sample_rate)
            for caption, samples in _captioned(sounds)
        ]
        self.run.log({sounds.name: players}, step=epoch)

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """trackio: a dashboard on this machine (``trackio show``), or where TRACKIO_SPACE_ID says.

    It keeps what it is told: an epoch that was logged when the run was killed, but not saved, has
    two equal points.

    Parameters
    ----------
    folder : Path
        The run's. Its file ``run-id`` says which run on the dashboard goes on.
    config : TrainConfig
        Shown beside the run.
    first_epoch : int >= 1
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

    def row(self, epoch: int, values: Values) -> None:
        self.run.log(dict(values), step=epoch)

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        players = {
            f"{sounds.name}/{caption}": self._audio(
                samples, caption=caption, sample_rate=sounds.sample_rate
            )
            for caption, samples in _captioned(sounds)
        }
        self.run.log(players, step=epoch)

    def close(self) -> None:
        self.run.finish()


#: By the name that a configuration gives them. Each takes the run's folder, its configuration and
#: the epoch that comes next.
DASHBOARDS: dict[str, Callable[[Path, TrainConfig, int], Dashboard]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}


def _run_id(folder: Path) -> str:
    """What a dashboard knows this run by, wherever its folder is moved."""
    path = folder / "run-id"
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def _captioned(sounds: Sounds) -> Iterator[tuple[str, Int16[ndarray, " time"]]]:
    """Each caption with its sound in 16 bits: trackio would scale floats to their peak."""
    samples = np.rint(sounds.waveforms.clip(-1, 1) * 32767).astype(np.int16)
    yield from zip(sounds.captions, samples, strict=True)
