"""What a table is made from: one cell for each start, seed, training and tested part.

A table's file holds its cells, so that it is its own memory: what was measured is not measured
again, and what was interrupted goes on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sonibook.analysis.result import Record
from sonibook.errors import AnalysisError
from sonibook.replication.reported import Training
from sonibook.results import write_result


class Cell(Record):
    """One classifier, tested on one part.

    Attributes
    ----------
    key : str
        What tells it from all others: a digest of the network, the training and the data.
    row : str
        What it started from: "none" (from scratch), or `Pretrained.row`.
    network : str
        The very network, such as "contrastive-1"; "none" from scratch.
    seed : int
        Of the network it started from, and of the classifier's training.
    question : str
        Such as "esc10, five folds": cells of one question are averaged over its parts.
    training : {"linear probe", "fc-only", "full"}
    tested : str
        The part: "fold 5", "speaker jackson", "test".
    clips : int
        How many clips that part has.
    metrics : dict of str to float
        Such as ``accuracy``, ``mAP``, ``mAUC`` and ``d_prime``.
    right : str or None
        For each clip of the part, in order, "1" if it was named rightly, else "0".
    settings : dict
        Of the classifier: a strength of regularisation, or a configuration's name.
    made : int
        Which of the table's provenances.
    """

    key: str
    row: str
    network: str
    seed: int
    question: str
    training: Training
    tested: str
    clips: int
    metrics: dict[str, float]
    right: str | None
    settings: dict[str, Any]
    made: int


class CellFile:
    """The cells of one table, kept in its results file.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    cells : list of Cell
    made : list of dict
        Provenances; a cell says which is its own.

    Raises
    ------
    AnalysisError
        If there is a file that holds no cells.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.cells: list[Cell] = []
        self.made: list[dict[str, Any]] = []
        self.parts: dict[str, list[str]] = {}
        self.before: dict[str, Any] = {}
        if self.path.exists():
            try:
                self.before = json.loads(self.path.read_text(encoding="utf-8"))
                self.cells = [Cell.model_validate(one) for one in self.before["cells"]]
                self.made, self.parts = self.before["made"], self.before["parts"]
            except (ValueError, KeyError, TypeError) as error:
                raise AnalysisError(f"{path}: holds no table of cells ({error}).") from None

    def has(self, key: str) -> bool:
        """Whether a cell was measured already."""
        return any(cell.key == key for cell in self.cells)

    def add(self, cell: Cell) -> None:
        """Take note of a cell; one of the same place in the table, made otherwise, gives way."""
        place = _place(cell)
        self.cells = [one for one in self.cells if _place(one) != place] + [cell]

    def maker(self, provenance: dict[str, Any]) -> int:
        """The number of a provenance, which cells refer to; its time is that of its first cell."""
        for number, one in enumerate(self.made):
            if {**one, "created": None} == {**provenance, "created": None}:
                return number
        self.made.append(provenance)
        return len(self.made) - 1

    def content(self) -> dict[str, Any]:
        """The part of a results file that holds the cells."""
        used = sorted({cell.made for cell in self.cells})
        number = {old: new for new, old in enumerate(used)}
        cells = [cell.model_copy(update={"made": number[cell.made]}) for cell in self.cells]
        return {
            "made": [self.made[old] for old in used],
            "parts": self.parts,
            "cells": [cell.model_dump(mode="json") for cell in sorted(cells, key=_place)],
        }

    def write(self, content: dict[str, Any]) -> None:
        """Write the table: what was made of the cells, then the cells."""
        write_result(self.path, {**content, **self.content()})


def _place(cell: Cell) -> tuple[str, str, str, str, int, str]:
    return cell.question, cell.training, cell.row, cell.network, cell.seed, cell.tested
