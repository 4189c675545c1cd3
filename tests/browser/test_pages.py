"""Every built page as a reader's browser sees it, with no host to reach but the book's own."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import nbformat
import pytest
from built import (
    BREACHES,
    PAGES,
    PHONE,
    SPECTROGRAMS,
    article_of,
    assert_dark_around_spectrograms,
    axe_script,
    made_alike,
    page_names,
)

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
DESKTOP = {"width": 1280, "height": 900}
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

    def look(self, size: dict[str, int], theme: str) -> Any:
        """The page at a size, in the light or the dark."""
        if self.page.viewport_size != size:
            self.page.set_viewport_size(size)
        self.page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        return self.page


@pytest.fixture(scope="module")
def tab(browser: Any, site: str) -> Iterator[list[Visit]]:
    """The visits of one tab, which opens a page in a third of the time that a new tab takes."""
    context = browser.new_context(viewport=DESKTOP, color_scheme="light")
    page = context.new_page()
    visits = [Visit(page)]
    host = urlsplit(site).netloc

    def on_request(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "about") and parts.netloc != host:
            visits[-1].foreign.append(request.url)

    page.on("request", on_request)
    page.on("requestfailed", lambda request: visits[-1].failed.append(request.url[:200]))
    page.on(
        "response",
        lambda reply: (
            visits[-1].failed.append(f"{reply.status} {reply.url}") if reply.status >= 400 else None
        ),
    )
    page.on(
        "console",
        lambda message: (
            visits[-1].console.append(f"{message.text} ({message.location})")
            if message.type in ("error", "warning")
            else None
        ),
    )
    page.on("pageerror", lambda error: visits[-1].console.append(str(error)))
    yield visits
    context.close()


@pytest.fixture(scope="module")
def visit(tab: list[Visit], site: str, page_name: str) -> Visit:
    page = tab[-1].page
    page.goto("about:blank")  # what the last page still asks for is none of this one's
    page.set_viewport_size(DESKTOP)
    seen = Visit(page)
    tab.append(seen)
    settled = "load" if made_alike(page_name) else "networkidle"  # half a second more, each
    reply = page.goto(f"{site}/{page_name}", wait_until=settled)
    seen.document_bytes = len(reply.body()) if page_name != "index.html" else 0
    return seen


def test_nothing_fails_and_nothing_foreign_is_asked_for(visit: Visit) -> None:
    assert visit.failed == []
    assert visit.foreign == []
    assert visit.console == []


def test_has_a_title_and_one_main_heading(visit: Visit, page_name: str) -> None:
    assert visit.page.title().strip()
    if page_name not in GENERATED:
        assert visit.page.locator("article h1").count() == 1


@pytest.mark.usefixtures("site")
def test_pages_that_are_made_alike_have_all_that_they_ask_for() -> None:
    """A few of them are opened, and what all have in common is looked at there."""
    for path in (PAGES / name for name in page_names() if made_alike(name)):
        text, article = path.read_text(encoding="utf-8"), article_of(path)
        assert len(text) < MOST_BYTES
        assert article.count("<h1") == 1
        assert not re.findall(r'<(?:img|math)\b(?![^>]*\balt(?:text)?="[^"])[^>]*>', article)
        asked = re.findall(r'<(?:script|img|link)\b[^>]*\b(?:src|href)="([^"]+)"', text)
        assert asked
        for source in asked:
            assert (path.parent / source.partition("?")[0]).is_file(), f"{path}: {source}"


def test_document_is_light(visit: Visit) -> None:
    assert visit.document_bytes < MOST_BYTES


@pytest.mark.one_of_a_kind
def test_every_player_has_sounds_names_and_room(visit: Visit) -> None:
    players = visit.page.evaluate(
        """() => Promise.all([...document.querySelectorAll("sonibook-player")].map(async (
            player) => {
            await Promise.all(player.tracks.map((track) => track.samples()));
            const root = player.shadowRoot;
            return {
                durations: player.tracks.map(({ duration }) => duration),
                names: player.tracks.map(({ name }) => name),
                widths: [...root.querySelectorAll("figure")]
                    .map((each) => each.getBoundingClientRect().width),
                name: root.querySelector("[role=group]").getAttribute("aria-label"),
            };
        }))"""
    )
    for player in players:
        assert player["durations"], "a player without sounds"
        assert all(0 < seconds < 600 for seconds in player["durations"])
        assert all(name.strip() for name in [*player["names"], player["name"]])
        assert min(player["widths"]) >= 208
    bare = "audio:not(sonibook-player audio, .explorer [data-stop] audio)"
    assert visit.page.locator(bare).count() == 0


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


#: Moves one slider of an explorer to another stop, while a track plays; what is to be seen and
#: heard before and after.
MOVED = """async ([section, number]) => {
    const player = section.querySelector("sonibook-player");
    const shown = (selector) => [...section.querySelectorAll(selector)]
        .filter((each) => !each.closest("[hidden]") && each.getClientRects().length)
        .map((each) => each.src ?? each.textContent);
    const look = () => ({ pictures: shown("img"), words: shown("[data-filter] p"),
                          sounds: player?.tracks.map((track) => track.sound) ?? [],
                          track: player?.track, playing: player && !player.paused,
                          place: player?.currentTime });
    if (player) {
        player.loop = true;
        await player.play();
        player.currentTime = 0.2;
    }
    const control = section.querySelectorAll(".explorer-bar input, .explorer-bar select")[number];
    const before = look();
    if (control.matches("select")) {
        control.selectedIndex = (control.selectedIndex + 1) % control.options.length;
        control.dispatchEvent(new Event("change"));
    } else {
        control.value = Number(control.value) < Number(control.max) ? Number(control.value) + 1 : 0;
        control.dispatchEvent(new Event("input"));
    }
    const after = look();
    player?.pause();
    return [before, after];
}"""


@pytest.mark.one_of_a_kind
def test_static_explorers_move_and_play_on(visit: Visit) -> None:
    for section in visit.page.query_selector_all("section.explorer"):
        controls = section.query_selector_all(".explorer-bar input, .explorer-bar select")
        assert controls, "an explorer without sliders"
        visit.page.locator("article h1").first.click(position={"x": 2, "y": 2})  # it may play
        for number in range(len(controls)):
            before, after = visit.page.evaluate(MOVED, [section, number])
            assert len(before["pictures"]) == len(after["pictures"])
            assert before["pictures"] != after["pictures"] or before["words"] != after["words"]
            assert before["playing"] == after["playing"]
            if before["playing"]:
                assert after["place"] >= before["place"] >= 0.2
            if before["words"]:
                # The input stays, the sonification and the residual are others.
                same = [a == b for a, b in zip(before["sounds"], after["sounds"], strict=True)]
                assert same == [True, False, False]
            elif before["sounds"]:
                assert before["track"] != after["track"]


@pytest.mark.one_of_a_kind
def test_the_download_is_the_page_and_opens(visit: Visit, page_name: str) -> None:
    link = visit.page.query_selector(".btn-download-source-button")
    if not page_name[:2].isdigit():
        return
    assert link
    address = urljoin(visit.page.url, link.get_attribute("href"))
    reply = visit.page.request.get(address)
    assert reply.ok
    notebook = nbformat.read(io.StringIO(reply.text()), as_version=4)
    nbformat.validate(notebook)
    heading = visit.page.locator("article h1").text_content().rstrip("#")
    number, title = heading.split(".", 1)
    assert int(number) == int(page_name[:2])
    assert f"# {title.strip()}" in notebook.cells[0].source
    assert any(cell.get("outputs") for cell in notebook.cells), "the chapter was not executed"
    assert "_esm" not in json.dumps(notebook.metadata)


#: Every rule once; then those that another ground, or another width, may break.
VIEWS = {
    "desktop": (DESKTOP, "light", None),
    "dark": (DESKTOP, "dark", ["color-contrast", "link-in-text-block"]),
    "phone": (
        PHONE,
        "dark",
        ["scrollable-region-focusable", "target-size", "button-name", "link-name", "label"],
    ),
}
#: Whether all that scrolls has its tab stop, which comes a moment after the size has changed.
STOPS = """() => [...document.querySelectorAll(
    "pre, .cell_output > .output, .jp-RenderedHTMLCommon, .pst-scrollable-table-container"
)].every((each) => each.tabIndex === 0
    || (each.scrollWidth <= each.clientWidth && each.scrollHeight <= each.clientHeight))"""


@pytest.mark.one_of_a_kind
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(visit: Visit, page_name: str, view: str) -> None:
    if page_name == "index.html":
        pytest.skip("It leads on at once.")
    size, theme, rules = VIEWS[view]
    page = visit.look(size, theme)
    # For people to look at.
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    stem = page_name.removesuffix(".html").replace("/", "-")
    path = SCREENSHOTS / f"{stem}-{view}.png".replace("-desktop", "")
    assert len(page.screenshot(path=str(path), animations="disabled")) > 5_000, "an empty page"
    page.add_style_tag(
        content="* { transition: none !important; }"
    )  # colours are looked at at once
    if view == "phone":
        page.wait_for_function(STOPS)
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(axe_script())
    assert page.evaluate(BREACHES, rules) == []


def test_shown_lines_of_code_need_no_scrolling(visit: Visit) -> None:
    page = visit.look(DESKTOP, "light")
    scrolled = page.evaluate(
        """() => [...document.querySelectorAll(".cell_input pre")]
            .filter((code) => code.offsetWidth && !code.closest("details"))
            .filter((code) => code.scrollWidth > code.clientWidth)
            .map((code) => code.textContent.slice(0, 200))"""
    )
    assert scrolled == []


def test_reads_on_a_phone_and_in_the_dark(visit: Visit) -> None:
    page = visit.look(PHONE, "dark")
    background, text = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor,
                  getComputedStyle(document.body).color]"""
    )
    wide = page.evaluate("document.documentElement.scrollWidth")
    figures = page.evaluate(
        """() => [...document.querySelectorAll(".picture > img")]
            .filter((image) => image.offsetWidth)
            .map((image) => [image.offsetWidth, parseInt(image.style.getPropertyValue(
                "--readable")), image.closest("figure").clientWidth])"""
    )
    assert all(width >= readable for width, readable, _ in figures)
    assert all(room <= PHONE["width"] for _, _, room in figures), "it scrolls in no box"
    assert brightness(background) < 0.3 < 0.6 < brightness(text)
    assert wide <= PHONE["width"] + 1, f"scrolls sideways on a phone: {wide} px"


