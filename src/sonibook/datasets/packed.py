"""Packed data sets: any data set, decoded once, as a few large files of 16-bit samples.

A pack is a folder with a sub-folder a split, and in it

- ``shard-00000.npy``, ``shard-00001.npy``, …: the clips of a shard end to end, one array of
  little-endian 16-bit integers, at most a gibibyte (`numpy.load` opens it, mapped or not);
- ``shard-00000.npz``, …: where in the shard each clip ends, its labels and its id, as plain arrays
  (the rows of unequal length as one array of values and one of ends);
- ``index.json``: the classes, the task, how many clips each shard holds, and which clips could not
  be read; it is written last, so that a folder that has it is whole;
- ``provenance.json``: what made it. All other files depend on the clips alone.

Why not an existing format: a WebDataset tar is read from front to back, and a training here draws
any clip at any time, because what it draws depends on (seed, epoch, clip) alone; HDF5 and LMDB
give random access, but need a library of their own and are left damaged by a kill while writing.
An array on disk gives every clip with one seek and one read, needs nothing but NumPy, and keeps
no file open, so that it can be handed to threads and other processes. Two million clips of 10 s
are 300 files and 320 GB, and need 80 MB of memory for their index.

A sample x in [-1, 1] becomes round(32767 x): it comes back within half a step, 1.6e-5, and full
scale exactly.
"""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int16
from numpy import ndarray

from sonibook.audio import RATES
from sonibook.datasets.base import Clip, Dataset
from sonibook.errors import AudioError, DatasetError
from sonibook.files import read_arrays, read_json

FULL_SCALE = 32767
FORMAT, VERSION = "sonibook-pack", 1
INDEX, PLAN = "index.json", "plan.json"
#: Bytes of the .npy header, which NumPy pads so that it fits any length.
HEADER = 128
#: The arrays in a shard's table.
_TABLE = ("ends", "label_ends", "labels", "id_ends", "ids", "bad", "stop")


class PackedDataset(Dataset):
    """A split of a packed data set, `source`; `bad` says which of its clips are not in the pack."""

    name = "packed"

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self.source, self.split, self.task = index["source"], index["split"], index["task"]
        self.classes, self.licence = tuple(index["classes"]), index["licence"]
        self.sample_rate, self.bad = index["sample_rate"], tuple(index["bad"])
        if not RATES[0] <= self.sample_rate <= RATES[1]:
            raise ValueError(f"a rate of {self.sample_rate} Hz")
        shards = [
            _load_shard(folder, number, row, len(self.classes))
            for number, row in enumerate(index["shards"])
        ]
        self._first_clips = np.cumsum([0] + [len(shard["ends"]) for shard in shards])
        self._ends = _joined([shard["ends"] for shard in shards])
        self._label_ends = _joined_ends([shard["label_ends"] for shard in shards])
        self._labels = _joined([shard["labels"] for shard in shards])
        self._id_ends = _joined_ends([shard["id_ends"] for shard in shards])
        self._ids = _joined([shard["ids"] for shard in shards]).tobytes()

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Clip:
        shard, start, count = self._place(index)
        path = shard_path(self.folder, shard)
        try:
            # Not a memory map: 300 of them would each hold a file open, and what was read would
            # count as this process's memory.
            samples = np.fromfile(path, "<i2", count, offset=HEADER + 2 * start)
        except OSError as error:
            raise AudioError(f"{path}: cannot be read ({error.strerror}).") from None
        if len(samples) < count:
            raise AudioError(f"{path}: is cut short: pack the data set again.")
        return Clip(dequantise(samples), self.labels(index), self.clip_id(index))

    def labels(self, index: int) -> tuple[int, ...]:
        return tuple(self._labels[self._row(self._label_ends, index)].tolist())

    def clip_id(self, index: int) -> str:
        return self._ids[self._row(self._id_ends, index)].decode("utf-8", "surrogateescape")

    def samples(self, index: int) -> int:
        return self._place(index)[2]

    def _place(self, index: int) -> tuple[int, int, int]:
        """The shard that holds a clip, where it starts there, and how long it is."""
        index = range(len(self))[operator.index(index)]
        shard = int(np.searchsorted(self._first_clips, index, side="right")) - 1
        start = 0 if index == self._first_clips[shard] else int(self._ends[index - 1])
        return shard, start, int(self._ends[index]) - start

    def _row(self, ends: ndarray, index: int) -> slice:
        index = range(len(self))[operator.index(index)]
        return slice(int(ends[index - 1]) if index else 0, int(ends[index]))


