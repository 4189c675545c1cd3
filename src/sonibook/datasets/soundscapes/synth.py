"""What every event is made of: harmonics, decaying modes, shaped noise, grains, contours.

Nothing here aliases: tones are added up partial by partial and each is faded out before half the
sample rate; noise is shaped after it is drawn, which makes no new frequencies.

All randomness comes from the generator that a function is handed. How often a function draws
never depends on a computed sound, so that two machines whose sines differ in the last bit still
draw the same numbers.

A *spectrum* is a function of frequency (in Hz, shape (any, 1) or (any, frames)) and time (in s,
shape (frames,)) that returns amplitudes to match, so that a timbre may change while it sounds.
`band` and `resonances` make spectra, of numbers or of contours, which they follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.random import Generator

from sonibook.audio import SAMPLE_RATE

_Numbers = float | Sequence[float] | ndarray
_Spectrum = Callable[[ndarray, ndarray], ndarray]
_Render = Callable[[Generator, int], Float[ndarray, " time"]]

#: How each kind of event is made, and the least and the most that one lasts in a scene, in s.
EVENTS: dict[str, tuple[_Render, float, float]] = {}
_HOP = 128
_WINDOW = np.sqrt(0.5 - 0.5 * np.cos(np.pi * np.arange(2 * _HOP) / _HOP))
_FADE_FROM, _FADE_TO = 3600.0, 3900.0


def event(shortest: float, longest: float) -> Callable[[_Render], _Render]:
    """Register a function as what makes the event that it is named after, in `EVENTS`."""

    def register(render: _Render) -> _Render:
        EVENTS[render.__name__.removeprefix("_")] = render, shortest, longest
        return render

    return register


def samples(seconds: float) -> int:
    """How many samples last that long, one at least."""
    return max(round(seconds * SAMPLE_RATE), 1)


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """A random number in [low, high], every octave as likely as the next."""
    return float(low * (high / low) ** rng.random())


def below_nyquist(frequency: _Numbers) -> ndarray:
    """1 up to 3,600 Hz, falling to 0 at 3,900 Hz: what keeps every tone below half the rate."""
    return np.clip((_FADE_TO - np.asarray(frequency)) / (_FADE_TO - _FADE_FROM), 0.0, 1.0)


def contour(n: int, values: _Numbers, *, at: _Numbers | None = None) -> Float[ndarray, " n"]:
    """A smooth curve through `values`, level at each; `at` are their places in [0, 1]."""
    heights = np.asarray(values, dtype=float)
    places = np.linspace(0.0, 1.0, len(heights)) if at is None else np.asarray(at, dtype=float)
    position = np.interp(np.linspace(0.0, 1.0, n), places, np.arange(len(heights)))
    left = np.minimum(position.astype(int), len(heights) - 2)
    share = position - left
    return heights[left] + np.diff(heights)[left] * share * share * (3.0 - 2.0 * share)


def wander(rng: Generator, n: int, *, rate: float) -> Float[ndarray, " n"]:
    """A smooth random curve in [-1, 1] that turns about `rate` times a second."""
    return contour(n, rng.uniform(-1.0, 1.0, 2 + int(rate * n / SAMPLE_RATE)))


def gate(n: int, *, attack: float, release: float) -> Float[ndarray, " n"]:
    """An envelope that rises to 1 in `attack` s, holds, and falls to 0 in the last `release` s."""
    length = n / SAMPLE_RATE
    squeeze = min(1.0, length / (attack + release))
    rise, fall = attack * squeeze / length, release * squeeze / length
    return contour(n, [0.0, 1.0, 1.0, 0.0], at=[0.0, rise, 1.0 - fall, 1.0])


def decay(n: int, t60: float) -> Float[ndarray, " n"]:
    """An envelope that starts at 1 and falls by 60 dB every `t60` seconds."""
    return 10.0 ** (-3.0 * np.arange(n) / (SAMPLE_RATE * t60))


def tone(frequency: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """A sine that follows a frequency contour (in Hz), silent where it nears half the rate."""
    phase = 2.0 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    return below_nyquist(frequency) * np.sin(phase)


def harmonics(f0: Float[ndarray, " n"], spectrum: _Spectrum) -> Float[ndarray, " n"]:
    """A pitched sound: every harmonic of `f0` (Hz) below half the rate, in cosine phase."""
    n = len(f0)
    frames = n // _HOP + 2
    time = np.arange(frames) * _HOP / SAMPLE_RATE
    count = max(int(_FADE_TO / f0.min()), 1)
    orders = np.arange(1, count + 1)[:, None]
    frequency = orders * at_frames(f0, time)
    # Gains are drawn in straight lines from frame to frame: so that no harmonic passes half the
    # rate between two of them, each is judged by the highest pitch on either side.
    highest = np.pad(f0, (0, frames * _HOP - n), mode="edge").reshape(frames, _HOP).max(axis=1)
    highest[1:] = np.maximum(highest[1:], highest[:-1])
    gains = spectrum(frequency, time) * below_nyquist(orders * highest)
    ramp = np.arange(_HOP) / _HOP
    # cos((k + 1) a) = 2 cos a cos(k a) - cos((k - 1) a): one product a harmonic, no cosine.
    twice = 2.0 * np.cos(2.0 * np.pi * np.cumsum(f0) / SAMPLE_RATE)
    before, now = np.ones(n), twice / 2.0
    out = np.zeros(n)
    for gain in gains:
        smooth = gain[:-1, None] + np.diff(gain)[:, None] * ramp
        out += smooth.ravel()[:n] * now
        before, now = now, twice * now - before
    return out


def modes(
    n: int, frequencies: _Numbers, t60: _Numbers, gains: _Numbers = 1.0
) -> Float[ndarray, " n"]:
    """Something struck: sines that start together and each fall by 60 dB in their `t60` (s)."""
    f, pace, gain = np.broadcast_arrays(np.atleast_1d(frequencies), t60, gains)
    rate = (-np.log(1000.0) / pace + 2j * np.pi * f) / SAMPLE_RATE
    # exp(rate (a + b)) = exp(rate a) exp(rate b): all modes over all samples as one product.
    coarse = np.exp(np.outer(np.arange(-(-n // _HOP)) * _HOP, rate)) * (gain * below_nyquist(f))
    fine = np.exp(np.outer(rate, np.arange(_HOP)))
    return (coarse @ fine).imag.ravel()[:n]


def noise(rng: Generator, n: int, spectrum: _Spectrum) -> Float[ndarray, " n"]:
    """Noise of unit variance where `spectrum` is 1, shaped in half-overlapping frames of 32 ms."""
    blocks = n // _HOP + 3
    white = (rng.random((blocks, _HOP)) - 0.5) * np.sqrt(12.0)
    frames = np.hstack([white[:-1], white[1:]]) * _WINDOW
    frequency = np.fft.rfftfreq(2 * _HOP, 1.0 / SAMPLE_RATE)[:, None]
    time = np.arange(blocks - 1) * _HOP / SAMPLE_RATE
    gains = np.broadcast_to(spectrum(frequency, time), (_HOP + 1, blocks - 1)).T
    shaped = np.fft.irfft(np.fft.rfft(frames, axis=1) * gains, axis=1) * _WINDOW
    return (shaped[:-1, _HOP:] + shaped[1:, :_HOP]).ravel()[:n]


def surroundings(rng: Generator, x: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """A sound in a place: with the echoes of its walls or woods, and a faint hum of its own."""
    from scipy.signal import oaconvolve  # a second's import, for those who render

    t60, wet = log_uniform(rng, 0.15, 1.2), log_uniform(rng, 0.06, 0.5)
    tail = noise(rng, samples(t60), band(100.0, 2500.0, order=1))
    tail *= decay(len(tail), t60)
    heard = x + oaconvolve(x, tail * (wet / np.linalg.norm(tail)))[: len(x)]
    hum = noise(rng, len(x), lambda f, t: (200.0 / (f + 50.0)) ** 0.5 * below_nyquist(f))
    level = log_uniform(rng, 0.003, 0.05) * np.abs(heard).max()
    return heard + level * hum * gate(len(x), attack=0.05, release=0.05)


def at_frames(curve: _Numbers, time: Float[ndarray, " frames"]) -> ndarray:
    """A contour's values at the given times (in s), held after its end; a number stays as it is."""
    values = np.asarray(curve)
    if values.ndim == 0:
        return values
    return values[np.minimum((time * SAMPLE_RATE).astype(int), len(values) - 1)]


