"""The first layer's filters as what they are to an engineer: frequency responses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.excerpts import as_array
from sonibook.plots.style import CYCLE, LEVELS, look, new_figure

Weights = Float[ndarray, "filters 1 kernel"] | Float[Tensor, "filters 1 kernel"]
_POINTS = 256


def power_responses(weights: Weights) -> Float[ndarray, "filters points"]:
    """Power response of every filter at evenly spaced frequencies from 0 to half the sampling rate.

    Parameters
    ----------
    weights : ndarray or Tensor, shape (filters, 1, kernel)
        Of a convolution that takes one channel.

    Returns
    -------
    ndarray, shape (filters, 257), >= 0

    Raises
    ------
    ValueError
        If the weights are those of a deeper layer.
    """
    taps = as_array(weights).astype(np.float64)
    if taps.ndim != 3 or taps.shape[1] != 1:
        raise ValueError(
            f"Weights of shape {taps.shape} have no frequency response: only the first layer's "
            "filters, of shape (filters, 1, kernel), act on the waveform itself."
        )
    return np.square(np.abs(np.fft.rfft(taps[:, 0], n=2 * _POINTS, axis=1)))


def centre_frequencies(
    weights: Weights, *, sample_rate: int = SAMPLE_RATE
) -> Float[ndarray, " filters"]:
    """Where each filter's response has its centre of mass.

    Parameters
    ----------
    weights : ndarray or Tensor, shape (filters, 1, kernel)
    sample_rate : int > 0, in Hz

    Returns
    -------
    ndarray, shape (filters,), in Hz
        Mean frequency weighted by power; a quarter of the sampling rate for a filter of zeros.

    Raises
    ------
    ValueError
        As `power_responses`.
    """
    power = power_responses(weights)
    frequencies = np.linspace(0, sample_rate / 2, power.shape[1])
    total = power.sum(axis=1)
    flat = np.full(len(power), sample_rate / 4)
    return np.divide(power @ frequencies, total, out=flat, where=total > 0)


def frequency_responses(
    weights: Weights | Mapping[str, Weights],
    *,
    sample_rate: int = SAMPLE_RATE,
    curves: int = 4,
    floor_db: float = -40.0,
) -> Figure:
    """Frequency responses of first-layer filters, sorted by centre frequency.

    Above, all filters as a heat map; below, a few of them as curves. Each filter is drawn in dB
    re its own maximum: what counts is which band it keeps, not how strongly.

    Parameters
    ----------
    weights : ndarray or Tensor, shape (filters, 1, kernel), or a mapping from str to such
        Several sets of weights are drawn side by side, under their names.
    sample_rate : int > 0, in Hz
    curves : int > 0
        How many filters to draw as curves, evenly spread over the sorted ones.
    floor_db : float < 0

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        As `power_responses`.
    """
    sets = dict(weights) if isinstance(weights, Mapping) else {"": weights}
    with look():
        figure = new_figure(8.0, 4.6)
        grid = figure.subplots(
            2, len(sets), sharex=True, sharey="row", height_ratios=[1.5, 1], squeeze=False
        )
        for (above, below), (name, taps) in zip(grid.T, sets.items(), strict=True):
            power = power_responses(taps)
            order = np.argsort(centre_frequencies(taps), kind="stable")
            loudest = power.max(axis=1, keepdims=True)
            relative = np.divide(power, loudest, out=np.zeros_like(power), where=loudest > 0)
            levels = 10 * np.log10(np.maximum(relative, 10 ** (floor_db / 10)))[order]
            image = above.imshow(
                levels,
                cmap=LEVELS,
                vmin=floor_db,
                vmax=0.0,
                extent=(0.0, sample_rate / 2000, 0.5, len(levels) + 0.5),
                interpolation="nearest",
            )
            above.set_title(name)
            frequencies = np.linspace(0, sample_rate / 2000, levels.shape[1])
            chosen = np.unique(np.linspace(0, len(levels) - 1, curves).round().astype(int))
            for row, colour, line in zip(chosen, CYCLE, ("-", "--", "-.", ":") * 2, strict=False):
                label = f"filter {order[row]}"
                below.plot(frequencies, levels[row], color=colour, linestyle=line, label=label)
            below.set(xlabel="frequency / kHz", ylim=(floor_db, 2))
            below.grid(True)
            below.legend(ncols=2, fontsize=7.5, loc="lower center")
        grid[0, 0].set_ylabel("filters, sorted")
        grid[1, 0].set_ylabel("|H| / dB")
        figure.colorbar(image, ax=grid[0].tolist(), label="|H| / dB", pad=0.01)
    return figure
