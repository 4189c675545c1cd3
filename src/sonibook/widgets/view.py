"""One network on one clip: its filters by energy, and what each keeps, to see and to hear.

On a page without a kernel a few stops stand in the sliders' place, computed beforehand, as
``<details>``. Where the book's script runs (``book/_static/explorer.js``), what has a
``data-slider`` is moved between its children that have a ``data-stop``.
"""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.analysis.sources import si_sdr
from sonibook.audio import as_waveform, excerpt, pad
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import forward_block
from sonibook.errors import SonibookWarning
from sonibook.metrics.similarity import mean_top_coherence
from sonibook.model.checkpoint import shipped
from sonibook.model.encoder import Classifier
from sonibook.model.stack_file import sample_rate_of
from sonibook.plots.sound import Sound
from sonibook.widgets.audio import Listening, widgets
from sonibook.widgets.players import Player, as_flac, audio_figure, gain_to, slider_stop

#: Longer clips are cut to their loudest stretch of this length: maps take memory.
_MOST_SECONDS = 30.0

#: Below two segments coherence is 1 whatever the sounds.
_LEAST_SAMPLES = 384

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Sonification:
    """What one filter keeps of a clip, what it leaves, and in words how much of the clip it is."""

    layer: int
    filter: int
    waveform: Float[ndarray, " time"]
    residual: Float[ndarray, " time"]
    words: str
    notices: tuple[str, ...]


def sample_rate_for(networks: Mapping[str, nn.Module], sample_rate: int | None) -> int:
    """The rate in Hz, if it is given, else the networks' own; `ValueError` if they have several."""
    rates = {name: sample_rate_of(network) for name, network in networks.items()}
    if sample_rate is None and len(set(rates.values())) > 1:
        each = ", ".join(f"{name} {rate:,} Hz" for name, rate in rates.items())
        raise ValueError(
            f"The networks take sounds at different rates ({each}): explore those of one rate."
        )
    return next(iter(rates.values())) if sample_rate is None else sample_rate


class _Ranked(NamedTuple):
    """A filter of a layer, and its share of the layer's energy along the clip, from 0 to 1."""

    filter: int
    share: float


class Exploration:
    """One clip, its loudest 30 s if it is longer, passed forward once; and its sonifications."""

    def __init__(self, network: nn.Module, x: Sound, *, sample_rate: int) -> None:
        whole = as_waveform(x)
        self.x = excerpt(whole, seconds=_MOST_SECONDS, sample_rate=sample_rate)
        self.sample_rate = sample_rate
        self._classifier = network if isinstance(network, Classifier) else None
        # One for all, so that filters can be compared; a residual may have twice the input's peak.
        self._gain, encoder = gain_to(0.5, self.x), encoder_of(network)
        self._forward, self.notices = _with_notices(lambda: ForwardPass(encoder, self.x))
        if len(self.x) < len(whole):
            cut = f"The clip is longer than {_MOST_SECONDS:g} s: its loudest stretch is taken."
            self.notices = (cut, *self.notices)
        self._ranking: dict[int, tuple[_Ranked, ...]] = {}

    @property
    def layers(self) -> int:
        """How many layers the network has."""
        return len(self._forward.blocks)

    def ranking(self, layer: int) -> tuple[_Ranked, ...]:
        """All filters of a layer, most energy first; silent ones are last."""
        if layer not in self._ranking:
            energy = self._forward.energy(layer)[0].double()
            total = float(energy.sum())
            shares = (energy / total if total > 0 else energy).tolist()
            order = energy.argsort(descending=True, stable=True).tolist()
            self._ranking[layer] = tuple(_Ranked(index, shares[index]) for index in order)
        return self._ranking[layer]

    def sonify(self, layer: int, rank: int) -> Sonification:
        """What the filter of this rank (from 1) in its layer keeps, scaled to the clip's peak."""
        ranking = self.ranking(layer)
        index, share = ranking[rank - 1]
        result, notices = _with_notices(lambda: self._forward.sonify(layer, [index]))
        sound, x = result[0].float().cpu(), torch.from_numpy(self.x)
        words = f"Layer {layer}, rank {rank} of {len(ranking)}: filter {index}"
        if share > 0:
            words += f", {share:.1%} of the layer's energy."
        else:
            silent = sum(each.share == 0 for each in ranking)
            words += f", silent on this clip (as {silent} of the layer's filters are)."
        coherence = mean_top_coherence(x, sound) if len(x) >= _LEAST_SAMPLES else math.nan
        ratio = float(si_sdr(sound, x))
        if not math.isnan(coherence) and not math.isnan(ratio):
            words += f" Coherence with the input {coherence:.2f}, SI-SDR {ratio:.1f} dB."
        return Sonification(layer, index, sound.numpy(), (x - sound).numpy(), words, notices)

    def flac(self, x: Float[ndarray, " time"]) -> bytes:
        """The clip, a sonification or a residual as a file; all have one gain."""
        label = "A sound of the explorer"
        return as_flac(x, label=label, gain=self._gain, sample_rate=self.sample_rate)

    def player(self, label: str) -> Player:
        """A player of the clip."""
        return Player({"Input": self.flac(self.x)}, label, self.sample_rate, self._gain, columns=3)

    def says(self, made: Sonification) -> str:
        """What a classifier hears in the clip and in a sonification, and without its filter."""
        if self._classifier is None:
            return ""
        encoder, forward = self._classifier.encoder, self._forward
        sound = torch.from_numpy(pad(made.waveform, encoder.least_length)).to(forward.x)
        maps = forward.maps[made.layer - 1].clone()
        maps[:, made.filter] = 0
        with torch.inference_mode():
            for block in forward.blocks[made.layer :]:
                maps, _, _ = forward_block(block, maps)
            means = [each.mean(dim=2) for each in (forward.maps[-1], maps)]
            pooled = torch.cat([means[0], encoder.pooled(sound[None, None]), means[1]])
            best = self._classifier.head(encoder.fc1(pooled)).softmax(dim=1).max(dim=1)
        names = (self._classifier.classes[n].replace("_", " ") for n in best.indices)
        clip, kept, left = (
            f"{name} ({share:.0%})" for name, share in zip(names, best.values, strict=True)
        )
        return f"The network hears {clip}, in the sonification {kept}, without the filter {left}."

    def rank_of(self, layer: int, index: int) -> int:
        """The rank of a filter in its layer, from 1."""
        return [each.filter for each in self.ranking(layer)].index(index) + 1


