"""How the commands speak: tables, notices, examples, and names that any terminal can show."""

from __future__ import annotations

from collections.abc import Sequence

import typer

#: Control characters, but for tab and new line, and those that reverse the direction of writing.
_CONTROLS = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (
        *range(9),
        *range(11, 32),
        *range(127, 160),
        *range(0x202A, 0x202F),
        0x2066,
        0x2067,
    )
}


def examples(*lines: str) -> str:
    """The end of a command's help, kept line by line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def shown(text: object) -> str:
    """`text` with what is no Unicode (a file name may hold any bytes) written as escapes.

    So are control characters, which a card or a name could command the terminal with.
    """
    printable = str(text).translate(_CONTROLS)
    return printable.encode("utf-8", "backslashreplace").decode("utf-8")


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


def explain(problem: Exception) -> str:
    """What is wrong, in one sentence: the message, or for the system's errors file and reason."""
    if isinstance(problem, OSError) and problem.strerror:
        name = "" if problem.filename is None else f"{problem.filename}: "
        return f"{name}{problem.strerror[0].lower()}{problem.strerror[1:]}."
    return str(problem)
