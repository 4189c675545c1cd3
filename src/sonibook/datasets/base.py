"""What every data set is: a sequence of clips with labels; and what those in files share.

Videos vanish and downloads end early. What a table lists and is missing is left out, counted and
reported once; a folder is scanned once instead of being asked for each file.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sonibook.audio import EXTENSIONS, SAMPLE_RATE, promised_samples, read_audio
from sonibook.errors import AudioError, DatasetError, MissingAudioError, SonibookWarning
from sonibook.files import read_csv

Task = Literal["single-label", "multi-label"]
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Clip:
    """One sound with what is known of it; AudioError if a sample is NaN or infinite."""

    #: Mono, of shape (time,), float32, at its data set's `sample_rate` (8 kHz), at unit peak.
    waveform: Float[ndarray, " time"]
    #: Indices into the data set's `classes`: one for a single-label task, any number otherwise.
    labels: tuple[int, ...]
    #: Stable over machines, runs and the order of files.
    clip_id: str

    def __post_init__(self) -> None:
        if not np.isfinite(self.waveform).all():
            first = int(np.flatnonzero(~np.isfinite(self.waveform))[0])
            raise AudioError(f"{self.clip_id}: sample {first} is NaN or infinite.")


class Dataset(ABC):
    """A sequence of clips: ``len(data)``, ``data[3]``, ``for clip in data``."""

    #: As `sonibook.open_dataset` knows it.
    name: str
    #: Names of the labels.
    classes: tuple[str, ...]
    #: Which part this is: "train", "test", "all" …
    split: str
    task: Task
    #: Of the recordings, and who made them; what a network trained on them must say. Empty where it
    #: is not known.
    licence: str = ""
    #: Of the clips, in Hz.
    sample_rate: int = SAMPLE_RATE
    #: How many clips the data set's tables list that are not there, and left out.
    missing: int = 0

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Clip:
        """Clip `index`; raises IndexError past the end, AudioError where it cannot be read."""

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    def labels(self, index: int) -> tuple[int, ...]:
        """The labels of clip `index`, without reading its sound where that can be avoided."""
        return self[index].labels

    def clip_id(self, index: int) -> str:
        """The id of clip `index`, without reading its sound where that can be avoided."""
        return self[index].clip_id

    def samples(self, index: int) -> int:
        """How long clip `index` is, without reading its sound where that can be avoided."""
        return len(self[index].waveform)

    def credit(self, index: int) -> str:
        """Where clip `index` comes from and its own licence, as far as the data set tells."""
        return ""


class Subset(Dataset):
    """Some clips of a data set, by their places there, in that order; all of them by default."""

    def __init__(self, data: Dataset, places: Sequence[int] | None = None) -> None:
        self.data, self.places = data, range(len(data)) if places is None else tuple(places)
        for trait in ("name", "classes", "split", "task", "licence", "sample_rate", "missing"):
            setattr(self, trait, getattr(data, trait))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Clip:
        return self.data[self.places[index]]

    def labels(self, index: int) -> tuple[int, ...]:
        return self.data.labels(self.places[index])

    def clip_id(self, index: int) -> str:
        return self.data.clip_id(self.places[index])

    def samples(self, index: int) -> int:
        return self.data.samples(self.places[index])

    def credit(self, index: int) -> str:
        return self.data.credit(self.places[index])


class Synthesised(Dataset):
    """Clips that are made, each alone, from a seed, the split and the clip's number."""

    licence = "synthesised by sonibook, which is under the MIT licence"
    _splits = ("all", "train", "test")

    def __init__(self, *, seed: int, size: int, split: str) -> None:
        check_split(self.name, split, self._splits)
        if not 0 <= seed < 2**32:
            raise DatasetError(f"seed {seed} is impossible: choose 0 to 2**32 - 1.")
        if size < 1:
            raise DatasetError(f"size {size} leaves no clip: choose at least 1.")
        self.seed, self.size, self.split = seed, size, split

    def __len__(self) -> int:
        return self.size

    def clip_id(self, index: int) -> str:
        return f"{self.name}-{self.seed}-{self.split}-{self._entropy(index)[-1]}"

    def _entropy(self, index: int) -> list[int]:
        """What a clip's random numbers come from; last its number, counted from the first."""
        try:
            return [self.seed, self._splits.index(self.split), range(self.size)[index]]
        except IndexError:
            raise IndexError(f"clip {index} of {self.size} does not exist.") from None


@dataclass(frozen=True)
class Entry:
    """A clip that lies in a file: its path, labels, id, the group it must not be split from."""

    path: Path
    labels: tuple[int, ...]
    clip_id: str
    group: str = ""
    credit: str = ""


class FileDataset(Dataset):
    """A data set whose clips are sound files, `entries`; the rest is as in `Dataset`."""

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        name: str,
        classes: Sequence[str],
        split: str,
        task: Task = "single-label",
        licence: str = "",
        missing: int = 0,
    ) -> None:
        self.entries = entries
        self.name, self.classes, self.split, self.task = name, tuple(classes), split, task
        self.licence, self.missing = licence, missing

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Clip:
        entry = self.entries[index]
        x = read_audio(entry.path, sample_rate=self.sample_rate, unit_peak=False)
        loudest = float(abs(x).max())
        x = x / loudest if loudest > 0 else x  # a silent recording stays silent
        return Clip(x, entry.labels, entry.clip_id)

    def labels(self, index: int) -> tuple[int, ...]:
        return self.entries[index].labels

    def clip_id(self, index: int) -> str:
        return self.entries[index].clip_id

    def samples(self, index: int) -> int:
        return promised_samples(self.entries[index].path, sample_rate=self.sample_rate)

    def credit(self, index: int) -> str:
        return self.entries[index].credit


