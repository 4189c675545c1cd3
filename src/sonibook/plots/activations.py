"""How much of a network is dead, and how many clips are some filter's favourite, as a figure."""

from __future__ import annotations

from sonibook.analysis.activations import ActivationsResult, LayerActivations
from sonibook.plots.curves import over_layers
from sonibook.plots.style import CYCLE, Picture, look, new_figure, picture


def activations_figure(result: ActivationsResult) -> Picture:
    """Draw, layer by layer, the share that is dead and the number of favourite clips.

    Parameters
    ----------
    result : ActivationsResult

    Returns
    -------
    Picture
        Left: the share of filters that no clip activates, and of pairs of a clip and a filter
        whose map is zero throughout. Right: how many different clips some filter likes best.
    """
    clips = result.data.clips
    with look():
        figure = new_figure(9.0, 3.2)
        dead, liked = figure.subplots(1, 2)
        for number, network in enumerate(result.activations):
            colour = CYCLE[number % len(CYCLE)]
            layers = [row.layer for row in network.layers]
            pairs = [100 * row.dead_pairs / row.pairs for row in network.layers]
            filters = [100 * row.dead_filters / len(row.filters) for row in network.layers]
            label = network.network
            dead.plot(layers, pairs, "o-", color=colour, label=f"{label}: pairs", markersize=4.5)
            dead.plot(layers, filters, "s:", color=colour, label=f"{label}: filters", markersize=4)
            favourites = [_favourites(row) for row in network.layers]
            liked.plot(layers, favourites, "o-", color=colour, label=label, markersize=4.5)
        longest = max((network.layers for network in result.activations), key=len)
        layers = [row.layer for row in longest]
        over_layers(dead, layers, ylabel="dead / %", ylim=(0, None), title="Dead")
        over_layers(
            liked,
            layers,
            ylabel=f"different clips, of {clips}",
            ylim=(0, None),
            title="Clips that some filter likes best",
        )
        dead.legend()
        liked.legend()
    return picture(figure, alt=_words(result))


def _favourites(row: LayerActivations) -> int:
    return len({one.top[0].index for one in row.filters if one.top})


def _words(result: ActivationsResult) -> str:
    parts = []
    for network in result.activations:
        last = network.layers[-1]
        dead = 100 * last.dead_pairs / last.pairs
        parts.append(
            f"{network.network}: in layer {last.layer}, {last.dead_filters} of "
            f"{len(last.filters)} filters are live on no clip and {dead:.0f} % of maps are zero "
            f"throughout; {_favourites(last)} clips are some filter's favourite"
        )
    return (
        f"Dead filters and maps, and favourite clips, layer by layer, over {result.data.clips} "
        f"clips. {'; '.join(parts)}."
    )
