"""Pictures of one sonification: feature maps, the backward pass in steps, coherence as a walk.

Chapters: The encoder; Sonification, step by step; Coherence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy import ndarray
from scipy import signal
from torch import Tensor

from sonibook.audio import SAMPLE_RATE, as_waveform
from sonibook.plots.sound import Sound, as_array
from sonibook.plots.style import ACTIVITY, CYCLE, GREY, Picture, look, new_figure, picture


@dataclass(frozen=True, eq=False)
class Stage:
    """One signal of the backward pass, shape (time,); `stride` is samples from one value to the
    next.
    """

    title: str
    values: Sound
    stride: int


def steps(
    stages: Sequence[Stage],
    *,
    start: int,
    length: int,
    sample_rate: int = SAMPLE_RATE,
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
    with look():
        figure = new_figure(8.0, 0.6 + 1.05 * len(stages))
        rows = figure.subplots(len(stages), 1, sharex=True, squeeze=False)[:, 0]
        for number, (axes, stage) in enumerate(zip(rows, stages, strict=True)):
            _draw_stage(axes, stage, start, length, sample_rate, CYCLE[number % len(CYCLE)])
        rows[-1].set_xlabel("time / ms")
        rows[-1].set_xlim(1000 * start / sample_rate, 1000 * (start + length) / sample_rate)
    return figure


def _draw_stage(
    axes: Axes, stage: Stage, start: int, length: int, sample_rate: int, colour: str
) -> None:
    values = as_array(stage.values)
    first = max(start // stage.stride, 0)
    shown = values[first : (start + length) // stage.stride + 1]
    times = 1000 * stage.stride * (first + np.arange(len(shown))) / sample_rate
    zero = shown == 0
    axes.axhline(0, color="#9CA3AF", linewidth=0.8)
    axes.vlines(times[~zero], 0, shown[~zero], color=colour, linewidth=1.3)
    axes.plot(times[~zero], shown[~zero], ".", color=colour, markersize=5)
    axes.plot(times[zero], shown[zero], "o", color="white", markeredgecolor=colour, markersize=2.6)
    axes.set_title(stage.title, fontsize=9, fontweight="normal")
    axes.locator_params(axis="y", nbins=3)


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
    x: Sound,
    y: Sound,
    *,
    frequency: float,
    nperseg: int = 256,
    sample_rate: int = SAMPLE_RATE,
) -> Complex[ndarray, " points"]:
    """The running sum of the segments' cross-spectra at one frequency."""
    bin_number = round(frequency * nperseg / sample_rate)
    window = signal.get_window("hann", nperseg)

    def spectra(sound: Sound) -> ndarray:
        samples = as_waveform(sound).astype(np.float64)
        segments = np.lib.stride_tricks.sliding_window_view(samples, nperseg)[:: nperseg // 2]
        centred = (segments - segments.mean(axis=1, keepdims=True)) * window
        return np.fft.rfft(centred)[:, bin_number]

    a, b = spectra(x), spectra(y)
    size = np.sqrt((np.abs(a) ** 2).sum() * (np.abs(b) ** 2).sum())
    steps = np.cumsum(a.conj() * b) / size if size > 0 else np.full(len(a), np.nan + 0j)
    return np.concatenate([[0], steps])


def coherence_walks(
    pairs: Mapping[str, tuple[Sound, Sound]], *, frequency: float, nperseg: int = 256
) -> Picture:
    """Draw the walks of several pairs of sounds beside each other, by title.

    The circle is as far as one can get: a coherence of 1.
    """
    words = []
    with look():
        figure = new_figure(2.5 * len(pairs), 2.8)
        panels = figure.subplots(1, len(pairs), sharex=True, sharey=True, squeeze=False)[0]
        for number, (axes, (title, (x, y))) in enumerate(zip(panels, pairs.items(), strict=True)):
            walk = coherence_walk(x, y, frequency=frequency, nperseg=nperseg)
            coherence = abs(walk[-1]) ** 2
            colour = CYCLE[number % len(CYCLE)]
            axes.add_patch(Circle((0, 0), 1.0, fill=False, color=GREY, linestyle=":"))
            axes.plot(walk.real, walk.imag, ".-", color=colour, markersize=3, linewidth=0.9)
            axes.plot(walk.real[[0, -1]], walk.imag[[0, -1]], "o", color="black", markersize=4)
            axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=[], yticks=[])
            axes.set_aspect("equal")
            axes.set_title(f"{title}: {coherence:.2f}", fontsize=9)
            axes.spines[:].set_visible(False)
            words.append(f"{title} ends {abs(walk[-1]):.2f} from the start: {coherence:.2f}")
    alt = f"A walk for each pair of sounds, within a circle of radius one. {'; '.join(words)}."
    return picture(figure, alt=alt)


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
    with look():
        figure = new_figure(8.0, 0.5 + 1.55 * len(maps))
        rows = figure.subplots(len(maps), 1, sharex=True, squeeze=False)[:, 0]
        for axes, values, title in zip(rows, maps, titles, strict=True):
            array = as_array(values)
            order = np.argsort(np.square(array).mean(axis=1), kind="stable")
            shown = np.sqrt(shortened(array[order], 1000) / max(float(array.max()), 1e-30))
            axes.imshow(
                shown,
                cmap=ACTIVITY,
                vmin=0,
                vmax=1,
                extent=(0, seconds, 0, len(array)),
                interpolation="nearest",
            )
            axes.set(title=title, ylabel="filters", yticks=[0, len(array)])
        rows[-1].set_xlabel("time / s")
    return figure


def shortened(values: Float[ndarray, "channel time"], most: int) -> Float[ndarray, "channel t"]:
    """At most `most` columns: each the largest of its stretch, so that no short event is lost."""
    if values.shape[1] <= most:
        return values
    edges = np.linspace(0, values.shape[1], most, endpoint=False).astype(int)
    return np.maximum.reduceat(values, edges, axis=1)
