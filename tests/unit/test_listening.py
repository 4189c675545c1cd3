"""The blind listening test: what the page is given, whose files count, and what comes out of them.

All listeners here are simulations; where one stands for a person, the test says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heard import decoded, received
from simulated import REGIMES, answers_of, blind_test, signed

from sonibook.analysis.listeners import listen
from sonibook.analysis.listening import (
    GROUPS,
    ListeningResult,
    ListeningTest,
    Trial,
    score,
)
from sonibook.analysis.networks import Network
from sonibook.cli import main
from sonibook.datasets import open_dataset
from sonibook.errors import AnalysisError, SonibookError
from sonibook.model.encoder import CNN12
from sonibook.plots.claims import listening_report
from sonibook.widgets.listening_test import make_listening_test


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("listening") / "test"
    blind_test(path)
    return path


@pytest.fixture(scope="module")
def test(folder: Path) -> ListeningTest:
    return ListeningTest.read(folder)


def sounds_of(folder: Path) -> list[np.ndarray]:
    """All sounds of the page, by their numbers."""
    pieces = sorted(folder.glob("sounds-*.js"), key=lambda path: int(path.stem.partition("-")[2]))
    files = [one for path in pieces for one in received(folder, path.stem)]
    return [decoded(one)[0] for one in files]


def skill(trial: Trial) -> float:
    """Of the simulated listeners: what each cell's share of right answers would come to."""
    if trial.catch:
        return 0.97
    depth = list(GROUPS).index(trial.layers) if trial.layers else 0
    known = {"contrastive": 0.9, "supervised": 0.8, "centred random": 0.6, "": 0.95}[trial.regime]
    return known - 0.15 * depth - 0.2 * (trial.condition == "random phase")


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def crowd(test: ListeningTest, folder: Path, count: int, **more: Any) -> list[Path]:
    return [
        write(folder / f"{n}.json", answers_of(test, skill, name=f"n{n}", seed=n, **more))
        for n in range(count)
    ]


def test_the_page_is_blind_and_the_trials_balanced(folder: Path, test: ListeningTest) -> None:
    page = received(folder, "trials")
    text = json.dumps({**page, "practice": []})
    for word in ("answer", "layer", "random", *REGIMES, *test.networks):
        assert word not in text
    asked = [trial for trial in test.trials if not trial.catch]
    per_cell = Counter(trial.cell for trial in asked)
    clips = len({trial.clip for trial in asked})
    assert clips == test.data.clips >= 6
    assert {count for cell, count in per_cell.items() if cell[1]} == {clips}
    cells = {(one["cell"], one["clip"]) for one in page["trials"]}
    assert len(cells) == len(page["trials"]) == len(test.trials) == 60 * clips
    # Each task, regime and control asks every group of layers as often; so do layers, nearly.
    for trial in asked:
        if trial.layers:
            assert trial.layer in GROUPS[trial.layers]
    for layers in GROUPS.values():
        counts = Counter(trial.layer for trial in asked if trial.layer in layers)
        assert max(counts.values()) <= 2 * min(counts.values())
    for task, choices in (("clip", 3), ("closer", 2)):
        places = Counter(trial.answer for trial in test.trials if trial.task == task)
        assert min(places.values()) > 0.8 * sum(places.values()) / choices


def test_what_is_played_is_what_the_answers_are_about(folder: Path, test: ListeningTest) -> None:
    page = received(folder, "trials")
    sounds = sounds_of(folder)
    for x in sounds:
        # One level, but for what would leave full scale.
        assert np.sqrt(np.mean(x**2)) == pytest.approx(0.05, rel=0.02) or abs(x).max() > 0.99
    for shown, trial in zip(page["trials"], test.trials, strict=True):
        assert shown["id"] == trial.id
        heard = shown["sounds"]
        assert len(heard) == {"clip": 4, "class": 1, "closer": 3}[trial.task]
        if trial.catch:  # the sound is the clip itself, and so it is the right choice
            assert heard[0] == heard[1 + trial.answer]
            assert heard.count(heard[0]) == 2
    assert max(path.stat().st_size for path in folder.iterdir()) < 3e6


