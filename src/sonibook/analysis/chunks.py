"""Measured chunks of a data set, kept in files, so that an interrupted analysis goes on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from sonibook.datasets.base import Dataset
from sonibook.errors import AnalysisError, AudioError
from sonibook.files import atomic
from sonibook.untrusted import parse_json, read_arrays


@dataclass(frozen=True)
class Chunk:
    """Some clips of a data set, measured.

    Attributes
    ----------
    index : ndarray of int, shape (clips,)
        Where in the data set the clips stand that were measured.
    clip_ids : tuple of str, of length clips
    skipped : dict of str to int
        How many others were not measured, by reason: ``unreadable``, ``silent``, ``short``.
    arrays : dict of str to ndarray, shapes (clips, ...)
        What was measured; empty if there was no clip to measure.
    """

    index: Int[ndarray, " clips"]
    clip_ids: tuple[str, ...]
    skipped: dict[str, int]
    arrays: dict[str, ndarray]


class Tally:
    """How many clips were measured, and how many skipped."""

    def __init__(self) -> None:
        self.clips = 0
        self.skipped: dict[str, int] = {}

    def add(self, chunk: Chunk) -> None:
        """Count the clips of a chunk."""
        self.clips += len(chunk.clip_ids)
        reasons = sorted({*self.skipped, *chunk.skipped})
        self.skipped = {
            reason: self.skipped.get(reason, 0) + chunk.skipped.get(reason, 0) for reason in reasons
        }

    def check(self) -> None:
        """See that there is something to report."""
        if not self.clips:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
            raise AnalysisError(
                f"There is no clip to measure ({reasons or 'the data set is empty'})."
            )


@dataclass(frozen=True)
class ChunkCache:
    """The chunks of one analysis of one data set; make it with `ChunkCache.of`."""

    folder: Path

    @classmethod
    def of(cls, parts: str | Path, key: list[Any], data: Dataset) -> ChunkCache:
        """Those below the folder `parts` that were measured with the same key on the same data."""
        whole = [version("sonibook"), key, _traits(data)]
        text = json.dumps(whole, sort_keys=True, allow_nan=False)
        return cls(Path(parts) / hashlib.sha256(text.encode()).hexdigest()[:16])

    def read(self, number: int) -> Chunk | None:
        """Chunk `number`, or None if it is not there, or damaged."""
        try:
            path = self._file(number)
            head = read_arrays(path, ("head", "index"))
            clip_ids, skipped, names = parse_json(str(head["head"]))
            arrays = read_arrays(path, [f"array{place}" for place in range(len(names))])
            measured = dict(zip(names, arrays.values(), strict=True))
            return Chunk(head["index"], tuple(clip_ids), skipped, measured)
        except (OSError, ValueError, TypeError):
            return None

    def write(self, number: int, chunk: Chunk) -> None:
        """Keep `chunk` as number `number`, whole or not at all."""
        head = json.dumps([chunk.clip_ids, chunk.skipped, list(chunk.arrays)])
        arrays: dict[str, Any] = {
            f"array{place}": value for place, value in enumerate(chunk.arrays.values())
        }
        with atomic(self._file(number)) as temporary:
            np.savez(temporary, head=np.array(head), index=chunk.index, **arrays)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def _traits(data: Dataset) -> list[object]:
    """What tells a data set from others, also by options that only its sounds betray."""
    ends: list[str] = []
    for place in (0, len(data) - 1) if len(data) else ():
        try:
            clip = data[place]
            ends += [clip.clip_id, hashlib.sha256(clip.waveform.tobytes()).hexdigest()]
        except AudioError as error:
            ends.append(str(error))
    return [data.name, data.split, len(data), data.task, list(data.classes), ends]
