"""The event classes, in alphabetical order, and how one event of each is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import PCG64, Generator, SeedSequence

from sonibook.audio import SAMPLE_RATE, scale_to_peak
from sonibook.datasets.soundscapes import nature, objects
from sonibook.datasets.soundscapes.synth import surroundings
from sonibook.errors import DatasetError

_EDGE = 0.004
#: Of the high-pass that takes away what no loudspeaker plays: 3 dB down at 25 Hz.
_DC_POLE = 0.98


class _EventClass(NamedTuple):
    """How a kind of sound is made, and how long, in s, such an event lasts in a scene."""

    render: Callable[[Generator, int], Float[ndarray, " time"]]
    shortest: float
    longest: float


EVENT_CLASSES: dict[str, _EventClass] = {
    "alarm_beep": _EventClass(objects.alarm_beep, 1.0, 3.0),
    "applause": _EventClass(nature.applause, 2.0, 4.0),
    "bird_chirp": _EventClass(nature.bird_chirp, 1.0, 3.0),
    "car_horn": _EventClass(objects.car_horn, 0.5, 2.0),
    "cat_meow": _EventClass(nature.cat_meow, 0.6, 2.0),
    "church_bell": _EventClass(objects.church_bell, 2.0, 5.0),
    "clock_tick": _EventClass(objects.clock_tick, 2.0, 5.0),
    "crackling_fire": _EventClass(nature.crackling_fire, 2.0, 5.0),
    "cricket": _EventClass(nature.cricket, 1.0, 4.0),
    "dog_bark": _EventClass(nature.dog_bark, 0.5, 2.5),
    "door_knock": _EventClass(nature.door_knock, 0.8, 2.0),
    "drum_hit": _EventClass(objects.drum_hit, 1.0, 3.0),
    "engine": _EventClass(objects.engine, 2.0, 5.0),
    "footsteps": _EventClass(nature.footsteps, 1.5, 4.0),
    "frog": _EventClass(nature.frog, 0.6, 2.5),
    "helicopter": _EventClass(objects.helicopter, 2.0, 5.0),
    "plucked_string": _EventClass(objects.plucked_string, 1.0, 4.0),
    "rain": _EventClass(nature.rain, 2.0, 5.0),
    "sea_waves": _EventClass(nature.sea_waves, 2.5, 5.0),
    "siren": _EventClass(objects.siren, 1.5, 4.0),
    "telephone": _EventClass(objects.telephone, 1.0, 4.0),
    "thunder": _EventClass(nature.thunder, 2.0, 4.5),
    "vowels": _EventClass(nature.vowels, 0.8, 2.5),
    "water_drops": _EventClass(nature.water_drops, 1.0, 4.0),
    "whistle": _EventClass(nature.whistle, 0.8, 2.5),
    "wind": _EventClass(nature.wind, 2.0, 5.0),
}


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
    return scale_to_peak(render_samples(name, rng, length).astype(np.float32))


def render_samples(name: str, rng: Generator, length: int) -> Float[ndarray, " time"]:
    """An event of `length` samples at its natural level, without a click at either end."""
    from scipy.signal import lfilter  # a second's import, for those who render

    x = surroundings(rng, EVENT_CLASSES[name].render(rng, length))
    x = lfilter([1.0, -1.0], [1.0, -_DC_POLE], x)
    edge = min(round(_EDGE * SAMPLE_RATE), length)
    x[length - edge :] *= np.linspace(1.0, 0.0, edge)
    return x
