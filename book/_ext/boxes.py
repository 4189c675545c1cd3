"""Boxes of the page, from Markdown that every reader of notebooks shows, and lists of literature.

A quotation that begins with one of the bold words below becomes a box of that title, and what a
chapter folds with ``<details>`` becomes a folded box.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

#: Titles of boxes, and their looks.
_LOOKS = {
    "In this chapter": "note",
    "A detail of the paper": "note",
    "Predict": "tip",
    "Listen": "tip",
    "Check": "tip",
    "Predict, listen, check": "tip",
}
_OPENING = re.compile(r"<details>\s*<summary>(.+)</summary>\s*")


class Boxes(SphinxTransform):
    """Put boxes in the place of quotations and folds."""

    default_priority = 10

    def apply(self, **_: Any) -> None:
        for quotation in list(self.document.findall(nodes.block_quote)):
            _unquote(quotation)
        for raw in list(self.document.findall(nodes.raw)):
            if found := _OPENING.fullmatch(raw.astext()):
                _fold(raw, found[1])


def _box(title: str, look: str, content: list[nodes.Node]) -> nodes.admonition:
    return nodes.admonition("", nodes.title(title, title), *content, classes=[look])


def _unquote(quotation: nodes.block_quote) -> None:
    first, *rest = quotation.children
    bold = next((one for one in first.children if one.astext()), None)
    title = bold.astext().removesuffix(".") if isinstance(bold, nodes.strong) else ""
    if title not in _LOOKS:
        return
    text = [one for one in first.children[first.index(bold) + 1 :] if one.astext()]
    if text:
        text[0] = nodes.Text(text[0].astext().lstrip())  # the space after the bold words
        rest.insert(0, nodes.paragraph("", "", *text))
    quotation.replace_self(_box(title, _LOOKS[title], rest))


def _fold(opening: nodes.raw, title: str) -> None:
    parent = opening.parent
    start = parent.index(opening)
    end = start + 1
    while parent[end].astext().strip() != "</details>":
        end += 1
    parent[start : end + 1] = [_box(title, "dropdown", parent[start + 1 : end])]


def as_list_items(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Give an entry of the literature the role that its list asks for, so that it is counted."""
    if body := context.get("body"):
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, Any]:
    """Do it on every page."""
    app.add_transform(Boxes)
    app.connect("html-page-context", as_list_items)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
