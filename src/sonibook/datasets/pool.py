"""A pool of unlabelled recordings, to pretrain on: sounds of any length and a table of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sonibook.datasets.base import Entry, FileDataset
from sonibook.datasets.tables import check_split, find_root, read_table
from sonibook.errors import DatasetError

_COLUMNS = ("filename", "source", "original")


def open_pool(
    root: str | Path, *, split: str = "all", sources: Sequence[str] | None = None
) -> FileDataset:
    """Unlabelled recordings that a table lists; for training alone, never to test on."""
    check_split("a pool, which is for training alone,", split, ("all", "train"))
    folder = find_root(root, "pool.csv", "POOL")
    table = folder / "pool.csv"
    rows = [row for _, row in read_table(table, _COLUMNS)]
    for row in rows:
        if Path(row["filename"]).is_absolute() or ".." in Path(row["filename"]).parts:
            raise DatasetError(f"{table}: {row['filename']!r} does not lie below it.")
    known = sorted({row["source"] for row in rows})
    wanted = known if sources is None else [sources] if isinstance(sources, str) else sources
    strangers = [name for name in wanted if name not in known]
    if strangers or not wanted:
        raise DatasetError(
            f"{table}: lists no source {', '.join(strangers) or '(none asked for)'}: "
            f"choose of {', '.join(known)}."
        )
    entries = [
        Entry(
            path=folder / row["filename"],
            labels=(known.index(row["source"]),),
            clip_id=row["filename"],
            group=f"{row['source']}/{row['original']}",
        )
        for row in rows
        if row["source"] in wanted
    ]
    return FileDataset(
        entries,
        name="pool",
        classes=known,
        split=split,
        licence=f"as each of its sources says: {', '.join(sorted(set(wanted)))}",
    )
