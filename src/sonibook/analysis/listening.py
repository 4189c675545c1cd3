"""The blind listening test: its trials, the files that its page saves, and what listeners heard.

A trial asks one of three things: *which clip* (of three) a sound was made from, *what* is heard (of
ten classes), or *which of two* sounds is *closer* to a clip. Whoever listens sees neither network
nor layer nor control, and the page does not know the answers: they stand in ``trials.json`` beside
it. That a listener listens at all is asked by catch trials, in which the sound is the clip itself.

A listener answers one trial of each cell (what is asked, of which regime, layers and control), on a
clip drawn at random. So a mean is over listeners, each of whom heard another clip, and its interval
comes from drawing whole listeners again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field, ValidationError, model_validator

from sonibook.analysis.result import MeasuredOn, Record, ResultTable, Row, estimates
from sonibook.errors import AnalysisError
from sonibook.files import read_json

#: What a trial may ask.
TASKS = {
    "clip": "Which of three clips was it made from?",
    "class": "What is heard?",
    "closer": "Which of two is closer to the clip?",
}
#: Differences within listeners: what is less what, as condition.
_REGIMES, _LAYERS = "contrastive less supervised", "layers 3 to 7 less 8 to 11"
#: Of the files that the page saves, and of ``trials.json``.
_VERSION = 1
#: Groups of layers, as the paper's claims have them.
GROUPS = {"1 and 2": (1, 2), "3 to 7": (3, 4, 5, 6, 7), "8 to 11": (8, 9, 10, 11)}
#: A listener counts who answered at least so many catch trials, and so large a share rightly.
_LEAST_CATCHES, _LEAST_RIGHT = 3, 0.75


class Trial(Record):
    """One question of the test, and the right one of its choices; the id says nothing of it.

    What is of the sound is empty where that is the clip itself. `condition` is the control, empty
    for the sonification; of two sounds, what the other one is.
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

    version: Literal[1] = 1
    data: MeasuredOn
    networks: dict[str, str]
    trials: tuple[Trial, ...]

    @cached_property
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
        return zlib.crc32("\n".join(map(str, lines)).encode(errors="replace"))


class _LeftOutError(Exception):
    """A file that does not count: why, in a word to be counted and in a sentence."""

    def __init__(self, path: Path, reason: str, says: str) -> None:
        self.reason, self.sentence = reason, f"{path}: {says}"


def _read_files(
    paths: Sequence[str | Path], test: ListeningTest
) -> tuple[list[ListenerFile], list[_LeftOutError]]:
    """The files that count, one a listener, and why others do not; people before simulations."""
    good: dict[tuple[str, bool], list[tuple[Path, ListenerFile]]] = {}
    left_out: list[_LeftOutError] = []
    for path in map(Path, paths):
        try:
            found = _read(path, test)
        except _LeftOutError as left:
            left_out.append(left)
            continue
        who = found.listener, found.simulation
        both = sorted([*good.get(who, []), (path, found)], key=lambda one: -len(one[1].answers))
        good[who] = both[:1]  # saved before the end and at the end: the longer one counts
        for shorter, _ in both[1:]:
            says = f"is of the same listener as {both[0][0]}, which counts."
            left_out.append(_LeftOutError(shorter, "duplicate", says))
    people = any(not simulation for _, simulation in good)
    kept = []
    for ((path, file),) in good.values():
        fault = _caught(file, test)
        if people and file.simulation:
            says = "is a simulation, and is not mixed with people's answers."
            left_out.append(_LeftOutError(path, "simulation", says))
        elif fault is not None:
            left_out.append(_LeftOutError(path, "catch trials", fault))
        else:
            kept.append(file)
    return kept, left_out


def _read(path: Path, test: ListeningTest) -> ListenerFile:
    """A file as such, without the others and without what is right; else `_LeftOutError`."""
    again = "ask the listener for the file as it was saved."
    try:
        content = read_json(path)
    except OSError as error:
        raise _LeftOutError(path, "unreadable", f"cannot be read ({error.strerror}).") from None
    except ValueError:
        raise _LeftOutError(path, "damaged", f"is not JSON, or cut off: {again}") from None
    if not isinstance(content, dict) or content.get("kind") != "sonibook listening test":
        raise _LeftOutError(path, "something else", "is not what the listening test saves.")
    if content.get("version") != _VERSION:
        says = f"is of version {content.get('version')!s:.20}, and this sonibook reads {_VERSION}."
        raise _LeftOutError(path, "another version", says)
    try:
        file = ListenerFile.model_validate(content)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise _LeftOutError(path, "damaged", f"is damaged at {place}: {again}") from None
    if file.checksum != file.sum():
        raise _LeftOutError(path, "changed by hand", f"was changed after it was saved: {again}")
    if file.test != test.digest:
        other = f"({file.test:.16}, not {test.digest})"
        says = f"belongs to another test {other}: give that one's folder with --test."
        raise _LeftOutError(path, "another test", says)
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
        such = f"({len(strangers)}, such as to trial {strangers[0]:.20})"
        raise _LeftOutError(
            path, "never offered", f"has answers that were never offered {such}: {again}"
        )
    return file


