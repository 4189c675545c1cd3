"""From trials to rows: means with intervals over seeds or folds, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sonibook.analysis.result import Record
from sonibook.metrics import crossed_interval, runs_interval, wilson_interval
from sonibook.replication.encoders import REGIMES
from sonibook.replication.reported import REPORTED, Training
from sonibook.replication.trials import Trial, TrialFile


class Figure(Record):
    """A metric of one row.

    Attributes
    ----------
    mean : float
    low, high : float or None
        Ends of the 95 % interval.
    over : {"seeds", "folds", "clips", "nothing"}
        What that interval is over: Student's t over seeds, where there are several; else over
        folds (or speakers); else, of an accuracy, Wilson's over clips.
    values : dict of str to float
        By seed.
    """

    mean: float
    low: float | None
    high: float | None
    over: Literal["seeds", "folds", "clips", "nothing"]
    values: dict[str, float]


class Row(Record):
    """A row of a table.

    Attributes
    ----------
    question, row, training : str
        As in `Trial`.
    seeds : tuple of int
        Those of which every part was measured.
    parts : int
        How many parts (folds, speakers) each was tested on.
    clips : int
        Clips that each seed was tested on.
    metrics : dict of str to Figure
    """

    question: str
    row: str
    training: Training
    seeds: tuple[int, ...]
    parts: int
    clips: int
    metrics: dict[str, Figure]


class Difference(Record):
    """How much more often one row is right than another, clip by clip.

    Attributes
    ----------
    question, row, training, minus, minus_training : str
    mean, low, high : float
        Of accuracies; the interval is over recordings (clips cut from one count together) and over
        seeds, which are paired where both rows have the same.
    clips, recordings : int
    seeds, minus_seeds : tuple of int
    """

    question: str
    row: str
    training: Training
    minus: str
    minus_training: Training
    mean: float
    low: float
    high: float
    clips: int
    recordings: int
    seeds: tuple[int, ...]
    minus_seeds: tuple[int, ...]


def table_rows(trials: Iterable[Trial]) -> list[Row]:
    """The rows that trials make, in the order of their first trials."""
    groups: dict[tuple[str, str, Training], dict[int, list[Trial]]] = {}
    for trial in trials:
        group = groups.setdefault((trial.question, trial.row, trial.training), {})
        group.setdefault(trial.seed, []).append(trial)
    return [_row(*names, seeds) for names, seeds in groups.items()]


def _row(question: str, row: str, training: Training, seeds: Mapping[int, list[Trial]]) -> Row:
    most = max(len(own) for own in seeds.values())
    whole = {seed: own for seed, own in sorted(seeds.items()) if len(own) == most}
    first = next(iter(whole.values()))
    names = [
        name
        for name in first[0].metrics
        if all(name in trial.metrics for own in whole.values() for trial in own)
    ]
    return Row(
        question=question,
        row=row,
        training=training,
        seeds=tuple(whole),
        parts=most,
        clips=sum(trial.clips for trial in first),
        metrics={name: figure_of(name, whole) for name in names},
    )


def figure_of(name: str, seeds: Mapping[int, Sequence[Trial]]) -> Figure:
    """One metric of one row."""
    values = {seed: _over_parts(name, own) for seed, own in seeds.items()}
    mean = sum(values.values()) / len(values)
    by_seed = {str(seed): value for seed, value in values.items()}
    (own, *_) = seeds.values()
    if len(values) > 1:
        low, high = runs_interval(list(values.values()))
        return Figure(mean=mean, low=low, high=high, over="seeds", values=by_seed)
    if len(own) > 1:
        low, high = runs_interval([trial.metrics[name] for trial in own])
        return Figure(mean=mean, low=low, high=high, over="folds", values=by_seed)
    if name == "accuracy":
        low, high = wilson_interval(round(mean * own[0].clips), own[0].clips)
        return Figure(mean=mean, low=low, high=high, over="clips", values=by_seed)
    return Figure(mean=mean, low=None, high=None, over="nothing", values=by_seed)


def _over_parts(name: str, trials: Sequence[Trial]) -> float:
    clips = sum(trial.clips for trial in trials)
    return sum(trial.metrics[name] * trial.clips for trial in trials) / clips


def difference(
    trials: Sequence[Trial],
    row: tuple[str, Training],
    minus: tuple[str, Training],
    *,
    question: str,
    recordings: Mapping[str, Sequence[str]],
) -> Difference | None:
    """The paired difference of two rows' accuracies.

    Parameters
    ----------
    trials : sequence of Trial
    row, minus : (str, str)
        Row and training of either.
    question : str
        Of both.
    recordings : mapping from str to sequence of str
        For each tested part, the recording that each of its clips is cut from.

    Returns
    -------
    Difference or None
        None where either row has no trials, or the clips that they have in common are of fewer than
        two recordings, as while a table is being measured.
    """
    asked = [trial for trial in trials if trial.question == question]
    ours, theirs = _rights(asked, row), _rights(asked, minus)
    parts = sorted(
        set.intersection(*(set(own) for own in (*ours.values(), *theirs.values())))
        if ours and theirs
        else ()
    )
    names = [name for part in parts for name in recordings[part]]
    if len(set(names)) < 2:
        return None
    first, second = (
        np.stack([np.concatenate([own[part] for part in parts]) for own in seeds.values()])
        for seeds in (ours, theirs)
    )
    low, high = crossed_interval(first, second, names, paired=[*ours] == [*theirs])
    return Difference(
        question=question,
        row=row[0],
        training=row[1],
        minus=minus[0],
        minus_training=minus[1],
        mean=float(first.mean() - second.mean()),
        low=low,
        high=high,
        clips=first.shape[1],
        recordings=len(set(names)),
        seeds=tuple(ours),
        minus_seeds=tuple(theirs),
    )


def _rights(
    trials: Sequence[Trial], row: tuple[str, Training]
) -> dict[int, dict[str, Float[ndarray, " clips"]]]:
    """For each seed and part of a row, 1 where a clip was named rightly."""
    found: dict[int, dict[str, ndarray]] = {}
    for trial in trials:
        if (trial.row, trial.training) == row and trial.right is not None:
            right = np.array([float(one) for one in trial.right])
            found.setdefault(trial.seed, {})[trial.tested] = right
    most = max((len(own) for own in found.values()), default=0)
    return {seed: own for seed, own in sorted(found.items()) if len(own) == most}


#: What the intervals in a table are, in words.
INTERVALS = (
    "95 %. A row's: Student's t over seeds where there are several, else over folds (or speakers), "
    "else Wilson's over clips, as 'over' says. A difference's, of accuracies paired by clip and "
    "by seed: Student's t, over recordings and seeds at once."
)
_PROBE: Training = "linear probe"
_FC: Training = "fc-only"
_FULL: Training = "full"


class TableSpec(Record):
    """What a table shall hold."""

    table: str
    title: str
    data: str
    wanted: tuple[tuple[str, str, Training], ...]
    compared: tuple[tuple[str, str, Training, str, Training], ...]


def _untaught(training: Training) -> tuple[str, ...]:
    """Rows that learned nothing before: random weights, and with "full" those from scratch, too.

    Random weights trained whole are the paper's row from scratch, without normalisation, and are
    trained just as those pretrained are. The row "none", from scratch, has standardised weights.
    """
    return ("none", "random") if training == _FULL else ("random",)


def _rows(question: str, *trainings: Training) -> tuple[tuple[str, str, Training], ...]:
    """Every start."""
    return tuple(
        (question, start, training)
        for training in trainings
        for start in (*_untaught(training), *REGIMES)
    )


def _pairs(
    question: str, *trainings: Training
) -> tuple[tuple[str, str, Training, str, Training], ...]:
    """Each pretrained start against none, and one against the other."""
    return tuple(
        (question, row, training, minus, training)
        for training in trainings
        for row, minus in (
            *((row, nothing) for nothing in _untaught(training) for row in REGIMES),
            ("contrastive", "supervised"),
        )
    )


def _finetuned(question: str) -> tuple[tuple[str, str, Training, str, Training], ...]:
    """Each pretrained start trained whole against a classifier on it; and that against scratch."""
    return (
        *((question, row, _FULL, row, _FC) for row in REGIMES),
        (question, "random", _FULL, "contrastive", _FC),
    )


def _variants(question: str) -> tuple[tuple[str, str, Training], ...]:
    """One seed of either regime without normalisation, and one at full width, by linear probes."""
    return tuple(
        (question, row, _PROBE)
        for row in (
            "supervised, not normalised",
            "contrastive, not normalised",
            "random, width 1",
            "supervised, width 1",
            "contrastive, width 1",
        )
    )


def _variant_pairs(question: str) -> tuple[tuple[str, str, Training, str, Training], ...]:
    """Each of them against random weights of its width, and against the usual networks."""
    return tuple(
        (question, f"{start}{variant}", _PROBE, minus, _PROBE)
        for start in REGIMES
        for variant, nothing in ((", not normalised", "random"), (", width 1", "random, width 1"))
        for minus in (nothing, start)
    )


_FOLDS, _OWN, _SPEAKERS = "esc10, five folds", "fsdd, its own split", "fsdd, a speaker left out"
_SCENES, _FORTY = "soundscapes, several labels", "esc40, trained on folds 1 to 4"
_ONE = "esc40, trained on fold 1"
_AUGMENTED = tuple(dict.fromkeys(one.row for one in REPORTED["A.1"]))

#: By the name of the results file.
TABLES: dict[str, TableSpec] = {
    "table-a1": TableSpec(
        table="A.1",
        title="Augmentations one by one, and the temperature",
        data="Contrastive pretraining on ESC-50's 40 classes that ESC-10 lacks, folds 1 to 4; "
        "classifiers of these classes trained on fold 1, tested on fold 5.",
        wanted=(
            (_ONE, "random", _FC),
            *((_ONE, row, training) for row in _AUGMENTED for training in (_FC, _FULL)),
        ),
        compared=(
            *((_ONE, row, _FC, "random", _FC) for row in _AUGMENTED),
            *((_ONE, row, training, minus, training) for row, minus in (
                ("+ noise", "gain"),
                ("+ time mask", "+ noise"),
                ("+ random SNR (all)", "+ time mask"),
                ("+ random SNR (all)", "all, tau 0.2"),
                ("+ random SNR (all)", "all, tau 0.3"),
                ("+ random SNR (all)", "gain"),
                ("all, CNN12_x2", "+ random SNR (all)"),
            ) for training in (_FC, _FULL)),
        ),
    ),
    "table-a2": TableSpec(
        table="A.2",
        title="The data of pretraining itself, and several labels to a clip",
        data="ESC-50's 40 classes that ESC-10 lacks, trained on folds 1 to 4, tested on fold 5; "
        "synthesised soundscapes of several events (2,000 to train on, 500 tested).",
        wanted=(
            *((_FORTY, row, training) for row, training in (
                ("random", _FC), ("contrastive", _FC),
                ("none", _FULL), ("random", _FULL), ("contrastive", _FULL))),
            *_rows(_SCENES, _FC, _FULL),
        ),
        compared=(
            (_FORTY, "contrastive", _FC, "random", _FC),
            (_FORTY, "contrastive", _FULL, "random", _FULL),
            (_FORTY, "contrastive", _FULL, "none", _FULL),
            (_FORTY, "random", _FULL, "contrastive", _FC),
        ),
    ),
    "table-a4": TableSpec(
        table="A.4",
        title="In-domain transfer",
        data="ESC-10's 10 classes, which no pretraining saw; five folds, each tested once.",
        wanted=(*_rows(_FOLDS, _PROBE, _FC, _FULL), *_variants(_FOLDS)),
        compared=(
            *_pairs(_FOLDS, _PROBE, _FC, _FULL),
            *_variant_pairs(_FOLDS),
            *_finetuned(_FOLDS),
        ),
    ),
    "table-a6": TableSpec(
        table="A.6",
        title="Out-of-domain transfer",
        data="Spoken digits (FSDD): its own split, in which the speakers are the same; and each of "
        "6 speakers left out in turn.",
        wanted=tuple(
            row
            for one in (_OWN, _SPEAKERS)
            for row in (*_rows(one, _PROBE, _FC, _FULL), *_variants(one))
        ),
        compared=tuple(
            pair
            for one in (_OWN, _SPEAKERS)
            for pair in (*_pairs(one, _PROBE, _FC, _FULL), *_finetuned(one), *_variant_pairs(one))
        ),
    ),
    "esc50-folds": TableSpec(
        table="ESC-50",
        title="All 50 classes from scratch",
        data="ESC-50, five folds, each tested once by a network trained on the others; at full "
        "width one fold, the fifth.",
        wanted=(
            ("esc50, five folds", "none", _FULL),
            ("esc50, five folds", "none, width 1", _FULL),
        ),
        compared=(("esc50, five folds", "none, width 1", _FULL, "none", _FULL),),
    ),
}  # fmt: skip


def assemble(spec: TableSpec, kept: TrialFile) -> dict[str, Any]:
    """A table as it is written, from its trials."""
    rows = table_rows(kept.trials)
    there = {(one.question, one.row, one.training) for one in rows}
    differences = []
    for question, row, training, minus, minus_training in spec.compared:
        prefix = f"{question}: "
        recordings = {
            name.removeprefix(prefix): own
            for name, own in kept.parts.items()
            if name.startswith(prefix)
        }
        found = difference(
            kept.trials,
            (row, training),
            (minus, minus_training),
            question=question,
            recordings=recordings,
        )
        if found is not None:
            differences.append(found.model_dump(mode="json"))
    return {
        "table": spec.table,
        "title": spec.title,
        "data": spec.data,
        "interval": INTERVALS,
        "rows": [one.model_dump(mode="json") for one in sorted(rows, key=_order(spec))],
        "differences": differences,
        "reported": [one.model_dump(mode="json") for one in REPORTED.get(spec.table, ())],
        "not_measured_yet": [list(one) for one in spec.wanted if one not in there],
    }


def _order(spec: TableSpec) -> Any:
    """Rows as the table wants them; others, such as of another width, after these."""
    places = {names: place for place, names in enumerate(spec.wanted)}

    def key(row: Any) -> tuple[int, str, str]:
        names = (row.question, row.row, row.training)
        return places.get(names, len(places)), row.training, row.row

    return key
