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
from sonibook.datasets.base import ClipReader, Entry, FileDataset
from sonibook.errors import AnalysisError
from sonibook.files import read_json
from sonibook.metrics.scores import multilabel_metrics, single_label_metrics
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
    made: int = 0


class TrialFile:
    """The trials of one table, kept in its results file; new ones have the provenance `made_by`."""

    def __init__(self, path: str | Path, made_by: dict[str, Any] | None = None) -> None:
        self.before: dict[str, Any] = {"trials": [], "made": [], "parts": {}}
        try:
            if Path(path).exists():
                self.before = read_json(path)
            self.trials = [Trial.model_validate(one) for one in self.before["trials"]]
            self.parts: dict[str, list[str]] = {**self.before["parts"]}
            self.made: list[dict[str, Any]] = [*self.before["made"], made_by or {}]
        except (ValueError, KeyError, TypeError) as error:
            raise AnalysisError(f"{path}: holds no table of trials ({error}).") from None
        # New trials refer to the first provenance that differs in the date alone.
        undated = [{**one, "created": None} for one in self.made]
        self._maker = undated.index(undated[-1])

    @property
    def known(self) -> set[str]:
        """The keys of what was measured."""
        return {trial.key for trial in self.trials}

    def forget(self, networks: Collection[tuple[str, int]]) -> None:
        """Leave out trials of networks other than these (by name and seed), or of none."""
        self.trials = [
            trial
            for trial in self.trials
            if trial.network == "none" or (trial.network, trial.seed) in networks
        ]

    def add(self, trial: Trial) -> None:
        """Take note of a trial; one of the same place in the table, made otherwise, gives way."""
        others = [one for one in self.trials if _place(one) != _place(trial)]
        self.trials = [*others, trial.model_copy(update={"made": self._maker})]

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


def _place(trial: Trial) -> tuple[str, str, str, str, int, str]:
    return trial.question, trial.training, trial.row, trial.network, trial.seed, trial.tested


def probe_trials(
    encoder: Pretrained, benchmark: Benchmark, *, known: Collection[str]
) -> Iterator[Trial]:
    """A linear probe for each part of a question, but for those whose keys are known."""
    network = encoder.load()
    print_of = fingerprint(network)
    missing, entries = [], dict[str, Entry]()  # every clip once, whatever parts it belongs to
    for split in benchmark.splits:
        sides = (benchmark.open(split.train), benchmark.open(split.test))
        groups = groups_of(sides[0], tested=sides[1])
        how = "linear probe" if groups else "linear probe, nothing kept together"
        key = _digest(print_of, how, benchmark.dataset, split.train, split.test)
        if key not in known:
            missing.append((split, key, sides, groups is not None))
            for data in sides:
                if not isinstance(data, FileDataset):
                    raise TypeError(f"{data.name}: a linear probe here needs a data set of files.")
                entries |= {one.clip_id: one for one in data.entries}
    if not missing:
        return
    whole = FileDataset(
        [*entries.values()], name=sides[0].name, classes=sides[0].classes, split=benchmark.name
    )
    reader = ClipReader(whole)
    features, labels = probe_features(network, reader, progress=True)
    reader.warn()
    readable = [one for number, one in enumerate(entries) if number not in reader.bad]
    place = {one: number for number, one in enumerate(readable)}
    for split, key, sides, together in missing:
        names = ([data.clip_id(number) for number in range(len(data))] for data in sides)
        fitted, asked = ([place[one] for one in side if one in place] for side in names)
        groups = [entries[readable[one]].group for one in fitted] if together else None
        probe = linear_probe(
            features[fitted], labels[fitted], features[asked], groups=groups, seed=encoder.seed
        )
        scores = features[asked] @ probe.weight.T + probe.bias
        targets = np.eye(len(whole.classes), dtype=np.float32)[labels[asked]]
        of = {"key": key, "training": "linear probe", "tested": split.name}
        settings = {"strength": probe.strength}
        yield _trial(encoder, benchmark, scores, targets, single=True, settings=settings, **of)


