"""The pages of the built book."""

from __future__ import annotations

from pathlib import Path

PAGES = Path(__file__).parents[1] / "build" / "book" / "_build" / "html"
#: Pages that stand for all that are made alike.
KINDS = ("reference/sonibook.deconvnet.backward.html", "reference/sonibook.training.config.html")


def page_names() -> list[str]:
    """Every page, relative to the book's first."""
    names = (path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.html"))
    return sorted(name for name in names if not name.startswith("_static/"))


def made_alike(name: str) -> bool:
    """Whether a page was made from docstrings, as hundreds of others were."""
    return name.startswith(("reference/sonibook.", "_modules/"))
