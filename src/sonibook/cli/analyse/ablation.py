"""``sonibook analyse ablation``: what a network misses when sonifications are taken away."""

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
    Networks,
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
    from sonibook.analysis.ablation_result import AblationResult

ABLATION_EXAMPLES = examples(
    "sonibook analyse ablation supervised --dataset esc50 --folds 5 --limit 40",
    "sonibook analyse ablation supervised random --probe --dataset esc10 --folds 5",
    "sonibook analyse ablation a.safetensors b.safetensors --runs --dataset soundscapes",
)


def ablation(
    networks: Networks,
    dataset: DatasetName,
    split: Split = None,
    folds: Folds = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    probe: Probe = False,
    probe_layer: ProbeLayer = 11,
    layers: Layers = None,
    level: Level = "peak",
    residual: Residual = "as is",
    runs: Annotated[
        bool,
        typer.Option(
            "--runs", help="The networks differ in their seed alone: test over them, too."
        ),
    ] = False,
    seed: Seed = 0,
    width: Width = 0.25,
    limit: Limit = None,
    processes: Processes = None,
    out: Out = None,
    figure: FigureFile = None,
) -> None:
    """Subtract each layer's sonification, and controls, and ask again (figure 6).

    Accuracy, or mAP where clips have several labels, on what is left of each clip when the
    sonification of its most active filter is subtracted; beside it, under controls of the same
    RMS: the sonification by random weights, another clip's, one with random phases, white noise,
    the sonification added, and least-squares removal. Tests are paired, clip by clip.
    """
    from sonibook.analysis.ablation import ablate
    from sonibook.plots.ablation import ablation_figure

    wanted = parse_layers(layers)
    part: dict[str, Any] = {"split": split, "folds": folds, "root": data_root, "pairs": options}
    data = open_part(dataset, **part)
    if probe:
        training = training_part(dataset, **part)
        classifiers = open_probed(networks, training, layer=probe_layer, width=width, seed=seed)
    else:
        classifiers = open_classifiers(networks, data)
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = ablate(
            classifiers,
            data,
            layers=wanted,
            level=level,
            residual=residual,
            are_runs=runs,
            seed=seed,
            **streaming,
        )
        _report(result)
        finish(result, out=out, figure=figure, draw=ablation_figure)


def _report(result: AblationResult) -> None:
    """Print, for every layer and control, what is left, and how it compares."""
    for ablation in result.ablations:
        tests = {(one.layer, one.control): one for one in ablation.comparisons}
        rows: list[list[object]] = []
        for one in ablation.remainders:
            test = tests.get((one.layer, one.control))
            rows.append(
                [
                    one.layer,
                    one.control,
                    one.score.mean,
                    one.drop.mean,
                    None if test is None else test.difference.mean,
                    None if test is None else test.p_holm,
                ]
            )
        typer.echo(f"{ablation.network}: {result.score} {ablation.score.mean:.4g} untouched")
        typer.echo(
            table(["layer", "taken away", result.score, "drop", "s - control", "Holm's p"], rows)
        )
        silent = {layer: count for layer, count in ablation.silent.items() if count}
        if silent:
            listed = ", ".join(f"{count} at layer {layer}" for layer, count in silent.items())
            typer.echo(f"Clips left out because no filter is live: {listed}")
