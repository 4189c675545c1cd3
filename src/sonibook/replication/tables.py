"""From trials to rows: means with intervals over seeds or folds, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sonibook.analysis.result import Estimate, Record
from sonibook.errors import AnalysisError
from sonibook.files import read_json
from sonibook.metrics.intervals import crossed_interval, runs_interval, wilson_interval
from sonibook.replication.paper import REPORTED, TableSpec, Training
from sonibook.replication.trials import Trial, TrialFile

#: The trials of each question, row and training, by seed.
_Rows = dict[tuple[str, str, Training], dict[int, list[Trial]]]


class _Metric(Estimate):
    """A metric of one row, by seed; its interval is `over` the first of these that are several."""

    mean: float
    over: Literal["seeds", "folds", "clips", "nothing"]
    values: dict[str, float]

    @property
    def half(self) -> float | None:
        """Of the interval, as the paper reports it."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


class Row(Record):
    """A row of a table: the seeds of which every part was measured, those parts, their clips."""

    question: str
    row: str
    training: Training
    seeds: tuple[int, ...]
    parts: int
    clips: int
    metrics: dict[str, _Metric]


class Difference(Estimate):
    """How much more often a row is right than another, over recordings and seeds, clip by clip."""

    mean: float
    low: float
    high: float
    question: str
    row: str
    training: Training
    minus: str
    minus_training: Training
    recordings: int
    seeds: tuple[int, ...]
    minus_seeds: tuple[int, ...]

    @classmethod
    def read(cls, path: Path) -> list[Difference]:
        """Those in a table's results file."""
        try:
            return [cls.model_validate(one) for one in read_json(path)["differences"]]
        except (ValueError, LookupError, TypeError) as error:
            raise AnalysisError(f"{path}: is not the results file of a table ({error}).") from None


def _by_row(trials: Iterable[Trial]) -> _Rows:
    """The trials of each row in the order of the first, by seed: those that have every part."""
    rows: _Rows = {}
    for trial in trials:
        seeds = rows.setdefault((trial.question, trial.row, trial.training), {})
        seeds.setdefault(trial.seed, []).append(trial)
    for names, seeds in rows.items():
        most = max(map(len, seeds.values()))
        rows[names] = {seed: own for seed, own in sorted(seeds.items()) if len(own) == most}
    return rows


def table_rows(trials: Iterable[Trial]) -> list[Row]:
    """The rows that trials make, in the order of their first trials."""
    rows = []
    for (question, row, training), seeds in _by_row(trials).items():
        first, *rest = seeds.values()
        every = [trial for own in (first, *rest) for trial in own]
        names = [one for one in first[0].metrics if all(one in trial.metrics for trial in every)]
        rows.append(
            Row(
                question=question,
                row=row,
                training=training,
                seeds=tuple(seeds),
                parts=len(first),
                clips=sum(trial.clips for trial in first),
                metrics={name: _metric(name, seeds) for name in names},
            )
        )
    return rows


def _metric(name: str, seeds: Mapping[int, Sequence[Trial]]) -> _Metric:
    """One metric of one row."""
    (own, *_) = seeds.values()
    clips = sum(trial.clips for trial in own)
    values = {
        seed: sum(t.metrics[name] * t.clips for t in trials) / sum(t.clips for t in trials)
        for seed, trials in seeds.items()
    }
    mean = sum(values.values()) / len(values)
    over: Literal["seeds", "folds", "clips", "nothing"] = "nothing"
    interval: tuple[float | None, float | None] = (None, None)
    if len(values) > 1:
        over, interval = "seeds", runs_interval(list(values.values()))
    elif len(own) > 1:
        over, interval = "folds", runs_interval([trial.metrics[name] for trial in own])
    elif name == "accuracy":
        over, interval = "clips", wilson_interval(round(mean * clips), clips)
    low, high = interval
    by_seed = {str(seed): value for seed, value in values.items()}
    return _Metric(mean=mean, low=low, high=high, clips=clips, over=over, values=by_seed)


def difference(
    trials: Sequence[Trial],
    pair: tuple[str, str, Training, str, Training],
    recordings: Mapping[str, Sequence[str]],
) -> Difference | None:
    """The paired difference of two rows' accuracies.

    The pair is one of those that a `TableSpec` compares. `recordings` says, for each question and
    tested part ("esc10, five folds: fold 1"), which recording each clip is cut from. None where
    either row has no trials, or the clips that they have in common are of fewer than two
    recordings.
    """
    question, row, training, minus, minus_training = pair
    rows = _by_row(trial for trial in trials if trial.right is not None)
    ours, theirs = (
        {
            seed: {trial.tested: trial.right or "" for trial in own}
            for seed, own in rows.get(place, {}).items()
        }
        for place in ((question, row, training), (question, minus, minus_training))
    )
    every = [set(own) for own in (*ours.values(), *theirs.values())]
    parts = sorted(set.intersection(*every)) if ours and theirs else []
    names = [name for part in parts for name in recordings[f"{question}: {part}"]]
    if len(set(names)) < 2:
        return None
    first, second = (
        np.array([[*"".join(own[part] for part in parts)] for own in seeds.values()], float)
        for seeds in (ours, theirs)
    )
    low, high = crossed_interval(first, second, names, paired=[*ours] == [*theirs])
    return Difference(
        question=question,
        row=row,
        training=training,
        minus=minus,
        minus_training=minus_training,
        mean=float(first.mean() - second.mean()),
        low=low,
        high=high,
        clips=first.shape[1],
        recordings=len(set(names)),
        seeds=tuple(ours),
        minus_seeds=tuple(theirs),
    )


#: What the intervals in a table are, in words.
_INTERVALS = (
    "95 %. A row's: Student's t over seeds where there are several, else over folds (or speakers), "
    "else Wilson's over clips, as 'over' says. A difference's, of accuracies paired by clip and "
    "by seed: Student's t, over recordings and seeds at once."
)


def assemble(spec: TableSpec, kept: TrialFile) -> dict[str, Any]:
    """A table as it is written, from its trials."""
    places = {names: place for place, names in enumerate(spec.wanted)}

    def order(row: Row) -> tuple[int, str, str]:
        """As the table wants them; others, such as of another width, after these."""
        names = (row.question, row.row, row.training)
        return places.get(names, len(places)), row.training, row.row

    rows = table_rows(kept.trials)
    there = {(one.question, one.row, one.training) for one in rows}
    found = [difference(kept.trials, pair, kept.parts) for pair in spec.compared]
    return {
        "table": spec.table,
        "title": spec.title,
        "data": spec.data,
        "interval": _INTERVALS,
        "rows": [one.model_dump(mode="json") for one in sorted(rows, key=order)],
        "differences": [one.model_dump(mode="json") for one in found if one is not None],
        "reported": [one.model_dump(mode="json") for one in REPORTED.get(spec.table, ())],
        "not_measured_yet": [list(one) for one in spec.wanted if one not in there],
    }
