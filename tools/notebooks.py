"""Bring chapters into the house's format, as `make format` does.

Outputs are stripped. What a page folds, JupyterLab folds too: it knows the tags of no page.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbstripout import strip_output

#: What JupyterLab is told of a cell with a tag of the pages.
_FOLDED = {
    "hide-input": {"source_hidden": True},
    "hide-output": {"outputs_hidden": True},
    "hide-cell": {"source_hidden": True, "outputs_hidden": True},
}


def formatted(text: str) -> str:
    """A notebook, as JSON, without outputs and with its cells folded by their tags."""
    notebook: Any = nbformat.reads(text, as_version=4)
    notebook = strip_output(notebook, keep_output=False, keep_count=False, keep_id=True)
    for cell in notebook.cells:
        folded: dict[str, bool] = {}
        for tag in cell.metadata.get("tags", []):
            folded |= _FOLDED.get(tag, {})
        cell.metadata.pop("jupyter", None)
        if folded:
            cell.metadata["jupyter"] = folded
    return nbformat.writes(notebook) + "\n"


def main() -> None:
    """Format the chapters that the command line names; those in format are left alone."""
    for path in map(Path, sys.argv[1:]):
        text = path.read_text(encoding="utf-8")
        if (new := formatted(text)) != text:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
