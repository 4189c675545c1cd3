"""Sounds as figures and players take them, and the stretch of a clip that is worth playing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from sonibook.audio import SAMPLE_RATE, check_samples

#: A waveform of shape (time,): an array, or a tensor on any device.
Sound = Float[ndarray, " time"] | Float[Tensor, " time"]


def as_array(x: ndarray | Tensor) -> ndarray:
    """An array, or a tensor on any device, as an array of the same shape."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def as_waveform(x: Sound) -> Float[ndarray, " time"]:
    """A sound as a float32 array.

    Raises
    ------
    AudioError
        If it is empty, not of shape (time,), or holds samples that are not finite.
    """
    return check_samples(as_array(x))


def peak_of(*sounds: Sound) -> float:
    """The largest magnitude in any of the sounds."""
    return max(float(np.abs(as_waveform(x)).max()) for x in sounds)


def excerpt(
    x: Sound, *, seconds: float = 2.0, sample_rate: int = SAMPLE_RATE
) -> Float[ndarray, " excerpt"]:
    """The loudest `seconds` of a clip, so that a player is small and not mostly silence.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
    seconds : float > 0
    sample_rate : int > 0, in Hz

    Returns
    -------
    ndarray, shape (min(time, seconds * sample_rate),)
        The stretch with the most energy; of equal ones the first. All of `x` if it is shorter.

    Raises
    ------
    AudioError
        If `x` is no waveform.
    """
    array = as_waveform(x)
    length = max(round(seconds * sample_rate), 1)
    if len(array) <= length:
        return array
    total = np.concatenate([[0.0], np.cumsum(np.square(array, dtype=np.float64))])
    start = int(np.argmax(total[length:] - total[:-length]))
    return array[start : start + length]
