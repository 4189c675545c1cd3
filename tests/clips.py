"""Sounds and data sets that several test files train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sonibook.audio import write_wav
from sonibook.datasets.base import Clip, Dataset
from sonibook.training.config import TrainConfig


class Held(Dataset):
    """Clips that are held in memory; counts how often each is read."""

    split, task = "all", "single-label"

    def __init__(
        self,
        waveforms: list[np.ndarray],
        labels: list[int],
        classes: tuple[str, ...] = ("class0", "class1", "class2"),
        name: str = "held",
    ) -> None:
        self.waveforms, self._labels = waveforms, labels
        self.classes, self.name = classes, name
        self.reads = [0] * len(waveforms)

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < len(self):
            raise IndexError(index)
        self.reads[index] += 1
        return Clip(self.waveforms[index], (self._labels[index],), f"clip{index}")


class AtRate(Dataset):
    """The same samples, said to be of another rate."""

    def __init__(self, clips: Dataset, sample_rate: int) -> None:
        self.clips, self.sample_rate = clips, sample_rate
        self.name, self.split, self.task = clips.name, clips.split, clips.task
        self.classes = clips.classes

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        return self.clips[index]


def noise(samples: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(samples).astype(np.float32)
    return x / np.abs(x).max()


def batch(count: int = 8, samples: int = 4000) -> torch.Tensor:
    return torch.stack([torch.from_numpy(noise(samples, seed)) for seed in range(count)])[:, None]


def ramps(count: int, samples: int = 3000) -> Held:
    """Clips whose every sample tells clip and time: value = index + time / samples, scaled."""
    waveforms = [
        ((index + 1 + np.arange(samples) / (2 * samples)) / count).astype(np.float32)
        for index in range(count)
    ]
    return Held(waveforms, [index % 3 for index in range(count)])


def write_tones(root: Path) -> Path:
    """Three classes that a network can tell apart: low and high tones, and noise."""
    time_axis = np.arange(4000) / 8000
    for index in range(8):
        rng = np.random.default_rng(index)
        for name, pitch in (("low", 200), ("high", 1500)):
            phase = 2 * np.pi * (pitch * rng.uniform(0.9, 1.1) * time_axis + rng.uniform())
            write_wav(root / name / f"{index}.wav", 0.9 * np.sin(phase))
        write_wav(root / "noise" / f"{index}.wav", noise(4000, 100 + index))
    return root


def settings_of(**changes: Any) -> dict[str, Any]:
    """A tiny experiment on a folder of sounds: 24 clips, six steps an epoch."""
    return {
        "name": "tiny",
        "seed": 3,
        "data": {"name": "folder", "crop_seconds": 0.3},
        "encoder": {"width": 0.0625, "norm": "weight"},
        "augment": {"mixup_alpha": 0.4},
        "optimiser": {"epochs": 3, "warmup_epochs": 1, "batch_size": 4, "learning_rate": 2e-3},
        "evaluate_every": 2,
        "threads": 1,
        **changes,
    }


def tiny(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(settings_of(**changes))