def run_trials(
    encoder: Pretrained,
    benchmark: Benchmark,
    config: Path,
    *,
    runs: Path,
    changes: Sequence[str] = (),
    known: Collection[str],
    may_train: bool = True,
) -> Iterator[Trial]:
    """A training run for each part of a question; a shipped network that is this run is taken."""
    training: Training = "fc-only" if load_config(config).encoder.fc_only else "full"
    print_of, start = "none", tuple[str, ...]()
    if encoder.name != "none":
        print_of = fingerprint(encoder.load())
        start = (f"encoder.start={_startable(encoder, runs)}", f"encoder.width={encoder.width:g}")
    for split in benchmark.splits:
        parts = [f"data.train={json.dumps(split.train)}", f"data.test={json.dumps(split.test)}"]
        experiment = load_config(config, changes=(f"seed={encoder.seed}", *parts, *changes, *start))
        # What was trained in one precision is not trained again in the other.
        described = {**experiment.described(), "name": ""}
        keys = {}
        for precision in PRECISIONS:
            described["optimiser"]["precision"] = precision
            keys[precision] = _digest(print_of, described)
        if not set(keys.values()).isdisjoint(known):
            continue
        ready = _shipped_run(experiment)
        if ready is None:
            if not may_train:
                continue
            folder = f"{config.stem}-{encoder.regime}-{encoder.seed}-{split.name}"
            out = runs / folder.replace(" ", "-").replace(",", "")
            train_run(experiment, out=out, data_root=benchmark.root)
            ready = (out / "encoder.safetensors").as_posix()
        network, data = load_classifier(ready), benchmark.open(split.test)
        scores, targets = predict(network, data, least_length=network.encoder.least_length)
        precision = experiment.optimiser.precision
        of = {"key": keys[precision], "training": training, "tested": split.name}
        settings = {
            "config": config.as_posix(),
            "epochs": experiment.optimiser.epochs,
            "precision": precision,
        }
        single = data.task == "single-label"
        yield _trial(encoder, benchmark, scores, targets, single=single, settings=settings, **of)


def _trial(
    encoder: Pretrained,
    benchmark: Benchmark,
    scores: Float[ndarray, "clips classes"],
    targets: Float[ndarray, "clips classes"],
    *,
    single: bool,
    **more: Any,
) -> Trial:
    """A trial with its ranking metrics and, of clips with one label each, the accuracy."""
    metrics, right, ranked = dict[str, float](), None, scores
    if single:
        metrics["accuracy"] = float(single_label_metrics(scores, targets)["accuracy"])
        named = scores.argmax(axis=1) == targets.argmax(axis=1)
        right = "".join(named.astype(int).astype(str))
        ranked = softmax(scores.astype(np.float64), axis=1)  # clips are ranked by probability
    found = multilabel_metrics(ranked, targets)
    metrics |= {k: float(found[k]) for k in ("mAP", "mAUC", "d_prime") if k in found}
    return Trial(
        row=encoder.regime,
        network=encoder.label,
        seed=encoder.seed,
        question=benchmark.name,
        clips=len(targets),
        metrics=metrics,
        right=right,
        **more,
    )


def _shipped_run(experiment: TrainConfig) -> str | None:
    """The shipped network that this run would make again, if there is one."""
    wanted = experiment.what_matters()
    for name in shipped():
        card = read_card(name)
        try:
            made = TrainConfig.model_validate(card.get("config"))
        except ValidationError:
            continue  # made by another program, or by a config of another time
        if "classes" in card and made.what_matters() == wanted | {"name": made.name}:
            return name
    return None


def _startable(encoder: Pretrained, runs: Path) -> str:
    """A checkpoint that a configuration can start from; untrained encoders are written as one."""
    if encoder.trained:
        return encoder.name
    path = runs / "random" / f"{encoder.kind}-{encoder.seed}.safetensors".replace(" ", "-")
    if not path.exists():
        save_checkpoint(path, encoder.load(), {"name": encoder.name, "seed": encoder.seed})
    return path.as_posix()


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
