"""The pages of the built book, and what looks for barriers in them."""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

PAGES = Path(__file__).parents[1] / "build" / "book" / "_build" / "html"
#: Pages that stand for all that are made alike.
KINDS = ("reference/sonibook.deconvnet.backward.html", "reference/sonibook.training.config.html")
PHONE = {"width": 390, "height": 844}
#: What axe-core finds that keeps people out, by all of its rules or some. Most of the time goes to
#: contrast, which hangs on styles alone: three visible texts of each stand for all that have it.
BREACHES = """async (rules) => {
    const kinds = new Map();
    const numbered = (...parts) => {
        const kind = parts.join();
        return kinds.get(kind) ?? kinds.set(kind, kinds.size).size - 1;
    };
    const grounds = new Map();
    function ground(element) {
        if (!element) return -1;
        if (!grounds.has(element)) {
            const below = ground(element.assignedSlot ?? element.parentElement
                ?? element.getRootNode().host);
            const style = getComputedStyle(element);
            const own = [style.backgroundColor, style.backgroundImage, style.opacity,
                         style.position, style.filter, style.mixBlendMode, style.clipPath];
            const plain = "rgba(0, 0, 0, 0),none,1,static,none,normal,none";
            grounds.set(element, own.join() === plain ? below : numbered(below, ...own));
        }
        return grounds.get(element);
    }
    const apart = (a, b) => a.bottom <= b.top || a.top >= b.bottom || a.right <= b.left
        || a.left >= b.right;
    function scrolledAway(element) {
        const box = element.getBoundingClientRect();
        for (let up = element.parentElement; up && up !== document.body; up = up.parentElement) {
            const clips = getComputedStyle(up).overflow !== "visible";
            if (clips && apart(box, up.getBoundingClientRect())) return true;
        }
        return false;
    }
    const counts = new Map(), texts = [];
    function choose(root) {
        for (const element of root.querySelectorAll("*")) {
            if (element.shadowRoot) choose(element.shadowRoot);
            const holds = element.matches("input, select, textarea")
                || [...element.childNodes].some((node) => (
                    node.nodeType === Node.TEXT_NODE && node.data.trim()
                ));
            const seen = holds && element.getClientRects().length
                && element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
            if (!seen) continue;
            const style = getComputedStyle(element);
            const kind = numbered(ground(element), element.localName, style.color, style.fontSize,
                                  style.fontWeight, style.textShadow, style.webkitTextStroke);
            const count = counts.get(kind) ?? 0;
            if (count >= 3 || scrolledAway(element)) continue;
            counts.set(kind, count + 1);
            texts.push(element);
        }
    }
    choose(document);
    const contrast = "color-contrast", found = [];
    const look = async (where, more) => found.push(...(await axe.run(where, {
        resultTypes: ["violations"], ...more,
        // From disk a page cannot read its own style sheets, which one rule about screens needs.
        preload: location.protocol !== "file:",
    })).violations);
    const others = rules?.filter((rule) => rule !== contrast);
    await look(document, others ? { runOnly: { type: "rule", values: others } }
        : { rules: { [contrast]: { enabled: false } } });
    if (texts.length && (rules ?? [contrast]).includes(contrast)) {
        await look({ include: texts }, { runOnly: { type: "rule", values: [contrast] } });
    }
    return found
        .filter(({ impact }) => impact === "serious" || impact === "critical")
        .flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => (
            `${id}: ${html.slice(0, 200)} ${failureSummary.slice(0, 200)}`
        )));
}"""


#: Where a figure's spectrograms and colour bars are: left, top, width and height, of 1.
SPECTROGRAMS = """(plot) => [...plot.querySelectorAll("feOffset")].map(
    (each) => ["x", "y", "width", "height"].map((name) => Number(each.getAttribute(name))))"""


def assert_dark_around_spectrograms(light: bytes, dark: bytes, boxes: list[list[float]]) -> None:
    """A figure, as PNG of a light and of a dark page, is inverted around its spectrograms alone."""
    light, dark = (
        np.asarray(Image.open(io.BytesIO(one)).convert("L")) / 255 for one in (light, dark)
    )
    height, width = light.shape
    inside = np.zeros((height, width), bool)
    for left, top, wide, high in boxes:
        rows = slice(int(top * height), round((top + high) * height) + 1)
        inside[rows, int(left * width) : round((left + wide) * width) + 1] = True
    kept = binary_erosion(inside, iterations=4)
    assert not kept.any() or np.abs(dark - light)[kept].mean() < 0.01
    outside = ~binary_dilation(inside, iterations=4)
    assert np.median(light[outside]) > 0.98
    assert np.median(dark[outside]) < 0.1
    edges = (dark[0], dark[-1], dark[:, 0], dark[:, -1])
    assert max(edge.max() for edge in edges) < 0.2, "a light line around it"


def page_names() -> list[str]:
    """Every page, relative to the book's first."""
    names = (path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.html"))
    return sorted(name for name in names if not name.startswith("_static/"))


def made_alike(name: str) -> bool:
    """Whether a page was made from docstrings, as hundreds of others were."""
    return name.startswith(("reference/sonibook.", "_modules/"))


def article_of(path: Path) -> str:
    """What a page says, without what stands around it on every page."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<article") : text.index("</article>")]


@functools.cache
def opened_names() -> list[str]:
    """The pages to open: of those made alike, the fullest and those with the longest words."""
    names = page_names()
    words = {
        name: re.sub(r"(?s)<pre.*?</pre>|<[^>]+>", " ", article_of(PAGES / name)).split()
        for name in filter(made_alike, names)
    }
    wide = sorted(words, key=lambda name: max(map(len, words[name])))[-8:]
    full = sorted(words, key=lambda name: len(words[name]))[-4:]
    return [name for name in names if not made_alike(name) or name in {*KINDS, *wide, *full}]


@functools.cache
def axe_script() -> str:
    """axe-core, which looks for what keeps people out of a page."""
    package = pytest.importorskip("axe_playwright_python")
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
