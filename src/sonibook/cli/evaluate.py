"""``sonibook evaluate``: how well a network tells classes apart, beside chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonibook.cli import common
from sonibook.cli.common import app, check_classes, command, seed_of, shown, table

if TYPE_CHECKING:
    from numpy import ndarray

    from sonibook.datasets import Dataset
    from sonibook.datasets.base import ClipReader
    from sonibook.model.encoder import CNN12, Classifier


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
    dataset: Annotated[str, typer.Option("--dataset", "-d")],
    folds: str | None = None,
    split: Annotated[str | None, typer.Option(show_default="test")] = None,
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
        dataset: Data set to test on (sonibook data list).
        folds: Test on these folds (ESC-50), such as 5; the others train the probe.
        split: Test on this split.
        probe: Fit a linear probe on each frozen encoder, too (on split train).
        layer: Layer whose mean feature maps the probe sees.
        seed: Of the random encoder, the probe and the bootstrap.
        width: Of the random encoder.
        batch_size: Clips at once.
    """
    from sonibook.cli.analysis import Asked
    from sonibook.datasets.base import ClipReader
    from sonibook.results import check_replaceable
    from sonibook.training.data import predict

    if out is not None:
        check_replaceable(out)
    asked = Asked((), dataset, split, folds, options, data_root)
    reader = ClipReader(asked.data)
    training = ClipReader(asked.training) if probe else None
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
            scores, targets = predict(
                classifier,
                reader.data,
                least_length=encoder.least_length,
                batch_size=batch_size,
                progress=True,
                read=reader,
            )
            found = _measured(scores, targets, reader.data, seed)
            results.append({"network": name, "method": "classifier", **found})
        if training is not None:
            found = _probed(encoder, training, reader, layer, seed=seed, batch_size=batch_size)
            results.append({"network": name, "method": "probe", "layer": layer, **found})
    _report(results, reader, training, out, {"seed": seed, "width_of_random": width})


def _open(
    name: str, data: Dataset, *, width: float, seed: int, probe: bool
) -> tuple[CNN12, Classifier | None]:
    """An encoder by name, and its classifier where it has the classes of the data set."""
    from sonibook.model.checkpoint import load_classifier, load_encoder, read_card
    from sonibook.model.encoder import CNN12

    if (own_seed := seed_of(name, seed)) is not None:
        encoder = CNN12(width=width, seed=own_seed).eval()
    elif "classes" not in read_card(name):
        encoder = load_encoder(name)
    else:
        network = load_classifier(name)
        if network.classes != data.classes and probe:
            return network.encoder, None
        check_classes(name, network.classes, data)
        return network.encoder, network
    if not probe:
        raise typer.BadParameter(f"{name} has no classes to name: add --probe.")
    return encoder, None


def _probed(
    encoder: CNN12,
    training: ClipReader,
    tested: ClipReader,
    layer: int,
    *,
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    """How well a linear probe on an encoder, fitted to `training`, does on `data`."""
    import numpy as np

    from sonibook.training.probe import groups_of, linear_probe, multilabel_probe, probe_features

    data = tested.data
    (features, labels), (asked, truth) = (
        probe_features(encoder, reader, layer=layer, batch_size=batch_size, progress=True)
        for reader in (training, tested)
    )
    groups = groups_of(training, tested=data)
    if data.task == "multi-label":
        scores, chosen = multilabel_probe(features, labels, asked, groups=groups, seed=seed)
    else:
        probe = linear_probe(features, labels, asked, groups=groups, seed=seed)
        names = np.eye(len(data.classes))
        scores, truth = names[probe.predicted], names[truth]
        chosen = {"strength": probe.strength, "folds": probe.folds}
    return {
        **_measured(scores, truth, data, seed),
        "strength": chosen["strength"],
        "folds_of_cross_validation": chosen["folds"],
    }


def _measured(scores: ndarray, targets: ndarray, data: Dataset, seed: int) -> dict[str, Any]:
    """The metrics that suit the data, each with its interval."""
    from sonibook.metrics import multilabel_intervals, multilabel_metrics, wilson_interval

    if data.task == "multi-label":
        intervals = multilabel_intervals(scores, targets, seed=seed)
        return {**multilabel_metrics(scores, targets), "intervals": intervals}
    correct, total = int((scores.argmax(1) == targets.argmax(1)).sum()), len(targets)
    interval = list(wilson_interval(correct, total))
    return {"accuracy": correct / total, "interval": interval, "correct": correct}


def _report(
    results: list[dict[str, Any]],
    tested: ClipReader,
    training: ClipReader | None,
    out: Path | None,
    settings: dict[str, object],
) -> None:
    """Print the results, and write them where that is asked for."""
    from sonibook.results import write_result

    data, count = tested.data, len(tested.data) - len(tested.bad)
    unreadable = {"test": len(tested.bad)}
    tested.warn()
    if training is not None:
        unreadable["training"] = len(training.bad)
        training.warn()
    typer.echo(f"{data.name} ({data.split}), {count} clips, {len(data.classes)} classes")
    named = [
        (row["network"], row["method"] + (f" on layer {row['layer']}" if "layer" in row else ""))
        for row in results
    ]
    content: dict[str, Any] = {
        "dataset": data.name,
        "tested_on": data.split,
        "probe_trained_on": None if training is None else training.data.split,
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
        lines = [["chance", "", *(f"{value:.3f}" for value in chance.values())]]
        for name, row in zip(named, results, strict=True):
            cells = [_with_interval(row.get(key), row["intervals"].get(key)) for key in chance]
            lines.append([*name, *cells])
        typer.echo(table(["network", "method", "mAP", "mAUC", "d'"], lines))
        content |= {"chance": chance, "interval": "bootstrap over clips, 95 %"}
    else:
        share = 1 / len(data.classes)
        lines = [["chance", "", f"{share:.1%}", ""]]
        for name, row in zip(named, results, strict=True):
            low, high = row["interval"]
            lines.append([*name, f"{row['accuracy']:.1%}", f"{low:.1%} to {high:.1%}"])
        typer.echo(table(["network", "method", "accuracy", "95 % interval"], lines))
        content |= {"chance": share, "interval": "Wilson score interval, 95 %"}
    if out is not None:
        write_result(out, {**content, **settings, "results": results})
        typer.echo(f"Written to {shown(out)}")


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    if value is None:  # d' of an area of 0 or 1 is infinite
        return "-"
    return (
        f"{value:.3f}" if interval is None else "{:.3f} [{:.3f}, {:.3f}]".format(value, *interval)
    )
