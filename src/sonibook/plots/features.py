"""Estimates over layers as curves, each with its interval as a band: what the features of each
layer are like (paper, figures 1 to 4 and 7), and the one builder of such figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sonibook.analysis.activations import RANGE_DB, ActivationsResult, TopClipsResult, unpacked
from sonibook.analysis.listeners import OF_CLIPS
from sonibook.analysis.result import Estimate, ResultTable, Row
from sonibook.analysis.separation import SeparationResult
from sonibook.errors import AnalysisError
from sonibook.plots.style import CYCLE, GREY, Picture, drawing

#: Of the curves of a figure, in this order, as their colours in `CYCLE`.
MARKERS = "os^Dv*P"
#: A label that legends leave out.
_UNLISTED = "_"


@dataclass(frozen=True)
class Panel:
    """One panel of a figure over layers: a quantity of each network, with its unit as `ylabel`.

    Attributes
    ----------
    conditions : tuple of str
        A curve for each, for each network that was not given as a baseline; the first one for
        baselines as well. A single one is not named in the legend.
    labels : tuple of str
        What the legend calls them; themselves if empty.
    references : tuple of str
        Conditions that are drawn once, dashed and grey: of no network, or else of the first.
    options : dict
        Of `matplotlib.axes.Axes.set`, such as ``ylim`` and ``yscale``.
    network : str
        The only one to draw; empty for all.
    result : ResultTable or None
        Another one than the figure's.
    line : float or None
        A height to read the curves against, such as 0 or chance.
    """

    quantity: str
    ylabel: str
    conditions: tuple[str, ...] = ("",)
    references: tuple[str, ...] = ()
    title: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    network: str = ""
    result: ResultTable | None = None
    labels: tuple[str, ...] = ()
    line: float | None = None


def figure_over_layers(
    result: ResultTable,
    panels: Sequence[Panel],
    *,
    what: str,
    columns: int = 0,
    share: bool = False,
    legend: str = "",
    words: str = "",
) -> Picture:
    """Draw quantities of a result over layers, each mean with its 95 % interval as a band.

    Networks of one regime share a colour: the first is drawn boldly, further seeds thinly.

    Parameters
    ----------
    result : ResultTable
    panels : sequence of Panel
        One legend for all.
    what : str
        What is drawn, for the alternative text.
    columns : int >= 0
        Panels in a row; 0 for up to three.
    share : bool
        Whether the panels of a row have one vertical scale.
    legend : str
        Its title.
    words : str
        How the alternative text goes on; if empty, with each curve in words.
    """
    curves, labels = [], dict[str, Any]()
    columns = columns or (2 if len(panels) == 4 else min(len(panels), 3))
    rows = -(-len(panels) // columns)
    size = (7.0 if columns == 1 else 8.0, 0.8 + 2.5 * rows)
    shared: Any = {"sharey": "row" if share else "none", "squeeze": False}
    with drawing(*size, rows, columns, **shared) as (figure, grid):
        unused = [*grid.flat][len(panels) :]
        for panel, axes in zip(panels, grid.flat, strict=False):
            shown = panel.result or result
            layers = sorted({row.layer for row in shown.rows if row.layer is not None})
            drawn = "; ".join(_draw_panel(axes, shown, panel, layers))
            curves.append(f"{panel.title or panel.ylabel}: {drawn}" if len(panels) > 1 else drawn)
            ticks = layers if columns < 3 or len(layers) < 8 else layers[::2]
            over_layers(axes, ticks, ylabel=panel.ylabel, title=panel.title, **panel.options)
            handles, names = axes.get_legend_handles_labels()
            labels |= dict(zip(names, handles, strict=True))
        home, place = figure, f"outside {'right' if columns == 1 else 'lower'} center"
        for axes in reversed(unused):
            axes.set_axis_off()
            home, place = axes, "center left"
        named: Any = {"loc": place, "ncols": 1 if unused else columns, "title": legend or None}
        home.legend([*labels.values()], [*labels], **named)
    counts = dict.fromkeys(str((panel.result or result).data.clips) for panel in panels)
    clips = f"over {' and '.join(counts)} clips"
    return Picture(figure, alt=f"{what}, layer by layer, {clips}. {words or '. '.join(curves)}.")


def _draw_panel(axes: Axes, result: ResultTable, panel: Panel, layers: Sequence[int]) -> list[str]:
    """Draw the curves of one panel, and put them in words."""
    regimes = {"": [panel.network]} if panel.network else _regimes(result)
    words, number = [], 0
    several = len(panel.conditions) > 1 or bool(panel.network)
    if panel.line is not None:
        axes.axhline(panel.line, color=GREY, linewidth=0.8)
    for condition, called in zip(panel.conditions, panel.labels or panel.conditions, strict=True):
        for same in regimes.values():
            for network in same:
                rows = result.select(network=network, quantity=panel.quantity, condition=condition)
                baseline = bool(rows) and rows[0].baseline and not panel.network
                if not rows or (baseline and condition != panel.conditions[0]):
                    continue
                named = ("" if panel.network else network, called if several else "")
                label = listed = ", ".join(filter(None, named))
                if first := network == same[0]:
                    words.append(course(label, rows))
                    listed += f" (thin: {len(same) - 1} more)" if same[1:] else ""
                how: Any = {"number": number, "baseline": baseline, "variant": not first}
                shown = listed if first else _UNLISTED
                draw_estimates(axes, layers_of(rows), rows, label=shown, **how)
            number += 1
    for condition in panel.references:
        # Of no network, or else of the first.
        own = {"network": {"", panel.network}} if panel.network else {}
        found = result.select(quantity=panel.quantity, condition=condition, **own)
        if rows := tuple(row for row in found if row.network == found[0].network):
            flat, value = rows[0].layer is None, rows[0].mean
            places, curve = (layers, rows * len(layers)) if flat else (layers_of(rows), rows)
            how = {"number": number, "baseline": True, "flat": flat}
            draw_estimates(axes, places, curve, label=condition, **how)
            one = f"{condition}: {_short(value)}" if flat and value is not None else ""
            words.append(one or course(condition, rows))
            number += 1
    return words


def first_of_regimes(result: ResultTable) -> list[str]:
    """The first network of each regime, for figures with a panel for each network."""
    return [names[0] for names in _regimes(result).values()]


def _regimes(result: ResultTable) -> dict[str, list[str]]:
    """The networks of each regime, by seed."""
    found: dict[str, dict[str, int]] = {}
    for row in result.rows:
        if row.network:
            found.setdefault(row.regime, {}).setdefault(row.network, row.seed or 0)
    return {regime: sorted(seeds, key=lambda name: seeds[name]) for regime, seeds in found.items()}


def draw_estimates(
    axes: Axes,
    layers: Sequence[int],
    estimates: Sequence[Estimate],
    *,
    label: str,
    number: int,
    baseline: bool = False,
    variant: bool = False,
    band: bool = True,
    flat: bool = False,
) -> None:
    """Draw one curve: the means, and a band from low to high where there is an interval."""
    ends = [(one.mean, one.low, one.high) for one in estimates]
    mean, low, high = np.array(ends, float).T  # None becomes NaN
    colour = GREY if baseline else CYCLE[number % len(CYCLE)]
    marker = None if variant or flat else MARKERS[number % len(MARKERS)]
    style: Any = {"linestyle": "--" if baseline else "-", "linewidth": 0.8 if variant else None}
    axes.plot(layers, mean, color=colour, marker=marker, markersize=4.5, label=label, **style)
    if band and not variant:
        axes.fill_between(layers, low, high, color=colour, alpha=0.18, linewidth=0)


def over_layers(axes: Axes, layers: Sequence[int], **labels: Any) -> None:
    """Give axes whose horizontal one counts layers their ticks, grid and labels."""
    axes.set(xlabel="layer", xticks=layers, **labels)
    axes.grid(True)


def layers_of(rows: Sequence[Row]) -> list[int]:
    """Where the points of a curve stand."""
    return [row.layer or 0 for row in rows]


def course(name: str, rows: Sequence[Row]) -> str:
    """A curve in words, for alternative text: where it starts, ends and turns."""
    known = [(row.layer or 0, row.mean) for row in rows if row.mean is not None]
    if not known:
        return f"{name}: nothing measured"
    ends = {known[0], known[-1], max(known, key=itemgetter(1)), min(known, key=itemgetter(1))}
    return f"{name}: " + ", ".join(f"{_short(mean)} at layer {n}" for n, mean in sorted(ends))


def _short(value: float) -> str:
    """Two digits, and a power of ten only where it is needed: 2100 and not 2.1e+03."""
    return f"{float(f'{value:.2g}'):g}"


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
    scores = " and ".join(dict.fromkeys(panel.quantity for panel in panels))
    what = f"{scores[0].upper()}{scores[1:]} of linear probes"
    return figure_over_layers(results[0], panels, what=what)


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
    words, width = [], 1.0 + 1.85 * len(pairs)
    with drawing(width, 3.4, 2, len(pairs), squeeze=False) as (figure, grid):
        for column, one in enumerate(pairs):
            for axes, text in zip(grid[:, column], (one.input, one.sonification), strict=True):
                shown = unpacked(text)
                axes.imshow(shown, vmin=0, vmax=RANGE_DB)
                axes.set(xticks=[], yticks=[])
            name, label = f"layer {one.layer}, filter {one.filter}", one.label.replace("_", " ")
            grid[0, column].set_title(f"{name}\n{label}", fontsize=8.5, fontweight="normal")
            words.append(f"{name}: {label}, coherence {one.coherence:.2f}")
        for axes, title in zip(grid[:, 0], ("clip", "sonification"), strict=True):
            axes.set_yticks([0, len(shown) - 1], ["0", f"{result.sample_rate / 2000:g} kHz"])
            axes.set_ylabel(title)
    what = "spectrograms of clips and, below each, of the sonification of a filter"
    over = f"that it activates most, over {result.data.clips} clips"
    alt = f"{network}: {what} {over}. {'; '.join(words)}."
    caption = f"{network}: clips, and below each what a filter kept of it."
    return Picture(figure, alt=alt, caption=caption)


def coherence_figure(result: ResultTable) -> Picture:
    """Mean top-k coherence against depth, beside another clip's sonification and white noise."""
    label, others = f"mean top-{result.settings['k']} coherence", ("another clip", "white noise")
    panel = Panel("coherence", label, references=others, options={"ylim": (0.0, 1.02)})
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
