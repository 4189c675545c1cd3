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
scale exactly. A shard takes its name when it is whole, and its table after it: a packing that was
killed goes on with the first clip that no table counts, and ends in the same bytes.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from functools import partial
from io import BufferedWriter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int16
from numpy import ndarray

from sonibook.audio import RATES, dequantise, quantise
from sonibook.datasets.base import Clip, Dataset, read_ahead
from sonibook.errors import AudioError, DatasetError, MissingAudioError
from sonibook.files import atomic, parse_json, provenance, read_arrays, read_json, write_text

_FORMAT, _VERSION = "sonibook-pack", 1
_INDEX, _PLAN = "index.json", "plan.json"
#: Bytes of the .npy header, which NumPy pads so that it fits any length.
_HEADER = 128
#: The arrays in a shard's table.
_TABLE = ("ends", "label_ends", "labels", "id_ends", "ids", "bad", "stop")
#: So many bad clips in a row are not bad clips but a disk that has gone.
BAD_IN_A_ROW = 100


class _Shard:
    """The samples of a shard, and the table beside them: refused unless they fit each other."""

    def __init__(self, folder: Path, number: int, classes: int) -> None:
        path = _shard_path(folder, number)
        table_path = path.with_suffix(".npz")
        try:
            self.table = table = read_arrays(table_path, _TABLE)
        except (OSError, ValueError) as error:
            raise DatasetError(f"{table_path}: cannot be read ({error}): pack again.") from None
        ends, ids, labels = table["ends"], table["ids"], table["labels"]
        clips, samples = len(ends), int(ends[-1]) if len(ends) else 0
        self.size = {"clips": clips, "samples": samples}
        if not path.exists() or path.stat().st_size != _HEADER + 2 * samples:
            raise DatasetError(
                f"{path}: is not as its table says: copy it again, or delete the folder and pack "
                "again."
            )
        counts = {"ends": samples, "label_ends": len(labels), "id_ends": len(ids)}
        sound = all(one.ndim <= 1 and one.dtype.kind in "iu" for one in table.values()) and all(
            len(table[name]) == clips
            and (np.diff(table[name], prepend=0) >= 0).all()
            and (table[name][-1] if clips else 0) == count
            for name, count in counts.items()
        )
        if not (sound and ((labels >= 0) & (labels < classes)).all()):
            raise DatasetError(f"{table_path}: is damaged: pack the data set again.")


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
        rows = index["shards"]
        shards = [_Shard(folder, number, len(self.classes)) for number in range(len(rows))]
        if [shard.size for shard in shards] != rows:
            raise ValueError("its shards are of other sizes")
        self._first_clips = np.cumsum([0] + [row["clips"] for row in rows])

        def joined(name: str) -> ndarray:
            values = [shard.table[name] for shard in shards] or [np.zeros(0, np.int64)]
            if name.endswith("_ends"):  # where rows end, when their values are joined
                return np.cumsum(np.concatenate([np.diff(ends, prepend=0) for ends in values]))
            return np.concatenate(values)

        self._ends, self._labels, self._ids = joined("ends"), joined("labels"), joined("ids")
        self._label_ends, self._id_ends = joined("label_ends"), joined("id_ends")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Clip:
        shard, start, count = self._place(index)
        path = _shard_path(self.folder, shard)
        try:
            # Not a memory map: 300 of them would each hold a file open, and what was read would
            # count as this process's memory.
            samples = np.fromfile(path, "<i2", count, offset=_HEADER + 2 * start)
        except OSError as error:
            raise AudioError(f"{path}: cannot be read ({error.strerror}).") from None
        if len(samples) < count:
            raise AudioError(f"{path}: is cut short: pack the data set again.")
        return Clip(dequantise(samples), self.labels(index), self.clip_id(index))

    def labels(self, index: int) -> tuple[int, ...]:
        return tuple(self._labels[self._row(self._label_ends, index)].tolist())

    def clip_id(self, index: int) -> str:
        written = self._ids[self._row(self._id_ends, index)].tobytes()
        return written.decode("utf-8", "surrogateescape")

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
    there = sorted(path.parent.name for path in base.glob(f"*/{_INDEX}"))
    if split not in there and (base / split / _PLAN).exists():
        raise DatasetError(
            f"{base / split}: is not packed to the end: run 'sonibook data pack' again, and it "
            "goes on where it stopped."
        )
    if not there:
        raise DatasetError(
            f"{base}: no packed data set here: make one with 'sonibook data pack', and give its "
            "folder."
        )
    if split not in there:
        raise DatasetError(f"{base}: the pack has no split {split!r}: choose {', '.join(there)}.")
    path = base / split / _INDEX
    try:
        index = read_json(path)
        if (index["format"], index["version"]) != (_FORMAT, _VERSION):
            raise DatasetError(
                f"{path}: is of format {index['format']} {index['version']}, and this reads "
                f"{_FORMAT} {_VERSION}: pack the data set again."
            )
        return PackedDataset(base / split, index)
    except DatasetError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: is damaged ({error}): pack the data set again.") from None


