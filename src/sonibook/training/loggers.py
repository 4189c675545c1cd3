"""What a run tells while it goes on: a table, always, and dashboards where that is asked for.

A run that is taken up again goes on in the same table and on the same dashboards, at the epoch that
comes next.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from numpy import ndarray

from sonibook.audio import SAMPLE_RATE, write_wav
from sonibook.errors import ConfigError
from sonibook.files import atomic
from sonibook.training.config import TrainConfig

Values = Mapping[str, float | int]


@dataclass(frozen=True, eq=False)
class Sounds:
    """Sounds of one epoch, to be played beside those of others.

    Attributes
    ----------
    name : str
        What they are, such as ``"layer-8"``; the same in every epoch.
    waveforms : ndarray, shape (sounds, time), in [-1, 1]
        They are logged as loud as they are.
    captions : sequence of str
        One for each sound; the same in every epoch.
    sample_rate : int > 0, in Hz
    """

    name: str
    waveforms: Float[ndarray, "sounds time"]
    captions: Sequence[str]
    sample_rate: int = SAMPLE_RATE


@runtime_checkable
class Logger(Protocol):
    """Something that is told how a run goes."""

    def row(self, epoch: int, values: Values) -> None:
        """Take in what was measured in an epoch.

        Parameters
        ----------
        epoch : int >= 1
        values : mapping from str to float
            What was not measured in this epoch is left out.
        """

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        """Take in sounds of the epoch of the last `row`."""


@contextmanager
def open_loggers(
    folder: str | Path, config: TrainConfig, *, columns: Sequence[str], before: Sequence[Values]
) -> Iterator[Logger]:
    """All loggers of a run, as one.

    Parameters
    ----------
    folder : str or Path
        The run's.
    config : TrainConfig
    columns : sequence of str
        All that is ever measured.
    before : sequence of mapping
        What was measured in the epochs that are done, from the first.

    Yields
    ------
    Logger
        Closed when the block ends, however it ends.

    Raises
    ------
    ConfigError
        If an extra is not installed, or a dashboard cannot be reached.
    """
    from sonibook.training.dashboards import DASHBOARDS

    check_loggers(config.log.to)
    with ExitStack() as stack:
        loggers: list[Logger] = [FileLogger(Path(folder), columns, before)]
        for name in config.log.to:
            dashboard = DASHBOARDS[name](Path(folder), config, len(before) + 1)
            stack.callback(dashboard.close)
            loggers.append(dashboard)
        yield _Together(loggers)


def check_loggers(names: Sequence[str]) -> None:
    """See that the extras of some dashboards are installed.

    Parameters
    ----------
    names : sequence of {"tensorboard", "wandb", "trackio"}

    Raises
    ------
    ConfigError
        If one is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(
                f"log.to: {name} is not installed: run `pip install 'sonibook[{name}]'`, or leave "
                "it out."
            )


class _Together:
    """Several loggers, told the same."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = loggers

    def row(self, epoch: int, values: Values) -> None:
        for logger in self.loggers:
            logger.row(epoch, values)

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        for logger in self.loggers:
            logger.sounds(epoch, sounds)


class FileLogger:
    """A table ``log.csv`` and, where sounds are logged, WAV files below ``sounds/``.

    Parameters
    ----------
    folder : Path
        The run's.
    columns : sequence of str
        All that is ever measured, in the table's order; ``epoch`` comes first.
    before : sequence of mapping
        What was measured in the epochs that are done, from the first.
    """

    def __init__(self, folder: Path, columns: Sequence[str], before: Sequence[Values]) -> None:
        self.folder = folder
        self.columns = ["epoch", *(name for name in columns if name != "epoch")]
        self.rows = [{"epoch": epoch, **values} for epoch, values in enumerate(before, start=1)]
        self._write()

    def row(self, epoch: int, values: Values) -> None:
        self.rows.append({"epoch": epoch, **values})
        self._write()

    def _write(self) -> None:
        with (
            atomic(self.folder / "log.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def sounds(self, epoch: int, sounds: Sounds) -> None:
        folder = self.folder / "sounds" / f"epoch-{epoch:04d}" / sounds.name
        pairs, lines = zip(sounds.captions, sounds.waveforms, strict=True), []
        for number, (caption, waveform) in enumerate(pairs, start=1):
            write_wav(folder / f"{number}.wav", waveform, sample_rate=sounds.sample_rate)
            lines.append(f"{number}.wav: {caption}\n")
        with atomic(folder / "captions.txt") as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
