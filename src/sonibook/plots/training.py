"""Pictures of training: crops, curves, results, and what the temperature makes of a batch.

A sound is an array or tensor of shape (time,); what is not a waveform raises `AudioError`.

Chapters: Supervised training; Contrastive training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.sound import Sound, draw_waveform, peak_of
from sonibook.plots.style import ACTIVITY, BLUE, CYCLE, GREY, INPUT, ORANGE, look, new_figure

#: Cosine similarities of all pairs of rows, as `sonibook.training.objectives.nt_xent` orders
#: them: row i and row i + rows / 2 are two views of one clip.
Similarity = Float[Tensor, "rows rows"]


def crops(
    x: Sound, starts: Mapping[str, int], *, length: int, sample_rate: int = SAMPLE_RATE
) -> Figure:
    """A clip's waveform, and under it where crops were cut from it.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
    starts : mapping from str to int, in samples
        Where each crop begins, by its name; one at least, else `ValueError`.
    length : int > 0, in samples
        Of every crop.
    sample_rate : int > 0, in Hz
    """
    if not starts:
        raise ValueError("There is no crop to draw: give the start of at least one.")
    with look():
        figure = new_figure(8.0, 1.7 + 0.25 * len(starts))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, len(starts)])
        draw_waveform(above, x, sample_rate=sample_rate, peak=peak_of(x), colour=INPUT)
        above.set(ylabel="amplitude")
        for row, start in enumerate(starts.values()):
            colour = CYCLE[row % len(CYCLE)]
            below.barh(row, length / sample_rate, left=start / sample_rate, color=colour)
        # A crop that is longer than its clip ends beyond it: in the zeros that fill it up.
        ends = [len(x), *(start + length for start in starts.values())]
        below.set(xlabel="time / s", xlim=(0, max(ends) / sample_rate))
        below.set(yticks=range(len(starts)), yticklabels=list(starts))
        below.invert_yaxis()
        below.tick_params(axis="y", length=0)
    return figure


def intervals(
    results: Mapping[str, tuple[float, float, float]], *, xlabel: str, chance: float
) -> Figure:
    """Results side by side, each with its interval, and what chance would give.

    Parameters
    ----------
    results : mapping from str to (float, float, float)
        A result, and the lower and upper end of its interval, by name. `ValueError` if it does not
        lie within.
    xlabel : str
    chance : float
    """
    for name, (value, low, high) in results.items():
        if not low <= value <= high:
            raise ValueError(f"{name}: {value:.3g} does not lie between {low:.3g} and {high:.3g}.")
    with look():
        figure = new_figure(7.0, 1.1 + 0.34 * len(results))
        axes = figure.subplots()
        for row, (value, low, high) in enumerate(results.values()):
            axes.plot([low, high], [row, row], color=BLUE, linewidth=3, alpha=0.4)
            axes.plot(value, row, "o", color=BLUE)
            axes.annotate(
                f"{value:.0%}", (high, row), (6, 0), textcoords="offset points", va="center"
            )
        axes.axvline(chance, color=GREY, linestyle="--", label="chance")
        axes.set(xlabel=xlabel, xlim=(0, 1.08), yticks=range(len(results)))
        axes.set(yticklabels=list(results), ylim=(len(results) - 0.5, -0.5))
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return figure


def probabilities(similarity: Similarity, temperature: float) -> Float[Tensor, "rows rows"]:
    """Each row's softmax over its candidates: every row but itself, where it has 0.

    Parameters
    ----------
    similarity : Tensor, shape (rows, rows), in [-1, 1]
    temperature : float > 0

    Returns
    -------
    Tensor of float64, shape (rows, rows)

    Raises
    ------
    ValueError
        If the rows are not pairs, or the temperature is not above 0.
    """
    if len(similarity) % 2 or len(similarity) < 4:
        raise ValueError(f"{len(similarity)} rows are not pairs with rivals: give 4, 6, 8, …")
    if not temperature > 0:
        raise ValueError(f"A temperature of {temperature:g} is impossible: choose one above 0.")
    logits = similarity.detach().double() / temperature
    return logits.fill_diagonal_(-torch.inf).softmax(dim=1)


def loss(similarity: Similarity, temperature: float) -> float:
    """NT-Xent of a batch whose cosine similarities are given: the mean over rows, in nats."""
    probability = probabilities(similarity, temperature)
    return -float(probability.gather(1, _partners(similarity)).log().mean())


def shares(similarity: Similarity, temperature: float) -> Float[Tensor, " negatives"]:
    """How the push away from the negatives is divided among them, hardest first, shape (rows - 2,).

    The loss's gradient with respect to a similarity is the candidate's probability over the
    temperature (minus one over it for the partner), so that negatives share as their
    probabilities do. The mean over the rows falls, and sums to 1. Takes and raises what
    `probabilities` does.
    """
    probability = probabilities(similarity, temperature)
    negatives = probability.scatter(1, _partners(similarity), 0.0)
    ordered = negatives.sort(dim=1, descending=True).values[:, :-2]
    return (ordered / ordered.sum(dim=1, keepdim=True)).mean(dim=0)


def similarity_matrix(similarity: Similarity, *, names: Sequence[str]) -> Figure:
    """All cosine similarities of a batch as a heat map from the least to 1, partners framed.

    Each of the rows of `similarity`, shape (rows, rows), has a name; else `ValueError`.
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
    """Who is taken for the partner at a temperature, and who is pushed away."""
    probability, divided = probabilities(similarity, temperature), shares(similarity, temperature)
    with look():
        figure = new_figure(7.4, 2.9)
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
        image = left.imshow(probability.cpu().numpy(), cmap=ACTIVITY, vmin=0, origin="upper")
        left.set(aspect="equal", xlabel="candidate", ylabel="row", title="Probability")
        figure.colorbar(image, ax=left, pad=0.02)
        right.bar(range(1, len(divided) + 1), divided.cpu().numpy(), color=BLUE)
        right.set(ylim=(0, 1), xlabel="negative, hardest first", title="Share of the push")
        right.grid(True, axis="y")
    return figure


def temperature_words(similarity: Similarity, temperature: float) -> str:
    """What `temperature_picture` shows, in words."""
    probability, divided = probabilities(similarity, temperature), shares(similarity, temperature)
    partner = float(probability.gather(1, _partners(similarity)).mean())
    return (
        f"At temperature {temperature:.3g} the loss is {loss(similarity, temperature):.2f} nats. "
        f"A row gives its partner a probability of {partner:.0%} on average, and the hardest of "
        f"its {len(divided)} negatives takes {float(divided[0]):.0%} of the push."
    )


def _partners(rows: Tensor) -> Tensor:
    """The column of each row's partner, shape (rows, 1)."""
    return torch.arange(len(rows), device=rows.device).roll(len(rows) // 2)[:, None]
