"""What the features of each layer are like: figures over layers (paper, figures 1 to 4, 7),
other unpoolings and explanations, and what filters pick out of scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from sonibook.analysis.activations import (
    BANDS,
    RANGE_DB,
    ActivationsResult,
    TopClipsResult,
    unpacked,
)
from sonibook.analysis.alternatives import STARTS, ExplanationResult
from sonibook.analysis.listeners import OF_CLIPS
from sonibook.analysis.result import ResultTable
from sonibook.analysis.separation import SeparationResult
from sonibook.deconvnet.alternatives import UNPOOLING
from sonibook.errors import AnalysisError
from sonibook.plots.curves import Panel, course, figure_over_layers
from sonibook.plots.style import LEVELS, Picture, look, new_figure, picture

#: What is drawn of unpoolings, where it was measured.
_DRAWN = {
    "coherence": "coherence with the clip",
    "similarity": "similarity to switches",
    "gain in share": "gain in main stem's share",
    "SI-SDR gain": "SI-SDR gain / dB",
}


def selectivity_figure(result: ResultTable, *, drawn: bool = False) -> Picture:
    """Draw the spectra of sonifications, and what is live, against depth.

    With `drawn`, of the filters drawn at random instead of each clip's most active one;
    `ValueError` if none were.
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


def layers_figure(*results: ResultTable) -> Picture:
    """Draw accuracy, or mAP, against truncation depth, a panel for each data set and probe."""
    panels = [
        Panel(
            score,
            score,
            conditions=(probe, "trained whole"),
            references=("chance",),
            title=f"{result.data.dataset} ({result.data.split}{of_ridge})",
            options={"ylim": (0.0, 1.0)},
            result=result,
        )
        for result in results
        for score in ["mAP" if result.select(quantity="mAP") else "accuracy"]
        for probe, of_ridge in (("probe", ""), ("ridge probe", ", ridge"))
        if result.select(condition=probe)
    ]
    what = " and ".join(dict.fromkeys(panel.quantity for panel in panels))
    what = what[0].upper() + what[1:]
    return figure_over_layers(results[0], panels, what=f"{what} of linear probes")


def activations_figure(result: ActivationsResult) -> Picture:
    """Draw the shares of dead maps and filters, and the number of different top clips, by layer."""
    panels = [
        Panel("dead maps", "share of maps", title="Dead maps", options={"ylim": (0.0, None)}),
        Panel("dead filters", "share of filters", title="Dead filters"),
        Panel("top clips", f"different clips, of {result.data.clips}", title="Top clips"),
    ]
    return figure_over_layers(result, panels, what="Dead maps and filters, and top clips")


def top_clips_figure(result: TopClipsResult, network: str, *, layers: Sequence[int]) -> Picture:
    """Draw the pairs of some layers of a network: above the clip, below its sonification.

    `AnalysisError` if there is no pair of these layers.
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
    caption = f"{network}: clips, and below each what a filter kept of it."
    return picture(figure, alt=alt, caption=caption)


def coherence_figure(result: ResultTable) -> Picture:
    """Mean top-k coherence against depth, beside another clip's sonification and white noise."""
    label = f"mean top-{result.settings['k']} coherence"
    limits = {"ylim": (0.0, 1.02)}
    references = ("another clip", "white noise")
    panel = Panel("coherence", label, references=references, options=limits)
    return figure_over_layers(result, [panel], what="Coherence of clips with their sonifications")


def listeners_figure(result: ResultTable) -> Picture:
    """Draw listeners' scores against depth, a panel each, beside those of other sounds."""
    names = dict.fromkeys(row.quantity for row in result.rows if not row.network)
    panels = [
        Panel(name, f"{name} / dB")
        if name == "SI-SDR"  # of the clip itself it is infinite
        else Panel(name, f"score: {name}", references=("random phase", *OF_CLIPS))
        for name in names
        if not name.startswith("share of")
    ]
    what = "What listeners hear in the sonifications of most active filters"
    return figure_over_layers(result, panels, what=what, columns=min(len(panels), 2))


