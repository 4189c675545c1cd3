"""The blind listening test: its trials, and the files that its page saves for listeners.

A trial asks one of three things: *which clip* (of three) a sound was made from, *what* is heard (of
ten classes), or *which of two* sounds is *closer* to a clip. Whoever listens sees neither network
nor layer nor control, and the page does not know the answers: they stand in ``trials.json`` beside
it. That a listener listens at all is asked by catch trials, in which the sound is the clip itself.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field, ValidationError

from sonibook.analysis.result import Measured, Record
from sonibook.errors import AnalysisError
from sonibook.untrusted import read_json

#: Of the files that the page saves, and of ``trials.json``.
_VERSION = 1
#: Groups of layers, as the paper's claims have them.
GROUPS = {"1 and 2": (1, 2), "3 to 7": (3, 4, 5, 6, 7), "8 to 11": (8, 9, 10, 11)}
#: A listener counts who answered at least so many catch trials, and so large a share rightly.
_LEAST_CATCHES, _LEAST_RIGHT = 3, 0.75


class Trial(Record):
    """One question of the test, and its answer.

    Attributes
    ----------
    id : str
        Says nothing of what is asked.
    task : {"clip", "class", "closer"}
        Which of three clips, which class, or which of two sounds is closer to the clip.
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

    version: Literal[1] = 1
    data: Measured
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


class LeftOut(NamedTuple):
    """A file that does not count: why, in a word to be counted and in a sentence."""

    reason: str
    sentence: str


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
    good: dict[tuple[str, bool], list[tuple[Path, ListenerFile]]] = {}
    left_out: list[LeftOut] = []

    def leave(path: Path, reason: str, says: str) -> None:
        left_out.append(LeftOut(reason, f"{path}: {says}"))

    for path in map(Path, paths):
        found = _read(path, test)
        if isinstance(found, LeftOut):
            left_out.append(found)
            continue
        who = found.listener, found.simulation
        both = sorted([*good.get(who, []), (path, found)], key=lambda one: -len(one[1].answers))
        good[who] = both[:1]  # saved before the end and at the end: the longer one counts
        for shorter, _ in both[1:]:
            leave(shorter, "duplicate", f"is of the same listener as {both[0][0]}, which counts.")
    people = any(not simulation for _, simulation in good)
    kept = []
    for ((path, file),) in good.values():
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
    if content.get("version") != _VERSION:
        return left(
            "another version",
            f"is of version {content.get('version')!s:.20}, and this sonibook reads {_VERSION}.",
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
    if len(caught) == len(file.answers):
        return "has answers to catch trials alone."
    if np.mean(caught) < _LEAST_RIGHT:
        return (
            f"has {sum(caught)} of {len(caught)} catch trials right, and it takes "
            f"{_LEAST_RIGHT:.0%}: the listener could not hear, or did not listen."
        )
    return None