class ClipReader:
    """Reads clips one by one; those that cannot be read are None, and `bad` says why.

    AudioError when a clip's file has vanished, or more clips than a few (five in a hundred, or
    four) cannot be read: then a disk has gone rather than some files.
    """

    def __init__(self, data: Dataset) -> None:
        self.data, self.bad = data, dict[int, str]()
        self._most = min(max(4, len(data) // 20), len(data) - 1)

    def __call__(self, index: int) -> Clip | None:
        """Clip `index`, or None if it cannot be read."""
        try:
            return self.data[index]
        except MissingAudioError:
            raise
        except AudioError as error:
            self.bad[index] = str(error)
            if len(self.bad) > self._most:
                raise AudioError(
                    f"{len(self.bad)} of the {len(self.data)} clips of {self.data.name} "
                    f"({self.data.split}) cannot be read, the last because: {error} Is the disk "
                    "there? If it is, mend or remove them."
                ) from None
            return None

    def warn(self) -> None:
        """Tell how many clips could not be read, and were left out."""
        if self.bad:
            warnings.warn(
                f"{len(self.bad)} of the {len(self.data)} clips of {self.data.name} "
                f"({self.data.split}) cannot be read, and are left out. "
                f"{next(iter(self.bad.values()))}",
                SonibookWarning,
                stacklevel=3,
            )

    def nearest(self, index: int) -> Clip:
        """Clip `index`, or the next that can be read."""
        while (clip := self(index)) is None:
            index = (index + 1) % len(self.data)
        return clip


def read_ahead(
    make: Callable[[int], _Made], numbers: Iterable[int], *, threads: int, ahead: int
) -> Generator[_Made, None, None]:
    """What is made of each number, in order; threads are at work on the next ones meanwhile."""
    makers, waiting, rest = ThreadPoolExecutor(threads), deque[Future[_Made]](), iter(numbers)
    try:
        waiting.extend(makers.submit(make, number) for number in islice(rest, ahead))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(makers.submit(make, number) for number in islice(rest, 1))
            yield made
    finally:
        makers.shutdown(cancel_futures=True)


def find_root(root: str | Path, landmark: str, *folders: str) -> Path:
    """Which of `folders` below `root`, or `root` itself, holds `landmark`; DatasetError if none."""
    for base in (*(Path(root) / folder for folder in folders), Path(root)):
        if (base / landmark).exists():
            return base
    raise DatasetError(
        f"{root}: no {folders[-1]} here (looked for {folders[-1]}/{landmark}): give the folder "
        "that holds it with --data-root or SONIBOOK_DATA."
    )


def check_split(title: str, split: str, splits: Sequence[str]) -> None:
    """See that a data set has a split; DatasetError if not."""
    if split not in splits:
        raise DatasetError(f"{title} has no split {split!r}: choose {', '.join(splits)}.")


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table and the numbers of their lines, without empty ones and # comments."""
    try:
        for line, row in read_csv(path):
            if row and not row[0].startswith("#"):
                yield line, row
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such table.") from None
    except ValueError as error:
        raise DatasetError(f"{path}: is not comma-separated UTF-8 text ({error}).") from None


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with a header as dicts, with the numbers of their lines.

    The first of `columns` names the clip: what is there twice counts once, or is refused if the two
    rows differ.
    """
    rows = read_rows(path)
    _, header = next(rows, (0, []))
    if not set(columns) <= set(header):
        raise DatasetError(f"{path}: expected the columns {', '.join(columns)}.")
    seen: dict[str, list[str]] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise DatasetError(
                f"{path}, line {line}: has {len(row)} fields where the header has {len(header)}: "
                "a field with commas in it must be quoted."
            )
        fields = dict(zip(header, row, strict=True))
        clip = fields[columns[0]]
        if seen.setdefault(clip, row) is row:
            yield line, fields
        elif seen[clip] != row:
            raise DatasetError(f"{path}, line {line}: says of {clip} what an earlier line denies.")


def read_classes(path: Path, columns: str, *, most: int) -> list[list[str]]:
    """The rows of a table of classes, numbered from 0 in the first of its three columns."""
    classes: list[list[str]] = []
    for line, row in read_rows(path):
        if not classes and row[0] == "index":
            continue
        if len(row) != 3 or row[0] != str(len(classes)):
            raise DatasetError(
                f"{path}, line {line}: expected {columns} with the index {len(classes)}."
            )
        classes.append(row)
    if not 0 < len(classes) <= most:
        raise DatasetError(f"{path}: holds {len(classes)} classes: expected 1 to {most}.")
    return classes


def sounds_in(folder: Path) -> dict[str, str]:
    """Names of a folder's sound files by their stems, by one scan; of two alike the first."""
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name for entry in entries), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    split = (name.rpartition(".") for name in names if not name.startswith("."))
    return {stem: stem + dot + end for stem, dot, end in split if dot + end.lower() in EXTENSIONS}


def report_missing(
    title: str, where: Path, missing: Sequence[str], *, listed: int, remedy: str
) -> None:
    """Warn once of clips that are listed and not there; DatasetError if that is all of them."""
    if listed == 0:
        raise DatasetError(f"{where}: {title} lists no clip: is its table whole?")
    if len(missing) == listed:
        raise DatasetError(
            f"{where}: none of the {listed:,} clips that {title} lists is there, {missing[0]} for "
            f"one: {remedy}."
        )
    if len(missing):
        warnings.warn(
            f"{where}: {len(missing):,} of the {listed:,} clips that {title} lists are missing, "
            f"{missing[0]} for one: they are left out.",
            SonibookWarning,
            stacklevel=3,
        )
