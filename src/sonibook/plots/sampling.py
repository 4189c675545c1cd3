"""What sampling keeps of a sound: its samples, its aliases, and how finely a spectrogram sees it.

Chapter: Sound and data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.excerpts import Sound, as_waveform
from sonibook.plots.plots import decibels, power_spectrogram
from sonibook.plots.style import BLUE, FLOOR_DB, GREY, LEVELS, VERMILLION, look, new_figure

#: Seconds of a tone that are drawn, enough to tell two frequencies apart.
_STRETCH = 0.003


def sample_stems(
    x: Sound, *, start: int, count: int = 60, sample_rate: int = SAMPLE_RATE
) -> Figure:
    """A few samples of a sound, each as what it is: a number at a time.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
    start, count : int >= 0, in samples
        Which are drawn, as far as there are any.
    sample_rate : int > 0, in Hz

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    AudioError
        If `x` is no waveform, or has no sample there.
    """
    shown = as_waveform(as_waveform(x)[start : start + count])
    at = (start + np.arange(len(shown))) / sample_rate * 1000
    with look():
        figure = new_figure(8.0, 2.2)
        axes = figure.subplots()
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.vlines(at, 0, shown, color=BLUE, linewidth=1.0)
        axes.plot(at, shown, "o", color=BLUE, markersize=3.5)
        axes.set(xlabel="time / ms", ylabel="amplitude")
    return figure


def alias_of(frequency: int | float, *, sample_rate: int | float) -> float:
    """The frequency, up to half the rate, whose samples are those of `frequency`.

    Parameters
    ----------
    frequency : float >= 0, in Hz
    sample_rate : float > 0, in Hz

    Returns
    -------
    float, in Hz, from 0 to ``sample_rate / 2``
        `frequency` itself where it is no higher.

    Examples
    --------
    >>> alias_of(5000, sample_rate=8000)
    3000.0
    """
    return float(abs(frequency - sample_rate * round(frequency / sample_rate)))


def alias_figure(frequency: int | float, *, sample_rate: int | float) -> Figure:
    """A tone, its samples, and the lowest tone that has the same samples.

    Parameters
    ----------
    frequency : float >= 0, in Hz
    sample_rate : float > 0, in Hz

    Returns
    -------
    matplotlib.figure.Figure
    """
    fine = np.linspace(0, _STRETCH, 1500)
    at = np.arange(int(_STRETCH * sample_rate) + 1) / sample_rate
    lowest = alias_of(frequency, sample_rate=sample_rate)
    with look():
        figure = new_figure(8.0, 2.2)
        axes = figure.subplots()
        axes.plot(
            fine * 1000,
            np.cos(2 * np.pi * frequency * fine),
            color=BLUE,
            linewidth=0.9,
            label=f"the tone, {frequency:.0f} Hz",
        )
        if lowest != frequency:
            axes.plot(
                fine * 1000,
                np.cos(2 * np.pi * lowest * fine),
                color=VERMILLION,
                linestyle="--",
                label=f"what comes back, {lowest:.0f} Hz",
            )
        values = np.cos(2 * np.pi * frequency * at)
        axes.plot(at * 1000, values, "o", color="black", markersize=4, label="samples")
        axes.set(xlabel="time / ms", ylabel="amplitude", xlim=(0, _STRETCH * 1000))
        figure.legend(loc="outside upper left", ncols=3)
    return figure


def resolutions(
    x: Sound, *, frames: Sequence[int] = (64, 256, 1024), sample_rate: int = SAMPLE_RATE
) -> Figure:
    """One sound as log spectrograms of several frame lengths, each re its own loudest point.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
    frames : sequence of int > 0, in samples
        Neighbours share three quarters.
    sample_rate : int > 0, in Hz

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    AudioError
        If `x` is no waveform.
    """
    extent = (0.0, len(x) / sample_rate, 0.0, sample_rate / 2000)
    with look():
        figure = new_figure(2.8 * len(frames), 2.6)
        panels = figure.subplots(1, len(frames), sharey=True, squeeze=False)[0]
        for axes, frame in zip(panels, frames, strict=True):
            power = power_spectrogram(x, frame=frame, hop=max(frame // 4, 1))
            levels = decibels(power, reference=float(power.max()))
            image = axes.imshow(
                levels, cmap=LEVELS, vmin=FLOOR_DB, vmax=0, extent=extent, interpolation="nearest"
            )
            milliseconds, bins = 1000 * frame / sample_rate, sample_rate / frame
            axes.set_title(f"{milliseconds:.0f} ms, {bins:.0f} Hz")
            axes.set_xlabel("time / s")
        panels[0].set_ylabel("frequency / kHz")
        figure.colorbar(image, ax=list(panels), label="level / dB", pad=0.01)
    return figure
