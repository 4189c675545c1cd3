"""The blind listening test: its trials, the files that listeners save, and what they come to.

A trial asks one of three things: *which clip* (of three) a sound was made from, *what* is heard (of
ten classes), or *which of two* sounds is *closer* to a clip. Whoever listens sees neither network
nor layer nor control, and the page does not know the answers: they stand in ``trials.json`` beside
it. That a listener listens at all is asked by catch trials, in which the sound is the clip itself.

A listener answers one trial of each cell (what is asked, of which regime, layers and control), on a
clip drawn at random. So a cell has one answer a listener, and its interval is over listeners.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field, ValidationError

from sonibook.analysis.result import Measured, Record, ResultTable, Row, named_estimates
from sonibook.errors import AnalysisError
from sonibook.untrusted import read_json

#: Of the files that the page saves, and of ``trials.json``.
VERSION = 1
TASKS = {
    "clip": "Which of three clips was it made from?",
    "class": "What is heard?",
    "closer": "Which of two is closer to the clip?",
}
#: Groups of layers, as the paper's claims have them.
GROUPS = {"1 and 2": (1, 2), "3 to 7": (3, 4, 5, 6, 7), "8 to 11": (8, 9, 10, 11)}
_MIDDLE, _DEEP = "3 to 7", "8 to 11"
#: A listener counts who answered at least so many catch trials, and so large a share rightly.
_LEAST_CATCHES, _LEAST_RIGHT = 3, 0.75
_SIMULATION = "**A simulation: no person listened.**"


class Trial(Record):
    """One question of the test, and its answer.

    Attributes
    ----------
    id : str
        Says nothing of what is asked.
    task : {"clip", "class", "closer"}
    choices : int >= 2
    answer : int
        The right choice. Of two sounds it is the sonification of the regime named.
    catch : bool
    regime, network : str
        Of the sound; empty where it is the clip itself.
    layer : int or None
    layers : str
        Its group in `GROUPS`; empty for the clip itself.
    condition : str
        The control: empty for the sonification. Of two sounds, what the other one is.
    clip : str
    """

    id: str
    task: Literal["clip", "class", "closer"]
    choices: int = Field(ge=2)
    answer: int
    catch: bool = False
    regime: str = ""
    network: str = ""
    layer: int | None = None
    layers: str = ""
    condition: str = ""
    clip: str

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """What is asked, and of which sounds."""
        return self.task, self.regime, self.layers, self.condition


class ListeningTest(Record):
    """All trials of a test, as ``trials.json`` holds them."""

    version: Literal[1] = VERSION
    data: Measured
    networks: dict[str, str]
    trials: tuple[Trial, ...]

    @property
    def digest(self) -> str:
        """What tells this test from others: it does not depend on how its sounds were rounded."""
        trials = [trial.model_dump() for trial in self.trials]
        text = json.dumps([self.version, self.networks, trials], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def read(cls, folder: str | Path) -> ListeningTest:
        """The test in a folder that has its page; `AnalysisError` where there is none."""
        path = Path(folder) / "trials.json"
        try:
            content = read_json(path)
            return cls.model_validate({name: content.get(name) for name in cls.model_fields})
        except OSError:
            raise AnalysisError(
                f"{path}: there is no such file: give the folder of the test's page with --test."
            ) from None
        except (ValueError, AttributeError):
            raise AnalysisError(
                f"{path}: is not the list of a listening test's trials: build the test again."
            ) from None


class Answer(Record):
    """What a listener chose in a trial, after how long, and how often something was played."""

    trial: str
    choice: int
    milliseconds: int
    plays: int


class ListenerFile(Record):
    """A file that the page saved, as it is; `checksum` tells of changes made by hand."""

    kind: Literal["sonibook listening test"]
    version: Literal[1]
    test: str
    listener: str
    simulation: bool
    offered: tuple[str, ...]
    answers: tuple[Answer, ...]
    checksum: int

    def sum(self) -> int:
        """The checksum (CRC-32) of the rest, as ``listening_test.js`` computes it."""
        lines = [self.version, self.test, self.listener, str(self.simulation).lower()]
        lines += [" ".join(self.offered)]
        lines += [f"{a.trial} {a.choice} {a.milliseconds} {a.plays}" for a in self.answers]
        return zlib.crc32("\n".join(map(str, lines)).encode())


class LeftOut(NamedTuple):
    """A file that does not count: why, in a word to be counted and in a sentence."""

    reason: str
    sentence: str


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
    left_out : dict of str to int
        How many files were not counted, by reason.
    """

    analysis: Literal["listening"] = "listening"
    rows: tuple[ListeningRow, ...]
    simulation: bool
    listeners: int
    left_out: dict[str, int]


