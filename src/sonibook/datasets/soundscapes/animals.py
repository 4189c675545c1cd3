"""Animals: bird chirp, cat meow, cricket, dog bark, frog."""

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
    wander,
    whole,
)


def bird_chirp(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A phrase of quick gliding notes, said again and again with pauses."""
    low = rng.uniform(1900.0, 2500.0)
    high = rng.uniform(2900.0, 3500.0)
    notes = []
    for _ in range(int(rng.integers(2, 6))):
        length = samples(rng.uniform(0.05, 0.14))
        turns = low + (high - low) * rng.random(int(rng.integers(2, 4)))
        f = contour(length, turns)
        if rng.random() < 0.3:
            trill = 2.0 * np.pi * rng.uniform(28.0, 45.0) * np.arange(length) / SAMPLE_RATE
            f = f + 180.0 * np.sin(trill)
        notes.append(tone(f) * gate(length, attack=0.012, release=0.03) * rng.uniform(0.6, 1.0))
        notes.append(np.zeros(samples(rng.uniform(0.02, 0.06))))
    phrase = np.concatenate(notes)
    pause = rng.uniform(0.15, 0.5)
    starts = beats(rng, n, period=len(phrase) / SAMPLE_RATE + pause, jitter=0.1)
    starts = whole(starts, len(phrase), n)
    return place(n, starts, phrase, rng.uniform(0.7, 1.0, len(starts)))


def cat_meow(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A cry whose pitch arches while the mouth opens and closes: m, ee, ow."""
    length = min(n, samples(rng.uniform(0.6, 1.0)))
    pitch = rng.uniform(380.0, 560.0)
    f0 = pitch * contour(length, [0.8, rng.uniform(1.25, 1.5), 1.2, 0.75], at=[0.0, 0.3, 0.6, 1.0])
    f0 *= 1.0 + 0.012 * np.sin(2.0 * np.pi * 6.0 * np.arange(length) / SAMPLE_RATE)
    first = contour(length, [350.0, 1000.0, 1250.0, 600.0], at=[0.0, 0.3, 0.6, 1.0])
    second = contour(length, [1300.0, 2500.0, 2000.0, 1100.0], at=[0.0, 0.3, 0.6, 1.0])

    def mouth(f: ndarray, t: ndarray) -> ndarray:
        shape = resonances(f, (at_frames(first, t), 250.0, 1.0), (at_frames(second, t), 350.0, 0.7))
        return shape * (400.0 / f) ** 0.5

    cry = harmonics(f0, mouth)
    cry += 0.02 * noise(rng, length, lambda f, t: band(f, 1200.0, 3500.0))
    cry *= contour(length, [0.0, 0.5, 1.0, 0.7, 0.0], at=[0.0, 0.12, 0.4, 0.75, 1.0])
    starts = beats(rng, n, period=length / SAMPLE_RATE + rng.uniform(0.2, 0.6), jitter=0.1)
    starts = whole(starts, length, n)
    return place(n, starts, cry, rng.uniform(0.7, 1.0, len(starts)))


def cricket(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Short pulses of one high note, three to six to a chirp, several chirps a second."""
    note = rng.uniform(2700.0, 3500.0)
    length = samples(rng.uniform(0.012, 0.022))
    pulse = tone(note * contour(length, [1.02, 0.98])) * np.hanning(length)
    count = int(rng.integers(3, 7))
    spacing = length + samples(rng.uniform(0.008, 0.02))
    chirps = beats(
        rng, n, period=count * spacing / SAMPLE_RATE + rng.uniform(0.1, 0.35), jitter=0.1
    )
    starts = (chirps[:, None] + spacing * np.arange(count)).ravel()
    growing = np.tile(np.linspace(0.5, 1.0, count), len(chirps))
    return place(n, starts, pulse, growing)


def dog_bark(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Abrupt rough cries, singly or in twos and threes."""
    size = log_uniform(rng, 0.75, 1.35)
    length = samples(rng.uniform(0.16, 0.26))
    f0 = 420.0 * size * contour(length, [0.7, 1.3, 0.75], at=[0.0, 0.25, 1.0])
    f0 *= 1.0 + 0.05 * wander(rng, length, rate=60.0)
    jaw = contour(length, [500.0, 1000.0, 600.0], at=[0.0, 0.35, 1.0]) * size

    def throat(f: ndarray, t: ndarray) -> ndarray:
        return resonances(f, (at_frames(jaw, t), 350.0, 1.0), (1900.0 * size, 600.0, 0.35))

    bark = harmonics(f0, throat)
    rough = noise(rng, length, throat) * np.abs(bark).max()
    bark = (bark + 0.25 * rough) * gate(length, attack=0.02, release=0.11)
    group = int(rng.integers(1, 4))
    within = rng.uniform(0.32, 0.45)
    again = beats(rng, n, period=group * within + rng.uniform(0.15, 0.6), jitter=0.1)
    starts = (again[:, None] + samples(within) * np.arange(group)).ravel()
    starts = whole(starts, length, n)
    return place(n, starts, bark, rng.uniform(0.7, 1.0, len(starts)))


def frog(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Croaks: trains of pulses through a swollen throat, the second half higher."""
    rate = rng.uniform(35.0, 65.0)
    throat = log_uniform(rng, 450.0, 900.0)
    length = samples(rng.uniform(0.25, 0.45))
    starts = beats(rng, length, period=1.0 / rate, jitter=0.05)
    grain = samples(0.03)
    half = len(starts) // 2
    croak = np.zeros(length)
    for scale, part in ((1.0, starts[:half]), (rng.uniform(1.15, 1.5), starts[half:])):
        f = throat * scale * np.array([1.0, 2.3, 3.1])
        croak += place(length, part, modes(grain, f, [0.03, 0.02, 0.015], [1.0, 0.5, 0.3]))
    croak *= contour(length, [0.2, 1.0, 0.5, 1.0, 0.0], at=[0.0, 0.3, 0.5, 0.8, 1.0])
    croak *= decay(length, 2.0)
    again = beats(rng, n, period=length / SAMPLE_RATE + rng.uniform(0.15, 0.6), jitter=0.2)
    again = whole(again, length, n)
    return place(n, again, croak, rng.uniform(0.7, 1.0, len(again)))
