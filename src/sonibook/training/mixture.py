"""Several data sets as one to train on: long recordings as many clips, clips without sound as none.

Recordings for pretraining come in all lengths. Taken file by file, a minute of birdsong would count
as much as a door that shuts; cut into stretches, it counts for what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from tqdm.auto import tqdm

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.base import Clip, ClipReader, Dataset
from sonibook.datasets.packed import dequantise, quantise
from sonibook.errors import DatasetError

#: Of a clip's peak: what is quieter than -60 dB is silence, as for `sounding_starts`.
_FLOOR = 1e-3


class Mixture(Dataset):
    """The clips of several data sets, one after the other, cut into stretches.

    Parameters
    ----------
    parts : sequence of Dataset
        The first says what the classes are; clips of the others have no labels.
    weights : sequence of float > 0
        For each part, how often an epoch goes through it.
    stretch_seconds : float > 0, in s, or None
        A clip that holds n stretches of this length counts as n clips, of its length by n each.
    least_sound : float >= 0, in s
        Clips and stretches with less from their first to their last sample that is louder than
        -60 dB re their peak are left out.
    in_memory : bool
        Hold all clips as 16-bit samples (`sonibook.datasets.packed` says how exactly).

    Attributes
    ----------
    counts : tuple of int
        Clips of each part that are in it.
    quotas : tuple of int
        Clips of each part that an epoch draws.
    unreadable : int
        Clips that cannot be read, and are left out.

    Raises
    ------
    DatasetError
        If no clip of a part is left, or one is at another rate than 8 kHz.
    AudioError
        As `ClipReader`.
    """

    def __init__(
        self,
        parts: Sequence[Dataset],
        *,
        weights: Sequence[float],
        stretch_seconds: float | None = None,
        least_sound: float = 0.0,
        in_memory: bool = False,
    ) -> None:
        first = parts[0]
        self.parts, self.classes, self.task = tuple(parts), first.classes, first.task
        if {part.sample_rate for part in parts} != {SAMPLE_RATE}:
            raise DatasetError(f"Data sets can be joined at {SAMPLE_RATE} Hz alone.")
        self.name = " and ".join(part.name for part in parts)
        self.split = "; ".join(part.split for part in parts)
        self.licence = "; ".join(dict.fromkeys(part.licence or "unknown" for part in parts))
        self._held: dict[tuple[int, int], ndarray] = {}
        rows: list[tuple[int, int, int, int]] = []
        counts, self.unreadable = [], 0
        for number, part in enumerate(parts):
            before, reader = len(rows), ClipReader(part)
            for index in tqdm(range(len(part)), desc=f"read {part.name}", disable=None):
                if (clip := reader(index)) is None:
                    continue
                x = clip.waveform
                if in_memory:
                    self._held[number, index] = quantise(x)
                for start, stop in _stretches(len(x), stretch_seconds):
                    if _sounding(x[start:stop]) >= least_sound * SAMPLE_RATE:
                        rows.append((number, index, start, stop))
            self.unreadable += len(reader.bad)
            if len(rows) == before:
                raise DatasetError(
                    f"{part.name} ({part.split}) has no clip with {least_sound:g} s of sound: "
                    "lower data.least_sound."
                )
            counts.append(len(rows) - before)
        self._rows: Int[ndarray, "clips 4"] = np.array(rows)
        self.counts = tuple(counts)
        self.quotas = tuple(
            max(1, round(weight * count)) for weight, count in zip(weights, counts, strict=True)
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Clip:
        number, clip, start, stop = map(int, self._rows[index])
        held = self._held.get((number, clip))
        if held is None:
            x = self.parts[number][clip].waveform[start:stop]
        else:
            x = dequantise(held[start:stop])
        loudest = np.abs(x).max(initial=0.0)
        scaled = x if loudest in (0.0, 1.0) else x / loudest
        return Clip(scaled, self.labels(index), self.clip_id(index))

    def clip_id(self, index: int) -> str:
        number, clip, start, _ = map(int, self._rows[index])
        return f"{self.parts[number].name}/{self.parts[number].clip_id(clip)}@{start}"

    def labels(self, index: int) -> tuple[int, ...]:
        number, clip, *_ = map(int, self._rows[index])
        return self.parts[0].labels(clip) if number == 0 else ()


def _stretches(length: int, seconds: float | None) -> list[tuple[int, int]]:
    count = 1 if seconds is None else max(1, int(length / (seconds * SAMPLE_RATE)))
    return [(number * length // count, (number + 1) * length // count) for number in range(count)]


def _sounding(x: Float[ndarray, " time"]) -> int:
    """Samples from the first to the last that sounds."""
    loud = np.flatnonzero(np.abs(x) > _FLOOR * np.abs(x).max(initial=0.0))
    return int(loud[-1] - loud[0]) + 1 if loud.size else 0