def read_files(
    paths: Sequence[str | Path], test: ListeningTest
) -> tuple[list[ListenerFile], list[LeftOut]]:
    """The files that count, and why the others do not.

    Parameters
    ----------
    paths : sequence of str or Path
    test : ListeningTest
        The one that listeners took.

    Returns
    -------
    files : list of ListenerFile
        One a listener; simulations only where there is nothing else.
    left_out : list of LeftOut
        In the order in which they were found out.
    """
    good: dict[str, tuple[Path, ListenerFile]] = {}
    left_out: list[LeftOut] = []

    def leave(path: Path, reason: str, says: str) -> None:
        left_out.append(LeftOut(reason, f"{path}: {says}"))

    for path in map(Path, paths):
        found = _read(path, test)
        if isinstance(found, LeftOut):
            left_out.append(found)
            continue
        earlier = good.get(found.listener)
        if earlier is not None:  # saved before the end, and again at the end: the longer one counts
            shorter = earlier if len(earlier[1].answers) < len(found.answers) else (path, found)
            longer = (path, found) if shorter is earlier else earlier
            good[found.listener] = longer
            leave(shorter[0], "duplicate", f"is of the same listener as {longer[0]}, which counts.")
        else:
            good[found.listener] = path, found
    people = any(not file.simulation for _, file in good.values())
    kept = []
    for path, file in good.values():
        if people and file.simulation:
            leave(path, "simulation", "is a simulation, and is not mixed with people's answers.")
        elif (fault := _caught(file, test)) is not None:
            leave(path, "catch trials", fault)
        else:
            kept.append(file)
    return kept, left_out


def _read(path: Path, test: ListeningTest) -> ListenerFile | LeftOut:
    """A file as such, without the others and without what is right."""

    def left(reason: str, says: str) -> LeftOut:
        return LeftOut(reason, f"{path}: {says}")

    again = "ask the listener for the file as it was saved."
    try:
        content = read_json(path)
    except OSError as error:
        return left("unreadable", f"cannot be read ({error.strerror}).")
    except ValueError:
        return left("damaged", f"is not JSON, or cut off: {again}")
    if not isinstance(content, dict) or content.get("kind") != "sonibook listening test":
        return left("something else", "is not what the listening test saves.")
    if content.get("version") != VERSION:
        return left(
            "another version",
            f"is of version {content.get('version')!s:.20}, and this sonibook reads {VERSION}.",
        )
    try:
        file = ListenerFile.model_validate(content)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        return left("damaged", f"is damaged at {place}: {again}")
    if file.checksum != file.sum():
        return left("changed by hand", f"was changed after it was saved: {again}")
    if file.test != test.digest:
        return left(
            "another test",
            f"belongs to another test ({file.test:.16}, not {test.digest}): give that one's folder "
            "with --test.",
        )
    known = {trial.id: trial.choices for trial in test.trials}
    counts = Counter(answer.trial for answer in file.answers)
    strangers = [
        answer.trial
        for answer in file.answers
        if answer.trial not in file.offered
        or not 0 <= answer.choice < known.get(answer.trial, 0)
        or counts[answer.trial] > 1
    ]
    if strangers:
        return left(
            "never offered",
            f"has answers that were never offered ({len(strangers)}, such as to trial "
            f"{strangers[0]:.20}): {again}",
        )
    return file


