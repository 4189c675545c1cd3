"""Packing: a data set read once, from end to end, into the shards that `packed` describes.

A shard takes its name when it is whole, and its table after it, so that a packing that was killed
goes on with the first clip that no table counts. What a shard holds depends on the clips alone:
the files end up the same, byte for byte, however often the packing was interrupted.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.base import Dataset
from sonibook.datasets.packed import (
    FORMAT,
    HEADER,
    INDEX,
    PLAN,
    VERSION,
    PackedDataset,
    open_packed,
    read_shard_table,
    shard_path,
)
from sonibook.datasets.read_ahead import Outcome, Unreadable, read_ahead
from sonibook.errors import DatasetError
from sonibook.files import atomic
from sonibook.results import provenance
from sonibook.untrusted import parse_json

SHARD_BYTES = 1 << 30


def pack(
    data: Dataset,
    out: str | Path,
    *,
    split: str | None = None,
    shard_bytes: int = SHARD_BYTES,
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
    OSError
        If the disk is full or cannot be written to.
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
        "sample_rate": SAMPLE_RATE,
        "source_clips": len(data),
        "shard_bytes": shard_bytes,
    }
    if not _begin(folder, plan):
        return open_packed(out, split=name)
    shards = _whole_shards(folder)
    start = shards[-1].stop if shards else 0
    with read_ahead(
        data, start, workers=workers or os.cpu_count() or 1, progress=progress
    ) as outcomes:
        ahead = next(outcomes, None)
        while ahead is not None:
            ahead = _write_shard(folder, len(shards), ahead, outcomes, shard_bytes)
            shards.append(_Shard.read(folder, len(shards)))
    _finish(folder, plan, shards)
    return open_packed(out, split=name)


@dataclass(frozen=True)
class _Shard:
    """What is kept in memory of a shard that is written.

    `stop` is the first clip of the source that is in none of the shards so far.
    """

    clips: int
    samples: int
    stop: int
    bad: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, number: int) -> _Shard:
        table = read_shard_table(shard_path(folder, number).with_suffix(".npz"))
        ends = table["ends"]
        bad = parse_json(table["bad"].tobytes())
        return cls(len(ends), int(ends[-1]) if len(ends) else 0, int(table["stop"]), tuple(bad))


@dataclass
class _Table:
    """The table of a shard while it grows: compact, because a shard may hold 10**5 clips."""

    ends: array = field(default_factory=lambda: array("q"))
    label_ends: array = field(default_factory=lambda: array("q"))
    labels: array = field(default_factory=lambda: array("i"))
    id_ends: array = field(default_factory=lambda: array("q"))
    ids: bytearray = field(default_factory=bytearray)
    bad: list[str] = field(default_factory=list)
    stop: int = 0

    @property
    def samples(self) -> int:
        return self.ends[-1] if self.ends else 0

    def add(self, count: int, labels: tuple[int, ...], clip_id: str) -> None:
        self.ends.append(self.samples + count)
        self.labels.extend(labels)
        self.label_ends.append(len(self.labels))
        self.ids += clip_id.encode("utf-8", "surrogateescape")
        self.id_ends.append(len(self.ids))

    def write(self, path: Path) -> None:
        with atomic(path) as temporary:
            np.savez(
                temporary,
                ends=np.array(self.ends, "<i8"),
                label_ends=np.array(self.label_ends, "<i8"),
                labels=np.array(self.labels, "<i4"),
                id_ends=np.array(self.id_ends, "<i8"),
                ids=np.frombuffer(bytes(self.ids), np.uint8),
                bad=np.frombuffer(json.dumps(self.bad).encode(), np.uint8),
                stop=np.array(self.stop, "<i8"),
            )


def _begin(folder: Path, plan: dict[str, Any]) -> bool:
    """Whether there is anything to pack; leftovers of a killed packing are removed."""
    for name in (INDEX, PLAN):
        path = folder / name
        if not path.exists():
            continue
        try:
            found = parse_json(path.read_text(encoding="utf-8"))
            other = [key for key in plan if found[key] != plan[key]]
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


def _whole_shards(folder: Path) -> list[_Shard]:
    """The shards that an interrupted packing has finished: those that have their tables."""
    shards: list[_Shard] = []
    while shard_path(folder, len(shards)).with_suffix(".npz").exists():
        shard = _Shard.read(folder, len(shards))
        path = shard_path(folder, len(shards))
        if not path.exists() or path.stat().st_size != HEADER + 2 * shard.samples:
            raise DatasetError(f"{path}: is not as its table says: delete the folder, pack again.")
        shards.append(shard)
    return shards


def _write_shard(
    folder: Path,
    number: int,
    ahead: Outcome,
    outcomes: Iterator[Outcome],
    shard_bytes: int,
) -> Outcome | None:
    """Write one shard and its table, from the clip `ahead` on; returns the first of the next."""
    path = shard_path(folder, number)
    table = _Table()
    following: Outcome | None = ahead
    with atomic(path) as temporary, temporary.open("wb") as file:
        _write_header(file, 0)
        while following is not None:
            if isinstance(following, Unreadable):
                table.bad.append(f"clip {following.index}: {following.reason}")
            else:
                samples = following.samples
                if table.ends and 2 * table.samples + samples.nbytes > shard_bytes:
                    break
                file.write(samples.data)
                table.add(len(samples), following.labels, following.clip_id)
            table.stop = following.index + 1
            following = next(outcomes, None)
        if number == 0 and not table.ends:
            raise DatasetError(
                f"None of the {len(table.bad)} clips can be read, the first because: {table.bad[0]}"
            )
        file.seek(0)
        _write_header(file, table.samples)
    table.write(path.with_suffix(".npz"))
    return following


def _write_header(file: BufferedWriter, count: int) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<i2", "fortran_order": False, "shape": (count,)}
    )
    if file.tell() != HEADER:
        raise AssertionError("NumPy no longer pads the header of an array to one size")


def _finish(folder: Path, plan: dict[str, Any], shards: list[_Shard]) -> None:
    _write_json(folder / "provenance.json", provenance())
    _write_json(
        folder / INDEX,
        {
            **plan,
            "clips": sum(shard.clips for shard in shards),
            "samples": sum(shard.samples for shard in shards),
            "shards": [{"clips": shard.clips, "samples": shard.samples} for shard in shards],
            "bad": [reason for shard in shards for reason in shard.bad],
        },
    )
    (folder / PLAN).unlink()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
