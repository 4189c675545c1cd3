"""Weather, water and fire."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.soundscapes.synth import (
    at_frames,
    band,
    contour,
    decay,
    gate,
    log_uniform,
    modes,
    noise,
    overlap_add,
    resonances,
    samples,
    scattered,
    tone,
    wander,
)


def crackling_fire(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Sharp cracks at random, a few loud and many faint, over a soft roar."""
    length = samples(0.03)
    kinds = np.stack([_crack(rng, length) for _ in range(12)])
    starts = scattered(rng, n, rate=rng.uniform(12.0, 30.0))
    # A heavy tail: most cracks are faint, a few are not.
    force = np.minimum(0.12 * rng.random(len(starts)) ** -0.6, 1.5)
    x = overlap_add(n, starts, kinds[rng.integers(0, len(kinds), len(starts))], force)
    roar = noise(rng, n, lambda f, t: band(f, 40.0, 300.0) + 0.08 * band(f, 300.0, 3000.0))
    flicker = 1.0 + 0.5 * wander(rng, n, rate=6.0)
    return x + rng.uniform(0.02, 0.06) * roar * flicker * gate(n, attack=0.2, release=0.2)


def _crack(rng: Generator, length: int) -> Float[ndarray, " length"]:
    centre = log_uniform(rng, 700.0, 3000.0)
    burst = noise(rng, length, lambda f, t: resonances(f, (centre, 1200.0, 1.0)))
    return burst * decay(length, rng.uniform(0.006, 0.02))


def rain(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Hundreds of small drops a second over the hiss of the many that are far away."""
    length = samples(0.014)
    kinds = np.stack(
        [
            modes(length, log_uniform(rng, 700.0, 3400.0), rng.uniform(0.006, 0.014))
            for _ in range(24)
        ]
    )
    starts = scattered(rng, n, rate=log_uniform(rng, 80.0, 300.0))
    force = 0.2 * (1.0 / np.maximum(rng.random(len(starts)), 0.01)) ** 0.5
    x = overlap_add(n, starts, kinds[rng.integers(0, len(kinds), len(starts))], force)
    dark = rng.uniform(500.0, 1000.0)
    hiss = noise(rng, n, lambda f, t: band(f, dark, 3700.0, order=1))
    shower = 1.0 + 0.25 * wander(rng, n, rate=1.0)
    return (x + rng.uniform(0.12, 0.3) * hiss) * shower * gate(n, attack=0.3, release=0.3)


def sea_waves(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Waves that swell darkly, break, and run out in a bright hiss."""
    period = rng.uniform(2.2, 4.0)
    start = rng.uniform(0.0, 0.6)
    phase = (np.arange(n) / (SAMPLE_RATE * period) + start) % 1.0
    breaks = rng.uniform(0.35, 0.5)
    swell = np.interp(phase, [0.0, breaks, breaks + 0.06, 0.75, 1.0], [0.1, 0.4, 1.0, 0.35, 0.1])
    bright = np.interp(phase, [0.0, breaks, breaks + 0.1, 1.0], [350.0, 700.0, 3000.0, 500.0])

    def surf(f: ndarray, t: ndarray) -> ndarray:
        return band(f, 120.0, at_frames(bright, t), order=1)

    return noise(rng, n, surf) * swell * gate(n, attack=0.2, release=0.3)


def thunder(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A crack, or none when far away, then a rumble that rolls and darkens."""
    near = rng.random()
    length = n / SAMPLE_RATE
    darkening = contour(n, [300.0 + 900.0 * near, 220.0, 90.0], at=[0.0, 0.3, 1.0])

    def rumble(f: ndarray, t: ndarray) -> ndarray:
        return band(f, 25.0, at_frames(darkening, t))

    claps = np.sort(rng.uniform(0.0, 0.6, 5))
    claps[0] = 0.0
    roll = np.zeros(n)
    for place_in, force in zip(claps, rng.uniform(0.3, 1.0, 5), strict=True):
        start = int(place_in * n)
        tail = decay(n - start, 0.9 * length) * contour(
            n - start, [0.0, 1.0, 1.0], at=[0.0, 0.06, 1.0]
        )
        roll[start:] += force * tail
    x = 2.0 * noise(rng, n, rumble) * roll
    crack = noise(rng, n, lambda f, t: band(f, 150.0, 2500.0, order=1)) * decay(n, 0.5)
    return (x + near * crack) * gate(n, attack=0.004, release=0.3 * length)


def water_drops(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Drops into water: each closes over a bubble whose note rises as it shrinks.

    The bubble is what is heard (M. Minnaert, "On musical air-bubbles and the sounds of running
    water", Philosophical Magazine 1933).
    """
    starts = scattered(rng, n, rate=rng.uniform(2.0, 5.0))
    starts[0] = 0
    size = rng.uniform(600.0, 1300.0)
    length = samples(0.18)
    x = np.zeros(n)
    for start in starts:
        note = size * rng.uniform(0.8, 1.4)
        rise = 1.0 + rng.uniform(0.3, 0.9) * np.linspace(0.0, 1.0, length) ** 0.7
        bubble = tone(note * rise) * decay(length, rng.uniform(0.08, 0.16))
        bubble *= gate(length, attack=0.003, release=0.03)
        x += overlap_add(n, np.array([start]), bubble, rng.uniform(0.5, 1.0))
        splash = 0.05 * noise(rng, samples(0.008), lambda f, t: band(f, 800.0, 3600.0))
        x += overlap_add(n, np.array([start]), splash * decay(len(splash), 0.006))
        # Every second drop or so throws up a droplet that falls back.
        back = start + samples(rng.uniform(0.06, 0.14))
        x += overlap_add(n, np.array([back]), bubble, rng.choice([0.0, 0.35]))
    return x


def wind(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Gusts: the harder it blows, the louder and higher it howls."""
    gust = 0.5 + 0.5 * wander(rng, n, rate=rng.uniform(0.8, 1.6))
    howl = rng.uniform(280.0, 500.0) * (1.0 + 0.9 * gust)
    width = rng.uniform(60.0, 140.0)

    def blowing(f: ndarray, t: ndarray) -> ndarray:
        centre = at_frames(howl, t)
        sharp = resonances(f, (centre, width, 1.0), (2.1 * centre, 2.0 * width, 0.25))
        return sharp * sharp + 0.12 * band(f, 60.0, 400.0, order=1)

    return noise(rng, n, blowing) * (0.15 + gust * gust) * gate(n, attack=0.3, release=0.3)
