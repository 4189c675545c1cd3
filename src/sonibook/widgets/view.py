"""What a kernel moves, and what stands on a page without one: a tone, and one network on one clip.

Without a kernel a few stops, computed beforehand, stand in a slider's place, as ``<details>``.
Where the book's script runs (``book/_static/explorer.js``), what has a ``data-slider`` is moved
between its children that have a ``data-stop``.
"""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.analysis.sources import si_sdr
from sonibook.audio import SAMPLE_RATE, excerpt, pad
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import forward_block
from sonibook.errors import SonibookWarning
from sonibook.metrics.similarity import mean_top_coherence
from sonibook.model.encoder import Classifier
from sonibook.plots.basics import alias_figure, alias_of
from sonibook.plots.sound import Sound, peak_of
from sonibook.plots.style import Picture
from sonibook.widgets.players import Player, player, script, slider_stop, sound_file, text_of

try:
    import anywidget
    import ipywidgets as widgets
    import traitlets
except ModuleNotFoundError as error:
    raise ImportError(
        f"Sliders and players in a notebook need {error.name}, which is not installed: "
        "pip install 'sonibook[lab]'."
    ) from None

__all__ = ["AliasSlider", "widgets"]

#: How wide a slider is, on a phone, too.
WIDE = {"width": "26rem", "max_width": "100%"}
#: What the static form shows, and which of them at first.
_FREQUENCIES, _OPENED = (1000, 3000, 5000, 7000), 5000
#: Longer clips are cut to their loudest stretch of this length: maps take memory.
_MOST_SECONDS = 30.0

#: Below two segments coherence is 1 whatever the sounds.
_LEAST_SAMPLES = 384

#: Names of what is heard.
TITLES = {"input": "Input", "sonification": "Sonification", "residual": "Input − sonification"}


class _Listening(anywidget.AnyWidget):
    """The player of a notebook: what is replaced while it plays goes on in the new sound.

    `titles` say which of the three sounds (FLAC or WAV files, as bytes) are tracks, and their
    names; `about` stands above them, and `rate` is theirs in Hz.
    """

    _esm = script() + text_of("listening.js")

    titles = traitlets.Dict(TITLES).tag(sync=True)
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


class Microphone(anywidget.AnyWidget):
    """A button; once it was pressed, a recording of what the microphone hears, unprocessed.

    A browser lends its microphone to pages from this machine or over https only; elsewhere the
    button says so, and `trouble` why there is no recording. `samples` are float32, little-endian,
    at the device's own `rate`; `take` counts the recordings: observe this.
    """

    _esm = text_of("recorder.js") + text_of("microphone.js")

    seconds = traitlets.Float(5.0).tag(sync=True)
    samples = traitlets.Bytes().tag(sync=True, from_json=lambda value, _: bytes(value))
    rate = traitlets.Int(0).tag(sync=True)
    take = traitlets.Int(0).tag(sync=True)
    trouble = traitlets.Unicode().tag(sync=True)

    @property
    def wav(self) -> bytes:
        """The last recording as a WAV file, at its own rate."""
        samples = np.frombuffer(self.samples, "<f4")
        return sound_file(samples, self.rate, kind="FLOAT", format="WAV")


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
        self.words, self.image, self.listening = widgets.HTML(), widgets.HTML(), _Listening()
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
        drawn = Picture(
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
            for f in _FREQUENCIES
        )
        static = (
            '<section class="explorer" aria-label="Aliasing">'
            f'<div data-slider="Frequency in Hz">{stops}</div>'
            f"{self._heard(_FREQUENCIES)._repr_html_()}"
            "<p>In JupyterLab any frequency can be chosen.</p></section>"
        )
        return {**bundle, "text/plain": "AliasSlider", "text/html": static}


class _Sonification(NamedTuple):
    """What one filter keeps of a clip, and in words how much of the clip that is.

    `sounds` are it and what it leaves as files, at the gain of the clip.
    """

    layer: int
    filter: int
    waveform: Float[ndarray, " time"]
    sounds: dict[str, bytes]
    words: str
    notices: list[str]


