"""FSD50K: 51,197 recordings of 0.3 to 30 s from Freesound, 200 classes, several to a clip.

E. Fonseca et al., "FSD50K: An open dataset of human-labeled sound events", IEEE/ACM TASLP 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sonibook.datasets.base import Entry
from sonibook.datasets.esc50 import find_root
from sonibook.datasets.listed import ListedDataset, read_rows, report_missing, sounds_in
from sonibook.errors import DatasetError

#: Which rows of which table make up which split: (table, value of its column `split`).
SPLITS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "all": (("dev", None), ("eval", None)),
    "train": (("dev", "train"),),
    "val": (("dev", "val"),),
    "dev": (("dev", None),),
    "eval": (("eval", None),),
    "test": (("eval", None),),
}
LICENCE = "CC BY 4.0 (its clips: CC0, CC BY, CC BY-NC, CC Sampling+), E. Fonseca et al., FSD50K"
_TRUTH = "FSD50K.ground_truth"


def open_fsd50k(root: str | Path, *, split: str = "all") -> ListedDataset:
    """FSD50K with its official splits.

    Parameters
    ----------
    root : str or Path
        The folder that holds ``FSD50K/FSD50K.ground_truth/``, ``FSD50K/FSD50K.dev_audio/`` and
        ``FSD50K/FSD50K.eval_audio/``, or ``FSD50K`` itself.
    split : {"all", "train", "val", "dev", "eval", "test"}
        Dev is train and val; test is another name for eval.

    Returns
    -------
    ListedDataset
        Multi-label; in the order of the tables. Its `missing` says how many clips are listed and
        not there; a warning does, too.

    Raises
    ------
    DatasetError
        If the layout is another, there is no such split, a table is damaged, or no clip is there.
    """
    if split not in SPLITS:
        raise DatasetError(f"FSD50K has no split {split!r}: choose {', '.join(SPLITS)}.")
    base = find_root(root, "FSD50K", f"{_TRUTH}/vocabulary.csv")
    classes = _read_vocabulary(base / _TRUTH / "vocabulary.csv")
    numbers = {name: number for number, name in enumerate(classes)}
    entries: list[Entry] = []
    missing: list[str] = []
    for part, wanted in SPLITS[split]:
        folder = base / f"FSD50K.{part}_audio"
        found = sounds_in(folder)
        for name, labels in _read_truth(base / _TRUTH / f"{part}.csv", wanted, numbers):
            if name in found:
                entries.append(Entry(folder / found[name], labels, name))
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
    return ListedDataset(
        entries,
        missing=len(missing),
        name="fsd50k",
        classes=classes,
        split=split,
        task="multi-label",
        licence=LICENCE,
    )


def _read_vocabulary(path: Path) -> list[str]:
    """The names of the classes, from a table without a header: ``53,Crushing,/m/07plct2``."""
    names: list[str] = []
    for line, row in read_rows(path):
        if len(row) != 3 or row[0] != str(len(names)):
            raise DatasetError(
                f"{path}, line {line}: expected index,name,mid with the index {len(names)}."
            )
        names.append(row[1])
    if not names:
        raise DatasetError(f"{path}: holds no class.")
    return names


def _read_truth(
    path: Path, wanted: str | None, numbers: Mapping[str, int]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names of files and their labels, of one split or of all (None)."""
    header: list[str] | None = None
    needed = ["fname", "labels"] if wanted is None else ["fname", "labels", "split"]
    for line, row in read_rows(path):
        if header is None:
            header = row
            if not set(needed) <= set(header):
                raise DatasetError(f"{path}: expected the columns {', '.join(needed)}.")
            continue
        if len(row) != len(header):
            raise DatasetError(
                f"{path}, line {line}: has {len(row)} fields where the header has {len(header)}: "
                "labels with commas between them must be quoted."
            )
        fields = dict(zip(header, row, strict=True))
        if wanted is not None and fields["split"] != wanted:
            continue
        try:
            labels = {numbers[name.strip()] for name in fields["labels"].split(",")}
        except KeyError as error:
            raise DatasetError(
                f"{path}, line {line}: vocabulary.csv has no class {error}."
            ) from None
        yield fields["fname"].removesuffix(".wav"), tuple(sorted(labels))
