"""Sanity checks as a figure (after Adebayo et al. 2018, figure 4)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from sonibook.analysis.sanity import MEASURES, SanityResult
from sonibook.plots.curves import draw_estimates, over_layers
from sonibook.plots.style import Picture, look, new_figure, picture

_UNITS = {"log-spectral distance": "log-spectral distance / dB"}
_ROWS = {
    "cascading": ("Random from the filter's layer down", "lowest random layer"),
    "independent": ("Random one layer alone", "the random layer"),
}
#: Layers whose curves are drawn; more would hide each other.
_CURVES = 4


def sanity_figure(result: SanityResult) -> Picture:
    """Draw how alike sonifications stay while layers are randomised, and what that is worth.

    Above, a curve for each of a few layers, over the randomised ones; below, for every layer, the
    baselines, and the filter with all layers random. One column a measure.

    Parameters
    ----------
    result : SanityResult

    Returns
    -------
    Picture
    """
    layers = sorted({point.layer for point in result.points})
    spread = np.linspace(0, len(layers) - 1, min(_CURVES, len(layers))).round().astype(int)
    with look():
        figure = new_figure(11.0, 7.8)
        grid = figure.subplots(3, len(MEASURES), sharey="col", squeeze=False)
        for column, measure in enumerate(MEASURES):
            for axes, (kind, (_, xlabel)) in zip(grid[:2, column], _ROWS.items(), strict=True):
                for number, layer in enumerate(layers[place] for place in spread):
                    _draw_points(axes, result, kind, layer, measure, number)
                over_layers(axes, range(1, max(layers) + 1, 2), ylabel=_UNITS.get(measure, measure))
                axes.set_xlabel(xlabel)
                axes.invert_xaxis()
            _draw_baselines(grid[2, column], result, measure)
            ticks = layers if len(layers) < 7 else layers[::2]
            over_layers(grid[2, column], ticks, ylabel=_UNITS.get(measure, measure))
            grid[2, column].set_xlabel("layer of the filter")
        titles = [title for title, _ in _ROWS.values()] + ["All random, and baselines"]
        for axes, title in zip(grid[:, 0], titles, strict=True):
            axes.set_title(title)
        for row in (0, 2):
            grid[row, -1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return picture(figure, alt=_words(result, layers))


def _draw_points(
    axes: Axes, result: SanityResult, kind: str, layer: int, measure: str, number: int
) -> None:
    points = [one for one in result.points if one.randomised == kind and one.layer == layer]
    draw_estimates(
        axes,
        [one.down_to for one in points],
        [one.likeness[measure] for one in points],
        label=f"filter of layer {layer}",
        number=number,
    )


def _draw_baselines(axes: Axes, result: SanityResult, measure: str) -> None:
    whole = [one for one in result.points if one.randomised == "cascading" and one.down_to == 1]
    draw_estimates(
        axes,
        [one.layer for one in whole],
        [one.likeness[measure] for one in whole],
        label="all layers random",
        number=0,
    )
    names = list(dict.fromkeys(one.name for one in result.baselines))
    for number, name in enumerate(names, start=1):
        rows = [one for one in result.baselines if one.name == name]
        draw_estimates(
            axes,
            [one.layer for one in rows],
            [one.likeness[measure] for one in rows],
            label=name,
            number=number,
        )


def _words(result: SanityResult, layers: list[int]) -> str:
    """The deepest layer's figures, first when it alone is random, then when all are."""
    deepest = layers[-1]
    measure = "spectrogram correlation"
    found = {
        one.down_to: one.likeness[measure].mean
        for one in result.points
        if one.randomised == "cascading" and one.layer == deepest
    }
    beside = {
        one.name: one.likeness[measure].mean
        for one in result.baselines
        if one.layer == deepest and one.likeness[measure].mean is not None
    }
    worth = ", ".join(f"{name} {value:.2g}" for name, value in beside.items())
    return (
        f"How alike sonifications stay as layers are given random weights, over "
        f"{result.data.clips} clips. {measure.capitalize()} of the filter of layer {deepest}: "
        f"{_said(found.get(deepest))} with that layer random, {_said(found.get(1))} with all "
        f"below it, too. Beside it: {worth}."
    )


def _said(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2g}"
