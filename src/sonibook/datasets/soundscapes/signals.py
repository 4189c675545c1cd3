"""Sounds made to be noticed: alarm beep, car horn, church bell, siren, telephone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.soundscapes.synth import (
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
    whole,
)

#: Partials of a church bell relative to its prime: hum, prime, tierce, quint, nominal and what
#: lies above (N. H. Fletcher & T. D. Rossing, The Physics of Musical Instruments, section 21.3).
BELL_PARTIALS = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.67, 3.0, 4.0, 5.33])
BELL_GAINS = np.array([0.5, 0.7, 1.0, 0.3, 1.0, 0.3, 0.4, 0.5, 0.35, 0.25])


def alarm_beep(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """An alarm clock: groups of two to four hard beeps of one steady pitch."""
    pitch = log_uniform(rng, 750.0, 2100.0)
    length = rng.uniform(0.05, 0.11)
    count = int(rng.integers(2, 5))
    group = 2.0 * length * count + rng.uniform(0.15, 0.4)

    def square_wave(f: ndarray, t: ndarray) -> ndarray:
        order = np.rint(f / pitch)
        return (order % 2) / order

    one = harmonics(np.full(samples(length), pitch), square_wave)
    one *= gate(len(one), attack=0.003, release=0.003)
    within = np.arange(count) * samples(2.0 * length)
    starts = (np.arange(0, n, samples(group))[:, None] + within).ravel()
    return place(n, whole(starts, len(one), n), one)


def car_horn(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Two reeds a third apart, bright and steady, pressed once to three times."""
    low = rng.uniform(330.0, 460.0)
    peaks = (rng.uniform(900.0, 1400.0), 500.0, 1.0), (rng.uniform(2000.0, 2800.0), 900.0, 0.7)
    ratio = rng.uniform(1.18, 1.27)

    def reed(f: ndarray, t: ndarray) -> ndarray:
        return resonances(f, *peaks) + 0.3 * band(f, 200.0, 800.0)

    x = np.zeros(n)
    for pitch in (low, low * ratio):
        # The pitch settles in the first tenths of a second, as the diaphragm does.
        f0 = pitch * (1.0 - 0.03 * decay(n, 0.15))
        x += harmonics(f0, reed)
    presses = int(rng.integers(1, 4))
    edges = np.sort(rng.uniform(0.25, 0.75, presses - 1))
    gap = min(0.12, 0.2 * n / SAMPLE_RATE)
    held = np.zeros(n)
    for left, right in pairwise([0.0, *edges, 1.0]):
        start, stop = int(left * n), int(right * n) - (samples(gap) if right < 1.0 else 0)
        if stop > start:
            held[start:stop] = gate(stop - start, attack=0.012, release=0.03)
    return x * held


def church_bell(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A bell struck every second or two; its hum outlives its strike by seconds."""
    prime = log_uniform(rng, 170.0, 480.0)
    tuning = 1.0 + 0.012 * rng.uniform(-1.0, 1.0, len(BELL_PARTIALS))
    frequencies = prime * BELL_PARTIALS * tuning
    pace = rng.uniform(4.0, 8.0) / (0.6 + BELL_PARTIALS)
    gains = BELL_GAINS * rng.uniform(0.6, 1.4, len(BELL_PARTIALS))
    # No bell is perfectly round: each partial is a pair that beats slowly.
    split = rng.uniform(0.3, 1.5, len(BELL_PARTIALS))
    ring = modes(n, frequencies, pace, gains) + 0.5 * modes(n, frequencies + split, pace, gains)
    clapper = noise(rng, samples(0.06), lambda f, t: band(f, 900.0, 3500.0))
    ring[: len(clapper)] += (0.6 * clapper * decay(len(clapper), 0.04))[:n]
    strikes = beats(rng, n, period=rng.uniform(0.9, 2.2), jitter=0.06)
    return place(n, strikes, ring, rng.uniform(0.75, 1.0, len(strikes)))


def siren(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A wail, a yelp, or two tones in turn."""
    low = rng.uniform(420.0, 650.0)
    high = low * rng.uniform(1.9, 2.6)
    kind = int(rng.integers(0, 3))
    period = (rng.uniform(1.6, 3.2), rng.uniform(0.28, 0.45), rng.uniform(0.9, 1.4))[kind]
    start = rng.random()
    phase = (np.arange(n) / (SAMPLE_RATE * period) + start) % 1.0
    if kind == 2:
        high = low * rng.uniform(1.25, 1.4)
        upper = 0.5 + 0.5 * np.tanh(40.0 * np.sin(2.0 * np.pi * phase))
    else:
        # Quick up, slow down, as a rotor gains speed and loses it.
        rising = rng.uniform(0.3, 0.5)
        upper = np.interp(phase, [0.0, rising, 1.0], [0.0, 1.0, 0.0])
        upper = upper * upper * (3.0 - 2.0 * upper)
    f0 = low * (high / low) ** upper
    peak = rng.uniform(1000.0, 1700.0)

    def horn(f: ndarray, t: ndarray) -> ndarray:
        return resonances(f, (peak, 900.0, 1.0), (2.0 * peak, 900.0, 0.35)) * (500.0 / f) ** 0.3

    loudness = 1.0 - 0.25 * upper * rng.random()
    return harmonics(f0, horn) * loudness * gate(n, attack=0.15, release=0.2)


def telephone(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Two small gongs that one clapper strikes in turn, in rings with pauses between."""
    gongs = log_uniform(rng, 900.0, 1500.0) * np.array([1.0, rng.uniform(1.16, 1.3)])
    rate = rng.uniform(20.0, 26.0)
    partials, gains = np.array([1.0, 1.52, 2.1, 2.74]), np.array([1.0, 0.25, 0.6, 0.4])
    ringing = rng.uniform(0.7, 1.6)
    pause = rng.uniform(0.25, 0.7)
    strikes = beats(rng, n, period=1.0 / rate, jitter=0.1)
    cycle = strikes / SAMPLE_RATE % (ringing + pause)
    # The spring needs a few strokes to swing fully.
    force = contour(samples(ringing), [0.2, 1.0, 1.0, 0.6], at=[0.0, 0.12, 0.95, 1.0])
    stroke = np.where(cycle < ringing, force[(cycle * SAMPLE_RATE).astype(int) % len(force)], 0.0)
    stroke *= rng.uniform(0.8, 1.0, len(strikes))
    tail = samples(0.5)
    x = np.zeros(n)
    for number, gong in enumerate(gongs):
        struck = modes(tail, gong * partials, 0.55 / partials, gains)
        x += place(n, strikes[number::2], struck, stroke[number::2])
    return x
