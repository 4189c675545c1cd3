"""Clips that know the events they are the sum of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sonibook.datasets.base import Clip, Dataset
from sonibook.datasets.soundscapes import Event, SceneDataset
from sonibook.errors import AnalysisError


@dataclass(frozen=True)
class SceneClip(Clip):
    """A clip and its events, in the order of their onsets."""

    events: tuple[Event, ...]

    @property
    def stems(self) -> Float[Tensor, "events time"]:
        """The stems of the events that sound."""
        return torch.stack([torch.from_numpy(one.stem) for one in self.events if one.stem.any()])


class SceneClips(Dataset):
    """The scenes of a data set as clips that know their events.

    Parameters
    ----------
    scenes : Dataset
        Of scenes: synthesised ones, or mixtures of recordings.

    Raises
    ------
    AnalysisError
        If its clips are not scenes.
    """

    def __init__(self, scenes: Dataset) -> None:
        if not isinstance(scenes, SceneDataset):
            raise AnalysisError(
                f"The stems of {scenes.name} are not known: take scenes, such as soundscapes, or "
                f"soundscapes with mixture_of={scenes.name}."
            )
        self.scenes = scenes
        self.name, self.split, self.task = scenes.name, scenes.split, scenes.task
        self.classes, self.licence = scenes.classes, scenes.licence

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> SceneClip:
        scene = self.scenes.scene(index)
        return SceneClip(scene.mixture, scene.labels, scene.clip_id, scene.events)

    def labels(self, index: int) -> tuple[int, ...]:
        return self.scenes.labels(index)
