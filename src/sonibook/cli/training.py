"""``sonibook train``: a configuration in, a network out. ``sonibook evaluate``: how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonibook import model, training
from sonibook.cli import common
from sonibook.cli.common import app, check_classes, command, parse_numbers, seed_of, shown, table
from sonibook.errors import DatasetError
from sonibook.files import write_result

if TYPE_CHECKING:
    from numpy import ndarray

    from sonibook.datasets import Dataset
    from sonibook.datasets.base import ClipReader
    from sonibook.model.encoder import CNN12, Classifier
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
    run = training.load_run(config, out=out, changes=changes or ())
    if dry_run:
        _print_plan(run, data_root, retrain_start)
        return
    numbers = parse_numbers(seeds, "seeds")
    summary, card = {}, {}
    try:
        if numbers is None:
            card = run.train(data_root=data_root, retrain_start=retrain_start)
        else:
            if min(numbers) < 0:
                raise typer.BadParameter(f"{seeds!r} is not a list of seeds: they begin at 0.")
            summary = training.train_seeds(
                run, numbers, data_root=data_root, retrain_start=retrain_start
            )
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


def _print_plan(run: Run, data_root: Path | None, retrain_start: bool) -> None:
    from sonibook.datasets import published_size

    config, planned, start = run.config, run.config, None
    stale = run.check_start(retrain=retrain_start) is not None
    if run.start is not None and run.start.is_finished() and not stale:
        start = run.start.published
    elif run.start is not None:
        typer.echo(f"First {shown(run.start.out.name)} would run, which this one starts from.")
        planned = run.from_scratch()
    training.RunFolder(run.out, config, start=start)
    try:
        experiment = training.prepare(planned, data_root=data_root, start=start, read=False)
        train_data, test_data = experiment.train_data, experiment.test_data
        encoder, classes = experiment.encoder, len(train_data.classes)
        clips = experiment.batches(train_data).drawn
        parts = [f"{len(part)} ({part.split})" for part in (train_data, test_data)]
        if config.data.least_sound:  # how much sound a clip holds is known once it is read
            parts[0] = f"at most {parts[0]}"
    except DatasetError as problem:
        sizes = [published_size(config.data.name, o) for o in (config.data.train, config.data.test)]
        if sizes[0] is None:
            raise
        typer.echo(f"Note: planned by the published size, because {problem}", err=True)
        encoder, (clips, classes) = training.starting_encoder(planned, start), sizes[0]
        parts = ["unknown" if size is None else f"{size[0]} (published)" for size in sizes]
    optimiser = config.optimiser
    runtime = training.Runtime(precision=optimiser.precision)
    size = training.plan(config, encoder, clips=clips, classes=classes, runtime=runtime)
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


@command(
    app,
    "sonibook evaluate supervised --dataset esc50 --folds 5",
    "sonibook evaluate supervised random --dataset esc50 --folds 5 --probe --out results.json",
    "sonibook evaluate random --dataset fsdd --probe --layer 8",
    "sonibook evaluate contrastive random:1 --dataset soundscapes --probe",
    short_help="Measure how well networks tell classes apart, beside chance.",
)
def evaluate(
    checkpoints: Annotated[list[str], typer.Argument(metavar="CHECKPOINT")],
    dataset: common.DataName,
    folds: str | None = None,
    split: common.Split = None,
    options: common.DataOptions = None,
    data_root: common.DataRoot = None,
    probe: Annotated[bool, typer.Option("--probe")] = False,
    layer: int = 11,
    seed: common.Natural = 0,
    width: common.Width = 0.25,
    batch_size: common.Count = 16,
    out: common.JsonOut = None,
) -> None:
    """Measure how well networks tell classes apart on whole clips, beside chance.

    Of clips with one label the accuracy, with Wilson's 95 % interval; of clips with any number of
    labels mAP, mAUC and d', with bootstrap intervals over clips. A checkpoint with classes is asked
    for the classes of each clip; they must be the data set's, or only the probe is measured. With
    --probe a logistic regression on each encoder's standardised mean feature maps is fitted to the
    training part, its regularisation chosen by cross-validation there, and tested on the same
    clips. An untrained encoder (He weights) is what both must be read against. Clips that cannot
    be read are left out and counted, a few at most.

    Options:
        checkpoints: Shipped names, .safetensors files, or 'random' or 'random:SEED' for an
            untrained encoder.
        folds: Test on these folds (ESC-50), such as 5; the others train the probe.
        probe: Fit a linear probe on each frozen encoder, too (on split train).
        layer: Layer whose mean feature maps the probe sees.
        seed: Of the random encoder, the probe and the bootstrap.
        width: Of the random encoder.
        batch_size: Clips at once.
    """
    from sonibook.cli.analysis import Asked
    from sonibook.datasets.base import ClipReader

    asked = Asked([], dataset, split, folds, options, data_root)
    reader = ClipReader(asked.data)
    fitted = ClipReader(asked.training) if probe else None
    # First see that everything can be done: the measuring takes minutes.
    networks = [
        (name, *_open(name, reader.data, width=width, seed=seed, probe=probe))
        for name in checkpoints
    ]
    if probe:
        for _, encoder, _ in networks:
            encoder.truncate(layer)
    results: list[dict[str, Any]] = []
    for name, encoder, classifier in networks:
        if classifier is not None:
            scores, targets = training.predict(
                classifier,
                reader,
                least_length=encoder.least_length,
                batch_size=batch_size,
                progress=True,
            )
            if reader.data.task == "single-label":
                scores, targets = scores.argmax(axis=1), targets.argmax(axis=1)
            found = _measured(scores, targets, reader.data, seed)
            results.append({"network": name, "method": "classifier", **found})
        if fitted is not None:
            found = _probed(encoder, fitted, reader, layer, seed, batch_size)
            results.append({"network": name, "method": "probe", "layer": layer, **found})
    _report(results, reader, fitted, out, {"seed": seed, "width_of_random": width})


def _open(
    name: str, data: Dataset, *, width: float, seed: int, probe: bool
) -> tuple[CNN12, Classifier | None]:
    """An encoder by name, and its classifier where it has the classes of the data set."""
    if (own_seed := seed_of(name, seed)) is not None:
        encoder = model.CNN12(width=width, seed=own_seed).eval()
    elif "classes" not in model.read_card(name):
        encoder = model.load_encoder(name)
    else:
        network = model.load_classifier(name)
        if network.classes != data.classes and probe:
            return network.encoder, None
        check_classes(name, network.classes, data)
        return network.encoder, network
    if not probe:
        raise typer.BadParameter(f"{name} has no classes to name: add --probe.")
    return encoder, None


def _probed(
    encoder: CNN12, fitted: ClipReader, tested: ClipReader, layer: int, seed: int, batch_size: int
) -> dict[str, Any]:
    """How well a linear probe on an encoder, fitted to one part, does on the part tested."""
    (features, labels), (asked, truth) = (
        training.probe_features(encoder, reader, layer=layer, batch_size=batch_size, progress=True)
        for reader in (fitted, tested)
    )
    groups = training.groups_of(fitted, tested=tested.data)
    probe = training.linear_probe(features, labels, asked, groups=groups, seed=seed)
    own = {"strength": probe.strength, "folds_of_cross_validation": probe.folds}
    return _measured(probe.predicted, truth, tested.data, seed) | own


def _measured(answers: ndarray, truth: ndarray, data: Dataset, seed: int) -> dict[str, Any]:
    """The metrics that suit the data, of the class or the scores of each clip, with intervals."""
    from sonibook.metrics.intervals import wilson_interval
    from sonibook.metrics.scores import multilabel_intervals, multilabel_metrics

    if data.task == "multi-label":
        intervals = multilabel_intervals(answers, truth, seed=seed)
        return {**multilabel_metrics(answers, truth), "intervals": intervals}
    correct, total = int((answers == truth).sum()), len(truth)
    interval = list(wilson_interval(correct, total))
    return {"accuracy": correct / total, "interval": interval, "correct": correct}


def _report(
    results: list[dict[str, Any]],
    tested: ClipReader,
    fitted: ClipReader | None,
    out: Path | None,
    settings: dict[str, object],
) -> None:
    """Print the results, and write them where that is asked for."""
    data, count = tested.data, len(tested.data) - len(tested.bad)
    unreadable = {}
    for part, reader in {"test": tested, "training": fitted}.items():
        if reader is not None:
            unreadable[part] = len(reader.bad)
            reader.warn()
    typer.echo(f"{data.name} ({data.split}), {count} clips, {len(data.classes)} classes")
    content: dict[str, Any] = {
        "dataset": data.name,
        "tested_on": data.split,
        "probe_trained_on": None if fitted is None else fitted.data.split,
        "clips": count,
        **({"unreadable_clips": unreadable} if any(unreadable.values()) else {}),
        "classes": len(data.classes),
    }
    if data.task == "multi-label":
        shares = [0.0] * len(data.classes)
        for index in set(range(len(data))) - tested.bad.keys():
            for label in data.labels(index):
                shares[label] += 1 / count
        present = [share for share in shares if share]
        chance = {"mAP": sum(present) / len(present), "mAUC": 0.5, "d_prime": 0.0}
        columns, by_chance = ["mAP", "mAUC", "d'"], [f"{value:.3f}" for value in chance.values()]
        scores = [
            [_with_interval(row.get(key), row["intervals"].get(key)) for key in chance]
            for row in results
        ]
        content |= {"chance": chance, "interval": "bootstrap over clips, 95 %"}
    else:
        columns, by_chance = ["accuracy", "95 % interval"], [f"{1 / len(data.classes):.1%}", ""]
        scores = [
            [f"{row['accuracy']:.1%}", "{:.1%} to {:.1%}".format(*row["interval"])]
            for row in results
        ]
        content |= {"chance": 1 / len(data.classes), "interval": "Wilson score interval, 95 %"}
    lines = [["chance", "", *by_chance]]
    for row, found in zip(results, scores, strict=True):
        layer = f" on layer {row['layer']}" if "layer" in row else ""
        lines.append([row["network"], row["method"] + layer, *found])
    typer.echo(table(["network", "method", *columns], lines))
    if out is not None:
        write_result(out, {**content, **settings, "results": results})
        typer.echo(f"Written to {shown(out)}")


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None:  # d' of an area of 0 or 1 is infinite
        return "-"
    return f"{value:.3f}" + ("" if interval is None else " [{:.3f}, {:.3f}]".format(*interval))
