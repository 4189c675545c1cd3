"""Machines, instruments and signals: what people made."""

from __future__ import annotations

from itertools import pairwise

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
    event,
    fitting,
    gate,
    harmonics,
    log_uniform,
    modes,
    noise,
    overlap_add,
    resonances,
    samples,
    tone,
    wander,
)


@event(2.0, 5.0)
def _clock_tick(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Tick and tock: two bright clicks of a few milliseconds, as regular as can be."""
    period = 1.0 / int(rng.integers(1, 6))
    starts = beats(rng, n, period=period, jitter=0.02)
    length = samples(0.06)
    x = np.zeros(n)
    body = log_uniform(rng, 1000.0, 2300.0)
    for turn, scale in enumerate((1.0, rng.uniform(0.75, 0.9))):
        f = body * scale * np.array([1.0, 1.43, 1.9, 0.42])
        click = modes(length, f, rng.uniform(0.02, 0.08, 4), [1.0, 0.8, 0.6, 0.4])
        # The escapement's second contact, some ten milliseconds after the first.
        echo = samples(rng.uniform(0.008, 0.018))
        click[echo:] += 0.35 * click[:-echo]
        snap = noise(rng, length, band(1500.0, 3600.0))
        click += 0.9 * snap * decay(length, 0.05)
        x += overlap_add(n, starts[turn::2], click)
    return x


@event(2.0, 5.0)
def _engine(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Four cylinders, each a little different, idling or revved up."""
    base = log_uniform(rng, 20.0, 45.0)
    revs = int(rng.integers(0, 2))
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
    x = overlap_add(n, starts, thump, cylinders[np.arange(len(starts)) % 4] * load)
    # Intake and valves: noise that follows the firing.
    puff = overlap_add(n, starts, decay(samples(0.03), 0.03), load)
    rattle = noise(rng, n, band(60.0, 600.0, order=1))
    x += rng.uniform(0.3, 1.0) * (0.5 + puff) * rattle
    return x * gate(n, attack=0.25, release=0.3)


@event(2.0, 5.0)
def _helicopter(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """The thump of the blades, the wash of the rotor, the whine of the turbine."""
    blades = rng.uniform(9.0, 17.0)
    starts = beats(rng, n, period=1.0 / blades, jitter=0.02)
    length = samples(0.09)
    slap = modes(length, [55.0, 90.0, 160.0, 260.0], [0.12, 0.09, 0.06, 0.04], [0.6, 0.9, 1.0, 0.7])
    crack = noise(rng, length, band(100.0, 500.0))
    slap += rng.uniform(0.5, 1.5) * crack * np.hanning(length)
    x = overlap_add(n, starts, slap, rng.uniform(0.85, 1.0, len(starts)))
    wash = noise(rng, n, band(60.0, 400.0))
    swish = overlap_add(n, starts, np.hanning(samples(1.0 / blades)))
    x += rng.uniform(0.5, 1.5) * wash * (0.2 + swish * swish)
    whine = log_uniform(rng, 900.0, 1800.0) * (1.0 + 0.004 * wander(rng, n, rate=2.0))
    x += rng.uniform(0.01, 0.05) * harmonics(whine, lambda f, t: 1000.0 / f)
    # It draws near or flies away.
    return x * contour(n, rng.uniform(0.4, 1.0, 3)) * gate(n, attack=0.3, release=0.3)


#: Modes of an ideal round membrane relative to its lowest (the zeros of Bessel functions).
_MEMBRANE = np.array([1.0, 1.594, 2.136, 2.296, 2.653, 2.918])
#: Of bass drum, tom and snare: lowest and highest pitch, t60, and level and t60 of the rattle.
_DRUMS = (
    (48.0, 70.0, 0.45, 0.05, 0.03),
    (90.0, 170.0, 0.5, 0.08, 0.04),
    (170.0, 230.0, 0.18, 0.5, 0.25),
)


@event(1.0, 3.0)
def _drum_hit(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A drum played in a steady beat: bass drum, tom or snare."""
    low, high, t60, loudness, rattle = _DRUMS[int(rng.integers(0, 3))]
    length = samples(0.6)
    skin = rng.uniform(low, high)
    # A struck skin is stretched, and sounds higher at first.
    bend = 1.0 + rng.uniform(0.5, 1.2) * decay(length, 0.12)
    hit = tone(skin * bend) * decay(length, t60)
    hit += 0.5 * modes(length, skin * _MEMBRANE[1:], 0.5 * t60, [0.8, 0.6, 0.4, 0.4, 0.3])
    snares = noise(rng, length, band(900.0, 3700.0))
    hit += loudness * snares * decay(length, rattle)
    starts = beats(rng, n, period=rng.uniform(0.28, 0.6), jitter=0.03)
    accents = rng.uniform(0.5, 1.0, len(starts))
    accents[0] = 1.0
    return overlap_add(n, starts, hit, accents)


@event(1.0, 4.0)
def _plucked_string(rng: Generator, n: int) -> Float[ndarray, " n"]:
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
    return overlap_add(n, starts, notes, rng.uniform(0.6, 1.0, len(starts)))


#: Partials of a church bell relative to its prime: hum, prime, tierce, quint, nominal and what
#: lies above (N. H. Fletcher & T. D. Rossing, The Physics of Musical Instruments, section 21.3).
_BELL_PARTIALS = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.67, 3.0, 4.0, 5.33])
_BELL_GAINS = np.array([0.5, 0.7, 1.0, 0.5, 1.0, 0.5, 0.5, 0.7, 0.6, 0.5])


@event(1.0, 3.0)
def _alarm_beep(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """An alarm clock: groups of two to four hard beeps of one steady pitch."""
    # A quartz crystal swings 32,768 times a second: most alarms sound at a sixteenth of that.
    pitch = 2048.0 * log_uniform(rng, 0.98, 1.03)
    length = rng.uniform(0.05, 0.2)
    count = int(rng.integers(2, 5))
    group = 2.0 * length * count + rng.uniform(0.15, 0.4)
    # A square wave: of odd harmonics, each by its order weaker.
    steady = np.full(samples(length), pitch)
    beep = harmonics(steady, lambda f, t: np.rint(f / pitch) % 2 / np.rint(f / pitch))
    beep *= gate(len(beep), attack=0.003, release=0.003)
    within = np.arange(count) * samples(2.0 * length)
    starts = (np.arange(0, n, samples(group))[:, None] + within).ravel()
    return overlap_add(n, fitting(starts, len(beep), n), beep)


@event(0.5, 2.0)
def _car_horn(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Two reeds a third apart, bright and steady, pressed once to three times."""
    low = rng.uniform(330.0, 460.0)
    peaks = (rng.uniform(900.0, 1400.0), 500.0, 1.0), (rng.uniform(2000.0, 2800.0), 900.0, 0.7)
    cone, body = resonances(*peaks), band(200.0, 800.0)
    ratio = rng.uniform(1.18, 1.27)
    x = np.zeros(n)
    for pitch in (low, low * ratio):
        # The pitch settles in the first tenths of a second, as the diaphragm does.
        f0 = pitch * (1.0 - 0.03 * decay(n, 0.15))
        x += harmonics(f0, lambda f, t: cone(f, t) + body(f, t))
    presses = int(rng.integers(1, 4))
    edges = np.sort(rng.uniform(0.25, 0.75, presses - 1))
    gap = min(0.12, 0.2 * n / SAMPLE_RATE)
    held = np.zeros(n)
    for left, right in pairwise([0.0, *edges, 1.0]):
        start, stop = int(left * n), int(right * n) - (samples(gap) if right < 1.0 else 0)
        if stop > start:
            held[start:stop] = gate(stop - start, attack=0.012, release=0.03)
    return x * held


@event(2.0, 5.0)
def _church_bell(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A bell struck about once a second; its hum outlives its strike by seconds."""
    prime = log_uniform(rng, 300.0, 600.0)
    tuning = 1.0 + 0.012 * rng.uniform(-1.0, 1.0, len(_BELL_PARTIALS))
    frequencies = prime * _BELL_PARTIALS * tuning
    pace = rng.uniform(4.0, 8.0) / (0.6 + _BELL_PARTIALS)
    gains = _BELL_GAINS * rng.uniform(0.6, 1.4, len(_BELL_PARTIALS))
    # No bell is perfectly round: each partial is a pair that beats slowly.
    split = rng.uniform(0.3, 1.5, len(_BELL_PARTIALS))
    ring = modes(n, frequencies, pace, gains) + 0.5 * modes(n, frequencies + split, pace, gains)
    clapper = noise(rng, samples(0.06), band(900.0, 3500.0))
    ring[: len(clapper)] += (0.6 * clapper * decay(len(clapper), 0.04))[:n]
    strikes = beats(rng, n, period=rng.uniform(0.5, 1.6), jitter=0.06)
    return overlap_add(n, strikes, ring, rng.uniform(0.75, 1.0, len(strikes)))


@event(1.5, 4.0)
def _siren(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A slow wail, a yelp, or two tones in turn."""
    low = rng.uniform(500.0, 750.0)
    high = low * rng.uniform(1.6, 2.4)
    kind = (0, 0, 1, 2)[int(rng.integers(0, 4))]
    period = (rng.uniform(4.0, 10.0), rng.uniform(0.28, 0.45), rng.uniform(0.9, 1.4))[kind]
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
    peak = rng.uniform(600.0, 1000.0)
    horn = resonances((peak, 900.0, 1.0), (2.0 * peak, 900.0, 0.35))
    wail = harmonics(f0, lambda f, t: horn(f, t) * (500.0 / f) ** 2)
    loudness = 1.0 - 0.25 * upper * rng.random()
    return wail * loudness * gate(n, attack=0.15, release=0.2)


@event(1.0, 4.0)
def _telephone(rng: Generator, n: int) -> Float[ndarray, " n"]:
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
        x += overlap_add(n, strikes[number::2], struck, stroke[number::2])
    return x
