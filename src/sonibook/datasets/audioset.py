"""AudioSet: two million clips of 10 s from YouTube, 527 classes, several to a clip.

J. F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP
2017. Its tables name videos, not files, and videos vanish: 6 to 16 % are missing from every
collection. What is known of a clip is kept in a few columns, some 30 bytes each, because two
million `Entry` objects would need more than a gigabyte.
"""

from __future__ import annotations

import operator
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy import ndarray

from sonibook.datasets.base import Clip, Dataset, read_clip
from sonibook.datasets.esc50 import find_root
from sonibook.datasets.folder import EXTENSIONS
from sonibook.datasets.listed import read_rows, report_missing
from sonibook.errors import DatasetError

PARTS = ("balanced_train", "unbalanced_train", "eval")
#: Which parts make up which split.
SPLITS: dict[str, tuple[str, ...]] = {
    "all": PARTS,
    "train": PARTS[:2],
    "test": PARTS[2:],
    **{part: (part,) for part in PARTS},
}
_CLASS_TABLE = "class_labels_indices.csv"
#: Where collections keep their sounds, below the data set's folder.
_PLACES = ("", "audio", "audios", "wav", "wavs")
_SUFFIXES = tuple(f(suffix) for suffix in EXTENSIONS for f in (str.lower, str.upper))
_NOWHERE = np.iinfo(np.int64).max
_BATCH = 65536
#: What 16 bits hold, as which labels are kept.
_MOST_CLASSES = 1 << 15
#: The longest name of a file. All ids are kept as long as the longest.
_LONGEST_ID = 255


class AudioSet(Dataset):
    """AudioSet's clips that are there, in the order of their ids.

    Parameters
    ----------
    ids : ndarray of bytes, shape (clips,)
        YouTube's.
    places : ndarray of int, shape (clips,)
        Where each clip's file is, as `_find_clips` writes it.
    folders : sequence of str
    label_ends, labels : ndarrays of int
        Clip n has the labels from ``label_ends[n]`` to ``label_ends[n + 1]``.
    classes : sequence of str
    split : str
    missing : int >= 0
        How many clips are listed and not there.
    """

    name = "audioset"
    task = "multi-label"
    licence = "labels: CC BY 4.0, Google, AudioSet; the clips' rights lie with who published them"

    def __init__(
        self,
        ids: ndarray,
        places: ndarray,
        folders: Sequence[str],
        label_ends: ndarray,
        labels: ndarray,
        *,
        classes: Sequence[str],
        split: str,
        missing: int,
    ) -> None:
        self._ids, self._places, self._folders = ids, places, tuple(folders)
        self._label_ends, self._labels = label_ends, labels
        self.classes, self.split, self.missing = tuple(classes), split, missing

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Clip:
        clip_id = self._ids[index].decode()
        return Clip(read_clip(self.path(index)), self.labels(index), clip_id)

    def labels(self, index: int) -> tuple[int, ...]:
        index = range(len(self))[operator.index(index)]
        first, last = self._label_ends[index : index + 2]
        return tuple(self._labels[first:last].tolist())

    def path(self, index: int) -> Path:
        """The file of clip `index`."""
        return _path_of(self._ids[index].decode(), int(self._places[index]), self._folders)


def open_audioset(
    root: str | Path, *, split: str = "all", segments: str | Path | None = None
) -> AudioSet:
    """AudioSet, as far as it is there.

    Parameters
    ----------
    root : str or Path
        The folder that holds ``AudioSet/class_labels_indices.csv`` and
        ``AudioSet/<part>_segments.csv``, or ``AudioSet`` itself. The clips of a part lie to any
        depth below a folder ``<part>`` or ``<part>_segments`` there or in its folder ``audio``,
        as ``Y<id>.wav``; the ``Y`` may be missing, and FLAC and what else `read_audio` reads will
        do.
    split : {"all", "train", "test", "balanced_train", "unbalanced_train", "eval"}
        Train is both training parts, as in the paper; test is eval. "all" is every part whose
        table is there.
    segments : str or Path, or None
        A table to use instead of those of the split, such as a subset or a copy that was saved
        again; a relative path counts from the data set's folder if it is found there.

    Returns
    -------
    AudioSet
        Multi-label. Its `missing` says how many clips are listed and not there; a warning does,
        too.

    Raises
    ------
    DatasetError
        If the layout is another, there is no such split, a table is damaged, or no clip is there.
    """
    if split not in SPLITS:
        raise DatasetError(f"AudioSet has no split {split!r}: choose {', '.join(SPLITS)}.")
    base = find_root(root, "AudioSet", _CLASS_TABLE)
    classes, numbers = _read_classes(base / _CLASS_TABLE)
    tables = [base / f"{part}_segments.csv" for part in SPLITS[split]]
    if split == "all":
        tables = [table for table in tables if table.exists()]
    if segments is not None:
        tables = [base / segments if (base / segments).exists() else Path(segments)]
    ids, label_ends, labels = _read_segments(tables, numbers)
    places, folders = _find_clips(ids, _folders_of(base, SPLITS[split]))
    there = places != _NOWHERE
    missing = int(np.count_nonzero(~there))
    report_missing(
        f"AudioSet ({split})",
        where=base,
        listed=len(ids),
        missing=missing,
        example=ids[~there][0].decode() if missing else "",
        remedy=f"put them in {SPLITS[split][0]}/ there, as Y<id>.wav",
    )
    label_ends, labels = _take(label_ends, labels, np.flatnonzero(there))
    return AudioSet(
        ids[there],
        places[there],
        folders,
        label_ends,
        labels,
        classes=classes,
        split=split,
        missing=missing,
    )


