"""Pictures of sampling, scenes and the encoder: what is taken in, and what layers see of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor, nn

from sonibook.audio import SAMPLE_RATE, as_waveform
from sonibook.datasets.soundscapes import Scene
from sonibook.model.stack import blocks_of, receptive_field, stride
from sonibook.plots.sound import (
    Sound,
    as_array,
    decibels,
    draw_bars,
    draw_levels,
    heat_map,
    power_spectrogram,
)
from sonibook.plots.style import BLUE, CYCLE, GREY, SKY, VERMILLION, Picture, drawing

#: Weights of a first layer, of shape (filters, 1, kernel).
_Weights = Float[ndarray, "filters 1 kernel"] | Float[Tensor, "filters 1 kernel"]

#: Frequency responses are drawn down to this, in dB re each filter's maximum.
_FLOOR_DB = -40.0
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
        Which are drawn, as far as there are any; `AudioError` if there is none.
    sample_rate : int > 0, in Hz
    """
    shown = as_waveform(as_waveform(x)[start : start + count])
    at = (start + np.arange(len(shown))) / sample_rate * 1000
    with drawing(8.0, 2.2) as (figure, axes):
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.vlines(at, 0, shown, color=BLUE, linewidth=1.0)
        axes.plot(at, shown, "o", color=BLUE, markersize=3.5)
        axes.set(xlabel="time / ms", ylabel="amplitude")
    return figure


def alias_of(frequency: int | float, *, sample_rate: int | float) -> float:
    """The frequency, from 0 to half the rate, whose samples are those of `frequency` (all in Hz).

    Examples
    --------
    >>> alias_of(5000, sample_rate=8000)
    3000.0
    """
    return float(abs(frequency - sample_rate * round(frequency / sample_rate)))


def alias_figure(frequency: int | float, *, sample_rate: int | float) -> Figure:
    """A tone, its samples, and the lowest tone that has the same samples."""
    fine = np.linspace(0, _STRETCH, 1500)
    at = np.arange(int(_STRETCH * sample_rate) + 1) / sample_rate
    lowest = alias_of(frequency, sample_rate=sample_rate)

    def draw(hertz: int | float, times: ndarray, style: str, label: str, **options: Any) -> None:
        axes.plot(times * 1000, np.cos(2 * np.pi * hertz * times), style, label=label, **options)

    with drawing(8.0, 2.2) as (figure, axes):
        draw(frequency, fine, "-", f"the tone, {frequency:.0f} Hz", color=BLUE, linewidth=0.9)
        if lowest != frequency:
            draw(lowest, fine, "--", f"what comes back, {lowest:.0f} Hz", color=VERMILLION)
        draw(frequency, at, "o", "samples", color="black", markersize=4)
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
    """
    extent = (0.0, len(x) / sample_rate, 0.0, sample_rate / 2000)
    count = len(frames)
    with drawing(2.8 * count, 2.6, 1, count, sharey=True, squeeze=False) as (figure, grid):
        for axes, frame in zip(grid[0], frames, strict=True):
            levels = decibels(power_spectrogram(x, frame=frame, hop=max(frame // 4, 1)))
            image = heat_map(axes, levels, extent)
            milliseconds, bins = 1000 * frame / sample_rate, sample_rate / frame
            axes.set_title(f"{milliseconds:.0f} ms, {bins:.0f} Hz")
            axes.set_xlabel("time / s")
        grid[0, 0].set_ylabel("frequency / kHz")
        figure.colorbar(image, ax=grid[0].tolist(), label="level / dB", pad=0.01)
    return figure


def timeline(scene: Scene, *, caption: str = "") -> Picture:
    """Draw the mixture's log spectrogram, and a bar from onset to offset for every event."""
    count, levels = len(scene.events), decibels(power_spectrogram(scene.mixture))
    names = [event.name.replace("_", " ") for event in scene.events]
    shared: Any = {"sharex": True, "height_ratios": [7, max(count, 1)]}
    with drawing(8.0, 2.7 + 0.28 * count, 2, **shared) as (figure, (above, below)):
        draw_levels(above, levels, sample_rate=SAMPLE_RATE)
        above.set(ylabel="frequency / kHz")
        draw_bars(below, names, [(one.onset, one.offset - one.onset) for one in scene.events])
        below.set_xlim(0, len(scene.mixture) / SAMPLE_RATE)
    words = "; ".join(
        f"{name} from {event.onset:.2f} to {event.offset:.2f} s at {event.gain:.0f} dB"
        for name, event in zip(names, scene.events, strict=True)
    )
    alt = f"The log spectrogram of a scene, and under it a bar for each event: {words}."
    return Picture(figure, alt=alt, caption=caption)


