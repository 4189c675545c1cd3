"""The blind listening test as a listener takes it: from disk, offline, by keyboard alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from built import BREACHES, PHONE, axe_script
from simulated import blind_test

from sonibook.analysis.listening import ListenerFile, ListeningResult, ListeningTest
from sonibook.cli import main

#: What the page keeps, so that a closed window loses nothing.
KEPT = """() => JSON.parse(Object.entries(localStorage).find(
    ([name]) => name.startsWith("sonibook-listening-"))[1])"""
HEADING = "() => document.querySelector('h2').textContent"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("listening") / "test"
    blind_test(path)
    return path


@pytest.fixture
def page(browser: Any, folder: Path) -> Any:
    """The page, which must ask for nothing but its own files and complain of nothing."""
    context = browser.new_context(accept_downloads=True)
    context.set_offline(True)
    page, complaints = context.new_page(), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda one: complaints.append(one.text) if one.type == "error" else None)
    page.on("request", lambda one: (
        None if one.url.startswith((folder.as_uri(), "data:", "blob:"))
        else complaints.append(one.url)
    ))  # fmt: skip
    page.goto(f"{folder.as_uri()}/index.html#simulation")
    page.wait_for_selector("button.first")
    yield page
    assert complaints == []
    context.close()


def tab_to(page: Any, name: str) -> None:
    """Press Tab until a button has the focus."""
    for _ in range(40):
        if page.evaluate("document.activeElement.textContent") == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {name}")


def start(page: Any) -> None:
    """To the first trial, by keyboard: level, practice and all."""
    tab_to(page, "Begin")
    page.keyboard.press("Enter")
    for key in ("1", "Enter"):
        page.keyboard.press(key)
    for number in range(3):
        assert page.evaluate(HEADING) == f"Practice {number + 1} of 3"
        page.keyboard.press("Enter")  # nothing was heard or chosen yet
        assert page.locator("[role=status]").text_content() == "Play the sound first."
        page.keyboard.press("1")
        page.keyboard.press("a")
        page.keyboard.press("Enter")
        assert page.evaluate(HEADING) in ("Right", "Not this time")
        page.keyboard.press("Enter")
    page.keyboard.press("Enter")


def test_a_simulated_listener_takes_the_test_by_keyboard_and_its_file_is_scored(
    page: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It hears contrastive sonifications and the clips alone, and these without fault."""
    known = {trial.id: trial for trial in ListeningTest.read(folder).trials}
    start(page)
    assert page.locator("#simulation").is_visible()
    for number in range(60):
        if number == 30:  # the window is closed and opened again
            page.reload()
            page.wait_for_selector("button.first")
            tab_to(page, "Go on at trial 31")
            page.keyboard.press("Enter")
            page.keyboard.press("Enter")
        assert page.evaluate(HEADING) == f"Trial {number + 1} of 60"
        kept = page.evaluate(KEPT)
        trial = known[kept["offered"][number]]
        hears = trial.regime in ("contrastive", "")
        choice = trial.answer if hears else (trial.answer + 1) % trial.choices
        page.keyboard.press("1")
        page.keyboard.press("abcdefghij"[choice])
        page.keyboard.press("Enter")
    assert page.evaluate(HEADING) == "Thank you"
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)

    file = ListenerFile.model_validate(json.loads(saved.read_text(encoding="utf-8")))
    assert file.simulation
    assert file.checksum == file.sum()
    assert len({known[one].cell for one in file.offered}) == 54
    catches = [place for place, one in enumerate(file.offered) if known[one].catch]
    assert [place // 10 for place in catches] == list(range(6))
    assert all(one.plays >= 1 and one.milliseconds > 0 for one in file.answers)

    out = tmp_path / "listening.json"
    assert main(["analyse", "listening", str(saved), "--test", str(folder),
                 "--out", str(out)]) == 0  # fmt: skip
    assert "A simulation: no person listened." in capsys.readouterr().out
    result = ListeningResult.read(out)
    assert result.simulation
    for row in result.rows:
        if " less " not in row.condition:
            assert row.mean == (row.regime in ("contrastive", "")), row


def test_one_may_stop_and_what_was_answered_is_saved(page: Any, tmp_path: Path) -> None:
    start(page)
    for key in ("1", "a", "Enter"):
        page.keyboard.press(key)
    tab_to(page, "Stop here")
    page.keyboard.press("Enter")
    tab_to(page, "Save my answers (Enter)")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    download.value.save_as(tmp_path / "part.json")
    content = json.loads((tmp_path / "part.json").read_text(encoding="utf-8"))
    assert len(content["answers"]) == 1
    assert len(content["offered"]) == 60


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_screen_is_for_everybody(page: Any, theme: str) -> None:
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    page.evaluate(axe_script())

    def look() -> None:
        for size in (PHONE, {"width": 1280, "height": 900}):
            page.set_viewport_size(size)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= size["width"], page.evaluate(HEADING)
            assert page.evaluate(BREACHES, None) == [], page.evaluate(HEADING)

    look()
    tab_to(page, "Begin")
    page.keyboard.press("Enter")
    look()
    page.keyboard.press("Enter")
    for number in range(3):
        look()
        if number == 0:
            for canvas in page.locator("sonibook-player canvas").all():
                assert not canvas.is_visible()  # nothing to see: it is about hearing
        for key in ("1", "b", "Enter", "Enter"):
            page.keyboard.press(key)
    look()
    tab_to(page, "Begin the test (Enter)")
    page.keyboard.press("Enter")
    tab_to(page, "Stop here")
    page.keyboard.press("Enter")
    look()
