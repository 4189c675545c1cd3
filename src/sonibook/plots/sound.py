"""Sounds as pictures, and one sonification: waveforms, log spectrograms, feature maps, the backward
pass in steps, coherence as a walk; and what they show in words for alt text.

A sound is an array or tensor of shape (time,); what is not a waveform raises `AudioError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from textwrap import fill
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Circle
from numpy import ndarray
from scipy import signal
from torch import Tensor

from sonibook.audio import SAMPLE_RATE, as_waveform
from sonibook.metrics.similarity import short_time_spectra
from sonibook.plots.style import ACTIVITY, BLUE, CYCLE, GREY, VERMILLION, Picture, drawing

#: A waveform of shape (time,): an array, or a tensor on any device.
Sound = Float[ndarray, " time"] | Float[Tensor, " time"]

#: Power of a sound by frequency and frame, as `power_spectrogram` gives it.
_Power = Float[ndarray, "freq t"]

#: Samples in a frame of a spectrogram (32 ms at 8 kHz), and from one frame to the next (8 ms).
_FRAME, _HOP = 256, 64

#: Levels are drawn down to this, in dB re the loudest.
_FLOOR_DB = -80.0

#: Sounds that a figure draws side by side.
_IN_A_ROW = 4


def as_array(x: ndarray | Tensor) -> ndarray:
    """An array, or a tensor on any device, as an array of the same shape."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def peak_of(*sounds: Sound) -> float:
    """The largest magnitude in any of the sounds."""
    return max(float(np.abs(as_waveform(x)).max()) for x in sounds)


def power_spectrogram(x: Sound, *, frame: int = _FRAME, hop: int = _HOP) -> _Power:
    """Power in short overlapping frames (Hann window)."""
    frames = short_time_spectra(torch.from_numpy(as_waveform(x)), frame=frame, hop=hop)
    return frames.abs().square().numpy()


def decibels(
    power: _Power, *, reference: float | None = None, floor_db: float = _FLOOR_DB
) -> _Power:
    """Power in dB re `reference`, or else its loudest point: `floor_db` at least, and re 0."""
    reference = float(power.max()) if reference is None else reference
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
    loudest = int(power.sum(axis=0).argmax()) * _HOP / sample_rate
    share = np.cumsum(power.sum(axis=1)) / total
    low, high = np.searchsorted(share, [0.1, 0.9]) * (sample_rate / 2000 / (len(share) - 1))
    return f"loudest at {loudest:.2f} s, most of its power between {low:.2f} and {high:.2f} kHz"


def waveform(x: Sound, *, sample_rate: int = SAMPLE_RATE) -> Figure:
    """A waveform, shape (time,), over time; the rate is in Hz."""
    with drawing(8.0, 1.8) as (figure, axes):
        draw_waveform(axes, x, sample_rate=sample_rate, peak=peak_of(x))
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
    levels = decibels(power_spectrogram(x), reference=reference)
    with drawing(8.0, 2.6) as (figure, axes):
        image = draw_levels(axes, levels, sample_rate=sample_rate)
        axes.set(xlabel="time / s", ylabel="frequency / kHz")
        figure.colorbar(image, ax=axes, label="level / dB", pad=0.01)
    return figure