def test_a_sonification_is_nearer_to_its_own_clip_than_chance(
    folder: Path, test: ListeningTest
) -> None:
    """An independent listener: the spectrum alone finds the clip of most sonifications."""
    page = received(folder, "trials")
    sounds = sounds_of(folder)

    def spectrum(number: int) -> np.ndarray:
        power = np.abs(np.fft.rfft(sounds[number])) ** 2
        return np.log(np.add.reduceat(power, np.arange(0, len(power), 50)) + 1e-3)

    right = []
    for shown, trial in zip(page["trials"], test.trials, strict=True):
        if trial.task == "clip" and trial.layers == "1 and 2":
            sound, *clips = map(spectrum, shown["sounds"])
            found = np.argmax([np.corrcoef(sound, one)[0, 1] for one in clips])
            right.append(found == trial.answer)
    assert np.mean(right) > 0.5  # of chance 1/3, in some hundred trials
    assert len(right) > 100


def test_known_skill_comes_out_within_its_interval(
    test: ListeningTest, folder: Path, tmp_path: Path
) -> None:
    paths, out = crowd(test, tmp_path, 60), tmp_path / "listening.json"
    assert main(["analyse", "listening", *map(str, paths), "--test", str(folder),
                 "--out", str(out)]) == 0  # fmt: skip
    result = ListeningResult.read(out)
    assert result.simulation
    truth = {trial.cell: skill(trial) for trial in test.trials if not trial.catch}
    inside = []
    for row in result.rows:
        cell = (row.quantity, row.regime, row.layers, row.condition)
        if cell in truth:
            assert row.low is not None
            assert row.high is not None
            assert row.clips >= 55  # some fail their catch trials
            inside.append(row.low - 1e-9 <= truth[cell] <= row.high + 1e-9)
    assert len(inside) == 52
    assert np.mean(inside) > 0.88
    for task in ("clip", "class"):
        deep = result.row(task, condition="contrastive less supervised", layers="8 to 11")
        assert deep.low < 0.1 < deep.high
        fall = result.row(task, regime="supervised", condition="layers 3 to 7 less 8 to 11")
        assert fall.low < 0.15 < fall.high
    report = listening_report(tmp_path)
    assert report.startswith("**A simulation: no person listened.**")
    assert "simulated listeners" in report


