"""How large the known data sets are, for planning a run where their files are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Clips a split, as published, and classes. A collection may have lost some.
_CLIPS: dict[str, tuple[dict[str, int], int]] = {
    # Gemmeke et al. 2017
    "audioset": (
        {
            "balanced_train": 22_160,
            "unbalanced_train": 2_041_789,
            "train": 2_063_949,
            "eval": 20_371,
            "test": 20_371,
            "all": 2_084_320,
        },
        527,
    ),
    # Fonseca et al. 2020
    "fsd50k": (
        {
            "train": 36_796,
            "val": 4_170,
            "dev": 40_966,
            "eval": 10_231,
            "test": 10_231,
            "all": 51_197,
        },
        200,
    ),
    # Warden 2018
    "speech_commands": (
        {"train": 84_843, "validation": 9_981, "test": 11_005, "all": 105_829},
        35,
    ),
}
#: Clips a fold of ESC-50 and its parts (Piczak 2015), and classes.
_FOLDS = {"esc50": (400, 50), "esc40": (320, 40), "esc10": (80, 10)}


def published_size(name: str, options: Mapping[str, Any]) -> tuple[int, int] | None:
    """Clips and classes that a data set has according to its publication.

    Parameters
    ----------
    name : str
        As `sonibook.open_dataset` knows it.
    options : mapping
        Options to open it with; ``split`` or ``folds`` count.

    Returns
    -------
    tuple of int, or None
        None where that is not known here.

    Examples
    --------
    >>> published_size("fsd50k", {"split": "eval"})
    (10231, 200)
    >>> published_size("esc10", {"folds": [1, 2, 3, 4]})
    (320, 10)
    """
    if name in _FOLDS and "folds" in options:
        clips, classes = _FOLDS[name]
        return clips * len(options["folds"]), classes
    splits, classes = _CLIPS.get(name, ({}, 0))
    split = options.get("split", "all")
    return (splits[split], classes) if split in splits and "segments" not in options else None
