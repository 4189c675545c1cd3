"""Filters through training: strips of spectrograms, and what is measured checkpoint by checkpoint
(paper, figure 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from numpy import ndarray

from sonibook.analysis.evolution import RANGE_DB, EvolutionResult, FilterEvolution
from sonibook.analysis.result import Estimate
from sonibook.plots.curves import draw_estimates
from sonibook.plots.style import ACTIVITY, CYCLE, GREY, LEVELS, Picture, look, new_figure, picture

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


def evolution_figure(result: EvolutionResult) -> Picture:
    """Draw each filter's sonifications checkpoint by checkpoint, and their similarity to the last.

    Above: a row a filter (of more than twelve, each layer's first), a column a checkpoint (at most
    eight, evenly spread), each spectrogram relative to its own loudest point; grey where the filter
    is dead. Below: three measures of similarity, a line a filter, dark where its layer is early.
    """
    rows = result.filters
    strips = rows if len(rows) <= _MOST_STRIPS else _first_of_each_layer(rows)
    with look():
        figure = new_figure(height=0.6 + 0.62 * len(strips) + 2.6)
        heights = [0.6 + 0.62 * len(strips), 2.6]
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
        _draw_strips(above, strips, result.sample_rate / 2000)
        _draw_similarity(below, rows)
    return picture(figure, alt=_words(result), dpi=96)  # many small spectrograms, large as files


def _first_of_each_layer(rows: tuple[FilterEvolution, ...]) -> tuple[FilterEvolution, ...]:
    by_layer = {row.layer: row for row in reversed(rows)}
    return tuple(by_layer[layer] for layer in sorted(by_layer))


def _draw_strips(figure: SubFigure, rows: tuple[FilterEvolution, ...], highest_khz: float) -> None:
    count = len(rows[0].steps)
    columns = np.unique(np.linspace(0, count - 1, min(count, _MOST_SHOWN)).round().astype(int))
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, line in zip(rows, grid, strict=True):
        for axes, place in zip(line, columns, strict=True):
            step = row.steps[place]
            if step.energy > 0:
                extent = (0.0, row.seconds, 0.0, highest_khz)
                axes.imshow(step.levels, cmap=LEVELS, vmin=0, vmax=RANGE_DB, extent=extent)
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
    for axes, (name, label) in zip(figure.subplots(1, 3), _MEASURES.items(), strict=True):
        for row in rows:
            epochs = [step.epoch for step in row.steps]
            colour = colormaps[ACTIVITY](0.9 * (row.layer - 1) / max(deepest - 1, 1))
            axes.plot(epochs, _values(row, name), color=colour, linewidth=1.0)
        table = np.array([_values(row, name) for row in rows])
        known = ~np.isnan(table).all(axis=0)
        mean = np.nanmean(table[:, known], axis=0)
        axes.plot(np.array(epochs)[known], mean, color=GREY, linewidth=3.0, label="mean")
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(True)
    axes.legend()


def _values(row: FilterEvolution, name: str) -> ndarray:
    return np.array([getattr(step, name) for step in row.steps], float)  # None becomes NaN


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
    words = []
    with look():
        columns = min(len(curves), _COLUMNS)
        rows = -(-len(curves) // columns)
        figure = new_figure(2.6 * columns + 0.4, 2.3 * rows + 0.7)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        panels, unused = grid.flat[: len(curves)], grid.flat[len(curves) :]
        for axes in unused:
            axes.set_visible(False)
        for axes, (title, row) in zip(panels, curves.items(), strict=True):
            _draw_growth(axes, row, epochs)
            for number, (name, one) in enumerate(references.get(title, {}).items()):
                if one.mean is not None:
                    colour, style = CYCLE[1 + number % 5], _STYLES[number % len(_STYLES)]
                    axes.axhline(one.mean, color=colour, linestyle=style, label=name)
            axes.set(title=title, xlabel="epoch")
            axes.tick_params(labelbottom=True)
            axes.grid(True)
            words.append(_growth_words(title, row, epochs, references.get(title, {})))
        for axes in grid[:, 0]:
            axes.set_ylabel(ylabel)
        handles = {
            label: handle
            for axes in panels
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles)
        )
    return picture(
        figure, alt=f"{ylabel.capitalize()} over epochs. {' '.join(words)}", caption=caption
    )


def _draw_growth(axes: Axes, row: Sequence[Estimate], epochs: Sequence[int]) -> None:
    draw_estimates(axes, epochs, row, label="measured", number=0)
    axes.set_xscale("symlog", linthresh=max(next((e for e in epochs if e > 0), 1), 1))
    axes.set_xticks(epochs, [str(epoch) for epoch in epochs])
    axes.set_xticks([], minor=True)
    axes.tick_params(axis="x", labelsize=7)


def _growth_words(
    title: str, row: Sequence[Estimate], epochs: Sequence[int], references: Mapping[str, Estimate]
) -> str:
    course = ", ".join(
        f"{one.mean:.2f} at {epoch}"
        for one, epoch in zip(row, epochs, strict=True)
        if one.mean is not None
    )
    beside = "; ".join(
        f"{name} {one.mean:.2f}" for name, one in references.items() if one.mean is not None
    )
    return f"{title}: {course or 'nothing measured'}" + (
        f"; beside it {beside}." if beside else "."
    )