#: Everything that a reader works an explorer with, and its player.
KEYBOARD = """() => {
    const section = document.querySelector("section.explorer:has(sonibook-player)");
    const inside = section.querySelector("sonibook-player").shadowRoot;
    const wanted = [section, inside]
        .flatMap((root) => [...root.querySelectorAll("input, select, button, a")])
        .filter((each) => !each.closest("[hidden]"));
    window.wanted = wanted;
    window.focused = () => {
        const { activeElement } = document;
        return activeElement.shadowRoot?.activeElement ?? activeElement;
    };
    wanted[0].focus({ focusVisible: true });
    return wanted.length;
}"""


def test_an_explorer_is_worked_with_the_keyboard(browser: Any, site: str) -> None:
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(f"{site}/06_sonification.html", wait_until="networkidle")
    count = page.evaluate(KEYBOARD)
    reached = {}
    for _ in range(3 * count):
        place, outline = page.evaluate(
            "() => [wanted.indexOf(focused()), getComputedStyle(focused()).outlineStyle]"
        )
        reached.setdefault(place, outline)
        if len(reached.keys() - {-1}) == count:
            break
        page.keyboard.press("Tab")
    assert reached.keys() >= set(range(count))
    controls = [outline for place, outline in reached.items() if place >= 0]
    assert "none" not in controls, "the focus cannot be seen"
    context.close()