def edit(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda content: json.dumps(signed({**content, **changes}))


def changed_by_hand(content: dict[str, Any]) -> str:
    answers = [{**content["answers"][0], "choice": 1 - content["answers"][0]["choice"] % 2}]
    return json.dumps({**content, "answers": [*answers, *content["answers"][1:]]})


def twice(content: dict[str, Any]) -> str:
    return edit(answers=[*content["answers"], content["answers"][0]])(content)


def stranger(content: dict[str, Any]) -> str:
    other = {**content["answers"][0], "trial": "t9999"}
    return edit(offered=[*content["offered"], "t9999"], answers=[other])(content)


def not_offered(content: dict[str, Any]) -> str:
    return edit(offered=content["offered"][1:])(content)


@pytest.mark.parametrize(
    ("damage", "reason", "says"),
    [
        (lambda c: json.dumps(c)[:-200], "damaged", "is not JSON, or cut off"),
        (lambda c: "[]", "something else", "is not what the listening test saves"),
        (lambda c: json.dumps({**c, "version": 2}), "another version", "is of version 2"),
        (lambda c: json.dumps({**c, "answers": 3}), "damaged", "is damaged at answers"),
        (changed_by_hand, "changed by hand", "was changed after it was saved"),
        (edit(test="0" * 16), "another test", "belongs to another test"),
        (twice, "never offered", "has answers that were never offered"),
        (
            stranger,
            "never offered",
            "has answers that were never offered (1, such as to trial t9999)",
        ),
        (not_offered, "never offered", "has answers that were never offered (1,"),
        (edit(answers=[]), "catch trials", "has answers to 0 catch trials"),
        (edit(listener="n0"), "duplicate", "is of the same listener as"),
        (edit(simulation=True), "simulation", "is a simulation"),
    ],
)
def test_a_bad_file_is_named_counted_and_never_mixed_in(
    test: ListeningTest, tmp_path: Path, damage: Any, reason: str, says: str
) -> None:
    # As if they were people's, to see that a simulation is not mixed with them.
    paths = crowd(test, tmp_path, 3, simulation=False)
    alone, _ = score(paths, test)
    content = answers_of(test, lambda _: 1.0, name="bad", seed=9, simulation=False)
    bad = tmp_path / "bad.json"
    bad.write_text(damage(content), encoding="utf-8")
    result, (left,) = score([*paths, bad], test)
    assert left.reason == reason
    assert left.sentence.startswith(f"{bad}: {says}")
    assert left.sentence.endswith(".")
    assert result.left_out == {reason: 1}
    assert (result.rows, result.simulation) == (alone.rows, False)


def test_who_does_not_listen_does_not_count(
    test: ListeningTest, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = answers_of(test, lambda trial: 1 / trial.choices, name="deaf", seed=5)
    path, out = write(tmp_path / "deaf.json", deaf), tmp_path / "out.json"
    command = ["analyse", "listening", str(path), "--test", str(folder), "--out", str(out)]
    assert main(command) == 2
    assert "of 6 catch trials right" in capsys.readouterr().err
    assert not out.exists()
    catches = {trial.id for trial in test.trials if trial.catch}
    only = [one for one in deaf["answers"] if one["trial"] in catches]
    write(path, signed({**deaf, "answers": only}))
    assert main(command) == 2
    assert "has answers to catch trials alone" in capsys.readouterr().err
    assert main([*command[:4], str(tmp_path), *command[5:]]) == 2
    assert "give the folder of the test's page with --test" in capsys.readouterr().err


def test_of_two_files_of_a_listener_the_longer_counts(test: ListeningTest, tmp_path: Path) -> None:
    whole = answers_of(test, skill, name="one", seed=1)
    part = answers_of(test, skill, name="one", seed=1, most=30)
    paths = [write(tmp_path / f"{n}.json", one) for n, one in enumerate((part, whole))]
    result, (left,) = score(paths, test)
    assert left.sentence.startswith(str(paths[0]))
    assert result.rows == score(paths[1:], test)[0].rows
    assert {row.low for row in result.rows} == {None}  # one listener has no interval


def test_with_no_file_the_report_says_that_nobody_listened(tmp_path: Path) -> None:
    assert listening_report(tmp_path).startswith("Nobody has taken this test yet")
    data = open_dataset("soundscapes", split="test", size=4, duration=1.0, events=(1, 1))
    networks = [
        Network(f"net {seed}", CNN12(width=1 / 16, seed=seed), "taught", seed) for seed in (1, 3)
    ]
    result = listen(networks, data, training=data, listeners=["event"])
    rows = (
        row.model_copy(
            update={"mean": (row.layer or 0) + (row.seed or 0) / 100, "low": None, "high": None}
        )
        for row in result.rows
    )
    result.model_copy(update={"rows": tuple(rows)}).write(tmp_path / "listeners-esc10.json")
    (line,) = [line for line in listening_report(tmp_path).splitlines() if "taught" in line]
    assert line == "| event | taught | 1.52 | 5.02 | 9.52 |"  # means of layers, and of two seeds


def test_a_folder_of_something_else_and_too_few_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    data = open_dataset("soundscapes", split="test", task="single-label", size=1, duration=0.5)
    with pytest.raises(SonibookError, match="is not a listening test"):
        make_listening_test([], data, tmp_path)
    with pytest.raises(AnalysisError, match="two clips of each of three classes"):
        make_listening_test([], data, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
