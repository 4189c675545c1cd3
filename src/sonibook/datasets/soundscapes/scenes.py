"""Scenes as data sets, and `Soundscapes`, which synthesises what is heard in them.

Clip n of seed s is made alone, from ``SeedSequence([s, split, n])`` and nothing else. The random
numbers, and with them classes, times and gains, are the same bit for bit on every machine; the
samples are equal to within the rounding of sines and exponentials, which is far below the step
of 2**-22 that stems are rounded to. (NumPy promises its bit generators for good, its distributions
only mostly: a test pins what is drawn.)
"""

from __future__ import annotations

import operator
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.base import Clip, Dataset, Task
from sonibook.datasets.soundscapes.events import EVENT_CLASSES, render_samples
from sonibook.datasets.soundscapes.scene import Scene, Source, mix
from sonibook.errors import DatasetError

SPLITS = ("all", "train", "test")
_LEAST_DURATION = 0.5


@dataclass(frozen=True)
class Part:
    """What is decided of an event before it is heard."""

    choice: int  # a class, or a clip of the source
    start: int
    length: int
    gain: float
    rng: Generator


class SceneDataset(Dataset):
    """What synthesised and composed scenes share: seeds, plans, mixing.

    Parameters
    ----------
    seed : int from 0 to 2**32 - 1
    size : int > 0
        How many scenes.
    duration : float >= 0.5, in s
        Of each scene.
    events : (int, int), or None
        Fewest and most events in a scene. None: 1 to 5, or just 1 for a single-label task.
    task : {"multi-label", "single-label"}
        Single-label: all events of a scene are of one class.
    split : {"all", "train", "test"}
        Each draws from seeds of its own, so that no scene of one is in another.
    gains : (float, float), in dB
        Range of the events' levels; at equal gain they are equally loud.

    Raises
    ------
    DatasetError
        If a parameter is out of range.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        size: int = 1000,
        duration: float = 5.0,
        events: tuple[int, int] | None = None,
        task: Task = "multi-label",
        split: str = "all",
        gains: tuple[float, float] = (-12.0, 0.0),
    ) -> None:
        if task not in ("multi-label", "single-label"):
            raise DatasetError(f"There is no task {task!r}: choose multi-label or single-label.")
        if split not in SPLITS:
            raise DatasetError(f"{self.name} has no split {split!r}: choose {', '.join(SPLITS)}.")
        if not 0 <= seed < 2**32:
            raise DatasetError(f"seed {seed} is impossible: choose 0 to 2**32 - 1.")
        if size < 1:
            raise DatasetError(f"size {size} leaves no scene: choose at least 1.")
        if not _LEAST_DURATION <= duration < np.inf:
            raise DatasetError(
                f"A scene cannot last {duration} s: choose at least {_LEAST_DURATION}."
            )
        few, many = events or ((1, 5) if task == "multi-label" else (1, 1))
        if not 1 <= few <= many:
            raise DatasetError(f"events ({few}, {many}) is no range: fewest, most, at least 1.")
        if not gains[0] <= gains[1]:
            raise DatasetError(f"gains {gains} is no range: give softest, loudest in dB.")
        self.task, self.split = task, split
        self.seed, self.size, self.events, self.gains = seed, size, (few, many), gains
        self.duration, self.length = duration, round(duration * SAMPLE_RATE)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Clip:
        scene = self.scene(index)
        return Clip(scene.mixture, scene.labels, scene.clip_id)

    def scene(self, index: int) -> Scene:
        """Scene `index` with its events and stems; its mixture is the waveform of clip `index`.

        Parameters
        ----------
        index : int
            Counts from the end if negative.

        Returns
        -------
        Scene

        Raises
        ------
        IndexError
            If there is no such scene.
        """
        index = self._checked(index)
        sources = [self._source(part) for part in self._plan(index)]
        return mix(sources, self.length, self.clip_id(index))

    def clip_id(self, index: int) -> str:
        """The id of scene `index`, such as ``soundscapes-0-train-17``."""
        return f"{self.name}-{self.seed}-{self.split}-{self._checked(index)}"

    def labels(self, index: int) -> tuple[int, ...]:
        """The labels of scene `index`, without making its sound."""
        found = {
            label
            for part in self._plan(self._checked(index))
            for label in self._labels(part.choice)
        }
        return tuple(sorted(found))

    def _checked(self, index: int) -> int:
        number = operator.index(index)
        number += self.size if number < 0 else 0
        if not 0 <= number < self.size:
            raise IndexError(f"scene {index} of {self.size} does not exist.")
        return number

    def _plan(self, index: int) -> list[Part]:
        """Which events there are, where and how loud. Each gets a generator of its own."""
        entropy = [self.seed, SPLITS.index(self.split), index]
        rng = Generator(PCG64(SeedSequence(entropy)))
        few, many = self.events
        choices = self._choose(rng, int(rng.integers(few, many + 1)))
        parts = []
        for choice, own in zip(choices, rng.spawn(len(choices)), strict=True):
            shortest, longest = self._lengths(choice)
            length = int(rng.integers(min(shortest, self.length), min(longest, self.length) + 1))
            start = int(rng.integers(0, self.length - length + 1))
            parts.append(Part(choice, start, length, rng.uniform(*self.gains), own))
        return parts

    @abstractmethod
    def _choose(self, rng: Generator, count: int) -> list[int]:
        """`count` events, or fewer where there are not as many; of one class if single-label."""

    @abstractmethod
    def _lengths(self, choice: int) -> tuple[int, int]:
        """Shortest and longest such an event may be, in samples."""

    @abstractmethod
    def _labels(self, choice: int) -> tuple[int, ...]:
        """The labels of such an event."""

    @abstractmethod
    def _source(self, part: Part) -> Source:
        """The sound of an event."""


class Soundscapes(SceneDataset):
    """Synthesised scenes: sound events with known onset, offset, gain and stem.

    It needs no files, is as large as you like, and clip n is made alone, without making those
    before it. In a multi-label scene every event is of another class; in a single-label scene
    all are of one.

    Parameters and errors are those of `SceneDataset`.

    Examples
    --------
    >>> data = Soundscapes(seed=3, size=10, split="train")
    >>> data[7].clip_id
    'soundscapes-3-train-7'
    >>> scene = data.scene(7)
    >>> bool((scene.stems.sum(axis=0) == scene.mixture).all())
    True
    """

    name = "soundscapes"
    classes = tuple(EVENT_CLASSES)
    licence = "synthesised by sonibook, which is under the MIT licence"

    def _choose(self, rng: Generator, count: int) -> list[int]:
        if self.task == "single-label":
            return [int(rng.integers(len(self.classes)))] * count
        return [int(choice) for choice in rng.permutation(len(self.classes))[:count]]

    def _lengths(self, choice: int) -> tuple[int, int]:
        kind = EVENT_CLASSES[self.classes[choice]]
        return round(kind.shortest * SAMPLE_RATE), round(kind.longest * SAMPLE_RATE)

    def _labels(self, choice: int) -> tuple[int, ...]:
        return (choice,)

    def _source(self, part: Part) -> Source:
        name = self.classes[part.choice]
        waveform = render_samples(name, part.rng, part.length)
        return Source(waveform, part.start, part.gain, (part.choice,), name)