class Exploration:
    """One clip, its loudest 30 s if it is longer, passed forward once; and its sonifications."""

    def __init__(self, network: nn.Module, x: Sound, *, sample_rate: int) -> None:
        self.x = excerpt(x, seconds=_MOST_SECONDS, sample_rate=sample_rate)
        self.network, self.sample_rate = network, sample_rate
        self.encoder = network.encoder if isinstance(network, Classifier) else network
        # One for all, so that filters can be compared; a residual may have twice the input's peak.
        self.gain = 0.5 / (peak_of(self.x) or 0.5)
        self.input = self._file(self.x)
        with _noticed() as self.notices:
            self._forward = ForwardPass(self.encoder, self.x)
        self.layers = len(self._forward.blocks)
        if len(self.x) < len(x):
            cut = f"The clip is longer than {_MOST_SECONDS:g} s: its loudest stretch is taken."
            self.notices.insert(0, cut)
        self._ranking: dict[int, dict[int, float]] = {}

    def _file(self, x: Float[ndarray, " time"]) -> bytes:
        return sound_file(np.clip(x * np.float32(self.gain), -1.0, 1.0), self.sample_rate)

    def ranking(self, layer: int) -> dict[int, float]:
        """Each filter's share of its layer's energy, from 0 to 1, most first."""
        if layer not in self._ranking:
            energy = self._forward.energy(layer)[0].double()
            shares = energy / (energy.sum().item() or 1.0)
            order = energy.argsort(descending=True, stable=True).tolist()
            self._ranking[layer] = dict(zip(order, shares[order].tolist(), strict=True))
        return self._ranking[layer]

    def sonify(self, layer: int, rank: int) -> _Sonification:
        """What the filter of this layer and rank (from 1), or of the last, keeps of the clip."""
        layer = min(layer, self.layers)
        ranking = self.ranking(layer)
        rank = min(rank, len(ranking))
        index, share = [*ranking.items()][rank - 1]
        with _noticed() as notices:
            result = self._forward.sonify(layer, [index])
        sound, x = result[0].float().cpu(), torch.from_numpy(self.x)
        words = f"Layer {layer}, rank {rank} of {len(ranking)}: filter {index}"
        if share > 0:
            words += f", {share:.1%} of the layer's energy."
        else:
            silent = [*ranking.values()].count(0)
            words += f", silent on this clip (as {silent} of the layer's filters are)."
        coherence = mean_top_coherence(x, sound) if len(x) >= _LEAST_SAMPLES else math.nan
        ratio = float(si_sdr(sound, x))
        if not math.isnan(coherence) and not math.isnan(ratio):
            words += f" Coherence with the input {coherence:.2f}, SI-SDR {ratio:.1f} dB."
        sounds = {"sonification": sound.numpy(), "residual": (x - sound).numpy()}
        files = {name: self._file(one) for name, one in sounds.items()}
        return _Sonification(layer, index, sound.numpy(), files, words, notices)

    def says(self, made: _Sonification) -> str:
        """What a classifier hears in the clip and in a sonification, and without its filter."""
        if not isinstance(self.network, Classifier):
            return ""
        encoder, forward = self.network.encoder, self._forward
        sound = torch.from_numpy(pad(made.waveform, encoder.least_length)).to(forward.x)
        maps = forward.maps[made.layer - 1].clone()
        maps[:, made.filter] = 0
        with torch.inference_mode():
            for block in forward.blocks[made.layer :]:
                maps, _, _ = forward_block(block, maps)
            means = [each.mean(dim=2) for each in (forward.maps[-1], maps)]
            pooled = torch.cat([means[0], encoder.pooled(sound[None, None]), means[1]])
            best = self.network.head(encoder.fc1(pooled)).softmax(dim=1).max(dim=1)
        names = (self.network.classes[n].replace("_", " ") for n in best.indices)
        clip, kept, left = (
            f"{name} ({share:.0%})" for name, share in zip(names, best.values, strict=True)
        )
        return f"The network hears {clip}, in the sonification {kept}, without the filter {left}."


class NetworkView(widgets.VBox):
    """A network, one clip after another passed forward by it once; a part of the explorer."""

    exploration: Exploration  # of the clip that was taken last, and has the key
    sonification: _Sonification  # what is shown

    def __init__(self, name: str, network: nn.Module) -> None:
        self.name, self.network = name, network
        self.key: str | None = None
        self.info, self.listening = widgets.HTML(), _Listening()
        super().__init__([self.info, self.listening])
        self.add_class("sonibook-view")

    def show(self, layer: int, rank: int, *, named: bool) -> list[str]:
        """Show what the filter of this layer and rank, or of the last, keeps; what to notice."""
        exploration = self.exploration
        made = self.sonification = exploration.sonify(layer, rank)
        about = f"layer {made.layer}, filter {made.filter}"
        text = f"{made.words} {exploration.says(made)}".strip()
        self.listening.play(
            about=f"{self.name}, {about}" if named else about,
            rate=exploration.sample_rate,
            input=exploration.input,
            **made.sounds,
        )
        name = f"<strong>{html.escape(self.name)}</strong>: " if named else ""
        self.info.value = f'<p style="margin: 0.4em 0;">{name}{html.escape(text)}</p>'
        return exploration.notices + made.notices


@contextmanager
def _noticed() -> Iterator[list[str]]:
    """What sonibook warns of meanwhile; other warnings are raised again."""
    notices = list[str]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notices
    for one in caught:
        if issubclass(one.category, SonibookWarning):
            notices.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