def test_predictions_and_answers_are_kept_and_answered(browser: Any, site: str) -> None:
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(f"{site}/04_supervised.html")
    field = page.locator(".prediction textarea").first
    beside = page.locator("blockquote.predicted").first
    assert not beside.is_visible()
    field.fill("It <b>never</b> learns.")
    choices = page.locator("ol.choices")
    assert choices.count() == 3
    folded = page.locator(".admonition.answers")
    assert not any(each.is_visible() for each in folded.all())
    words = [each.text_content() for each in folded.first.locator("li").all()]
    feedback = page.locator("p.feedback").first
    assert not feedback.is_visible()
    for number, said in enumerate(words):  # by keyboard, each answer in turn
        button = choices.first.locator("button").nth(number)
        button.focus()
        page.keyboard.press("Enter")
        assert feedback.text_content() == said
        mark = "right" if said.startswith("Right.") else "wrong"
        assert button.get_attribute("class") == mark
        assert choices.first.locator("[aria-pressed=true]").count() == 1
    page.reload()
    assert field.input_value() == "It <b>never</b> learns."
    assert beside.text_content() == "You predicted: It <b>never</b> learns."
    assert feedback.text_content() == words[-1]
    field.fill("")
    assert not beside.is_visible()
    context.close()


def test_in_the_dark_a_figure_is_dark_around_its_spectrograms(browser: Any, site: str) -> None:
    page = browser.new_context(viewport=DESKTOP, color_scheme="light").new_page()
    page.goto(f"{site}/02_sound.html", wait_until="networkidle")
    for plot in page.locator(".picture:visible").all():
        seen = []
        for theme in ("light", "dark"):
            page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
            seen.append(plot.screenshot())
        assert_dark_around_spectrograms(*seen, plot.evaluate(SPECTROGRAMS))
    page.context.close()


