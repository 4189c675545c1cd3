"""A slider through training: one filter and clip, heard and seen as they were at each epoch.

Chapter: How features grow.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.sound import Sound, describe, peak_of, power_spectrogram, thumbnail
from sonibook.plots.style import image_tag
from sonibook.widgets.kernel import widgets
from sonibook.widgets.players import player
from sonibook.widgets.stops import static_slider


class EpochSlider(widgets.VBox):
    """A slider over epochs, and what was heard at each.

    Where there is no kernel, on a page, the epochs stand one below the other, to be opened.

    Parameters
    ----------
    sounds : mapping from int to ndarray or Tensor, shapes (time,)
        By epoch; silence where a filter was dead.
    title : str
        What is followed, such as "Layer 5, filter 2".
    sample_rate : int > 0, in Hz

    Attributes
    ----------
    epoch : ipywidgets.SelectionSlider
    sound, image : ipywidgets.HTML
        What is heard and seen now. All players have one gain; each picture is relative to its own
        loudest point.

    Raises
    ------
    ValueError
        If there is no epoch.

    Examples
    --------
    >>> import numpy as np
    >>> tone = np.sin(np.arange(800, dtype=np.float32))
    >>> slider = EpochSlider({0: 0 * tone, 20: tone}, title="Layer 1, filter 0")
    >>> slider.epoch.value
    20
    >>> slider.epoch.value = 0
    >>> "silence" in slider.image.value
    True
    """

    def __init__(
        self, sounds: Mapping[int, Sound], *, title: str, sample_rate: int = SAMPLE_RATE
    ) -> None:
        if not sounds:
            raise ValueError("There is nothing to follow: give the sound of one epoch at least.")
        self._sounds, self._title, self._sample_rate = (
            dict(sorted(sounds.items())),
            title,
            sample_rate,
        )
        loudest = peak_of(*sounds.values())
        self._gain = 1.0 / loudest if loudest > 0 else 1.0
        epochs = list(self._sounds)
        self.epoch = widgets.SelectionSlider(
            options=epochs,
            value=epochs[-1],
            description="Epoch",
            layout=widgets.Layout(width="26rem"),
        )
        self.sound, self.image = widgets.HTML(), widgets.HTML()
        self._update()
        self.epoch.observe(lambda change: self._update(), "value")
        heading = widgets.HTML(f"<p>{html.escape(title)}</p>")
        super().__init__([heading, self.epoch, self.sound, self.image])

    def _update(self) -> None:
        self.sound.value, self.image.value = self._shown(self.epoch.value)

    def _shown(self, epoch: int) -> tuple[str, str]:
        x = self._sounds[epoch]
        heard = player(
            x,
            label=f"{self._title}, epoch {epoch}",
            gain=self._gain,
            sample_rate=self._sample_rate,
        )
        words = f"Spectrogram at epoch {epoch}: {describe(x, sample_rate=self._sample_rate)}"
        return heard._repr_html_(), image_tag(thumbnail(power_spectrogram(x)), words, width="24rem")

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and the static form for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        slider = static_slider(
            {str(n): (f"Epoch {n}", "".join(self._shown(n))) for n in self._sounds},
            name="Epoch",
            title=f"{self._title} through training",
            opened=str(list(self._sounds)[-1]),
            end="In JupyterLab this is a slider.",
        )
        static = f"<p>{html.escape(self._title)}</p>{slider}"
        return {**bundle, "text/plain": "EpochSlider", "text/html": static}
