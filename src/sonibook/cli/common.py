"""What the commands share: how they are made, what they name, tables, and notices.

A command is a function: its signature has its options and their defaults, and its docstring ends in
what they are for.
"""

from __future__ import annotations

import errno
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

import typer
from typer.core import TyperGroup

from sonibook.errors import CheckpointError, DatasetError, SonibookError, SonibookWarning, explain
from sonibook.files import parse_yaml, read_json
from sonibook.files import shown as shown

if TYPE_CHECKING:
    from sonibook.datasets import Dataset

_Body = TypeVar("_Body", bound=Callable[..., None])
#: Of an option in a docstring: its name, and what it is for.
_OPTION = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.M)
#: What options of several commands are for.
_SHARED = """
    names: Shipped or imported names, .safetensors files, 'random' or 'random:SEED' for an untrained
        encoder, or module:function, Python code that makes a network.
    dataset: Data set to measure on (sonibook data list).
    split: Measure on this split.
    folds: Measure on these folds (ESC-50), such as 5.
    options: An option of the data set, such as size=200 or seed=1. May be repeated.
    seed: Of all that is drawn at random.
    width: Of untrained encoders.
    data_root: Where data sets lie; by default the environment variable SONIBOOK_DATA says.
    limit: Use only so many clips, evenly spaced: for a quick look.
    processes: Processes to work with.
    out: Write the result as JSON.
    figure: Draw the result (.png, .svg or .pdf).
    probe: Let a linear probe on each frozen encoder name the classes, fitted to split train or the
        other folds.
    probe_layer: Layer whose mean feature maps the probe sees.
    layers: Listen to these layers, such as 3,8,11.
    level: At which level sounds are subtracted: the clip's peak, or the best fit.
    residual: How the network hears what is left.
"""

Count = Annotated[int, typer.Option(min=1)]
Natural = Annotated[int, typer.Option(min=0)]
Width = Annotated[float, typer.Option(min=1 / 64)]
DataName = Annotated[str, typer.Option("--dataset", "-d")]
Split = Annotated[str | None, typer.Option(show_default="test")]
DataOptions = Annotated[list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE")]
DataRoot = Annotated[Path | None, typer.Option(metavar="FOLDER")]


def _replaceable(out: Path | None) -> Path | None:
    """Refuse a path at which something else than a result stands."""
    if out is None or not out.exists() or (out.is_file() and not out.stat().st_size):
        return out
    try:
        content = read_json(out)
    except (ValueError, OSError):
        content = None
    if not isinstance(content, dict) or "provenance" not in content:
        raise SonibookError(f"{out}: is there already and is not a result: choose another name.")
    return out


JsonOut = Annotated[Path | None, typer.Option(dir_okay=False, callback=_replaceable)]


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


def examples(*lines: str) -> str:
    """The end of a command's help, kept line by line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def group(about: str, *lines: str, more: str = "", **settings: Any) -> typer.Typer:
    """A group of commands: what they do, examples, and what else to tell."""
    epilog = examples(*lines) + more
    return typer.Typer(
        help=about, epilog=epilog, no_args_is_help=True, rich_markup_mode=None, **settings
    )


app = group(
    "Hear what the filters of a raw-waveform CNN respond to.",
    "sonibook sonify clip.ogg --layer 8 --top 3",
    "sonibook info supervised",
    "sonibook data list",
    more="\n\nExit codes: 0 done; 2 bad input, named in one sentence; 130 interrupted.",
    cls=_Commands,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
analyse_commands = group(
    "Measure what filters respond to over a data set, beside controls.",
    "sonibook analyse coherence supervised --dataset soundscapes --limit 40",
    "sonibook analyse coherence supervised random --dataset esc10 --out coherence.json "
    "--figure coherence.png",
    more="\n\nWith --out, what was interrupted goes on where it stood when run again.",
)


def command(
    group: typer.Typer, *lines: str, columns: str = "", **settings: Any
) -> Callable[[_Body], _Body]:
    """Make a command of ``_function``; `lines` are examples, `settings` Typer's."""

    def decorate(body: _Body) -> _Body:
        def run(**given: Any) -> None:
            body(**given)

        options = [one.replace(kind=one.KEYWORD_ONLY) for one in options_of(body)]
        run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in options} | {"return": None}
        title, about = body.__name__.strip("_").replace("_", "-"), _documented(body)[0]
        group.command(title, help=about, epilog=columns + examples(*lines), **settings)(run)
        return body

    return decorate


def options_of(body: Callable[..., Any]) -> list[inspect.Parameter]:
    """A function's parameters, each annotated with what its docstring says that it is for."""
    told, shared = (dict(_OPTION.findall(text)) for text in (_documented(body)[1], _SHARED))
    options = []
    for option in inspect.signature(body, eval_str=True).parameters.values():
        kind, info = option.annotation, typer.Option()
        if get_origin(kind) is Annotated:
            kind, info = get_args(kind)[0], copy(get_args(kind)[1])
        about = told.get(option.name) or info.help or shared.get(option.name, "")
        info.help = " ".join(about.split()) or None
        options.append(option.replace(annotation=Annotated[kind, info]))
    return options


def _documented(body: Callable[..., Any]) -> tuple[str, str]:
    """A docstring: what a function does, and what its options are for."""
    about, _, options = inspect.cleandoc(body.__doc__ or "").partition("\n\nOptions:\n")
    return about, options


def parse_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Options of a data set, ``key=value``, the values read as YAML."""
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

    extra = parse_options(pairs)
    twice = {"name", "root", *options} & extra.keys()
    if twice:
        raise DatasetError(f"{twice.pop()} is not an --option: it has a place of its own.")
    return open_dataset(name, root=root, **options, **extra)


#: What an untrained encoder is called.
RANDOM = "random"


def parse_numbers(text: str | None, what: str) -> tuple[int, ...] | None:
    """Integers, separated by commas, such as ``1,2,3``; None for what was not given."""
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        why = f"{text!r} is not a list of {what} such as 1,2,3."
        raise typer.BadParameter(why, param_hint=f"--{what}") from None


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
    columns = []
    for name, *values in zip(header, *rows, strict=True):
        cells = [name, *map(_cell, values)]
        width = max(map(len, cells))
        number = any(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
        columns.append([cell.rjust(width) if number else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def told_of(*, dataset: str, split: str, size: int, clips: int, skipped: Mapping[str, int]) -> str:
    """What was measured on, which clips were left out, and how many."""
    left_out = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
    return f"{dataset} ({split}), {clips} of {size} clips" + (left_out and f"; skipped: {left_out}")


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
    strangers = [repr(one) for one in classes if one not in data.classes]
    missing = [repr(one) for one in data.classes if one not in classes]
    why = [*(f"{one} is not in it" for one in strangers), *(f"{one} is missing" for one in missing)]
    why = why or ["they are in another order"]
    raise CheckpointError(
        f"{name} names {len(classes)} classes, which are not the {len(data.classes)} of "
        f"{data.name} ({why[0]}): take the data set it was trained for, or add --probe."
    )
