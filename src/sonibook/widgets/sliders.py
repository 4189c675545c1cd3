"""The slider of one chapter: a tone's frequency.

Chapter: Sound and data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.basics import alias_figure, alias_of
from sonibook.plots.style import picture
from sonibook.widgets.audio import Listening, widgets
from sonibook.widgets.players import Player, player
from sonibook.widgets.static import static_slider

#: What the static forms show.
FREQUENCIES = (1000, 3000, 5000, 7000)

_WIDE = widgets.Layout(width="26rem", max_width="100%")
_LABEL = {"description_width": "initial"}


class _Slider(widgets.VBox):
    """One slider, and the words, picture and sound that belong to its value.

    `_shown` gives the first two for any value, and `_heard` sounds by name; where there is no
    kernel, on a page, a few values stand in the slider's place. A sound that plays goes on where
    it is when the slider moves.
    """

    #: Of the static form: what the slider moves, and a sentence below.
    _name, _end = "", ""

    def __init__(self, control: Any, *, title: str) -> None:
        self._control, self._title = control, title
        self.words, self.image, self.listening = widgets.HTML(), widgets.HTML(), Listening()
        self._update()
        control.observe(lambda change: self._update(), "value")
        sound = [self.listening] if self.listening.sonification else []
        super().__init__([control, self.words, self.image, *sound])

    def _shown(self, value: Any) -> tuple[str, str]:
        """Words and picture, as HTML."""
        raise NotImplementedError

    def _heard(self, values: Iterable[Any]) -> Player | None:
        """A player with a track for each value."""
        return None

    def _stops(self) -> tuple[Mapping[Any, str], Any]:
        """The values of the static form, what each is called, and the one that is open."""
        raise NotImplementedError

    def _update(self) -> None:
        self.words.value, self.image.value = self._shown(self._control.value)
        if heard := self._heard([self._control.value]):
            ((title, sound),) = heard.tracks.items()
            titles = {"sonification": title}
            self.listening.play(titles=titles, sonification=sound, rate=heard.sample_rate)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and the static form for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        called, opened = self._stops()
        stops = {f"{v:.10g}": (name, "".join(self._shown(v))) for v, name in called.items()}
        static = static_slider(
            stops,
            name=self._name,
            title=self._title,
            opened=f"{opened:.10g}",
            heard=self._heard(called),
            end=self._end,
        )
        return {**bundle, "text/plain": type(self).__name__, "text/html": static}


class AliasSlider(_Slider):
    """A slider for a tone's frequency; its samples, and the tone that they play.

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

    _name, _end = "Frequency in Hz", "In JupyterLab any frequency can be chosen."

    def __init__(self, *, sample_rate: int = SAMPLE_RATE, frequency: int = 3000) -> None:
        self._sample_rate = sample_rate
        self.frequency = widgets.IntSlider(
            frequency, 0, sample_rate, 100, description="Tone / Hz", style=_LABEL, layout=_WIDE
        )
        super().__init__(self.frequency, title="Aliasing")

    def _shown(self, value: int) -> tuple[str, str]:
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
        # Half a second, faded in and out so that it does not click.
        time = np.arange(self._sample_rate // 2) / self._sample_rate
        fade = np.minimum(1.0, 50 * np.minimum(time, time[::-1]))
        tones = {f"Samples of {f} Hz": fade * np.cos(2 * np.pi * f * time) for f in values}
        return player(tones, label="", gain=0.5, sample_rate=self._sample_rate, columns=2)

    def _stops(self) -> tuple[dict[int, str], int]:
        return {f: f"A tone of {f} Hz" for f in FREQUENCIES}, FREQUENCIES[2]
