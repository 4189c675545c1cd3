"""What the features of each layer are like: figures over layers (paper, figures 1 to 4)."""

from __future__ import annotations

from collections.abc import Sequence

from sonibook.analysis.activations import ActivationsResult
from sonibook.analysis.coherence import CoherenceResult
from sonibook.analysis.evolution import BANDS, RANGE_DB, unpacked
from sonibook.analysis.layers import LayerResult
from sonibook.analysis.listeners import OF_CLIPS, ListenersResult
from sonibook.analysis.selectivity import SelectivityResult
from sonibook.analysis.top_clips import TopClipsResult
from sonibook.errors import AnalysisError
from sonibook.plots.curves import Panel, figure_over_layers
from sonibook.plots.style import LEVELS, Picture, look, new_figure, picture


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
    """Draw accuracy, or mAP, against truncation depth, a panel for each data set.

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
            score,
            score,
            conditions=("probe", "trained whole"),
            references=("chance",),
            title=f"{result.data.dataset} ({result.data.split})",
            options={"ylim": (0.0, 1.0)},
            result=result,
        )
        for result in results
        for score in ["mAP" if result.select(quantity="mAP") else "accuracy"]
    ]
    what = " and ".join(dict.fromkeys(panel.quantity for panel in panels))
    what = what[0].upper() + what[1:]
    return figure_over_layers(results[0], panels, what=f"{what} of linear probes")


def activations_figure(result: ActivationsResult) -> Picture:
    """Draw, layer by layer, the shares that are dead and the number of different top clips.

    Parameters
    ----------
    result : ActivationsResult

    Returns
    -------
    Picture
        The share of pairs of a clip and a filter whose map is zero throughout; the share of filters
        that no clip activates; how many different clips activate some filter most.
    """
    panels = [
        Panel("dead maps", "share of maps", title="Dead maps", options={"ylim": (0.0, None)}),
        Panel("dead filters", "share of filters", title="Dead filters"),
        Panel("top clips", f"different clips, of {result.data.clips}", title="Top clips"),
    ]
    return figure_over_layers(result, panels, what="Dead maps and filters, and top clips")


def top_clips_figure(result: TopClipsResult, network: str, *, layers: Sequence[int]) -> Picture:
    """Draw the pairs of some layers: above the clip, below its sonification.

    Parameters
    ----------
    result : TopClipsResult
    network : str
        Whose pairs.
    layers : sequence of int

    Returns
    -------
    Picture

    Raises
    ------
    AnalysisError
        If there is no pair of these layers.
    """
    pairs = [one for one in result.pairs if one.network == network and one.layer in layers]
    if not pairs:
        raise AnalysisError(f"{network} has no pair of the layers {list(layers)}.")
    words = []
    with look():
        figure = new_figure(1.0 + 1.85 * len(pairs), 3.4)
        grid = figure.subplots(2, len(pairs), squeeze=False)
        for column, one in enumerate(pairs):
            for axes, text in zip(grid[:, column], (one.input, one.sonification), strict=True):
                axes.imshow(unpacked(text), cmap=LEVELS, vmin=0, vmax=RANGE_DB)
                axes.set(xticks=[], yticks=[])
            name, label = f"layer {one.layer}, filter {one.filter}", one.label.replace("_", " ")
            grid[0, column].set_title(f"{name}\n{label}", fontsize=8.5, fontweight="normal")
            words.append(f"{name}: {label}, coherence {one.coherence:.2f}")
        for axes, title in zip(grid[:, 0], ("clip", "sonification"), strict=True):
            axes.set_yticks([0, BANDS - 1], ["0", f"{result.sample_rate / 2000:g} kHz"])
            axes.set_ylabel(title)
    what = "spectrograms of clips and, below each, of the sonification of a filter"
    over = f"that it activates most, over {result.data.clips} clips"
    alt = f"{network}: {what} {over}. {'; '.join(words)}."
    return picture(figure, alt=alt)


def coherence_figure(result: CoherenceResult) -> Picture:
    """Mean top-k coherence against depth, beside another clip's sonification and white noise."""
    label = f"mean top-{result.settings['k']} coherence"
    limits = {"ylim": (0.0, 1.02)}
    references = ("another clip", "white noise")
    panel = Panel("coherence", label, references=references, options=limits)
    return figure_over_layers(result, [panel], what="Coherence of clips with their sonifications")


def listeners_figure(result: ListenersResult) -> Picture:
    """Draw the scores of listeners against depth, a panel each, beside the clips and white noise.

    Parameters
    ----------
    result : ListenersResult

    Returns
    -------
    Picture
    """
    names = dict.fromkeys(row.quantity for row in result.rows if not row.network)
    panels = [
        Panel(name, f"{name} / dB")
        if name == "SI-SDR"  # of the clip itself it is infinite
        else Panel(name, f"score: {name}", references=OF_CLIPS)
        for name in names
        if not name.startswith("share of")
    ]
    what = "What listeners hear in the sonifications of most active filters"
    return figure_over_layers(result, panels, what=what, columns=min(len(panels), 3))
