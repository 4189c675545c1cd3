"""``sonibook analyse separation``: what filters pick out of scenes with known sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sonibook.cli.analyse.options import (
    DatasetName,
    FigureFile,
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
    from sonibook.analysis.separation_result import SeparationResult

SEPARATION_EXAMPLES = examples(
    "sonibook analyse separation supervised --dataset soundscapes --limit 100",
    "sonibook analyse separation supervised --dataset soundscapes "
    "--option mixture_of=esc10 --out separation.json --figure separation.png",
)


def separation(
    networks: Networks,
    dataset: DatasetName = "soundscapes",
    split: Split = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    filters: Annotated[
        int, typer.Option(min=1, help="Most active filters of a layer to sonify.")
    ] = 4,
    method: Annotated[
        str,
        typer.Option(
            help="What to make a filter's sound with: sonification, guided backpropagation, "
            "gradient x input or integrated gradients."
        ),
    ] = "sonification",
    seed: Seed = 0,
    width: Width = 0.25,
    limit: Limit = None,
    processes: Processes = None,
    out: Out = None,
    figure: FigureFile = None,
) -> None:
    """How much of each source sonifications hold, which filters detect which event, and when.

    The data set must be one of scenes: soundscapes, or mixtures of recordings (--option
    mixture_of=esc10). Beside each network stands the same with random weights.
    """
    from sonibook.analysis.separation import separation as measure
    from sonibook.deconvnet.attributions import METHODS
    from sonibook.plots.separation import separation_figure

    data = open_part(dataset, split=split, folds=None, root=data_root, pairs=options)
    named = next((one for one in METHODS if one == method), None)
    if named is None:
        raise typer.BadParameter(f"choose one of {', '.join(METHODS)}.", param_hint="--method")
    opened = open_networks(networks, width=width, seed=seed)
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = measure(opened, data, filters=filters, method=named, seed=seed, **streaming)
        _print(result)
        finish(result, out=out, figure=figure, draw=separation_figure)


def _print(result: SeparationResult) -> None:
    from sonibook.analysis.stems import HOLDINGS

    rows: list[list[object]] = [
        [
            row.layer,
            row.network,
            *(row.held[name].mean for name in HOLDINGS),
            row.lag["sound"].mean,
            None if row.detection is None else row.detection.area,
        ]
        for row in sorted(result.layers, key=lambda row: row.layer)
    ]
    typer.echo(table(["layer", "network", *HOLDINGS, "lag / s", "detection"], rows))
    best: list[list[object]] = [
        [one.event, one.network, one.layer, one.filter, one.chosen_area, one.area, one.p]
        for one in sorted(result.detectors, key=lambda one: one.event)
    ]
    if best:
        header = ["event", "network", "layer", "filter", "area, chosen on", "area, elsewhere", "p"]
        typer.echo("\n" + table(header, best))
    typer.echo(
        f"\n{result.several} scenes of several sources; {result.timed} with a first event alone"
    )
