"""The explorer: choose a clip, a layer and a filter, and hear what that filter keeps.

Chapter: Sonification, step by step.
"""

from __future__ import annotations

import html
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from torch import nn

from sonibook.audio import SAMPLE_RATE, read_audio
from sonibook.datasets.base import Dataset
from sonibook.errors import AudioError, SonibookError
from sonibook.show.excerpts import Sound
from sonibook.show.exploration import Exploration
from sonibook.show.painter import PairPainter
from sonibook.show.panel import panel
from sonibook.show.picture import image_tag
from sonibook.show.players import pair
from sonibook.show.style import VERMILLION
from sonibook.show.words import describe

#: So many clips of a data set can be chosen from.
MOST_CLIPS = 50

#: A notice stands out by its edge, on any ground.
_NOTICE = f"margin: 0.4em 0; padding-left: 0.6em; border-left: 3px solid {VERMILLION};"


class Explorer(widgets.VBox):
    """Sliders for layer and filter, a chooser of clips, a file of your own; sound and picture.

    A clip is passed forward once; moving a slider costs only the way back. Where there is no
    kernel, on a page, it shows its static form instead (`sonibook.show.panel.panel`).

    Parameters
    ----------
    encoder : torch.nn.Module
        As `sonibook.stack.blocks_of` takes it.
    clips : mapping from str to ndarray or Tensor, or Dataset
        Sounds of shape (time,) by name; of a data set, the first fifty clips.
    sample_rate : int > 0, in Hz
        The encoder's.

    Attributes
    ----------
    clip, layer, rank, upload
        The widgets that choose: `Dropdown`, `IntSlider`, `IntSlider` (1 is the filter with the
        most energy), `FileUpload`.
    info, notice, sound, image
        The `HTML` widgets that show.
    sonification : ndarray, shape (time,)
        What is heard now.

    Raises
    ------
    ValueError
        If there is no clip.
    StackError, AudioError
        If the encoder cannot be inverted, or the first clip is no sound.

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
        encoder: nn.Module,
        clips: Mapping[str, Sound] | Dataset,
        *,
        sample_rate: int = SAMPLE_RATE,
    ) -> None:
        self._encoder, self._clips, self._sample_rate = encoder, clips, sample_rate
        self._own: dict[str, Sound] = {}
        if isinstance(clips, Dataset):
            names = [str(index) for index in range(min(len(clips), MOST_CLIPS))]
            options = [(_title(clips, int(name)), name) for name in names]
        else:
            options = [(name, name) for name in clips]
        if not options:
            raise ValueError("There is nothing to explore: give at least one clip.")
        self._quiet = False
        self._load(options[0][1])
        wide = widgets.Layout(width="26rem")
        self.clip = widgets.Dropdown(options=options, description="Clip", layout=wide)
        self.upload = widgets.FileUpload(
            accept=".wav,.flac,.ogg,.mp3", description="Your own file", multiple=False
        )
        self.layer = widgets.IntSlider(
            1, 1, self._exploration.layers, description="Layer", layout=wide
        )
        self.rank = widgets.IntSlider(
            1, 1, len(self._exploration.ranking(1)), description="Filter rank", layout=wide
        )
        self.info, self.notice = widgets.HTML(), widgets.HTML()
        self.sound, self.image = widgets.HTML(), widgets.HTML()
        self._update()
        self.clip.observe(self._on_clip, "value")
        self.upload.observe(self._on_upload, "value")
        self.layer.observe(self._on_layer, "value")
        self.rank.observe(self._on_rank, "value")
        super().__init__(
            [
                widgets.HBox([self.clip, self.upload], layout=widgets.Layout(flex_flow="wrap")),
                widgets.HBox([self.layer, self.rank], layout=widgets.Layout(flex_flow="wrap")),
                self.info,
                self.notice,
                self.sound,
                self.image,
            ]
        )

    @property
    def filter(self) -> int:
        """The filter that is heard now."""
        return self._exploration.ranking(self.layer.value)[self.rank.value - 1].filter

    @property
    def x(self) -> Sound:
        """The clip that is heard now."""
        return self._exploration.x

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and the static form for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        static = panel(
            self._encoder, self.x, name=self._name(self._current), sample_rate=self._sample_rate
        )
        return {**bundle, "text/plain": "Explorer", "text/html": static}

    def _name(self, key: str) -> str:
        if key not in self._own and isinstance(self._clips, Dataset):
            return self._clips[int(key)].clip_id
        return key

    def _load(self, key: str) -> None:
        """Pass a clip forward. Nothing has changed if this fails."""
        if key in self._own:
            x = self._own[key]
        elif isinstance(self._clips, Dataset):
            x = self._clips[int(key)].waveform
        else:
            x = self._clips[key]
        exploration = Exploration(self._encoder, x, sample_rate=self._sample_rate)
        painter = PairPainter(exploration.x, sample_rate=self._sample_rate)
        self._current, self._exploration, self._painter = key, exploration, painter

    def _on_clip(self, change: dict[str, Any]) -> None:
        if self._quiet or change["new"] is None:
            return
        try:
            self._load(change["new"])
        except SonibookError as error:
            self._set(clip=self._current)
            self._say(str(error))
            return
        self._set(rank=1)
        self._update()

    def _on_layer(self, change: dict[str, Any]) -> None:
        if not self._quiet:
            self._set(rank=1)
            self._update()

    def _on_rank(self, change: dict[str, Any]) -> None:
        if not self._quiet:
            self._update()

    def _on_upload(self, change: dict[str, Any]) -> None:
        if not change["new"]:
            return
        file = change["new"][0]
        name = Path(str(file["name"]).replace("\\", "/")).name or "upload"
        try:
            x = _read(name, bytes(file["content"]), self._sample_rate)
        except AudioError as error:
            self._say(str(error))
            return
        key = f"your file: {name}"
        self._own[key] = x
        options = [option for option in self.clip.options if option[1] != key]
        self._quiet = True
        try:
            self.clip.options = [*options, (key, key)]
        finally:
            self._quiet = False
        self._load(key)
        self._set(clip=key, rank=1)
        self._update()

    def _set(self, *, clip: str | None = None, rank: int | None = None) -> None:
        """Move widgets without answering to their moving; the ranks follow the layer."""
        self._quiet = True
        try:
            if clip is not None:
                self.clip.value = clip
            if rank is not None:
                self.rank.value = 1
                self.rank.max = len(self._exploration.ranking(self.layer.value))
                self.rank.value = rank
        finally:
            self._quiet = False

    def _update(self) -> None:
        """Go the way back, and show what came of it."""
        layer, rank = self.layer.value, self.rank.value
        self.sonification, notices = self._exploration.sonify(layer, self.filter)
        text = self._exploration.rank_text(layer, rank)
        self.info.value = f'<p style="margin: 0.4em 0;">{html.escape(text)}</p>'
        self._say(*self._exploration.notices, *notices)
        sounds = pair(
            self.x,
            self.sonification,
            labels=("Input", f"Sonification of layer {layer}, filter {self.filter}"),
            sample_rate=self._sample_rate,
        )
        self.sound.value = sounds._repr_html_()
        alt = (
            "Log spectrograms side by side. Input: "
            f"{describe(self.x, sample_rate=self._sample_rate)}. Sonification: "
            f"{describe(self.sonification, sample_rate=self._sample_rate)}."
        )
        self.image.value = image_tag(self._painter.paint(self.sonification), alt)

    def _say(self, *sentences: str) -> None:
        lines = "".join(
            f'<p style="{_NOTICE}">{html.escape(sentence)}</p>' for sentence in sentences
        )
        self.notice.value = f'<div role="status">{lines}</div>'


def _title(clips: Dataset, index: int) -> str:
    """A clip's number and classes, read without its sound where that can be."""
    names = ", ".join(clips.classes[label] for label in clips.labels(index))
    return f"{index}: {names}" if names else str(index)


def _read(name: str, content: bytes, sample_rate: int) -> Sound:
    """An uploaded file as a waveform; an error names it as its owner does.

    Raises
    ------
    AudioError
        As `sonibook.read_audio`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return read_audio(path, sample_rate=sample_rate)
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), name)) from None
