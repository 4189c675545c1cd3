"""The pages of the built book, and what looks for barriers in them."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[1] / "build" / "book" / "_build" / "html"
#: Pages that stand for all that are made alike.
KINDS = ("reference/sonibook.deconvnet.backward.html", "reference/sonibook.training.config.html")
PHONE = {"width": 390, "height": 844}
#: What axe-core finds that keeps people out, by all of its rules or some.
BREACHES = """async (rules) => {
    // From disk a page cannot read its own style sheets, which one rule about screens would need.
    const options = { resultTypes: ["violations"], preload: location.protocol !== "file:" };
    if (rules) options.runOnly = { type: "rule", values: rules };
    const { violations } = await axe.run(document, options);
    return violations
        .filter(({ impact }) => impact === "serious" || impact === "critical")
        .flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => (
            `${id}: ${html.slice(0, 200)} ${failureSummary.slice(0, 200)}`
        )));
}"""


def page_names() -> list[str]:
    """Every page, relative to the book's first."""
    names = (path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.html"))
    return sorted(name for name in names if not name.startswith("_static/"))


def made_alike(name: str) -> bool:
    """Whether a page was made from docstrings, as hundreds of others were."""
    return name.startswith(("reference/sonibook.", "_modules/"))


@functools.cache
def axe_script() -> str:
    """axe-core, which looks for what keeps people out of a page."""
    package = pytest.importorskip("axe_playwright_python")
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
