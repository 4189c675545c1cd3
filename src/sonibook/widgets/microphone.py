"""The browser's microphone: a button that records five seconds, and hands them to Python.

The browser's part is ``microphone.js``. It records what the microphone hears: no echo
cancellation, no noise suppression, no automatic gain.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from sonibook.widgets.kernel import anywidget, traitlets


def _received(value: memoryview, widget: Any) -> bytes:
    """What a browser sends as bytes, as bytes."""
    return bytes(value)


class Microphone(anywidget.AnyWidget):
    """A button; once it was pressed, a recording.

    A browser lends its microphone to pages from this machine or over https only; elsewhere the
    button says so.

    Attributes
    ----------
    seconds : float > 0
        How long it records.
    samples : bytes
        The last recording, float32 in the byte order of the browser's machine (little-endian).
    rate : int, in Hz
        Of the recording: the sound device's own.
    take : int
        How many recordings were made: observe this.
    trouble : str
        Why there is none; empty where all is well.
    """

    _esm = Path(__file__).with_name("microphone.js")

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
