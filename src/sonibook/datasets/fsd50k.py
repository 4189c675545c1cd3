"""FSD50K: 51,197 recordings of 0.3 to 30 s from Freesound, 200 classes, several to a clip.

E. Fonseca et al., "FSD50K: An open dataset of human-labeled sound events", IEEE/ACM TASLP 2022.
"""

from __future__ import annotations

from pathlib import Path

from sonibook.datasets.base import Entry, FileDataset
from sonibook.datasets.tables import (
    check_split,
    find_root,
    read_classes,
    read_table,
    report_missing,
    sounds_in,
)
from sonibook.errors import DatasetError

#: Which rows of which table make up which split: (table, value of its column `split`).
_SPLITS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "all": (("dev", None), ("eval", None)),
    "train": (("dev", "train"),),
    "val": (("dev", "val"),),
    "dev": (("dev", None),),
    "eval": (("eval", None),),
    "test": (("eval", None),),
}
_LICENCE = "CC BY 4.0 (its clips: CC0, CC BY, CC BY-NC, CC Sampling+), E. Fonseca et al., FSD50K"
_TRUTH = "FSD50K.ground_truth"
_MOST_CLASSES = 10_000


def open_fsd50k(root: str | Path, *, split: str = "all") -> FileDataset:
    """FSD50K with its official splits."""
    check_split("FSD50K", split, tuple(_SPLITS))
    base = find_root(root, f"{_TRUTH}/vocabulary.csv", "FSD50K")
    vocabulary = base / _TRUTH / "vocabulary.csv"
    classes = [
        name for _, name, _ in read_classes(vocabulary, "index,name,mid", most=_MOST_CLASSES)
    ]
    numbers = {name: number for number, name in enumerate(classes)}
    entries: list[Entry] = []
    missing: list[str] = []
    for part, wanted in _SPLITS[split]:
        folder, table = base / f"FSD50K.{part}_audio", base / _TRUTH / f"{part}.csv"
        sounds = sounds_in(folder)
        columns = ("fname", "labels") if wanted is None else ("fname", "labels", "split")
        for line, row in read_table(table, columns):
            if wanted is not None and row["split"] != wanted:
                continue
            try:
                labels = {numbers[name.strip()] for name in row["labels"].split(",")}
            except KeyError as error:
                raise DatasetError(
                    f"{table}, line {line}: vocabulary.csv has no class {error}."
                ) from None
            name = row["fname"].removesuffix(".wav")
            if name in sounds:
                entries.append(Entry(folder / sounds[name], tuple(sorted(labels)), name))
            else:
                missing.append(f"{folder.name}/{name}.wav")
    report_missing(
        f"FSD50K ({split})",
        where=base,
        listed=len(entries) + len(missing),
        missing=len(missing),
        example=missing[0] if missing else "",
        remedy="unpack the archives of its sounds there, or run 'sonibook data fetch fsd50k'",
    )
    return FileDataset(
        entries,
        missing=len(missing),
        name="fsd50k",
        classes=classes,
        split=split,
        task="multi-label",
        licence=_LICENCE,
    )
