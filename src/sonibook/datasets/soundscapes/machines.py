"""Machines: clock tick, engine, helicopter."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.soundscapes.synth import (
    at_frames,
    band,
    beats,
    contour,
    decay,
    gate,
    harmonics,
    log_uniform,
    modes,
    noise,
    place,
    resonances,
    samples,
    wander,
)


def clock_tick(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Tick and tock: two bright clicks of a few milliseconds, as regular as can be."""
    period = 0.5 / int(rng.integers(1, 4))
    starts = beats(rng, n, period=period, jitter=0.02)
    length = samples(0.06)
    x = np.zeros(n)
    body = log_uniform(rng, 1500.0, 2300.0)
    for turn, scale in enumerate((1.0, rng.uniform(0.75, 0.9))):
        f = body * scale * np.array([1.0, 1.43, 1.9, 0.42])
        click = modes(length, f, rng.uniform(0.012, 0.04, 4), [1.0, 0.8, 0.6, 0.4])
        # The escapement's second contact, some ten milliseconds after the first.
        echo = samples(rng.uniform(0.008, 0.018))
        click[echo:] += 0.35 * click[:-echo]
        snap = noise(rng, length, lambda f, t: band(f, 1500.0, 3600.0))
        click += 0.2 * snap * decay(length, 0.01)
        x += place(n, starts[turn::2], click)
    return x


def engine(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Four cylinders, each a little different, idling or revved up."""
    base = log_uniform(rng, 20.0, 45.0)
    revs = int(rng.integers(0, 3))
    heights = np.ones(2 + 2 * revs)
    heights[1:-1:2] = rng.uniform(1.4, 2.6, revs)
    speed = base * contour(n, heights) * (1.0 + 0.03 * wander(rng, n, rate=4.0))
    # One firing each time the phase passes a whole number.
    starts = np.flatnonzero(np.diff(np.floor(np.cumsum(speed) / SAMPLE_RATE), prepend=-1.0))
    length = samples(0.06)
    pipe = log_uniform(rng, 70.0, 140.0)
    thump = modes(length, pipe * np.array([1.0, 2.1, 3.3, 5.2]), 0.05, [1.0, 0.7, 0.5, 0.3])
    cylinders = np.array([1.0, 0.75, 0.9, 0.65]) * rng.uniform(0.8, 1.2, 4)
    load = at_frames(speed / base, starts / SAMPLE_RATE) ** 0.5
    x = place(n, starts, thump, cylinders[np.arange(len(starts)) % 4] * load)
    # Intake and valves: noise that follows the firing.
    puff = place(n, starts, decay(samples(0.03), 0.03), load)
    rattle = noise(rng, n, lambda f, t: resonances(f, (900.0, 700.0, 1.0), (2200.0, 900.0, 0.4)))
    x += rng.uniform(0.1, 0.25) * puff * rattle
    return x * gate(n, attack=0.25, release=0.3)


def helicopter(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """The thump of the blades, the wash of the rotor, the whine of the turbine."""
    blades = rng.uniform(9.0, 17.0)
    starts = beats(rng, n, period=1.0 / blades, jitter=0.02)
    length = samples(0.09)
    slap = modes(length, [55.0, 90.0, 160.0, 260.0], [0.12, 0.09, 0.06, 0.04], [1.0, 1.0, 0.8, 0.5])
    crack = noise(rng, length, lambda f, t: band(f, 200.0, 1200.0))
    slap += rng.uniform(0.3, 0.7) * crack * decay(length, 0.05)
    x = place(n, starts, slap, rng.uniform(0.85, 1.0, len(starts)))
    wash = noise(rng, n, lambda f, t: band(f, 150.0, 1500.0, order=1))
    swish = place(n, starts, np.hanning(samples(1.0 / blades)))
    x += 0.35 * wash * (0.25 + swish)
    whine = log_uniform(rng, 900.0, 1800.0) * (1.0 + 0.004 * wander(rng, n, rate=2.0))
    x += rng.uniform(0.02, 0.06) * harmonics(whine, lambda f, t: 1000.0 / f)
    # It draws near or flies away.
    return x * contour(n, rng.uniform(0.4, 1.0, 3)) * gate(n, attack=0.3, release=0.3)
