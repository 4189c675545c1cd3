"""Scenes: events that overlap, synthesised (`Soundscapes`) or clips of a data set.

Clip n of seed s is made alone, from ``SeedSequence([s, split, n])`` and nothing else. The random
numbers, and with them classes, times and gains, are the same bit for bit on every machine; the
samples are equal to within the rounding of sines and exponentials, far below the step of 2**-22
that stems are rounded to. (NumPy does not promise its distributions: a test pins what is drawn.)
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float
from numpy import ndarray
from numpy.random import PCG64, Generator, SeedSequence

from sonibook.audio import SAMPLE_RATE, scale_to_peak
from sonibook.datasets.base import Clip, Dataset, Synthesised, Task
from sonibook.datasets.soundscapes import nature, objects  # noqa: F401
from sonibook.datasets.soundscapes.synth import EVENTS, surroundings
from sonibook.errors import DatasetError

#: Stems are rounded to multiples of this (-132 dB): float32 then adds them without rounding, in
#: any order, and what two machines' sines differ by is gone.
_STEP = 2.0**-22
_LOUDNESS_WINDOW = 400
_LEAST_DURATION = 0.5
_FLOOR = 10.0 ** (-60.0 / 20.0)
#: A composed event lasts a second or longer, and holds some of what is this loud in its clip.
_SHORTEST = 1.0
_LOUD = 10.0 ** (-30.0 / 20.0)
#: At each end of an event, in s.
_EDGE = 0.004
#: Of the high-pass that takes away what no loudspeaker plays: 3 dB down at 25 Hz.
_DC_POLE = 0.98
#: All that `nature` and `objects` have registered.
EVENT_CLASSES = dict(sorted(EVENTS.items()))


@dataclass(frozen=True, eq=False)
class Event:
    """One source in a scene."""

    #: Indices into the data set's `classes`; one, unless composed of clips with several or none.
    labels: tuple[int, ...]
    #: Its class; several are joined by commas.
    name: str
    #: Where it comes from: the id of the clip, or "" if it was synthesised.
    source: str
    #: Its first sounding sample, in s: the stem is zero before,
    onset: float
    #: and from here on.
    offset: float
    #: Level drawn for the event, in dB. At 0 all events are equally loud in their loudest 50 ms.
    gain: float
    #: The event alone, as it sounds in the mixture: shape (time,), float32.
    stem: Float[ndarray, " time"]


@dataclass(frozen=True, eq=False)
class Scene:
    """A mixture and the events it is the sum of."""

    #: Exactly the sum of the stems, with unit peak (to 1e-6): shape (time,), float32.
    mixture: Float[ndarray, " time"]
    #: In the order of their onsets.
    events: tuple[Event, ...]
    clip_id: str

    @property
    def labels(self) -> tuple[int, ...]:
        """Every class that is heard, once, in rising order."""
        return tuple(sorted({label for event in self.events for label in event.labels}))

    @property
    def stems(self) -> Float[ndarray, "events time"]:
        """The stems as one array."""
        return np.stack([event.stem for event in self.events])


#: A waveform, its labels, its name, and the id of the clip it comes from.
_Sound = tuple[Float[ndarray, " time"], tuple[int, ...], str, str]


@dataclass(frozen=True)
class _Plan:
    """What is decided of an event before it is heard; `choice` is a class, or a source's clip."""

    choice: int
    start: int
    length: int
    gain: float
    rng: Generator


def loudest_rms(x: Float[ndarray, " time"]) -> float:
    """Root mean square of the loudest 50 ms (of all of it, where it is shorter)."""
    window = min(_LOUDNESS_WINDOW, len(x))
    energy = np.concatenate([[0.0], np.cumsum(np.square(x, dtype=float))])
    return float(np.sqrt((energy[window:] - energy[:-window]).max() / window))


def render_event(
    name: str, *, duration: float = 3.0, seed: int | Generator = 0
) -> Float[ndarray, " time"]:
    """One event on its own, at 8 kHz, with unit peak; a generator makes another each time.

    DatasetError if there is no such class, or the duration, in s, is not positive.

    Examples
    --------
    >>> render_event("church_bell", duration=2.0, seed=1).shape
    (16000,)
    """
    if name not in EVENT_CLASSES:
        raise DatasetError(
            f"There is no event class {name!r}: choose one of {', '.join(EVENT_CLASSES)}."
        )
    length = round(duration * SAMPLE_RATE) if 0 < duration < np.inf else 0
    if length < 1:
        raise DatasetError(f"An event cannot last {duration} s: choose more than 0.")
    rng = seed if isinstance(seed, Generator) else Generator(PCG64(SeedSequence(seed)))
    return scale_to_peak(_render(name, rng, length).astype(np.float32))