def _caught(file: ListenerFile, test: ListeningTest) -> str | None:
    """Why a listener's catch trials say that nobody listened; None where they do not."""
    right = {trial.id: trial.answer for trial in test.trials if trial.catch}
    caught = [one.choice == right[one.trial] for one in file.answers if one.trial in right]
    if len(caught) < _LEAST_CATCHES:
        return f"has answers to {len(caught)} catch trials: it takes {_LEAST_CATCHES} to count."
    if np.mean(caught) < _LEAST_RIGHT:
        return (
            f"has {sum(caught)} of {len(caught)} catch trials right, and it takes "
            f"{_LEAST_RIGHT:.0%}: the listener could not hear, or did not listen."
        )
    return None


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
        fewer than ten listeners they are too narrow.

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
    cells = list(values)
    matrix = np.stack([values[cell] for cell in cells], axis=1)
    found = named_estimates([str(cell) for cell in cells], matrix, seed=seed)
    rows = [
        ListeningRow(
            regime=regime, quantity=task, layers=layers, condition=condition,
            **found[str((task, regime, layers, condition))].model_dump(),
        )
        for task, regime, layers, condition in cells
    ]  # fmt: skip
    result = ListeningResult(
        data=test.data,
        networks=test.networks,
        settings={
            "test": test.digest,
            "seed": seed,
            "chance": {trial.task: 1 / trial.choices for trial in test.trials},
        },
        rows=tuple(rows),
        simulation=all(file.simulation for file in files),
        listeners=len(files),
        left_out=dict(Counter(one.reason for one in left_out)),
    )
    return result, left_out


_Cell = tuple[str, str, str, str]


def _by_listener(
    files: Sequence[ListenerFile], trials: Mapping[str, Trial]
) -> dict[_Cell, Float[ndarray, " listeners"]]:
    """Each listener's share of right answers, by cell; NaN where there is no answer."""
    scores: dict[_Cell, list[list[bool]]] = {}
    wanted = dict.fromkeys(trial.cell for trial in trials.values() if not trial.catch)
    for task, regime, layers, condition in wanted:
        for group in (layers, ""):
            scores.setdefault((task, regime, group, condition), [[] for _ in files])
    for number, file in enumerate(files):
        for answer in file.answers:
            trial = trials[answer.trial]
            if trial.catch:
                continue
            task, regime, layers, condition = trial.cell
            for group in {layers, ""}:
                cell = task, regime, group, condition
                scores[cell][number].append(answer.choice == trial.answer)
    means = {
        cell: np.array([np.mean(one) if one else np.nan for one in every])
        for cell, every in scores.items()
    }
    for task in ("clip", "class"):
        for group in (*GROUPS, ""):
            ours, theirs = ((task, regime, group, "") for regime in ("contrastive", "supervised"))
            if ours in means and theirs in means:
                difference = task, "", group, "contrastive less supervised"
                means[difference] = means[ours] - means[theirs]
        for regime in dict.fromkeys(cell[1] for cell in wanted if cell[0] == task and cell[1]):
            middle, deep = ((task, regime, group, "") for group in (_MIDDLE, _DEEP))
            if middle in means and deep in means:
                difference = task, regime, "", f"layers {_MIDDLE} less {_DEEP}"
                means[difference] = means[middle] - means[deep]
    return means


def listening_report(folder: str | Path) -> str:
    """What ``listening.json`` in a folder of results says, as Markdown; else that there is none."""
    path = Path(folder) / "listening.json"
    if not path.exists():
        return "Nobody has taken this test yet: what there is so far is what machines hear."
    result = ListeningResult.read(path)
    lines = [_SIMULATION, ""] if result.simulation else []
    left = ", ".join(f"{count} {reason}" for reason, count in result.left_out.items())
    who = "simulated listeners" if result.simulation else "listeners"
    lines += [
        f"Answers of {result.listeners} {who}"
        + (f"; files that do not count: {left}" if left else "")
        + f". Sounds of {result.data.clips} clips of {result.data.dataset}. Means with their 95 % "
        "intervals over listeners.",
        "",
        "| asked | of | " + " | ".join(f"layers {group}" for group in GROUPS) + " | all | chance |",
        "| --- | --- |" + " --- |" * (len(GROUPS) + 2),
    ]
    chance = result.settings["chance"]
    for task, regime, condition in dict.fromkeys(
        (row.quantity, row.regime, row.condition) for row in result.rows
    ):
        own = {row.layers: row for row in result.select(quantity=task, regime=regime,
                                                        condition=condition)}  # fmt: skip
        cells = [f"{own[group]:.2f}" if group in own else "" for group in (*GROUPS, "")]
        even = (
            f"{chance[task]:.2f}" if isinstance(chance, dict) and " less " not in condition else 0
        )
        joint = " rather than " if task == "closer" else ", "
        of = joint.join(filter(None, (regime, condition)))
        lines.append(f"| {TASKS[task]} | {of} | " + " | ".join(cells) + f" | {even} |")
    return "\n".join(lines)
