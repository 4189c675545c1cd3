"""``sonibook analyse layers``: what each truncation depth tells of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonibook.cli.analyse.classifiers import training_part
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
    from sonibook.analysis.layers import LayerResult

LAYERS_EXAMPLES = examples(
    "sonibook analyse layers supervised --dataset esc10 --folds 5 --out in-domain.json",
    "sonibook analyse layers supervised --dataset fsdd --beside in-domain.json --figure layers.png",
    "sonibook analyse layers random --dataset esc10 --leave-one-out",
)


def layers(
    networks: Networks,
    dataset: DatasetName,
    split: Split = None,
    folds: Folds = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out",
            help="Measure on the whole data set: leave out each group in turn (of ESC-50 the "
            "fold, of FSDD the speaker), and fit the probes to the others.",
        ),
    ] = False,
    trained: Annotated[
        list[Path] | None,
        typer.Option(
            help="metrics.json of a network of some depth that was trained whole, to set beside "
            "the probes. May be repeated."
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="An earlier result to draw beside this one. May be repeated."),
    ] = None,
    seed: Seed = 0,
    width: Width = 0.25,
    limit: Limit = None,
    processes: Processes = None,
    out: Out = None,
    figure: FigureFile = None,
) -> None:
    """Fit a linear probe on every layer, beside random weights (figure 4).

    Probes see each layer's mean feature maps. They are fitted to split train, or to the folds
    that are not measured on.
    """
    from sonibook.analysis.layers import LayerResult, layer_importances
    from sonibook.analysis.trained_depth import read_trained
    from sonibook.plots.layers import layers_figure

    if leave_one_out and (split is not None or folds is not None):
        raise typer.BadParameter(
            "the whole data set is measured on: give no --split and no --folds.",
            param_hint="--leave-one-out",
        )
    part: dict[str, Any] = {"root": data_root, "pairs": options, "folds": folds}
    data = open_part(dataset, split="all" if leave_one_out else split, **part)
    training = None if leave_one_out else training_part(dataset, split=split, **part)
    earlier = [LayerResult.read(path) for path in beside or ()]
    runs = [read_trained(path) for path in trained or ()]
    encoders = open_networks(networks, width=width, seed=seed)
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = layer_importances(
            encoders, data, training=training, trained=runs, seed=seed, **streaming
        )
        header = ["layer", "network", "accuracy", "low", "high", "above random", "low", "high"]
        typer.echo(table(header, _rows(result)))
        finish(result, out=out, figure=figure, draw=lambda own: layers_figure(*earlier, own))


def _rows(result: LayerResult) -> list[list[object]]:
    rows: list[list[object]] = [[None, "chance", result.chance, *[None] * 5]]
    for run in result.trained:
        whole = run.accuracy
        title = f"{run.curve}, trained whole"
        rows.append([run.layer, title, whole.mean, whole.low, whole.high, *[None] * 3])
    for curve in result.curves:
        for one in curve.layers:
            own, above = one.accuracy, one.above_random
            ends = [None] * 3 if above is None else [above.mean, above.low, above.high]
            rows.append([one.layer, curve.network, own.mean, own.low, own.high, *ends])
    return rows
