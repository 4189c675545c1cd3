"""The command line: thin commands over the library.

A command parses, calls and prints. Whatever the library refuses is printed as one sentence on
stderr and ends with exit code 2. PyTorch is imported inside the commands that need it, so that
``--help`` is quick.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sonibook.cli import analyse as analyse
from sonibook.cli import compare as compare
from sonibook.cli.analysis import analyse_commands
from sonibook.cli.common import error, examples, explain, shown
from sonibook.cli.data import data_commands
from sonibook.cli.evaluate import EVALUATE_EXAMPLES, evaluate
from sonibook.cli.info import INFO_EXAMPLES, import_commands, info
from sonibook.cli.pages import ATLAS_EXAMPLES, EXPORT_LAB_EXAMPLES, atlas, export_lab
from sonibook.cli.sonify import SONIFY_EXAMPLES, sonify
from sonibook.cli.train import TRAIN_EXAMPLES, train
from sonibook.errors import SonibookError, SonibookWarning

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Turns what the library raises into a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("always", SonibookWarning)
            warnings.showwarning = _notices()
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                typer.echo("Interrupted.", err=True)
                raise typer.Exit(130) from None
            except (SonibookError, OSError) as problem:
                if getattr(problem, "errno", None) == errno.EPIPE:
                    raise  # whoever read the output has gone: no error of ours
                error(explain(problem))
                raise typer.Exit(2) from None


def _notices() -> Callable[..., None]:
    """Tells each warning once, however often a clip that it is about is read."""
    told: set[str] = set()

    def notice(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in told:
            told.add(str(message))
            typer.echo(f"Note: {shown(message)}", err=True)

    return notice


app = typer.Typer(
    cls=_Commands,
    help="Hear what the filters of a raw-waveform CNN respond to.",
    epilog=examples(
        "sonibook sonify clip.ogg --layer 8 --top 3",
        "sonibook info supervised",
        "sonibook data list",
    )
    + "\n\nExit codes: 0 done; 2 bad input, named in one sentence; 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("sonify", epilog=SONIFY_EXAMPLES)(sonify)
app.command("train", epilog=TRAIN_EXAMPLES)(train)
app.command(
    "evaluate",
    epilog=EVALUATE_EXAMPLES,
    short_help="Measure how well networks tell classes apart, beside chance.",
)(evaluate)
app.add_typer(analyse_commands, name="analyse")
app.command("atlas", epilog=ATLAS_EXAMPLES)(atlas)
app.command("info", epilog=INFO_EXAMPLES)(info)
app.add_typer(import_commands, name="import")
app.command("export-lab", epilog=EXPORT_LAB_EXAMPLES)(export_lab)
app.add_typer(data_commands, name="data")


def _print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sonibook {version('sonibook')}")
        raise typer.Exit
    return wanted


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
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, or None
        What follows the program's name; None takes it from the process.

    Returns
    -------
    int
        The exit code: 0, 2 for bad input, 130 if interrupted.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="sonibook")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    return 0
