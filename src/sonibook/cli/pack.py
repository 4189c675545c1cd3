"""``sonibook data pack``: turn a data set into shards that a training streams."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sonibook.cli.inputs import DataOptions, DataRoot, open_data
from sonibook.cli.output import error, examples, shown

PACK_EXAMPLES = examples(
    "sonibook data pack esc50 --data-root recordings --out packs/esc50",
    "sonibook data pack fsd50k --split train --split val --split test --out packs/fsd50k",
    "sonibook data show packed --data-root packs/fsd50k --split val",
)


def pack(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As 'sonibook data list' shows it.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder to pack into.")],
    splits: Annotated[
        list[str] | None,
        typer.Option("--split", help="Which part, by default all. May be repeated."),
    ] = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    shard_mib: Annotated[int, typer.Option(min=1, help="Largest size of a shard, in MiB.")] = 1024,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode; by default all processors.")
    ] = None,
) -> None:
    """Pack a data set once into a few large files of 8 kHz samples, for quick training.

    Open the result as the data set 'packed', its folder being the data root. If packing is
    interrupted, run the same command again: it goes on where it stopped. Clips that cannot be
    read are named at the end, and the exit code is 2.
    """
    from sonibook.datasets.pack import pack as pack_dataset

    bad: list[str] = []
    for split in splits or ["all"]:
        data = open_data(name, root=data_root, pairs=options, split=split)
        packed = pack_dataset(data, out, split=split, shard_bytes=shard_mib << 20, workers=workers)
        typer.echo(f"{data.name} ({data.split}): {len(packed):,} clips in {shown(packed.folder)}")
        bad += packed.bad
    if bad:
        error(f"{len(bad)} clips cannot be read, and are left out.")
        for reason in bad:
            typer.echo(f"  {shown(reason)}", err=True)
        raise typer.Exit(2)
