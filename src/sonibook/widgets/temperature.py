"""The temperature of NT-Xent, to be moved.

Chapter: Contrastive training.
"""

from __future__ import annotations

import html
from typing import Any

from sonibook.plots.style import picture
from sonibook.plots.training import Similarity, temperature_picture, temperature_words
from sonibook.widgets.kernel import widgets
from sonibook.widgets.stops import static_slider

#: What the static form shows.
TEMPERATURES = (0.02, 0.1, 0.5, 2.0)


class TemperatureSlider(widgets.VBox):
    """A slider for the temperature, and what it makes of one batch.

    Where there is no kernel, on a page, a few temperatures stand in its place, to be opened one by
    one.

    Parameters
    ----------
    similarity : Tensor, shape (rows, rows), in [-1, 1]
        Cosine similarities; row i and row i + rows / 2 are two views of one clip.
    temperature : float > 0
        To begin with; the slider goes from 0.01 to 10.

    Attributes
    ----------
    temperature : ipywidgets.FloatLogSlider
    words, image : ipywidgets.HTML
        What is shown.

    Raises
    ------
    ValueError
        If the rows are no pairs.

    Examples
    --------
    >>> import torch
    >>> slider = TemperatureSlider(torch.eye(4))
    >>> slider.temperature.value = 0.5
    >>> slider.words.value[:24]
    '<p>At temperature 0.5 th'
    """

    def __init__(self, similarity: Similarity, *, temperature: float = 0.1) -> None:
        self._similarity = similarity
        self.temperature = widgets.FloatLogSlider(
            value=temperature,
            min=-2,
            max=1,
            step=0.05,
            description="Temperature",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="26rem"),
        )
        self.words, self.image = widgets.HTML(), widgets.HTML()
        self._update()
        self.temperature.observe(lambda change: self._update(), "value")
        super().__init__([self.temperature, self.words, self.image])

    def _update(self) -> None:
        self.words.value, self.image.value = self._shown(self.temperature.value)

    def _shown(self, temperature: float) -> tuple[str, str]:
        words = temperature_words(self._similarity, temperature)
        drawn = picture(
            temperature_picture(self._similarity, temperature),
            alt="Left, the probabilities of all pairs as a heat map; right, each negative's share "
            "of the push as bars. The text above has the numbers.",
        )
        return f"<p>{html.escape(words)}</p>", drawn._repr_html_()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live view, and the static form for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        static = static_slider(
            {f"{t:g}": (f"Temperature {t:g}", "".join(self._shown(t))) for t in TEMPERATURES},
            name="Temperature",
            title="Temperature",
            opened=f"{TEMPERATURES[1]:g}",
            end="In JupyterLab any temperature can be chosen.",
        )
        return {**bundle, "text/plain": "TemperatureSlider", "text/html": static}
