"""A scene: a few events that overlap, each with its stem, and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.soundscapes.events import trim

#: Stems are rounded to multiples of this (-132 dB): float32 then adds them without rounding, in
#: any order, and what two machines' sines differ by is gone.
STEP = 2.0**-22
_LOUDNESS_WINDOW = 400


@dataclass(frozen=True, eq=False)
class Event:
    """One source in a scene.

    Attributes
    ----------
    labels : tuple of int
        Indices into the data set's `classes`; one, unless the scene is composed of clips that
        have several or none.
    name : str
        Its class; several are joined by commas.
    source : str
        Where it comes from: the id of the clip, or "" if it was synthesised.
    onset, offset : float, in s
        First sounding sample, and the one after the last: the stem is zero outside.
    gain : float, in dB
        Level drawn for the event. At 0 dB all events are equally loud in their loudest 50 ms.
    stem : ndarray, shape (time,), float32
        The event alone, as it sounds in the mixture.
    """

    labels: tuple[int, ...]
    name: str
    source: str
    onset: float
    offset: float
    gain: float
    stem: Float[ndarray, " time"]

    @property
    def label(self) -> int:
        """The first of `labels`: the class, where there is just one."""
        return self.labels[0]


@dataclass(frozen=True, eq=False)
class Scene:
    """A mixture and the events it is the sum of.

    Attributes
    ----------
    mixture : ndarray, shape (time,), float32
        Exactly the sum of the stems, with unit peak (to 1e-6).
    events : tuple of Event
        In the order of their onsets.
    clip_id : str
    """

    mixture: Float[ndarray, " time"]
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


@dataclass(frozen=True, eq=False)
class Source:
    """A sound that is to become an event: where it starts (in samples) and how loud it shall be."""

    waveform: Float[ndarray, " time"]
    start: int
    gain: float
    labels: tuple[int, ...]
    name: str
    clip_id: str = ""


def mix(sources: Sequence[Source], length: int, clip_id: str) -> Scene:
    """Lay sources into a scene of `length` samples.

    Each is brought to the same loudness (in its loudest 50 ms), then to its gain; one common
    factor brings the mixture to unit peak. What is quieter than -60 dB re a source's own peak,
    before its first and after its last sounding sample, is cut off.

    Parameters
    ----------
    sources : sequence of Source
        Each must lie inside the scene. A silent one stays silent.
    length : int > 0, in samples
    clip_id : str

    Returns
    -------
    Scene
    """
    stems = np.zeros((len(sources), length))
    spans = []
    for stem, source in zip(stems, sources, strict=True):
        first, last = trim(source.waveform)
        spans.append((source.start + first, source.start + last))
        if last > first:
            level = 10.0 ** (source.gain / 20.0) / loudest_rms(source.waveform)
            stem[slice(*spans[-1])] = level * source.waveform[first:last]
    peak = np.abs(stems.sum(axis=0)).max()
    stems = (np.rint(stems / (peak or 1.0) / STEP) * STEP).astype(np.float32)
    events = [
        Event(
            labels=source.labels,
            name=source.name,
            source=source.clip_id,
            onset=first / SAMPLE_RATE,
            offset=last / SAMPLE_RATE,
            gain=source.gain,
            stem=stem,
        )
        for source, stem, (first, last) in zip(sources, stems, spans, strict=True)
    ]
    events.sort(key=lambda event: event.onset)
    return Scene(stems.sum(axis=0), tuple(events), clip_id)


def loudest_rms(x: Float[ndarray, " time"]) -> float:
    """Root mean square of the loudest 50 ms (of the whole, where it is shorter).

    Parameters
    ----------
    x : ndarray, shape (time,)

    Returns
    -------
    float >= 0
    """
    window = min(_LOUDNESS_WINDOW, len(x))
    energy = np.concatenate([[0.0], np.cumsum(np.square(x, dtype=float))])
    return float(np.sqrt((energy[window:] - energy[:-window]).max() / window))
