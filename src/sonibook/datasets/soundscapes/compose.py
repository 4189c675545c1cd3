"""Scenes composed of the clips of any other data set, with every clip's stem known."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.base import Dataset, Task
from sonibook.datasets.soundscapes.scene import Source
from sonibook.datasets.soundscapes.scenes import SPLITS, Part, SceneDataset
from sonibook.errors import DatasetError

_SHORTEST = 1.0
_LOUD = 10.0 ** (-30.0 / 20.0)


def compose(
    sources: Dataset,
    *,
    seed: int = 0,
    size: int = 1000,
    duration: float = 5.0,
    events: tuple[int, int] | None = None,
    task: Task = "multi-label",
    split: str | None = None,
    gains: tuple[float, float] = (-12.0, 0.0),
) -> ComposedScenes:
    """Compose scenes of the clips of another data set.

    Each event is a piece of one clip, a second or longer where the clip is, that holds some of
    the clip's loud part. The clips of a scene differ; their classes may be the same.

    Parameters
    ----------
    sources : Dataset
        Hand in a training split for training scenes: clips are never taken from elsewhere.
    seed, size, duration, events, task, gains
        As in `Soundscapes`.
    split : {"all", "train", "test"} or None
        None: that of `sources`, or "all" where that is another.

    Returns
    -------
    ComposedScenes
        Scenes made alone and the same every time, as those of `Soundscapes`.

    Raises
    ------
    DatasetError
        If `sources` is empty, or without single labels when `task` asks for one, or a parameter
        is out of range. Reading a scene raises AudioError where one of its clips cannot be read.
    """
    if split is None:
        split = sources.split if sources.split in SPLITS else "all"
    return ComposedScenes(
        sources,
        seed=seed,
        size=size,
        duration=duration,
        events=events,
        task=task,
        split=split,
        gains=gains,
    )


class ComposedScenes(SceneDataset):
    """Scenes whose events are clips of another data set. Made by `compose`.

    Attributes
    ----------
    sources : Dataset
    """

    def __init__(self, sources: Dataset, **options: Any) -> None:
        self.name, self.classes = f"scenes-of-{sources.name}", sources.classes
        super().__init__(**options)
        if len(sources) == 0:
            raise DatasetError(f"{sources.name} holds no clips to compose scenes of.")
        if self.task == "single-label" and (sources.task != self.task or not sources.classes):
            raise DatasetError(
                f"{sources.name} has no single labels: compose its scenes as multi-label."
            )
        self.sources = sources

    def _choose(self, rng: Generator, count: int) -> list[int]:
        pool = np.arange(len(self.sources))
        if self.task == "single-label":
            # A clip drawn first makes classes as frequent as their clips.
            pool = self._clips_by_labels[self.sources.labels(int(rng.choice(pool)))]
        chosen = rng.choice(pool, min(count, len(pool)), replace=False)
        return [int(choice) for choice in chosen]

    @cached_property
    def _clips_by_labels(self) -> dict[tuple[int, ...], ndarray]:
        labels = [self.sources.labels(number) for number in range(len(self.sources))]
        return {
            kind: np.flatnonzero([found == kind for found in labels])
            for kind in sorted(set(labels))
        }

    def _lengths(self, choice: int) -> tuple[int, int]:
        return round(_SHORTEST * SAMPLE_RATE), self.length

    def _labels(self, choice: int) -> tuple[int, ...]:
        return self.sources.labels(choice)

    def _source(self, part: Part) -> Source:
        clip = self.sources[part.choice]
        x = clip.waveform
        loud = np.flatnonzero(np.abs(x) >= _LOUD * np.abs(x).max())
        inside = int(loud[int(part.rng.random() * len(loud))])
        start = max(min(inside, len(x) - part.length), 0)
        piece = x[start : start + part.length]
        name = ", ".join(self.classes[label] for label in clip.labels) or clip.clip_id
        return Source(piece, part.start, part.gain, clip.labels, name, clip.clip_id)