def pack(
    data: Dataset,
    out: str | Path,
    *,
    split: str | None = None,
    shard_bytes: int = 1 << 30,
    workers: int | None = None,
    progress: bool | None = None,
) -> PackedDataset:
    """Pack a data set, or go on with a packing that was interrupted.

    Parameters
    ----------
    data : Dataset
    out : str or Path
        The pack's folder; the split becomes a sub-folder of it.
    split : str or None
        Name of that sub-folder; that of `data` if None.
    shard_bytes : int > 0
        Largest size of a shard; a longer clip gets a shard of its own.
    workers : int >= 1, or None
        Threads that decode; as many as there are processors if None. The result is the same.
    progress : bool or None
        Whether to show a progress bar; None shows one on a terminal.

    Returns
    -------
    PackedDataset
        As `open_packed` opens it. Clips that cannot be read are left out, and named in `bad`.

    Raises
    ------
    DatasetError
        If the folder holds the pack of something else, no clip can be read, or so many in a row
        cannot that the disk must have gone.
    """
    name = split or data.split
    folder = Path(out) / name
    if folder.parent != Path(out) or name.startswith("."):
        raise DatasetError(f"A split cannot be named {name!r}: it becomes a folder's name.")
    if len(data) == 0:
        raise DatasetError(f"{data.name} ({data.split}) has no clips to pack.")
    if shard_bytes < 1:
        raise DatasetError(f"A shard of {shard_bytes} bytes holds nothing: choose more.")
    plan = {
        "format": _FORMAT,
        "version": _VERSION,
        "source": data.name,
        "split": data.split,
        "task": data.task,
        "licence": data.licence,
        "classes": list(data.classes),
        "sample_rate": data.sample_rate,
        "source_clips": len(data),
        "shard_bytes": shard_bytes,
    }
    if not _begin(folder, plan):
        return open_packed(out, split=name)
    shards: list[_Shard] = []
    classes = len(data.classes)
    while _shard_path(folder, len(shards)).with_suffix(".npz").exists():  # is finished
        shards.append(_Shard(folder, len(shards), classes))
    start = int(shards[-1].table["stop"]) if shards else 0
    threads = workers or os.cpu_count() or 1
    with closing(_clips(data, start, workers=threads, progress=progress)) as clips:
        clip = next(clips, None)
        while clip is not None:
            clip = _write_shard(folder, len(shards), clip, clips, shard_bytes)
            shards.append(_Shard(folder, len(shards), classes))
    _write_json(folder / "provenance.json", provenance())
    sizes = [shard.size for shard in shards]
    totals = {key: sum(size[key] for size in sizes) for key in ("clips", "samples")}
    bad = [reason for shard in shards for reason in parse_json(shard.table["bad"].tobytes())]
    _write_json(folder / _INDEX, {**plan, **totals, "shards": sizes, "bad": bad})
    (folder / _PLAN).unlink()
    return open_packed(out, split=name)


class _Packed(NamedTuple):
    """A clip as it is packed, or why it cannot be read."""

    number: int
    samples: Int16[ndarray, " time"] | None = None
    labels: tuple[int, ...] = ()
    clip_id: str = ""
    reason: str = ""


