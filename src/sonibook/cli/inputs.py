"""From what a user names on the command line to data sets, options and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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


#: Of ESC-50.
ALL_FOLDS = (1, 2, 3, 4, 5)


def parse_folds(text: str | None) -> tuple[int, ...] | None:
    """Folds, separated by commas.

    Examples
    --------
    >>> parse_folds("1,2,3,4")
    (1, 2, 3, 4)
    """
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
