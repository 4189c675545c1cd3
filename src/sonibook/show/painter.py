"""Spectrograms painted quickly: for the explorer, where a slider waits for each of them."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy import ndarray

from sonibook.show.excerpts import Sound, as_waveform
from sonibook.show.picture import small_png
from sonibook.show.plots import decibels, draw_levels, power_spectrogram
from sonibook.show.style import FLOOR_DB, LEVELS, look, new_figure


class PairPainter:
    """The log spectrograms of an input and of one sonification after another.

    Axes, labels and the input are drawn once; `paint` draws only what changes over them.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
        The input.
    sample_rate : int > 0, in Hz
    """

    def __init__(self, x: Sound, *, sample_rate: int) -> None:
        self.power = power_spectrogram(x)
        self.sample_rate = sample_rate
        with look():
            figure = new_figure(9.0, 2.5)
            self._canvas = FigureCanvasAgg(figure)
            left, self._right = figure.subplots(1, 2, sharex=True, sharey=True)
            empty = np.full_like(self.power, FLOOR_DB)
            self._first, self._second = (
                draw_levels(axes, empty, sample_rate=sample_rate, floor_db=FLOOR_DB)
                for axes in (left, self._right)
            )
            left.set(title="Input", xlabel="time / s", ylabel="frequency / kHz")
            self._right.set(title="Sonification", xlabel="time / s")
            figure.colorbar(self._second, ax=[left, self._right], label="level / dB", pad=0.01)
            self._left = left
            self._first.set_animated(True)
            self._second.set_animated(True)
            self._canvas.draw()
        self._ground = self._canvas.copy_from_bbox(figure.bbox)

    def paint(self, s: Sound) -> bytes:
        """The pair as a PNG file, in dB re the louder of the two.

        Parameters
        ----------
        s : ndarray or Tensor, shape (time,)
            As long as the input.

        Returns
        -------
        bytes
        """
        power = power_spectrogram(s)
        reference = max(float(self.power.max()), float(power.max()))
        self._canvas.restore_region(self._ground)
        for axes, image, values in (
            (self._left, self._first, self.power),
            (self._right, self._second, power),
        ):
            image.set_data(decibels(values, reference=reference))
            axes.draw_artist(image)
        return _png(np.asarray(self._canvas.buffer_rgba())[:, :, :3])


def thumbnail(x: Sound, *, reference: float | None = None) -> bytes:
    """A log spectrogram without axes as a small PNG file.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
    reference : float > 0, or None
        Power at 0 dB; None takes the sound's own maximum.

    Returns
    -------
    bytes
        One pixel a frame and frequency.
    """
    from PIL import Image

    power = power_spectrogram(as_waveform(x))
    loudest = float(power.max()) if reference is None else reference
    shade = 1 - decibels(power, reference=loudest)[::-1] / FLOOR_DB
    pixels = mpl.colormaps[LEVELS](shade, bytes=True)[:, :, :3]
    return small_png(Image.fromarray(np.ascontiguousarray(pixels)), colours=24)


def _png(pixels: UInt8[ndarray, "height width 3"] | Float[ndarray, "height width 3"]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    # A player waits for this: quick rather than small.
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="png", compress_level=1)
    return file.getvalue()
