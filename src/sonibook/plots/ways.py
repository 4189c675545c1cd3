"""Ways back side by side, as a figure."""

from __future__ import annotations

from sonibook.analysis.ways import MEASURES, STARTS, WaysResult
from sonibook.plots.curves import course, draw_estimates, over_layers
from sonibook.plots.style import Picture, look, new_figure, picture

#: What is drawn of what was measured, where it was.
_DRAWN = (*MEASURES, "gain in share", "SI-SDR gain")
_UNITS = {"SI-SDR gain": "SI-SDR gain / dB", "gain in share": "gain in main stem's share"}


def ways_figure(result: WaysResult) -> Picture:
    """Draw what each way back comes to, layer by layer: a row a network and start.

    Parameters
    ----------
    result : WaysResult

    Returns
    -------
    Picture
    """
    measures = [name for name in _DRAWN if name in result.ways[0].measures]
    unpoolings = list(dict.fromkeys(way.unpooling for way in result.ways))
    layers = sorted({way.layer for way in result.ways})
    rows = [(network, start) for network in result.networks for start in STARTS]
    words = []
    with look():
        figure = new_figure(2.8 * len(measures) + 1.2, 2.4 * len(rows))
        grid = figure.subplots(len(rows), len(measures), sharey="col", squeeze=False)
        for line, (network, start) in zip(grid, rows, strict=True):
            for number, unpooling in enumerate(unpoolings):
                ways = [
                    way
                    for way in result.ways
                    if (way.network, way.start, way.unpooling) == (network, start, unpooling)
                ]
                own = [way.layer for way in ways]
                for axes, measure in zip(line, measures, strict=True):
                    values = [way.measures[measure] for way in ways]
                    draw_estimates(axes, own, values, label=unpooling, number=number)
                first = [way.measures[measures[0]] for way in ways]
                words.append(course(f"{network}, {start}, {unpooling}", own, first))
            for axes, measure in zip(line, measures, strict=True):
                over_layers(axes, layers, ylabel=_UNITS.get(measure, measure))
            line[0].set_title(f"{network}, {start}")
        grid[0, -1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    alt = (
        f"Ways back compared over {result.data.clips} clips, by how a max-pool is undone. "
        f"{measures[0].capitalize()}: {'; '.join(words)}."
    )
    return picture(figure, alt=alt)
