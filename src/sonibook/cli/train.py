"""``sonibook train``: a configuration in, a trained network out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonibook.cli import common
from sonibook.cli.common import app, command, parse_numbers, shown, table

if TYPE_CHECKING:
    from sonibook.training.runs import Run


@command(
    app,
    "sonibook train configs/esc50-supervised.yaml --data-root recordings",
    "sonibook train configs/esc50-supervised.yaml --dry-run",
    "sonibook train configs/esc50-supervised.yaml --set seed=1 --out runs/second",
    "sonibook train configs/esc50-supervised.yaml --seeds 0,1,2",
    "torchrun --nproc-per-node 2 -m sonibook train configs/esc50-supervised.yaml",
)
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG")],
    out: Annotated[Path | None, typer.Option(show_default="runs/<name in CONFIG>")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    seeds: str | None = None,
    data_root: common.DataRoot = None,
    retrain_start: Annotated[bool, typer.Option("--retrain-start")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run")] = False,
) -> None:
    """Train a network, or go on with a run that was interrupted.

    The run's folder holds config.yaml, log.csv (a row an epoch), state.safetensors (where the
    run stands) and, at the end, metrics.json and encoder.safetensors, which every command takes
    as --checkpoint. The same command given again goes on where the run stands; with more epochs
    it extends a finished run. A configuration that starts from another's network runs that one
    first, beside it, unless it has been run; another run in its place is refused.

    Several processes: start it by torchrun. XLA: set PJRT_DEVICE (needs the extra xla).

    Options:
        config: YAML, as in configs/.
        out: The run's folder.
        changes: Replace a value; start.KEY is one of the run it starts from. May be repeated.
        seeds: Run once with each of these seeds, such as 0,1,2; see metrics.json.
        retrain_start: Train anew what it starts from, if its folder holds another run (moved
            aside).
        dry_run: Say what would run, and for how long.
    """
    from sonibook.training.runs import load_run, train_seeds

    run = load_run(config, out=out, changes=changes or ())
    if dry_run:
        _print_plan(run, data_root, retrain_start)
        return
    summary, card = {}, {}
    try:
        if seeds is None:
            card = run.train(data_root=data_root, retrain_start=retrain_start)
        else:
            numbers = _seeds(seeds)
            summary = train_seeds(run, numbers, data_root=data_root, retrain_start=retrain_start)
    except KeyboardInterrupt:
        typer.echo("Interrupted: give the same command again to go on.", err=True)
        raise typer.Exit(130) from None
    if summary.get("metrics"):
        rows = [
            [name, f"{found['mean']:.4g}", "{:.4g} to {:.4g}".format(*found["interval"])]
            for name, found in summary["metrics"].items()
        ]
        typer.echo(table(["metric", "mean", "95 % interval"], rows))
        typer.echo(f"Written to {shown(run.out / 'metrics.json')}")
    elif card:
        measured = ", ".join(f"{name} {value:.4g}" for name, value in card["test"].items())
        typer.echo(f"{run.config.name}: {measured}, after {card['epochs']} epochs.")
        typer.echo(f"Written to {shown(run.published)}")


def _seeds(text: str) -> tuple[int, ...]:
    numbers = parse_numbers(text, "seeds", such_as="0,1,2")
    if min(numbers) < 0:
        raise typer.BadParameter(f"{text!r} is not a list of seeds: they begin at 0.")
    return numbers


def _print_plan(run: Run, data_root: Path | None, retrain_start: bool) -> None:
    from sonibook.datasets.fetch import published_size
    from sonibook.errors import DatasetError
    from sonibook.training.distributed import Runtime
    from sonibook.training.experiment import prepare, starting_encoder
    from sonibook.training.folder import RunFolder
    from sonibook.training.runs import plan
    from sonibook.training.sampling import Mixture

    config, planned, start = run.config, run.config, None
    stale = run.check_start(retrain=retrain_start) is not None
    if run.start is not None and run.start.is_finished() and not stale:
        start = run.start.published
    elif run.start is not None:
        typer.echo(f"First {shown(run.start.out.name)} would run, which this one starts from.")
        planned = run.from_scratch()
    RunFolder(run.out, config, start=start)
    try:
        experiment = prepare(planned, data_root=data_root, start=start, read=False)
        train_data, test_data = experiment.train_data, experiment.test_data
        encoder, classes = experiment.encoder, len(train_data.classes)
        clips = sum(train_data.quotas) if isinstance(train_data, Mixture) else len(train_data)
        parts = [f"{len(part)} ({part.split})" for part in (train_data, test_data)]
        if config.data.least_sound:  # how much sound a clip holds is known once it is read
            parts[0] = f"at most {parts[0]}"
    except DatasetError as problem:
        sizes = [published_size(config.data.name, o) for o in (config.data.train, config.data.test)]
        if sizes[0] is None:
            raise
        typer.echo(f"Note: planned by the published size, because {problem}", err=True)
        encoder, (clips, classes) = starting_encoder(planned, start), sizes[0]
        parts = ["unknown" if size is None else f"{size[0]} (published)" for size in sizes]
    optimiser = config.optimiser
    runtime = Runtime(precision=optimiser.precision)
    size = plan(config, encoder, clips=clips, classes=classes, runtime=runtime)
    rows: list[tuple[str, object]] = [
        ("run", config.name),
        ("folder", run.out),
        ("objective", config.objective),
        ("encoder", f"CNN12, width {encoder.width:g}, depth {encoder.depth}, norm {encoder.norm}"),
        ("starts from", config.encoder.start or "random weights (He)"),
        ("trains", "the classifier alone" if config.encoder.fc_only else "everything"),
        ("parameters", size.parameters),
        ("data", config.data.name),
        ("classes", classes),
        ("training clips", parts[0]),
        ("test clips", parts[1]),
        ("crop", f"{config.data.crop_seconds:g} s"),
        ("batch", f"{optimiser.batch_size} clips, {size.batches} an epoch"),
        ("steps", f"{size.steps} in {optimiser.epochs} epochs"),
        ("estimated here", f"{size.hours:{',.0f' if size.hours >= 10 else '.2g'}} hours"),
        ("seed", config.seed),
    ]
    if (run.out / "state.safetensors").exists():
        rows.append(("goes on from", run.out / "state.safetensors"))
    typer.echo(table(["", "would run"], [[name, str(value)] for name, value in rows]))
