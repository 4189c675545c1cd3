"""ESC-50: 2,000 environmental recordings of 5 s, 50 classes, 5 folds, and its subsets.

K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015.
Clips cut from one source recording lie in the same fold: split by folds, never by clips. (Four
recordings gave clips to two classes, and there each class lies in a fold of its own.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sonibook.datasets.base import Entry, FileDataset
from sonibook.datasets.tables import check_split, find_root, read_table
from sonibook.errors import DatasetError

_Subset = Literal["all", "esc10", "esc40"]
_FOLDS = (1, 2, 3, 4, 5)
_LICENCE = "CC BY-NC 3.0 (ESC-10: CC BY), K. J. Piczak, ESC-50, ACM Multimedia 2015"
_SPLITS = {"all": _FOLDS, "train": _FOLDS[:4], "test": _FOLDS[4:]}
_COLUMNS = ("filename", "category", "esc10", "fold", "target")


def open_esc50(
    root: str | Path,
    *,
    split: str = "all",
    folds: Sequence[int] | None = None,
    subset: _Subset = "all",
) -> FileDataset:
    """ESC-50, or one of its two subsets."""
    base = find_root(root, "meta/esc50.csv", "ESC-50")
    check_split("ESC-50", split, tuple(_SPLITS))
    if subset not in ("all", "esc10", "esc40"):
        raise DatasetError(f"ESC-50 has no subset {subset!r}: choose all, esc10 or esc40.")
    wanted = tuple(folds) if folds is not None else _SPLITS[split]
    if not wanted or not set(wanted) <= set(_FOLDS):
        raise DatasetError(f"ESC-50 has the folds 1 to 5, not {list(wanted)}.")
    table, rows = base / "meta" / "esc50.csv", []
    for line, row in read_table(table, _COLUMNS):
        name = row["filename"]
        if Path(name).name != name or "\\" in name:
            raise DatasetError(f"{table}, line {line}: {name!r} does not name a file in audio/.")
        if not (row["fold"] + row["target"]).isdecimal():
            raise DatasetError(f"{table}, line {line}: expected numbers as fold and target.")
        if subset == "all" or (row["esc10"] == "True") == (subset == "esc10"):
            rows.append(row)
    if not rows:
        raise DatasetError(f"{table}: lists no clip.")
    names = {int(row["target"]): row["category"] for row in rows}
    targets = sorted(names)
    entries = [
        Entry(
            path=base / "audio" / row["filename"],
            labels=(targets.index(int(row["target"])),),
            clip_id=Path(row["filename"]).stem,
            group=row["fold"],
        )
        for row in sorted(rows, key=lambda row: row["filename"])
        if int(row["fold"]) in wanted
    ]
    missing = [entry.path.name for entry in entries if not entry.path.is_file()]
    if missing:
        raise DatasetError(
            f"{base / 'audio'}: {len(missing)} of {len(entries)} listed files are missing, "
            f"{missing[0]} among them: unpack the whole archive there."
        )
    return FileDataset(
        entries,
        name="esc50" if subset == "all" else subset,
        classes=[names[target] for target in targets],
        split=split if folds is None else "folds " + ",".join(map(str, wanted)),
        licence=_LICENCE,
    )
