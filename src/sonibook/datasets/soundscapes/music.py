"""Music: drum hit, plucked string."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from sonibook.datasets.soundscapes.synth import (
    band,
    beats,
    decay,
    log_uniform,
    modes,
    noise,
    place,
    samples,
    tone,
)

#: Modes of an ideal round membrane relative to its lowest (the zeros of Bessel functions).
MEMBRANE = np.array([1.0, 1.594, 2.136, 2.296, 2.653, 2.918])


def drum_hit(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A drum played in a steady beat: bass drum, tom or snare."""
    kind = int(rng.integers(0, 3))
    length = samples(0.6)
    skin = rng.uniform(*((48.0, 70.0), (90.0, 170.0), (170.0, 230.0))[kind])
    t60 = (0.45, 0.5, 0.18)[kind]
    # A struck skin is stretched, and sounds higher at first.
    bend = 1.0 + rng.uniform(0.5, 1.2) * decay(length, 0.12)
    hit = tone(skin * bend) * decay(length, t60)
    hit += 0.5 * modes(length, skin * MEMBRANE[1:], 0.5 * t60, [0.8, 0.6, 0.4, 0.4, 0.3])
    snares = noise(rng, length, lambda f, t: band(f, 900.0, 3700.0))
    hit += (0.05, 0.08, 0.5)[kind] * snares * decay(length, (0.03, 0.04, 0.25)[kind])
    starts = beats(rng, n, period=rng.uniform(0.28, 0.6), jitter=0.03)
    accents = rng.uniform(0.5, 1.0, len(starts))
    accents[0] = 1.0
    return place(n, starts, hit, accents)


def plucked_string(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A guitar string: a run of plucked notes, each ringing until the next dies it away.

    The partials are those of an ideal string plucked at one point, stretched a little by its
    stiffness and damped the faster the higher they are: what a Karplus-Strong loop does, mode by
    mode, so that every note is in tune.
    """
    scale = np.array([0, 2, 4, 7, 9, 12, 14, 16])
    lowest = log_uniform(rng, 110.0, 220.0)
    starts = beats(rng, n, period=rng.uniform(0.22, 0.6), jitter=0.04)
    steps = scale[rng.integers(0, len(scale), len(starts))]
    stiffness = log_uniform(rng, 5e-5, 5e-4)
    point = rng.uniform(0.08, 0.3)
    ringing = rng.uniform(1.5, 3.0)
    length = min(n, samples(2.0))
    orders = np.arange(1, 36)
    shape = np.abs(np.sin(np.pi * orders * point)) / orders
    notes = np.empty((len(starts), length))
    for row, step in enumerate(steps):
        f = lowest * 2.0 ** (step / 12.0) * orders * np.sqrt(1.0 + stiffness * orders**2)
        notes[row] = modes(length, f, ringing / (1.0 + (f / 900.0) ** 1.2), shape)
    return place(n, starts, notes, rng.uniform(0.6, 1.0, len(starts)))
