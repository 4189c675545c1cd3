"""The command line: thin commands over the library.

A command parses, calls and prints. Whatever the library refuses is printed as one sentence on
stderr and ends with exit code 2. PyTorch is imported inside the commands that need it, so that
``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

# Each adds its commands, in this order.
# isort: off
from sonibook.cli.common import app
from sonibook.cli import networks, training, analyse, compare, data  # noqa: F401
# isort: on

__all__ = ["app", "main"]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sonibook {version('sonibook')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Hear what the filters of a raw-waveform CNN respond to."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 2 for bad input, or 130 if interrupted."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="sonibook")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    return 0
