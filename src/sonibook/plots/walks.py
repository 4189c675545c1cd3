"""What coherence adds up at one frequency, as a walk in the complex plane: a step a segment."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Complex
from matplotlib.patches import Circle
from numpy import ndarray
from scipy import signal

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.excerpts import Sound, as_waveform
from sonibook.plots.picture import Picture, picture
from sonibook.plots.style import CYCLE, GREY, look, new_figure


def coherence_walk(
    x: Sound,
    y: Sound,
    *,
    frequency: float,
    nperseg: int = 256,
    sample_rate: int = SAMPLE_RATE,
) -> Complex[ndarray, " places"]:
    """Where one gets to by the segments' cross-spectra at one frequency, put head to tail.

    Parameters
    ----------
    x, y : ndarray or Tensor, shapes (time,)
    frequency : float, in Hz
        The nearest bin is taken.
    nperseg : int, in samples
        Length of a segment; neighbours share half.
    sample_rate : int > 0, in Hz

    Returns
    -------
    ndarray, shape (segments + 1,)
        From 0. The last place's distance from 0, squared, is the coherence. NaN, but for the
        start, where a signal has no power there.
    """
    place = round(frequency * nperseg / sample_rate)
    window = signal.get_window("hann", nperseg)

    def spectra(sound: Sound) -> ndarray:
        samples = as_waveform(sound).astype(np.float64)
        segments = np.lib.stride_tricks.sliding_window_view(samples, nperseg)[:: nperseg // 2]
        centred = (segments - segments.mean(axis=1, keepdims=True)) * window
        return np.fft.rfft(centred)[:, place]

    a, b = spectra(x), spectra(y)
    size = np.sqrt((np.abs(a) ** 2).sum() * (np.abs(b) ** 2).sum())
    steps = np.cumsum(a.conj() * b) / size if size > 0 else np.full(len(a), np.nan + 0j)
    return np.concatenate([[0], steps])


def coherence_walks(
    pairs: Mapping[str, tuple[Sound, Sound]], *, frequency: float, nperseg: int = 256
) -> Picture:
    """Draw the walks of several pairs of sounds beside each other.

    Parameters
    ----------
    pairs : mapping from str to (x, y), ndarray or Tensor, shapes (time,)
        By title.
    frequency : float, in Hz
    nperseg : int, in samples

    Returns
    -------
    Picture
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
