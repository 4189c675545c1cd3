"""``sonibook evaluate``: how many clips a network names rightly, beside chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonibook.cli.inputs import ALL_FOLDS, DataOptions, DataRoot, open_data, parse_folds
from sonibook.cli.output import examples, shown, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy import ndarray

    from sonibook.datasets import Dataset
    from sonibook.model.encoder import CNN12

EVALUATE_EXAMPLES = examples(
    "sonibook evaluate supervised --dataset esc50 --folds 5",
    "sonibook evaluate supervised random --dataset esc50 --folds 5 --probe --out results.json",
    "sonibook evaluate random --dataset fsdd --probe --layer 8",
)

_RANDOM = "random"


def evaluate(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Shipped names, .safetensors files, or 'random' for an untrained encoder.",
        ),
    ],
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", help="Data set to test on (sonibook data list).")
    ],
    folds: Annotated[
        str | None,
        typer.Option(help="Test on these folds (ESC-50), such as 5; the others train the probe."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Test on this split.", show_default="test"),
    ] = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Fit a linear probe on each frozen encoder, too (on split train)."
        ),
    ] = False,
    layer: Annotated[int, typer.Option(help="Layer whose mean feature maps the probe sees.")] = 11,
    seed: Annotated[int, typer.Option(min=0, help="Of the random encoder and the probe.")] = 0,
    width: Annotated[float, typer.Option(min=1 / 64, help="Of the random encoder.")] = 0.25,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips at once.")] = 16,
    out: Annotated[Path | None, typer.Option("--out", help="Write the results as JSON.")] = None,
) -> None:
    """Measure accuracy on whole clips, with a 95 % interval (Wilson's), beside chance.

    A checkpoint with classes is asked for the class of each clip; its classes must be the data
    set's. With --probe a logistic regression on each encoder's standardised mean feature maps is
    fitted to the training part, its regularisation chosen by cross-validation there, and tested
    on the same clips. An untrained encoder (He weights) is what both must be read against.
    """
    test_part, training_part = _parts(parse_folds(folds), split)
    data = open_data(dataset, root=data_root, pairs=options, **test_part)
    training = open_data(dataset, root=data_root, pairs=options, **training_part) if probe else None
    measure = _Measure(data, layer=layer, seed=seed, batch_size=batch_size)
    # First see that everything can be done: the measuring takes minutes.
    networks = [(name, *_open(name, data, width=width, seed=seed)) for name in checkpoints]
    for name, encoder, classify in networks:
        if classify is None and training is None:
            raise typer.BadParameter(f"{name} has no classes to name: add --probe.")
        if training is not None:
            encoder.truncate(layer)
    results: list[dict[str, object]] = []
    for name, encoder, classify in networks:
        if classify is not None:
            results.append({"network": name, "method": "classifier", **measure.asked(classify)})
        if training is not None:
            results.append(
                {"network": name, "method": "probe", **measure.probed(encoder, training)}
            )
    _report(results, data, training, out, {"seed": seed, "width_of_random": width})


def _parts(
    folds: tuple[int, ...] | None, split: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the test part and of the probe's training part."""
    if folds is not None and split is not None:
        raise typer.BadParameter("give either --folds or --split.", param_hint="--split")
    if folds is not None:
        others = tuple(fold for fold in ALL_FOLDS if fold not in folds)
        return {"folds": folds}, {"folds": others}
    return {"split": split or "test"}, {"split": "train"}


def _open(
    name: str, data: Dataset, *, width: float, seed: int
) -> tuple[CNN12, Callable[[Any], Any] | None]:
    """An encoder by name, and its classifier where it has one that fits the data set."""
    from sonibook.errors import CheckpointError
    from sonibook.model.checkpoint import load_classifier, load_encoder, read_card
    from sonibook.model.encoder import CNN12

    if name == _RANDOM:
        return CNN12(width=width, seed=seed).eval(), None
    if "classes" not in read_card(name):
        return load_encoder(name), None
    network = load_classifier(name)
    if network.classes != data.classes:
        stranger = next((c for c in network.classes if c not in data.classes), None)
        why = "they are in another order" if stranger is None else f"{stranger!r} is not in it"
        if stranger is None and len(network.classes) != len(data.classes):
            why = f"{next(c for c in data.classes if c not in network.classes)!r} is missing"
        raise CheckpointError(
            f"{name} names {len(network.classes)} classes, which are not the "
            f"{len(data.classes)} of {data.name} ({why}): evaluate it on the data set it was "
            "trained for."
        )
    return network.encoder, network


class _Measure:
    """Accuracy on one test part, by a classifier or a probe."""

    def __init__(self, data: Dataset, *, layer: int, seed: int, batch_size: int) -> None:
        from sonibook.errors import DatasetError

        if data.task != "single-label":
            raise DatasetError(
                f"{data.name} is {data.task}, accuracy needs one label for every clip: try "
                "--option task=single-label if it knows that."
            )
        self.data, self.layer, self.seed, self.batch_size = data, layer, seed, batch_size

    def asked(self, network: Any) -> dict[str, object]:
        """Accuracy of a classifier on whole clips."""
        from sonibook.training.evaluate import predict

        scores, targets = predict(
            network,
            self.data,
            least_length=network.encoder.least_length,
            batch_size=self.batch_size,
            progress=True,
        )
        return _counted(scores.argmax(1), targets.argmax(1))

    def probed(self, encoder: CNN12, training: Dataset) -> dict[str, object]:
        """Accuracy of a linear probe on an encoder, fitted to `training`."""
        from sonibook.training.probe import groups_of, linear_probe, mean_features

        (features, labels), (test_features, truth) = (
            mean_features(
                encoder, part, layer=self.layer, batch_size=self.batch_size, progress=True
            )
            for part in (training, self.data)
        )
        groups = groups_of(training, tested=self.data)
        probe = linear_probe(features, labels, test_features, groups=groups, seed=self.seed)
        return {
            **_counted(probe.predicted, truth),
            "layer": self.layer,
            "strength": probe.strength,
            "folds_of_cross_validation": probe.folds,
        }


def _counted(predicted: ndarray, truth: ndarray) -> dict[str, object]:
    from sonibook.metrics import wilson_interval

    correct, total = int((predicted == truth).sum()), len(truth)
    return {
        "accuracy": correct / total,
        "interval": list(wilson_interval(correct, total)),
        "correct": correct,
    }


def _report(
    results: list[dict[str, Any]],
    data: Dataset,
    training: Dataset | None,
    out: Path | None,
    settings: dict[str, object],
) -> None:
    """Print the results, and write them where that is asked for."""
    from sonibook.results import write_result

    chance = 1 / len(data.classes)
    rows = [["chance", "", f"{chance:.1%}", ""]] + [
        [
            row["network"],
            row["method"] + (f" on layer {row['layer']}" if "layer" in row else ""),
            f"{row['accuracy']:.1%}",
            f"{row['interval'][0]:.1%} to {row['interval'][1]:.1%}",
        ]
        for row in results
    ]
    typer.echo(f"{data.name} ({data.split}), {len(data)} clips, {len(data.classes)} classes")
    typer.echo(table(["network", "method", "accuracy", "95 % interval"], rows))
    if out is None:
        return
    content = {
        "dataset": data.name,
        "tested_on": data.split,
        "probe_trained_on": None if training is None else training.split,
        "clips": len(data),
        "classes": len(data.classes),
        "chance": chance,
        "interval": "Wilson score interval, 95 %",
        **settings,
        "results": results,
    }
    write_result(out, content)
    typer.echo(f"Written to {shown(out)}")
