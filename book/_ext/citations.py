"""Entries of the bibliography that a screen reader counts.

docutils calls the list a list, but its entries by a role that is deprecated and belongs to none.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def as_list_items(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Give every entry the role that its list asks for."""
    body = context.get("body")
    if body:
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, Any]:
    """See to it on every page."""
    app.connect("html-page-context", as_list_items)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
