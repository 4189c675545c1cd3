"""Players for sounds as they are: nothing is normalised behind the listener's back.

What is to be compared is played at one gain. A player holds its sound (16-bit WAV), so a page
with players needs nothing else: two seconds at 8 kHz are 43 kB.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sonibook.audio import SAMPLE_RATE, as_waveform
from sonibook.errors import AudioError
from sonibook.plots.sound import Sound, peak_of

#: Players of a row wrap: narrower than 15rem, one has no room for its time line.
_ROW = "display: flex; flex-wrap: wrap; gap: 0.25rem 1rem;"
_CELL = "min-width: min(15rem, 80vw); max-width: 22rem; margin: 0.25rem 0;"


@dataclass(frozen=True, eq=False)
class Player:
    """One sound with its player, as a 16-bit WAV file; make it with `player`.

    A screen reader calls it by its label, which is shown above it where it stands alone.
    """

    # Not in its repr, which notebooks keep beside the player.
    wav: bytes = field(repr=False)
    label: str
    seconds: float

    @property
    def audio_tag(self) -> str:
        """The bare ``<audio>``, which holds its sound."""
        data = base64.b64encode(self.wav).decode()
        name = html.escape(self.label, quote=True)
        return (
            f'<audio controls preload="metadata" style="width: 100%;" aria-label="{name}" '
            f'src="data:audio/wav;base64,{data}"></audio>'
        )

    @property
    def length(self) -> str:
        """How long a sound is whose player says "0:00", such as " (0.6 s)"; else nothing."""
        return f" ({self.seconds:.2g} s)" if self.seconds < 1 else ""

    def _repr_html_(self) -> str:
        caption = html.escape(self.label + self.length)
        return f"<figure><figcaption>{caption}</figcaption>{self.audio_tag}</figure>"


@dataclass(frozen=True, eq=False)
class Table:
    """Players in rows and columns, all at one gain; make it with `pair` or `table`."""

    rows: dict[str, tuple[Player, ...]] = field(repr=False)
    columns: tuple[str, ...]
    gain: float
    caption: str

    def _repr_html_(self) -> str:
        lines, basis = [], "20rem" if len(self.columns) <= 2 else "15rem"
        for name, players in self.rows.items():
            start = f'<th scope="row">{html.escape(name)}</th>' if name else ""
            figures = ""
            for column, each in zip(self.columns, players, strict=True):
                about = html.escape(column + each.length)
                figures += f'<figure style="flex: 1 1 {basis}; {_CELL}">'
                figures += f"<figcaption>{about}</figcaption>{each.audio_tag}</figure>"
            cell = f'<td style="width: 100%;"><div style="{_ROW}">{figures}</div></td>'
            lines.append(f"<tr>{start}{cell}</tr>")
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f'<table class="players" style="width: 100%;">{caption}{"".join(lines)}</table>'


def player(x: Sound, *, label: str, gain: float = 1.0, sample_rate: int = SAMPLE_RATE) -> Player:
    """A player for a sound.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
    label : str
        What it is; read out by screen readers.
    gain : float
        Factor on the samples before they are rounded to 16 bits.
    sample_rate : int > 0, in Hz

    Returns
    -------
    Player
        Displays itself in a notebook.

    Raises
    ------
    AudioError
        If `x` is not a waveform, or leaves [-1, 1] after the gain (it would be clipped).
    ValueError
        If the label is empty.
    """
    import soundfile

    if not label.strip():
        raise ValueError("A player needs a label: say what is heard.")
    samples = as_waveform(x) * np.float32(gain)
    loudest = float(np.abs(samples).max())
    if not loudest <= 1.0 + 1e-6:
        raise AudioError(
            f"{label}: the sound peaks at {loudest:.3g} after a gain of {gain:.3g} and would "
            "clip: lower the gain, or use pair or table, which choose one."
        )
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1.0, 1.0), sample_rate, "PCM_16", format="WAV")
    return Player(file.getvalue(), label, len(samples) / sample_rate)


def table(
    rows: Mapping[str, Sequence[Sound]],
    *,
    columns: Sequence[str],
    caption: str = "",
    sample_rate: int = SAMPLE_RATE,
) -> Table:
    """Players in rows and columns, at the one gain that brings the loudest of them to 1.

    Parameters
    ----------
    rows : mapping from str to sequence of ndarray or Tensor, shapes (time,)
        Sounds by name of row, one for each column.
    columns : sequence of str
        Names of the columns.
    caption : str
    sample_rate : int > 0, in Hz

    Returns
    -------
    Table
        Displays itself in a notebook.

    Raises
    ------
    ValueError
        If there is no sound, or a row does not have one for each column.
    """
    for name, sounds in rows.items():
        if len(sounds) != len(columns):
            raise ValueError(f"Row {name!r} has {len(sounds)} sounds for {len(columns)} columns.")
    if not rows or not columns:
        raise ValueError("A table of players needs at least one sound.")
    gain = full_scale_gain(*(x for sounds in rows.values() for x in sounds))
    players = {
        name: tuple(
            player(
                x,
                label=": ".join(filter(None, (name, column))) or "Sound",
                gain=gain,
                sample_rate=sample_rate,
            )
            for column, x in zip(columns, sounds, strict=True)
        )
        for name, sounds in rows.items()
    }
    return Table(players, tuple(columns), gain, caption)


def pair(
    x: Sound,
    s: Sound,
    *,
    labels: tuple[str, str] = ("Input", "Sonification"),
    caption: str = "",
    sample_rate: int = SAMPLE_RATE,
) -> Table:
    """Two sounds side by side, at one gain; as `table` with one row.

    Parameters
    ----------
    x, s : ndarray or Tensor, shapes (time,)
    labels : (str, str)
    caption : str
    sample_rate : int > 0, in Hz
    """
    return table({"": (x, s)}, columns=labels, caption=caption, sample_rate=sample_rate)


def full_scale_gain(*sounds: Sound, peak: float = 1.0) -> float:
    """The gain that brings the loudest of some sounds to `peak`; 1 for silence."""
    loudest = peak_of(*sounds)
    return peak / loudest if loudest > 0 else 1.0


def shared_gain(x: Sound) -> float:
    """The gain for an input, its sonifications and their residuals: to half of full scale.

    It depends on the input alone, so that two filters can be compared by ear, and a residual,
    whose peak may be twice the input's, cannot clip: a sonification has the input's peak.

    Examples
    --------
    >>> shared_gain(np.array([0.25, -0.1], np.float32))
    2.0
    """
    return full_scale_gain(x, peak=0.5)
