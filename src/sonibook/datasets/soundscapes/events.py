"""The event classes, in alphabetical order, and how one event of each is made."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import PCG64, Generator, SeedSequence

from sonibook.audio import SAMPLE_RATE, scale_to_peak
from sonibook.datasets.soundscapes import nature, objects  # noqa: F401
from sonibook.datasets.soundscapes.synth import EVENTS, surroundings
from sonibook.errors import DatasetError

_EDGE = 0.004
#: Of the high-pass that takes away what no loudspeaker plays: 3 dB down at 25 Hz.
_DC_POLE = 0.98


#: All that `nature` and `objects` have registered.
EVENT_CLASSES = dict(sorted(EVENTS.items()))


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

    make, _, _ = EVENT_CLASSES[name]
    x = surroundings(rng, make(rng, length))
    x = lfilter([1.0, -1.0], [1.0, -_DC_POLE], x)
    edge = min(round(_EDGE * SAMPLE_RATE), length)
    x[length - edge :] *= np.linspace(1.0, 0.0, edge)
    return x
