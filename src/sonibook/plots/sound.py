"""Sounds as pictures: waveforms, log spectrograms, and what they show in words for alt text.

A sound is an array or tensor of shape (time,); what is not a waveform raises `AudioError`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy import ndarray
from torch import Tensor

from sonibook.audio import SAMPLE_RATE, as_waveform
from sonibook.metrics.similarity import short_time_spectra
from sonibook.plots.style import FLOOR_DB, INPUT, LEVELS, PAGE, SONIFICATION, look, new_figure

#: A waveform of shape (time,): an array, or a tensor on any device.
Sound = Float[ndarray, " time"] | Float[Tensor, " time"]

#: Power of a sound by frequency and frame, as `power_spectrogram` gives it.
Power = Float[ndarray, "freq t"]

#: Samples in a frame of a spectrogram (32 ms at 8 kHz), and from one frame to the next (8 ms).
_FRAME, HOP = 256, 64

#: Sounds that a figure draws side by side.
_IN_A_ROW = 4


def as_array(x: ndarray | Tensor) -> ndarray:
    """An array, or a tensor on any device, as an array of the same shape."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def peak_of(*sounds: Sound) -> float:
    """The largest magnitude in any of the sounds."""
    return max(float(np.abs(as_waveform(x)).max()) for x in sounds)


def power_spectrogram(x: Sound, *, frame: int = _FRAME, hop: int = HOP) -> Power:
    """Power in short overlapping frames (Hann window)."""
    frames = short_time_spectra(torch.from_numpy(as_waveform(x)), frame=frame, hop=hop)
    return frames.abs().square().numpy()


def decibels(power: Power, *, reference: float, floor_db: float = FLOOR_DB) -> Power:
    """Power as a level in dB re `reference`, no lower than `floor_db` (everywhere, if it is 0)."""
    least = 10 ** (floor_db / 10)
    return 10 * np.log10(np.maximum(power / reference if reference > 0 else 0 * power, least))


def describe(x: Sound, *, sample_rate: int = SAMPLE_RATE) -> str:
    """When a sound, shape (time,), is loudest, and which band holds the middle 80 % of its power.

    Such as "loudest at 0.52 s, most of its power between 0.31 and 1.20 kHz"; "silence" for zeros.
    """
    power = power_spectrogram(x)
    total = float(power.sum())
    if total == 0:
        return "silence"
    loudest = int(power.sum(axis=0).argmax()) * HOP / sample_rate
    share = np.cumsum(power.sum(axis=1)) / total
    low, high = np.searchsorted(share, [0.1, 0.9]) * (sample_rate / 2000 / (len(share) - 1))
    return f"loudest at {loudest:.2f} s, most of its power between {low:.2f} and {high:.2f} kHz"


def waveform(x: Sound, *, sample_rate: int = SAMPLE_RATE) -> Figure:
    """A waveform, shape (time,), over time; the rate is in Hz."""
    with look():
        figure = new_figure(8.0, 1.8)
        axes = figure.subplots()
        draw_waveform(axes, x, sample_rate=sample_rate, peak=peak_of(x), colour=INPUT)
        axes.set(xlabel="time / s", ylabel="amplitude")
    return figure


def log_spectrogram(
    x: Sound, *, sample_rate: int = SAMPLE_RATE, reference: float | None = None
) -> Figure:
    """A spectrogram, from 80 dB below the loudest point to it.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
    sample_rate : int > 0, in Hz
    reference : float > 0, or None
        Power at 0 dB, as `power_spectrogram` gives it; None takes the sound's own maximum. Give
        the same to all figures that are to be compared.
    """
    power = power_spectrogram(x)
    loudest = float(power.max()) if reference is None else reference
    with look():
        figure = new_figure(8.0, 2.6)
        axes = figure.subplots()
        image = draw_levels(axes, decibels(power, reference=loudest), sample_rate=sample_rate)
        axes.set(xlabel="time / s", ylabel="frequency / kHz")
        figure.colorbar(image, ax=axes, label="level / dB", pad=0.01)
    return figure


