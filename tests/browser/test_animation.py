"""The animation of the backward pass, opened from disk and driven by the keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from built import axe_script
from scipy import signal

from sonibook import CNN12, ForwardPass
from sonibook.plots.training import temperature_words
from sonibook.widgets.animation import (
    TemperatureSlider,
    Walks,
    backward_animation,
    encoder_diagram,
)

VIEWS = torch.nn.functional.normalize(
    torch.randn(12, 8, generator=torch.Generator().manual_seed(0)), dim=1
)
SIMILARITY = VIEWS @ VIEWS.T


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with all that moves, on disk."""
    x = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    passed = ForwardPass(CNN12(width=0.0625, seed=0).eval(), x / np.abs(x).max())
    other = ForwardPass(passed.blocks, passed.x[0, 0].flip(0))
    body = backward_animation(passed, layer=3, other=other)._repr_html_()
    body += encoder_diagram(passed, layer=2)._repr_html_()
    body += TemperatureSlider(SIMILARITY)._repr_html_()
    noise = np.random.default_rng(1).standard_normal(8000).astype(np.float32)
    pairs = {"half as loud": (x, 0.5 * x), "noise": (x, noise)}
    body += Walks(pairs, frequency=1000.0)._repr_html_()
    path: Path = tmp_path_factory.mktemp("animation") / "page.html"
    path.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Animation</title>'
        f"<body><main><h1>Animation</h1>{body}</main></body></html>",
        encoding="utf-8",
    )
    return path.as_uri()


@contextmanager
def opened(browser: Any, motion: str) -> Iterator[Any]:
    """A tab without a network, in which nothing may go wrong."""
    context = browser.new_context(reduced_motion=motion, offline=True)
    page = context.new_page()
    page.trouble = []
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("console", lambda message: page.trouble.append(message.text))
    yield page
    assert page.trouble == []
    context.close()


