"""One network on one clip: its filters by energy, and what each keeps, to see and to hear.

On a page without a kernel a few stops stand in the sliders' place, computed beforehand: plain HTML
that opens and closes with the browser's own ``<details>``. Where the book's script runs
(``book/_static/explorer.js``), it puts sliders in their place: whatever has a ``data-slider`` is
moved between its children that have a ``data-stop``, and the one player of the whole follows.
"""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
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
from sonibook.widgets.players import Player, as_flac, audio_figure, shared_gain, slider_stop

#: Longer clips are cut to their loudest stretch of this length: maps take memory.
_MOST_SECONDS = 30.0

#: Below two segments coherence is 1 whatever the sounds.
_LEAST_SAMPLES = 384

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Sonification:
    """What one filter keeps of a clip, what it leaves, and how much of the clip is in it.

    Coherence (mean of the five most coherent frequencies) and SI-SDR in dB are with the clip; NaN
    where one of the two is silent, or shorter than two segments.
    """

    layer: int
    filter: int
    waveform: Float[ndarray, " time"]
    residual: Float[ndarray, " time"]
    coherence: float
    si_sdr: float
    notices: tuple[str, ...]

    @property
    def measures(self) -> str:
        """How much of the clip is in the sonification, in words; empty for silence."""
        if math.isnan(self.coherence) or math.isnan(self.si_sdr):
            return ""
        return f"Coherence with the input {self.coherence:.2f}, SI-SDR {self.si_sdr:.1f} dB."


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
    """One clip, passed forward once, and any of its sonifications.

    `x` is the clip, cut to its loudest 30 s if it is longer; `notices` say that it was cut or
    padded. Raises `StackError` and `AudioError` as `ForwardPass` does. A `Classifier` also says
    what it hears.
    """

    def __init__(self, network: nn.Module, x: Sound, *, sample_rate: int) -> None:
        whole = as_waveform(x)
        self.x = excerpt(whole, seconds=_MOST_SECONDS, sample_rate=sample_rate)
        self.sample_rate = sample_rate
        self._classifier = network if isinstance(network, Classifier) else None
        encoder = encoder_of(network)
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

    def sonify(self, layer: int, index: int) -> Sonification:
        """The sonification of one filter, scaled to the clip's peak."""
        result, notices = _with_notices(lambda: self._forward.sonify(layer, [index]))
        sound, x = result[0].float().cpu(), torch.from_numpy(self.x)
        long_enough = len(x) >= _LEAST_SAMPLES
        return Sonification(
            layer,
            index,
            waveform=sound.numpy(),
            residual=(x - sound).numpy(),
            coherence=float(mean_top_coherence(x, sound)) if long_enough else math.nan,
            si_sdr=float(si_sdr(sound, x)),
            notices=notices,
        )

    def says(self, made: Sonification) -> str:
        """What a classifier hears in the clip and in a sonification, and without its filter.

        Percentages are of a softmax, for classes of which each clip has one.
        """
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

    def rank_text(self, layer: int, rank: int) -> str:
        """Which filter has this rank (from 1) in its layer, in words."""
        ranking = self.ranking(layer)
        index, share = ranking[rank - 1]
        text = f"Layer {layer}, rank {rank} of {len(ranking)}: filter {index}"
        if share > 0:
            return f"{text}, {share:.1%} of the layer's energy."
        silent = sum(each.share == 0 for each in ranking)
        return f"{text}, silent on this clip (as {silent} of the layer's filters are)."


def encoder_of(network: nn.Module) -> nn.Module:
    """A network without its classes: what is sonified."""
    return network.encoder if isinstance(network, Classifier) else network


class NetworkView(widgets.VBox):
    """A network on one clip after another, each passed forward once; a part of the explorer.

    `key` is that of the clip that was taken last, `exploration` of that clip; `sonification` is
    what `info` and `listening` show.
    """

    exploration: Exploration
    sonification: Sonification

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
        self._gain = shared_gain(exploration.x)
        self._input_file = self._file("input", exploration.x)

    def show(self, layer: int, rank: int, *, named: bool) -> tuple[str, ...]:
        """Show what the filter of this rank keeps; returns what a listener should know.

        A rank past the last takes the last. `named` says which network this is.
        """
        ranking = self.exploration.ranking(layer)
        rank = min(rank, len(ranking))
        made = self.exploration.sonify(layer, ranking[rank - 1].filter)
        text = f"{self.exploration.rank_text(layer, rank)} {made.measures}".strip()
        name = f"<strong>{html.escape(self.name)}</strong>: " if named else ""
        about = f"layer {layer}, filter {made.filter}"
        self.listening.play(
            about=f"{self.name}, {about}" if named else about,
            rate=self.sample_rate,
            input=self._input_file,
            sonification=self._file("sonification", made.waveform),
            residual=self._file("residual", made.residual),
        )
        text = f"{text} {self.exploration.says(made)}".strip()
        self.info.value = f'<p style="margin: 0.4em 0;">{name}{html.escape(text)}</p>'
        self.sonification = made
        return made.notices

    def _file(self, label: str, x: Sound) -> bytes:
        return as_flac(x, label=label, gain=self._gain, sample_rate=self.sample_rate)


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
            body = slider_stop(title, summary, body, is_open=number == 0, lab=title in shipped())
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
        parts.append(slider_stop(str(layer), summary, body, is_open=number == 0))
    return f'<div data-slider="Layer">{"".join(parts)}</div>'
