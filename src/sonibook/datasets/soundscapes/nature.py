"""Animals and people, weather, water and fire: what lives, and what moves by itself."""

from __future__ import annotations

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
    event,
    fitting,
    gate,
    harmonics,
    log_uniform,
    modes,
    noise,
    overlap_add,
    repeated,
    resonances,
    samples,
    scattered,
    tone,
    wander,
)


@event(1.0, 3.0)
def _bird_chirp(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Phrases of quick gliding notes, said again and again by one bird near by and one far away."""
    return _bird(rng, n) + rng.uniform(0.1, 0.5) * _bird(rng, n)


def _bird(rng: Generator, n: int) -> Float[ndarray, " n"]:
    low = rng.uniform(1900.0, 2500.0)
    high = rng.uniform(2900.0, 3500.0)
    notes = []
    for _ in range(int(rng.integers(2, 6))):
        length = samples(rng.uniform(0.03, 0.08))
        turns = low + (high - low) * rng.random(int(rng.integers(2, 5)))
        f = contour(length, turns)
        if rng.random() < 0.3:
            trill = 2.0 * np.pi * rng.uniform(28.0, 45.0) * np.arange(length) / SAMPLE_RATE
            f = f + 180.0 * np.sin(trill)
        notes.append(tone(f) * gate(length, attack=0.012, release=0.03) * rng.uniform(0.6, 1.0))
        notes.append(np.zeros(samples(rng.uniform(0.02, 0.06))))
    phrase = np.concatenate(notes)
    pause = rng.uniform(0.15, 0.5)
    starts = beats(rng, n, period=len(phrase) / SAMPLE_RATE + pause, jitter=0.1)
    return repeated(rng, n, starts, phrase)


@event(0.6, 2.0)
def _cat_meow(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A cry whose pitch arches while the mouth opens and closes: m, ee, ow."""
    length = min(n, samples(rng.uniform(0.45, 1.0)))
    pitch = rng.uniform(450.0, 750.0)
    f0 = pitch * contour(length, [0.8, rng.uniform(1.0, 1.25), 1.05, 0.75], at=[0.0, 0.3, 0.7, 1.0])
    f0 *= 1.0 + 0.012 * wander(rng, length, rate=12.0)
    throat = rng.uniform(0.9, 1.2)
    first = throat * contour(length, [1000.0, 1800.0, 1900.0, 1200.0], at=[0.0, 0.3, 0.6, 1.0])
    mouth = resonances((first, 500.0, 1.0), (2500.0 * throat, 700.0, 0.35), power=2)
    cry = harmonics(f0, mouth)
    cry += 0.02 * noise(rng, length, band(1200.0, 3500.0))
    cry *= contour(length, [0.0, 0.5, 1.0, 0.7, 0.0], at=[0.0, 0.12, 0.4, 0.75, 1.0])
    starts = beats(rng, n, period=length / SAMPLE_RATE + rng.uniform(0.2, 0.6), jitter=0.1)
    return repeated(rng, n, starts, cry)


@event(1.0, 4.0)
def _cricket(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Short pulses of one high note, three to six to a chirp, several chirps a second."""
    note = rng.uniform(2700.0, 3500.0)
    length = samples(rng.uniform(0.012, 0.022))
    pulse = tone(note * contour(length, [1.02, 0.98])) * np.hanning(length)
    count = int(rng.integers(3, 7))
    spacing = length + samples(rng.uniform(0.008, 0.02))
    period = count * spacing / SAMPLE_RATE + rng.uniform(0.1, 0.35)
    chirps = beats(rng, n, period=period, jitter=0.1)
    starts = (chirps[:, None] + spacing * np.arange(count)).ravel()
    growing = np.tile(np.linspace(0.5, 1.0, count), len(chirps))
    # The meadow's others blend into one unsteady note.
    others = noise(rng, n, resonances((1.03 * note, 150.0, 1.0), power=2))
    return overlap_add(n, starts, pulse, growing) + rng.uniform(0.2, 0.8) * others


@event(0.5, 2.5)
def _dog_bark(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Abrupt rough cries, singly or in twos and threes."""
    size = log_uniform(rng, 0.75, 1.35)
    length = samples(rng.uniform(0.16, 0.26))
    f0 = 420.0 * size * contour(length, [0.7, 1.3, 0.75], at=[0.0, 0.25, 1.0])
    f0 *= 1.0 + 0.1 * wander(rng, length, rate=60.0)
    jaw = contour(length, [400.0, 850.0, 500.0], at=[0.0, 0.35, 1.0]) * size
    throat = resonances((jaw, 500.0, 1.0), (1900.0 * size, 700.0, 0.35), power=2)
    bark = harmonics(f0, throat)
    rough = noise(rng, length, throat) * np.abs(bark).max()
    bark = (bark + 0.25 * rough) * gate(length, attack=0.02, release=0.11)
    group = int(rng.integers(1, 4))
    within = rng.uniform(0.32, 0.45)
    again = beats(rng, n, period=group * within + rng.uniform(0.15, 0.6), jitter=0.1)
    starts = (again[:, None] + samples(within) * np.arange(group)).ravel()
    return repeated(rng, n, starts, bark)


@event(0.6, 2.5)
def _frog(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Croaks: trains of pulses through a swollen throat, the second half higher."""
    rate = rng.uniform(40.0, 110.0)
    throat = log_uniform(rng, 1900.0, 2700.0)
    length = samples(rng.uniform(0.12, 0.35))
    f0 = rate * contour(length, [0.9, 1.1]) * (1.0 + 0.05 * wander(rng, length, rate=40.0))
    swollen = throat * contour(length, [0.85, 1.0, 1.0, rng.uniform(1.0, 1.3)])
    sac = resonances((swollen, 400.0, 1.0), (0.5 * swollen, 300.0, 0.6), power=3)
    croak = harmonics(f0, sac)
    croak *= contour(length, [0.2, 1.0, 0.5, 1.0, 0.0], at=[0.0, 0.3, 0.5, 0.8, 1.0])
    croak *= decay(length, 2.0)
    again = beats(rng, n, period=length / SAMPLE_RATE + rng.uniform(0.08, 0.4), jitter=0.2)
    return repeated(rng, n, again, croak)


#: First three formants of ten men's vowels in Hz, on average (G. E. Peterson & H. L. Barney,
#: "Control methods used in a study of the vowels", JASA 1952, table II).
_FORMANTS = {
    "i": (270.0, 2290.0, 3010.0),
    "ɛ": (530.0, 1840.0, 2480.0),
    "æ": (660.0, 1720.0, 2410.0),
    "ɑ": (730.0, 1090.0, 2440.0),
    "ɔ": (570.0, 840.0, 2410.0),
    "u": (300.0, 870.0, 2240.0),
}


@event(2.0, 4.0)
def _applause(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Ten to eighty people, each clapping at a pace and with hands of their own."""
    length = samples(0.03)
    claps = np.stack([_clap(rng, length) for _ in range(32)])
    loudness = contour(n, [0.3, 1.0, 1.0, 0.3], at=[0.0, 0.2, 0.7, 1.0])
    x = np.zeros(n)
    for _ in range(int(log_uniform(rng, 10.0, 80.0))):
        pace = rng.uniform(0.2, 0.34)
        starts = beats(rng, n, period=pace, jitter=0.35, first=pace * rng.random())
        force = rng.uniform(0.15, 1.0) * rng.uniform(0.6, 1.0, len(starts))
        # No clap of one person is quite like the next.
        x += overlap_add(n, starts, claps[rng.integers(0, len(claps), len(starts))], force)
    return x * loudness


def _clap(rng: Generator, length: int) -> Float[ndarray, " length"]:
    hands = resonances((log_uniform(rng, 700.0, 2200.0), 900.0, 1.0))
    palms = band(500.0, 3000.0)
    clap = noise(rng, length, lambda f, t: hands(f, t) * palms(f, t))
    return clap * decay(length, rng.uniform(0.006, 0.02))


@event(0.8, 2.0)
def _door_knock(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Two to five raps of a knuckle on wood, then a wait."""
    board = log_uniform(rng, 110.0, 320.0) * np.array([1.0, 1.9, 2.8, 4.3, 6.1])
    length = samples(0.22)
    pace = rng.uniform(0.04, 0.16, 5) * np.array([1.4, 1.0, 0.8, 0.6, 0.4])
    rap = modes(length, board, pace, [1.0, 0.9, 0.6, 0.4, 0.25])
    rap += 0.2 * noise(rng, length, band(500.0, 2500.0)) * decay(length, 0.012)
    count = int(rng.integers(2, 6))
    within = rng.uniform(0.14, 0.3)
    again = beats(rng, n, period=count * within + rng.uniform(0.5, 0.9))
    starts = (again[:, None] + samples(within) * np.arange(count)).ravel()
    starts += rng.integers(0, samples(0.02), len(starts))
    starts = fitting(starts, length, n)
    return overlap_add(n, starts, rap, rng.uniform(0.6, 1.0, len(starts)))


@event(1.5, 4.0)
def _footsteps(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Heel, then toe, left and right in turn, on a hard floor or on gravel."""
    gravel = rng.random() < 0.3
    length = samples(0.2)
    starts = beats(rng, n, period=rng.uniform(0.42, 0.62), jitter=0.12)
    body = log_uniform(rng, 70.0, 120.0)
    x = np.zeros(n)
    for foot in (0, 1):
        heel = modes(length, body * np.array([1.0, 1.7, 2.9]) * (1.0 + 0.06 * foot), 0.07)
        if gravel:
            grains = noise(rng, length, band(150.0, 1000.0, order=1))
            # Stones give way one after another: noise broken into random pieces.
            pieces = np.repeat(rng.random(length // 16 + 1) ** 3, 16)[:length]
            scrape = 1.6 * grains * pieces * gate(length, attack=0.06, release=0.12)
        else:
            grains = noise(rng, length, band(100.0, 700.0))
            toe = np.roll(decay(length, 0.03), samples(0.09)) * (np.arange(length) >= samples(0.09))
            scrape = grains * (decay(length, 0.06) + 0.5 * toe)
        steps = starts[foot::2]
        x += overlap_add(n, steps, heel + scrape, rng.uniform(0.7, 1.0, len(steps)))
    return x


@event(0.8, 2.5)
def _vowels(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A voice that speaks in vowels only, gliding from one to the next."""
    # A longer vocal tract has lower formants, and with it mostly goes a lower voice.
    tract = rng.uniform(0.95, 1.25)
    pitch = 110.0 * (tract / 0.95) ** 2.4 * rng.uniform(0.85, 1.2)
    count = max(2, round(n / SAMPLE_RATE / rng.uniform(0.22, 0.34)))
    chosen = np.array(list(_FORMANTS.values()))[rng.integers(0, len(_FORMANTS), count)] * tract
    first, second, third = (contour(n, np.repeat(formant, 2)) for formant in chosen.T)
    tune = contour(n, rng.uniform(0.88, 1.2, count)) * contour(n, [1.1, 1.0, 0.82])
    f0 = pitch * tune * (1.0 + 0.008 * np.sin(2.0 * np.pi * 5.5 * np.arange(n) / SAMPLE_RATE))
    throat = resonances((first, 80.0, 1.0), (second, 110.0, 0.5), (third, 160.0, 0.25), power=2)
    voice = harmonics(f0, lambda f, t: throat(f, t) * (200.0 / f) ** 0.3)
    # Each vowel is a syllable: the voice dips between them.
    dips = np.ones(2 * count + 1)
    dips[::2] = rng.uniform(0.1, 0.45, count + 1)
    breath = noise(rng, n, lambda f, t: 0.004 * band(1000.0, 3500.0)(f, t))
    return (voice + breath) * contour(n, dips) * gate(n, attack=0.05, release=0.1)


@event(0.8, 2.5)
def _whistle(rng: Generator, n: int) -> Float[ndarray, " n"]:
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
    air = noise(rng, n, resonances((f, 160.0, 1.0), power=2))
    x = (tone(f) + 0.05 * air) * contour(n, np.append(pressed, 0.5))
    return x * gate(n, attack=0.04, release=0.08)


@event(2.0, 5.0)
def _crackling_fire(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Sharp cracks at random, a few loud and many faint, over a soft roar."""
    length = samples(0.03)
    kinds = np.stack([_crack(rng, length) for _ in range(12)])
    starts = scattered(rng, n, rate=rng.uniform(12.0, 30.0))
    # A heavy tail: most cracks are faint, a few are not.
    force = np.minimum(0.12 * rng.random(len(starts)) ** -0.6, 1.5)
    x = 0.6 * overlap_add(n, starts, kinds[rng.integers(0, len(kinds), len(starts))], force)
    deep, high = band(30.0, 150.0), band(150.0, 3000.0)
    roar = noise(rng, n, lambda f, t: deep(f, t) + 0.08 * high(f, t))
    flicker = 1.0 + 0.5 * wander(rng, n, rate=6.0)
    return x + rng.uniform(0.06, 0.2) * roar * flicker * gate(n, attack=0.2, release=0.2)


def _crack(rng: Generator, length: int) -> Float[ndarray, " length"]:
    centre = log_uniform(rng, 700.0, 3000.0)
    burst = noise(rng, length, resonances((centre, 1200.0, 1.0)))
    return burst * decay(length, rng.uniform(0.006, 0.02))


@event(2.0, 5.0)
def _rain(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Hundreds of small drops a second over the hiss of the many that are far away."""
    length = samples(0.014)
    kinds = np.stack(
        [
            modes(length, log_uniform(rng, 700.0, 3400.0), rng.uniform(0.006, 0.014))
            for _ in range(24)
        ]
    )
    starts = scattered(rng, n, rate=log_uniform(rng, 100.0, 600.0))
    force = 0.2 * (1.0 / np.maximum(rng.random(len(starts)), 0.01)) ** 0.5
    x = overlap_add(n, starts, kinds[rng.integers(0, len(kinds), len(starts))], force)
    dark = log_uniform(rng, 1000.0, 4000.0)
    hiss = noise(rng, n, band(30.0, dark, order=1))
    shower = 1.0 + 0.1 * wander(rng, n, rate=1.0)
    return (x + rng.uniform(0.2, 0.5) * hiss) * shower * gate(n, attack=0.1, release=0.1)


@event(2.5, 5.0)
def _sea_waves(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Waves that swell darkly, break, and run out in a bright hiss."""
    period = rng.uniform(3.0, 6.0)
    start = rng.uniform(0.0, 0.6)
    phase = (np.arange(n) / (SAMPLE_RATE * period) + start) % 1.0
    breaks = rng.uniform(0.35, 0.5)
    swell = np.interp(phase, [0.0, breaks, breaks + 0.06, 0.75, 1.0], [0.4, 0.6, 1.0, 0.6, 0.4])
    bright = np.interp(phase, [0.0, breaks, breaks + 0.1, 1.0], [500.0, 900.0, 2200.0, 700.0])
    surf = noise(rng, n, band(120.0, bright, order=1))
    return surf * swell * gate(n, attack=0.2, release=0.3)


@event(2.0, 4.5)
def _thunder(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """A crack, or none when far away, then a rumble that rolls and darkens."""
    near = rng.random()
    length = n / SAMPLE_RATE
    darkening = contour(n, [300.0 + 900.0 * near, 220.0, 90.0], at=[0.0, 0.3, 1.0])
    claps = np.sort(rng.uniform(0.0, 0.6, 5))
    claps[0] = 0.0
    roll = np.zeros(n)
    for place_in, force in zip(claps, rng.uniform(0.3, 1.0, 5), strict=True):
        start = int(place_in * n)
        rise = contour(n - start, [0.0, 1.0, 1.0], at=[0.0, 0.06, 1.0])
        roll[start:] += force * (decay(n - start, 0.9 * length) * rise)
    x = 2.0 * noise(rng, n, band(25.0, darkening)) * roll
    crack = noise(rng, n, band(100.0, 800.0)) * decay(n, 0.8)
    return (x + near * crack) * gate(n, attack=0.004, release=0.3 * length)


@event(1.0, 4.0)
def _water_drops(rng: Generator, n: int) -> Float[ndarray, " n"]:
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
        note = size * rng.uniform(0.7, 1.6)
        rise = 1.0 + rng.uniform(0.3, 0.9) * np.linspace(0.0, 1.0, length) ** 0.7
        bubble = tone(note * rise) * decay(length, rng.uniform(0.08, 0.16))
        bubble *= gate(length, attack=0.003, release=0.03)
        x += overlap_add(n, np.array([start]), bubble, rng.uniform(0.5, 1.0))
        splash = 0.2 * noise(rng, samples(0.008), band(800.0, 3600.0))
        x += overlap_add(n, np.array([start]), splash * decay(len(splash), 0.006))
        # Every second drop or so throws up a droplet that falls back.
        back = start + samples(rng.uniform(0.06, 0.14))
        x += overlap_add(n, np.array([back]), bubble, rng.choice([0.0, 0.35]))
    return x


@event(2.0, 5.0)
def _wind(rng: Generator, n: int) -> Float[ndarray, " n"]:
    """Gusts: the harder it blows, the louder and higher it howls."""
    gust = 0.5 + 0.5 * wander(rng, n, rate=rng.uniform(0.8, 1.6))
    howl = rng.uniform(200.0, 400.0) * (1.0 + 0.9 * gust)
    width = rng.uniform(80.0, 200.0)
    blowing = resonances((howl, width, 1.0), (2.1 * howl, 2.0 * width, 0.25), power=2)
    # What hits the microphone itself rumbles, and flutters faster than the gusts.
    flutter = 0.6 + 0.4 * wander(rng, n, rate=8.0)
    rumble = noise(rng, n, band(30.0, 200.0)) * flutter
    x = noise(rng, n, blowing) + rng.uniform(0.1, 0.5) * rumble
    return x * (0.5 + gust * gust) * gate(n, attack=0.3, release=0.3)
