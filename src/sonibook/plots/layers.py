"""Layer importances as a figure (paper, figure 4)."""

from __future__ import annotations

from matplotlib.axes import Axes

from sonibook.analysis.layers import LayerResult
from sonibook.plots.curves import course, draw_estimates, draw_networks, main_curves, over_layers
from sonibook.plots.style import GREY, Picture, look, new_figure, picture


def layers_figure(*results: LayerResult) -> Picture:
    """Draw accuracy against truncation depth, a panel for each data set, with random weights.

    Parameters
    ----------
    *results : LayerResult
        One or more, such as in-domain and out-of-domain.

    Returns
    -------
    Picture
    """
    with look():
        figure = new_figure(1.6 + 5.2 * len(results), 3.8)
        panels = figure.subplots(1, len(results), squeeze=False)[0]
        for axes, result in zip(panels, results, strict=True):
            _draw(axes, result)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return picture(figure, alt=" ".join(_words(result) for result in results))


def _draw(axes: Axes, result: LayerResult) -> None:
    draw_networks(axes, result.curves, lambda row: row.accuracy, label="{}, probe")
    for number, name in enumerate(_starts(result), start=len(result.curves)):
        runs = sorted(
            (one for one in result.trained if one.curve == name), key=lambda one: one.layer
        )
        draw_estimates(
            axes,
            [one.layer for one in runs],
            [one.accuracy for one in runs],
            label=f"{name}, trained whole",
            number=number,
        )
    axes.axhline(result.chance, color=GREY, linestyle=":", label="chance")
    deepest = max(one.layer for curve in result.curves for one in curve.layers)
    over_layers(
        axes,
        range(1, deepest + 1),
        ylabel="accuracy",
        ylim=(0.0, 1.0),
        title=f"{result.data.dataset} ({result.data.split})",
    )


def _starts(result: LayerResult) -> list[str]:
    return sorted({one.curve for one in result.trained})


def _words(result: LayerResult) -> str:
    curves = "; ".join(
        course(
            curve.network,
            [one.layer for one in curve.layers],
            [one.accuracy for one in curve.layers],
        )
        for curve in main_curves(result.curves)
    )
    return (
        f"Accuracy of linear probes on each layer, over {result.data.clips} clips of "
        f"{result.data.dataset} (chance {result.chance:.2g}). {curves}."
    )
