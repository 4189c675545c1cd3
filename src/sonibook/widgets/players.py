"""The player: sounds as they are, to see and to hear; nothing is normalised behind one's back.

What is to be compared is played at one gain. A player holds its sounds (16-bit FLAC: two seconds
at 8 kHz are 15 to 43 kB) and the script that plays and draws them: a page without a kernel, opened
from disk, is enough. Without a script it is a list of ``<audio>``.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy import ndarray

from sonibook.audio import SAMPLE_RATE, as_waveform
from sonibook.errors import AudioError
from sonibook.plots.sound import Sound, peak_of
from sonibook.plots.style import LEVELS

#: The player's modules, each after those it imports from.
_MODULES = ("sound.js", "pictures.js", "tracks.js", "player.js")


@dataclass(frozen=True, eq=False)
class Player:
    """Sounds as tracks of one player, each a FLAC file; make it with `player`, `pair` or `table`.

    The gain is the factor that the samples were multiplied by.
    """

    # Not in its repr, which notebooks keep beside the player.
    tracks: dict[str, bytes] = field(repr=False)
    label: str
    sample_rate: int
    gain: float
    columns: int

    @property
    def element(self) -> str:
        """The ``<sonibook-player>`` without the script, which a page needs once."""
        tracks = "".join(audio_figure(name, sound) for name, sound in self.tracks.items())
        return (
            f'<sonibook-player label="{html.escape(self.label)}" columns="{self.columns}" '
            f'rate="{self.sample_rate}">{tracks}</sonibook-player>'
        )

    def _repr_html_(self) -> str:
        return f"{self.element}<script>{script()}</script>"


def player(
    sounds: Sound | Mapping[str, Sound],
    *,
    label: str,
    gain: float | None = None,
    sample_rate: int = SAMPLE_RATE,
    columns: int = 3,
) -> Player:
    """A player with a spectrogram and a waveform for each sound, which switches between them.

    Space plays, the arrow keys and a click on a picture seek, the keys 1 to 9 go on in another
    track at the same place, L loops.

    Parameters
    ----------
    sounds : ndarray or Tensor, shape (time,), or mapping from str to such
        One sound, called by the label, or several by name.
    label : str
        What is heard; may be empty where there are several.
    gain : float or None
        Factor on the samples before they are rounded to 16 bits. None leaves one sound as it is,
        and brings the loudest of several to 1.
    sample_rate : int > 0, in Hz
    columns : int > 0
        So many tracks are side by side at most.

    Raises
    ------
    AudioError
        If a sound is not a waveform, or leaves [-1, 1] after the gain (it would be clipped).
    ValueError
        If there is no sound, or one has no name.

    Examples
    --------
    >>> x = np.sin(np.arange(8000) / 10)
    >>> list(player({"Whole": x, "Half as loud": 0.5 * x}, label="A tone").tracks)
    ['Whole', 'Half as loud']
    """
    named = dict(sounds) if isinstance(sounds, Mapping) else {label: sounds}
    if not named:
        raise ValueError("A player needs at least one sound.")
    if not all(name.strip() for name in named):
        raise ValueError("A player needs a label for each sound: say what is heard.")
    if gain is None:
        gain = 1 / (peak_of(*named.values()) or 1.0) if isinstance(sounds, Mapping) else 1.0
    files = {}
    for name, x in named.items():
        samples = as_waveform(x) * np.float32(gain)
        loudest = float(np.abs(samples).max())
        if not loudest <= 1.0 + 1e-6:
            raise AudioError(
                f"{name}: the sound peaks at {loudest:.3g} after a gain of {gain:.3g} and would "
                "clip: lower the gain, or leave it out, and several sounds get one that fits."
            )
        files[name] = sound_file(np.clip(samples, -1.0, 1.0), sample_rate)
    return Player(files, label, sample_rate, gain, columns)


def table(
    rows: Mapping[str, Sequence[Sound]],
    *,
    columns: Sequence[str],
    caption: str = "",
    sample_rate: int = SAMPLE_RATE,
) -> Player:
    """A player of sounds in rows and columns, at the one gain that brings the loudest to 1.

    Parameters
    ----------
    rows : mapping from str to sequence of ndarray or Tensor, shapes (time,)
        Sounds by name of row, one for each column; `ValueError` if there are not as many.
    columns : sequence of str
        Names of the columns; of a single one, it names the tracks only where its row has no name.
    caption : str
    sample_rate : int > 0, in Hz
    """
    for name, sounds in rows.items():
        if len(sounds) != len(columns):
            raise ValueError(f"Row {name!r} has {len(sounds)} sounds for {len(columns)} columns.")
    tracks = {
        (name if name and len(columns) == 1 else ": ".join(filter(None, (name, column)))): x
        for name, sounds in rows.items()
        for column, x in zip(columns, sounds, strict=True)
    }
    across = len(columns) if len(columns) > 1 else 3
    return player(tracks, label=caption, sample_rate=sample_rate, columns=across)


def pair(
    x: Sound,
    s: Sound,
    *,
    labels: tuple[str, str] = ("Input", "Sonification"),
    caption: str = "",
    sample_rate: int = SAMPLE_RATE,
) -> Player:
    """A player of two sounds, shapes (time,), at one gain; as `table` with one row."""
    return table({"": (x, s)}, columns=labels, caption=caption, sample_rate=sample_rate)


def sound_file(
    samples: ndarray, rate: int, *, kind: str = "PCM_16", format: str = "FLAC", **options: Any
) -> bytes:
    """Samples as a file, by default of 16-bit FLAC."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, kind, format=format, **options)
    return file.getvalue()


def audio_figure(name: str, sound: bytes) -> str:
    """A track in HTML, from a FLAC file: the player takes it, and without a script it plays."""
    data, name = base64.b64encode(sound).decode(), html.escape(name)
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f'<audio controls preload="none" aria-label="{name}" src="data:audio/flac;base64,{data}">'
        "</audio></figure>"
    )


def slider_stop(value: str, summary: str, shown: str, *, is_open: bool, lab: bool = False) -> str:
    """One value of a slider; with `lab`, it is what a link into the lab asks for."""
    quoted = html.escape(value, quote=True)
    known = f' data-lab="{quoted}"' if lab else ""
    return (
        f'<details data-stop="{quoted}"{known}{" open" if is_open else ""}>'
        f"<summary>{html.escape(summary)}</summary>{shown}</details>"
    )


@functools.cache
def script() -> str:
    """The script that makes ``<sonibook-player>`` of a page what it is; twice does no harm."""
    colours = mpl.colormaps[LEVELS](np.arange(256), bytes=True).tobytes()
    constants = {
        "MAGMA": base64.b64encode(colours).decode(),
        "STYLE": text_of("player.css"),
    }
    return joined(_MODULES, constants)


def text_of(name: str | Path) -> str:
    """The text of a file, by its path from here."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def joined(
    modules: Iterable[str | Path], constants: Mapping[str, str] | None = None, end: str = ""
) -> str:
    """JavaScript modules, each after those it imports from, as one classic script.

    `constants` are text that the modules use, by name; `end` is a last line, which sees all.
    """
    parts = ['(() => {\n"use strict";']
    parts += [f"const {name} = {json.dumps(value)};" for name, value in (constants or {}).items()]
    for path in modules:
        source = re.sub(r"^import [^;]*;\n", "", text_of(path), flags=re.M)
        source = re.sub(r"^ */\*\*.*?\*/\n", "", source, flags=re.M | re.S)
        parts.append(re.sub(r"^export |^ +", "", source, flags=re.M))
    return "\n".join([*parts, end, "})();\n"])