def _read_classes(path: Path) -> tuple[list[str], dict[str, int]]:
    """The names of the classes, and their numbers by machine id (``/m/09x0r``)."""
    names: list[str] = []
    numbers: dict[str, int] = {}
    for line, row in read_rows(path):
        if row[:2] == ["index", "mid"]:
            continue
        if len(row) != 3 or row[0] != str(len(names)):
            raise DatasetError(
                f"{path}, line {line}: expected index,mid,display_name with the index {len(names)}."
            )
        numbers[row[1]] = len(names)
        names.append(row[2])
    if not 0 < len(names) <= _MOST_CLASSES:
        raise DatasetError(f"{path}: holds {len(names)} classes: expected 1 to {_MOST_CLASSES}.")
    return names, numbers


def _read_segments(
    tables: Sequence[Path], numbers: Mapping[str, int]
) -> tuple[ndarray, ndarray, ndarray]:
    """Ids in order, each once, with the ends of their labels, and the labels.

    A machine id may stand quoted with the others of its row, or each as a field of its own.
    """
    ids: list[bytes] = []
    labels, ends = array("h"), array("q", [0])
    for table in tables:
        for line, row in read_rows(table):
            if len(row) > 1 and not _is_number(row[1]) and row[0].upper() in ("YTID", "ID"):
                continue  # the header of a copy that was saved again
            if (
                len(row) < 4
                or not (_is_number(row[1]) and _is_number(row[2]))
                or len(row[0]) > _LONGEST_ID
            ):
                raise DatasetError(
                    f"{table}, line {line}: expected an id, start, end and labels, not "
                    f"{','.join(row)[:60]!r}."
                )
            mids = {mid.strip() for field in row[3:] for mid in field.split(",")}
            try:
                labels.extend(sorted(numbers[mid] for mid in mids))
            except KeyError as error:
                raise DatasetError(
                    f"{table}, line {line}: {_CLASS_TABLE} has no class {error}."
                ) from None
            ends.append(len(labels))
            ids.append(row[0].strip().encode())
    if not ids:
        return np.zeros(0, "S1"), np.zeros(1, np.int64), np.zeros(0, np.int16)
    unique, first = np.unique(np.array(ids), return_index=True)
    return unique, *_take(np.array(ends, np.int64), np.array(labels, np.int16), first)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _take(ends: ndarray, values: ndarray, rows: ndarray) -> tuple[ndarray, ndarray]:
    """Some rows of a table of unequal rows, as the ends of its rows and its values."""
    counts = np.diff(ends)[rows]
    new_ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    shift = np.repeat(ends[rows] - new_ends[:-1], counts)
    return new_ends, values[np.arange(new_ends[-1]) + shift]


def _folders_of(base: Path, parts: Sequence[str]) -> list[str]:
    """The folders that the clips of some parts lie below."""
    found = []
    for place in _PLACES:
        for part in parts:
            names = (part, f"{part}_segments")
            found += [str(base / place / name) for name in names if (base / place / name).is_dir()]
    return found


def _find_clips(ids: ndarray, roots: Sequence[str]) -> tuple[ndarray, list[str]]:
    """Where each clip lies, by one scan of the folders.

    Parameters
    ----------
    ids : ndarray of bytes, shape (clips,)
        In order.
    roots : sequence of str

    Returns
    -------
    places : ndarray of int, shape (clips,)
        The number of the folder, the suffix and whether a ``Y`` stands before the id, in one
        number; `_NOWHERE` if the clip was not found. Where there are several files, the least.
    folders : list of str
    """
    places = np.full(len(ids), _NOWHERE, np.int64)
    folders: list[str] = []
    sounds = _walk(roots, folders)
    while batch := list(islice(sounds, _BATCH)):
        stems = np.array([os.fsencode(stem) for stem, _ in batch])
        codes = np.array([code for _, code in batch], np.int64)
        _note(places, ids, stems, codes)
        # A stem with a Y may be an id that starts with one, or an id after a Y.
        behind_y = [n for n, (stem, _) in enumerate(batch) if stem.startswith("Y")]
        if behind_y:
            rest = np.array([os.fsencode(batch[n][0][1:]) for n in behind_y])
            _note(places, ids, rest, codes[behind_y] + 1)
    return places, folders


def _note(places: ndarray, ids: ndarray, stems: ndarray, codes: ndarray) -> None:
    rows = np.minimum(np.searchsorted(ids, stems), len(ids) - 1)
    known = ids[rows] == stems if len(ids) else np.zeros(len(rows), bool)
    np.minimum.at(places, rows[known], codes[known])


def _walk(roots: Sequence[str], folders: list[str]) -> Iterator[tuple[str, int]]:
    """The stems and codes of all sounds below `roots`; the folders are added to `folders`."""
    pending = list(reversed(roots))
    while pending:
        folders.append(pending.pop())
        deeper = []
        with os.scandir(folders[-1]) as found:
            for entry in found:
                stem, dot, ending = entry.name.rpartition(".")
                if entry.name.startswith("."):
                    continue
                if dot + ending in _SUFFIXES:
                    number = _SUFFIXES.index(dot + ending)
                    yield stem, 2 * (len(_SUFFIXES) * (len(folders) - 1) + number)
                elif entry.is_dir():
                    deeper.append(entry.path)
        pending += sorted(deeper, reverse=True)


def _path_of(clip_id: str, place: int, folders: Sequence[str]) -> Path:
    rest, has_y = divmod(place, 2)
    folder, suffix = divmod(rest, len(_SUFFIXES))
    return Path(folders[folder], "Y" * has_y + clip_id + _SUFFIXES[suffix])
