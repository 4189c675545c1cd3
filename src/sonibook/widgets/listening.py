"""Input, sonification and residual, to be switched between while they play: a widget.

The browser's part is ``listening.js``. Starting one sound takes over from the one that plays, at
the same place, so that the ear compares the sounds and not its memory of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sonibook.audio import SAMPLE_RATE, as_waveform
from sonibook.plots.sound import Sound, peak_of
from sonibook.widgets.kernel import anywidget, traitlets
from sonibook.widgets.players import player

#: What is subtracted from the input may double its peak, hence half of full scale for all three.
HEADROOM = 0.5


def shared_gain(x: Sound) -> float:
    """The gain for an input, its sonifications and their residuals.

    It depends on the input alone, so that two filters can be compared by ear, and the residual
    cannot clip: a sonification is scaled to the input's peak.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)

    Returns
    -------
    float
        What brings the input's peak to half of full scale; 1 for silence.

    Examples
    --------
    >>> import numpy as np
    >>> shared_gain(np.array([0.25, -0.1], np.float32))
    2.0
    """
    peak = peak_of(x)
    return HEADROOM / peak if peak > 0 else 1.0


class Listening(anywidget.AnyWidget):
    """Three players at one gain, A/B, and a loop.

    Attributes
    ----------
    input, sonification, residual : bytes
        The sounds as WAV files. The browser is sent what changed only.
    about : str
        What the sonification is of, for screen readers.
    """

    _esm = Path(__file__).with_name("listening.js")

    input = traitlets.Bytes().tag(sync=True)
    sonification = traitlets.Bytes().tag(sync=True)
    residual = traitlets.Bytes().tag(sync=True)
    about = traitlets.Unicode().tag(sync=True)

    def play(self, x: Sound, s: Sound, *, about: str, sample_rate: int = SAMPLE_RATE) -> None:
        """Offer an input, a sonification of it, and the one less the other.

        Parameters
        ----------
        x, s : ndarray or Tensor, shapes (time,)
        about : str
            Such as "layer 4, filter 17".
        sample_rate : int > 0, in Hz

        Raises
        ------
        AudioError
            If one of the two is no waveform, or `s` peaks above `x`.
        """
        gain = shared_gain(x)
        sounds = {"input": x, "sonification": s, "residual": as_waveform(x) - as_waveform(s)}
        wavs: dict[str, Any] = {
            name: player(sound, label=name, gain=gain, sample_rate=sample_rate).wav
            for name, sound in sounds.items()
        }
        with self.hold_sync():
            self.set_trait("about", about)
            for name, wav in wavs.items():
                self.set_trait(name, wav)
