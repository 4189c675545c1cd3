"""Spectrograms painted quickly: for the explorer, where a slider waits for each of them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import AxesImage
from numpy import ndarray

from sonibook.plots.excerpts import Sound, as_waveform
from sonibook.plots.plots import decibels, draw_levels, power_spectrogram
from sonibook.plots.style import FLOOR_DB, LEVELS, look, new_figure


class Painter:
    """The log spectrograms of an input and of what was made of it, again and again.

    Axes, labels and the input are drawn once; `paint` draws only what changes over them.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
        The input.
    sample_rate : int > 0, in Hz
    titles : sequence of str
        Of what is painted beside the input.
    """

    def __init__(
        self, x: Sound, *, sample_rate: int, titles: Sequence[str] = ("Sonification", "Residual")
    ) -> None:
        self.power = power_spectrogram(x)
        self.sample_rate = sample_rate
        with look():
            figure = new_figure(9.6, 2.4)
            self._canvas = FigureCanvasAgg(figure)
            panels = figure.subplots(1, 1 + len(titles), sharex=True, sharey=True)
            empty = np.full_like(self.power, FLOOR_DB)
            self._panels: list[tuple[Axes, AxesImage]] = []
            for axes, title in zip(panels, ("Input", *titles), strict=True):
                image = draw_levels(axes, empty, sample_rate=sample_rate, floor_db=FLOOR_DB)
                image.set_animated(True)
                axes.set(title=title, xlabel="time / s")
                self._panels.append((axes, image))
            panels[0].set_ylabel("frequency / kHz")
            figure.colorbar(image, ax=panels.tolist(), label="level / dB", pad=0.01)
            self._canvas.draw()
        self._ground = self._canvas.copy_from_bbox(figure.bbox)

    def paint(self, *sounds: Sound) -> bytes:
        """All side by side as a PNG file, in dB re the loudest of them.

        Parameters
        ----------
        *sounds : ndarray or Tensor, shapes (time,)
            One for each title, as long as the input.

        Returns
        -------
        bytes
        """
        powers = [self.power, *(power_spectrogram(sound) for sound in sounds)]
        reference = max(float(power.max()) for power in powers)
        self._canvas.restore_region(self._ground)
        for (axes, image), power in zip(self._panels, powers, strict=True):
            image.set_data(decibels(power, reference=reference))
            axes.draw_artist(image)
        return _png(np.asarray(self._canvas.buffer_rgba())[:, :, :3])


def thumbnail(x: Sound, *, reference: float | None = None) -> bytes:
    """A log spectrogram without axes as a small WebP file: of many on one page, each counts.

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
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="webp", quality=60)
    return file.getvalue()


def _png(pixels: UInt8[ndarray, "height width 3"] | Float[ndarray, "height width 3"]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    # A player waits for this: quick rather than small.
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="png", compress_level=1)
    return file.getvalue()