def open_packed(root: str | Path, *, split: str = "all") -> PackedDataset:
    """A split of a data set that ``sonibook data pack`` has packed."""
    base = Path(root)
    there = sorted(path.parent.name for path in base.glob(f"*/{INDEX}"))
    if split not in there:
        if (base / split / PLAN).exists():
            raise DatasetError(
                f"{base / split}: is not packed to the end: run 'sonibook data pack' again, and it "
                "goes on where it stopped."
            )
        if not there:
            raise DatasetError(
                f"{base}: no packed data set here: make one with 'sonibook data pack', and give "
                "its folder."
            )
        raise DatasetError(f"{base}: the pack has no split {split!r}: choose {', '.join(there)}.")
    path = base / split / INDEX
    try:
        index = read_json(path)
        if (index["format"], index["version"]) != (FORMAT, VERSION):
            raise DatasetError(
                f"{path}: is of format {index['format']} {index['version']}, and this reads "
                f"{FORMAT} {VERSION}: pack the data set again."
            )
        return PackedDataset(base / split, index)
    except DatasetError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: is damaged ({error}): pack the data set again.") from None


def quantise(x: Float[ndarray, " time"]) -> Int16[ndarray, " time"]:
    """A waveform as little-endian 16-bit integers; AudioError where it leaves [-1, 1]."""
    loudest = float(np.abs(x).max(initial=0.0))
    if not loudest <= 1.0 + 1e-6:
        raise AudioError(f"its samples reach {loudest:.3g}, and must lie in [-1, 1].")
    return np.rint(np.clip(x, -1.0, 1.0) * FULL_SCALE).astype("<i2")


def dequantise(samples: Int16[ndarray, " time"]) -> Float[ndarray, " time"]:
    """The waveform of 16-bit integers, float32."""
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


def shard_path(folder: Path, number: int) -> Path:
    """Where the samples of a shard lie; its table lies beside them, as ``.npz``."""
    return folder / f"shard-{number:05d}.npy"


def read_table(path: Path) -> dict[str, ndarray]:
    """The table of a shard, from its ``.npz``; DatasetError where it is missing or damaged."""
    try:
        return read_arrays(path, _TABLE)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}): pack the data set again.") from None


def _load_shard(folder: Path, number: int, row: dict[str, int], classes: int) -> dict[str, ndarray]:
    path = shard_path(folder, number)
    table = read_table(path.with_suffix(".npz"))
    samples = int(table["ends"][-1]) if len(table["ends"]) else 0
    size = path.stat().st_size if path.exists() else -1
    if (len(table["ends"]), samples) != (row["clips"], row["samples"]) or (
        size != HEADER + 2 * samples
    ):
        raise DatasetError(f"{path}: is not as {INDEX} says: copy or pack the data set again.")
    if not _is_sound(table, classes):
        raise DatasetError(f"{path.with_suffix('.npz')}: is damaged: pack the data set again.")
    return table


def _is_sound(table: dict[str, ndarray], classes: int) -> bool:
    """Whether the rows of a shard's table lie one after the other, and its labels are classes."""
    clips, labels = len(table["ends"]), table["labels"]
    rows = (("label_ends", len(labels)), ("id_ends", len(table["ids"])))
    return (
        all(array.ndim == 1 and array.dtype.kind in "iu" for array in table.values() if array.ndim)
        and bool((np.diff(table["ends"], prepend=0) >= 0).all())
        and all(
            len(table[name]) == clips
            and bool((np.diff(table[name], prepend=0) >= 0).all())
            and (int(table[name][-1]) if clips else 0) == length
            for name, length in rows
        )
        and bool(((labels >= 0) & (labels < classes)).all())
    )


def _joined(arrays: list[ndarray]) -> ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)


def _joined_ends(ends: list[ndarray]) -> ndarray:
    """Where each row of several tables ends when their values are joined."""
    return np.cumsum(_joined([np.diff(shard, prepend=0) for shard in ends]))
