"""How the commands speak: tables, notices, examples, and names that any terminal can show."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from sonibook.errors import explain as explain
from sonibook.files import shown as shown


def examples(*lines: str) -> str:
    """The end of a command's help, kept line by line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows under a header, in columns: numbers to the right, text to the left.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequences, each as long as `header`
        Floats are shown with four significant digits.

    Returns
    -------
    str

    Examples
    --------
    >>> print(table(["name", "clips"], [["esc50", 2000], ["fsdd", 300]]))
    name   clips
    esc50   2000
    fsdd     300
    """
    cells = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [
        any(
            isinstance(row[column], int | float) and not isinstance(row[column], bool)
            for row in rows
        )
        for column in range(len(header))
    ]
    lines = (
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def error(message: object) -> None:
    """Say on stderr what went wrong."""
    typer.echo(f"Error: {shown(message)}", err=True)
