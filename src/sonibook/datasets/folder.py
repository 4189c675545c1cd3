"""Any folder of sound files as a data set."""

from __future__ import annotations

from pathlib import Path

from sonibook.audio import EXTENSIONS
from sonibook.datasets.base import Entry, FileDataset
from sonibook.errors import DatasetError


def open_folder(root: str | Path, *, split: str = "all") -> FileDataset:
    """The sounds below a folder; its sub-folders, where there are any, are the classes.

    No sound is read here: a file that cannot be read raises AudioError when its clip is asked
    for, and keeps no other from being read.
    """
    base = Path(root)
    if split != "all":
        raise DatasetError(f"a folder has no split {split!r}: give each part a folder of its own.")
    if not base.is_dir():
        raise DatasetError(f"{base}: there is no such folder.")
    sounds = {
        path.relative_to(base).as_posix(): path
        for path in base.rglob("*")
        if path.suffix.lower() in EXTENSIONS and path.is_file()
    }
    names = sorted(n for n in sounds if not any(part.startswith(".") for part in n.split("/")))
    if not names:
        raise DatasetError(
            f"{base}: holds no sound: put {', '.join(e[1:].upper() for e in EXTENSIONS)} there."
        )
    classes = sorted({name.split("/")[0] for name in names if "/" in name})
    entries = [
        Entry(
            path=sounds[name],
            labels=(classes.index(name.split("/")[0]),) if "/" in name else (),
            clip_id=name,
        )
        for name in names
    ]
    labelled = all(entry.labels for entry in entries)
    return FileDataset(
        entries,
        name="folder",
        classes=classes,
        split="all",
        task="single-label" if labelled else "multi-label",
    )
