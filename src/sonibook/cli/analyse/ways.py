"""``sonibook analyse ways``: ways back beyond the paper, beside its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sonibook.cli.analyse.options import (
    DatasetName,
    FigureFile,
    Folds,
    Layers,
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
    parse_layers,
    streamed,
)
from sonibook.cli.inputs import DataOptions, DataRoot
from sonibook.cli.output import examples, table

if TYPE_CHECKING:
    from sonibook.analysis.ways import WaysResult

WAYS_EXAMPLES = examples(
    "sonibook analyse ways supervised --dataset soundscapes --limit 40",
    "sonibook analyse ways supervised --dataset esc10 --folds 5 --layers 8 --out ways.json",
)


def ways(
    networks: Networks,
    dataset: DatasetName,
    split: Split = None,
    folds: Folds = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    layers: Layers = None,
    seed: Seed = 0,
    width: Width = 0.25,
    limit: Limit = None,
    processes: Processes = None,
    out: Out = None,
    figure: FigureFile = None,
) -> None:
    """Sonify a whole layer at once, and without switches, and compare with the paper's way.

    By coherence with the input and likeness to the paper's way; where the clips are scenes with
    known sources, by separation, too.
    """
    from sonibook.analysis.ways import ways as measure
    from sonibook.plots.ways import ways_figure

    data = open_part(dataset, split=split, folds=folds, root=data_root, pairs=options)
    opened = open_networks(networks, width=width, seed=seed)
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = measure(opened, data, layers=parse_layers(layers), **streaming)
        typer.echo(table(*_table(result)))
        finish(result, out=out, figure=figure, draw=ways_figure)


def _table(result: WaysResult) -> tuple[list[str], list[list[object]]]:
    measures = list(result.ways[0].measures)
    rows: list[list[object]] = [
        [way.layer, way.network, way.start, way.unpooling]
        + [way.measures[name].mean for name in measures]
        for way in result.ways
    ]
    return ["layer", "network", "start", "unpooling", *measures], rows
