"""Where a data set's files lie, what its tables say, and which of the listed clips are missing.

Videos vanish and downloads end early. What is listed and missing is left out, counted and
reported once; a folder is scanned once instead of being asked for each file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from sonibook.audio import EXTENSIONS
from sonibook.errors import DatasetError, SonibookWarning
from sonibook.untrusted import read_csv


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
    """The rows of a table with a header as dicts, each clip once, with the numbers of their lines.

    The first of `columns` names the clip: a row that is there twice counts once, and two rows
    that say different things of one clip are refused.
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
    title: str, *, where: Path, listed: int, missing: int, example: str, remedy: str
) -> None:
    """Warn once of clips that are listed and not there; DatasetError if that is all of them."""
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