def _render(name: str, rng: Generator, length: int) -> Float[ndarray, " time"]:
    """An event of `length` samples at its natural level, without a click at either end."""
    from scipy.signal import lfilter  # a second's import, for those who render

    make, _, _ = EVENT_CLASSES[name]
    x = surroundings(rng, make(rng, length))
    x = lfilter([1.0, -1.0], [1.0, -_DC_POLE], x)
    edge = min(round(_EDGE * SAMPLE_RATE), length)
    x[length - edge :] *= np.linspace(1.0, 0.0, edge)
    return x


class SceneDataset(Synthesised):
    """What synthesised and composed scenes share: seeds, plans, mixing.

    DatasetError if a parameter is out of range.

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
        super().__init__(seed=seed, size=size, split=split)
        if not _LEAST_DURATION <= duration < np.inf:
            raise DatasetError(
                f"A scene cannot last {duration} s: choose at least {_LEAST_DURATION}."
            )
        fewest, most = events or ((1, 5) if task == "multi-label" else (1, 1))
        if not 1 <= fewest <= most:
            raise DatasetError(
                f"events ({fewest}, {most}) is not a range: give fewest, most, at least 1."
            )
        if not gains[0] <= gains[1]:
            raise DatasetError(f"gains {gains} is not a range: give softest, loudest in dB.")
        self.task, self.events, self.gains = task, (fewest, most), gains
        self.duration, self.length = duration, round(duration * SAMPLE_RATE)

    def __getitem__(self, index: int) -> Clip:
        scene = self.scene(index)
        return Clip(scene.mixture, scene.labels, scene.clip_id)

    def scene(self, index: int) -> Scene:
        """Scene `index` with its events and stems; its mixture is the waveform of clip `index`.

        Each event is brought to the same loudness, then to its gain; one common factor brings the
        mixture to unit peak. What is quieter than -60 dB re an event's own peak, before its first
        and after its last sounding sample, is cut off. A silent event stays silent. IndexError if
        there is no such scene; negative numbers count from the end.
        """
        plans = self._plan(index)
        stems = np.zeros((len(plans), self.length))
        known = []
        for stem, plan in zip(stems, plans, strict=True):
            x, labels, name, source = self._sound(plan)
            sounding = np.flatnonzero(np.abs(x) > _FLOOR * np.abs(x).max())
            first, last = (int(sounding[0]), int(sounding[-1]) + 1) if sounding.size else (0, 0)
            if last > first:
                level = 10.0 ** (plan.gain / 20.0) / loudest_rms(x)
                stem[plan.start + first : plan.start + last] = level * x[first:last]
            span = (plan.start + first) / SAMPLE_RATE, (plan.start + last) / SAMPLE_RATE
            known.append((labels, name, source, *span, plan.gain))
        if self.sample_rate != SAMPLE_RATE:
            stems = soxr.resample(stems.T, SAMPLE_RATE, self.sample_rate).T
        peak = np.abs(stems.sum(axis=0)).max()
        stems = (np.rint(stems / (peak or 1.0) / _STEP) * _STEP).astype(np.float32)
        events = [Event(*facts, stem) for facts, stem in zip(known, stems, strict=True)]
        events.sort(key=lambda event: event.onset)
        return Scene(stems.sum(axis=0), tuple(events), self.clip_id(index))

    def labels(self, index: int) -> tuple[int, ...]:
        return tuple(sorted({x for plan in self._plan(index) for x in self._labels(plan.choice)}))

    def samples(self, index: int) -> int:
        return round(self.duration * self.sample_rate)

    def _plan(self, index: int) -> list[_Plan]:
        """Which events there are, where and how loud. Each gets a generator of its own."""
        rng = Generator(PCG64(SeedSequence(self._entropy(index))))
        fewest, most = self.events
        choices = self._choose(rng, int(rng.integers(fewest, most + 1)))
        plans = []
        for choice, generator in zip(choices, rng.spawn(len(choices)), strict=True):
            shortest, longest = (min(limit, self.length) for limit in self._lengths(choice))
            length = int(rng.integers(shortest, longest + 1))
            start = int(rng.integers(0, self.length - length + 1))
            plans.append(_Plan(choice, start, length, rng.uniform(*self.gains), generator))
        return plans

    @abstractmethod
    def _choose(self, rng: Generator, count: int) -> list[int]:
        """`count` events, or fewer where there are not as many; of one class if single-label."""

    @abstractmethod
    def _lengths(self, choice: int) -> tuple[int, int]:
        """Shortest and longest such an event may be, in samples."""

    def _labels(self, choice: int) -> tuple[int, ...]:
        """The labels of such an event."""
        return (choice,)

    @abstractmethod
    def _sound(self, plan: _Plan) -> _Sound:
        """The sound of an event."""


class Soundscapes(SceneDataset):
    """Synthesised scenes: sound events with known onset, offset, gain and stem.

    In a multi-label scene every event is of another class; in a single-label scene all are of one.
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

    def _choose(self, rng: Generator, count: int) -> list[int]:
        if self.task == "single-label":
            return [int(rng.integers(len(self.classes)))] * count
        return [int(choice) for choice in rng.permutation(len(self.classes))[:count]]

    def _lengths(self, choice: int) -> tuple[int, int]:
        _, shortest, longest = EVENT_CLASSES[self.classes[choice]]
        return round(shortest * SAMPLE_RATE), round(longest * SAMPLE_RATE)

    def _sound(self, plan: _Plan) -> _Sound:
        name = self.classes[plan.choice]
        waveform = _render(name, plan.rng, plan.length)
        return waveform, (plan.choice,), name, ""


