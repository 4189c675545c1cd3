"""The explorer on a page without a kernel: a few layers and filters, computed beforehand.

Plain HTML that opens and closes with the browser's own ``<details>``. Where the book's script runs
(``book/_static/explorer.js``), it puts sliders in their place: whatever has a ``data-slider`` is
moved between its children that have a ``data-stop``.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from sonibook.audio import SAMPLE_RATE, excerpt
from sonibook.model.checkpoint import shipped
from sonibook.plots.sound import Sound, describe, power_spectrogram, thumbnail
from sonibook.plots.style import image_tag
from sonibook.widgets.exploration import Exploration
from sonibook.widgets.listening import shared_gain
from sonibook.widgets.players import player
from sonibook.widgets.stops import one_stop

_GRID = (
    "display: grid; gap: 0.5rem 1rem; grid-template-columns: repeat(auto-fit, minmax(12rem, 20rem))"
)


def panel(
    networks: nn.Module | Mapping[str, nn.Module],
    x: Sound,
    *,
    name: str,
    layers: Sequence[int] | None = None,
    top: int | None = None,
    seconds: float = 1.0,
    sample_rate: int = SAMPLE_RATE,
) -> str:
    """A static form of the explorer as HTML that needs nothing else.

    Parameters
    ----------
    networks : torch.nn.Module, or mapping from str to torch.nn.Module
        As `sonibook.model.stack.blocks_of` takes them; several by name.
    x : ndarray or Tensor, shape (time,)
        The clip; its loudest `seconds` are taken.
    name : str
        What the clip is called.
    layers : sequence of int, or None
        None takes four, or three of each of several networks, from the first to the last.
    top : int > 0, or None
        How many filters of each layer, most energy first; None takes three, or two of each of
        several networks.
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
    named = {"": networks} if isinstance(networks, nn.Module) else dict(networks)
    several = len(named) > 1
    top = top or (2 if several else 3)
    short = excerpt(x, seconds=seconds, sample_rate=sample_rate)
    draw = _Drawing(short, sample_rate)
    parts, notices = [], dict[str, None]()
    for number, (title, network) in enumerate(named.items()):
        exploration = Exploration(network, short, sample_rate=sample_rate)
        notices |= dict.fromkeys(exploration.notices)
        chosen = layers or _spread(exploration.layers, 3 if several else 4)
        body = _layers(exploration, chosen, top, draw)
        if several:
            summary = f"Network: {title}"
            body = one_stop(title, summary, body, is_open=number == 0, lab=title in shipped())
        elif title in shipped():
            body = f'<div data-lab="{html.escape(title, quote=True)}">{body}</div>'
        parts.append(body)
    content = "".join(parts)
    if several:
        content = f'<div data-slider="Network">{content}</div>'
    told = "".join(f"<p>{html.escape(notice)}</p>" for notice in notices)
    return (
        f'<section class="explorer" aria-label="Explorer">{told}'
        f'<div style="{_GRID};">{draw(short, "input", f"Input ({name}):")}</div>{content}'
        "<p>All players have one gain. In JupyterLab this is an instrument: it takes any clip, "
        "layer and filter, and your own sounds.</p></section>"
    )


class _Drawing:
    """Sounds as figures: a picture, a player and what they are of, all on the input's scales."""

    def __init__(self, x: Sound, sample_rate: int) -> None:
        self.gain, self.sample_rate = shared_gain(x), sample_rate
        self.reference = float(power_spectrogram(x).max()) or None

    def __call__(self, sound: Sound, kind: str, title: str) -> str:
        said = describe(sound, sample_rate=self.sample_rate)
        words = f"Log spectrogram, 0 to {self.sample_rate / 2000:g} kHz. {title} {said}."
        label = title.rstrip(".:")
        heard = player(sound, label=label, gain=self.gain, sample_rate=self.sample_rate)
        picture = image_tag(
            thumbnail(power_spectrogram(sound), reference=self.reference),
            words,
            width="100%",
            kind="webp",
        )
        return (
            f'<figure data-sound="{kind}" style="margin: 0.5rem 0;">{picture}{heard.audio_tag}'
            f"<figcaption>{html.escape(title.rstrip(':'))}</figcaption></figure>"
        )


def _spread(last: int, count: int) -> list[int]:
    """So many layers, evenly from the first to the last."""
    return sorted({round(number) for number in np.linspace(1, last, min(last, count))})


def _layers(exploration: Exploration, layers: Sequence[int], top: int, draw: _Drawing) -> str:
    parts = []
    for number, layer in enumerate(layers):
        filters = []
        for rank, ranked in enumerate(exploration.ranking(layer)[:top], start=1):
            heard = exploration.hear(layer, ranked.filter)
            title = f"{exploration.rank_text(layer, rank)} {heard.measures}".strip()
            rest = f"Input − sonification of layer {layer}, filter {ranked.filter}."
            filters.append(
                f'<div data-stop="{rank}" data-filter="{ranked.filter}" style="{_GRID};">'
                f"{draw(heard.sonification, 'sonification', title)}"
                f"{draw(heard.residual, 'residual', rest)}</div>"
            )
        summary = f"Layer {layer}: the {len(filters)} filters with the most energy"
        body = f'<div data-slider="Filter rank">{"".join(filters)}</div>'
        parts.append(one_stop(str(layer), summary, body, is_open=number == 0))
    return f'<div data-slider="Layer">{"".join(parts)}</div>'
