"""Synthesised calls that differ in one thing: whether their pitch rises or falls, and when.

A call that falls is one that rises, played backwards, and has the same spectrum. So the average
spectrum of a clip hardly tells its class: what tells it is the order in which things happen. Even
small networks learn that within seconds.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from scipy.signal.windows import tukey

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.base import Clip, Synthesised
from sonibook.errors import DatasetError

#: Which way the pitch goes, in octaves at evenly spaced moments of a call.
_CONTOURS = {
    "rises": (0, 1),
    "falls": (1, 0),
    "rises and falls": (0, 1, 0),
    "falls and rises": (1, 0, 1),
}


class Calls(Synthesised):
    """Calls in noise, as a single-label data set.

    A call lasts 0.3 to 0.6 s and spans an octave above 300 to 1,200 Hz. It has up to three
    harmonics, and white noise 0 to 20 dB below the clip's own level. Classes take turns; a clip
    holds its call so many `repeats`, once in each second. DatasetError if a parameter is out of
    range.

    Examples
    --------
    >>> calls = Calls(size=4)
    >>> [calls.classes[label] for clip in calls for label in clip.labels]
    ['rises', 'falls', 'rises and falls', 'falls and rises']
    """

    name = "calls"
    task = "single-label"
    classes = tuple(_CONTOURS)

    def __init__(
        self, *, seed: int = 0, size: int = 600, repeats: int = 1, split: str = "all"
    ) -> None:
        super().__init__(seed=seed, size=size, split=split)
        if repeats < 1:
            raise DatasetError(f"repeats {repeats} leaves no call: choose at least 1.")
        self.repeats = repeats

    def labels(self, index: int) -> tuple[int, ...]:
        return (self._entropy(index)[-1] % len(self.classes),)

    def samples(self, index: int) -> int:
        return self.repeats * SAMPLE_RATE

    def __getitem__(self, index: int) -> Clip:
        rng, labels = np.random.default_rng(self._entropy(index)), self.labels(index)
        call = self._call(rng, _CONTOURS[self.classes[labels[0]]])
        x = np.zeros(self.repeats * SAMPLE_RATE)
        for second in range(self.repeats):
            start = second * SAMPLE_RATE + rng.integers(0, SAMPLE_RATE - len(call) + 1)
            x[start : start + len(call)] = call
        level = x.std() * 10 ** (-rng.uniform(0, 20) / 20)
        x += level * rng.standard_normal(len(x))
        return Clip((x / np.abs(x).max()).astype(np.float32), labels, self.clip_id(index))

    def _call(self, rng: Generator, contour: tuple[int, ...]) -> Float[ndarray, " time"]:
        """One call, without noise; as a fade is symmetric, backwards it is the opposite one."""
        length = round(rng.uniform(0.3, 0.6) * SAMPLE_RATE)
        moments = np.linspace(0, len(contour) - 1, length)
        octaves = np.interp(moments, range(len(contour)), contour)
        pitch = rng.uniform(300, 1200) * 2**octaves
        phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        call = np.zeros(length)
        for harmonic, strength in enumerate(rng.uniform(0.2, 1, size=3), start=1):
            if harmonic * pitch.max() < 0.475 * SAMPLE_RATE:  # no aliases
                call += strength / harmonic * np.sin(harmonic * phase)
        return np.asarray(call * tukey(length, 0.5))