def band(low: _Numbers, high: _Numbers, *, order: int = 2) -> _Spectrum:
    """The spectrum of a Butterworth band-pass from `low` to `high` Hz."""

    def amplitudes(f: ndarray, t: ndarray) -> ndarray:
        f = np.maximum(f, 1.0)
        below = 1.0 + (at_frames(low, t) / f) ** (2 * order)
        above = 1.0 + (f / at_frames(high, t)) ** (2 * order)
        return 1.0 / np.sqrt(below * above)

    return amplitudes


def resonances(*peaks: tuple[_Numbers, float, float], power: int = 1) -> _Spectrum:
    """The sum of resonances (centre in Hz, width at half power, gain), to a power."""

    def amplitudes(f: ndarray, t: ndarray) -> ndarray:
        total = np.zeros(f.shape)
        for centre, width, gain in peaks:
            offset = (f - at_frames(centre, t)) / (width / 2.0)
            total = total + gain / np.sqrt(1.0 + offset**2)
        return total**power

    return amplitudes


def overlap_add(
    n: int,
    starts: Int[ndarray, " grains"],
    grains: Float[ndarray, "grains length"] | Float[ndarray, " length"],
    gains: _Numbers = 1.0,
) -> Float[ndarray, " n"]:
    """Short sounds, one for each start or one for all, added up; what runs past `n` is cut."""
    length = grains.shape[-1]
    grains = np.broadcast_to(grains, (len(starts), length))
    gains = np.broadcast_to(gains, len(starts))
    kept = (starts >= 0) & (starts < n)
    out = np.zeros(n + length)
    if length <= 512:
        where = starts[kept, None] + np.arange(length)
        np.add.at(out, where.ravel(), (grains[kept] * gains[kept, None]).ravel())
    else:
        for start, grain, gain in zip(starts[kept], grains[kept], gains[kept], strict=True):
            out[start : start + length] += gain * grain
    return out[:n]


