"""What each table is to hold: which rows, and which of them are compared."""

from __future__ import annotations

from sonibook.analysis.result import Record
from sonibook.replication.encoders import REGIMES
from sonibook.replication.reported import REPORTED, Training

_PROBE: Training = "linear probe"
_FC: Training = "fc-only"
_FULL: Training = "full"


class TableSpec(Record):
    """What a table holds."""

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
