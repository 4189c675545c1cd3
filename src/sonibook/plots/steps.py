"""One block's way back, drawn step by step: before, unpooled, rectified, deconvolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.excerpts import Sound, as_array
from sonibook.plots.style import CYCLE, look, new_figure


@dataclass(frozen=True, eq=False)
class Stage:
    """One signal of the way back.

    Attributes
    ----------
    title : str
    values : ndarray or Tensor, shape (time,)
    stride : int > 0, in samples
        Samples from one step of `values` to the next.
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
    """Draw the stages of a way back below each other, zoomed in on a few milliseconds.

    Step t of a map with stride n is drawn at sample ``n * t``, the first that it depends on.

    Parameters
    ----------
    stages : sequence of Stage
    start, length : int, in samples
        The stretch to draw.
    sample_rate : int > 0, in Hz

    Returns
    -------
    matplotlib.figure.Figure
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
    """A feature map as a sound at the input's rate: every step is held until the next.

    Its mean is taken away, since a constant cannot be heard, and its peak is scaled to 1.

    Parameters
    ----------
    values : ndarray or Tensor, shape (steps,)
    stride : int > 0, in samples

    Returns
    -------
    ndarray, shape (steps * stride,), float32
        Zeros if the map is constant.
    """
    array = as_array(values).astype(np.float32)
    sound = np.repeat(array - array.mean(), stride)
    peak = float(np.abs(sound).max())
    return sound / peak if peak > 0 else sound
