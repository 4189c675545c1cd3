"""``sonibook analyse listening``: what people heard, from the files that the blind test saves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sonibook.cli.analyse.shared import analyse_commands
from sonibook.cli.output import examples, shown, table
from sonibook.results import check_replaceable


@analyse_commands.command(
    "listening",
    epilog=examples(
        "sonibook analyse listening listening-*.json --out data/results/listening.json"
    ),
)
def listening(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="What listeners saved."),
    ],
    test: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="The test that they took: the folder with its trials.json."
        ),
    ] = Path("build/listening-test"),
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the result as JSON.", dir_okay=False)
    ] = None,
) -> None:
    """Score the blind listening test: by task, regime and layers, over listeners.

    Files that do not count are named, each with its reason, and counted: they are of another test
    or version, damaged or changed by hand, have trials that were never offered, failed catch
    trials, or the same listener twice. Simulations are never mixed with people's answers.
    """
    from sonibook.analysis.listening import ListeningTest, score

    if out is not None:
        check_replaceable(out)
    result, left_out = score(files, ListeningTest.read(test), seed=seed)
    for one in left_out:
        typer.echo(f"Left out: {shown(one.sentence)}", err=True)
    if result.simulation:
        typer.echo("A simulation: no person listened.\n")
    rows = [
        [row.quantity, row.regime, row.condition, row.layers or "all", f"{row:.2f}", row.clips]
        for row in result.rows
    ]
    header = ["asked", "regime", "condition", "layers", "mean and interval", "listeners"]
    typer.echo(table(header, rows))
    typer.echo(f"{result.listeners} of {len(files)} files count")
    if out is not None:
        result.write(out)
        typer.echo(f"Written to {shown(out)}")
