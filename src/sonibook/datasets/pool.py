"""A pool of unlabelled recordings, to pretrain on: sounds of any length and a table of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sonibook.datasets.base import Entry, FileDataset
from sonibook.datasets.esc50 import find_root
from sonibook.datasets.listed import read_rows
from sonibook.errors import DatasetError

_COLUMNS = ["filename", "source", "original"]


def open_pool(
    root: str | Path, *, split: str = "all", sources: Sequence[str] | None = None
) -> FileDataset:
    """Unlabelled recordings that a table lists; for training alone, never to test on.

    Parameters
    ----------
    root : str or Path
        The folder that holds ``POOL/pool.csv``, or ``pool.csv`` itself. The table's first columns
        are ``filename,source,original``: the path below it, who published the recording, and the
        recording that it was cut from.
    split : {"all", "train"}
        A pool is one part.
    sources : sequence of str, or None
        Whose recordings; all if None.

    Returns
    -------
    FileDataset
        Its one label tells the source, `Entry.group` the recording. In the table's order.

    Raises
    ------
    DatasetError
        If there is no such table, split or source, or the table is of another form.
    """
    if split not in ("all", "train"):
        raise DatasetError(f"a pool has no split {split!r}: it is for training alone.")
    folder = find_root(root, "POOL", "pool.csv")
    table = folder / "pool.csv"
    rows = [row for _, row in read_rows(table)]
    if not rows or rows[0][:3] != _COLUMNS or any(len(row) < 3 for row in rows):
        raise DatasetError(f"{table}: its first columns must be {', '.join(_COLUMNS)}.")
    for name, *_ in rows[1:]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DatasetError(f"{table}: {name!r} does not lie below it.")
    known = sorted({source for _, source, *_ in rows[1:]})
    wanted = known if sources is None else [sources] if isinstance(sources, str) else sources
    strangers = [name for name in wanted if name not in known]
    if strangers or not wanted:
        raise DatasetError(
            f"{table}: lists no source {', '.join(strangers) or '(none asked for)'}: "
            f"choose of {', '.join(known)}."
        )
    entries = [
        Entry(folder / name, (known.index(source),), name, group=f"{source}/{original}")
        for name, source, original, *_ in rows[1:]
        if source in wanted
    ]
    return FileDataset(
        entries,
        name="pool",
        classes=known,
        split=split,
        licence=f"as each of its sources says: {', '.join(sorted(set(wanted)))}",
    )
