"""``sonibook data fetch``: download a published data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sonibook.cli.inputs import DataRoot
from sonibook.cli.output import examples, shown

FETCH_EXAMPLES = examples(
    "sonibook data fetch fsdd --data-root recordings",
    "sonibook data fetch fsd50k",
)


def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="esc50, fsd50k, fsdd or speech_commands.")
    ],
    data_root: DataRoot = None,
) -> None:
    """Download a published data set, check it and unpack it below the data root.

    If the download is interrupted, run the same command again: what is whole is kept. AudioSet
    lies on YouTube and cannot be fetched.
    """
    from sonibook.datasets import ROOT_VARIABLE
    from sonibook.datasets.fetch import fetch as fetch_dataset

    data = fetch_dataset(name, root=data_root)
    where: Path | str = data_root if data_root is not None else f"${ROOT_VARIABLE}"
    typer.echo(
        f"{data.name}: {len(data):,} clips in {len(data.classes)} classes, in {shown(where)}"
    )
