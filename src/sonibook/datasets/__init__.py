"""Data sets, one interface: `open_dataset` by name, `Dataset` to write your own."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from sonibook import _names_of
from sonibook.audio import RATES
from sonibook.datasets import recordings
from sonibook.datasets.audioset import open_audioset
from sonibook.datasets.base import Clip, Dataset, Entry, FileDataset, Task
from sonibook.datasets.calls import Calls
from sonibook.datasets.packed import open_packed
from sonibook.datasets.soundscapes.scenes import ComposedScenes, SceneDataset, Soundscapes
from sonibook.errors import DatasetError, SonibookError

__all__ = ["DATASETS", "Clip", "Dataset", "Entry", "FileDataset", "Task", "open_dataset"]

__getattr__ = _names_of(__name__, fetch="published_size")

#: Where data sets that lie in files are looked for, unless `root` says.
ROOT_VARIABLE = "SONIBOOK_DATA"


def open_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    split: str = "all",
    sample_rate: int | None = None,
    **options: Any,
) -> Dataset:
    """Open a data set by name.

    Parameters
    ----------
    name : str
        ``"audioset"``, ``"calls"``, ``"esc10"``, ``"esc40"``, ``"esc50"``, ``"folder"``,
        ``"fsd50k"``, ``"fsdd"``, ``"packed"``, ``"pool"``, ``"soundscapes"`` or
        ``"speech_commands"``.
    root : str or Path, or None
        The folder the set's files lie in; the environment variable ``SONIBOOK_DATA`` if None.
        Synthesised sets need none.
    split : str
        ``"all"``, ``"train"`` or ``"test"``; a folder has only ``"all"``, a packed set what it
        was packed with, and the large sets have the parts of their own, too.
    sample_rate : int from 100 to 10,000,000, in Hz, or None
        What recordings and soundscapes are resampled to; 8 kHz if None. Packed sets keep the rate
        that they were made at.
    **options
        Of ``audioset``: `segments`. Of ``calls``: `seed`, `size` and `repeats` (see `Calls`). Of
        ``esc10``, ``esc40`` and ``esc50``: `folds`. Of ``fsdd``: `speakers`. Of ``pool``:
        `sources`. Of ``soundscapes``: `seed`, `size`, `duration`, `events`, `task` and `gains`
        (see `Soundscapes`), and `mixture_of`, a data set or the name of one whose clips the
        scenes are composed of, instead of synthesised events.

    Raises
    ------
    DatasetError
        If there is no such set, split or option, no root is given where one is needed, the rate
        is impossible, or the files do not lie as the set's layout says.

    Examples
    --------
    >>> data = open_dataset("soundscapes", split="train", seed=1, size=4)
    >>> [clip.clip_id for clip in data][-1]
    'soundscapes-1-train-3'
    """
    if name not in DATASETS:
        raise DatasetError(f"There is no data set {name!r}: choose one of {', '.join(DATASETS)}.")
    opener, known = DATASETS[name]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise DatasetError(
            f"{name} has no option {unknown[0]!r}: "
            + (f"it takes {', '.join(known)}." if known else "it takes root and split only.")
        )
    if root is None and name not in _SYNTHESISED:
        root = os.environ.get(ROOT_VARIABLE) or None
        if root is None:
            raise DatasetError(
                f"{name} lies in files: say where, with root=..., --data-root or the environment "
                f"variable {ROOT_VARIABLE}."
            )
    try:
        data = opener(root, split=split, **options)
    except SonibookError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        # A value of the wrong kind, such as text for a number, as far as the opener tells.
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        reason = " ".join(str(error).split())
        raise DatasetError(f"{name} cannot take {given or 'that'} ({reason}).") from None
    return data if sample_rate is None else at_rate(data, sample_rate)


def at_rate(data: Dataset, sample_rate: int) -> Dataset:
    """A data set whose clips are read at this rate, in Hz; `DatasetError` if they cannot be."""
    if sample_rate == data.sample_rate:
        return data
    if not isinstance(sample_rate, int) or not RATES[0] <= sample_rate <= RATES[1]:
        raise DatasetError(
            f"sample_rate {sample_rate!r} is impossible: choose {RATES[0]} to {RATES[1]:,} Hz."
        )
    if not isinstance(data, FileDataset | SceneDataset):
        raise DatasetError(
            f"{data.name} has the rate {data.sample_rate:,} Hz, and cannot be read at another."
        )
    data = copy(data)
    data.sample_rate = sample_rate
    return data


def _open_soundscapes(
    root: str | Path | None, *, split: str, mixture_of: Dataset | str | None = None, **options: Any
) -> Dataset:
    if mixture_of is None:
        return Soundscapes(split=split, **options)
    if isinstance(mixture_of, str):
        mixture_of = open_dataset(mixture_of, root=root, split=split)
    return ComposedScenes(mixture_of, split=split, **options)


_SYNTHESISED = ("calls", "soundscapes")
_SCENE_OPTIONS = tuple(
    name for name in inspect.signature(Soundscapes).parameters if name != "split"
)

#: How each data set is opened, and the options it takes.
DATASETS: dict[str, tuple[Callable[..., Dataset], tuple[str, ...]]] = {
    "audioset": (open_audioset, ("segments",)),
    "calls": (lambda root, **options: Calls(**options), ("seed", "size", "repeats")),
    "esc10": (partial(recordings.open_esc50, name="esc10"), ("folds",)),
    "esc40": (partial(recordings.open_esc50, name="esc40"), ("folds",)),
    "esc50": (recordings.open_esc50, ("folds",)),
    "folder": (recordings.open_folder, ()),
    "fsd50k": (recordings.open_fsd50k, ()),
    "fsdd": (recordings.open_fsdd, ("speakers",)),
    "packed": (open_packed, ()),
    "pool": (recordings.open_pool, ("sources",)),
    "soundscapes": (_open_soundscapes, (*_SCENE_OPTIONS, "mixture_of")),
    "speech_commands": (recordings.open_speech_commands, ()),
}
