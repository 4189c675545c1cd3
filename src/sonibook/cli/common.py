"""What the commands share: options and what they name, tables, notices, and examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonibook.errors import explain as explain
from sonibook.files import shown as shown

if TYPE_CHECKING:
    from sonibook.datasets import Dataset

DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="FOLDER",
        help="Where data sets lie; by default the environment variable SONIBOOK_DATA says.",
    ),
]
MeasuredData = Annotated[
    str, typer.Option("--dataset", "-d", help="Data set to measure on (sonibook data list).")
]
MeasuredSplit = Annotated[
    str | None, typer.Option("--split", help="Measure on this split.", show_default="test")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Use only so many clips, evenly spaced: for a quick look."),
]
Processes = Annotated[
    int | None,
    typer.Option("--processes", min=1, help="Processes to work with.", show_default="all cores"),
]
JsonOut = Annotated[
    Path | None, typer.Option("--out", help="Write the result as JSON.", dir_okay=False)
]
MeasuredFolds = Annotated[
    str | None, typer.Option("--folds", help="Measure on these folds (ESC-50), such as 5.")
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="KEY=VALUE",
        help="An option of the data set, such as size=200 or seed=1. May be repeated.",
    ),
]


def parse_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Options of a data set, ``key=value``, the values read as YAML.

    Examples
    --------
    >>> parse_options(["size=200", "task=single-label", "events=[1, 2]"])
    {'size': 200, 'task': 'single-label', 'events': [1, 2]}
    """
    from sonibook.untrusted import parse_yaml

    options: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        try:
            options[key] = parse_yaml(value)
        except ValueError:
            equals = ""
        if not (key and equals):
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE.", param_hint="--option")
    return options


def open_data(
    name: str, *, root: Path | None, pairs: Sequence[str] | None, **options: Any
) -> Dataset:
    """Open a data set with options as a user types them."""
    from sonibook.datasets import open_dataset
    from sonibook.errors import DatasetError

    extra = parse_options(pairs)
    twice = {"name", "root", *options} & extra.keys()
    if twice:
        raise DatasetError(f"{twice.pop()} is not an --option: it has a place of its own.")
    return open_dataset(name, root=root, **options, **extra)


#: What an untrained encoder is called.
RANDOM = "random"
#: Of ESC-50.
ALL_FOLDS = (1, 2, 3, 4, 5)


def parse_folds(text: str | None) -> tuple[int, ...] | None:
    """Folds, separated by commas."""
    return None if text is None else parse_numbers(text, "folds", such_as="1,2,3")


def parse_numbers(text: str, what: str, *, such_as: str) -> tuple[int, ...]:
    """Integers, separated by commas.

    Examples
    --------
    >>> parse_numbers("3,8,11", "layers", such_as="1,2")
    (3, 8, 11)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list of {what} such as {such_as}.", param_hint=f"--{what}"
        ) from None


def examples(*lines: str) -> str:
    """The end of a command's help, kept line by line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows under a header, in columns: numbers to the right, text to the left.

    Floats are shown with four significant digits.

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


def error(message: object, reasons: Iterable[object] = ()) -> None:
    """Say on stderr what went wrong."""
    typer.echo(f"Error: {shown(message)}", err=True)
    for reason in reasons:
        typer.echo(f"  {shown(reason)}", err=True)


def seed_of(name: str, default: int) -> int | None:
    """The seed of an untrained encoder, ``random`` or ``random:SEED``; None for other networks."""
    kind, _, own = name.partition(":")
    if kind != RANDOM:
        return None
    if own and not own.isdecimal():
        raise typer.BadParameter(f"{name}: {own!r} is not a seed.", param_hint="NETWORK")
    return int(own or default)


def check_classes(name: str, classes: Sequence[str], data: Dataset) -> None:
    """See that a network names the classes of a data set, in their order."""
    if tuple(classes) == data.classes:
        return
    from sonibook.errors import CheckpointError

    stranger = next((one for one in classes if one not in data.classes), None)
    why = "they are in another order" if stranger is None else f"{stranger!r} is not in it"
    if stranger is None and len(classes) != len(data.classes):
        why = f"{next(one for one in data.classes if one not in classes)!r} is missing"
    raise CheckpointError(
        f"{name} names {len(classes)} classes, which are not the {len(data.classes)} of "
        f"{data.name} ({why}): take the data set it was trained for, or add --probe."
    )
