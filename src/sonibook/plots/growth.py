"""What is measured checkpoint by checkpoint: a panel a layer, and what it is to be read against.

Chapter: How features grow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from sonibook.analysis.result import Estimate
from sonibook.plots.style import BLUE, CYCLE, Picture, look, new_figure, picture

#: Panels in a row: more are too small to read on a phone.
_COLUMNS = 3
_STYLES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))


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
        One an epoch, by title; each is drawn with its interval as a band.
    epochs : sequence of int >= 0
        Rising. The axis is logarithmic above the first of them that is not 0.
    references : mapping from str to mapping from str to Estimate
        By title, and then by name: heights that do not depend on the epoch.
    ylabel, caption : str

    Returns
    -------
    Picture

    Raises
    ------
    ValueError
        If a curve has not one estimate for each epoch.
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
            _draw(axes, row, epochs)
            for number, (name, one) in enumerate(references.get(title, {}).items()):
                if one.mean is not None:
                    colour, style = CYCLE[1 + number % 5], _STYLES[number % len(_STYLES)]
                    axes.axhline(one.mean, color=colour, linestyle=style, label=name)
            axes.set(title=title, xlabel="epoch")
            axes.tick_params(labelbottom=True)
            axes.grid(True)
            words.append(_words(title, row, epochs, references.get(title, {})))
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


def _draw(axes: Axes, row: Sequence[Estimate], epochs: Sequence[int]) -> None:
    mean, low, high = (
        np.array([np.nan if (value := getattr(one, end)) is None else value for one in row])
        for end in ("mean", "low", "high")
    )
    axes.plot(epochs, mean, "o-", color=BLUE, markersize=4, label="measured")
    axes.fill_between(epochs, low, high, color=BLUE, alpha=0.18, linewidth=0)
    axes.set_xscale("symlog", linthresh=max(next((e for e in epochs if e > 0), 1), 1))
    axes.set_xticks(epochs, [str(epoch) for epoch in epochs])
    axes.set_xticks([], minor=True)
    axes.tick_params(axis="x", labelsize=7)


def _words(
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
