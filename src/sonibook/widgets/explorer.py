"""The explorer: choose a clip, a layer and a filter, and hear what that filter keeps."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.analysis.activations import ActivationsResult, top_activations
from sonibook.audio import as_waveform, excerpt, read_audio
from sonibook.datasets import at_rate
from sonibook.datasets.base import Clip, Dataset
from sonibook.errors import AudioError, SonibookError
from sonibook.model.checkpoint import shipped
from sonibook.model.stack_file import sample_rate_of
from sonibook.plots.sound import Sound
from sonibook.plots.style import VERMILLION
from sonibook.widgets.players import Player, audio_figure, slider_stop
from sonibook.widgets.view import TITLES, WIDE, Exploration, Microphone, NetworkView, widgets

#: So many clips of a data set can be chosen from, and so many top clips are shown of a filter.
_MOST_CLIPS, _TOP_CLIPS = 50, 3

#: A notice stands out by its edge, on any ground.
_NOTICE = f"margin: 0.4em 0; padding-left: 0.6em; border-left: 3px solid {VERMILLION};"


class _Choices(Dataset):
    """Sounds to choose from, each with a key and a title; themselves a data set to analyse."""

    name, classes, split, task = "explorer", (), "all", "multi-label"

    def __init__(self, clips: Mapping[str, Sound] | Dataset, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        #: Titles and keys, in order; and by key, how a sound is read.
        self.options: list[tuple[str, str]] = []
        self._clips: dict[str, Callable[[], Clip]] = {}
        if isinstance(clips, Dataset):
            data = at_rate(clips, sample_rate)
            for index in range(min(len(clips), _MOST_CLIPS)):
                # Its number and classes, read without its sound where that can be.
                classes = ", ".join(clips.classes[label] for label in clips.labels(index))
                self.options.append((f"{index}: {classes}" if classes else str(index), str(index)))
                self._clips[str(index)] = partial(data.__getitem__, index)
        else:
            for name, x in clips.items():
                self.add(name, x)
        if not self._clips:
            raise ValueError("There is nothing to explore: give at least one clip.")

    def add(self, key: str, x: Sound) -> None:
        """Offer another sound, last; in place of one of that key."""
        self.options = [*(one for one in self.options if one[1] != key), (key, key)]
        self._clips[key] = lambda: Clip(as_waveform(x), (), key)

    def clip(self, key: str) -> Clip:
        """A sound by its key, with its id in its data set; `AudioError` if it cannot be read."""
        return self._clips[key]()

    def __len__(self) -> int:
        return len(self.options)

    def __getitem__(self, index: int) -> Clip:
        _, key = self.options[range(len(self))[index]]
        return replace(self.clip(key), labels=(), clip_id=key)


class Explorer(widgets.VBox):
    """Sliders for layer and filter, networks, clips, your own sounds; what is kept and left.

    A clip is passed forward once a network; moving a slider costs only a backward pass. Where there
    is no kernel, on a page, it shows its static form instead.

    Parameters
    ----------
    networks : torch.nn.Module, or mapping from str to torch.nn.Module
        As `sonibook.model.stack.blocks_of` takes them, or a `Classifier`, which also says what it
        hears; several by name, the first is shown first.
    clips : mapping from str to ndarray or Tensor, or Dataset
        Sounds of shape (time,) by name, at the networks' rate; of a data set, its first fifty,
        read at that rate.
    sample_rate : int > 0, in Hz, or None
        At which sounds are heard, drawn and read. None for the networks' own: their attribute
        `sample_rate`, as networks from a file have it, or 8000.

    Attributes
    ----------
    network, beside, clip, upload, microphone, layer, rank, find, top
        Its controls, as widgets; rank 1 is the filter with the most energy.
    views : dict from str to NetworkView
        What is shown of each network.
    notice
        The `HTML` widget that says what a listener should know.

    Raises
    ------
    ValueError
        If there is no network or no clip, or the networks' rates differ.
    DatasetError
        If a data set cannot be read at the networks' rate.
    StackError, AudioError
        If an encoder cannot be inverted, or the first clip is not a sound.

    Examples
    --------
    >>> import numpy as np
    >>> from sonibook import CNN12
    >>> tone = np.sin(np.arange(8000, dtype=np.float32) * 0.3)
    >>> explorer = Explorer(CNN12(width=0.25, seed=0), {"a tone": tone})
    >>> explorer.layer.value = 4
    >>> explorer.sonification.shape
    (8000,)
    """

    def __init__(
        self,
        networks: nn.Module | Mapping[str, nn.Module],
        clips: Mapping[str, Sound] | Dataset,
        *,
        sample_rate: int | None = None,
    ) -> None:
        named = {"network": networks} if isinstance(networks, nn.Module) else dict(networks)
        if not named:
            raise ValueError("There is nothing to explore: give at least one network.")
        rates = {name: sample_rate_of(network) for name, network in named.items()}
        if sample_rate is None and len(set(rates.values())) > 1:
            each = ", ".join(f"{name} {rate:,} Hz" for name, rate in rates.items())
            raise ValueError(
                f"The networks take sounds at different rates ({each}): explore those of one rate."
            )
        self._sample_rate = sample_rate or next(iter(rates.values()))
        self._choices = _Choices(clips, self._sample_rate)
        self.views = {name: NetworkView(name, network) for name, network in named.items()}
        self._found: dict[str, ActivationsResult] = {}
        self._moving = False
        several = {"display": None if len(named) > 1 else "none"}
        shape = {"layout": several, "style": {"button_width": "auto"}}
        self.network = widgets.ToggleButtons(options=[*named], description="Network", **shape)
        told = {"description": "all of them, one below the other", "indent": False}
        self.beside = widgets.Checkbox(False, layout={**several, "width": "auto"}, **told)
        options = self._choices.options
        self.clip = widgets.Dropdown(options=options, description="Clip", layout=WIDE)
        self.upload = widgets.FileUpload(accept=".wav,.flac,.ogg,.mp3", description="Your own file")
        self.microphone = Microphone()
        self.layer = widgets.IntSlider(1, 1, description="Layer", layout=WIDE)
        self.rank = widgets.IntSlider(1, 1, description="Filter rank", layout=WIDE)
        short, hidden = {"width": "auto"}, {"width": "auto", "display": "none"}
        self.find = widgets.Button(description="Which clips excite it most?", layout=short)
        self.top = tuple(widgets.Button(layout=hidden) for _ in range(_TOP_CLIPS))
        self.notice, self._below = widgets.HTML(), widgets.VBox()
        self._take(self.clip.value)
        self._show(rank=1)
        for control in (self.network, self.beside, self.clip, self.layer, self.rank):
            control.observe(self._on_move, "value")
        self.upload.observe(self._on_upload, "value")
        self.microphone.observe(self._on_take, "take")
        self.microphone.observe(self._on_trouble, "trouble")
        self.find.on_click(lambda _: self._on_find())
        for button in self.top:
            button.on_click(lambda button: self._go(button.clip, filter=self.filter))
        lines = (
            [self.network, self.beside],
            [self.clip, self.upload, self.microphone],
            [self.layer, self.rank],
            [self.find, *self.top],
        )
        wrap = widgets.Layout(flex_flow="wrap", align_items="center")
        boxes = [widgets.HBox(line, layout=wrap) for line in lines]
        super().__init__([*boxes, self.notice, self._below])

    @property
    def view(self) -> NetworkView:
        """What is shown of the network whose filters are ranked."""
        return self.views[self.network.value]

    @property
    def filter(self) -> int:
        """The filter that is heard now."""
        return self.view.sonification.filter

    @property
    def x(self) -> Float[ndarray, " time"]:
        """The clip that is heard now."""
        return self.view.exploration.x

    @property
    def sonification(self) -> Float[ndarray, " time"]:
        """What is heard of it now."""
        return self.view.sonification.waveform

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and the static form for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        return {**bundle, "text/plain": "Explorer", "text/html": self._static()}

    def _static(self) -> str:
        """The explorer as HTML that needs nothing else, for the loudest second of the clip."""
        several, rate = len(self.views) > 1, self._sample_rate
        depth, top = (3, 2) if several else (4, 3)  # so many layers, and filters of each
        short = excerpt(self.x, seconds=1.0, sample_rate=rate)
        parts, notices = [], dict[str, None]()
        if len(short) < len(self.x):
            notices["On this page, only the loudest second is taken of the clip."] = None
        for number, (title, view) in enumerate(self.views.items()):
            exploration = Exploration(view.network, short, sample_rate=rate)
            notices |= dict.fromkeys(exploration.notices)
            body, known = _layers(exploration, depth, top), title in shipped()
            if several:
                summary = f"Network: {title}"
                body = slider_stop(title, summary, body, is_open=number == 0, lab=known)
            elif known:
                body = f'<div data-lab="{html.escape(title, quote=True)}">{body}</div>'
            parts.append(body)
        tracks = {TITLES["input"]: exploration.input}
        name = self._choices.clip(self._current).clip_id
        heard = Player(tracks, name, rate, exploration.gain, columns=3)
        content = "".join(parts)
        content = f'<div data-slider="Network">{content}</div>' if several else content
        told = "".join(f"<p>{html.escape(notice)}</p>" for notice in notices)
        return (
            f'<section class="explorer" aria-label="Explorer">{told}'
            f"{heard._repr_html_()}{content}"
            "<p>All sounds have one gain. In JupyterLab this is an instrument: it takes any clip, "
            "layer and filter, and your own sounds.</p></section>"
        )

    def _take(self, key: str) -> None:
        """Pass a clip forward, through all networks that are shown. Nothing changes on failure."""
        x = None
        for view in self._shown():
            if view.key != key:
                x = self._choices.clip(key).waveform if x is None else x
                view.exploration = Exploration(view.network, x, sample_rate=self._sample_rate)
                view.key = key
        self._current = key

    def _shown(self) -> list[NetworkView]:
        others = [view for view in self.views.values() if view is not self.view]
        return [self.view, *(others if self.beside.value else [])]

    def _show(self, *, rank: int) -> None:
        """Show a filter of every network that is shown; the sliders' ends follow the network."""
        exploration, views, notices = self.view.exploration, self._shown(), dict[str, None]()
        self.layer.max = exploration.layers
        self.rank.max = len(exploration.ranking(self.layer.value))
        self.rank.value = rank
        self._below.children = views
        for view in views:
            told = view.show(self.layer.value, self.rank.value, named=len(self.views) > 1)
            notices |= dict.fromkeys(told)
        self._say(*notices)
        self._offer_top()

    def _go(self, key: str, *, rank: int = 1, filter: int | None = None) -> None:
        """To a clip, and there to a filter by its rank or its number; it stays if that fails."""
        self._moving = True  # and answers to no widget that it moves itself
        try:
            self._take(key)
            if filter is not None:
                rank = [*self.view.exploration.ranking(self.layer.value)].index(filter) + 1
            self._show(rank=rank)
        except SonibookError as error:
            self._say(str(error))
        finally:
            self.clip.options = self._choices.options
            self.clip.value = self._current
            self._moving = False

    def _on_move(self, change: dict[str, Any]) -> None:
        """Another network, clip, layer or filter; of another clip or layer the loudest filter."""
        if not self._moving:
            first = change["owner"] in (self.clip, self.layer)
            self._go(self.clip.value, rank=1 if first else self.rank.value)

    def _on_upload(self, change: dict[str, Any]) -> None:
        if change["new"]:
            file = change["new"][0]
            name = Path(str(file["name"]).replace("\\", "/")).name or "upload"
            self._add(f"your file: {name}", name, bytes(file["content"]))

    def _on_take(self, change: dict[str, Any]) -> None:
        self._add(f"recording {change['new']}", "recording.wav", self.microphone.wav)

    def _on_trouble(self, change: dict[str, Any]) -> None:
        if change["new"]:
            self._say(change["new"])

    def _add(self, key: str, name: str, content: bytes) -> None:
        """Offer a sound of the reader's own, from a file's content, at unit peak; and go there."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                x = read_audio(path, sample_rate=self._sample_rate)
            except AudioError as error:
                self._say(str(error).replace(str(path), name))  # as its owner calls it
                return
        self._choices.add(key, x)
        self._found.clear()
        for view in self.views.values():
            view.key = None if view.key == key else view.key
        self._go(key)

    def _on_find(self) -> None:
        """Pass every clip through the networks that are shown, once."""
        self.find.disabled, description = True, self.find.description
        self.find.description = f"Passing {len(self._choices)} clips forward …"
        try:
            for view in self._shown():
                networks = {view.name: view.exploration.encoder}
                self._found[view.name] = top_activations(networks, self._choices, k=_TOP_CLIPS)
        except SonibookError as error:
            self._say(str(error))
        finally:
            self.find.disabled, self.find.description = False, description
        self._offer_top()

    def _offer_top(self) -> None:
        """Offer the filter's top clips, where they were found; none if it is dead."""
        name = self.network.value
        found = self._found.get(name)
        self.find.layout.display = "none" if found else None
        top = found.of_layer(name, self.layer.value)[self.filter].top if found else ()
        for number, (button, clip) in enumerate(zip_longest(self.top, top), start=1):
            button.layout.display = "none" if clip is None else None
            if clip is not None:
                title, button.clip = self._choices.options[clip.index]
                button.description = f"top clip {number}: {title}"

    def _say(self, *sentences: str) -> None:
        lines = "".join(f'<p style="{_NOTICE}">{html.escape(each)}</p>' for each in sentences)
        self.notice.value = f'<div role="status">{lines}</div>'


def _layers(exploration: Exploration, depth: int, top: int) -> str:
    """Some layers from the first to the last, and the filters of each with the most energy."""
    spread = np.linspace(1, exploration.layers, min(exploration.layers, depth))
    parts = []
    for number, layer in enumerate(dict.fromkeys(round(each) for each in spread)):
        filters = []
        for rank in range(1, min(top, len(exploration.ranking(layer))) + 1):
            made = exploration.sonify(layer, rank)
            figures = (audio_figure(TITLES[name], sound) for name, sound in made.sounds.items())
            filters.append(
                f'<div data-stop="{rank}" data-filter="{made.filter}">'
                f"<p>{html.escape(made.words)}</p>{''.join(figures)}</div>"
            )
        summary = f"Layer {layer}: the {len(filters)} filters with the most energy"
        body = f'<div data-slider="Filter rank">{"".join(filters)}</div>'
        parts.append(slider_stop(str(layer), summary, body, is_open=number == 0))
    return f'<div data-slider="Layer">{"".join(parts)}</div>'
