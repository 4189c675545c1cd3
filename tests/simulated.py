"""A blind listening test of tiny networks, and simulated listeners of known skill who take it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sonibook.analysis.listening import ListenerFile, ListeningTest, Trial
from sonibook.analysis.networks import Network
from sonibook.datasets import open_dataset
from sonibook.model.encoder import CNN12
from sonibook.widgets.listening_test import make_listening_test

REGIMES = ("supervised", "contrastive", "centred random")


def blind_test(folder: Path) -> ListeningTest:
    """A test whose networks, of two seeds, have learned nothing."""
    families = [
        [
            Network(f"{regime} {seed}", CNN12(width=1 / 16, seed=3 * seed + place).eval(), regime)
            for place, regime in enumerate(REGIMES)
        ]
        for seed in range(2)
    ]
    data = open_dataset(
        "soundscapes", split="test", task="single-label", size=60, duration=0.6, seed=4
    )
    return make_listening_test(families, data, folder, seconds=0.5)


def answers_of(
    test: ListeningTest,
    skill: Callable[[Trial], float],
    *,
    name: str,
    seed: int,
    most: int | None = None,
    simulation: bool = True,
) -> dict[str, Any]:
    """What the page saves for a listener who is right with probability ``skill(trial)``."""
    generator = np.random.default_rng(seed)
    cells: dict[object, list[Trial]] = {}
    for trial in test.trials:
        cells.setdefault((trial.cell, trial.catch), []).append(trial)
    drawn = [
        cells[cell][place]
        for cell in cells
        for place in generator.choice(
            len(cells[cell]), 1 if cells[cell][0].regime else 3, replace=False
        )
    ]
    drawn = [drawn[place] for place in generator.permutation(len(drawn))]
    answers = []
    for trial in drawn[:most]:
        wrong = [one for one in range(trial.choices) if one != trial.answer]
        right = generator.random() < skill(trial)
        choice = trial.answer if right else int(generator.choice(wrong))
        answers.append({"trial": trial.id, "choice": choice, "milliseconds": 4000, "plays": 1})
    return signed(
        {
            "kind": "sonibook listening test",
            "version": 1,
            "test": test.digest,
            "listener": name,
            "simulation": simulation,
            "offered": [trial.id for trial in drawn],
            "answers": answers,
        }
    )


def signed(content: dict[str, Any]) -> dict[str, Any]:
    """The same with the checksum that belongs to it."""
    return {**content, "checksum": ListenerFile.model_validate({**content, "checksum": 0}).sum()}