def separation_figure(result: SeparationResult) -> Picture:
    """Draw separation, detection and timing, layer by layer, a curve for each network."""
    panels = [
        Panel("gain in share", "gain in main stem's share", title="Separation: where", line=0.0),
        Panel("SI-SDR gain", "SI-SDR gain / dB", title="Separation: waveform", line=0.0),
        Panel("detection", "area under the ROC curve", title="Detection", line=0.5),
        Panel("lag of sound", "lag / s", title="Onset", line=result.row("lag of input").mean),
    ]
    curves = "; ".join(
        course(name, result.select(network=name, quantity="gain in share"))
        for name in result.names()
    )
    words = (
        f"Of {result.row('sources').clips} scenes of several sources, gain of the main stem's "
        f"share over the mixture: {curves}. Further panels: SI-SDR gain, detection of events, lag "
        "of the onset (the line: of the input itself)"
    )
    what = "What the most active filters hold of scenes"
    return figure_over_layers(result, panels, what=what, columns=2, words=words)


def unpooling_figure(result: ResultTable) -> Picture:
    """Draw what each unpooling comes to, layer by layer: a row a network and start."""
    quantities = [name for name in _DRAWN if result.select(quantity=name)]
    conditions = tuple(f"{start}, {unpooling}" for start in STARTS for unpooling in UNPOOLING)
    words = []
    for network, condition in product(result.names(), conditions):
        rows = result.select(network=network, quantity="coherence", condition=condition)
        words.append(course(f"{network}, {condition}", rows))
    panels = [
        Panel(
            quantity,
            _DRAWN[quantity],
            conditions=tuple(name for name in conditions if name.startswith(start)),
            labels=tuple(UNPOOLING),
            title=f"{network}, {start}" if quantity == quantities[0] else "",
            network=network,
        )
        for network in result.names()
        for start in STARTS
        for quantity in quantities
    ]
    return figure_over_layers(
        result,
        panels,
        what="Unpoolings compared",
        columns=len(quantities),
        words=f"Coherence: {'; '.join(words)}",
    )


def explanations_figure(result: ExplanationResult) -> Picture:
    """Draw the coherence of each method's explanations, and the drop that their removal makes."""
    (network,) = result.names()
    methods = tuple(dict.fromkeys(row.condition for row in result.select(quantity="coherence")))
    panels = [
        Panel(quantity, ylabel, methods, network=network, options=options, line=line)
        for quantity, ylabel, options, line in (
            ("coherence", "mean top-5 coherence with the clip", {"ylim": (0.0, 1.02)}, None),
            ("drop", "drop when subtracted / nat", {}, 0.0),
        )
    ]
    tests = [row for row in result.rows if row.quantity.startswith("p_holm, ")]
    tests = [row for row in tests if row.quantity.endswith("beyond sonification")]
    sure = sum(row.mean is not None and row.mean < 0.05 for row in tests)
    what = (
        f"{len(methods)} explanations of the most active filters (by Holm's p below 0.05, {sure} "
        f"of {len(tests)} comparisons with sonification differ)"
    )
    return figure_over_layers(result, panels, what=what)


def faithfulness_figure(result: ResultTable) -> Picture:
    """Draw each measure of faithfulness of some explanations of the first network, and controls."""
    network = result.names()[0]
    rows = result.select(network=network)
    drawn = ("sonification", "guided backpropagation", "random weights", "another clip",
             "white noise", "the clip itself")  # fmt: skip
    conditions = tuple(name for name in drawn if any(row.condition == name for row in rows))
    panels = [
        Panel(quantity, quantity, conditions, network=network)
        for quantity in dict.fromkeys(row.quantity for row in rows)
    ]
    what = f"Faithfulness to what {network} names, of explanations at {result.settings['level']}"
    return figure_over_layers(result, panels, what=what, columns=2)
