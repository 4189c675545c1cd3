"""The book in Firefox: the dark, and the lab over http and from disk, with file and voice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from built import PAGES, SPECTROGRAMS, assert_dark_around_spectrograms
from firefox import Firefox
from heard import HEARD, READY, SAID, assert_names, assert_sonifies, unpacked

RATE = 8000


@pytest.fixture(params=["http", "file"])
def lab(request: pytest.FixtureRequest, firefox: Firefox, site: str) -> Iterator[Lab]:
    """The lab over http, and from disk."""
    yield Lab(firefox, site if request.param == "http" else PAGES.as_uri())
    firefox.goto("about:blank")


over_http = pytest.mark.parametrize("lab", ["http"], indirect=True)
from_disk = pytest.mark.parametrize("lab", ["file"], indirect=True)


class Lab:
    """A reader's Firefox."""

    def __init__(self, firefox: Firefox, address: str) -> None:
        self.firefox, self.address = firefox, address

    def open(self, link: str = "") -> dict[str, Any]:
        self.firefox.goto("about:blank")
        self.firefox.goto(f"{self.address}/lab.html{link}")
        self.firefox.evaluate(
            """() => {
                window.complaints = [];
                for (const kind of ["error", "unhandledrejection"]) {
                    addEventListener(kind, (event) => complaints.push(String(event.message)));
                }
            }"""
        )
        return self.heard()

    def heard(self) -> dict[str, Any]:
        self.firefox.wait_for(READY)
        assert self.firefox.evaluate("() => complaints") == []
        return unpacked(self.firefox.evaluate(HEARD))

    def move(self, slider: str, value: int) -> dict[str, Any]:
        self.firefox.evaluate(
            """([slider, value]) => {
                const input = document.getElementById(`lab-${slider}`);
                input.value = value;
                input.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            [slider, value],
        )
        return self.heard()

    def answered(self) -> str:
        """Wait until the reader's own sound is heard or refused; what the page says against it."""
        self.firefox.wait_for(
            'document.getElementById("lab-alert").textContent'
            f'|| ({READY})?.state.clip === "own" || false'
        )
        return self.text("alert")

    def text(self, name: str) -> str:
        return self.firefox.evaluate(
            "(name) => document.getElementById(`lab-${name}`).textContent.trim()", name
        )


@from_disk
def test_every_layer_is_heard(lab: Lab) -> None:
    assert_sonifies(lab.open())
    for layer in range(1, 12):
        heard = lab.move("layer", layer)
        assert heard["layer"] == layer
        assert heard["filters"] == [heard["ranking"][0]["filter"]]
        assert_sonifies(heard)
        assert f"Layer {layer}" in lab.text("status")
    lab.firefox.wait_for(SAID)
    assert_names(heard, lab.firefox.evaluate(f"() => {SAID}[0]"))


@over_http
def test_links_keys_and_players_work(lab: Lab) -> None:
    heard = lab.open("#layer=5&hear=only&chosen=3.17")
    assert sorted(heard["filters"]) == [3, 17]
    assert_sonifies(heard)
    player = "document.querySelector('sonibook-player')"
    lab.firefox.type("#lab-save", "b")
    lab.firefox.wait_for(f"{player}.currentTime > 0.2")
    lab.firefox.type("#lab-save", "b")
    assert lab.firefox.evaluate(f"() => [{player}.paused, {player}.track]") == [False, 1]
    assert lab.firefox.evaluate(f"() => {player}.currentTime") > 0.2
    lab.firefox.type("#lab-save", "d")
    assert lab.heard()["layer"] == 6


@from_disk
def test_files_are_heard_or_refused(lab: Lab, tmp_path: Path) -> None:
    before = lab.open("#layer=9")
    (tmp_path / "text.wav").write_bytes(b"Dear reader, this is not a sound.")
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "one.wav", np.ones(1), RATE)
    for name, sentence in {
        "text.wav": "cannot be read as sound",
        "silent.wav": "is silent",
        "one.wav": "holds 1 sample",
    }.items():
        lab.firefox.evaluate("() => { document.getElementById('lab-alert').textContent = ''; }")
        lab.firefox.type("#lab-file", str(tmp_path / name))
        assert lab.answered().startswith(f"{name} ")
        assert sentence in lab.text("alert")
        np.testing.assert_array_equal(lab.heard()["sound"], before["sound"])
    x = np.random.default_rng(5).uniform(-0.4, 0.4, (2 * 44100, 2))
    soundfile.write(tmp_path / "mine.ogg", x, 44100)
    lab.firefox.evaluate("() => { document.getElementById('lab-alert').textContent = ''; }")
    lab.firefox.type("#lab-file", str(tmp_path / "mine.ogg"))
    assert lab.answered() == ""
    heard = lab.heard()
    assert len(heard["input"]) == 2 * RATE
    assert_sonifies(heard)


def test_the_microphone_is_heard(lab: Lab) -> None:
    if not lab.firefox.hears:
        pytest.skip("Firefox needs a sound device: install PulseAudio, which plays to nobody.")
    lab.open()
    lab.firefox.click("#lab-record")
    assert lab.answered() == ""
    heard = lab.heard()
    assert len(heard["input"]) == 5 * RATE
    # Firefox's microphone hums one tone.
    power = np.abs(np.fft.rfft(heard["input"] * np.hanning(5 * RATE))) ** 2
    tone = int(power.argmax())
    assert power[tone - 5 : tone + 6].sum() > 0.95 * power.sum()
    assert lab.move("layer", 3)["layer"] == 3
    assert lab.heard()["coherence"] > 0.5
    assert lab.text("record") == "Record 5 s"


def test_in_the_dark_a_figure_is_dark_around_its_spectrograms(firefox: Firefox, site: str) -> None:
    firefox.goto(f"{site}/02_sound.html")
    plot = ".picture:has(feOffset)"
    seen = []
    for theme in ("light", "dark"):
        firefox.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        seen.append(firefox.screenshot(plot))
    boxes = firefox.evaluate(f"() => ({SPECTROGRAMS})(document.querySelector('{plot}'))")
    assert_dark_around_spectrograms(*seen, boxes)
