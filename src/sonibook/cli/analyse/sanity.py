"""``sonibook analyse sanity``: does a sonification depend on what was learned?"""

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
    from sonibook.analysis.sanity import SanityResult

SANITY_EXAMPLES = examples(
    "sonibook analyse sanity supervised --dataset soundscapes --limit 40",
    "sonibook analyse sanity supervised runs/shuffled/checkpoint.safetensors --dataset esc10 "
    "--folds 5 --out sanity.json --figure sanity.png",
)


def sanity(
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
    """How much a sonification changes as layers forget what they learned (sanity checks).

    The first network is the one that is randomised, from the most active filter's layer down
    and layer by layer; others, such as one trained on shuffled labels, are set beside it. What
    cannot tell of learning stands there, too: the clip itself, the next most active filter, and
    random networks.
    """
    from sonibook.analysis.sanity import sanity as measure
    from sonibook.plots.sanity import sanity_figure

    data = open_part(dataset, split=split, folds=folds, root=data_root, pairs=options)
    opened = open_networks(networks, width=width, seed=seed)
    name, *others = opened
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = measure(
            opened[name],
            data,
            name=name,
            others={other: opened[other] for other in others},
            layers=parse_layers(layers),
            seed=seed,
            **streaming,
        )
        typer.echo(table(*_table(result)))
        finish(result, out=out, figure=figure, draw=sanity_figure)


def _table(result: SanityResult) -> tuple[list[str], list[list[object]]]:
    """Each layer with itself, and with all below it, randomised; then the baselines."""
    from sonibook.analysis.sanity import MEASURES

    rows: list[list[object]] = []
    for layer in sorted({point.layer for point in result.points}):
        for point in result.points:
            ends = {layer: "own layer random", 1: "all layers random"}
            if (point.layer, point.randomised) == (layer, "cascading") and point.down_to in ends:
                means = [point.likeness[name].mean for name in MEASURES]
                rows.append([layer, ends[point.down_to], *means])
        for one in result.baselines:
            if one.layer == layer:
                rows.append([layer, one.name, *(one.likeness[name].mean for name in MEASURES)])
    return ["layer", "compared with", *MEASURES], rows
