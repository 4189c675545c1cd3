"""``sonibook analyse selectivity``: how narrow the bands of sonifications are, and what is live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sonibook.cli.analyse.options import (
    DatasetName,
    FigureFile,
    Folds,
    Limit,
    Networks,
    Out,
    Processes,
    Seed,
    Split,
    Width,
    finish,
    open_networks,
    open_part,
    streamed,
)
from sonibook.cli.inputs import DataOptions, DataRoot
from sonibook.cli.output import examples, table

if TYPE_CHECKING:
    from sonibook.analysis.selectivity import SelectivityResult

SELECTIVITY_EXAMPLES = examples(
    "sonibook analyse selectivity supervised --dataset soundscapes --limit 40",
    "sonibook analyse selectivity supervised --dataset esc10 --filters 8 --figure bands.png",
)


def selectivity(
    networks: Networks,
    dataset: DatasetName,
    split: Split = None,
    folds: Folds = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    filters: Annotated[
        int, typer.Option(min=0, help="Filters to draw for each clip, besides the most active.")
    ] = 4,
    seed: Seed = 0,
    width: Width = 0.25,
    limit: Limit = None,
    processes: Processes = None,
    out: Out = None,
    figure: FigureFile = None,
) -> None:
    """Measure band selectivity and feature map activity, layer by layer (figure 1).

    Centroid, bandwidth and entropy of the spectrum of each clip's most active filter's
    sonification (and of filters drawn at random), beside those of the clips themselves and of a
    network with random weights; and the share of maps and of steps that are live.
    """
    from sonibook.analysis.selectivity import selectivity_by_layer
    from sonibook.plots.selectivity import selectivity_figure

    data = open_part(dataset, split=split, folds=folds, root=data_root, pairs=options)
    encoders = open_networks(networks, width=width, seed=seed)
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = selectivity_by_layer(encoders, data, filters=filters, seed=seed, **streaming)
        header = ["layer", "network", "centroid", "bandwidth", "entropy"]
        typer.echo(table([*header, "live maps", "live steps", "dead"], _rows(result)))
        finish(result, out=out, figure=figure, draw=selectivity_figure)


def _rows(result: SelectivityResult) -> list[list[object]]:
    rows: list[list[object]] = [
        [
            row.layer,
            network.network,
            row.top.centroid.mean,
            row.top.bandwidth.mean,
            row.top.entropy.mean,
            row.live_maps.mean,
            row.live_steps.mean,
            row.dead,
        ]
        for network in result.selectivity
        for row in network.layers
    ]
    own = result.inputs
    inputs = [own.centroid.mean, own.bandwidth.mean, own.entropy.mean]
    return [*rows, [None, "the clips themselves", *inputs, None, None, None]]
