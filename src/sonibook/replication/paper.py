"""The paper's tables: what it reports in them, and what each is to hold here.

Of the paper's A.1, A.2, A.4 and A.6 these are the rows of CNN12 and CNN12_x2, by the names that the
miniature's rows have, so that the two stand side by side. Of ESC-50, which the paper does not use,
it is another publication's figure.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from sonibook.analysis.networks import PAPERS
from sonibook.analysis.result import Record
from sonibook.files import parse_yaml
from sonibook.replication.benchmarks import REGIMES, UNTRAINED

#: "linear probe" is fc-only by a logistic regression; see `sonibook.replication.trials`.
Training = Literal["linear probe", "fc-only", "full"]
_PROBE: Training = "linear probe"
_FC: Training = "fc-only"
_FULL: Training = "full"
#: A benchmark, a row and its training; and, in a difference, the row that is subtracted.
_Row = tuple[str, str, Training]
_Pair = tuple[str, str, Training, str, Training]
#: A mean, and half of its interval.
_Mean = tuple[float, float | None]


class Reported(Record):
    """A row of a table of the paper."""

    row: str
    training: Training
    metrics: dict[str, _Mean]
    source: str | None = None


class TableSpec(Record):
    """What a table is to hold, and which of its rows are compared."""

    table: str
    title: str
    data: str
    wanted: tuple[_Row, ...]
    compared: tuple[_Pair, ...]


#: What the paper reports, by table; rows in the paper's order.
REPORTED: dict[str, tuple[Reported, ...]] = {
    table: tuple(map(Reported.model_validate, rows))
    for table, rows in parse_yaml(
        Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    ).items()
}


def _untaught(training: Training) -> tuple[str, ...]:
    """Rows that learned nothing before. He weights trained whole are the paper's row from scratch.

    They are trained just as those pretrained are; the row "none" has standardised weights.
    """
    return ("none", "random") if training == _FULL else (*UNTRAINED,)


def _rows(question: str, *trainings: Training) -> Iterator[_Row]:
    """Every start."""
    for training in trainings:
        for start in (*_untaught(training), *REGIMES):
            yield question, start, training


def _pairs(question: str, *trainings: Training) -> Iterator[_Pair]:
    """Each pretrained start against none, and one against the other."""
    for training in trainings:
        for nothing in _untaught(training):
            for row in REGIMES:
                yield question, row, training, nothing, training
        yield question, "contrastive", training, "supervised", training


def _finetuned(question: str) -> Iterator[_Pair]:
    """Each pretrained start trained whole against a classifier on it; and that against scratch."""
    for row in REGIMES:
        yield question, row, _FULL, row, _FC
    yield question, "random", _FULL, "contrastive", _FC


def _variants(question: str) -> Iterator[_Row]:
    """The paper's contrastive recipe, and of either regime a network without normalisation and one
    at full width, by linear probes.
    """
    yield question, f"contrastive, {PAPERS}", _PROBE
    for row in REGIMES:
        yield question, f"{row}, not normalised", _PROBE
    for row in ("random", *REGIMES):
        yield question, f"{row}, width 1", _PROBE


def _variant_pairs(question: str) -> Iterator[_Pair]:
    """Each of them against untrained weights of its width, and against the usual networks."""
    for less in (*UNTRAINED, "contrastive"):
        yield question, f"contrastive, {PAPERS}", _PROBE, less, _PROBE
    for start in REGIMES:
        for variant, nothing in ((", not normalised", "random"), (", width 1", "random, width 1")):
            for less in (nothing, start):
                yield question, f"{start}{variant}", _PROBE, less, _PROBE


_FOLDS, _OWN, _SPEAKERS = "esc10, five folds", "fsdd, its own split", "fsdd, a speaker left out"
_SCENES, _FORTY = "soundscapes, several labels", "esc40, trained on folds 1 to 4"
_ONE, _FIFTY = "esc40, trained on fold 1", "esc50, five folds"
_PARTS = "esc40, trained on folds 1 to 3"
_AUGMENTED = tuple(dict.fromkeys(one.row for one in REPORTED["A.1"]))
_STEPS = (
    ("+ noise", "gain"),
    ("+ time mask", "+ noise"),
    ("+ random SNR (all)", "+ time mask"),
    ("+ random SNR (all)", "all, tau 0.2"),
    ("+ random SNR (all)", "all, tau 0.3"),
    ("+ random SNR (all)", "gain"),
    ("all, CNN12_x2", "+ random SNR (all)"),
)
_TRAININGS = (_PROBE, _FC, _FULL)
_PART_NAMES = ("data", "pairs", "background", "spectral", "head")
#: Rows that take the contrastive recipe apart, by the stem of their file in ``configs/ablation``.
RECIPES = {
    "paper": PAPERS,
    **{f"plus-{part}": f"plus {part}" for part in _PART_NAMES},
    "all": "all",
    **{f"less-{part}": f"all less {part}" for part in _PART_NAMES},
    "plain": "all, not normalised",
    "all-long": "all, longer",
    "less-data-long": "all less data, longer",
}
_RECIPE_PAIRS = (
    *((row, PAPERS) for stem, row in RECIPES.items() if stem.startswith("plus")),
    *((f"all less {part}", "all") for part in _PART_NAMES),
    ("all", PAPERS),
    ("all, not normalised", "all"),
    ("all, longer", "all"),
    ("all, longer", "all less data, longer"),
    *((row, nothing) for row in (PAPERS, "all") for nothing in UNTRAINED),
)

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
            *((_ONE, row, how, less, how) for row, less in _STEPS for how in (_FC, _FULL)),
        ),
    ),
    "table-a2": TableSpec(
        table="A.2",
        title="The data of pretraining itself, and several labels to a clip",
        data="ESC-50's 40 classes that ESC-10 lacks, trained on folds 1 to 4, tested on fold 5; "
        "synthesised soundscapes of several events (2,000 to train on, 500 tested).",
        wanted=(
            *((_FORTY, row, _FC) for row in ("random", "contrastive")),
            *((_FORTY, row, _FULL) for row in ("none", "random", "contrastive")),
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
        wanted=(*_rows(_FOLDS, *_TRAININGS), *_variants(_FOLDS)),
        compared=(*_pairs(_FOLDS, *_TRAININGS), *_variant_pairs(_FOLDS), *_finetuned(_FOLDS)),
    ),
    "table-a6": TableSpec(
        table="A.6",
        title="Out-of-domain transfer",
        data="Spoken digits (FSDD): its own split, in which the speakers are the same; and each of "
        "6 speakers left out in turn.",
        wanted=tuple(
            row for one in (_OWN, _SPEAKERS) for row in (*_rows(one, *_TRAININGS), *_variants(one))
        ),
        compared=tuple(
            pair
            for one in (_OWN, _SPEAKERS)
            for pair in (*_pairs(one, *_TRAININGS), *_finetuned(one), *_variant_pairs(one))
        ),
    ),
    "esc50-folds": TableSpec(
        table="ESC-50",
        title="All 50 classes from scratch",
        data="ESC-50, five folds, each tested once by a network trained on the others; that of "
        "fold 5 is the shipped one.",
        wanted=((_FIFTY, "none", _FULL),),
        compared=(),
    ),
    "recipe": TableSpec(
        table="recipe",
        title="Which part of the contrastive recipe does it",
        data="Contrastive pretraining on ESC-50's 40 classes that ESC-10 lacks, folds 1 to 3, for "
        "180 steps (longer: 960); a linear probe on block 11 trained on the same folds, tested on "
        "fold 4.",
        wanted=tuple((_PARTS, row, _PROBE) for row in (*UNTRAINED, *RECIPES.values())),
        compared=tuple((_PARTS, row, _PROBE, less, _PROBE) for row, less in _RECIPE_PAIRS),
    ),
}
