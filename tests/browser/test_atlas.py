"""The atlas as a reader uses it, from disk and without a network: by mouse and by keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from built import PAGES
from heard import HEARD, READY, decoded, received, unpacked

ATLAS = PAGES / "atlas"
#: The player as scripts see it.
PLAYER = """() => {
    const none = { paused: true, track: 0, label: "", tracks: [] };
    const { paused, track, label, tracks } = document.querySelector("sonibook-player") ?? none;
    return { paused, track, label, names: tracks.map(({ name }) => name) };
}"""
SETTLED = "() => !document.getElementById('atlas').hasAttribute('aria-busy')"


@pytest.fixture(params=["atlas.html", "atlas/index.html"])
def page(request: pytest.FixtureRequest, browser: Any, site: str) -> Iterator[Any]:
    """The atlas in the book, or on a page of its own, with layer 8 of the trained network."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_offline(True)
    page, complaints = context.new_page(), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{PAGES.as_uri()}/{request.param}#network=supervised&layer=8")
    page.wait_for_selector(".atlas-card")
    page.wait_for_function(SETTLED)
    yield page
    assert complaints == []
    context.close()


in_the_book = pytest.mark.parametrize("page", ["atlas.html"], indirect=True)


piece = partial(received, ATLAS)


def shown(page: Any) -> list[int]:
    cards = page.locator(".atlas-card")
    return cards.evaluate_all("cards => cards.map((card) => Number(card.dataset.filter))")


def chosen(page: Any) -> list[str]:
    return page.locator("[aria-current]").evaluate_all("all => all.map((o) => o.dataset.filter)")


def test_keys_go_to_a_filter_hear_it_and_open_the_lab_on_the_same_clip(page: Any) -> None:
    rows, order = piece("supervised/08"), shown(page)
    energies = [rows[n][4][0][1] for n in order]
    assert energies == sorted(energies, reverse=True)
    page.locator(".atlas-card[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"({PLAYER})().label.includes('filter {order[2]} ')")
    page.wait_for_function(f"!({PLAYER})().paused")
    assert page.evaluate(PLAYER)["track"] == 1
    page.keyboard.press("1")
    page.wait_for_function(f"({PLAYER})().track === 0")
    page.keyboard.press("Enter")
    page.wait_for_function(READY)
    heard = unpacked(page.evaluate(HEARD))
    clip, _, start, samples = rows[order[2]][4][0]
    state = [heard[name] for name in ("network", "layer", "filter", "clip")]
    assert state == ["supervised", 8, order[2], f"atlas/{clip}"]
    x, _ = decoded(piece(f"clips/{clip}")["flac"])
    np.testing.assert_allclose(heard["input"], x / abs(x).max(), atol=1e-4)
    kept, _ = decoded(piece(f"supervised/08-{order[2]:04d}")[0])
    found = heard["sound"][start : start + samples]
    # The clip in the atlas is quantised 60 dB, the sonification 40 dB below its level.
    assert np.corrcoef(kept, found)[0, 1] > 0.99


def test_a_key_swaps_the_network_at_the_same_filter(page: Any) -> None:
    first = page.locator(".atlas-card").first
    number = first.get_attribute("data-filter")
    first.focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"({PLAYER})().label.includes('of supervised')")
    assert sum(name.startswith("random weights: ") for name in page.evaluate(PLAYER)["names"]) == 3
    page.keyboard.press("r")
    page.wait_for_function(f"({PLAYER})().label.endsWith('filter {number} of random weights')")
    assert chosen(page) == [number]
    assert page.evaluate("document.activeElement.dataset.filter") == number
    page.keyboard.press("d")
    page.wait_for_function(f"({PLAYER})().label.startsWith('Layer 9,')")
    assert f"layer=9&filter={number}" in page.url


def test_filters_are_sorted_and_picked_by_class(page: Any) -> None:
    rows = piece("supervised/08")
    page.get_by_label("Sort by", exact=True).select_option("centroid")
    page.get_by_role("button", name="descending").click()
    centroids = [rows[n][2] for n in shown(page)]
    assert centroids == sorted(centroids)
    clips = piece("manifest")["clips"]
    name = clips[str(rows[shown(page)[0]][4][0][0])]["classes"][0]
    page.get_by_label("Class", exact=True).select_option(name)
    expected = {
        n for n, row in enumerate(rows) if any(name in clips[str(t[0])]["classes"] for t in row[4])
    }
    assert set(shown(page)) == expected
    page.get_by_label("Class", exact=True).select_option("any")
    page.get_by_label("live filters only").uncheck()
    assert len(shown(page)) == len(rows)


@in_the_book
def test_a_mouse_that_rests_on_a_filter_hears_it(page: Any) -> None:
    page.mouse.click(10, 10)  # browsers play nothing before a click
    card = page.locator(".atlas-card").nth(4)
    card.hover()
    page.wait_for_function(f"!({PLAYER})().paused")
    assert chosen(page) == [card.get_attribute("data-filter")]


def test_the_folder_is_small_and_in_pieces() -> None:
    files = [path for path in ATLAS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 120e6  # two networks
    assert max(path.stat().st_size for path in files) < 3e6
    assert not [path for path in files if re.search(r"\.(wav|flac|ogg|mp3)$", path.name)]


def test_phones_have_room_for_it(browser: Any, site: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(f"{site}/atlas/index.html#layer=3")
    page.wait_for_selector(".atlas-card")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".atlas-card").nth(1).tap()
    page.wait_for_function(f"({PLAYER})().label.startsWith('Layer 3,')")
    assert page.url.partition("#")[0] == f"{site}/atlas/index.html"
    context.close()


def test_a_link_to_a_clip_of_no_atlas_is_told(browser: Any, site: str) -> None:
    page = browser.new_page()
    page.goto(f"{site}/lab.html#clip=atlas/9999999&layer=2")
    page.wait_for_function(READY)
    assert "No atlas beside this lab" in page.locator("#lab-alert").text_content()
    page.close()


def test_the_data_set_is_named_with_its_licence(page: Any) -> None:
    told = page.locator("#atlas > p").last.text_content()
    summary = json.loads((ATLAS / "atlas.json").read_text())
    assert summary["licence"] in told
    assert f"{summary['data']['clips']} of the {summary['data']['size']}" in told
