"""Data sets, divided into what classifiers are trained on and tested on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sonibook.datasets import Dataset, open_dataset
from sonibook.datasets.base import FileDataset
from sonibook.training.probe import groups_of


@dataclass(frozen=True)
class Part:
    """A tested part and what classifiers of it are trained on.

    Attributes
    ----------
    name : str
    train, test : dict
        Options of `sonibook.open_dataset`.
    """

    name: str
    train: dict[str, Any]
    test: dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A data set, divided.

    Attributes
    ----------
    name : str
        As in `Cell`.
    dataset : str
    parts : tuple of Part
    root : Path or None
        Where data sets lie.
    """

    name: str
    dataset: str
    parts: tuple[Part, ...]
    root: Path | None = field(default=None, compare=False)

    def open(self, options: dict[str, Any]) -> Dataset:
        """A part of the data set."""
        return open_dataset(self.dataset, root=self.root, **options)

    def recordings(self) -> dict[str, list[str]]:
        """For each tested part, the recording that each clip is cut from.

        Of ESC-50, whose file names say it, the source on Freesound; where a part is a speaker,
        that speaker; else each clip is a recording of its own.
        """
        found = {}
        for part in self.parts:
            data = self.open(part.test)
            if part.name.startswith("speaker "):
                found[part.name] = [part.name] * len(data)
            elif isinstance(data, FileDataset):
                found[part.name] = [_recording(data.name, one.clip_id) for one in data.entries]
            else:
                found[part.name] = [f"{part.name} {number}" for number in range(len(data))]
        return found


def _recording(dataset: str, clip_id: str) -> str:
    """The source on Freesound, the second part of a name such as 5-253085-A-0."""
    return clip_id.split("-")[1] if dataset.startswith("esc") else clip_id


def folds_of(dataset: str, root: Path | None) -> Question:
    """ESC-50 or a subset of it, each fold tested in turn."""
    parts = tuple(
        Part(
            f"fold {fold}",
            {"folds": [other for other in range(1, 6) if other != fold]},
            {"folds": [fold]},
        )
        for fold in range(1, 6)
    )
    return Question(f"{dataset}, five folds", dataset, parts, root)


def speakers_of(dataset: str, root: Path | None) -> Question:
    """Spoken digits, each speaker tested in turn."""
    whole = open_dataset(dataset, root=root, split="all")
    speakers = sorted(set(groups_of(whole) or ()))
    parts = tuple(
        Part(
            f"speaker {one}",
            {"split": "all", "speakers": [other for other in speakers if other != one]},
            {"split": "all", "speakers": [one]},
        )
        for one in speakers
    )
    return Question(f"{dataset}, a speaker left out", dataset, parts, root)


def split_of(
    dataset: str,
    root: Path | None,
    *,
    name: str = "its own split",
    train: dict[str, Any] | None = None,
    test: dict[str, Any] | None = None,
) -> Question:
    """One part: a data set's own split, or the one that options of ``train`` and ``test`` make."""
    part = Part("test", train or {"split": "train"}, test or {"split": "test"})
    return Question(f"{dataset}, {name}", dataset, (part,), root)
