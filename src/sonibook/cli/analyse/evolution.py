"""``sonibook analyse evolution``: filters' sonifications through training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonibook.cli.analyse.options import (
    DatasetName,
    FigureFile,
    Folds,
    Limit,
    Out,
    Processes,
    Seed,
    Split,
    finish,
    open_part,
    streamed,
)
from sonibook.cli.inputs import DataOptions, DataRoot
from sonibook.cli.output import examples, shown, table

if TYPE_CHECKING:
    from sonibook.analysis.evolution import EvolutionResult
    from sonibook.datasets import Dataset
    from sonibook.model.encoder import CNN12

EVOLUTION_EXAMPLES = examples(
    "sonibook analyse evolution runs/mine/kept/*.safetensors --dataset esc10 --figure strips.png",
    "sonibook analyse evolution runs/mine/kept/*.safetensors --dataset soundscapes --filter 8:17 "
    "--sounds heard",
)


def evolution(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT", help="Checkpoints of one run, whose cards say their epochs."
        ),
    ],
    dataset: DatasetName,
    split: Split = None,
    folds: Folds = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            "-f",
            metavar="LAYER:FILTER",
            help="Filter to follow; may be repeated. By default some of each layer are drawn.",
        ),
    ] = None,
    per_layer: Annotated[
        int, typer.Option(min=1, help="How many are drawn of each layer, where none is named.")
    ] = 1,
    seed: Seed = 0,
    limit: Limit = None,
    processes: Processes = None,
    out: Out = None,
    figure: FigureFile = None,
    sounds: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", file_okay=False, help="Write what is heard as WAV files."),
    ] = None,
) -> None:
    """Follow filters back through the checkpoints of a training run (section 3.4, figure 5).

    The clip is the one that activates a filter most at the last checkpoint. Every checkpoint
    sonifies it, and is compared with what came out in the end.
    """
    from sonibook.analysis.evolution import feature_evolution
    from sonibook.plots.evolution import evolution_figure

    data = open_part(dataset, split=split, folds=folds, root=data_root, pairs=options)
    run = _open_run(checkpoints)
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = feature_evolution(
            run, data, filters=_pairs(filters), per_layer=per_layer, seed=seed, **streaming
        )
        header = ["layer", "filter", "clip", "epoch", "energy"]
        typer.echo(table([*header, "correlation", "coherence", "cosine"], _rows(result)))
        if sounds is not None:
            _write_sounds(sounds, result, run, data)
            typer.echo(f"Sounds are in {shown(sounds)}")
        finish(result, out=out, figure=figure, draw=evolution_figure)


def _open_run(names: Sequence[str]) -> dict[int, CNN12]:
    """The networks by epoch, as their cards say."""
    from sonibook.errors import CheckpointError
    from sonibook.model.checkpoint import load_encoder, read_card

    run: dict[int, CNN12] = {}
    for name in names:
        epoch = read_card(name).get("epoch")
        if not isinstance(epoch, int):
            raise CheckpointError(
                f"{name}: its card names no epoch: give the checkpoints that a run has kept."
            )
        if epoch in run:
            raise CheckpointError(f"{name}: there is another checkpoint of epoch {epoch}.")
        run[epoch] = load_encoder(name)
    return run


def _pairs(texts: Sequence[str] | None) -> list[tuple[int, int]] | None:
    if not texts:
        return None
    pairs = []
    for text in texts:
        layer, _, index = text.partition(":")
        if not (layer.isdecimal() and index.isdecimal()):
            raise typer.BadParameter(
                f"{text!r} is no LAYER:FILTER such as 8:17.", param_hint="--filter"
            )
        pairs.append((int(layer), int(index)))
    return pairs


def _rows(result: EvolutionResult) -> list[list[object]]:
    return [
        [
            row.layer,
            row.filter,
            row.clip.clip_id,
            step.epoch,
            step.energy,
            step.correlation,
            step.coherence,
            step.cosine,
        ]
        for row in result.filters
        for step in row.steps
    ]


def _write_sounds(
    folder: Path, result: EvolutionResult, run: dict[int, CNN12], data: Dataset
) -> None:
    """For each filter a folder with the clip and every checkpoint's sonification of it."""
    from sonibook.analysis.evolution import sonify_through_training
    from sonibook.audio import write_wav

    for row in result.filters:
        own = folder / f"layer{row.layer:02d}-filter{row.filter:04d}"
        x = data[row.clip.index].waveform
        heard, _ = sonify_through_training(run, x, layer=row.layer, filter=row.filter)
        write_wav(own / "input.wav", x)
        for step, sound in zip(row.steps, heard.numpy(), strict=True):
            write_wav(own / f"epoch-{step.epoch:04d}.wav", sound)
