"""Packing: a data set read once, from end to end, into the shards that `packed` describes.

A shard takes its name when it is whole, and its table after it, so that a packing that was killed
goes on with the first clip that no table counts. What a shard holds depends on the clips alone:
the files end up the same, byte for byte, however often the packing was interrupted.
"""

from __future__ import annotations

import json
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

from sonibook.datasets.base import Dataset, read_ahead
from sonibook.datasets.packed import (
    FORMAT,
    HEADER,
    INDEX,
    PLAN,
    VERSION,
    PackedDataset,
    open_packed,
    quantise,
    read_table,
    shard_path,
)
from sonibook.errors import AudioError, DatasetError, MissingAudioError
from sonibook.files import atomic, parse_json, provenance, read_json

#: So many bad clips in a row are not bad clips but a disk that has gone.
BAD_IN_A_ROW = 100
_SHARD_BYTES = 1 << 30
#: Clips that are read ahead by each thread.
_AHEAD = 4


def pack(
    data: Dataset,
    out: str | Path,
    *,
    split: str | None = None,
    shard_bytes: int = _SHARD_BYTES,
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
        "format": FORMAT,
        "version": VERSION,
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
    shards = _finished_shards(folder)
    start = shards[-1].stop if shards else 0
    threads = workers or os.cpu_count() or 1
    with closing(_clips(data, start, workers=threads, progress=progress)) as clips:
        clip = next(clips, None)
        while clip is not None:
            clip = _write_shard(folder, len(shards), clip, clips, shard_bytes)
            shards.append(_read_shard(folder, len(shards)))
    _write_json(folder / "provenance.json", provenance())
    sizes = [{"clips": shard.clips, "samples": shard.samples} for shard in shards]
    totals = {key: sum(size[key] for size in sizes) for key in ("clips", "samples")}
    bad = [reason for shard in shards for reason in shard.bad]
    _write_json(folder / INDEX, {**plan, **totals, "shards": sizes, "bad": bad})
    (folder / PLAN).unlink()
    return open_packed(out, split=name)


class _Shard(NamedTuple):
    """What is kept of a written shard; `stop` is the source's first clip after it."""

    clips: int
    samples: int
    stop: int
    bad: list[str]


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
    """Clip after clip from `start` on, read ahead by threads: decoding leaves Python's lock alone.

    DatasetError where `BAD_IN_A_ROW` clips cannot be read.
    """
    from tqdm.auto import tqdm

    numbers, ahead = range(start, len(data)), _AHEAD * workers
    clips = read_ahead(partial(_read, data), numbers, threads=workers, ahead=ahead)
    hidden, bad_in_a_row = None if progress is None else not progress, 0
    with (
        closing(clips),
        tqdm(
            desc="pack", unit="clip", total=len(data), initial=start, disable=hidden, leave=False
        ) as bar,
    ):
        for clip in clips:
            bar.update()
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
    for name in (INDEX, PLAN):
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
        if name == INDEX:
            if (folder / PLAN).exists():  # killed in its last moment
                with suppress(OSError):  # a disk may be read-only, and its packs serve all the same
                    (folder / PLAN).unlink()
            return False
    for leftover in folder.glob(".shard-*"):
        leftover.unlink()
    _write_json(folder / PLAN, plan)
    return True


def _finished_shards(folder: Path) -> list[_Shard]:
    """The shards that an interrupted packing has finished: those that have their tables."""
    shards: list[_Shard] = []
    while (path := shard_path(folder, len(shards))).with_suffix(".npz").exists():
        shard = _read_shard(folder, len(shards))
        if not path.exists() or path.stat().st_size != HEADER + 2 * shard.samples:
            raise DatasetError(f"{path}: is not as its table says: delete the folder, pack again.")
        shards.append(shard)
    return shards


def _write_shard(
    folder: Path, number: int, clip: _Packed, clips: Iterator[_Packed], shard_bytes: int
) -> _Packed | None:
    """Write one shard and its table, from `clip` on; returns the first clip of the next."""
    path = shard_path(folder, number)
    lengths: list[int] = []
    labels: list[tuple[int, ...]] = []
    ids: list[bytes] = []
    bad: list[str] = []
    stop, size = clip.number, 0
    following: _Packed | None = clip
    with atomic(path) as temporary, temporary.open("wb") as file:
        _write_header(file, 0)
        while following is not None:
            if following.samples is None:
                bad.append(f"clip {following.number}: {following.reason}")
            else:
                if lengths and size + following.samples.nbytes > shard_bytes:
                    break
                file.write(following.samples.data)
                size += following.samples.nbytes
                lengths.append(len(following.samples))
                labels.append(following.labels)
                ids.append(following.clip_id.encode("utf-8", "surrogateescape"))
            stop = following.number + 1
            following = next(clips, None)
        if number == 0 and not lengths:
            raise DatasetError(
                f"None of the {len(bad)} clips can be read, the first because: {bad[0]}"
            )
        file.seek(0)
        _write_header(file, sum(lengths))
    with atomic(path.with_suffix(".npz")) as temporary:
        np.savez(
            temporary,
            ends=np.cumsum(lengths, dtype="<i8"),
            label_ends=np.cumsum([len(row) for row in labels], dtype="<i8"),
            labels=np.array([label for row in labels for label in row], "<i4"),
            id_ends=np.cumsum([len(clip_id) for clip_id in ids], dtype="<i8"),
            ids=np.frombuffer(b"".join(ids), np.uint8),
            bad=np.frombuffer(json.dumps(bad).encode(), np.uint8),
            stop=np.array(stop, "<i8"),
        )
    return following


def _write_header(file: BufferedWriter, count: int) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<i2", "fortran_order": False, "shape": (count,)}
    )
    if file.tell() != HEADER:
        raise AssertionError("NumPy no longer pads the header of an array to one size")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read_shard(folder: Path, number: int) -> _Shard:
    table = read_table(shard_path(folder, number).with_suffix(".npz"))
    ends, bad = table["ends"], parse_json(table["bad"].tobytes())
    return _Shard(len(ends), int(ends[-1]) if len(ends) else 0, int(table["stop"]), bad)
