"""Estimates over layers as curves, each with its interval as a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from sonibook.analysis.result import Estimate, ResultTable, Row
from sonibook.plots.style import CYCLE, GREY, PAGE, Picture, look, new_figure, picture

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
    labels: dict[str, Any] = {}
    curves = []
    columns = columns or (2 if len(panels) == 4 else min(len(panels), 3))
    rows = -(-len(panels) // columns)
    with look():
        figure = new_figure(7.0 if columns == 1 else PAGE, 0.8 + 2.5 * rows)
        sharey: Literal["row", "none"] = "row" if share else "none"
        grid = figure.subplots(rows, columns, sharey=sharey, squeeze=False).flat
        for panel, axes in zip(panels, grid, strict=False):
            shown = panel.result or result
            layers = sorted({row.layer for row in shown.rows if row.layer is not None})
            drawn = "; ".join(_draw_panel(axes, shown, panel, layers))
            curves.append(f"{panel.title or panel.ylabel}: {drawn}" if len(panels) > 1 else drawn)
            ticks = layers if columns < 3 or len(layers) < 8 else layers[::2]
            over_layers(axes, ticks, ylabel=panel.ylabel, title=panel.title, **panel.options)
            handles, names = axes.get_legend_handles_labels()
            labels |= dict(zip(names, handles, strict=True))
        unused = [*grid]
        for axes in unused:
            axes.set_axis_off()
        listed: dict[str, Any] = {"handles": [*labels.values()], "labels": [*labels]}
        if unused:
            unused[0].legend(**listed, loc="center left", title=legend or None)
        else:
            listed |= {"title": legend or None, "ncols": min(columns, len(labels))}
            if columns == 1:
                figure.legend(**listed, loc="outside right center")
            else:
                figure.legend(**listed, loc="outside lower center")
    counts = dict.fromkeys(str((panel.result or result).data.clips) for panel in panels)
    clips = f"over {' and '.join(counts)} clips"
    return picture(figure, alt=f"{what}, layer by layer, {clips}. {words or '. '.join(curves)}.")


def _draw_panel(axes: Axes, result: ResultTable, panel: Panel, layers: Sequence[int]) -> list[str]:
    """Draw the curves of one panel, and put them in words."""
    regimes = _regimes(result)
    if panel.network:
        regimes = {"": [panel.network]}
    words = []
    number = 0
    several = len(panel.conditions) > 1 or bool(panel.network)
    if panel.line is not None:
        axes.axhline(panel.line, color=GREY, linewidth=0.8)
    labels = panel.labels or panel.conditions
    for condition, called in zip(panel.conditions, labels, strict=True):
        for same in regimes.values():
            for network in same:
                rows = result.select(network=network, quantity=panel.quantity, condition=condition)
                baseline = bool(rows) and rows[0].baseline and not panel.network
                if not rows or (baseline and condition != panel.conditions[0]):
                    continue
                first = network == same[0]
                named = ("" if panel.network else network, called if several else "")
                label = ", ".join(filter(None, named))
                thin = len(same) - 1
                draw_estimates(
                    axes,
                    layers_of(rows),
                    rows,
                    label=label + (f" (thin: {thin} more)" if thin else "") if first else _UNLISTED,
                    number=number,
                    baseline=baseline,
                    variant=not first,
                )
                if first:
                    words.append(course(label, rows))
            number += 1
    for condition in panel.references:
        rows = _reference(result, panel, condition)
        if rows:
            flat = rows[0].layer is None
            places, curve = (layers, rows * len(layers)) if flat else (layers_of(rows), rows)
            draw_estimates(
                axes, places, curve, label=condition, number=number, baseline=True, flat=flat
            )
            value = rows[0].mean if flat else None
            short = None if value is None else f"{condition}: {_short(value)}"
            words.append(short or course(condition, rows))
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


def _reference(result: ResultTable, panel: Panel, condition: str) -> tuple[Row, ...]:
    """The rows of a condition that concern no network, or else those of the first network."""
    rows = result.select(quantity=panel.quantity, condition=condition)
    if panel.network:
        rows = tuple(row for row in rows if row.network in ("", panel.network))
    return tuple(row for row in rows if row.network == rows[0].network) if rows else ()


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
    colour = GREY if baseline else CYCLE[number % len(CYCLE)]
    mean, low, high = (
        np.array([getattr(one, end) for one in estimates], float)  # None becomes NaN
        for end in ("mean", "low", "high")
    )
    axes.plot(
        layers,
        mean,
        color=colour,
        linestyle="--" if baseline else "-",
        marker=None if variant or flat else MARKERS[number % len(MARKERS)],
        markersize=4.5,
        linewidth=0.8 if variant else None,
        label=label,
    )
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
