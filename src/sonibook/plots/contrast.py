"""Contrastive training as pictures: who is near whom, and what the temperature makes of it.

Chapter: Contrastive training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from sonibook.plots.style import ACTIVITY, BLUE, ORANGE, look, new_figure

#: Cosine similarities of all pairs of rows, as `sonibook.training.objectives.nt_xent` orders
#: them: row i and row i + rows / 2 are two views of one clip.
Similarity = Float[Tensor, "rows rows"]


def probabilities(similarity: Similarity, temperature: float) -> Float[Tensor, "rows rows"]:
    """How probable each row holds every other to be its partner: a softmax without itself.

    Parameters
    ----------
    similarity : Tensor, shape (rows, rows), in [-1, 1]
    temperature : float > 0

    Returns
    -------
    Tensor of float64, shape (rows, rows)
        Every row sums to 1; the diagonal is 0.

    Raises
    ------
    ValueError
        If the rows are no pairs, or the temperature is not above 0.
    """
    if len(similarity) % 2 or len(similarity) < 4:
        raise ValueError(f"{len(similarity)} rows are no pairs with rivals: give 4, 6, 8, …")
    if not temperature > 0:
        raise ValueError(f"A temperature of {temperature:g} is impossible: choose one above 0.")
    logits = similarity.detach().double() / temperature
    return logits.fill_diagonal_(-torch.inf).softmax(dim=1)


def loss(similarity: Similarity, temperature: float) -> float:
    """NT-Xent of a batch whose cosine similarities are given: the mean over rows, in nats."""
    found = probabilities(similarity, temperature)
    return -float(found.gather(1, _partners(found)).log().mean())


def shares(similarity: Similarity, temperature: float) -> Float[Tensor, " negatives"]:
    """How the push away from the negatives is divided among them, hardest first.

    The loss's gradient with respect to a similarity is the candidate's probability over the
    temperature (minus one over it for the partner), so that negatives share as their
    probabilities do.

    Parameters
    ----------
    similarity : Tensor, shape (rows, rows), in [-1, 1]
    temperature : float > 0

    Returns
    -------
    Tensor of float64, shape (rows - 2,)
        Mean over the rows; falls, and sums to 1.
    """
    found = probabilities(similarity, temperature)
    found = found.scatter(1, _partners(found), 0.0)
    ordered = found.sort(dim=1, descending=True).values[:, :-2]
    return (ordered / ordered.sum(dim=1, keepdim=True)).mean(dim=0)


def similarity_matrix(similarity: Similarity, *, names: Sequence[str]) -> Figure:
    """All cosine similarities of a batch as a heat map from the least to 1, partners framed.

    Parameters
    ----------
    similarity : Tensor, shape (rows, rows), in [-1, 1]
    names : sequence of str
        One for each row.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is not one name for each row.
    """
    if len(names) != len(similarity):
        raise ValueError(f"{len(names)} names were given for {len(similarity)} rows.")
    with look():
        figure = new_figure(6.4, 5.2)
        axes = figure.subplots()
        image = axes.imshow(
            similarity.detach().cpu().numpy(), cmap=ACTIVITY, vmax=1, origin="upper"
        )
        for row, partner in enumerate(_partners(similarity)[:, 0].tolist()):
            corner = (partner - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=ORANGE, linewidth=1.8))
        axes.set(aspect="equal", xticks=range(len(names)), yticks=range(len(names)))
        axes.set_yticklabels(names)
        axes.set_xticklabels(names, rotation=90)
        figure.colorbar(image, ax=axes, label="cosine similarity", pad=0.02)
    return figure


def temperature_picture(similarity: Similarity, temperature: float) -> Figure:
    """What a temperature makes of a batch: who is taken for the partner, who is pushed away.

    Parameters
    ----------
    similarity : Tensor, shape (rows, rows), in [-1, 1]
    temperature : float > 0

    Returns
    -------
    matplotlib.figure.Figure
    """
    found, divided = probabilities(similarity, temperature), shares(similarity, temperature)
    with look():
        figure = new_figure(7.4, 2.9)
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
        image = left.imshow(found.cpu().numpy(), cmap=ACTIVITY, vmin=0, origin="upper")
        left.set(aspect="equal", xlabel="candidate", ylabel="row", title="Probability")
        figure.colorbar(image, ax=left, pad=0.02)
        right.bar(range(1, len(divided) + 1), divided.cpu().numpy(), color=BLUE)
        right.set(ylim=(0, 1), xlabel="negative, hardest first", title="Share of the push")
        right.grid(True, axis="y")
    return figure


def temperature_words(similarity: Similarity, temperature: float) -> str:
    """What `temperature_picture` shows, in words."""
    found, divided = probabilities(similarity, temperature), shares(similarity, temperature)
    partner = float(found.gather(1, _partners(found)).mean())
    return (
        f"At temperature {temperature:.3g} the loss is {loss(similarity, temperature):.2f} nats. "
        f"A row gives its partner a probability of {partner:.0%} on average, and the hardest of "
        f"its {len(divided)} negatives takes {float(divided[0]):.0%} of the push."
    )


def _partners(rows: Tensor) -> Tensor:
    """The column of each row's partner, shape (rows, 1)."""
    return torch.arange(len(rows), device=rows.device).roll(len(rows) // 2)[:, None]
