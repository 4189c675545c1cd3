"""Links between the functions' docstrings and the chapters, both ways.

Docstrings name things as a reader would: `sonify`, `AudioError`, `encoder`. Whatever is a public
name of the library becomes a link to its page, whatever else (a parameter, a builtin) stays code.
And every documented function says which chapters use it, so that a reader of the reference finds
the explanation.
"""

from __future__ import annotations

import builtins
import importlib
import json
import re
from pathlib import Path
from typing import Any, cast

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment

_WORD = re.compile(r"\b[A-Za-z_][A-Za-z0-9_]*\b")


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.Node | None:
    """Find what a short name in a docstring means.

    A name is looked up as the end of a documented one. Roles that a chapter's author wrote in
    full keep failing the build when they lead nowhere; only what docstrings mark in passing
    (the default role) and builtin exceptions may stay without a link.
    """
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].lstrip("~.")
    domain = cast(PythonDomain, env.get_domain("py"))
    found = sorted(full for full in domain.objects if full.endswith(f".{name}"))
    for home in (defined_in(name), defined_in(f"sonibook.{name}")):
        if home in domain.objects:
            found = [home]
            break
    if node["reftype"] == "obj" and "." not in name:
        # A parameter may be called as some method elsewhere: only this page's methods are meant.
        here = node.get("refdoc", env.docname)
        found = [
            full
            for full in found
            if domain.objects[full].objtype in ("function", "class", "exception", "data")
            or domain.objects[full].docname == here
        ]
    pages = {domain.objects[full].docname for full in found}
    if found and (len(pages) == 1 or node["reftype"] in ("obj", "exc", "class")):
        # A function before a method of the same name.
        full = min(found, key=lambda full: (full.count("."), full))
        entry = domain.objects[full]
        uri = app.builder.get_relative_uri(node.get("refdoc", env.docname), entry.docname)
        link = nodes.reference("", "", internal=True, refuri=f"{uri}#{entry.node_id}")
        link["reftitle"] = full
        link += contnode
        return link
    if node["reftype"] == "obj" or hasattr(builtins, name.split(".")[-1]):
        return contnode
    return None


def defined_in(name: str) -> str:
    """Where a name that a package exports is defined, such as `sonibook.sonify`.

    Returns
    -------
    str
        Its full name there; empty where there is no such name.
    """
    package, _, last = name.rpartition(".")
    if package.split(".")[0] != "sonibook":
        return ""
    try:
        found = getattr(importlib.import_module(package), last)
    except (ImportError, AttributeError):
        return ""
    home = getattr(found, "__module__", package)
    return f"{home}.{getattr(found, '__qualname__', last)}"


def chapters_by_name(book: Path) -> dict[str, list[tuple[str, str]]]:
    """Which chapters use which names.

    Parameters
    ----------
    book : Path
        The folder of the chapters.

    Returns
    -------
    dict
        From a name to the (document, title) of the chapters whose code or text has it.
    """
    used: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(book.glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells]
        title = re.search(r"^#\s+(.+)$", "\n".join(texts), flags=re.MULTILINE)
        chapter = (path.stem, title.group(1).strip() if title else path.stem)
        words = set(_WORD.findall("\n".join(texts)))
        for word in words:
            used.setdefault(word, []).append(chapter)
    return used


def add_chapters(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Append to a function's or class's docstring the chapters that use it."""
    if what not in ("function", "class"):
        return
    chapters = app.config.sonibook_chapters.get(name.split(".")[-1], [])
    if chapters:
        links = ", ".join(f":doc:`{title} </{document}>`" for document, title in chapters)
        lines += ["", f"*In the book:* {links}", ""]


def list_options(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Make a list of what a command's docstring says of its options, which the shell shows."""
    if what == "function" and "Options:" in lines:
        start = lines.index("Options:") + 1
        told = [
            re.sub(r"^    (\w+): (.*)", r"    ``\1``\n        \2", one) for one in lines[start:]
        ]
        lines[start:] = ["", *"\n".join(told).split("\n")]


def skip_elsewhere(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """Document a name where it is defined, not again where a package exports it."""
    home = getattr(obj, "__module__", None)
    page = app.env.temp_data.get("autodoc:module")
    if what == "module" and isinstance(home, str) and page and home != page:
        return True
    return None


def read_chapters(app: Sphinx, config: Any) -> None:
    """Look through the chapters once, before anything is built."""
    config.sonibook_chapters = chapters_by_name(Path(app.srcdir))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    # "env" rather than "html": a page must be built again when its chapters change.
    app.add_config_value("sonibook_chapters", {}, "env")
    app.connect("config-inited", read_chapters)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-skip-member", skip_elsewhere)
    app.connect("autodoc-process-docstring", list_options)
    app.connect("autodoc-process-docstring", add_chapters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