def _caught(file: ListenerFile, test: ListeningTest) -> str | None:
    """Why a listener's catch trials say that nobody listened; None where they do not."""
    right = {trial.id: trial.answer for trial in test.trials if trial.catch}
    caught = [one.choice == right[one.trial] for one in file.answers if one.trial in right]
    if len(caught) < _LEAST_CATCHES:
        return f"has answers to {len(caught)} catch trials: it takes {_LEAST_CATCHES} to count."
    if len(caught) == len(file.answers):
        return "has answers to catch trials alone."
    if np.mean(caught) < _LEAST_RIGHT:
        return (
            f"has {sum(caught)} of {len(caught)} catch trials right, and it takes "
            f"{_LEAST_RIGHT:.0%}: the listener could not hear, or did not listen."
        )
    return None


_Cell = tuple[str, str, str, str]


class ListeningRow(Row):
    """One number, over as many listeners as ``clips`` says; of a group in `GROUPS`, or of all."""

    layers: str = ""


class ListeningResult(ResultTable):
    """What listeners heard; make it with `score`.

    The quantities are those of `TASKS`: the share of right answers, and of ``closer`` the share
    that chose the sonification of the row's regime rather than what the condition names. Under
    ``contrastive less supervised`` and ``layers 3 to 7 less 8 to 11`` as conditions stand
    differences within listeners. Rows without layers are over all of them. `chance` is what
    guessing comes to, by quantity; `left_out` counts the files that were not counted, by reason.
    """

    analysis: Literal["listening"] = "listening"
    rows: tuple[ListeningRow, ...]
    simulation: bool
    listeners: int
    chance: dict[str, float]
    left_out: dict[str, int]

    @model_validator(mode="after")
    def _asked(self) -> ListeningResult:
        unknown = {row.quantity for row in self.rows} - (TASKS.keys() & self.chance.keys())
        if unknown:
            raise ValueError(f"{min(unknown)!r} is not what the test asks")
        return self


def score(
    paths: Sequence[str | Path], test: ListeningTest, *, seed: int = 0
) -> tuple[ListeningResult, list[_LeftOutError]]:
    """What the listeners whose files count have heard, and why other files do not count.

    For intervals whole listeners are drawn again (percentile bootstrap). With fewer than ten they
    are too narrow, and where all agree they have no width. Raises an `AnalysisError` that names
    each file's fault if no file counts.
    """
    files, left_out = _read_files(paths, test)
    if not files:
        faults = " ".join(one.sentence for one in left_out)
        raise AnalysisError(f"No file of a listener counts. {faults}".strip())
    values = _by_listener(files, {trial.id: trial for trial in test.trials})
    found = estimates(np.stack([*values.values()], axis=1), seed=seed)
    rows = [
        ListeningRow(
            quantity=task, regime=regime, layers=layers, condition=condition, **one.model_dump()
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
    given: dict[_Cell, list[list[bool]]] = defaultdict(lambda: [[] for _ in files])
    for number, file in enumerate(files):
        for answer in file.answers:
            trial = trials[answer.trial]
            task, regime, layers, condition = trial.cell
            for group in () if trial.catch else {layers, ""}:
                own = given[task, regime, group, condition][number]
                own.append(answer.choice == trial.answer)
    # In the order of the test's tasks, regimes, controls and groups of layers.
    groups = [*GROUPS, ""]
    regimes = list(dict.fromkeys(trial.regime for trial in trials.values()))
    order = sorted(given, key=lambda cell: ([*TASKS].index(cell[0]), regimes.index(cell[1]),
                                            cell[3], groups.index(cell[2])))  # fmt: skip
    means = {
        cell: np.array([np.mean(own) if own else np.nan for own in given[cell]]) for cell in order
    }
    differences: dict[_Cell, tuple[_Cell, _Cell]] = {}
    for task in ("clip", "class"):
        for group in groups:
            ours, theirs = ((task, one, group, "") for one in ("contrastive", "supervised"))
            differences[task, "", group, _REGIMES] = ours, theirs
        for regime in regimes:
            ours, theirs = ((task, regime, group, "") for group in ("3 to 7", "8 to 11"))
            differences[task, regime, "", _LAYERS] = ours, theirs
    known = {cell: of for cell, of in differences.items() if means.keys() >= {*of}}
    return means | {cell: means[one] - means[other] for cell, (one, other) in known.items()}