def encoder_of(network: nn.Module) -> nn.Module:
    """A network without its classes: what is sonified."""
    return network.encoder if isinstance(network, Classifier) else network


class NetworkView(widgets.VBox):
    """A network on one clip after another, each passed forward once; a part of the explorer."""

    exploration: Exploration  # of the clip that was taken last, and has the key
    sonification: Sonification  # what is shown

    def __init__(self, name: str, network: nn.Module, *, sample_rate: int) -> None:
        self.name, self.network, self.sample_rate = name, network, sample_rate
        self.key: str | None = None
        self.info, self.listening = widgets.HTML(), Listening()
        super().__init__([self.info, self.listening])
        self.add_class("sonibook-view")

    def take(self, key: str, x: Sound) -> None:
        """Pass a clip forward. Nothing has changed if this fails."""
        exploration = Exploration(self.network, x, sample_rate=self.sample_rate)
        self.key, self.exploration = key, exploration
        self._input = exploration.flac(exploration.x)

    def show(self, layer: int, rank: int, *, named: bool) -> tuple[str, ...]:
        """Show what the filter of this rank, or of the last one, keeps; what is to be noticed."""
        exploration = self.exploration
        made = exploration.sonify(layer, min(rank, len(exploration.ranking(layer))))
        name = f"<strong>{html.escape(self.name)}</strong>: " if named else ""
        about = f"layer {layer}, filter {made.filter}"
        self.listening.play(
            about=f"{self.name}, {about}" if named else about,
            rate=self.sample_rate,
            input=self._input,
            sonification=exploration.flac(made.waveform),
            residual=exploration.flac(made.residual),
        )
        text = f"{made.words} {exploration.says(made)}".strip()
        self.info.value = f'<p style="margin: 0.4em 0;">{name}{html.escape(text)}</p>'
        self.sonification = made
        return made.notices


def _with_notices(action: Callable[[], _Result]) -> tuple[_Result, tuple[str, ...]]:
    """What `action` returns, and what sonibook warned of; other warnings are raised again."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    notices = []
    for warning in caught:
        if issubclass(warning.category, SonibookWarning):
            notices.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return result, tuple(notices)


def static_explorer(
    networks: Mapping[str, nn.Module], x: Sound, *, name: str, sample_rate: int
) -> str:
    """The explorer as HTML that needs nothing else, for the loudest second of the clip `name`."""
    several = len(networks) > 1
    depth, top = (3, 2) if several else (4, 3)  # so many layers, and filters of each
    short = excerpt(x, seconds=1.0, sample_rate=sample_rate)
    parts, notices = [], dict[str, None]()
    if len(short) < len(as_waveform(x)):
        notices["On this page, only the loudest second is taken of the clip."] = None
    for number, (title, network) in enumerate(networks.items()):
        exploration = Exploration(network, short, sample_rate=sample_rate)
        notices |= dict.fromkeys(exploration.notices)
        body = _layers(exploration, depth, top)
        if several:
            summary = f"Network: {title}"
            body = slider_stop(title, summary, body, is_open=number == 0, lab=title in shipped())
        elif title in shipped():
            body = f'<div data-lab="{html.escape(title, quote=True)}">{body}</div>'
        parts.append(body)
    content = "".join(parts)
    if several:
        content = f'<div data-slider="Network">{content}</div>'
    told = "".join(f"<p>{html.escape(notice)}</p>" for notice in notices)
    return (
        f'<section class="explorer" aria-label="Explorer">{told}'
        f"{exploration.player(name)._repr_html_()}{content}"
        "<p>All sounds have one gain. In JupyterLab this is an instrument: it takes any clip, "
        "layer and filter, and your own sounds.</p></section>"
    )


def _layers(exploration: Exploration, depth: int, top: int) -> str:
    """Some layers from the first to the last, and the filters of each with the most energy."""
    spread = np.linspace(1, exploration.layers, min(exploration.layers, depth))
    parts = []
    for number, layer in enumerate(dict.fromkeys(round(each) for each in spread)):
        filters = []
        for rank in range(1, min(top, len(exploration.ranking(layer))) + 1):
            made = exploration.sonify(layer, rank)
            tracks = {"Sonification": made.waveform, "Input − sonification": made.residual}
            figures = (audio_figure(name, exploration.flac(x)) for name, x in tracks.items())
            filters.append(
                f'<div data-stop="{rank}" data-filter="{made.filter}">'
                f"<p>{html.escape(made.words)}</p>{''.join(figures)}</div>"
            )
        summary = f"Layer {layer}: the {len(filters)} filters with the most energy"
        body = f'<div data-slider="Filter rank">{"".join(filters)}</div>'
        parts.append(slider_stop(str(layer), summary, body, is_open=number == 0))
    return f'<div data-slider="Layer">{"".join(parts)}</div>'
