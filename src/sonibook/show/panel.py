"""The explorer on a page without a kernel: a few layers and filters, computed beforehand.

Plain HTML: what opens and closes is the browser's own ``<details>``, which the keyboard works.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from torch import nn

from sonibook.audio import SAMPLE_RATE
from sonibook.show.excerpts import Sound, excerpt, peak_of
from sonibook.show.exploration import Exploration
from sonibook.show.painter import thumbnail
from sonibook.show.picture import image_tag
from sonibook.show.players import player
from sonibook.show.plots import power_spectrogram
from sonibook.show.words import describe


def panel(
    network: nn.Module,
    x: Sound,
    *,
    name: str,
    layers: Sequence[int] | None = None,
    top: int = 3,
    seconds: float = 1.25,
    sample_rate: int = SAMPLE_RATE,
) -> str:
    """A static form of the explorer as HTML that needs nothing else.

    Parameters
    ----------
    network : torch.nn.Module
        As `sonibook.stack.blocks_of` takes it.
    x : ndarray or Tensor, shape (time,)
        The clip; its loudest `seconds` are taken.
    name : str
        What the clip is called.
    layers : sequence of int, or None
        None takes four, from the first to the last.
    top : int > 0
        How many filters of each layer, most energy first.
    seconds : float > 0
    sample_rate : int > 0, in Hz

    Returns
    -------
    str

    Raises
    ------
    LayerError
        If there is no such layer.
    AudioError
        If `x` is no waveform.
    """
    exploration = Exploration(
        network, excerpt(x, seconds=seconds, sample_rate=sample_rate), sample_rate=sample_rate
    )
    short = exploration.x
    peak = peak_of(short)
    gain = 1.0 / peak if peak > 0 else 1.0
    reference = float(power_spectrogram(short).max()) or None
    if layers is None:
        last = exploration.layers
        layers = sorted({round(number) for number in np.linspace(1, last, min(last, 4))})

    def item(sound: Sound, title: str) -> str:
        said = describe(sound, sample_rate=sample_rate)
        words = f"Log spectrogram, 0 to {sample_rate / 2000:g} kHz. {title} {said}."
        heard = player(sound, label=title.rstrip(".:"), gain=gain, sample_rate=sample_rate)
        return (
            '<figure style="margin: 0.5rem 0; max-width: 22rem;">'
            f"{image_tag(thumbnail(sound, reference=reference), words, width='100%')}"
            f"{heard.audio_tag}<figcaption>{html.escape(title.rstrip(':'))}</figcaption></figure>"
        )

    parts = [item(short, f"Input ({name}):")]
    for number, layer in enumerate(layers):
        figures = []
        for rank, ranked in enumerate(exploration.ranking(layer)[:top], start=1):
            sound, _ = exploration.sonify(layer, ranked.filter)
            figures.append(item(sound, exploration.rank_text(layer, rank)))
        is_open = " open" if number == 0 else ""
        parts.append(
            f"<details{is_open}><summary>Layer {layer}: the {len(figures)} filters with the most "
            'energy</summary><div style="display: grid; gap: 1rem; '
            'grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr));">'
            f"{''.join(figures)}</div></details>"
        )
    notices = "".join(f"<p>{html.escape(notice)}</p>" for notice in exploration.notices)
    return (
        f'<section class="explorer" aria-label="Explorer">{notices}{"".join(parts)}'
        "<p>All players have one gain. In JupyterLab this is an instrument: it takes any clip, "
        "layer and filter, and your own file.</p></section>"
    )
