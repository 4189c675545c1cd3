"""One network's row in the explorer: what its filter keeps of the clip, to see and to hear."""

from __future__ import annotations

import html

from torch import nn

from sonibook.plots.sound import Painter, Sound, describe, power_spectrogram
from sonibook.plots.style import image_tag
from sonibook.widgets.exploration import Exploration, Heard
from sonibook.widgets.kernel import widgets
from sonibook.widgets.listening import Listening


class Row(widgets.VBox):
    """A network on one clip after another: each is passed forward once.

    Parameters
    ----------
    name : str
        What the network is called.
    network : torch.nn.Module
        As `sonibook.model.stack.blocks_of` takes it.
    sample_rate : int > 0, in Hz

    Attributes
    ----------
    key : str or None
        Of the clip that was taken last.
    exploration : Exploration
        Of that clip.
    heard : Heard
        What was shown last.
    info, image, listening
        The widgets that show.
    """

    exploration: Exploration
    heard: Heard

    def __init__(self, name: str, network: nn.Module, *, sample_rate: int) -> None:
        self.name, self.network, self.sample_rate = name, network, sample_rate
        self.key: str | None = None
        self.info, self.image, self.listening = widgets.HTML(), widgets.HTML(), Listening()
        super().__init__([self.info, self.image, self.listening])
        self.add_class("sonibook-row")

    def take(self, key: str, x: Sound) -> None:
        """Pass a clip forward, unless it is the last one. Nothing has changed if this fails.

        Raises
        ------
        StackError, AudioError
            As `Exploration`.
        """
        exploration = Exploration(self.network, x, sample_rate=self.sample_rate)
        painter = Painter(power_spectrogram(exploration.x), sample_rate=self.sample_rate)
        self.key, self.exploration, self._painter = key, exploration, painter

    def show(self, layer: int, rank: int, *, named: bool) -> tuple[str, ...]:
        """Go the way back from a layer's filter of this rank, and show what came of it.

        Parameters
        ----------
        layer, rank : int
            Counted from 1; a rank past the last takes the last.
        named : bool
            Whether to say which network this is.

        Returns
        -------
        tuple of str
            What a listener should know.
        """
        ranking = self.exploration.ranking(layer)
        rank = min(rank, len(ranking))
        heard = self.exploration.hear(layer, ranking[rank - 1].filter)
        said = f"{self.exploration.rank_text(layer, rank)} {heard.measures}".strip()
        name = f"<strong>{html.escape(self.name)}</strong>: " if named else ""
        x, s = self.exploration.x, heard.sonification
        parts = {"Input": x, "Sonification": s, "Residual": heard.residual}
        alt = "Log spectrograms side by side. " + " ".join(
            f"{title}: {describe(sound, sample_rate=self.sample_rate)}."
            for title, sound in parts.items()
        )
        about = f"layer {layer}, filter {heard.filter}"
        with self.info.hold_sync(), self.image.hold_sync():
            self.info.value = f'<p style="margin: 0.4em 0;">{name}{html.escape(said)}</p>'
            self.image.value = image_tag(
                self._painter.paint(power_spectrogram(s), power_spectrogram(heard.residual)), alt
            )
            self.listening.play(
                x, s, about=f"{self.name}, {about}" if named else about,
                sample_rate=self.sample_rate,
            )  # fmt: skip
        self.heard = heard
        return heard.notices
