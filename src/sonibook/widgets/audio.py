"""Sound between the browser and Python: players that take over, a tone on a slider, the microphone.

Other modules take ipywidgets from here, where one sentence says how to get it.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sonibook.audio import SAMPLE_RATE, read_audio
from sonibook.errors import AudioError
from sonibook.plots.basics import alias_figure, alias_of
from sonibook.plots.style import picture
from sonibook.widgets.players import Player, player, script, slider_stop

try:
    import anywidget
    import ipywidgets as widgets
    import traitlets
except ModuleNotFoundError as error:
    raise ImportError(
        f"Sliders and players in a notebook need {error.name}, which is not installed: "
        "pip install 'sonibook[lab]'."
    ) from None

__all__ = ["AliasSlider", "Listening", "Microphone", "read_upload", "widgets"]

_TITLES = {
    "input": "Input",
    "sonification": "Sonification",
    "residual": "Input − sonification",
}


class Listening(anywidget.AnyWidget):
    """The player of a notebook: what is replaced while it plays goes on in the new sound.

    `titles` say which of the three sounds (FLAC or WAV files, as bytes) are tracks, and their
    names; `about` stands above them, and `rate` is theirs in Hz.
    """

    _esm = script() + Path(__file__).with_name("listening.js").read_text(encoding="utf-8")

    titles = traitlets.Dict(_TITLES).tag(sync=True)
    input = traitlets.Bytes().tag(sync=True)
    sonification = traitlets.Bytes().tag(sync=True)
    residual = traitlets.Bytes().tag(sync=True)
    about = traitlets.Unicode().tag(sync=True)
    rate = traitlets.Int(SAMPLE_RATE).tag(sync=True)

    def play(self, **state: str | bytes | int | dict[str, str]) -> None:
        """Set some of the attributes together."""
        with self.hold_sync():
            for name, value in state.items():
                self.set_trait(name, value)


def _received(value: memoryview, widget: Any) -> bytes:
    """What a browser sends as bytes, as bytes."""
    return bytes(value)


class Microphone(anywidget.AnyWidget):
    """A button; once it was pressed, a recording of what the microphone hears, unprocessed.

    A browser lends its microphone to pages from this machine or over https only; elsewhere the
    button says so, and `trouble` why there is no recording. `samples` are float32, little-endian,
    at the device's own `rate`; `take` counts the recordings: observe this.
    """

    _esm = "".join(
        Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("recorder.js", "microphone.js")
    )

    seconds = traitlets.Float(5.0).tag(sync=True)
    samples = traitlets.Bytes().tag(sync=True, from_json=_received)
    rate = traitlets.Int(0).tag(sync=True)
    take = traitlets.Int(0).tag(sync=True)
    trouble = traitlets.Unicode().tag(sync=True)

    @property
    def wav(self) -> bytes:
        """The last recording as a WAV file, at its own rate."""
        import soundfile

        file = io.BytesIO()
        soundfile.write(file, np.frombuffer(self.samples, "<f4"), self.rate, "FLOAT", format="WAV")
        return file.getvalue()


def read_upload(name: str, content: bytes, sample_rate: int) -> Float[ndarray, " time"]:
    """An uploaded file as a waveform at unit peak; an `AudioError` names it as its owner does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return read_audio(path, sample_rate=sample_rate)
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), name)) from None


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
