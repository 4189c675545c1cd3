"""``sonibook analyse activations``: the clips that each filter likes best, and dead filters."""

from __future__ import annotations

from collections import Counter
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
    from sonibook.analysis.activations import ActivationsResult

ACTIVATIONS_EXAMPLES = examples(
    "sonibook analyse activations supervised --dataset soundscapes --limit 40",
    "sonibook analyse activations supervised random --dataset esc10 -k 5 --out activations.json",
)


def activations(
    networks: Networks,
    dataset: DatasetName,
    split: Split = None,
    folds: Folds = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Clips to keep for each filter.")] = 3,
    seed: Seed = 0,
    width: Width = 0.25,
    limit: Limit = None,
    processes: Processes = None,
    out: Out = None,
    figure: FigureFile = None,
) -> None:
    """Find the clips that activate each filter most, and count dead ones (section 3.3).

    The JSON holds the top clips of every filter of every layer. Printed are, for each layer: dead
    filters (live on no clip), the share of pairs of a clip and a filter whose map is zero, and
    the clip that most filters like best.
    """
    from sonibook.analysis.activations import top_activations
    from sonibook.plots.activations import activations_figure

    data = open_part(dataset, split=split, folds=folds, root=data_root, pairs=options)
    encoders = open_networks(networks, width=width, seed=seed)
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = top_activations(encoders, data, k=k, **streaming)
        header = ["layer", "network", "filters", "dead", "dead pairs", "clip liked most", "by"]
        typer.echo(table(header, _rows(result)))
        finish(result, out=out, figure=figure, draw=activations_figure)


def _rows(result: ActivationsResult) -> list[list[object]]:
    rows: list[list[object]] = []
    for network in result.activations:
        for layer in network.layers:
            liked = Counter(one.top[0].clip_id for one in layer.filters if one.top)
            clip_id, by = liked.most_common(1)[0] if liked else (None, 0)
            pairs = f"{layer.dead_pairs / layer.pairs:.1%}"
            counts = [len(layer.filters), layer.dead_filters, pairs]
            rows.append([layer.layer, network.network, *counts, clip_id, by])
    return rows