@pytest.fixture(scope="module", params=["no-preference", "reduce"])
def tab(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    with opened(browser, request.param) as page:
        yield page


@pytest.fixture
def page(tab: Any, address: str) -> Iterator[Any]:
    """The page afresh, which is opened sooner where it was open before."""
    tab.set_viewport_size({"width": 1280, "height": 720})
    tab.goto(address)
    yield tab
    assert tab.trouble == []


#: For what has nothing to do with motion.
in_one_tab = pytest.mark.parametrize("tab", ["no-preference"], indirect=True)
#: What a strip shows.
STRIP = """([side, layer]) => (
    document.querySelector(`[data-side=${side}][data-layer="${layer}"] canvas`).toDataURL()
)"""


def said(page: Any) -> str:
    return str(page.locator("sonibook-animation .say").inner_text())


def reach(page: Any, selector: str) -> None:
    """Tab on until an element has the focus."""
    for _ in range(40):
        if page.evaluate("(what) => document.activeElement.matches(what)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key never reaches {selector}")


def test_is_driven_by_the_keyboard_alone(page: Any) -> None:
    assert said(page).startswith("A sound goes up through 11 layers.")
    reach(page, "input[type=range]")
    page.keyboard.press("Home")
    assert said(page).startswith("A sound of 1 s")
    texts = [said(page)]
    for _ in range(int(page.get_by_label("Step of the animation").get_attribute("max"))):
        page.keyboard.press("ArrowRight")
        texts.append(said(page))
    assert len(set(texts)) == len(texts)
    assert texts[12].startswith("Choose: filter")
    assert texts[-1].startswith("The sonification")
    # At rest, whatever moved before: switches change what comes back, and not what went up.
    page.keyboard.press("Home")
    page.keyboard.press("End")
    before = {side: page.evaluate(STRIP, [side, 1]) for side in ("up", "back")}
    reach(page, "input[type=radio]")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(STRIP, ["up", 1]) == before["up"]
    assert page.evaluate(STRIP, ["back", 1]) != before["back"]
    lit = page.locator(".dots").last.locator("i")
    on = lit.evaluate_all("(all) => all.map((one) => one.classList.contains('on'))")
    assert on == [False] * 8 + [True] * 8, "the first of each pool"


def test_space_plays_and_pauses(page: Any) -> None:
    reach(page, "input[type=range]")
    page.keyboard.press("Space")
    assert page.get_by_role("button", name="Pause the animation").count() == 1
    page.wait_for_function(
        "document.querySelector('sonibook-animation .say').innerText.startsWith('A sound of')"
    )
    page.keyboard.press("Space")
    assert page.get_by_role("button", name="Watch the animation").count() == 1


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_is_watched_to_its_end(browser: Any, address: str, motion: str) -> None:
    with opened(browser, motion) as page:
        page.clock.install()
        page.goto(address)
        page.get_by_role("button", name="Watch the animation").click()
        texts = []
        for _ in range(60):
            page.clock.fast_forward(2000)
            texts.append(said(page))
        steps = page.get_by_label("Step of the animation").get_attribute("max")
        assert len(set(texts)) == int(steps) + 1
        assert texts[-1].startswith("The sonification")
        assert page.get_by_role("button", name="Watch the animation").count() == 1


def test_every_loudspeaker_has_a_sound_of_its_own(page: Any) -> None:
    buttons = page.locator("sonibook-animation .speaker:visible")
    assert buttons.count() == 2 + 3
    heard = []
    for number in range(buttons.count()):
        buttons.nth(number).focus()
        page.keyboard.press("Enter")
        heard.append(
            page.evaluate(
                """async () => {
                    const players = [...document.querySelectorAll("sonibook-player")];
                    const player = players.find((each) => !each.paused);
                    const values = await player.tracks[player.track].samples();
                    return [values.length / 8000, Math.hypot(...values.slice(0, 4000))];
                }"""
            )
        )
    assert all(0.9 < seconds <= 1 and power > 0 for seconds, power in heard)
    assert len({round(power, 6) for _, power in heard}) == len(heard)


def test_a_value_marks_what_it_hears(page: Any) -> None:
    reach(page, "sonibook-animation .stack")
    page.keyboard.press("ArrowRight")
    assert "of layer 3 hears" in said(page)
    marks = page.locator("sonibook-animation [data-side=up] .mark:visible")
    widths = marks.evaluate_all("(all) => all.map((one) => one.getBoundingClientRect().width)")
    assert len(widths) == 4
    assert widths == sorted(widths), "wider with each layer down"
    page.keyboard.press("ArrowUp")
    assert "of layer 4 hears" in said(page)


@in_one_tab
def test_a_block_of_the_encoder_tells_what_it_computes(page: Any) -> None:
    card = page.locator("sonibook-encoder .facts")
    assert "Block 2" in card.inner_text()
    reach(page, "sonibook-encoder .block")  # the topmost, of layer 11
    page.keyboard.press("Enter")
    text = " ".join(card.inner_text().split())
    for fact in (
        "Block 11",
        "3 taps on 64 channels",
        "128 filters",
        "Pool none",
        "every 32 ms (256 samples)",
        "0 to 15.6 Hz",
    ):
        assert fact in text
    assert page.locator("sonibook-encoder .mark:visible").count() == 12


@in_one_tab
def test_the_temperature_is_the_library_s_at_every_stop(page: Any) -> None:
    slider = page.locator("sonibook-temperature input")
    slider.focus()
    page.keyboard.press("Home")
    for stop in range(61):
        words = page.locator("sonibook-temperature .say").inner_text()
        at = float(words.removeprefix("At temperature ").split()[0])
        expected = temperature_words(SIMILARITY, 10 ** (stop / 20 - 2))
        # Of the temperature, the nats, the partner's percent, the negatives, and their percent.
        apart = np.abs(np.subtract(numbers(words), numbers(expected)))
        assert (apart <= [6e-3 * at, 0.02, 1, 0, 1]).all(), (words, expected)
        page.keyboard.press("ArrowRight")


def test_walks_end_at_the_coherence(page: Any) -> None:
    captions = page.locator("sonibook-walks figcaption")
    x = np.random.default_rng(0).standard_normal(8000)
    noise = np.random.default_rng(1).standard_normal(8000)
    window = {"fs": 8000, "nperseg": 256}
    expected = signal.coherence(x, noise, **window)[1][32]
    assert captions.all_inner_texts() == [
        "half as loud: coherence 1.00",
        f"noise: coherence {expected:.2f}",
    ]
    page.locator("sonibook-walks input").focus()
    page.keyboard.press("Home")
    start = "0.00 from its start"
    assert captions.all_inner_texts() == [f"half as loud: {start}", f"noise: {start}"]
    page.get_by_role("button", name="Walk").click()
    page.wait_for_function(
        "document.querySelector('sonibook-walks figcaption').textContent > 'half as loud: 0.01'"
    )


def numbers(words: str) -> list[float]:
    """Temperature, nats, shares in percent and how many negatives."""
    return [float(one) for one in re.findall(r"[\d.]*\d", words)]


def test_motion_is_left_to_the_reader(page: Any) -> None:
    reduced = page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches")
    still = page.locator("sonibook-animation .still")
    assert still.is_visible() == reduced
    page.get_by_role("button", name="All stages").click()
    assert still.is_visible() != reduced


@pytest.mark.parametrize("width", [1000, 360])
def test_axe_finds_nothing_serious(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate(axe_script())
    found = page.evaluate("async () => (await axe.run(document)).violations")
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_a_script_picture_and_players_are_there(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("sonibook-animation img").is_visible()
    assert page.locator("sonibook-encoder img").is_visible()
    assert page.locator("sonibook-animation audio:visible").count() == 4
    context.close()
