"""Aliasing, to be moved and heard.

Chapter: Sound and data.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.basics import alias_figure, alias_of
from sonibook.plots.style import picture
from sonibook.widgets.kernel import widgets
from sonibook.widgets.players import player
from sonibook.widgets.stops import static_slider

#: What the static form shows.
FREQUENCIES = (1000, 3000, 5000, 7000)


class AliasSlider(widgets.VBox):
    """A slider for a tone's frequency; its samples, and the tone that they play.

    Where there is no kernel, on a page, a few frequencies stand in its place, to be opened one by
    one.

    Parameters
    ----------
    sample_rate : int > 0, in Hz
        The slider goes up to it.
    frequency : int >= 0, in Hz
        To begin with.

    Attributes
    ----------
    frequency : ipywidgets.IntSlider
    words, sound, image : ipywidgets.HTML
        What is shown.

    Examples
    --------
    >>> slider = AliasSlider()
    >>> slider.frequency.value = 5000
    >>> slider.words.value
    '<p>Sampled 8000 times a second, a tone of 5000 Hz comes back as one of 3000 Hz.</p>'
    """

    def __init__(self, *, sample_rate: int = SAMPLE_RATE, frequency: int = 3000) -> None:
        self._sample_rate = sample_rate
        self.frequency = widgets.IntSlider(
            value=frequency,
            min=0,
            max=sample_rate,
            step=100,
            description="Tone / Hz",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="26rem"),
        )
        self.words, self.sound, self.image = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._update()
        self.frequency.observe(lambda change: self._update(), "value")
        super().__init__([self.frequency, self.words, self.sound, self.image])

    def _update(self) -> None:
        self.words.value, self.sound.value, self.image.value = self._shown(self.frequency.value)

    def _shown(self, frequency: int) -> tuple[str, str, str]:
        lowest = alias_of(frequency, sample_rate=self._sample_rate)
        fate = "is kept" if lowest == frequency else f"comes back as one of {lowest:.0f} Hz"
        words = f"Sampled {self._sample_rate} times a second, a tone of {frequency} Hz {fate}."
        drawn = picture(
            alias_figure(frequency, sample_rate=self._sample_rate),
            alt=f"Three milliseconds of a tone of {frequency} Hz, its samples, and the lowest tone "
            f"through them, {lowest:.0f} Hz.",
        )
        heard = player(
            _tone(frequency, self._sample_rate),
            label=f"The samples of a tone of {frequency} Hz, played",
            sample_rate=self._sample_rate,
        )
        return f"<p>{html.escape(words)}</p>", heard._repr_html_(), drawn._repr_html_()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and the static form for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        static = static_slider(
            {str(f): (f"A tone of {f} Hz", "".join(self._shown(f))) for f in FREQUENCIES},
            name="Frequency in Hz",
            title="Aliasing",
            opened=str(FREQUENCIES[2]),
            end="In JupyterLab this is a slider.",
        )
        return {**bundle, "text/plain": "AliasSlider", "text/html": static}


def _tone(frequency: int, sample_rate: int) -> np.ndarray:
    """Half a second of a tone, faded in and out so that it does not click."""
    time = np.arange(sample_rate // 2) / sample_rate
    fade = np.minimum(1.0, 50 * np.minimum(time, time[::-1]))
    return (0.5 * fade * np.cos(2 * np.pi * frequency * time)).astype(np.float32)
