"""Where in frequency a sound lies, and how narrowly: centroid, bandwidth, entropy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import signal

#: Samples in a segment of Welch's method: bins of 31.25 Hz at 8 kHz.
_NPERSEG = 256


def spectral_shape(
    x: Float[ndarray, "*batch time"], *, sample_rate: float = 8000.0
) -> Float[ndarray, "*batch 3"]:
    """Centroid, bandwidth and entropy of the mean power spectrum of sounds.

    The spectrum is Welch's, with scipy's defaults: Hann windows of 256 samples, half overlapping,
    each segment's mean taken away. Its share p of power in each bin is read as a distribution:
    the centroid is its mean and the bandwidth its standard deviation; the entropy is
    -sum p log p, divided by that of a flat spectrum.

    Parameters
    ----------
    x : ndarray, shape (..., time), with at least 256 samples
    sample_rate : float > 0, in Hz

    Returns
    -------
    ndarray, shape (..., 3), float64
        Centroid in Hz, bandwidth in Hz, entropy in [0, 1]. NaN for silence.

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 1000 / 8000 * np.arange(8000))
    >>> centroid, bandwidth, entropy = spectral_shape(tone)
    >>> round(float(centroid)), round(float(bandwidth)), round(float(entropy), 2)
    (1000, 18, 0.18)
    """
    frequency, power = signal.welch(x.astype(np.float64), sample_rate, nperseg=_NPERSEG)
    total = power.sum(axis=-1, keepdims=True)
    # A silent sound has no distribution: NaN, without the warning of a division by zero.
    p = power / np.where(total > 0, total, np.nan)
    centroid = (p * frequency).sum(axis=-1)
    bandwidth = np.sqrt((p * (frequency - centroid[..., None]) ** 2).sum(axis=-1))
    surprise = np.log(np.where(p > 0, p, 1.0))
    entropy = -(p * surprise).sum(axis=-1) / np.log(len(frequency))
    return np.stack([centroid, bandwidth, entropy], axis=-1)
