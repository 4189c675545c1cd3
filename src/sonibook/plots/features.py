"""What the features of each layer are like: figures over layers (paper, figures 1 to 4)."""

from __future__ import annotations

from sonibook.analysis.layers import LayerResult
from sonibook.analysis.selectivity import SelectivityResult
from sonibook.plots.curves import Panel, figure_over_layers
from sonibook.plots.style import Picture


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
    spectra = {
        "centroid": "centroid / Hz",
        "bandwidth": "bandwidth / Hz",
        "entropy": "spectral entropy",
    }
    which, references = ("drawn" if drawn else "",), ("the clips themselves",)
    panels = [Panel(name, label, which, references) for name, label in spectra.items()]
    share = {"ylim": (-0.02, 1.02)}
    panels += [Panel(name, name, options=share) for name in ("live maps", "live steps")]
    filters = "filters drawn at random" if drawn else "most active filters"
    what = f"Spectra of the sonifications of {filters}, and shares of maps and steps that are live"
    return figure_over_layers(result, panels, what=what, columns=3)


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
    panels = [
        Panel(
            "accuracy",
            "accuracy",
            conditions=("probe", "trained whole"),
            references=("chance",),
            title=f"{result.data.dataset} ({result.data.split})",
            options={"ylim": (0.0, 1.0)},
            result=result,
        )
        for result in results
    ]
    return figure_over_layers(results[0], panels, what="Accuracy of linear probes")
