"""Data sets whose tables list clips that may not lie there.

Videos vanish and downloads end early. What is listed and missing is left out, counted and
reported once; a folder is scanned once instead of being asked for each file.
"""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from sonibook.datasets.base import Entry, FileDataset, Task
from sonibook.datasets.folder import EXTENSIONS
from sonibook.errors import DatasetError, SonibookWarning


class ListedDataset(FileDataset):
    """A data set whose table lists more clips than there may be files.

    Parameters
    ----------
    entries : sequence of Entry
        Of the clips that are there.
    missing : int >= 0
        How many are listed and not there.
    name, classes, split, task, licence
        As in `Dataset`.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        missing: int,
        name: str,
        classes: Sequence[str],
        split: str,
        task: Task,
        licence: str,
    ) -> None:
        super().__init__(
            entries, name=name, classes=classes, split=split, task=task, licence=licence
        )
        self.missing = missing


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, quoted or not, without empty ones and comments.

    Parameters
    ----------
    path : Path
        Comma-separated, UTF-8; spaces after a comma and lines that start with ``#`` are passed
        over.

    Yields
    ------
    (int, list of str)
        The number of the line, from 1, and its fields.

    Raises
    ------
    DatasetError
        If the table is missing, or is no such text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            for row in reader:
                if row and not row[0].startswith("#"):
                    yield reader.line_num, row
    except FileNotFoundError:
        raise DatasetError(f"{path}: there is no such table.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: is no comma-separated UTF-8 text ({error}).") from None


def sounds_in(folder: Path) -> dict[str, str]:
    """The sound files of one folder, by one scan.

    Returns
    -------
    dict of str to str
        Names of files by their stems; where two differ in their ending only, the first by name.
        Empty if there is no such folder.
    """
    try:
        with os.scandir(folder) as found:
            names = sorted((entry.name for entry in found), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    split = (name.rpartition(".") for name in names if not name.startswith("."))
    return {stem: stem + dot + end for stem, dot, end in split if dot + end.lower() in EXTENSIONS}


def report_missing(
    title: str, *, where: Path, listed: int, missing: int, example: str, remedy: str
) -> None:
    """Say once what is listed and not there.

    Parameters
    ----------
    title : str
        The data set and its split.
    where : Path
        Where the files were looked for.
    listed, missing : int
    example : str
        One of the missing.
    remedy : str
        What to do if none is there.

    Warns
    -----
    SonibookWarning
        If some are missing.

    Raises
    ------
    DatasetError
        If nothing is listed, or all are missing.
    """
    if listed == 0:
        raise DatasetError(f"{where}: {title} lists no clip: is its table whole?")
    if missing == listed:
        raise DatasetError(
            f"{where}: none of the {listed:,} clips that {title} lists is there, {example} for "
            f"one: {remedy}."
        )
    if missing:
        warnings.warn(
            f"{where}: {missing:,} of the {listed:,} clips that {title} lists are missing, "
            f"{example} for one: they are left out.",
            SonibookWarning,
            stacklevel=3,
        )
