"""What a spectrogram shows, in words: for alternative text, so measured and not guessed."""

from __future__ import annotations

import numpy as np

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.excerpts import Sound
from sonibook.plots.plots import HOP, power_spectrogram


def describe(x: Sound, *, sample_rate: int = SAMPLE_RATE) -> str:
    """When a sound is loudest, and which band holds the middle 80 % of its power.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
    sample_rate : int > 0, in Hz

    Returns
    -------
    str
        Such as "loudest at 0.52 s, most of its power between 0.31 and 1.20 kHz"; "silence" for
        zeros.

    Raises
    ------
    AudioError
        If `x` is no waveform.
    """
    power = power_spectrogram(x)
    total = float(power.sum())
    if total == 0:
        return "silence"
    loudest = int(power.sum(axis=0).argmax()) * HOP / sample_rate
    share = np.cumsum(power.sum(axis=1)) / total
    low, high = np.searchsorted(share, [0.1, 0.9]) * (sample_rate / 2000 / (len(share) - 1))
    return f"loudest at {loudest:.2f} s, most of its power between {low:.2f} and {high:.2f} kHz"
