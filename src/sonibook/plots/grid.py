"""Results as a table that a page can show and a screen reader can read out."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Value = str | int | float

_PADDING = "padding: 0.15rem 0.4rem;"
_NUMBER = re.compile(r"[-−+]?\d[\d,.]*(e[-+]?\d+)?\s*\S*")


@dataclass(frozen=True)
class Grid:
    """Rows of results; make it with `grid`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    caption: str = ""

    def _repr_html_(self) -> str:
        aligned = [_alignment(column) for column in zip(*self.rows, strict=True)]
        head = "".join(
            f'<th scope="col" style="text-align: {align}; {_PADDING}">{html.escape(name)}</th>'
            for name, align in zip(self.columns, aligned, strict=True)
        )
        body = "".join(
            "<tr>"
            + "".join(
                f'<td style="text-align: {align}; {_PADDING}">{html.escape(_text(value))}</td>'
                for value, align in zip(row, aligned, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return (
            f'<table class="results">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table>"
        )

    def __str__(self) -> str:
        lines = [self.columns, *(tuple(map(_text, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        )


def grid(rows: Sequence[Mapping[str, Value]], *, caption: str = "") -> Grid:
    """A table of results.

    Parameters
    ----------
    rows : sequence of mapping from str to str, int or float
        Values by name of column; all rows have the same columns, in the same order. Floats are
        shown with three digits, from a thousand on as whole numbers.
    caption : str

    Returns
    -------
    Grid
        Displays itself in a notebook; `str` gives it as text.

    Raises
    ------
    ValueError
        If there is no row, or two have different columns.

    Examples
    --------
    >>> print(grid([{"layer": 1, "share": 0.25}, {"layer": 10, "share": 1 / 3}]))
    layer  share
        1   0.25
       10  0.333
    """
    if not rows:
        raise ValueError("A table of results needs at least one row.")
    columns = tuple(rows[0])
    for number, row in enumerate(rows, start=1):
        if tuple(row) != columns:
            raise ValueError(f"Row {number} has the columns {list(row)}, not {list(columns)}.")
    return Grid(columns, tuple(tuple(row.values()) for row in rows), caption)


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"


def _alignment(column: tuple[Value, ...]) -> str:
    """Where a column stands: numbers to the right, also those that come as text with a unit."""
    texts = [value for value in column if isinstance(value, str) and value]
    numeric = len(texts) < sum(value != "" for value in column) or all(
        map(_NUMBER.fullmatch, texts)
    )
    return "right" if numeric else "left"
