"""Pictures of training: crops, results, what the temperature makes of a batch; and filters through
training, as strips of spectrograms and by what is measured at each checkpoint (paper, figure 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from torch import Tensor

from sonibook.analysis.activations import RANGE_DB
from sonibook.analysis.evolution import EvolutionResult, FilterEvolution
from sonibook.analysis.result import Estimate
from sonibook.audio import SAMPLE_RATE
from sonibook.plots.features import draw_estimates
from sonibook.plots.sound import Sound, draw_bars, draw_waveform, peak_of
from sonibook.plots.style import ACTIVITY, BLUE, CYCLE, GREY, ORANGE, Picture, drawing

#: Cosine similarities of all pairs of rows, as `sonibook.training.objectives.nt_xent` orders
#: them: row i and row i + rows / 2 are two views of one clip.
Similarity = Float[Tensor, "rows rows"]
#: More checkpoints than this are too small to see.
_MOST_SHOWN = 8
#: With more filters than this, there is a strip of each layer's first only.
_MOST_STRIPS = 12
#: Panels in a row: more are too small to read on a phone.
_COLUMNS = 3
_STYLES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
_MEASURES = {
    "correlation": "correlation of spectrograms",
    "coherence": "mean top-5 coherence",
    "cosine": "cosine of waveforms",
}


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
    shared: Any = {"sharex": True, "height_ratios": [4, len(starts)]}
    with drawing(8.0, 1.7 + 0.25 * len(starts), 2, **shared) as (figure, (above, below)):
        draw_waveform(above, x, sample_rate=sample_rate, peak=peak_of(x))
        above.set(ylabel="amplitude")
        seconds = [(start / sample_rate, length / sample_rate) for start in starts.values()]
        draw_bars(below, list(starts), seconds)
        # A crop that is longer than its clip ends beyond it: in the zeros that fill it up.
        ends = [len(x), *(start + length for start in starts.values())]
        below.set_xlim(0, max(ends) / sample_rate)
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
    with drawing(7.0, 1.1 + 0.34 * len(results)) as (figure, axes):
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
    with drawing(6.4, 5.2) as (figure, axes):
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
    with drawing(7.4, 2.9, 1, 2, width_ratios=[1, 1.3]) as (figure, (left, right)):
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
    partner = probability.gather(1, _partners(similarity))
    return (
        f"At temperature {temperature:.3g} the loss is {-float(partner.log().mean()):.2f} nats. "
        f"A row gives its partner a probability of {float(partner.mean()):.0%} on average, and the "
        f"hardest of its {len(divided)} negatives takes {float(divided[0]):.0%} of the push."
    )


def _partners(rows: Tensor) -> Tensor:
    """The column of each row's partner, shape (rows, 1)."""
    return torch.arange(len(rows), device=rows.device).roll(len(rows) // 2)[:, None]


def evolution_figure(result: EvolutionResult) -> Picture:
    """Draw each filter's sonifications checkpoint by checkpoint, and their similarity to the last.

    Above: a row a filter (of more than twelve, each layer's first), a column a checkpoint (at most
    eight, evenly spread), each spectrogram relative to its own loudest point; grey where the filter
    is dead. Below: three measures of similarity, a line a filter, dark where its layer is early.
    """
    rows = strips = result.filters
    if len(rows) > _MOST_STRIPS:
        first_of_layers = {row.layer: row for row in reversed(rows)}
        strips = tuple(row for _, row in sorted(first_of_layers.items()))
    heights = [0.6 + 0.62 * len(strips), 2.6]
    with drawing(8.0, sum(heights), 2, of="figures", height_ratios=heights) as (figure, parts):
        _draw_strips(parts[0], strips, result.sample_rate / 2000)
        _draw_similarity(parts[1], rows)
    return Picture(figure, alt=_words(result), dpi=92)  # many small spectrograms, large as files


def _draw_strips(figure: SubFigure, rows: tuple[FilterEvolution, ...], highest_khz: float) -> None:
    count = len(rows[0].steps)
    columns = np.unique(np.linspace(0, count - 1, min(count, _MOST_SHOWN)).round().astype(int))
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, line in zip(rows, grid, strict=True):
        for axes, place in zip(line, columns, strict=True):
            step = row.steps[place]
            if step.energy > 0:
                extent = (0.0, row.seconds, 0.0, highest_khz)
                axes.imshow(step.levels, vmin=0, vmax=RANGE_DB, extent=extent)
            else:
                axes.set_facecolor("#D1D5DB")
                axes.text(0.5, 0.5, "dead", ha="center", va="center", transform=axes.transAxes)
            axes.set(xticks=[], yticks=[])
        line[0].set_yticks([0, highest_khz], ["0", f"{highest_khz:g} kHz"])
        title = f"layer {row.layer}\nfilter {row.filter}"
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8.5)
    for axes, place in zip(grid[0], columns, strict=True):
        axes.set_title(f"epoch {rows[0].steps[place].epoch}", fontweight="normal", fontsize=9)


