"""What moves, on a page without a kernel: a few stops of it, computed beforehand.

Plain HTML that opens and closes with the browser's own ``<details>``. Where the book's script runs
(``book/_static/explorer.js``), it puts sliders in their place: whatever has a ``data-slider`` is
moved between its children that have a ``data-stop``, and the one player of the whole follows.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from sonibook.audio import as_waveform, excerpt
from sonibook.model.checkpoint import shipped
from sonibook.plots.sound import Sound
from sonibook.widgets.players import Player, as_flac, audio_figure, shared_gain
from sonibook.widgets.view import Exploration, sample_rate_for


def static_slider(
    stops: Mapping[str, tuple[str, str]],
    *,
    name: str,
    title: str,
    opened: str,
    heard: Player | None = None,
    end: str = "",
) -> str:
    """The static form of a slider: by value, what a stop is called and the HTML that it shows.

    `name` is what the slider moves, `title` names the whole for screen readers, `opened` is the
    stop that is open at first, `heard` has a track for each stop, `end` is a sentence below.
    """
    parts = [
        _stop(value, summary, shown, is_open=value == opened)
        for value, (summary, shown) in stops.items()
    ]
    below = heard._repr_html_() if heard else ""
    below += f"<p>{html.escape(end)}</p>" if end else ""
    return (
        f'<section class="explorer" aria-label="{html.escape(title, quote=True)}">'
        f'<div data-slider="{name}">{"".join(parts)}</div>{below}</section>'
    )


def static_explorer(
    networks: nn.Module | Mapping[str, nn.Module],
    x: Sound,
    *,
    name: str,
    layers: Sequence[int] | None = None,
    top: int | None = None,
    seconds: float = 1.0,
    sample_rate: int | None = None,
) -> str:
    """The static form of the explorer, as HTML that needs nothing else, for a clip called `name`.

    The clip's loudest `seconds` are taken, and the page says so. Of one network, four `layers` are
    shown, from the first to the last, and the `top` three filters of each, most energy first; of
    several networks, three layers and two filters of each. The default rate is the networks' own.
    """
    named = {"": networks} if isinstance(networks, nn.Module) else dict(networks)
    sample_rate = sample_rate_for(named, sample_rate)
    several = len(named) > 1
    top = top or (2 if several else 3)
    short = excerpt(x, seconds=seconds, sample_rate=sample_rate)
    gain = shared_gain(short)
    parts, notices = [], dict[str, None]()
    if len(short) < len(as_waveform(x)):
        stretch = "second is" if seconds == 1 else f"{seconds:g} s are"
        notices[f"On this page, only the loudest {stretch} taken of the clip."] = None
    for number, (title, network) in enumerate(named.items()):
        exploration = Exploration(network, short, sample_rate=sample_rate)
        notices |= dict.fromkeys(exploration.notices)
        count = min(exploration.layers, 3 if several else 4)
        spread = {round(layer) for layer in np.linspace(1, exploration.layers, count)}
        body = _layers(exploration, layers or sorted(spread), top, gain)
        if several:
            summary = f"Network: {title}"
            body = _stop(title, summary, body, is_open=number == 0, lab=title in shipped())
        elif title in shipped():
            body = f'<div data-lab="{html.escape(title, quote=True)}">{body}</div>'
        parts.append(body)
    content = "".join(parts)
    if several:
        content = f'<div data-slider="Network">{content}</div>'
    told = "".join(f"<p>{html.escape(notice)}</p>" for notice in notices)
    heard = Player({"Input": _file(short, gain, sample_rate)}, name, sample_rate, gain, columns=3)
    return (
        f'<section class="explorer" aria-label="Explorer">{told}'
        f"{heard._repr_html_()}{content}"
        "<p>All sounds have one gain. In JupyterLab this is an instrument: it takes any clip, "
        "layer and filter, and your own sounds.</p></section>"
    )


def _file(x: Sound, gain: float, sample_rate: int) -> bytes:
    return as_flac(x, label="A sound of the explorer", gain=gain, sample_rate=sample_rate)


def _layers(exploration: Exploration, layers: Sequence[int], top: int, gain: float) -> str:
    parts = []
    for number, layer in enumerate(layers):
        filters = []
        for rank, (index, _) in enumerate(exploration.ranking(layer)[:top], start=1):
            made = exploration.sonify(layer, index)
            title = f"{exploration.rank_text(layer, rank)} {made.measures}".strip()
            tracks = {"Sonification": made.waveform, "Input − sonification": made.residual}
            figures = "".join(
                audio_figure(name, _file(x, gain, exploration.sample_rate))
                for name, x in tracks.items()
            )
            filters.append(
                f'<div data-stop="{rank}" data-filter="{index}">'
                f"<p>{html.escape(title)}</p>{figures}</div>"
            )
        summary = f"Layer {layer}: the {len(filters)} filters with the most energy"
        body = f'<div data-slider="Filter rank">{"".join(filters)}</div>'
        parts.append(_stop(str(layer), summary, body, is_open=number == 0))
    return f'<div data-slider="Layer">{"".join(parts)}</div>'


def _stop(value: str, summary: str, shown: str, *, is_open: bool, lab: bool = False) -> str:
    """One value of a slider; with `lab`, it is what a link into the lab asks for."""
    quoted = html.escape(value, quote=True)
    known = f' data-lab="{quoted}"' if lab else ""
    return (
        f'<details data-stop="{quoted}"{known}{" open" if is_open else ""}>'
        f"<summary>{html.escape(summary)}</summary>{shown}</details>"
    )
