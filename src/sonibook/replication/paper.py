"""The paper's tables: what it reports in them, and what each is to hold here.

Of the paper's A.1, A.2, A.4 and A.6 these are the rows of CNN12 and CNN12_x2, by the names that the
miniature's rows have, so that the two stand side by side. Of ESC-50, which the paper does not use,
it is another publication's figure. All of it stands in ``paper.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

from sonibook.analysis.result import Record
from sonibook.files import parse_yaml

#: "linear probe" is fc-only by a logistic regression; see `sonibook.replication.trials`.
Training = Literal["linear probe", "fc-only", "full"]


class Reported(Record):
    """A row of a table of the paper: means, and half of their intervals."""

    row: str
    training: Training
    metrics: dict[str, tuple[float, float | None]]
    source: str | None = None


class TableSpec(Record):
    """What a table is to hold, and which of its rows are compared.

    A row is a benchmark, a start and its training; in a pair, the row that is subtracted follows.
    """

    table: str
    title: str
    data: str
    wanted: tuple[tuple[str, str, Training], ...]
    compared: tuple[tuple[str, str, Training, str, Training], ...]


_PAPER = parse_yaml(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def _listed(parts: list[dict[str, Any]], kind: str) -> Iterator[tuple[str, Any, str, str]]:
    """The "rows" or "pairs" of a table, each with what it is tested on and both trainings."""
    for part in parts:
        for tested, group in product(part["tested"], part[kind]):
            for block in _PAPER["groups"][group][kind]:
                for one, training in product(block[kind], block["training"]):
                    yield tested, one, training, block.get("less", training)


def _spec(parts: list[dict[str, Any]], **named: str) -> TableSpec:
    return TableSpec(
        wanted=tuple((on, row, how) for on, row, how, _ in _listed(parts, "rows")),
        compared=tuple((on, a, how, b, less) for on, (a, b), how, less in _listed(parts, "pairs")),
        **named,
    )


#: What the paper reports, by table; rows in the paper's order.
REPORTED: dict[str, tuple[Reported, ...]] = {
    table: tuple(map(Reported.model_validate, rows)) for table, rows in _PAPER["reported"].items()
}
#: By the name of the results file.
TABLES: dict[str, TableSpec] = {name: _spec(**told) for name, told in _PAPER["tables"].items()}
#: Rows that take the contrastive recipe apart, by the stem of their file in ``configs/ablation``.
RECIPES: dict[str, str] = _PAPER["recipes"]
