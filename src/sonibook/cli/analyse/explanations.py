"""``sonibook analyse explanations``: gradients beside sonifications, by the same measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonibook.cli.analyse.classifiers import (
    Level,
    Probe,
    ProbeLayer,
    Residual,
    open_classifiers,
    open_probed,
    training_part,
)
from sonibook.cli.analyse.options import (
    DatasetName,
    FigureFile,
    Folds,
    Layers,
    Limit,
    Out,
    Processes,
    Seed,
    Split,
    Width,
    finish,
    open_part,
    parse_layers,
    streamed,
)
from sonibook.cli.inputs import DataOptions, DataRoot
from sonibook.cli.output import examples, table

if TYPE_CHECKING:
    from sonibook.analysis.explanation_comparison import ExplanationResult

EXPLANATIONS_EXAMPLES = examples(
    "sonibook analyse explanations supervised --dataset esc50 --folds 5 --limit 40",
    "sonibook analyse explanations supervised --probe --dataset esc10 --folds 5 --layers 4,8,11",
)


def explanations(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="Shipped name, .safetensors file, or with --probe 'random' or 'random:SEED'.",
        ),
    ],
    dataset: DatasetName,
    split: Split = None,
    folds: Folds = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    probe: Probe = False,
    probe_layer: ProbeLayer = 11,
    layers: Layers = None,
    steps: Annotated[int, typer.Option(min=1, help="Of integrated gradients.")] = 32,
    level: Level = "peak",
    residual: Residual = "as is",
    seed: Seed = 0,
    width: Width = 0.25,
    limit: Limit = None,
    processes: Processes = None,
    out: Out = None,
    figure: FigureFile = None,
) -> None:
    """Put gradients through the measures of sonifications.

    Guided backpropagation, gradient x input and integrated gradients of each layer's most active
    filter, as sounds: their coherence with the clip, and what the network misses when they are
    subtracted. Needs Captum: pip install 'sonibook[explain]'.
    """
    from sonibook.analysis.explanation_comparison import compare_explanations
    from sonibook.plots.explanations import explanations_figure

    wanted = parse_layers(layers)
    part: dict[str, Any] = {"split": split, "folds": folds, "root": data_root, "pairs": options}
    data = open_part(dataset, **part)
    if probe:
        training = training_part(dataset, **part)
        classifiers = open_probed([network], training, layer=probe_layer, width=width, seed=seed)
    else:
        classifiers = open_classifiers([network], data)
    ((name, classifier),) = classifiers.items()
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = compare_explanations(
            classifier,
            data,
            name=name,
            layers=wanted,
            steps=steps,
            level=level,
            residual=residual,
            seed=seed,
            **streaming,
        )
        header = ["layer", "method", "coherence", result.score, "drop", "- random phase", "p"]
        typer.echo(table(header, _rows(result)))
        finish(result, out=out, figure=figure, draw=explanations_figure)


def _rows(result: ExplanationResult) -> list[list[object]]:
    rows: list[list[object]] = []
    for one in result.methods:
        tests = {
            test.layer: test for test in one.ablation.comparisons if test.control == "random phase"
        }
        for row in one.ablation.remainders:
            if row.control == "sonification":
                test = tests.get(row.layer)
                rows.append(
                    [
                        row.layer,
                        one.method,
                        one.coherence[row.layer].mean,
                        row.score.mean,
                        row.drop.mean,
                        None if test is None else test.difference.mean,
                        None if test is None else test.p_holm,
                    ]
                )
    return rows
