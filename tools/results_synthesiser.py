"""Which of the synthesiser's events a network that learned recordings calls by their names.

The classifier `supervised`, trained on ESC-50, is asked for the class of clips that hold a single
event of the synthesiser, all else at its defaults, and of ESC-50's own recordings of fold 5, which
it has not heard either. It writes ``synthesiser.json``, in a few minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from sonibook.datasets import Dataset, open_dataset
from sonibook.metrics import wilson_interval
from sonibook.model.checkpoint import load_classifier
from sonibook.results import write_result
from sonibook.training.data import predict
from tools.results_settings import Settings

NETWORK, CLIPS, TOP = "supervised", 1300, 5
#: What ESC-50 calls an event; there is none of its classes for the other five.
NAMES = {
    "alarm_beep": "clock_alarm", "applause": "clapping", "bird_chirp": "chirping_birds",
    "car_horn": "car_horn", "cat_meow": "cat", "church_bell": "church_bells",
    "clock_tick": "clock_tick", "crackling_fire": "crackling_fire", "cricket": "crickets",
    "dog_bark": "dog", "door_knock": "door_wood_knock", "engine": "engine",
    "footsteps": "footsteps", "frog": "frog", "helicopter": "helicopter", "rain": "rain",
    "sea_waves": "sea_waves", "siren": "siren", "thunder": "thunderstorm",
    "water_drops": "water_drops", "wind": "wind",
}  # fmt: skip


def make(path: Path, settings: Settings) -> None:
    """Measure, and write the file anew."""
    events = open_dataset("soundscapes", split="test", size=CLIPS, events=(1, 1))
    recordings = open_dataset("esc50", root=settings.root, folds=(5,))
    content: dict[str, Any] = {"network": NETWORK, "top": TOP} | {
        "events": _named(events, NAMES),
        "recordings": _named(recordings, {name: name for name in NAMES.values()}),
        "provenance": settings.provenance("synthesiser"),
    }
    write_result(path, content)
    whole = content["events"]["all"]
    print(f"synthesiser: {whole['first']:.3f} of {whole['clips']} events are named.", flush=True)


def _named(data: Dataset, names: dict[str, str]) -> dict[str, Any]:
    """Which share of a data set's clips is given its name, of all and by class."""
    network = load_classifier(NETWORK)
    outputs, targets = predict(
        network, data, least_length=network.encoder.least_length, progress=True
    )
    truth = np.array([data.classes[label] for label in targets.argmax(axis=1)])
    best = np.array(network.classes)[np.argsort(-outputs, axis=1)[:, :TOP]]
    known = np.isin(truth, list(names))
    called = np.array([names.get(name, "") for name in truth])[:, None] == best
    return {"data": data.name, "split": data.split, "all": _share(called[known])} | {
        "classes": {name: _share(called[truth == name]) for name in names if name in truth}
    }


def _share(called: ndarray) -> dict[str, Any]:
    """Shares of clips whose class comes first, and among the first `TOP`, with intervals."""
    found: dict[str, Any] = {"clips": len(called)}
    for name, first in (("first", 1), (f"first {TOP}", TOP)):
        right = int(called[:, :first].any(axis=1).sum())
        found[name] = right / len(called)
        found[f"{name}, interval"] = list(wilson_interval(right, len(called)))
    return found
