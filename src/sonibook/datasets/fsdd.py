"""FSDD, the Free Spoken Digit Dataset: 3,000 recordings of the digits 0 to 9 by 6 speakers.

Z. Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset. 8 kHz, 0.1 to 2.3 s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sonibook.datasets.base import Entry, FileDataset
from sonibook.datasets.tables import check_split, find_root
from sonibook.errors import DatasetError

_LICENCE = "CC BY-SA 4.0, Z. Jackson and contributors, Free Spoken Digit Dataset"
#: Recordings 0 to 4 of each digit and speaker are the official test set.
_TEST_INDICES = range(5)
_NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[^_]+)_(?P<index>[0-9]+)\.wav")


def open_fsdd(
    root: str | Path, *, split: str = "all", speakers: Sequence[str] | None = None
) -> FileDataset:
    """The Free Spoken Digit Dataset with its official split.

    Examples
    --------
    >>> rest = open_fsdd(root, speakers=("george", "lucas"))  # doctest: +SKIP
    """
    check_split("FSDD", split, ("all", "train", "test"))
    base = find_root(root, "recordings", "free-spoken-digit-dataset", "FSDD")
    folder = base / "recordings"
    names = [match for path in folder.glob("*.wav") if (match := _NAME.fullmatch(path.name))]
    if not names:
        raise DatasetError(
            f"{folder}: holds no recording named as FSDD names them (7_george_12.wav)."
        )
    known = sorted({match["speaker"] for match in names})
    wanted = known if speakers is None else [speakers] if isinstance(speakers, str) else speakers
    strangers = [name for name in wanted if name not in known]
    if strangers or not wanted:
        raise DatasetError(
            f"FSDD has no speaker {', '.join(strangers) or '(none asked for)'}: "
            f"choose of {', '.join(known)}."
        )
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
        and (split == "all" or (int(match["index"]) in _TEST_INDICES) == (split == "test"))
    ]
    return FileDataset(
        entries, name="fsdd", classes=tuple("0123456789"), split=split, licence=_LICENCE
    )
