"""Band selectivity and activity, layer by layer, as a figure (paper, figure 1)."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from sonibook.analysis.result import Estimate
from sonibook.analysis.selectivity import LayerSelectivity, SelectivityResult, Spectrum
from sonibook.plots.curves import course, draw_estimates, draw_networks, main_curves, over_layers
from sonibook.plots.style import Picture, look, new_figure, picture

_SPECTRAL = {
    "centroid": "centroid / Hz",
    "bandwidth": "bandwidth / Hz",
    "entropy": "spectral entropy",
}
_LIVE = {"live_maps": "live maps", "live_steps": "live steps"}


def selectivity_figure(result: SelectivityResult, *, drawn: bool = False) -> Picture:
    """Draw the spectra of sonifications, and what is live, against depth.

    Parameters
    ----------
    result : SelectivityResult
    drawn : bool
        Whether to draw the filters drawn at random instead of each clip's most active one.

    Returns
    -------
    Picture

    Raises
    ------
    ValueError
        If `drawn` is asked for, and no filters were drawn.
    """
    if drawn and not result.settings["filters"]:
        raise ValueError("No filters were drawn: measure again with filters of 1 or more.")

    def spectrum(row: LayerSelectivity) -> Spectrum:
        return row.drawn if drawn and row.drawn is not None else row.top

    def spectral(name: str) -> Callable[[LayerSelectivity], Estimate]:
        return lambda row: getattr(spectrum(row), name)

    with look():
        figure = new_figure(10.0, 5.0)
        panels = figure.subplots(2, 3).ravel()
        for axes, (name, label) in zip(panels, _SPECTRAL.items(), strict=False):
            draw_networks(axes, result.selectivity, spectral(name))
            layers = _layers(result)
            over_layers(axes, layers, ylabel=label)
            inputs = [getattr(result.inputs, name)] * len(layers)
            draw_estimates(
                axes,
                layers,
                inputs,
                label="the clips themselves",
                number=len(result.selectivity),
                baseline=True,
            )
        for axes, (name, label) in zip(panels[3:], _LIVE.items(), strict=False):
            draw_networks(axes, result.selectivity, attrgetter(name))
            over_layers(axes, _layers(result), ylabel=label)
            axes.set_ylim(-0.02, 1.02)
        panels[5].set_axis_off()
        handles, labels = panels[0].get_legend_handles_labels()
        panels[5].legend(handles, labels, loc="center left")
    which = "filters drawn at random" if drawn else "most active filters"
    words = "; ".join(
        course(f"{one.network}, {label}", [row.layer for row in one.layers], values)
        for one in main_curves(result.selectivity)
        for label, values in (
            ("entropy", [spectrum(row).entropy for row in one.layers]),
            ("live maps", [row.live_maps for row in one.layers]),
        )
    )
    inputs_entropy = result.inputs.entropy.mean or 0.0
    alt = (
        f"Spectral centroid, bandwidth and entropy of the sonifications of {which}, and shares of "
        f"maps and steps that are live, layer by layer, over {result.data.clips} clips. {words}; "
        f"entropy of the clips themselves: {inputs_entropy:.2g}."
    )
    return picture(figure, alt=alt)


def _layers(result: SelectivityResult) -> list[int]:
    return [row.layer for row in max((one.layers for one in result.selectivity), key=len)]