def compare(
    x: Sound,
    s: Sound,
    *,
    sample_rate: int = SAMPLE_RATE,
    titles: tuple[str, str] = ("Input", "Sonification"),
) -> Figure:
    """Waveform and log spectrogram of an input and a sonification, on the same scales.

    Parameters
    ----------
    x, s : ndarray or Tensor, shapes (time,)
    sample_rate : int > 0, in Hz
    titles : (str, str)
    """
    return side_by_side([x, s], titles=titles, sample_rate=sample_rate)


def side_by_side(
    sounds: Sequence[Sound],
    *,
    titles: Sequence[str],
    sample_rate: int = SAMPLE_RATE,
    first_is_input: bool = True,
) -> Figure:
    """Waveforms above, log spectrograms below, all on the same scales; up to four sounds in a row.

    Parameters
    ----------
    sounds : sequence of ndarray or Tensor, shapes (time,)
    titles : sequence of str
        One for each; else `ValueError`.
    sample_rate : int > 0, in Hz
    first_is_input : bool
        Whether to draw the first in the input's colour; the others are sonifications.
    """
    if len(sounds) != len(titles) or not sounds:
        raise ValueError(f"Give one title for each sound: {len(titles)} for {len(sounds)}.")
    powers = [power_spectrogram(x) for x in sounds]
    reference = max(float(power.max()) for power in powers)
    peak = peak_of(*sounds)
    with look():
        rows = -(-len(sounds) // _IN_A_ROW)
        columns = -(-len(sounds) // rows)
        figure = new_figure(PAGE, 3.7 * rows)
        grid = figure.subplots(
            2 * rows, columns, sharex=True, sharey="row", height_ratios=[1, 2] * rows, squeeze=False
        )
        for number, (x, power, title) in enumerate(zip(sounds, powers, titles, strict=True)):
            row, column = divmod(number, columns)
            above, below = grid[2 * row : 2 * row + 2, column]
            colour = INPUT if first_is_input and number == 0 else SONIFICATION
            draw_waveform(above, x, sample_rate=sample_rate, peak=peak, colour=colour)
            above.set_title(title)
            levels = decibels(power, reference=reference)
            image = draw_levels(below, levels, sample_rate=sample_rate)
            below.set_xlabel("time / s")
            below.tick_params(labelbottom=True)
        for above, below in zip(grid[::2, 0], grid[1::2, 0], strict=True):
            above.set_ylabel("amplitude")
            below.set_ylabel("frequency / kHz")
        for axes in grid.flat:
            axes.set_visible(axes.has_data())
        grid[0, 0].set_xlim(0, max(len(x) for x in sounds) / sample_rate)
        figure.colorbar(image, ax=grid[1::2].ravel().tolist(), label="level / dB", pad=0.01)
    return figure


def draw_waveform(axes: Axes, x: Sound, *, sample_rate: int, peak: float, colour: str) -> None:
    """Draw a waveform: as a line, or where there are many samples as the range of each stretch."""
    array = as_waveform(x)
    seconds = len(array) / sample_rate
    stretches = 1200
    if len(array) <= 2 * stretches:
        axes.plot(np.arange(len(array)) / sample_rate, array, color=colour, linewidth=0.8)
    else:
        edges = np.linspace(0, len(array), stretches, endpoint=False).astype(int)
        low, high = np.minimum.reduceat(array, edges), np.maximum.reduceat(array, edges)
        axes.fill_between(edges / sample_rate, low, high, color=colour, linewidth=0.4)
    limit = 1.05 * peak if peak > 0 else 1.0
    axes.set(xlim=(0, seconds), ylim=(-limit, limit))


def draw_levels(axes: Axes, levels: Power, *, sample_rate: int) -> AxesImage:
    """Draw a spectrogram that is already in dB."""
    seconds = (levels.shape[1] - 1) * HOP / sample_rate
    return axes.imshow(
        levels,
        cmap=LEVELS,
        vmin=FLOOR_DB,
        vmax=0.0,
        extent=(0.0, max(seconds, HOP / sample_rate), 0.0, sample_rate / 2000),
        interpolation="nearest",
    )
