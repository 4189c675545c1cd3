"""``sonibook train``: a configuration in, a trained network out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonibook.cli.inputs import DataRoot
from sonibook.cli.output import examples, shown, table

if TYPE_CHECKING:
    from sonibook.training.config import TrainConfig

TRAIN_EXAMPLES = examples(
    "sonibook train configs/esc50-supervised.yaml --data-root recordings",
    "sonibook train configs/esc50-supervised.yaml --dry-run",
    "sonibook train configs/esc50-supervised.yaml --out runs/second",
)


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML, as in configs/.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The run's folder.", show_default="runs/<name in CONFIG>"),
    ] = None,
    data_root: DataRoot = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")
    ] = False,
) -> None:
    """Train a network, or go on with a run that was interrupted.

    The run's folder holds config.yaml, log.csv (a row an epoch), state.safetensors (where the
    run stands) and, at the end, encoder.safetensors, which every command takes as --checkpoint.
    The same command given again goes on from the last finished epoch.
    """
    from sonibook.training.config import load_config

    experiment = load_config(config)
    out = Path("runs", experiment.name) if out is None else out
    if dry_run:
        _print_plan(experiment, out, data_root)
        return

    from sonibook.training.loop import train as run

    try:
        card = run(experiment, out=out, data_root=data_root)
    except KeyboardInterrupt:
        typer.echo(
            "Interrupted: give the same command again to go on from the last finished epoch.",
            err=True,
        )
        raise typer.Exit(130) from None
    typer.echo(
        f"{experiment.name}: accuracy {card['test_accuracy']:.1%} on {card['test_clips']} test "
        f"clips (chance {card['chance']:.1%}), after {card['epochs']} epochs."
    )
    typer.echo(f"Written to {shown(out / 'encoder.safetensors')}")


def _print_plan(config: TrainConfig, out: Path, data_root: Path | None) -> None:
    from sonibook.training.experiment import prepare
    from sonibook.training.loop import check_folder

    check_folder(out, config)
    experiment = prepare(config, data_root=data_root)
    network, batches = experiment.network, experiment.batches
    steps = config.optimiser.epochs * len(batches)
    published = network.encoder.fold()
    rows: list[list[object]] = [
        ["run", config.name],
        ["folder", out],
        ["encoder", f"CNN12, width {config.encoder.width:g}, norm {config.encoder.norm}"],
        ["parameters", sum(p.numel() for p in published.parameters())],
        ["  of the classifier", sum(p.numel() for p in network.head.parameters())],
        ["data", experiment.train_data.name],
        ["classes", len(experiment.train_data.classes)],
        ["training clips", f"{len(experiment.train_data)} ({experiment.train_data.split})"],
        ["test clips", f"{len(experiment.test_data)} ({experiment.test_data.split})"],
        ["crop", f"{config.data.crop_seconds:g} s"],
        ["batch", f"{config.optimiser.batch_size} clips, {len(batches)} an epoch"],
        ["steps", f"{steps} in {config.optimiser.epochs} epochs"],
        ["seed", config.seed],
    ]
    if (out / "state.safetensors").exists():
        rows.append(["goes on from", out / "state.safetensors"])
    typer.echo(table(["", "would run"], [[name, str(value)] for name, value in rows]))