def _power_responses(weights: _Weights) -> Float[ndarray, "filters points"]:
    """Power of each filter at 257 evenly spaced frequencies, 0 to half the sampling rate."""
    taps = as_array(weights).astype(np.float64)
    if taps.ndim != 3 or taps.shape[1] != 1:
        raise ValueError(
            f"Weights of shape {taps.shape} have no frequency response: only the first layer's "
            "filters, of shape (filters, 1, kernel), act on the waveform itself."
        )
    return np.square(np.abs(np.fft.rfft(taps[:, 0], n=512, axis=1)))


def centre_frequencies(
    weights: _Weights, *, sample_rate: int = SAMPLE_RATE
) -> Float[ndarray, " filters"]:
    """Where each filter's response has its centre of mass, in Hz.

    Parameters
    ----------
    weights : ndarray or Tensor, shape (filters, 1, kernel)
        Those of a deeper layer raise a `ValueError`.
    sample_rate : int > 0, in Hz

    Returns
    -------
    ndarray, shape (filters,)
        Mean frequency weighted by power; a quarter of the sampling rate for a filter of zeros.
    """
    power = _power_responses(weights)
    frequencies = np.linspace(0, sample_rate / 2, power.shape[1])
    total = power.sum(axis=1)
    flat = np.full(len(power), sample_rate / 4)
    return np.divide(power @ frequencies, total, out=flat, where=total > 0)


def frequency_responses(
    weights: _Weights | Mapping[str, _Weights], *, sample_rate: int = SAMPLE_RATE
) -> Figure:
    """Frequency responses of first-layer filters, sorted by centre frequency.

    Above, all filters as a heat map; below, four of them, evenly spread, as curves. Each filter is
    drawn in dB re its own maximum: what counts is which band it keeps, not how strongly.

    Parameters
    ----------
    weights : ndarray or Tensor, shape (filters, 1, kernel), or a mapping from str to such
        Several sets of weights are drawn side by side, under their names. Those of a deeper layer
        raise a `ValueError`.
    sample_rate : int > 0, in Hz
    """
    sets = dict(weights) if isinstance(weights, Mapping) else {"": weights}
    shared: Any = {"sharex": True, "sharey": "row", "height_ratios": [1.5, 1], "squeeze": False}
    with drawing(8.0, 4.6, 2, len(sets), **shared) as (figure, grid):
        for (above, below), (name, taps) in zip(grid.T, sets.items(), strict=True):
            power = _power_responses(taps)
            order = np.argsort(centre_frequencies(taps), kind="stable")
            levels = np.concatenate([decibels(power[[row]], floor_db=_FLOOR_DB) for row in order])
            extent = (0.0, sample_rate / 2000, 0.5, len(levels) + 0.5)
            image = heat_map(above, levels, extent, low=_FLOOR_DB)
            above.set_title(name)
            frequencies = np.linspace(0, sample_rate / 2000, levels.shape[1])
            chosen = np.unique(np.linspace(0, len(levels) - 1, 4).round().astype(int))
            for row, colour, line in zip(chosen, CYCLE, ("-", "--", "-.", ":") * 2, strict=False):
                label = f"filter {order[row]}"
                below.plot(frequencies, levels[row], color=colour, linestyle=line, label=label)
            below.set(xlabel="frequency / kHz", ylim=(_FLOOR_DB, 2))
            below.grid(True)
            below.legend(ncols=2, fontsize=7.5, loc="lower center")
        grid[0, 0].set_ylabel("filters, sorted")
        grid[1, 0].set_ylabel("|H| / dB")
        figure.colorbar(image, ax=grid[0].tolist(), label="|H| / dB", pad=0.01)
    return figure


def receptive_fields(network: nn.Module, *, sample_rate: int = SAMPLE_RATE) -> Figure:
    """The receptive field and the stride of every layer of a network, on a logarithmic axis.

    It must be as `sonibook.model.stack.blocks_of` takes it, else it raises a `StackError`.
    """
    blocks = blocks_of(network)
    layers = range(1, len(blocks) + 1)
    fields = [receptive_field(blocks, layer) for layer in layers]
    strides = [stride(blocks, layer) for layer in layers]
    with drawing(8.0, 0.8 + 0.27 * len(blocks)) as (figure, axes):
        axes.barh(layers, fields, color=SKY, height=0.72, label="receptive field")
        axes.barh(layers, strides, color=BLUE, height=0.3, label="stride")
        for layer, field in zip(layers, fields, strict=True):
            text = f" {field} samples = {1000 * field / sample_rate:.3g} ms"
            axes.text(field, layer, text, va="center", fontsize=8)
        axes.set_xscale("log", base=2)
        axes.set(xlim=(0.8, fields[-1] * 8), xlabel="samples", ylabel="layer", yticks=layers)
        axes.invert_yaxis()
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="upper right")
    return figure