def side_by_side(
    sounds: Sequence[Sound],
    *,
    titles: Sequence[str] = ("Input", "Sonification"),
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
    powers, peak = [power_spectrogram(x) for x in sounds], peak_of(*sounds)
    reference = max(float(power.max()) for power in powers)
    rows = -(-len(sounds) // _IN_A_ROW)
    columns = -(-len(sounds) // rows)
    shared: Any = {"sharex": True, "sharey": "row", "height_ratios": [1, 2] * rows}
    with drawing(8.0, 3.7 * rows, 2 * rows, columns, squeeze=False, **shared) as (figure, grid):
        for number, (x, power, title) in enumerate(zip(sounds, powers, titles, strict=True)):
            row, column = divmod(number, columns)
            above, below = grid[2 * row : 2 * row + 2, column]
            colour = BLUE if first_is_input and number == 0 else VERMILLION
            draw_waveform(above, x, sample_rate=sample_rate, peak=peak, colour=colour)
            above.set_title(fill(title, 60 // columns))
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


def draw_waveform(
    axes: Axes, x: Sound, *, sample_rate: int, peak: float, colour: str = BLUE
) -> None:
    """Draw a waveform: as a line, or where there are many samples as the range of each stretch."""
    array, stretches = as_waveform(x), 1200
    if len(array) <= 2 * stretches:
        axes.plot(np.arange(len(array)) / sample_rate, array, color=colour, linewidth=0.8)
    else:
        low, high = -shortened(-array, stretches), shortened(array, stretches)
        at = np.linspace(0, len(array), stretches, endpoint=False).astype(int) / sample_rate
        axes.fill_between(at, low, high, color=colour, linewidth=0.4)
    limit = 1.05 * peak if peak > 0 else 1.0
    axes.set(xlim=(0, len(array) / sample_rate), ylim=(-limit, limit))


def draw_bars(axes: Axes, names: Sequence[str], spans: Sequence[tuple[float, float]]) -> None:
    """A bar for each name, from the top down, by its first second and its length."""
    for row, (start, seconds) in enumerate(spans):
        axes.barh(row, seconds, left=start, color=CYCLE[row % len(CYCLE)])
    axes.set(xlabel="time / s", yticks=range(len(names)), yticklabels=names)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)


def draw_levels(axes: Axes, levels: _Power, *, sample_rate: int) -> AxesImage:
    """Draw a spectrogram that is already in dB."""
    seconds = max(levels.shape[1] - 1, 1) * _HOP / sample_rate
    return heat_map(axes, levels, (0.0, seconds, 0.0, sample_rate / 2000))


def heat_map(
    axes: Axes,
    values: ndarray,
    extent: tuple[float, float, float, float],
    *,
    low: float = _FLOOR_DB,
    high: float = 0.0,
    colours: str | None = None,
) -> AxesImage:
    """Draw values as rectangles of colour within an extent of left, right, bottom and top."""
    scale: Any = {"cmap": colours, "vmin": low, "vmax": high, "interpolation": "nearest"}
    return axes.imshow(values, extent=extent, **scale)


@dataclass(frozen=True, eq=False)
class Stage:
    """One signal of the backward pass, shape (time,); `stride` is samples from one value to the
    next.
    """

    title: str
    values: Sound
    stride: int


def steps(
    stages: Sequence[Stage], *, start: int, length: int, sample_rate: int = SAMPLE_RATE
) -> Figure:
    """Draw the stages of a backward pass below each other, zoomed in on a few milliseconds.

    Step t of a map with stride n is drawn at sample ``n * t``, the first that it depends on.

    Parameters
    ----------
    stages : sequence of Stage
    start, length : int, in samples
        The stretch to draw.
    sample_rate : int > 0, in Hz
    """
    tall = 0.6 + 1.05 * len(stages)
    with drawing(8.0, tall, len(stages), sharex=True, squeeze=False) as (figure, rows):
        for axes, stage, colour in zip(rows[:, 0], stages, cycle(CYCLE), strict=False):
            first = max(start // stage.stride, 0)
            shown = as_array(stage.values)[first : (start + length) // stage.stride + 1]
            times = 1000 * stage.stride * (first + np.arange(len(shown))) / sample_rate
            zero, open_circle = shown == 0, {"color": "white", "markeredgecolor": colour}
            axes.axhline(0, color="#9CA3AF", linewidth=0.8)
            axes.vlines(times[~zero], 0, shown[~zero], color=colour, linewidth=1.3)
            axes.plot(times[~zero], shown[~zero], ".", color=colour, markersize=5)
            axes.plot(times[zero], shown[zero], "o", markersize=2.6, **open_circle)
            axes.set_title(stage.title, fontsize=9, fontweight="normal")
            axes.locator_params(axis="y", nbins=3)
        limits = (1000 * start / sample_rate, 1000 * (start + length) / sample_rate)
        axes.set(xlabel="time / ms", xlim=limits)
    return figure


def held(
    values: Float[ndarray, " steps"] | Float[Tensor, " steps"], *, stride: int
) -> Float[ndarray, " time"]:
    """A feature map, shape (steps,), as a sound at the input's rate: every step is held until the
    next.

    Its mean is taken away, since a constant cannot be heard, and its peak is scaled to 1, unless
    the map is constant. It has `stride` samples a step.
    """
    array = as_array(values).astype(np.float32)
    sound = np.repeat(array - array.mean(), stride)
    peak = float(np.abs(sound).max())
    return sound / peak if peak > 0 else sound


def coherence_walk(
    x: Sound, y: Sound, *, frequency: float, nperseg: int = 256, sample_rate: int = SAMPLE_RATE
) -> Complex[ndarray, " points"]:
    """The running sum of the segments' cross-spectra at one frequency."""
    window, number = signal.get_window("hann", nperseg), round(frequency * nperseg / sample_rate)
    how: Any = {"window": window, "detrend": "constant", "boundary": None, "padded": False}
    sounds = (as_waveform(one).astype(np.float64) for one in (x, y))
    a, b = (signal.stft(one, nperseg=nperseg, **how)[2][number] for one in sounds)
    size = np.sqrt((np.abs(a) ** 2).sum() * (np.abs(b) ** 2).sum())
    steps = np.cumsum(a.conj() * b) / size if size > 0 else np.full(len(a), np.nan + 0j)
    return np.concatenate([[0], steps])


def coherence_walks(walks: Mapping[str, Complex[ndarray, " points"]]) -> Picture:
    """Draw walks by title; the circle is as far as one can get: a coherence of 1."""
    words = []
    shared: Any = {"sharex": True, "sharey": True, "squeeze": False}
    with drawing(2.5 * len(walks), 2.8, 1, len(walks), **shared) as (figure, grid):
        for axes, (title, walk), colour in zip(grid[0], walks.items(), cycle(CYCLE), strict=False):
            far = abs(walk[-1])
            axes.add_patch(Circle((0, 0), 1.0, fill=False, color=GREY, linestyle=":"))
            axes.plot(walk.real, walk.imag, ".-", color=colour, markersize=3, linewidth=0.9)
            axes.plot(walk.real[[0, -1]], walk.imag[[0, -1]], "o", color="black", markersize=4)
            axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=[], yticks=[])
            axes.set_aspect("equal")
            axes.set_title(f"{title}: {far**2:.2f}", fontsize=9)
            axes.spines[:].set_visible(False)
            words.append(f"{title} ends {far:.2f} from the start: {far**2:.2f}")
    alt = f"A walk for each pair of sounds, within a circle of radius one. {'; '.join(words)}."
    return Picture(figure, alt=alt)


def feature_maps(
    maps: Sequence[Float[ndarray, "channel time"] | Float[Tensor, "channel time"]],
    *,
    titles: Sequence[str],
    seconds: float,
) -> Figure:
    """Feature maps as heat maps, one panel a layer, the most active filter on top.

    Each panel is scaled to its own largest value; brightness is the square root of activity, so
    that the soft ones show.

    Parameters
    ----------
    maps : sequence of ndarray or Tensor, shapes (channel, time), >= 0
    titles : sequence of str
        One for each.
    seconds : float > 0
        How long the clip is.
    """
    tall = 0.5 + 1.55 * len(maps)
    with drawing(8.0, tall, len(maps), sharex=True, squeeze=False) as (figure, rows):
        for axes, values, title in zip(rows[:, 0], maps, titles, strict=True):
            array = as_array(values)
            order = np.argsort(np.square(array).mean(axis=1), kind="stable")
            shown = shortened(array[order], min(1000, array.shape[1]))
            shown = np.sqrt(shown / max(float(array.max()), 1e-30))
            extent = (0.0, seconds, 0.0, float(len(array)))
            heat_map(axes, shown, extent, low=0.0, high=1.0, colours=ACTIVITY)
            axes.set(title=title, ylabel="filters", yticks=[0, len(array)])
        axes.set_xlabel("time / s")
    return figure


def shortened(values: ndarray, count: int, *, axis: int = -1) -> ndarray:
    """So many values along an axis, each the largest of its stretch: no short event is lost."""
    edges = np.linspace(0, values.shape[axis], count, endpoint=False).astype(int)
    return np.maximum.reduceat(values, edges, axis=axis)


def small_levels(
    power: _Power, height: int, width: int, floor_db: float, *, reference: float | None = None
) -> UInt8[ndarray, "height width"]:
    """A log spectrogram of few points, the highest frequency first: 255 at 0 dB, 0 at the floor."""
    small = shortened(shortened(power, height, axis=0), width)
    levels = decibels(small, reference=reference, floor_db=floor_db)[::-1]
    return np.rint(255 * np.clip(1 - levels / floor_db, 0, 1)).astype(np.uint8)
