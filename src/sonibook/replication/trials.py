"""What a table is made from: one trial for each start, seed, training and tested part.

A table's file holds its trials, so that it is its own memory: what was measured is not measured
again, and what was interrupted goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import ValidationError
from scipy.special import softmax

from sonibook.analysis.result import Record, fingerprint
from sonibook.datasets.base import ClipReader, FileDataset
from sonibook.errors import AnalysisError
from sonibook.files import read_json, write_result
from sonibook.metrics import multilabel_metrics, single_label_metrics
from sonibook.model.checkpoint import load_classifier, read_card, save_checkpoint, shipped
from sonibook.replication.benchmarks import Benchmark, Pretrained
from sonibook.replication.paper import Training
from sonibook.training.config import PRECISIONS, TrainConfig, load_config
from sonibook.training.data import predict
from sonibook.training.loop import train as train_run
from sonibook.training.probe import groups_of, linear_probe, probe_features


class Trial(Record):
    """One classifier, tested on one part; the key is a digest of network, training and data."""

    key: str
    #: What it started from, and the very network; "none" from scratch.
    row: str
    network: str
    #: Of the network it started from, and of the classifier's training.
    seed: int
    question: str
    training: Training
    #: Such as "fold 5", "speaker jackson" and "test".
    tested: str
    clips: int
    metrics: dict[str, float]
    #: For each clip of the part, in order, "1" if it was named rightly, else "0".
    right: str | None
    settings: dict[str, Any]
    #: Which of the table's provenances.
    made: int


class TrialFile:
    """The trials of one table, kept in its results file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.trials: list[Trial] = []
        self.made: list[dict[str, Any]] = []
        self.parts: dict[str, list[str]] = {}
        self.before: dict[str, Any] = {}
        if self.path.exists():
            try:
                self.before = read_json(self.path)
                self.trials = [Trial.model_validate(one) for one in self.before["trials"]]
                self.made, self.parts = self.before["made"], self.before["parts"]
            except (ValueError, KeyError, TypeError) as error:
                raise AnalysisError(f"{path}: holds no table of trials ({error}).") from None

    def forget(self, networks: Collection[tuple[str, int]]) -> None:
        """Leave out trials of networks other than these (by name and seed), or of none."""
        self.trials = [
            trial
            for trial in self.trials
            if trial.network == "none" or (trial.network, trial.seed) in networks
        ]

    def has(self, key: str) -> bool:
        """Whether a trial was measured already."""
        return any(trial.key == key for trial in self.trials)

    def add(self, trial: Trial) -> None:
        """Take note of a trial; one of the same place in the table, made otherwise, gives way."""
        place = _place(trial)
        self.trials = [one for one in self.trials if _place(one) != place] + [trial]

    def maker(self, provenance: dict[str, Any]) -> int:
        """The number of a provenance, which trials refer to."""
        for number, one in enumerate(self.made):
            if {**one, "created": None} == {**provenance, "created": None}:
                return number
        self.made.append(provenance)
        return len(self.made) - 1

    def content(self) -> dict[str, Any]:
        """The part of a results file that holds the trials."""
        used = sorted({trial.made for trial in self.trials})
        number = {old: new for new, old in enumerate(used)}
        trials = [trial.model_copy(update={"made": number[trial.made]}) for trial in self.trials]
        return {
            "made": [self.made[old] for old in used],
            "parts": self.parts,
            "trials": [trial.model_dump(mode="json") for trial in sorted(trials, key=_place)],
        }

    def write(self, content: dict[str, Any]) -> None:
        """Write the table: what was made of the trials, then the trials."""
        write_result(self.path, {**content, **self.content()})


def _place(trial: Trial) -> tuple[str, str, str, str, int, str]:
    return trial.question, trial.training, trial.row, trial.network, trial.seed, trial.tested


