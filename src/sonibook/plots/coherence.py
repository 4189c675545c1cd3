"""Coherence with depth as a figure (paper, figure 7)."""

from __future__ import annotations

from sonibook.analysis.layer_coherence import CoherenceResult
from sonibook.plots.curves import course, draw_estimates, draw_networks, main_curves, over_layers
from sonibook.plots.style import Picture, look, new_figure, picture


def coherence_figure(result: CoherenceResult) -> Picture:
    """Draw mean top-k coherence against depth, with its baselines and intervals.

    Parameters
    ----------
    result : CoherenceResult

    Returns
    -------
    Picture
    """
    layers = [row.layer for row in max((curve.layers for curve in result.curves), key=len)]
    with look():
        figure = new_figure(7.0, 3.4)
        axes = figure.subplots()
        draw_networks(axes, result.curves, lambda row: row.coherence)
        first = result.curves[0]
        draw_estimates(
            axes,
            [row.layer for row in first.layers],
            [row.other_clip for row in first.layers],
            label="another clip's sonification",
            number=len(result.curves),
            baseline=True,
        )
        noise = [result.noise] * len(layers)
        draw_estimates(
            axes, layers, noise, label="white noise", number=len(result.curves) + 1, baseline=True
        )
        over_layers(
            axes, layers, ylabel=f"mean top-{result.settings['k']} coherence", ylim=(0.0, 1.02)
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    curves = "; ".join(
        course(curve.network, [row.layer for row in curve.layers],
               [row.coherence for row in curve.layers])
        for curve in main_curves(result.curves)
    )  # fmt: skip
    alt = (
        f"Coherence of clips with their sonifications, layer by layer, over {result.data.clips} "
        f"clips. {curves}; white noise: {result.noise.mean:.2g} throughout."
    )
    return picture(figure, alt=alt)
