"""People and what they do: applause, door knock, footsteps, vowels, whistle."""

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
    tone,
    whole,
)

#: First three formants of ten men's vowels in Hz, on average (G. E. Peterson & H. L. Barney,
#: "Control methods used in a study of the vowels", JASA 1952, table II).
FORMANTS = {
    "i": (270.0, 2290.0, 3010.0),
    "ɛ": (530.0, 1840.0, 2480.0),
    "æ": (660.0, 1720.0, 2410.0),
    "ɑ": (730.0, 1090.0, 2440.0),
    "ɔ": (570.0, 840.0, 2410.0),
    "u": (300.0, 870.0, 2240.0),
}


def applause(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A dozen to forty people, each clapping at a pace and with hands of their own."""
    length = samples(0.03)
    loudness = contour(n, [0.3, 1.0, 1.0, 0.3], at=[0.0, 0.2, 0.7, 1.0])
    x = np.zeros(n)
    for _ in range(int(rng.integers(12, 40))):
        clap = _clap(rng, length)
        pace = rng.uniform(0.2, 0.34)
        starts = beats(rng, n, period=pace, jitter=0.35, first=pace * rng.random())
        distance = rng.uniform(0.15, 1.0)
        x += place(n, starts, clap, distance * rng.uniform(0.6, 1.0, len(starts)))
    return x * loudness


def _clap(rng: Generator, length: int) -> Float[ndarray, " length"]:
    hands = log_uniform(rng, 700.0, 2200.0)
    burst = noise(rng, length, lambda f, t: resonances(f, (hands, 900.0, 1.0)))
    return burst * decay(length, rng.uniform(0.015, 0.04))


def door_knock(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Two to five raps of a knuckle on wood, then a wait."""
    board = log_uniform(rng, 110.0, 220.0) * np.array([1.0, 1.9, 2.8, 4.3, 6.1])
    length = samples(0.22)
    pace = rng.uniform(0.04, 0.16, 5) * np.array([1.4, 1.0, 0.8, 0.6, 0.4])
    rap = modes(length, board, pace, [1.0, 0.9, 0.6, 0.4, 0.25])
    rap += 0.5 * noise(rng, length, lambda f, t: band(f, 500.0, 2500.0)) * decay(length, 0.012)
    count = int(rng.integers(2, 6))
    within = rng.uniform(0.14, 0.3)
    again = beats(rng, n, period=count * within + rng.uniform(0.5, 0.9))
    starts = (again[:, None] + samples(within) * np.arange(count)).ravel()
    starts += rng.integers(0, samples(0.02), len(starts))
    starts = whole(starts, length, n)
    return place(n, starts, rap, rng.uniform(0.6, 1.0, len(starts)))


def footsteps(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Heel, then toe, left and right in turn, on a hard floor or on gravel."""
    gravel = rng.random() < 0.5
    length = samples(0.2)
    starts = beats(rng, n, period=rng.uniform(0.42, 0.62), jitter=0.12)
    body = log_uniform(rng, 70.0, 120.0)
    x = np.zeros(n)
    for foot in (0, 1):
        heel = modes(length, body * np.array([1.0, 1.7, 2.9]) * (1.0 + 0.06 * foot), 0.07)
        if gravel:
            grains = noise(rng, length, lambda f, t: band(f, 500.0, 3400.0))
            # Stones give way one after another: noise broken into random pieces.
            pieces = np.repeat(rng.random(length // 16 + 1) ** 3, 16)[:length]
            scrape = 1.6 * grains * pieces * gate(length, attack=0.03, release=0.12)
        else:
            grains = noise(rng, length, lambda f, t: resonances(f, (1100.0, 900.0, 1.0)))
            toe = np.roll(decay(length, 0.03), samples(0.09)) * (np.arange(length) >= samples(0.09))
            scrape = grains * (decay(length, 0.03) + 0.5 * toe)
        x += place(n, starts[foot::2], heel + scrape, rng.uniform(0.7, 1.0, len(starts[foot::2])))
    return x


def vowels(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A voice that speaks in vowels only, gliding from one to the next."""
    # A longer vocal tract has lower formants, and with it mostly goes a lower voice.
    tract = rng.uniform(0.95, 1.25)
    pitch = 110.0 * (tract / 0.95) ** 2.4 * rng.uniform(0.85, 1.2)
    count = max(2, round(n / SAMPLE_RATE / rng.uniform(0.22, 0.34)))
    chosen = np.array(list(FORMANTS.values()))[rng.integers(0, len(FORMANTS), count)] * tract
    tracks = [contour(n, np.repeat(chosen[:, number], 2)) for number in range(3)]
    tune = contour(n, rng.uniform(0.88, 1.2, count)) * contour(n, [1.1, 1.0, 0.82])
    f0 = pitch * tune * (1.0 + 0.008 * np.sin(2.0 * np.pi * 5.5 * np.arange(n) / SAMPLE_RATE))

    def voice(f: ndarray, t: ndarray) -> ndarray:
        first, second, third = (at_frames(track, t) for track in tracks)
        peaks = resonances(f, (first, 80.0, 1.0), (second, 110.0, 0.5), (third, 160.0, 0.25))
        return peaks * peaks * (200.0 / f) ** 0.3

    # Each vowel is a syllable: the voice dips between them.
    dips = np.ones(2 * count + 1)
    dips[::2] = rng.uniform(0.1, 0.45, count + 1)
    breath = noise(rng, n, lambda f, t: 0.004 * band(f, 1000.0, 3500.0))
    return (harmonics(f0, voice) + breath) * contour(n, dips) * gate(n, attack=0.05, release=0.1)


def whistle(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A tune whistled through the lips: nearly a sine, sliding into each note, with some breath."""
    count = max(2, round(n / SAMPLE_RATE / rng.uniform(0.25, 0.5)))
    scale = 2.0 ** (np.array([0, 2, 4, 5, 7, 9, 11, 12]) / 12.0)
    notes = log_uniform(rng, 800.0, 1300.0) * scale[rng.integers(0, len(scale), count)]
    # Hold each note for most of its length, glide in the rest.
    hold = np.linspace(0.0, 1.0, count + 1)
    places = np.stack([hold[:-1], hold[:-1] + 0.75 * np.diff(hold)], axis=1).ravel()
    f = contour(n, np.append(np.repeat(notes, 2), notes[-1]), at=np.append(places, 1.0))
    f *= 1.0 + 0.012 * np.sin(2.0 * np.pi * rng.uniform(4.5, 6.5) * np.arange(n) / SAMPLE_RATE)
    pressed = np.repeat([[0.6, 1.0]], count, axis=0).ravel()
    air = noise(rng, n, lambda g, t: resonances(g, (at_frames(f, t), 160.0, 1.0)) ** 2)
    x = (tone(f) + 0.05 * air) * contour(n, np.append(pressed, 0.5))
    return x * gate(n, attack=0.04, release=0.08)
