"""AudioSet: two million clips of 10 s from YouTube, 527 classes, several to a clip.

J. F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP
2017. Its tables name videos, not files, and videos vanish: 6 to 16 % are missing from every
collection. What is known of a clip is kept in a few columns, some 30 bytes each, because two
million `Entry` objects would need more than a gigabyte.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from sonibook.audio import EXTENSIONS
from sonibook.datasets.base import (
    Entry,
    FileDataset,
    check_split,
    find_root,
    read_classes,
    read_rows,
    report_missing,
)
from sonibook.errors import DatasetError

_PARTS = ("balanced_train", "unbalanced_train", "eval")
#: Which parts make up which split.
_SPLITS: dict[str, tuple[str, ...]] = {
    "all": _PARTS,
    "train": _PARTS[:2],
    "test": _PARTS[2:],
    **{part: (part,) for part in _PARTS},
}
_CLASS_TABLE = "class_labels_indices.csv"
#: Where collections keep their sounds, below the data set's folder.
_PLACES = ("", "audio", "audios", "wav", "wavs", "data")
_SUFFIXES = {end: n for n, one in enumerate(EXTENSIONS) for end in (one.lower(), one.upper())}
#: Which part of its video a clip is, behind its id: ``_30.000_40.000``, or in ms ``_30000``.
_SECONDS = r"(\d+(?:\.\d+)?)"
_TIMES = (re.compile(rf"(.+)(_{_SECONDS}[_-]{_SECONDS})"), re.compile(rf"(.+)(_{_SECONDS})"))
#: How a file is called: its folder and suffix as numbers, what stands before the id, and behind it.
_Way = tuple[int, int, str, str]
_BATCH = 65536
#: What 16 bits hold, as which labels are kept.
_MOST_CLASSES = 1 << 15
#: The longest name of a file. All ids are kept as long as the longest.
_LONGEST_ID = 255


class _Table(NamedTuple):
    """Clips in the order of their ids; clip n has the labels from ends[n] to ends[n + 1]."""

    ids: ndarray
    starts: ndarray
    ends: ndarray
    labels: ndarray

    def take(self, rows: ndarray) -> _Table:
        """Some of the clips, by their numbers."""
        counts = np.diff(self.ends)[rows]
        ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        shift = np.repeat(self.ends[rows] - ends[:-1], counts)
        labels = self.labels[np.arange(ends[-1]) + shift]
        return _Table(self.ids[rows], self.starts[rows], ends, labels)


class _Entries(Sequence[Entry]):
    """The clips that are there, in the order of their ids; an entry is made when asked for."""

    def __init__(self, table: _Table, taken: ndarray, ways: list[tuple[str, str, str]]) -> None:
        self._ids, self._ends, self._labels = table.ids, table.ends, table.labels
        self._taken, self._ways = taken, ways

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Entry:  # type: ignore[override]
        index = range(len(self))[index]
        first, last = self._ends[index : index + 2]
        clip_id = self._ids[index].decode()
        folder, before, behind = self._ways[self._taken[index]]
        path = Path(folder, before + clip_id + behind)
        return Entry(path, tuple(self._labels[first:last].tolist()), clip_id)


def open_audioset(
    root: str | Path, *, split: str = "all", segments: str | Path | None = None
) -> FileDataset:
    """AudioSet, as far as it is there."""
    check_split("AudioSet", split, tuple(_SPLITS))
    base = find_root(root, _CLASS_TABLE, "AudioSet")
    classes = read_classes(base / _CLASS_TABLE, "index,mid,display_name", most=_MOST_CLASSES)
    numbers = {mid: number for number, (_, mid, _) in enumerate(classes)}
    if segments is not None:
        tables = [base / segments if (base / segments).exists() else Path(segments)]
    else:
        tables = [_table_of(base, part) for part in _SPLITS[split]]
    if split == "all":
        tables = [table for table in tables if table.exists()]
    table = _read_segments(tables, numbers)
    below = [base / place for place in _PLACES]
    names = [name for part in _SPLITS[split] for name in _names_of(part)]
    folders = [str(one / name) for one in below for name in names if (one / name).is_dir()]
    taken, ways = _find_clips(table, folders)
    there = taken < len(ways)
    missing = [clip_id.decode() for clip_id in table.ids[~there]]
    remedy = f"put them in {_SPLITS[split][0]}/ there, as Y<id>.wav"
    report_missing(f"AudioSet ({split})", base, missing, listed=len(there), remedy=remedy)
    return FileDataset(
        _Entries(table.take(np.flatnonzero(there)), taken[there], ways),
        missing=len(missing),
        name="audioset",
        classes=[name for _, _, name in classes],
        split=split,
        task="multi-label",
        licence="labels: CC BY 4.0, Google, AudioSet; "
        "the clips' rights lie with who published them",
    )


def _names_of(part: str) -> tuple[str, ...]:
    """What a part is called: as published, or, by mirrors, ``bal_train`` and ``unbal_train``."""
    names = dict.fromkeys((part, part.replace("balanced", "bal")))
    return tuple(name + end for name in names for end in ("", "_segments"))


def _table_of(base: Path, part: str) -> Path:
    """The table of a part: Google's name for it, or a mirror's where only that is there."""
    names = (f"{part}_segments.csv", *(f"{name}.csv" for name in _names_of(part)))
    return next((base / name for name in names if (base / name).exists()), base / names[0])


def _read_segments(tables: Sequence[Path], numbers: Mapping[str, int]) -> _Table:
    """All clips of some tables in the order of their ids, each once.

    A machine id (``/m/09x0r``) may stand quoted with the others of its row, or each as a field.
    """
    ids: list[bytes] = []
    starts, labels, ends = array("d"), array("h"), array("q", [0])
    for table in tables:
        for line, row in read_rows(table):
            try:
                (clip_id, _, _, *fields), start, _ = row, float(row[1]), float(row[2])
                if not fields or len(clip_id) > _LONGEST_ID:
                    raise ValueError(clip_id)
            except (IndexError, ValueError):
                if len(row) > 1 and row[0].upper() in ("YTID", "ID"):
                    continue  # the header of a copy that was saved again
                raise DatasetError(
                    f"{table}, line {line}: expected an id, start, end and labels, not "
                    f"{','.join(row)[:60]!r}."
                ) from None
            mids = {mid.strip() for field in fields for mid in field.split(",")}
            try:
                labels.extend(sorted(numbers[mid] for mid in mids))
            except KeyError as error:
                raise DatasetError(
                    f"{table}, line {line}: {_CLASS_TABLE} has no class {error}."
                ) from None
            starts.append(start)
            ends.append(len(labels))
            ids.append(clip_id.strip().encode())
    unsorted = _Table(
        np.array(ids, "S" if ids else "S1"),
        np.array(starts, float),
        np.array(ends, np.int64),
        np.array(labels, np.int16),
    )
    return unsorted.take(np.unique(unsorted.ids, return_index=True)[1])


def _find_clips(table: _Table, roots: Sequence[str]) -> tuple[ndarray, list[tuple[str, str, str]]]:
    """By one scan of the folders, which way each clip's file is called (past the end: none is).

    The ways are folders, what stands before an id, and what behind. Of a clip's files the first
    counts: by folder, suffix, whether a Y stands before the id, and times behind it.
    """
    folders: list[str] = []
    numbers: dict[_Way, int] = {}
    rows, found = array("q"), array("q")
    names = _walk(roots, folders)
    while len(table.ids) and (batch := list(islice(names, _BATCH))):
        ids = np.array([os.fsencode(clip_id) for clip_id, _, _ in batch])
        starts = np.array([start for _, start, _ in batch])
        places = np.minimum(np.searchsorted(table.ids, ids), len(table.ids) - 1)
        listed = table.starts[places]
        known = (table.ids[places] == ids) & (
            np.isnan(starts) | (starts == listed) | (starts == 1000 * listed)
        )
        for number in np.flatnonzero(known):
            rows.append(places[number])
            found.append(numbers.setdefault(batch[number][2], len(numbers)))
    ways = sorted(numbers)
    rank = np.zeros(len(ways), np.int64)
    rank[[numbers[way] for way in ways]] = range(len(ways))
    taken = np.full(len(table.ids), len(ways))
    np.minimum.at(taken, np.array(rows), rank[np.array(found)])
    return taken, [(folders[folder], before, behind) for folder, _, before, behind in ways]


def _walk(roots: Sequence[str], folders: list[str]) -> Iterator[tuple[str, float, _Way]]:
    """All ids that the sounds below `roots` may have, with the start that is named, and the way."""
    pending = list(reversed(roots))
    while pending:
        folders.append(pending.pop())
        deeper = []
        with os.scandir(folders[-1]) as entries:
            for entry in entries:
                stem, dot, ending = entry.name.rpartition(".")
                suffix = dot + ending
                if entry.name.startswith("."):
                    continue
                if suffix not in _SUFFIXES:
                    if entry.is_dir():
                        deeper.append(entry.path)
                    continue
                place = len(folders) - 1, _SUFFIXES[suffix]
                timed = _TIMES if "_" in stem and stem[-1].isdigit() else ()
                # A Y may be the first of the id, or stand before it.
                for before in ("", "Y") if stem.startswith("Y") else ("",):
                    name = stem.removeprefix(before)
                    yield name, np.nan, (*place, before, suffix)
                    for pattern in timed:
                        if match := pattern.fullmatch(name):
                            way = (*place, before, match[2] + suffix)
                            yield match[1], float(match[3]), way
        pending += sorted(deeper, reverse=True)
