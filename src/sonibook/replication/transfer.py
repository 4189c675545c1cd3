"""Measures the cells of a table: linear probes, and training runs.

"linear probe" is fc-only with nothing left to choose: a logistic regression on the frozen
encoder's mean block-11 features, its strength cross-validated in the training part. "fc-only" and
"full" are training runs by the configurations in ``configs/mini``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import ValidationError
from scipy.special import softmax

from sonibook.analysis.result import fingerprint
from sonibook.datasets.base import FileDataset
from sonibook.metrics import multilabel_metrics, single_label_metrics
from sonibook.model.checkpoint import load_classifier, read_card, save_checkpoint, shipped
from sonibook.replication.cells import Cell
from sonibook.replication.encoders import Pretrained
from sonibook.replication.questions import Question
from sonibook.replication.reported import Training
from sonibook.training.config import PRECISIONS, TrainConfig, load_config
from sonibook.training.evaluate import predict
from sonibook.training.loop import train as train_run
from sonibook.training.probe import groups_of, linear_probe, mean_features


def probe_cells(
    encoder: Pretrained, question: Question, *, known: Sequence[str], made: int
) -> Iterator[Cell]:
    """A linear probe for each part of a question.

    Parameters
    ----------
    encoder : Pretrained
    question : Question
        Single-label.
    known : sequence of str
        Keys of cells that need not be measured.
    made : int
        As in `Cell`.

    Yields
    ------
    Cell
    """
    network = encoder.load()
    print_of = fingerprint(network)
    keys, together = {}, {}
    for part in question.parts:
        training = question.open(part.train)
        together[part.name] = groups_of(training, tested=question.open(part.test))
        how = "linear probe" if together[part.name] else "linear probe, nothing kept together"
        keys[part.name] = _digest(print_of, how, question.dataset, part.train, part.test)
    if set(keys.values()) <= set(known):
        return
    # Every clip once, whatever parts it belongs to.
    features: dict[str, tuple[ndarray, int]] = {}
    for part in question.parts:
        if keys[part.name] in known:
            continue
        sides = []
        for options in (part.train, part.test):
            data = question.open(options)
            if not isinstance(data, FileDataset):
                raise TypeError(f"{data.name}: a linear probe here needs a data set of files.")
            new = FileDataset(
                [one for one in data.entries if one.clip_id not in features],
                name=data.name,
                classes=data.classes,
                split=data.split,
            )
            if len(new):
                found, labels = mean_features(network, new, progress=True)
                for entry, row, label in zip(new.entries, found, labels, strict=True):
                    features[entry.clip_id] = (row, int(label))
            own = [features[entry.clip_id] for entry in data.entries]
            sides.append((np.stack([row for row, _ in own]), np.array([one for _, one in own])))
        (fitted, labels), (asked, truth) = sides
        groups = together[part.name]
        probe = linear_probe(fitted, labels, asked, groups=groups, seed=encoder.seed)
        scores = asked @ probe.weight.T + probe.bias
        yield Cell(
            key=keys[part.name],
            row=encoder.row,
            network=encoder.label,
            seed=encoder.seed,
            question=question.name,
            training="linear probe",
            tested=part.name,
            clips=len(truth),
            metrics=_metrics(scores, np.eye(len(data.classes), dtype=np.float32)[truth], True),
            right=_bits(scores.argmax(axis=1) == truth),
            settings={"strength": probe.strength},
            made=made,
        )


def run_cells(
    encoder: Pretrained | None,
    question: Question,
    config: Path,
    *,
    runs: Path,
    row: str | None = None,
    seed: int | None = None,
    changes: Sequence[str] = (),
    known: Sequence[str],
    made: int,
    may_train: bool = True,
) -> Iterator[Cell]:
    """A training run for each part of a question.

    A shipped network that is this very run is taken as it is.

    Parameters
    ----------
    encoder : Pretrained or None
        What to start from; None for the configuration's own start, such as from scratch.
    question : Question
    config : Path
        Of the run; its data's parts are replaced by the question's.
    runs : Path
        Where run folders go. What was interrupted there goes on.
    row : str or None
        The row; None for the encoder's, or "none" from scratch.
    seed : int or None
        Of the run; None for the encoder's.
    changes : sequence of str
        Further changes, as for `load_config`.
    known, made
        As for `probe_cells`. A run that is known in either precision is not made.
    may_train : bool
        False leaves out what would have to be trained.

    Yields
    ------
    Cell
    """
    own_seed = seed if seed is not None else 0 if encoder is None else encoder.seed
    label = row if row is not None else "none" if encoder is None else encoder.row
    name = "none" if encoder is None else encoder.label
    training: Training = "fc-only" if load_config(config).encoder.fc_only else "full"
    start, print_of = None, "none"
    if encoder is not None:
        print_of = fingerprint(encoder.load())
        start = _startable(encoder, runs)
    known_keys = set(known)
    for part in question.parts:
        parts = [f"data.train={json.dumps(part.train)}", f"data.test={json.dumps(part.test)}"]
        whole = (f"seed={own_seed}", *parts, *changes)
        if start is not None:
            whole = (*whole, f"encoder.start={start}", f"encoder.width={_width(encoder)}")
        experiment = load_config(config, changes=whole)
        # What was trained in one precision is not trained again in the other.
        keys = {precision: _run_key(print_of, experiment, precision) for precision in PRECISIONS}
        if not known_keys.isdisjoint(keys.values()):
            continue
        folder = f"{config.stem}-{label}-{own_seed}-{part.name}".replace(" ", "-").replace(",", "")
        ready = _shipped_run(experiment)
        if ready is None:
            if not may_train:
                continue
            train_run(experiment, out=runs / folder, data_root=question.root)
            ready = (runs / folder / "encoder.safetensors").as_posix()
        network, data = load_classifier(ready), question.open(part.test)
        scores, targets = predict(network, data, least_length=network.encoder.least_length)
        single = data.task == "single-label"
        yield Cell(
            key=keys[experiment.optimiser.precision],
            row=label,
            network=name,
            seed=own_seed,
            question=question.name,
            training=training,
            tested=part.name,
            clips=len(data),
            metrics=_metrics(scores, targets, single),
            right=_bits(scores.argmax(axis=1) == targets.argmax(axis=1)) if single else None,
            settings={
                "config": config.as_posix(),
                "epochs": experiment.optimiser.epochs,
                "precision": experiment.optimiser.precision,
            },
            made=made,
        )


def _run_key(print_of: str, experiment: TrainConfig, precision: str) -> str:
    described = {**experiment.described(), "name": ""}
    described["optimiser"]["precision"] = precision
    return _digest(print_of, described)


def _shipped_run(experiment: TrainConfig) -> str | None:
    """The shipped network that this run would make again, if there is one."""
    wanted = _what_matters(experiment)
    for name in shipped():
        card = read_card(name)
        try:
            made = TrainConfig.model_validate(card.get("config"))
        except ValidationError:
            continue  # made by another program, or by a config of another time
        if "classes" in card and _what_matters(made) == wanted:
            return name
    return None


def _what_matters(config: TrainConfig) -> dict[str, Any]:
    """What of a configuration has a bearing on the weights, up to the order of sums."""
    apart = {"name", "log", "evaluate_every", "keep_every", "threads"}
    return {key: value for key, value in config.described().items() if key not in apart}


def _startable(encoder: Pretrained, runs: Path) -> str:
    """A checkpoint that a configuration can start from; random encoders are written as one."""
    if encoder.regime != "random":
        return encoder.name
    path = runs / "random" / f"random-{encoder.seed}.safetensors"
    if not path.exists():
        save_checkpoint(path, encoder.load(), {"name": encoder.name, "seed": encoder.seed})
    return path.as_posix()


def _width(encoder: Pretrained | None) -> str:
    return "null" if encoder is None else f"{encoder.width:g}"


def _metrics(
    scores: Float[ndarray, "clips classes"], targets: Float[ndarray, "clips classes"], single: bool
) -> dict[str, float]:
    """Ranking metrics, and of clips with one label each the accuracy."""
    found: dict[str, float] = {}
    if single:
        found["accuracy"] = float(single_label_metrics(scores, targets)["accuracy"])
        scores = softmax(scores.astype(np.float64), axis=1)  # clips are ranked by probability
    ranked = multilabel_metrics(scores, targets)
    return found | {k: float(ranked[k]) for k in ("mAP", "mAUC", "d_prime") if k in ranked}


def _bits(right: ndarray) -> str:
    return "".join("1" if one else "0" for one in right)


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
