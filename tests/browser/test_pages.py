"""Every built page as a reader's browser sees it, with no host to reach but the book's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
MOST_BYTES = 3_000_000
#: Pages that Sphinx makes, without a heading of ours.
GENERATED = {"genindex.html", "py-modindex.html", "search.html", "index.html"}


@dataclass
class Visit:
    """A page that was opened, and what happened while it loaded."""

    page: Any
    failed: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    document_bytes: int = 0


@pytest.fixture(scope="module")
def visit(browser: Any, site: str, page_name: str) -> Iterator[Visit]:
    context = browser.new_context(viewport=DESKTOP, color_scheme="light")
    page = context.new_page()
    seen = Visit(page)
    host = urlsplit(site).netloc

    def on_request(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "about") and parts.netloc != host:
            seen.foreign.append(request.url)

    page.on("request", on_request)
    page.on("requestfailed", lambda request: seen.failed.append(request.url[:200]))
    page.on(
        "response",
        lambda reply: (
            seen.failed.append(f"{reply.status} {reply.url}") if reply.status >= 400 else None
        ),
    )
    page.on(
        "console",
        lambda message: (
            seen.console.append(f"{message.text} ({message.location})")
            if message.type in ("error", "warning")
            else None
        ),
    )
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    reply = page.goto(f"{site}/{page_name}", wait_until="networkidle")
    seen.document_bytes = len(reply.body()) if page_name != "index.html" else 0
    yield seen
    context.close()


def test_nothing_fails_and_nothing_foreign_is_asked_for(visit: Visit) -> None:
    assert visit.failed == []
    assert visit.foreign == []
    assert visit.console == []


def test_has_a_title_and_one_main_heading(visit: Visit, page_name: str) -> None:
    assert visit.page.title().strip()
    if page_name not in GENERATED:
        assert visit.page.locator("article h1").count() == 1


def test_document_is_light(visit: Visit) -> None:
    assert visit.document_bytes < MOST_BYTES


def test_every_player_has_a_sound_and_a_name(visit: Visit) -> None:
    players = visit.page.evaluate(
        """() => Promise.all([...document.querySelectorAll("audio")].map(async (player) => {
            if (!(player.duration > 0)) {
                player.preload = "metadata";
                player.load();
                await new Promise((done) => {
                    player.addEventListener("loadedmetadata", done, { once: true });
                    player.addEventListener("error", done, { once: true });
                    setTimeout(done, 5000);
                });
            }
            const described = player.getAttribute("aria-labelledby");
            return {
                duration: player.duration,
                controls: player.controls,
                name: player.getAttribute("aria-label") || player.title
                    || (described && document.getElementById(described)?.textContent)
                    || player.closest("figure")?.querySelector("figcaption")?.textContent || "",
            };
        }))"""
    )
    for number, player in enumerate(players, start=1):
        assert player["duration"] is not None, f"player {number} cannot be played"
        assert 0 < player["duration"] < 600, f"player {number}"
        assert player["controls"], f"player {number} cannot be used"
        assert player["name"].strip(), f"player {number} does not say what it plays"


def test_every_picture_is_there_and_described(visit: Visit, page_name: str) -> None:
    pictures = visit.page.evaluate(
        """() => [...document.querySelectorAll("article img")].map((picture) => ({
            source: picture.src.slice(0, 80), alt: picture.alt, width: picture.naturalWidth,
        }))"""
    )
    for picture in pictures:
        assert picture["width"] > 0, f"{picture['source']} does not load"
        assert picture["alt"].strip(), f"{picture['source']} has no alternative text"
        # What a plotting library prints of itself describes nothing.
        assert "<" not in picture["alt"], f"{picture['source']} is described as {picture['alt']}"
        assert not picture["alt"].startswith("_images/"), picture["alt"]


def test_formulas_are_drawn_by_the_browser_itself(visit: Visit) -> None:
    heights = visit.page.evaluate(
        """() => [...document.querySelectorAll("math")].map(
            (formula) => [formula.getAttribute("alttext"), formula.getBoundingClientRect().height]
        )"""
    )
    for source, height in heights:
        assert source
        assert height > 0, f"{source} is invisible"


def test_reads_on_a_phone_and_in_the_dark(visit: Visit, page_name: str) -> None:
    page = visit.page
    stem = page_name.removesuffix(".html").replace("/", "-")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SCREENSHOTS / f"{stem}.png"), animations="disabled")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.screenshot(path=str(SCREENSHOTS / f"{stem}-dark.png"), animations="disabled")
    background, text = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor,
                  getComputedStyle(document.body).color]"""
    )
    assert brightness(background) < 0.3 < 0.6 < brightness(text)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.set_viewport_size(PHONE)
    page.screenshot(path=str(SCREENSHOTS / f"{stem}-phone.png"), animations="disabled")
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size(DESKTOP)
    assert wide <= PHONE["width"] + 1, f"scrolls sideways on a phone: {wide} px"


def brightness(colour: str) -> float:
    """Mean of red, green and blue of a CSS ``rgb()`` colour, from 0 to 1."""
    numbers = colour[colour.index("(") + 1 : colour.index(")")].split(",")[:3]
    return sum(float(number) for number in numbers) / (3 * 255)


def test_search_finds_what_the_book_is_about(browser: Any, site: str) -> None:
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(f"{site}/search.html?q=sonification", wait_until="networkidle")
    page.wait_for_selector("#search-results li", timeout=10_000)
    assert page.locator("#search-results li").count() >= 1
    context.close()
