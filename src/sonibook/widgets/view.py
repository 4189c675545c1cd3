"""What a kernel moves, and what stands on a page without one: a tone, and one network on one clip.

Without a kernel a few stops, computed beforehand, stand in a slider's place, as ``<details>``.
Where the book's script runs (``book/_static/explorer.js``), what has a ``data-slider`` is moved
between its children that have a ``data-stop``.
"""

from __future__ import annotations

import html
import math
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.analysis.sources import si_sdr
from sonibook.audio import SAMPLE_RATE, as_waveform, excerpt, pad, read_audio
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import forward_block
from sonibook.errors import AudioError, SonibookWarning
from sonibook.metrics.similarity import mean_top_coherence
from sonibook.model.encoder import Classifier
from sonibook.model.stack_file import sample_rate_of
from sonibook.plots.basics import alias_figure, alias_of
from sonibook.plots.sound import Sound
from sonibook.plots.style import picture
from sonibook.widgets.players import (
    Player,
    as_flac,
    gain_to,
    player,
    script,
    slider_stop,
    sound_file,
    text_of,
)

try:
    import anywidget
    import ipywidgets as widgets
    import traitlets
except ModuleNotFoundError as error:
    raise ImportError(
        f"Sliders and players in a notebook need {error.name}, which is not installed: "
        "pip install 'sonibook[lab]'."
    ) from None

__all__ = [
    "AliasSlider",
    "Exploration",
    "Listening",
    "Microphone",
    "NetworkView",
    "Sonification",
    "encoder_of",
    "read_upload",
    "sample_rate_for",
    "widgets",
]

#: How wide a slider is, on a phone, too.
WIDE = {"width": "26rem", "max_width": "100%"}
#: What the static form shows, and which of them at first.
FREQUENCIES, _OPENED = (1000, 3000, 5000, 7000), 5000
#: Longer clips are cut to their loudest stretch of this length: maps take memory.
_MOST_SECONDS = 30.0

#: Below two segments coherence is 1 whatever the sounds.
_LEAST_SAMPLES = 384

_Result = TypeVar("_Result")
_TITLES = {"input": "Input", "sonification": "Sonification", "residual": "Input − sonification"}


class Listening(anywidget.AnyWidget):
    """The player of a notebook: what is replaced while it plays goes on in the new sound.

    `titles` say which of the three sounds (FLAC or WAV files, as bytes) are tracks, and their
    names; `about` stands above them, and `rate` is theirs in Hz.
    """

    _esm = script() + text_of("listening.js")

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

    _esm = text_of("recorder.js") + text_of("microphone.js")

    seconds = traitlets.Float(5.0).tag(sync=True)
    samples = traitlets.Bytes().tag(sync=True, from_json=_received)
    rate = traitlets.Int(0).tag(sync=True)
    take = traitlets.Int(0).tag(sync=True)
    trouble = traitlets.Unicode().tag(sync=True)

    @property
    def wav(self) -> bytes:
        """The last recording as a WAV file, at its own rate."""
        samples = np.frombuffer(self.samples, "<f4")
        return sound_file(samples, self.rate, kind="FLOAT", format="WAV")


def read_upload(name: str, content: bytes, sample_rate: int) -> Float[ndarray, " time"]:
    """An uploaded file as a waveform at unit peak; an `AudioError` names it as its owner does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return read_audio(path, sample_rate=sample_rate)
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), name)) from None


class AliasSlider(widgets.VBox):
    """A slider for a tone's frequency; its samples, and the tone that they play.

    A tone that plays goes on where it is when the slider moves. Where there is no kernel, on a
    page, a few frequencies stand in the slider's place.

    Parameters
    ----------
    sample_rate : int > 0, in Hz
        The slider goes up to it.
    frequency : int >= 0, in Hz
        To begin with.

    Examples
    --------
    >>> slider = AliasSlider()
    >>> slider.frequency.value = 5000
    >>> slider.words.value
    '<p>Sampled 8000 times a second, a tone of 5000 Hz comes back as one of 3000 Hz.</p>'
    """

    def __init__(self, *, sample_rate: int = SAMPLE_RATE, frequency: int = 3000) -> None:
        self._sample_rate = sample_rate
        named = {"description": "Tone / Hz", "style": {"description_width": "initial"}}
        self.frequency = widgets.IntSlider(frequency, 0, sample_rate, 100, layout=WIDE, **named)
        self.words, self.image, self.listening = widgets.HTML(), widgets.HTML(), Listening()
        self._update()
        self.frequency.observe(lambda change: self._update(), "value")
        super().__init__([self.frequency, self.words, self.image, self.listening])

    def _update(self) -> None:
        self.words.value, self.image.value = self._shown(self.frequency.value)
        ((title, sound),) = self._heard([self.frequency.value]).tracks.items()
        titles = {"sonification": title}
        self.listening.play(titles=titles, sonification=sound, rate=self._sample_rate)

    def _shown(self, value: int) -> tuple[str, str]:
        """Words and picture, as HTML."""
        rate = self._sample_rate
        lowest = alias_of(value, sample_rate=rate)
        fate = "is kept" if lowest == value else f"comes back as one of {lowest:.0f} Hz"
        words = f"Sampled {rate} times a second, a tone of {value} Hz {fate}."
        drawn = picture(
            alias_figure(value, sample_rate=rate),
            alt=f"Three milliseconds of a tone of {value} Hz, its samples, and the lowest tone "
            f"through them, {lowest:.0f} Hz.",
        )
        return f"<p>{words}</p>", drawn._repr_html_()

    def _heard(self, values: Iterable[int]) -> Player:
        """A player with a track for each frequency."""
        # Half a second, faded in and out so that it does not click.
        time = np.arange(self._sample_rate // 2) / self._sample_rate
        fade = np.minimum(1.0, 50 * np.minimum(time, time[::-1]))
        tones = {f"Samples of {f} Hz": fade * np.cos(2 * np.pi * f * time) for f in values}
        return player(tones, label="", gain=0.5, sample_rate=self._sample_rate, columns=2)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and the static form for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        stops = "".join(
            slider_stop(str(f), f"A tone of {f} Hz", "".join(self._shown(f)), is_open=f == _OPENED)
            for f in FREQUENCIES
        )
        static = (
            '<section class="explorer" aria-label="Aliasing">'
            f'<div data-slider="Frequency in Hz">{stops}</div>'
            f"{self._heard(FREQUENCIES)._repr_html_()}"
            "<p>In JupyterLab any frequency can be chosen.</p></section>"
        )
        return {**bundle, "text/plain": "AliasSlider", "text/html": static}


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
        self.gain, encoder = gain_to(0.5, self.x), encoder_of(network)
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
        return as_flac(x, label=label, gain=self.gain, sample_rate=self.sample_rate)

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
        """Show what the filter of this layer and rank, or of the last, keeps; what to notice."""
        exploration = self.exploration
        layer = min(layer, exploration.layers)
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
        return (*exploration.notices, *made.notices)


def _with_notices(action: Callable[[], _Result]) -> tuple[_Result, tuple[str, ...]]:
    """What `action` returns, and what sonibook warned of; other warnings are raised again."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    notices = []
    for one in caught:
        if issubclass(one.category, SonibookWarning):
            notices.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return result, tuple(notices)