def probe_trials(
    encoder: Pretrained, benchmark: Benchmark, *, known: Sequence[str], made: int
) -> Iterator[Trial]:
    """A linear probe for each part of a question."""
    network = encoder.load()
    print_of = fingerprint(network)
    keys, together = {}, {}
    for split in benchmark.splits:
        training = benchmark.open(split.train)
        together[split.name] = groups_of(training, tested=benchmark.open(split.test))
        how = "linear probe" if together[split.name] else "linear probe, nothing kept together"
        keys[split.name] = _digest(print_of, how, benchmark.dataset, split.train, split.test)
    if set(keys.values()) <= set(known):
        return
    # Every clip once, whatever parts it belongs to.
    features: dict[str, tuple[ndarray, int]] = {}
    for split in benchmark.splits:
        if keys[split.name] in known:
            continue
        sides, groups = [], list[list[str]]()
        for options in (split.train, split.test):
            data = benchmark.open(options)
            if not isinstance(data, FileDataset):
                raise TypeError(f"{data.name}: a linear probe here needs a data set of files.")
            new = FileDataset(
                [one for one in data.entries if one.clip_id not in features],
                name=data.name,
                classes=data.classes,
                split=data.split,
            )
            if len(new):
                reader = ClipReader(new)
                found, labels = probe_features(network, reader, progress=True)
                reader.warn()
                readable = [one for n, one in enumerate(new.entries) if n not in reader.bad]
                for entry, row, label in zip(readable, found, labels, strict=True):
                    features[entry.clip_id] = (row, int(label))
            entries = [one for one in data.entries if one.clip_id in features]
            own = [features[one.clip_id] for one in entries]
            groups.append([one.group for one in entries])
            sides.append((np.stack([row for row, _ in own]), np.array([one for _, one in own])))
        (fitted, labels), (asked, truth) = sides
        kept = groups[0] if together[split.name] else None
        probe = linear_probe(fitted, labels, asked, groups=kept, seed=encoder.seed)
        scores = asked @ probe.weight.T + probe.bias
        yield Trial(
            key=keys[split.name],
            row=encoder.row,
            network=encoder.label,
            seed=encoder.seed,
            question=benchmark.name,
            training="linear probe",
            tested=split.name,
            clips=len(truth),
            metrics=_metrics(scores, np.eye(len(data.classes), dtype=np.float32)[truth], True),
            right=_bits(scores.argmax(axis=1) == truth),
            settings={"strength": probe.strength},
            made=made,
        )


def run_trials(
    encoder: Pretrained | None,
    benchmark: Benchmark,
    config: Path,
    *,
    runs: Path,
    row: str | None = None,
    seed: int | None = None,
    changes: Sequence[str] = (),
    known: Sequence[str],
    made: int,
    may_train: bool = True,
) -> Iterator[Trial]:
    """A training run for each part of a question; a shipped network that is this run is taken."""
    own_seed = seed if seed is not None else 0 if encoder is None else encoder.seed
    label = row if row is not None else "none" if encoder is None else encoder.row
    name = "none" if encoder is None else encoder.label
    training: Training = "fc-only" if load_config(config).encoder.fc_only else "full"
    start, print_of = None, "none"
    if encoder is not None:
        print_of = fingerprint(encoder.load())
        start = _startable(encoder, runs)
    known_keys = set(known)
    for split in benchmark.splits:
        parts = [f"data.train={json.dumps(split.train)}", f"data.test={json.dumps(split.test)}"]
        whole = (f"seed={own_seed}", *parts, *changes)
        if encoder is not None and start is not None:
            whole = (*whole, f"encoder.start={start}", f"encoder.width={encoder.width:g}")
        experiment = load_config(config, changes=whole)
        # What was trained in one precision is not trained again in the other.
        keys = {precision: _run_key(print_of, experiment, precision) for precision in PRECISIONS}
        if not known_keys.isdisjoint(keys.values()):
            continue
        folder = f"{config.stem}-{label}-{own_seed}-{split.name}".replace(" ", "-").replace(",", "")
        ready = _shipped_run(experiment)
        if ready is None:
            if not may_train:
                continue
            train_run(experiment, out=runs / folder, data_root=benchmark.root)
            ready = (runs / folder / "encoder.safetensors").as_posix()
        network, data = load_classifier(ready), benchmark.open(split.test)
        scores, targets = predict(network, data, least_length=network.encoder.least_length)
        single = data.task == "single-label"
        yield Trial(
            key=keys[experiment.optimiser.precision],
            row=label,
            network=name,
            seed=own_seed,
            question=benchmark.name,
            training=training,
            tested=split.name,
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
    """A checkpoint that a configuration can start from; untrained encoders are written as one."""
    if encoder.trained:
        return encoder.name
    path = runs / "random" / f"{encoder.regime}-{encoder.seed}.safetensors".replace(" ", "-")
    if not path.exists():
        save_checkpoint(path, encoder.load(), {"name": encoder.name, "seed": encoder.seed})
    return path.as_posix()


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
    return "".join(right.astype(int).astype(str))


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
