"""The sounds that the explorer offers: a data set's clips, sounds by name, the reader's own."""

from __future__ import annotations

from collections.abc import Mapping

from sonibook.audio import as_waveform
from sonibook.datasets.base import Clip, Dataset
from sonibook.plots.sound import Sound

#: So many clips of a data set can be chosen from.
MOST_CLIPS = 50


class Choices(Dataset):
    """Sounds to choose from, each with a key and a title; themselves a data set to analyse.

    Parameters
    ----------
    clips : mapping from str to ndarray or Tensor, or Dataset
        Sounds of shape (time,) by name; of a data set, the first fifty clips.

    Attributes
    ----------
    changes : int
        How often a sound was added.

    Raises
    ------
    ValueError
        If there is none.
    """

    name, classes, split, task = "explorer", (), "all", "multi-label"

    def __init__(self, clips: Mapping[str, Sound] | Dataset) -> None:
        self._data = clips if isinstance(clips, Dataset) else None
        self._sounds: dict[str, Sound] = {}
        self.changes = 0
        if isinstance(clips, Dataset):
            count = min(len(clips), MOST_CLIPS)
            self._titles = {str(index): _title(clips, index) for index in range(count)}
        else:
            self._sounds |= clips
            self._titles = {name: name for name in clips}
        if not self._titles:
            raise ValueError("There is nothing to explore: give at least one clip.")

    @property
    def options(self) -> list[tuple[str, str]]:
        """Titles and keys, in order."""
        return [(title, key) for key, title in self._titles.items()]

    def title(self, key: str) -> str:
        """What a sound is called where one chooses."""
        return self._titles[key]

    def key(self, index: int) -> str:
        """The key of sound `index`."""
        return list(self._titles)[index]

    def add(self, key: str, x: Sound) -> None:
        """Offer another sound, last; in place of one of that key."""
        self._titles.pop(key, None)
        self._titles[key] = key
        self._sounds[key] = x
        self.changes += 1

    def sound(self, key: str) -> Sound:
        """A sound by its key.

        Raises
        ------
        AudioError
            If its file cannot be read.
        """
        return self._sounds[key] if key in self._sounds else self._clip(key).waveform

    def clip_id(self, key: str) -> str:
        """A sound's id in its data set, or its name."""
        return key if key in self._sounds else self._clip(key).clip_id

    def __len__(self) -> int:
        return len(self._titles)

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < len(self):
            raise IndexError(index)
        key = self.key(index)
        return Clip(as_waveform(self.sound(key)), (), key)

    def _clip(self, key: str) -> Clip:
        if self._data is None:
            raise KeyError(key)
        return self._data[int(key)]


def _title(clips: Dataset, index: int) -> str:
    """A clip's number and classes, read without its sound where that can be."""
    names = ", ".join(clips.classes[label] for label in clips.labels(index))
    return f"{index}: {names}" if names else str(index)
