"""Sound between the browser and Python: players that take over, the microphone, uploads.

The browser's parts are the player's, ``microphone.js`` and ``recorder.js``, which the lab in the
page has, too. Other modules take ipywidgets from here, where one sentence says how to get it.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sonibook.audio import SAMPLE_RATE, read_audio
from sonibook.errors import AudioError
from sonibook.widgets.players import script

try:
    import anywidget
    import ipywidgets as widgets
    import traitlets
except ModuleNotFoundError as error:
    raise ImportError(
        f"Sliders and players in a notebook need {error.name}, which is not installed: "
        "pip install 'sonibook[lab]'."
    ) from None

__all__ = ["Listening", "Microphone", "read_upload", "widgets"]

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
