"""The temperature of NT-Xent on a slider: who is taken for the partner, and who is pushed away.

Chapter: Contrastive training.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field

from sonibook.plots.training import Similarity, temperature_picture, temperature_words
from sonibook.widgets.animation import moving, small_image


@dataclass(frozen=True, eq=False)
class TemperatureSlider:
    """A slider for the temperature of NT-Xent, and what it makes of one batch.

    The page keeps the similarities and computes all else as the slider moves, from 0.01 to 10.

    Parameters
    ----------
    similarity : Tensor, shape (rows, rows), in [-1, 1]
        Cosine similarities; row i and row i + rows / 2 are two views of one clip.
    temperature : float > 0
        To begin with.

    Raises
    ------
    ValueError
        If the rows are not pairs, or the temperature is not above 0.

    Examples
    --------
    >>> import torch
    >>> TemperatureSlider(torch.eye(4), temperature=0.5).words[:22]
    'At temperature 0.5 the'
    """

    similarity: Similarity = field(repr=False)
    temperature: float = 0.1

    def __post_init__(self) -> None:
        temperature_words(self.similarity, self.temperature)

    @property
    def words(self) -> str:
        """What is to be seen at first, in words."""
        return temperature_words(self.similarity, self.temperature)

    def _repr_html_(self) -> str:
        alt = (
            "Left, the probabilities of all pairs as a heat map; right, each negative's share of "
            "the push as bars. The text has the numbers."
        )
        picture = small_image(temperature_picture(self.similarity, self.temperature), alt)
        rows = [[round(one, 5) for one in row] for row in self.similarity.tolist()]
        data = {"similarity": rows, "temperature": self.temperature}
        return moving("temperature", data, f"{picture}<p>{html.escape(self.words)}</p>")