def _clips(
    data: Dataset, start: int, *, workers: int, progress: bool | None
) -> Generator[_Packed, None, None]:
    """Clip after clip from `start` on, read ahead by threads, which decoding leaves free."""
    from tqdm.auto import tqdm

    numbers = range(start, len(data))
    clips = read_ahead(partial(_read, data), numbers, threads=workers, ahead=4 * workers)
    bar = {"disable": None if progress is None else not progress, "leave": False}
    bad_in_a_row = 0
    with closing(clips):
        for clip in tqdm(clips, desc="pack", unit="clip", total=len(data), initial=start, **bar):
            bad_in_a_row = bad_in_a_row + 1 if clip.samples is None else 0
            if bad_in_a_row == BAD_IN_A_ROW:
                raise DatasetError(
                    f"{bad_in_a_row} clips in a row cannot be read, the last because: "
                    f"{clip.reason} Is the disk there? If it is, mend or remove them."
                )
            yield clip


def _read(data: Dataset, index: int) -> _Packed:
    try:
        clip = data[index]
        return _Packed(index, quantise(clip.waveform), clip.labels, clip.clip_id)
    except MissingAudioError as error:
        raise DatasetError(
            f"{error} It was there when the data set was opened: is the disk still there? Nothing "
            "is lost: pack again to go on."
        ) from None
    except AudioError as error:
        return _Packed(index, reason=str(error))


def _begin(folder: Path, plan: dict[str, Any]) -> bool:
    """Whether there is anything to pack; leftovers of a killed packing are removed."""
    for name in (_INDEX, _PLAN):
        path = folder / name
        if not path.exists():
            continue
        try:
            kept = read_json(path)
            other = [key for key in plan if kept[key] != plan[key]]
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{path}: is damaged ({error}): delete the folder.") from None
        if other:
            raise DatasetError(
                f"{folder}: holds a pack with another {other[0].replace('_', ' ')}: pack into "
                "another folder, or delete this one."
            )
        if name == _INDEX:
            with suppress(OSError):  # a disk may be read-only, and its packs serve all the same
                (folder / _PLAN).unlink(missing_ok=True)  # there if killed in its last moment
            return False
    for leftover in folder.glob(".shard-*"):
        leftover.unlink()
    _write_json(folder / _PLAN, plan)
    return True


def _write_shard(
    folder: Path, number: int, clip: _Packed, clips: Iterator[_Packed], shard_bytes: int
) -> _Packed | None:
    """Write one shard and its table, from `clip` on; returns the first clip of the next."""
    path = _shard_path(folder, number)
    rows: list[tuple[int, tuple[int, ...], bytes]] = []
    bad: list[str] = []
    stop, size = clip.number, 0
    following: _Packed | None = clip
    with atomic(path) as temporary, temporary.open("wb") as file:
        _write_header(file, 0)
        while following is not None:
            if following.samples is None:
                bad.append(f"clip {following.number}: {following.reason}")
            else:
                if rows and size + following.samples.nbytes > shard_bytes:
                    break
                file.write(following.samples.data)
                size += following.samples.nbytes
                name = following.clip_id.encode("utf-8", "surrogateescape")
                rows.append((len(following.samples), following.labels, name))
            stop = following.number + 1
            following = next(clips, None)
        if number == 0 and not rows:
            raise DatasetError(
                f"None of the {len(bad)} clips can be read, the first because: {bad[0]}"
            )
        file.seek(0)
        _write_header(file, size // 2)
    with atomic(path.with_suffix(".npz")) as temporary:
        np.savez(
            temporary,
            ends=np.cumsum([length for length, _, _ in rows], dtype="<i8"),
            label_ends=np.cumsum([len(labels) for _, labels, _ in rows], dtype="<i8"),
            labels=np.array([label for _, labels, _ in rows for label in labels], "<i4"),
            id_ends=np.cumsum([len(name) for _, _, name in rows], dtype="<i8"),
            ids=np.frombuffer(b"".join(name for _, _, name in rows), np.uint8),
            bad=np.frombuffer(json.dumps(bad).encode(), np.uint8),
            stop=np.array(stop, "<i8"),
        )
    return following


def _write_header(file: BufferedWriter, count: int) -> None:
    told = {"descr": "<i2", "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, told)
    if file.tell() != _HEADER:
        raise AssertionError("NumPy no longer pads the header of an array to one size")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _shard_path(folder: Path, number: int) -> Path:
    """Where the samples of a shard lie; its table lies beside them, as ``.npz``."""
    return folder / f"shard-{number:05d}.npy"
