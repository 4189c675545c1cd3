"""What people hear in the blind listening test, by training, layers and control.

A listener answers one trial of each cell (what is asked, of which regime, layers and control), on a
clip drawn at random. So a mean is over listeners, each of whom heard another clip, and its interval
comes from drawing whole listeners again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sonibook.analysis.listener_files import (
    GROUPS,
    LeftOut,
    ListenerFile,
    ListeningTest,
    Trial,
    read_files,
)
from sonibook.analysis.result import ResultTable, Row, estimates
from sonibook.errors import AnalysisError

#: What a trial may ask.
TASKS = {
    "clip": "Which of three clips was it made from?",
    "class": "What is heard?",
    "closer": "Which of two is closer to the clip?",
}
#: Differences within listeners: what is less what, as condition.
_REGIMES, _LAYERS = "contrastive less supervised", "layers 3 to 7 less 8 to 11"

_Cell = tuple[str, str, str, str]


class ListeningRow(Row):
    """One number of a listening test, over listeners; `layers` is a group in `GROUPS` or empty.

    ``clips`` counts the listeners that the mean is over.
    """

    layers: str = ""


class ListeningResult(ResultTable):
    """What listeners heard; make it with `score`.

    The quantities are those of `TASKS`: the share of right answers, and of ``closer`` the share
    that chose the sonification of the row's regime rather than what the condition names. Under
    ``contrastive less supervised`` and ``layers 3 to 7 less 8 to 11`` as conditions stand
    differences within listeners. Rows without layers are over all of them.

    Attributes
    ----------
    simulation : bool
        Whether no person listened.
    listeners : int
    chance : dict of str to float
        What guessing comes to, by quantity.
    left_out : dict of str to int
        How many files were not counted, by reason.
    """

    analysis: Literal["listening"] = "listening"
    rows: tuple[ListeningRow, ...]
    simulation: bool
    listeners: int
    chance: dict[str, float]
    left_out: dict[str, int]


def score(
    paths: Sequence[str | Path], test: ListeningTest, *, seed: int = 0
) -> tuple[ListeningResult, list[LeftOut]]:
    """What the listeners whose files count have heard, and why other files do not count.

    Parameters
    ----------
    paths : sequence of str or Path
        Files that the page saved, one or more a listener.
    test : ListeningTest
    seed : int >= 0
        Of the intervals, for which whole listeners are drawn again (percentile bootstrap). With
        fewer than ten listeners they are too narrow, and where all agree they have no width.

    Returns
    -------
    result : ListeningResult
    left_out : list of LeftOut

    Raises
    ------
    AnalysisError
        If no file counts; it names each one's fault.
    """
    files, left_out = read_files(paths, test)
    if not files:
        faults = " ".join(one.sentence for one in left_out)
        raise AnalysisError(f"No file of a listener counts. {faults}".strip())
    values = _by_listener(files, {trial.id: trial for trial in test.trials})
    found = estimates(np.stack([*values.values()], axis=1), seed=seed)
    rows = [
        ListeningRow(
            quantity=task,
            regime=regime,
            layers=layers,
            condition=condition,
            **one.model_dump(),
        )
        for (task, regime, layers, condition), one in zip(values, found, strict=True)
    ]
    result = ListeningResult(
        data=test.data,
        networks=test.networks,
        settings={"test": test.digest, "seed": seed},
        rows=tuple(rows),
        simulation=all(file.simulation for file in files),
        listeners=len(files),
        chance={trial.task: 1 / trial.choices for trial in test.trials},
        left_out=dict(Counter(one.reason for one in left_out)),
    )
    return result, left_out


def _by_listener(
    files: Sequence[ListenerFile], trials: Mapping[str, Trial]
) -> dict[_Cell, Float[ndarray, " listeners"]]:
    """Each listener's share of right answers, by cell; NaN where there is no answer."""
    right: dict[_Cell, ndarray] = defaultdict(lambda: np.zeros(len(files)))
    asked: dict[_Cell, ndarray] = defaultdict(lambda: np.zeros(len(files)))
    for number, file in enumerate(files):
        for answer in file.answers:
            trial = trials[answer.trial]
            task, regime, layers, condition = trial.cell
            for group in () if trial.catch else {layers, ""}:
                cell = task, regime, group, condition
                right[cell][number] += answer.choice == trial.answer
                asked[cell][number] += 1
    # In the order of the test's tasks, regimes, controls and groups of layers.
    groups = [*GROUPS, ""]
    regimes = list(dict.fromkeys(trial.regime for trial in trials.values()))
    order = sorted(asked, key=lambda cell: ([*TASKS].index(cell[0]), regimes.index(cell[1]),
                                            cell[3], groups.index(cell[2])))  # fmt: skip
    means = {
        cell: np.where(asked[cell] > 0, right[cell] / np.maximum(asked[cell], 1), np.nan)
        for cell in order
    }

    def less(task: str, ours: tuple[str, str], theirs: tuple[str, str]) -> ndarray | None:
        """The difference between two sonifications, each of a regime and a group of layers."""
        one, other = (means.get((task, *of, "")) for of in (ours, theirs))
        return None if one is None or other is None else one - other

    for task in ("clip", "class"):
        apart = {
            (task, "", group, _REGIMES): less(task, ("contrastive", group), ("supervised", group))
            for group in groups
        }
        apart |= {
            (task, regime, "", _LAYERS): less(task, (regime, "3 to 7"), (regime, "8 to 11"))
            for regime in regimes
        }
        means |= {cell: values for cell, values in apart.items() if values is not None}
    return means


def listening_report(folder: str | Path) -> str:
    """What people heard, as a table in Markdown; or that nobody has listened yet.

    Parameters
    ----------
    folder : str or Path
        Of results files: ``listening.json`` is the one that ``sonibook analyse listening`` writes.

    Returns
    -------
    str
        Markdown. Of a simulation it says so first.

    Raises
    ------
    AnalysisError
        If the file is damaged.
    """
    path = Path(folder) / "listening.json"
    if not path.exists():
        return "Nobody has taken this test yet: so far there is only what machines hear."
    result = ListeningResult.read(path)
    left = ", ".join(f"{count} {reason}" for reason, count in result.left_out.items())
    who = "simulated listeners" if result.simulation else "listeners"
    lines = ["**A simulation: no person listened.**", ""] if result.simulation else []
    lines += [
        f"Answers of {result.listeners} {who}{f' (files left out: {left})' if left else ''} to "
        f"sounds of {result.data.clips} clips of {result.data.dataset}. Shares of right answers "
        "(of two sounds, of those who chose the first named), with 95 % intervals over listeners.",
        "",
        f"| asked | of | {' | '.join(f'layers {group}' for group in GROUPS)} | all | chance |",
        "| --- | --- |" + " --- |" * (len(GROUPS) + 2),
    ]
    shown: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in result.rows:
        own = shown.setdefault((row.quantity, row.regime, row.condition), {})
        own[row.layers] = f"{row:.2f}"
    for (task, regime, condition), own in shown.items():
        joint = " rather than " if task == "closer" else ", "
        chance = 0 if condition in (_REGIMES, _LAYERS) else result.chance[task]
        cells = [TASKS[task], joint.join(filter(None, (regime, condition)))]
        cells += [own.get(group, "") for group in (*GROUPS, "")]
        lines.append(f"| {' | '.join(cells)} | {chance:.2g} |")
    return "\n".join(lines)
