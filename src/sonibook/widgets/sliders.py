"""Sliders of single chapters: a tone's frequency, epochs of training, the temperature.

Chapters: Sound and data; How features grow; Contrastive training.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.basics import alias_figure, alias_of
from sonibook.plots.sound import Sound, describe_power, power_spectrogram, thumbnail
from sonibook.plots.style import image_tag, picture
from sonibook.plots.training import Similarity, temperature_picture, temperature_words
from sonibook.widgets.audio import Listening, widgets
from sonibook.widgets.players import Player, full_scale_gain, player
from sonibook.widgets.static import static_slider

#: What the static forms show.
FREQUENCIES = (1000, 3000, 5000, 7000)
TEMPERATURES = (0.02, 0.1, 0.5, 2.0)

_WIDE = widgets.Layout(width="26rem", max_width="100%")
_LABEL = {"description_width": "initial"}


class _Slider(widgets.VBox):
    """One slider, and the words, sound and picture that belong to its value.

    `_shown` gives them for any value; where there is no kernel, on a page, a few values stand in
    the slider's place, to be opened one by one. A sound that plays goes on where it is when the
    slider moves.
    """

    #: Of the static form: what the slider moves, and a sentence below.
    _name, _end = "", ""

    def __init__(self, control: Any, *, title: str) -> None:
        self._control, self._title = control, title
        self.words, self.image, self.listening = widgets.HTML(), widgets.HTML(), Listening()
        self._update()
        control.observe(lambda change: self._update(), "value")
        sound = [self.listening] if self.listening.sonification else []
        super().__init__([control, self.words, *sound, self.image])

    def _shown(self, value: Any) -> tuple[str, Player | None, str]:
        """Words as HTML, the sound if there is one, the picture as HTML."""
        raise NotImplementedError

    def _stops(self) -> tuple[Mapping[Any, str], Any]:
        """The values of the static form, what each is called, and the one that is open."""
        raise NotImplementedError

    def _update(self) -> None:
        self.words.value, sound, self.image.value = self._shown(self._control.value)
        if sound is not None:
            self.listening.play(titles={"sonification": sound.label}, sonification=sound.wav)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and the static form for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        called, opened = self._stops()
        stops = {}
        for value, name in called.items():
            words, sound, image = self._shown(value)
            stops[f"{value:.10g}"] = (name, words + (sound._repr_html_() if sound else "") + image)
        static = static_slider(
            stops, name=self._name, title=self._title, opened=f"{opened:.10g}", end=self._end
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

    def _shown(self, value: int) -> tuple[str, Player, str]:
        rate = self._sample_rate
        lowest = alias_of(value, sample_rate=rate)
        fate = "is kept" if lowest == value else f"comes back as one of {lowest:.0f} Hz"
        words = f"Sampled {rate} times a second, a tone of {value} Hz {fate}."
        drawn = picture(
            alias_figure(value, sample_rate=rate),
            alt=f"Three milliseconds of a tone of {value} Hz, its samples, and the lowest tone "
            f"through them, {lowest:.0f} Hz.",
        )
        # Half a second, faded in and out so that it does not click.
        time = np.arange(rate // 2) / rate
        fade = np.minimum(1.0, 50 * np.minimum(time, time[::-1]))
        tone = (0.5 * fade * np.cos(2 * np.pi * value * time)).astype(np.float32)
        label = f"The samples of a tone of {value} Hz, played"
        sound = player(tone, label=label, sample_rate=rate)
        return f"<p>{words}</p>", sound, drawn._repr_html_()

    def _stops(self) -> tuple[dict[int, str], int]:
        return {f: f"A tone of {f} Hz" for f in FREQUENCIES}, FREQUENCIES[2]


class EpochSlider(_Slider):
    """A slider through training: one filter and clip, heard and seen as they were at each epoch.

    Parameters
    ----------
    sounds : mapping from int to ndarray or Tensor, shapes (time,)
        By epoch; silence where a filter was dead.
    title : str
        What is followed, such as "Layer 5, filter 2".
    sample_rate : int > 0, in Hz

    Raises
    ------
    ValueError
        If there is no epoch.

    Examples
    --------
    >>> import numpy as np
    >>> tone = np.sin(np.arange(800, dtype=np.float32))
    >>> slider = EpochSlider({0: 0 * tone, 20: tone}, title="Layer 1, filter 0")
    >>> slider.epoch.value
    20
    >>> slider.epoch.value = 0
    >>> "silence" in slider.image.value
    True
    """

    _name = "Epoch"

    def __init__(
        self, sounds: Mapping[int, Sound], *, title: str, sample_rate: int = SAMPLE_RATE
    ) -> None:
        if not sounds:
            raise ValueError("There is nothing to follow: give the sound of one epoch at least.")
        self._sounds, self._filter = dict(sorted(sounds.items())), title
        self._sample_rate, self._gain = sample_rate, full_scale_gain(*sounds.values())
        epochs = list(self._sounds)
        self.epoch = widgets.SelectionSlider(
            options=epochs, value=epochs[-1], description="Epoch", layout=_WIDE
        )
        super().__init__(self.epoch, title=f"{title} through training")

    def _shown(self, value: int) -> tuple[str, Player, str]:
        x = self._sounds[value]
        label = f"{self._filter}, epoch {value}"
        sound = player(x, label=label, gain=self._gain, sample_rate=self._sample_rate)
        power = power_spectrogram(x)
        described = describe_power(power, sample_rate=self._sample_rate)
        alt = f"Spectrogram at epoch {value}: {described}"
        image = image_tag(thumbnail(power), alt, width="24rem", kind="webp")
        return f"<p>{html.escape(self._filter)}</p>", sound, image

    def _stops(self) -> tuple[dict[int, str], int]:
        return {epoch: f"Epoch {epoch}" for epoch in self._sounds}, max(self._sounds)


class TemperatureSlider(_Slider):
    """A slider for the temperature of NT-Xent, and what it makes of one batch.

    Parameters
    ----------
    similarity : Tensor, shape (rows, rows), in [-1, 1]
        Cosine similarities; row i and row i + rows / 2 are two views of one clip.
    temperature : float > 0
        To begin with; the slider goes from 0.01 to 10.

    Raises
    ------
    ValueError
        If the rows are not pairs.

    Examples
    --------
    >>> import torch
    >>> slider = TemperatureSlider(torch.eye(4))
    >>> slider.temperature.value = 0.5
    >>> slider.words.value[:24]
    '<p>At temperature 0.5 th'
    """

    _name, _end = "Temperature", "In JupyterLab any temperature can be chosen."

    def __init__(self, similarity: Similarity, *, temperature: float = 0.1) -> None:
        self._similarity = similarity
        self.temperature = widgets.FloatLogSlider(
            temperature,
            min=-2,
            max=1,
            step=0.05,
            description="Temperature",
            style=_LABEL,
            layout=_WIDE,
        )
        super().__init__(self.temperature, title="Temperature")

    def _shown(self, value: float) -> tuple[str, None, str]:
        words = temperature_words(self._similarity, value)
        drawn = picture(
            temperature_picture(self._similarity, value),
            alt="Left, the probabilities of all pairs as a heat map; right, each negative's share "
            "of the push as bars. The text above has the numbers.",
        )
        return f"<p>{html.escape(words)}</p>", None, drawn._repr_html_()

    def _stops(self) -> tuple[dict[float, str], float]:
        return {t: f"Temperature {t:g}" for t in TEMPERATURES}, TEMPERATURES[1]
