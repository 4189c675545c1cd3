"""What the analyses share on the command line: networks, data, and where results go.

A command reads its options with the types of this file, and is three steps long::

    data = open_part(dataset, split=split, folds=folds, root=data_root, pairs=options)
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = coherence_by_layer(open_networks(networks, width=width), data, **streaming)
        finish(result, out=out, figure=figure, draw=coherence_figure)
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonibook.cli.inputs import open_data, parse_folds, parse_numbers
from sonibook.cli.output import shown, table

if TYPE_CHECKING:
    from sonibook.analysis.result import Result, ResultTable
    from sonibook.analysis.stream import Streaming
    from sonibook.datasets import Dataset
    from sonibook.model.encoder import CNN12
    from sonibook.plots.style import Picture

Networks = Annotated[
    list[str],
    typer.Argument(
        metavar="NETWORK",
        help="Shipped names, .safetensors files, or 'random' or 'random:SEED' for an untrained "
        "encoder.",
    ),
]
DatasetName = Annotated[
    str, typer.Option("--dataset", "-d", help="Data set to measure on (sonibook data list).")
]
Split = Annotated[str | None, typer.Option(help="Measure on this split.", show_default="test")]
Folds = Annotated[str | None, typer.Option(help="Measure on these folds (ESC-50), such as 5.")]
Layers = Annotated[
    str | None, typer.Option(help="Listen to these layers, such as 3,8,11.", show_default="all")
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Measure only so many clips, evenly spaced: for a quick look."),
]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Processes to measure with.", show_default="all cores")
]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is drawn at random.")]
Width = Annotated[float, typer.Option(min=1 / 64, help="Of untrained encoders.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Write the result as JSON.", dir_okay=False)
]
FigureFile = Annotated[
    Path | None,
    typer.Option("--figure", help="Draw the result (.png, .svg or .pdf).", dir_okay=False),
]

_RANDOM = "random"
_FIGURES = (".png", ".svg", ".pdf")


def open_networks(names: Sequence[str], *, width: float, seed: int) -> dict[str, CNN12]:
    """Encoders by the names that figures and results call them by.

    Parameters
    ----------
    names : sequence of str
        As a user types them. A file is called by its name without ending, where that tells it
        from the others.
    width : float > 0
        Of untrained encoders.
    seed : int >= 0
        Of ``random``; ``random:SEED`` has its own.

    Returns
    -------
    dict of str to CNN12

    Raises
    ------
    CheckpointError
        As `sonibook.load_encoder`.
    typer.BadParameter
        If a network is named twice, or the seed is no number.
    """
    from sonibook.model.checkpoint import load_encoder
    from sonibook.model.encoder import CNN12

    short = Counter(Path(name).stem for name in names)
    found: dict[str, CNN12] = {}
    for name in names:
        kind, _, own_seed = name.partition(":")
        title = Path(name).stem if short[Path(name).stem] == 1 else name
        if title in found:
            raise typer.BadParameter(f"{name} is named twice.", param_hint="NETWORK")
        if kind == _RANDOM:
            if own_seed and not own_seed.isdecimal():
                raise typer.BadParameter(f"{name}: {own_seed!r} is no seed.", param_hint="NETWORK")
            found[title] = CNN12(width=width, seed=int(own_seed or seed)).eval()
        else:
            found[title] = load_encoder(name)
    return found


def open_part(
    name: str,
    *,
    split: str | None,
    folds: str | None,
    root: Path | None,
    pairs: Sequence[str] | None,
) -> Dataset:
    """The part of a data set that a user names: its test part, unless they say.

    Raises
    ------
    DatasetError
        As `sonibook.open_dataset`.
    typer.BadParameter
        If both a split and folds are given.
    """
    if split is not None and folds is not None:
        raise typer.BadParameter("give either --folds or --split.", param_hint="--split")
    part: dict[str, Any] = (
        {"split": split or "test"} if folds is None else {"folds": parse_folds(folds)}
    )
    return open_data(name, root=root, pairs=pairs, **part)


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """Layers, separated by commas.

    Raises
    ------
    typer.BadParameter
        If one is no integer.

    Examples
    --------
    >>> parse_layers("3,8,11")
    (3, 8, 11)
    """
    return None if text is None else parse_numbers(text, "layers", such_as="3,8,11")


@contextmanager
def streamed(
    out: Path | None, figure: Path | None, *, processes: int | None, limit: int | None
) -> Iterator[Streaming]:
    """How an analysis streams: its chunks are kept beside `out` until all is written.

    Yields
    ------
    Streaming

    Raises
    ------
    typer.BadParameter
        If the figure's name does not end as one: better now than after hours.
    """
    if figure is not None and figure.suffix.lower() not in _FIGURES:
        raise typer.BadParameter(
            f"{shown(figure)}: choose a name that ends in {', '.join(_FIGURES)}.",
            param_hint="--figure",
        )
    parts = None if out is None else out.with_name(f".{out.name}.parts")
    try:
        yield {"parts": parts, "processes": processes, "limit": limit}
    except KeyboardInterrupt:
        if parts is not None and parts.is_dir():
            typer.echo("What was measured is kept: run the same again to go on.", err=True)
        raise
    if parts is not None:
        shutil.rmtree(parts, ignore_errors=True)


def finish(
    result: Result,
    *,
    out: Path | None,
    figure: Path | None,
    draw: Callable[[Any], Picture],
    show: Sequence[str] = (),
) -> None:
    """Say what was measured and on what, write the result, and draw it, where that is asked for.

    Parameters
    ----------
    result : Result
    out, figure : Path or None
    draw : callable
        From the result to its figure. The figure's alternative text goes into the file.
    show : sequence of str
        Quantities of a `ResultTable` to print, a row each for network, layer and condition.
    """
    from sonibook.analysis.result import ResultTable
    from sonibook.files import atomic

    if isinstance(result, ResultTable):
        typer.echo(_table_of(result, show))
    data = result.data
    skipped = ", ".join(f"{count} {reason}" for reason, count in data.skipped.items())
    note = f"; skipped: {skipped}" if skipped else ""
    typer.echo(f"{data.dataset} ({data.split}), {data.clips} of {data.size} clips{note}")
    if out is not None:
        result.write(out)
        typer.echo(f"Written to {shown(out)}")
    if figure is not None:
        kind = figure.suffix.lower().lstrip(".")
        picture = draw(result)
        key = "Subject" if kind == "pdf" else "Description"
        with atomic(figure) as temporary:
            picture.figure.savefig(temporary, format=kind, dpi=150, metadata={key: picture.alt})
        typer.echo(f"Drawn to {shown(figure)}")


def _table_of(result: ResultTable, quantities: Sequence[str]) -> str:
    """Some quantities of a result, leaving out columns that hold nothing."""
    rows = result.select(quantity=frozenset(quantities))
    columns = [
        name
        for name in ("layer", "network", "quantity", "condition")
        if len({getattr(row, name) for row in rows}) > 1
    ]
    columns += ["mean", "low", "high", "clips"]
    return table(columns, [[getattr(row, name) for name in columns] for row in rows])
