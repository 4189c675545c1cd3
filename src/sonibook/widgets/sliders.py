"""The slider of one chapter: a tone's frequency.

Chapter: Sound and data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.basics import alias_figure, alias_of
from sonibook.plots.style import picture
from sonibook.widgets.audio import Listening, widgets
from sonibook.widgets.players import Player, player
from sonibook.widgets.view import slider_stop

#: What the static form shows, and which of them at first.
FREQUENCIES, _OPENED = (1000, 3000, 5000, 7000), 5000


class AliasSlider(widgets.VBox):
    """A slider for a tone's frequency; its samples, and the tone that they play.

    A tone that plays goes on where it is when the slider moves. Where there is no kernel, on a
    page, a few frequencies stand in the slider's place.

    Parameters
    ----------
    sample_rate : int > 0, in Hz
        The slider goes up to it.
    frequency : int >= 0, in Hz
        To begin with.

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
            frequency,
            0,
            sample_rate,
            100,
            description="Tone / Hz",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="26rem", max_width="100%"),
        )
        self.words, self.image, self.listening = widgets.HTML(), widgets.HTML(), Listening()
        self._update()
        self.frequency.observe(lambda change: self._update(), "value")
        super().__init__([self.frequency, self.words, self.image, self.listening])

    def _update(self) -> None:
        self.words.value, self.image.value = self._shown(self.frequency.value)
        ((title, sound),) = self._heard([self.frequency.value]).tracks.items()
        titles = {"sonification": title}
        self.listening.play(titles=titles, sonification=sound, rate=self._sample_rate)

    def _shown(self, value: int) -> tuple[str, str]:
        """Words and picture, as HTML."""
        rate = self._sample_rate
        lowest = alias_of(value, sample_rate=rate)
        fate = "is kept" if lowest == value else f"comes back as one of {lowest:.0f} Hz"
        words = f"Sampled {rate} times a second, a tone of {value} Hz {fate}."
        drawn = picture(
            alias_figure(value, sample_rate=rate),
            alt=f"Three milliseconds of a tone of {value} Hz, its samples, and the lowest tone "
            f"through them, {lowest:.0f} Hz.",
        )
        return f"<p>{words}</p>", drawn._repr_html_()

    def _heard(self, values: Iterable[int]) -> Player:
        """A player with a track for each frequency."""
        # Half a second, faded in and out so that it does not click.
        time = np.arange(self._sample_rate // 2) / self._sample_rate
        fade = np.minimum(1.0, 50 * np.minimum(time, time[::-1]))
        tones = {f"Samples of {f} Hz": fade * np.cos(2 * np.pi * f * time) for f in values}
        return player(tones, label="", gain=0.5, sample_rate=self._sample_rate, columns=2)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and the static form for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        stops = "".join(
            slider_stop(str(f), f"A tone of {f} Hz", "".join(self._shown(f)), is_open=f == _OPENED)
            for f in FREQUENCIES
        )
        static = (
            '<section class="explorer" aria-label="Aliasing">'
            f'<div data-slider="Frequency in Hz">{stops}</div>'
            f"{self._heard(FREQUENCIES)._repr_html_()}"
            "<p>In JupyterLab any frequency can be chosen.</p></section>"
        )
        return {**bundle, "text/plain": "AliasSlider", "text/html": static}