def _draw_similarity(figure: SubFigure, rows: tuple[FilterEvolution, ...]) -> None:
    deepest = max(row.layer for row in rows)
    epochs = np.array([step.epoch for step in rows[0].steps])
    for axes, (name, label) in zip(figure.subplots(1, 3), _MEASURES.items(), strict=True):
        steps = [[getattr(step, name) for step in row.steps] for row in rows]
        table = np.array(steps, float)  # None becomes NaN
        for row, values in zip(rows, table, strict=True):
            colour = colormaps[ACTIVITY](0.9 * (row.layer - 1) / max(deepest - 1, 1))
            axes.plot(epochs, values, color=colour, linewidth=1.0)
        known = ~np.isnan(table).all(axis=0)
        mean = np.nanmean(table[:, known], axis=0)
        axes.plot(epochs[known], mean, color=GREY, linewidth=3.0, label="mean")
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(True)
    axes.legend()


def _words(result: EvolutionResult) -> str:
    epochs = [step.epoch for step in result.filters[0].steps]
    if len(result.filters) > _MOST_STRIPS:
        layers = sorted({row.layer for row in result.filters})
        each = {f"layer {n}": [r for r in result.filters if r.layer == n] for n in layers}
    else:
        each = {f"layer {row.layer}, filter {row.filter}": [row] for row in result.filters}
    parts = []
    for name, rows in each.items():
        known = [first for row in rows if (first := row.steps[0].correlation) is not None]
        parts.append(f"{name}: {np.mean(known):.2f}" if known else f"{name}: dead")
    return (
        f"Spectrograms of {len(result.filters)} filters' sonifications at {len(epochs)} "
        f"checkpoints, epoch {epochs[0]} to {epochs[-1]}, and their similarity to the last. "
        f"Correlation of the first with the last spectrogram: {'; '.join(parts)}."
    )


def growth_figure(
    curves: Mapping[str, Sequence[Estimate]],
    epochs: Sequence[int],
    *,
    references: Mapping[str, Mapping[str, Estimate]],
    ylabel: str,
    caption: str = "",
) -> Picture:
    """Draw what was measured at each epoch, a panel a title, beside what it is compared with.

    Parameters
    ----------
    curves : mapping from str to sequence of Estimate
        One an epoch, else `ValueError`, by title; each is drawn with its interval as a band.
    epochs : sequence of int >= 0
        Rising. The axis is logarithmic above the first of them that is not 0.
    references : mapping from str to mapping from str to Estimate
        By title, and then by name: heights that do not depend on the epoch.
    ylabel, caption : str
    """
    for title, row in curves.items():
        if len(row) != len(epochs):
            raise ValueError(f"{title}: {len(row)} estimates were given for {len(epochs)} epochs.")
    words, handles, columns = [], dict[str, Any](), min(len(curves), _COLUMNS)
    rows = -(-len(curves) // columns)
    shared: Any = {"sharex": True, "sharey": True, "squeeze": False}
    size = (2.6 * columns + 0.4, 2.3 * rows + 0.7)
    with drawing(*size, rows, columns, **shared) as (figure, grid):
        for axes, (title, row) in zip(grid.flat, curves.items(), strict=False):
            draw_estimates(axes, epochs, row, label="measured", number=0)
            axes.set_xscale("symlog", linthresh=max(next((e for e in epochs if e > 0), 1), 1))
            axes.set_xticks(epochs, [str(epoch) for epoch in epochs])
            axes.set_xticks([], minor=True)
            axes.tick_params(axis="x", labelsize=7, labelbottom=True)
            beside = []
            for number, (name, one) in enumerate(references.get(title, {}).items()):
                if one.mean is not None:
                    colour, style = CYCLE[1 + number % 5], _STYLES[number % len(_STYLES)]
                    axes.axhline(one.mean, color=colour, linestyle=style, label=name)
                    beside.append(f"{name} {one.mean:.2f}")
            axes.set(title=title, xlabel="epoch")
            axes.grid(True)
            known = [
                f"{y.mean:.2f} at {x}"
                for x, y in zip(epochs, row, strict=True)
                if y.mean is not None
            ]
            also = f"; beside it {'; '.join(beside)}" if beside else ""
            words.append(f"{title}: {', '.join(known) or 'nothing measured'}{also}.")
            drawn, labels = axes.get_legend_handles_labels()
            handles |= dict(zip(labels, drawn, strict=True))
        for axes in grid.flat:
            axes.set_visible(axes.has_data())
        for axes in grid[:, 0]:
            axes.set_ylabel(ylabel)
        place: Any = {"loc": "outside lower center", "ncols": len(handles)}
        figure.legend([*handles.values()], [*handles], **place)
    alt = f"{ylabel.capitalize()} over epochs. {' '.join(words)}"
    return Picture(figure, alt=alt, caption=caption)