def beats(
    rng: Generator, n: int, *, period: float, jitter: float = 0.0, first: float = 0.0
) -> Int[ndarray, " beats"]:
    """Starts every `period` s from `first` on, each shifted by up to `jitter` half periods."""
    step = samples(period)
    start = min(samples(first) if first > 0 else 0, n - 1)
    starts = np.arange(start, n, step)
    shift = jitter * step / 2 * rng.uniform(-1.0, 1.0, len(starts))
    shift[0] = 0.0
    return np.clip(starts + shift.astype(int), 0, n - 1)


def fitting(starts: Int[ndarray, " starts"], length: int, n: int) -> Int[ndarray, " kept"]:
    """The starts from which a sound of `length` samples ends before `n`, and always the first."""
    return starts[(starts + length <= n) | (starts == starts[0])]


def repeated(
    rng: Generator, n: int, starts: Int[ndarray, " starts"], sound: Float[ndarray, " length"]
) -> Float[ndarray, " n"]:
    """A sound at those of the starts from which it ends before `n`, now louder, now softer."""
    starts = fitting(starts, len(sound), n)
    return overlap_add(n, starts, sound, rng.uniform(0.7, 1.0, len(starts)))


def scattered(rng: Generator, n: int, *, rate: float) -> Int[ndarray, " points"]:
    """Starts at random, `rate` a second on average, rising: a Poisson process, its count fixed."""
    return np.sort(rng.integers(0, n, max(round(rate * n / SAMPLE_RATE), 1)))
