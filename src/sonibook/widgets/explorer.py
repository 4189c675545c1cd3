"""The explorer: choose a clip, a layer and a filter, and hear what that filter keeps.

Chapter: Sonification, step by step.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.base import Dataset
from sonibook.errors import AudioError, SonibookError
from sonibook.plots.sound import Sound
from sonibook.plots.style import VERMILLION
from sonibook.widgets.choices import Choices
from sonibook.widgets.kernel import widgets
from sonibook.widgets.microphone import Microphone
from sonibook.widgets.panel import panel
from sonibook.widgets.row import Row
from sonibook.widgets.top_clips import TopClips
from sonibook.widgets.uploads import read_upload

#: A notice stands out by its edge, on any ground.
_NOTICE = f"margin: 0.4em 0; padding-left: 0.6em; border-left: 3px solid {VERMILLION};"
_WIDE = widgets.Layout(width="26rem", max_width="100%")
_WRAP = widgets.Layout(flex_flow="wrap", align_items="center")


class Explorer(widgets.VBox):
    """Sliders for layer and filter, networks, clips, your own sounds; what is kept and left.

    A clip is passed forward once a network; moving a slider costs only the way back. Where there
    is no kernel, on a page, it shows its static form instead (`sonibook.widgets.panel.panel`).

    Parameters
    ----------
    networks : torch.nn.Module, or mapping from str to torch.nn.Module
        As `sonibook.model.stack.blocks_of` takes them; several by name, the first is shown first.
    clips : mapping from str to ndarray or Tensor, or Dataset
        Sounds of shape (time,) by name; of a data set, the first fifty clips.
    sample_rate : int > 0, in Hz
        The encoders'.

    Attributes
    ----------
    network, beside
        Which network's filters are ranked, and whether the others' of the same rank are shown
        below it: `ToggleButtons`, `Checkbox`.
    clip, upload, microphone
        What sounds: `Dropdown`, `FileUpload`, `sonibook.widgets.microphone.Microphone`.
    layer, rank
        `IntSlider`; rank 1 is the filter with the most energy.
    find, top
        The button that looks for the clips that excite the filter most, and the buttons that go
        there.
    rows : dict from str to Row
        What is shown of each network.
    notice
        The `HTML` widget that says what a listener should know.

    Raises
    ------
    ValueError
        If there is no network or no clip.
    StackError, AudioError
        If an encoder cannot be inverted, or the first clip is no sound.

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
        sample_rate: int = SAMPLE_RATE,
    ) -> None:
        named = {"network": networks} if isinstance(networks, nn.Module) else dict(networks)
        if not named:
            raise ValueError("There is nothing to explore: give at least one network.")
        self._choices, self._sample_rate = Choices(clips), sample_rate
        self._top_clips = TopClips(named, self._choices)
        self.rows = {name: Row(name, each, sample_rate=sample_rate) for name, each in named.items()}
        self._quiet, self._recordings = False, 0
        several = None if len(named) > 1 else "none"
        self.network = widgets.ToggleButtons(
            options=list(named), description="Network", layout=widgets.Layout(display=several)
        )
        self.network.style.button_width = "auto"
        self.beside = widgets.Checkbox(
            False, description="all of them, one below the other", indent=False,
            layout=widgets.Layout(display=several, width="auto"),
        )  # fmt: skip
        options = self._choices.options
        self._take(options[0][1])
        self.clip = widgets.Dropdown(options=options, description="Clip", layout=_WIDE)
        self.upload = widgets.FileUpload(
            accept=".wav,.flac,.ogg,.mp3", description="Your own file", multiple=False
        )
        self.microphone = Microphone()
        exploration = self.row.exploration
        self.layer = widgets.IntSlider(1, 1, exploration.layers, description="Layer", layout=_WIDE)
        self.rank = widgets.IntSlider(
            1, 1, len(exploration.ranking(1)), description="Filter rank", layout=_WIDE
        )
        self.find = widgets.Button(
            description="Which clips excite it most?", layout=widgets.Layout(width="auto")
        )
        self.top = tuple(
            widgets.Button(layout=widgets.Layout(width="auto", display="none"))
            for _ in range(self._top_clips.k)
        )
        self.notice = widgets.HTML()
        self._below = widgets.VBox()
        self._update()
        self._observe()
        super().__init__(
            [
                widgets.HBox([self.network, self.beside], layout=_WRAP),
                widgets.HBox([self.clip, self.upload, self.microphone], layout=_WRAP),
                widgets.HBox([self.layer, self.rank], layout=_WRAP),
                widgets.HBox([self.find, *self.top], layout=_WRAP),
                self.notice,
                self._below,
            ]
        )

    @property
    def row(self) -> Row:
        """The row of the network whose filters are ranked."""
        return self.rows[self.network.value]

    @property
    def filter(self) -> int:
        """The filter that is heard now."""
        return self.row.heard.filter

    @property
    def x(self) -> Float[ndarray, " time"]:
        """The clip that is heard now."""
        return self.row.exploration.x

    @property
    def sonification(self) -> Float[ndarray, " time"]:
        """What is heard of it now."""
        return self.row.heard.sonification

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and the static form for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        static = panel(
            {name: row.network for name, row in self.rows.items()},
            self.x,
            name=self._choices.clip_id(self._current),
            sample_rate=self._sample_rate,
        )
        return {**bundle, "text/plain": "Explorer", "text/html": static}

    def _observe(self) -> None:
        self.network.observe(lambda _: self._moved(), "value")
        self.beside.observe(lambda _: self._moved(), "value")
        self.clip.observe(self._on_clip, "value")
        self.layer.observe(lambda _: self._moved(rank=1), "value")
        self.rank.observe(lambda _: self._moved(), "value")
        self.upload.observe(self._on_upload, "value")
        self.microphone.observe(self._on_take, "take")
        self.microphone.observe(self._on_trouble, "trouble")
        self.find.on_click(lambda _: self._on_find())
        for button in self.top:
            button.on_click(self._on_top)

    def _take(self, key: str) -> None:
        """Pass a clip forward, through all networks that are shown. Nothing changes on failure."""
        x = None
        for row in self._shown():
            if row.key != key:
                x = self._choices.sound(key) if x is None else x
                row.take(key, x)
        self._current = key

    def _shown(self) -> list[Row]:
        others = [row for row in self.rows.values() if row is not self.row and self.beside.value]
        return [self.row, *others]

    def _moved(self, *, rank: int | None = None) -> None:
        """Another network, layer or filter."""
        if self._quiet:
            return
        self._take(self._current)
        self._set(rank=self.rank.value if rank is None else rank)
        self._update()

    def _on_clip(self, change: dict[str, Any]) -> None:
        if not self._quiet and change["new"] is not None:
            self._go(change["new"], rank=1)

    def _go(self, key: str, *, rank: int | None = None, filter: int | None = None) -> None:
        """To another clip: to a filter by its rank there, or by its number."""
        try:
            self._take(key)
        except SonibookError as error:
            self._set(clip=self._current)
            self._say(str(error))
            return
        if filter is not None:
            rank = self.row.exploration.rank_of(self.layer.value, filter)
        self._set(clip=key, rank=rank)
        self._update()

    def _on_upload(self, change: dict[str, Any]) -> None:
        if change["new"]:
            file = change["new"][0]
            name = Path(str(file["name"]).replace("\\", "/")).name or "upload"
            self._add(f"your file: {name}", name, bytes(file["content"]))

    def _on_take(self, change: dict[str, Any]) -> None:
        self._recordings += 1
        self._add(f"recording {self._recordings}", "recording.wav", self.microphone.wav)

    def _on_trouble(self, change: dict[str, Any]) -> None:
        if change["new"]:
            self._say(change["new"])

    def _add(self, key: str, name: str, content: bytes) -> None:
        """Offer a sound of the reader's own, and go there."""
        try:
            x = read_upload(name, content, self._sample_rate)
        except AudioError as error:
            self._say(str(error))
            return
        self._choices.add(key, x)
        for row in self.rows.values():
            row.key = None if row.key == key else row.key
        self._quiet = True
        try:
            self.clip.options = self._choices.options
        finally:
            self._quiet = False
        self._go(key, rank=1)

    def _on_find(self) -> None:
        self.find.disabled, words = True, self.find.description
        self.find.description = f"Passing {len(self._choices)} clips forward …"
        try:
            for row in self._shown():
                self._top_clips.find(row.name)
        except SonibookError as error:
            self._say(str(error))
        finally:
            self.find.disabled, self.find.description = False, words
        self._offer_top()

    def _on_top(self, button: widgets.Button) -> None:
        found = self._top_clips.of(self.network.value, self.layer.value, self.filter)
        place = self.top.index(button)
        if place < len(found):
            self._go(self._choices.key(found[place].index), filter=self.filter)

    def _offer_top(self) -> None:
        """The filter's top clips, where they were found."""
        name = self.network.value
        found = self._top_clips.of(name, self.layer.value, self.filter)
        self.find.layout.display = "none" if self._top_clips.known(name) else None
        for place, button in enumerate(self.top):
            shown = place < len(found)
            button.layout.display = None if shown else "none"
            if shown:
                title = self._choices.title(self._choices.key(found[place].index))
                button.description = f"top clip {place + 1}: {title}"

    def _set(self, *, clip: str | None = None, rank: int | None = None) -> None:
        """Move widgets without answering to their moving; the sliders' ends follow the network."""
        self._quiet = True
        try:
            if clip is not None:
                self.clip.value = clip
            if rank is not None:
                exploration = self.row.exploration
                self.layer.max = exploration.layers
                most = len(exploration.ranking(self.layer.value))
                self.rank.value = min(self.rank.value, most)
                self.rank.max = most
                self.rank.value = min(rank, most)
        finally:
            self._quiet = False

    def _update(self) -> None:
        """Go the way back in every row that is shown."""
        rows = self._shown()
        if self._below.children != tuple(rows):
            self._below.children = rows
        layer, rank, notices = self.layer.value, self.rank.value, dict[str, None]()
        for row in rows:
            said = row.show(
                min(layer, row.exploration.layers), rank, named=len(self.rows) > 1
            )  # fmt: skip
            notices |= dict.fromkeys((*row.exploration.notices, *said))
        self._say(*notices)
        self._offer_top()

    def _say(self, *sentences: str) -> None:
        lines = "".join(f'<p style="{_NOTICE}">{html.escape(each)}</p>' for each in sentences)
        self.notice.value = f'<div role="status">{lines}</div>'
