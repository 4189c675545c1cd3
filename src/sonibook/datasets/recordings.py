"""Recordings that lie in files: ESC-50, FSDD, FSD50K, Speech Commands, a pool, and any folder.

ESC-50 has 2,000 environmental recordings of 5 s in 50 classes (K. J. Piczak, "ESC: Dataset for
Environmental Sound Classification", ACM Multimedia 2015). Clips cut from one source recording lie
in the same fold: split by folds, never by clips. (Four recordings gave clips to two classes, and
there each class lies in a fold of its own.)

FSDD, the Free Spoken Digit Dataset, has 3,000 recordings of the digits 0 to 9 by 6 speakers, of 0.1
to 2.3 s at 8 kHz (Z. Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset).

FSD50K has 51,197 recordings of 0.3 to 30 s from Freesound in 200 classes, several to a clip
(E. Fonseca et al., "FSD50K: An open dataset of human-labeled sound events", IEEE/ACM TASLP 2022).

Speech Commands v2 has 105,829 spoken words of up to a second, 35 words, one to a clip (P. Warden,
arXiv:1804.03209). The archive of its separate test set belongs to another protocol, of 12 classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sonibook.audio import EXTENSIONS
from sonibook.datasets.base import (
    Entry,
    FileDataset,
    Task,
    check_split,
    find_root,
    read_classes,
    read_rows,
    read_table,
    report_missing,
    sounds_in,
)
from sonibook.errors import DatasetError

_FOLDS = (1, 2, 3, 4, 5)
_ESC50_SPLITS = {"all": _FOLDS, "train": _FOLDS[:4], "test": _FOLDS[4:]}
#: Recordings 0 to 4 of each digit and speaker are the official test set.
_FSDD_TEST = range(5)
_FSDD_NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[^_]+)_(?P<index>[0-9]+)\.wav")
#: Which rows of which table make up which split: (table, value of its column `split`).
_FSD50K_SPLITS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "all": (("dev", None), ("eval", None)),
    "train": (("dev", "train"),),
    "val": (("dev", "val"),),
    "dev": (("dev", None),),
    "eval": (("eval", None),),
    "test": (("eval", None),),
}
_MOST_CLASSES = 10_000
_WORD_FOLDERS = ("SpeechCommands/speech_commands_v0.02", "SpeechCommands", "speech_commands_v0.02")
_WORD_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}


def open_esc50(
    root: str | Path,
    *,
    split: str = "all",
    folds: Sequence[int] | None = None,
    name: Literal["esc50", "esc10", "esc40"] = "esc50",
) -> FileDataset:
    """ESC-50, or one of its two subsets."""
    base = find_root(root, "meta/esc50.csv", "ESC-50")
    check_split("ESC-50", split, tuple(_ESC50_SPLITS))
    wanted = tuple(folds) if folds is not None else _ESC50_SPLITS[split]
    if not wanted or not set(wanted) <= set(_FOLDS):
        raise DatasetError(f"ESC-50 has the folds 1 to 5, not {list(wanted)}.")
    table, rows = base / "meta" / "esc50.csv", []
    for line, row in read_table(table, ("filename", "category", "esc10", "fold", "target")):
        file = row["filename"]
        if Path(file).name != file or "\\" in file:
            raise DatasetError(f"{table}, line {line}: {file!r} does not name a file in audio/.")
        if not (row["fold"] + row["target"]).isdecimal():
            raise DatasetError(f"{table}, line {line}: expected numbers as fold and target.")
        if name == "esc50" or (row["esc10"] == "True") == (name == "esc10"):
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
            # Of each clip: its source on Freesound, where the table tells, and its own licence.
            credit=(f"Freesound {row['src_file']}, " if row.get("src_file") else "")
            + ("CC BY" if row["esc10"] == "True" else "CC BY-NC 3.0"),
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
        name=name,
        classes=[names[target] for target in targets],
        split=split if folds is None else "folds " + ",".join(map(str, wanted)),
        licence="CC BY-NC 3.0 (ESC-10: CC BY), K. J. Piczak, ESC-50, ACM Multimedia 2015",
    )


def _chosen(asked: Sequence[str] | str | None, known: list[str], refusal: str) -> Sequence[str]:
    """Those of `known` that are asked for, all where that is None."""
    wanted = known if asked is None else [asked] if isinstance(asked, str) else asked
    strangers = [name for name in wanted if name not in known]
    if strangers or not wanted:
        raise DatasetError(
            f"{refusal} {', '.join(strangers) or '(none asked for)'}: choose of {', '.join(known)}."
        )
    return wanted


def open_fsdd(
    root: str | Path, *, split: str = "all", speakers: Sequence[str] | None = None
) -> FileDataset:
    """The Free Spoken Digit Dataset with its official split."""
    check_split("FSDD", split, ("all", "train", "test"))
    base = find_root(root, "recordings", "free-spoken-digit-dataset", "FSDD")
    folder = base / "recordings"
    names = [match for path in folder.glob("*.wav") if (match := _FSDD_NAME.fullmatch(path.name))]
    if not names:
        raise DatasetError(f"{folder}: no recording named as FSDD names them (7_george_12.wav).")
    known = sorted({match["speaker"] for match in names})
    wanted = _chosen(speakers, known, "FSDD has no speaker")
    names.sort(key=lambda match: (match["digit"], match["speaker"], int(match["index"])))
    entries = [
        Entry(
            path=folder / match.string,
            labels=(int(match["digit"]),),
            clip_id=match.string.removesuffix(".wav"),
            group=match["speaker"],
        )
        for match in names
        if match["speaker"] in wanted
        and (split == "all" or (int(match["index"]) in _FSDD_TEST) == (split == "test"))
    ]
    licence = "CC BY-SA 4.0, Z. Jackson and contributors, Free Spoken Digit Dataset"
    return FileDataset(
        entries, name="fsdd", classes=tuple("0123456789"), split=split, licence=licence
    )


def open_fsd50k(root: str | Path, *, split: str = "all") -> FileDataset:
    """FSD50K with its official splits."""
    check_split("FSD50K", split, tuple(_FSD50K_SPLITS))
    base = find_root(root, "FSD50K.ground_truth/vocabulary.csv", "FSD50K")
    truth = base / "FSD50K.ground_truth"
    rows = read_classes(truth / "vocabulary.csv", "index,name,mid", most=_MOST_CLASSES)
    numbers = {name: number for number, (_, name, _) in enumerate(rows)}
    entries: list[Entry] = []
    missing: list[str] = []
    for part, wanted in _FSD50K_SPLITS[split]:
        folder, table = base / f"FSD50K.{part}_audio", truth / f"{part}.csv"
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
    remedy = "unpack the archives of its sounds there, or run 'sonibook data fetch fsd50k'"
    listed = len(entries) + len(missing)
    report_missing(f"FSD50K ({split})", base, missing, listed=listed, remedy=remedy)
    return FileDataset(
        entries,
        missing=len(missing),
        name="fsd50k",
        classes=[name for _, name, _ in rows],
        split=split,
        task="multi-label",
        licence="CC BY 4.0 (its clips: CC0, CC BY, CC BY-NC, CC Sampling+), E. Fonseca et al., "
        "FSD50K",
    )


def open_speech_commands(root: str | Path, *, split: str = "all") -> FileDataset:
    """Speech Commands v2 with its official splits."""
    check_split("Speech Commands", split, ("all", "train", "validation", "test"))
    base = find_root(root, _WORD_LISTS["validation"], *_WORD_FOLDERS)
    folders = sorted(path for path in base.iterdir() if path.is_dir() and path.name[0] not in "._")
    sounds = {folder.name: found for folder in folders if (found := sounds_in(folder))}
    words = list(sounds)
    there = {f"{word}/{stem}" for word in words for stem in sounds[word]}
    lists = {part: _read_list(base / name) for part, name in _WORD_LISTS.items()}
    twice = lists["validation"] & lists["test"]
    if twice:
        raise DatasetError(f"{base}: both lists name {min(twice)}.wav: take them from the archive.")
    listed = lists["validation"] | lists["test"]
    wanted = {"all": there | listed, "train": there - listed, **lists}[split]
    missing = [f"{name}.wav" for name in sorted(wanted - there)]
    remedy = "unpack the whole archive there, or run 'sonibook data fetch speech_commands'"
    report_missing(f"Speech Commands ({split})", base, missing, listed=len(wanted), remedy=remedy)
    entries = []
    for name in sorted(wanted & there):
        word, stem = name.split("/")
        path, speaker = base / word / sounds[word][stem], stem.split("_nohash_")[0]
        entries.append(Entry(path, (words.index(word),), clip_id=name, group=speaker))
    return FileDataset(
        entries,
        missing=len(missing),
        name="speech_commands",
        classes=words,
        split=split,
        licence="CC BY 4.0, P. Warden and contributors, Speech Commands v2",
    )


def _read_list(path: Path) -> set[str]:
    """Clips, ``word/name``, from a list of files, ``word/name.wav``, one a line."""
    clips = set()
    for _, row in read_rows(path):
        name = row[0].strip()
        if len(row) != 1 or name.count("/") != 1 or not name.endswith(".wav"):
            raise DatasetError(f"{path}: expected lines such as bed/0a7c2a8d_nohash_0.wav.")
        clips.add(name.removesuffix(".wav"))
    return clips


def open_pool(
    root: str | Path, *, split: str = "all", sources: Sequence[str] | None = None
) -> FileDataset:
    """Unlabelled recordings of any length that a table lists; to pretrain on, never to test on."""
    check_split("a pool, which is for training alone,", split, ("all", "train"))
    folder = find_root(root, "pool.csv", "POOL")
    table = folder / "pool.csv"
    rows = [row for _, row in read_table(table, ("filename", "source", "original"))]
    for row in rows:
        if Path(row["filename"]).is_absolute() or ".." in Path(row["filename"]).parts:
            raise DatasetError(f"{table}: {row['filename']!r} does not lie below it.")
    known = sorted({row["source"] for row in rows})
    wanted = _chosen(sources, known, f"{table}: lists no source")
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
    licence = f"as each of its sources says: {', '.join(sorted(set(wanted)))}"
    return FileDataset(entries, name="pool", classes=known, split=split, licence=licence)


def open_folder(root: str | Path, *, split: str = "all") -> FileDataset:
    """The sounds below a folder; its sub-folders, where there are any, are the classes."""
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
    labels = [(classes.index(name.split("/")[0]),) if "/" in name else () for name in names]
    entries = [Entry(sounds[name], of, name) for name, of in zip(names, labels, strict=True)]
    task: Task = "single-label" if all(labels) else "multi-label"
    return FileDataset(entries, name="folder", classes=classes, split="all", task=task)