class ComposedScenes(SceneDataset):
    """Scenes whose events are clips of another data set, `sources`.

    Each event is a piece of one clip, a second or longer where the clip is, that holds some of the
    clip's loud part. The clips of a scene differ; their classes may be the same. Hand in a training
    split for training scenes: clips are never taken from elsewhere. `split` None is that of
    `sources`, or "all" where that is another; the options are those of `SceneDataset`. DatasetError
    if `sources` is empty, or without single labels when `task` asks for one. Reading a scene raises
    AudioError where one of its clips cannot be read.
    """

    licence = ""

    def __init__(self, sources: Dataset, *, split: str | None = None, **options: Any) -> None:
        self.name, self.classes = f"scenes-of-{sources.name}", sources.classes
        if split is None:
            split = sources.split if sources.split in self._splits else "all"
        super().__init__(split=split, **options)
        if len(sources) == 0:
            raise DatasetError(f"{sources.name} holds no clips to compose scenes of.")
        if self.task == "single-label" and (sources.task != self.task or not sources.classes):
            raise DatasetError(f"{sources.name} has no single labels: compose it as multi-label.")
        if sources.sample_rate != self.sample_rate:
            raise DatasetError(
                f"{sources.name} was opened at {sources.sample_rate:,} Hz: scenes are composed at "
                f"{self.sample_rate:,} Hz."
            )
        self.sources = sources

    def _choose(self, rng: Generator, count: int) -> list[int]:
        pool = np.arange(len(self.sources))
        if self.task == "single-label":
            # A clip drawn first makes classes as frequent as their clips.
            pool = self._clips_by_labels[self.sources.labels(int(rng.choice(pool)))]
        return rng.choice(pool, min(count, len(pool)), replace=False).tolist()

    @cached_property
    def _clips_by_labels(self) -> dict[tuple[int, ...], ndarray]:
        clips: dict[tuple[int, ...], list[int]] = {}
        for number in range(len(self.sources)):
            clips.setdefault(self.sources.labels(number), []).append(number)
        return {labels: np.array(numbers) for labels, numbers in clips.items()}

    def _lengths(self, choice: int) -> tuple[int, int]:
        return round(_SHORTEST * SAMPLE_RATE), self.length

    def _labels(self, choice: int) -> tuple[int, ...]:
        return self.sources.labels(choice)

    def credit(self, index: int) -> str:
        """Those of the clips that scene `index` is composed of."""
        told = dict.fromkeys(self.sources.credit(plan.choice) for plan in self._plan(index))
        return "; ".join(filter(None, told))

    def _sound(self, plan: _Plan) -> _Sound:
        clip = self.sources[plan.choice]
        x = clip.waveform
        loud = np.flatnonzero(np.abs(x) >= _LOUD * np.abs(x).max())
        inside = int(loud[int(plan.rng.random() * len(loud))])
        start = max(min(inside, len(x) - plan.length), 0)
        piece = x[start : start + plan.length]
        name = ", ".join(self.classes[label] for label in clip.labels) or clip.clip_id
        return piece, clip.labels, name, clip.clip_id
