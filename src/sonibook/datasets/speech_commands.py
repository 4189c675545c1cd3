"""Speech Commands v2: 105,829 spoken words of up to a second, 35 words, one to a clip.

P. Warden, "Speech Commands: A dataset for limited-vocabulary speech recognition",
arXiv:1804.03209. The archive of its separate test set belongs to another protocol, of 12 classes.
"""

from __future__ import annotations

from pathlib import Path

from sonibook.datasets.base import Entry, FileDataset
from sonibook.datasets.tables import check_split, find_root, read_rows, report_missing, sounds_in
from sonibook.errors import DatasetError

_SPLITS = ("all", "train", "validation", "test")
_FOLDERS = ("SpeechCommands/speech_commands_v0.02", "SpeechCommands", "speech_commands_v0.02")
_LICENCE = "CC BY 4.0, P. Warden and contributors, Speech Commands v2"
_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}


def open_speech_commands(root: str | Path, *, split: str = "all") -> FileDataset:
    """Speech Commands v2 with its official splits."""
    check_split("Speech Commands", split, _SPLITS)
    base = find_root(root, _LISTS["validation"], *_FOLDERS)
    words = sorted(
        path.name for path in base.iterdir() if path.is_dir() and path.name[0] not in "._"
    )
    sounds = {word: sounds_in(base / word) for word in words}
    words = [word for word in words if sounds[word]]
    there = {f"{word}/{stem}" for word in words for stem in sounds[word]}
    lists = {part: _read_list(base / name) for part, name in _LISTS.items()}
    twice = lists["validation"] & lists["test"]
    if twice:
        raise DatasetError(f"{base}: both lists name {min(twice)}.wav: take them from the archive.")
    listed = lists["validation"] | lists["test"]
    wanted = {"all": there | listed, "train": there - listed, **lists}[split]
    missing = wanted - there
    report_missing(
        f"Speech Commands ({split})",
        where=base,
        listed=len(wanted),
        missing=len(missing),
        example=f"{min(missing)}.wav" if missing else "",
        remedy="unpack the whole archive there, or run 'sonibook data fetch speech_commands'",
    )
    entries = []
    for name in sorted(wanted & there):
        word, stem = name.split("/")
        entries.append(
            Entry(
                path=base / word / sounds[word][stem],
                labels=(words.index(word),),
                clip_id=name,
                group=stem.split("_nohash_")[0],
            )
        )
    return FileDataset(
        entries,
        missing=len(missing),
        name="speech_commands",
        classes=words,
        split=split,
        task="single-label",
        licence=_LICENCE,
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