#: The claims that can be seen: their rows in the table, and, without marks, what is said of each.
CLAIMS = """() => {
    const table = [...document.querySelectorAll("table.results")]
        .find((each) => each.tHead.textContent.startsWith("ClaimWhereVerdict"));
    const seen = (all) => [...all].filter((each) => each.checkVisibility());
    const plain = (each) => each.textContent.replace(/\\W/g, "");
    const words = (cell) => cell.innerText.replace(/\\s+/g, " ");
    const rows = seen(table.tBodies[0].rows);
    return [rows.map((row) => [...row.cells].map(words)),
            seen(document.querySelectorAll(".cell_output > p > strong:first-child")).map(plain),
            rows.map((row) => plain(row.cells[0]))];
}"""


def test_claims_are_filtered_by_verdict_and_by_chapter(browser: Any, site: str) -> None:
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    # Without its script the page shows all.
    page.route(
        "**/claims.js*", lambda route: route.fulfill(body="", content_type="text/javascript")
    )
    page.goto(f"{site}/17_claims.html")
    everything = page.evaluate(CLAIMS)
    assert page.locator(".claims-bar").count() == 0
    page.unroute("**/claims.js*")
    page.reload()
    assert page.evaluate(CLAIMS) == everything
    rows, _, known = everything
    bar = page.get_by_role("group", name="Filter the claims").first
    wanted = {}
    for name, column in (("Verdict", 2), ("Chapter", 4)):
        bar.get_by_label(name).focus()
        page.keyboard.press("ArrowDown")
        wanted[column] = bar.get_by_label(name).input_value()
        left = [row for row in rows if all(row[n].startswith(wanted[n]) for n in wanted)]
        shown, said, names = page.evaluate(CLAIMS)
        assert shown == left
        assert 0 < len(left) < len(rows)
        assert set(said) & set(known) == set(names)
        assert f"{len(left)} of {len(rows)} claims" in bar.inner_text()
    for name in ("Verdict", "Chapter"):
        bar.get_by_label(name).focus()
        page.keyboard.press("Home")
    assert page.evaluate(CLAIMS) == everything
    context.close()


def test_on_paper_nothing_is_cut_off_and_solutions_are_open(browser: Any, site: str) -> None:
    context = browser.new_context(viewport={"width": 703, "height": 1000})  # A4 less its margins
    page = context.new_page()
    page.goto(f"{site}/12_sanity.html")
    page.emulate_media(media="print")
    wide, solved = page.evaluate(
        """() => [
            [...document.querySelectorAll("article table, article pre")]
                .filter((each) => each.checkVisibility() && (each.scrollWidth > each.clientWidth
                    || each.getBoundingClientRect().right > innerWidth))
                .map((each) => each.textContent.slice(0, 100)),
            [...document.querySelectorAll(".tag_hide-cell .cell_output")]
                .map((each) => each.checkVisibility()),
        ]"""
    )
    assert wide == []
    assert solved == [True] * 3
    context.close()


def test_launch_buttons_wait_for_an_address(browser: Any, site: str) -> None:
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(f"{site}/06_sonification.html")
    assert page.locator("a[href*='mybinder.org'], a[href*='colab.research']").count() == 0
    context.close()


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
