"""``sonibook train``: a configuration in, a trained network out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonibook.cli.inputs import DataRoot, parse_numbers
from sonibook.cli.output import examples, shown, table

if TYPE_CHECKING:
    from sonibook.training.config import TrainConfig

TRAIN_EXAMPLES = examples(
    "sonibook train configs/esc50-supervised.yaml --data-root recordings",
    "sonibook train configs/esc50-supervised.yaml --dry-run",
    "sonibook train configs/esc50-supervised.yaml --set seed=1 --out runs/second",
    "sonibook train configs/esc50-supervised.yaml --seeds 0,1,2",
    "torchrun --nproc-per-node 2 -m sonibook train configs/esc50-supervised.yaml",
)


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML, as in configs/.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The run's folder.", show_default="runs/<name in CONFIG>"),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a value; may be given again."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Run once with each of these seeds, such as 0,1,2; see metrics.json."),
    ] = None,
    data_root: DataRoot = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and for how long.")
    ] = False,
) -> None:
    """Train a network, or go on with a run that was interrupted.

    The run's folder holds config.yaml, log.csv (a row an epoch), state.safetensors (where the
    run stands) and, at the end, metrics.json and encoder.safetensors, which every command takes
    as --checkpoint. The same command given again goes on where the run stands. A configuration
    that starts from another's network runs that one first, beside it, unless it has been run.

    Several processes: start it by torchrun. XLA: set PJRT_DEVICE (needs the extra xla).
    """
    from sonibook.training.config import load_config

    experiment = load_config(config, changes=tuple(changes or ()))
    out = Path("runs", experiment.name) if out is None else out
    if dry_run:
        _print_plan(experiment, out, data_root)
        return

    from sonibook.training.rows import train_row, train_seeds

    try:
        if seeds is not None:
            _report(train_seeds(experiment, _seeds(seeds), out=out, data_root=data_root), out)
            return
        card = train_row(experiment, out=out, data_root=data_root)
    except KeyboardInterrupt:
        typer.echo("Interrupted: give the same command again to go on.", err=True)
        raise typer.Exit(130) from None
    if card:
        measured = ", ".join(f"{name} {value:.4g}" for name, value in card["test"].items())
        typer.echo(f"{experiment.name}: {measured}, after {card['epochs']} epochs.")
        typer.echo(f"Written to {shown(out / 'encoder.safetensors')}")


def _seeds(text: str) -> tuple[int, ...]:
    numbers = parse_numbers(text, "seeds", such_as="0,1,2")
    if min(numbers) < 0:
        raise typer.BadParameter(f"{text!r} is no list of seeds: they begin at 0.")
    return numbers


def _report(summary: dict[str, Any], out: Path) -> None:
    rows = [
        [name, f"{found['mean']:.4g}", "{:.4g} to {:.4g}".format(*found["interval"])]
        for name, found in summary.get("metrics", {}).items()
    ]
    if rows:
        typer.echo(table(["metric", "mean", "95 % interval"], rows))
        typer.echo(f"Written to {shown(out / 'metrics.json')}")


def _print_plan(config: TrainConfig, out: Path, data_root: Path | None) -> None:
    from sonibook.datasets.fetch import published_size
    from sonibook.errors import DatasetError
    from sonibook.training.distributed import Runtime
    from sonibook.training.experiment import prepare, starting_encoder
    from sonibook.training.loop import check_folder
    from sonibook.training.plan import plan
    from sonibook.training.rows import from_scratch, start_of

    check_folder(out, config)
    planned, start = config, start_of(config, out)
    if start is not None and not start.exists():
        typer.echo(f"First {shown(start.parent.name)} would run, which this one starts from.")
        planned, start = from_scratch(config), None
    try:
        experiment = prepare(planned, data_root=data_root, start=start)
        train_data, test_data = experiment.train_data, experiment.test_data
        encoder, clips, classes = experiment.encoder, len(train_data), len(train_data.classes)
        parts = [f"{len(part)} ({part.split})" for part in (train_data, test_data)]
    except DatasetError as problem:
        sizes = [published_size(config.data.name, o) for o in (config.data.train, config.data.test)]
        if sizes[0] is None:
            raise
        typer.echo(f"Note: planned by the published size, because {problem}", err=True)
        encoder, (clips, classes) = starting_encoder(planned, start), sizes[0]
        parts = ["unknown" if size is None else f"{size[0]} (published)" for size in sizes]
    size = plan(
        config,
        encoder,
        clips=clips,
        classes=classes,
        runtime=Runtime(precision=config.optimiser.precision),
    )
    rows: list[list[object]] = [
        ["run", config.name],
        ["folder", out],
        ["objective", config.objective],
        [
            "encoder",
            f"CNN12, width {encoder.width:g}, depth {encoder.depth}, norm {encoder.norm}",
        ],
        ["starts from", config.encoder.start or "random weights (He)"],
        ["trains", "the classifier alone" if config.encoder.fc_only else "everything"],
        ["parameters", size.parameters],
        ["data", config.data.name],
        ["classes", classes],
        ["training clips", parts[0]],
        ["test clips", parts[1]],
        ["crop", f"{config.data.crop_seconds:g} s"],
        ["batch", f"{config.optimiser.batch_size} clips, {size.batches} an epoch"],
        ["steps", f"{size.steps} in {config.optimiser.epochs} epochs"],
        ["estimated here", f"{size.hours:{',.0f' if size.hours >= 10 else '.2g'}} hours"],
        ["seed", config.seed],
    ]
    if (out / "state.safetensors").exists():
        rows.append(["goes on from", out / "state.safetensors"])
    typer.echo(table(["", "would run"], [[name, str(value)] for name, value in rows]))
