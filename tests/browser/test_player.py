"""The player in a page opened from disk, by mouse and by keyboard; what it draws is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from built import axe_script

from sonibook import show
from sonibook.widgets.players import script

RATE = 8000
TIME = np.arange(2 * RATE) / RATE
CHIRP = np.exp(-1.3 * TIME) * np.sin(2 * np.pi * (200 * TIME + 900 * TIME**2))
TONE = 0.5 * np.exp(-2 * (TIME - 1) ** 2) * np.sin(2 * np.pi * 1000 * TIME)
#: State of each player: whether it plays, its track and its place.
PLAYERS = """() => [...document.querySelectorAll("sonibook-player")]
    .map((player) => [!player.paused, player.track, player.currentTime])"""


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page with three players, from disk; the script stands in it three times."""
    shown = [
        show.player({"Input": CHIRP, "Sonification": TONE}, label="What a filter keeps"),
        show.player(TONE[: 6 * RATE // 10], label="A crop"),
        show.player({str(n): 0.1 * n * TONE for n in range(1, 11)}, label="Ten", sample_rate=16000),
    ]
    body = "".join(each._repr_html_() for each in shown)
    path = tmp_path_factory.mktemp("player") / "page.html"
    path.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Players</title>'
        f"<body><main><h1>Players</h1>{body}</main></body></html>",
        encoding="utf-8",
    )
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.wrong = []
    page.on("console", lambda message: page.wrong.append(message.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(path.as_uri())
    yield page
    assert page.wrong == []
    context.close()


@pytest.fixture(autouse=True)
def afresh(page: Any) -> None:
    page.evaluate(
        """() => document.querySelectorAll("sonibook-player").forEach((player) => {
            player.pause();
            Object.assign(player, { track: 0, currentTime: 0, loop: false });
        })"""
    )


def player(page: Any, number: int = 0) -> Any:
    return page.locator("sonibook-player").nth(number)


def places(page: Any) -> list[tuple[bool, int, float]]:
    return [tuple(each) for each in page.evaluate(PLAYERS)]


def begin(page: Any, number: int = 0) -> None:
    """Press Play and wait until it sounds."""
    player(page, number).get_by_role("button", name="Play", exact=False).first.click()
    page.wait_for_function(f"({PLAYERS})()[{number}][2] > 0.05")


def head(page: Any, number: int = 0) -> float:
    """Where the first track's playhead stands on its picture, from 0 to 1."""
    share: float = player(page, number).evaluate(
        """({ shadowRoot }) => {
            const head = shadowRoot.querySelector(".head").getBoundingClientRect();
            const plot = shadowRoot.querySelector(".plot").getBoundingClientRect();
            return (head.x + head.width / 2 - plot.x) / plot.width;
        }"""
    )
    return share


def test_it_plays_and_the_playhead_moves_with_the_sound(page: Any) -> None:
    begin(page)
    first = head(page)
    page.wait_for_timeout(400)
    (playing, _, place), *others = places(page)
    assert playing
    assert not any(other[0] for other in others)
    assert first + 0.1 < head(page) == pytest.approx(place / 2, abs=0.08)
    page.wait_for_function(f"!({PLAYERS})()[0][0]")  # it ends by itself, at its beginning
    assert places(page)[0] == (False, 0, 0)


def test_a_click_seeks_and_takes_the_track_and_digits_switch_at_the_same_place(page: Any) -> None:
    begin(page)
    player(page).locator(".plot").nth(1).click(position={"x": 10, "y": 20})
    assert places(page)[0][1] == 1
    assert places(page)[0][2] < 0.5
    player(page).evaluate("(player) => { player.currentTime = 1.2; }")
    for key, track in (("1", 0), ("2", 1), ("9", 1), ("1", 0)):
        page.keyboard.press(key)
        playing, now, place = places(page)[0]
        assert (playing, now) == (True, track)
        assert 1.2 <= place < 1.9


def test_a_second_player_silences_the_first_and_they_share_one_gain(page: Any) -> None:
    begin(page)
    begin(page, 1)
    assert [playing for playing, _, _ in places(page)] == [False, True, False]
    player(page, 1).get_by_label("Gain").fill("-20")
    gains = page.get_by_label("Gain")
    assert [gains.nth(n).input_value() for n in range(3)] == ["-20"] * 3
    page.reload()
    page.wait_for_function("document.querySelectorAll('sonibook-player')[2].tracks.length === 10")
    assert gains.first.input_value() == "-20"
    gains.first.fill("0")


def test_the_keyboard_is_enough(page: Any) -> None:
    player(page).locator(".play").focus()
    page.keyboard.press("Space")
    page.wait_for_function(f"({PLAYERS})()[0][0]")
    page.keyboard.press("Tab")
    seek = player(page).get_by_label("Position")
    assert seek.evaluate("(seek) => getComputedStyle(seek).outlineStyle") == "solid"
    page.keyboard.press("Space")
    assert not places(page)[0][0]
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert places(page)[0][2] == pytest.approx(0.1)
    assert seek.get_attribute("aria-valuetext") == "0.1 of 2.0 s"
    page.keyboard.press("2")
    page.keyboard.press("l")
    assert places(page)[0] == (False, 1, pytest.approx(0.1))
    assert player(page).get_by_role("button", name="Loop").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Home")
    page.keyboard.press("End")
    page.keyboard.press("Space")
    page.wait_for_function(f"({PLAYERS})()[0][2] > 0.05 && ({PLAYERS})()[0][2] < 1")  # anew
    # With nothing focused, the digits are still those of the player used last.
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("1")
    assert places(page)[0][:2] == (True, 0)


def test_what_is_drawn_is_what_is_heard(page: Any) -> None:
    samples = player(page).evaluate(
        "(player) => Promise.all(player.tracks.map(async (track) => [...await track.samples()]))"
    )
    for found, x in zip(samples, (CHIRP, TONE), strict=True):
        np.testing.assert_allclose(found, x / np.abs(CHIRP).max(), atol=2 / 32768)
    for name, x in (("Input", CHIRP), ("Sonification", TONE)):
        words = f"Log spectrogram of {name}, 0 to 4 kHz: {show.describe(x)}."
        player(page).get_by_role("img", name=words, exact=True).wait_for()
    player(page, 1).get_by_text("A crop0.6 s", exact=True).wait_for()
    assert player(page, 2).locator(".hertz span").first.text_content() == "8 kHz"
    level = 10 * np.log10(np.mean((CHIRP / np.abs(CHIRP).max()) ** 2))
    assert player(page).locator(".level").text_content() == f"−{-level:.0f} dB"


def test_other_sounds_go_on_at_the_same_place_and_what_fails_is_told(page: Any) -> None:
    begin(page)
    player(page).evaluate(
        """(player) => {
            player.currentTime = 1;
            const tone = Float32Array.from({ length: 16000 }, (_, n) => 0.5 * Math.sin(n / 3));
            player.tracks = [
                { name: "Lazy", sound: async () => tone },
                { name: "Broken", sound: new Blob(["no sound"]) },
            ];
        }"""
    )
    page.wait_for_timeout(200)
    playing, _, place = places(page)[0]
    assert playing
    assert 1 <= place < 2
    player(page).get_by_text("This sound could not be loaded").wait_for()
    assert player(page).locator("figure.drawn").count() == 1


def test_it_fits_a_phone_and_nobody_is_kept_out(page: Any) -> None:
    page.evaluate(axe_script())
    for width, columns in ((1280, 3), (390, 1)):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = (
            player(page, 2)
            .locator(".axes")
            .evaluate_all("all => all.map((each) => each.getBoundingClientRect())")
        )
        assert min(box["width"] for box in boxes) >= 208
        assert sum(box["y"] == boxes[0]["y"] for box in boxes) == columns
        assert page.evaluate("async () => (await axe.run()).violations.map(({ id }) => id)") == []
    page.set_viewport_size({"width": 1280, "height": 900})


def test_less_motion_is_respected(page: Any) -> None:
    page.emulate_media(reduced_motion="reduce")
    begin(page)
    seen, start = set(), time.monotonic()
    for _ in range(30):
        seen.add(round(head(page), 4))
        page.wait_for_timeout(20)
    assert len(seen) <= 4 * (time.monotonic() - start) + 2
    bar = player(page).locator(".meter i")
    assert bar.evaluate("(bar) => bar.style.transform") in ("", "scaleX(0)")
    page.emulate_media(reduced_motion="no-preference")


def test_the_script_is_small() -> None:
    assert len(script()) < 30_000
