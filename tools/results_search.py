"""A small search around the settings: one thing changed at a time, on folds 1 to 4 alone.

Every candidate is trained on folds 1 to 3 of ESC-50's 40 classes for a fifth of the final epochs
or less, in bfloat16, and scored on fold 4: supervised by its accuracy, contrastive by a linear
probe on its frozen encoder, with random encoders beside it. Fold 5 and the classes of ESC-10 are
not looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonibook.datasets import open_dataset
from sonibook.model.checkpoint import load_encoder
from sonibook.model.encoder import CNN12
from sonibook.replication.benchmarks import RANDOM_SEEDS
from sonibook.results import write_result
from sonibook.training.config import load_config
from sonibook.training.loop import train
from sonibook.training.probe import groups_of, linear_probe, probe_features
from tools.results_settings import Settings

EPOCHS = 30
TRAIN: dict[str, Any] = {"folds": [1, 2, 3]}
TEST: dict[str, Any] = {"folds": [4]}
SHORT = (
    f"data.train={json.dumps(TRAIN)}",
    f"data.test={json.dumps(TEST)}",
    f"optimiser.epochs={EPOCHS}",
    "optimiser.warmup_epochs=3",
    "keep_every=null",
    # Quicker, where the processor can; "float32" below says what it does to a network.
    "optimiser.precision=bfloat16",
)
#: By regime: what is changed from the configuration, and to what.
CHANGES: dict[str, dict[str, tuple[str, ...]]] = {
    "contrastive": {
        "as configured": (),
        "float32": ("optimiser.precision=float32",),
        "temperature 0.05": ("contrastive.temperature=0.05",),
        "temperature 0.2": ("contrastive.temperature=0.2",),
        "temperature 0.3": ("contrastive.temperature=0.3",),
        "learning rate 3e-4": ("optimiser.learning_rate=3.0e-4",),
        "learning rate 3e-3": ("optimiser.learning_rate=3.0e-3",),
        "weight decay 1e-3": ("optimiser.weight_decay=1.0e-3",),
        "weight decay 5e-2": ("optimiser.weight_decay=5.0e-2",),
        "gain alone": ("augment={gain_db: 6}",),
        "stronger augmentation": (
            "augment={gain_db: 12, noise_min_snr_db: 5, time_mask_share: 0.4, "
            "mix_back_min_snr_db: -5}",
        ),
        "crops of 1 s": ("data.crop_seconds=1.0",),
        "crops of 2.5 s": ("data.crop_seconds=2.5",),
    },
    "supervised": {
        "as configured": (),
        "float32": ("optimiser.precision=float32",),
        "learning rate 3e-4": ("optimiser.learning_rate=3.0e-4",),
        "learning rate 3e-3": ("optimiser.learning_rate=3.0e-3",),
        "weight decay 1e-3": ("optimiser.weight_decay=1.0e-3",),
        "weight decay 5e-2": ("optimiser.weight_decay=5.0e-2",),
        "no mixup": ("augment.mixup_alpha=null",),
        "gain alone": ("augment={gain_db: 6}",),
        "crops of 1.5 s": ("data.crop_seconds=1.5",),
        "crops of 4 s": ("data.crop_seconds=4.0",),
    },
}


@dataclass(frozen=True)
class Candidate:
    """A pretraining, as a short run.

    Attributes
    ----------
    regime : str
    name : str
        What is changed.
    changes : tuple of str
        As for `load_config`.
    """

    regime: str
    name: str
    changes: tuple[str, ...]

    def measure(self, settings: Settings) -> dict[str, Any]:
        """Train it, or go on with it, and score it."""
        config = load_config(f"configs/esc40-{self.regime}.yaml", changes=(*SHORT, *self.changes))
        out = settings.runs / "search" / f"{self.regime}-{self.name}".replace(" ", "-")
        card = train(config, out=out, data_root=settings.root)
        row = {
            "regime": self.regime,
            "changed": self.name,
            "changes": list(self.changes),
            "score": "accuracy" if self.regime == "supervised" else "linear probe",
        }
        if self.regime == "supervised":
            return {**row, "value": card["test"]["accuracy"], "clips": card["test_clips"]}
        value = _probe(load_encoder(out / "encoder.safetensors"), settings)
        return {**row, **value, "retrieval": card["test"]["retrieval"]}


def _probe(network: CNN12, settings: Settings) -> dict[str, Any]:
    parts = [open_dataset("esc40", root=settings.root, **part) for part in (TRAIN, TEST)]
    (known, labels), (asked, truth) = (probe_features(network, part) for part in parts)
    probe = linear_probe(known, labels, asked, groups=groups_of(parts[0]), seed=0)
    return {"value": float((probe.predicted == truth).mean()), "clips": len(truth)}


def _beside(settings: Settings) -> list[dict[str, Any]]:
    """What random weights score."""
    return [
        {"seed": seed, **_probe(CNN12(width=0.25, seed=seed).eval(), settings)}
        for seed in RANDOM_SEEDS
    ]


def make(path: Path, settings: Settings) -> None:
    """Measure the candidates that the file lacks, writing it after each."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
    rows = {
        Candidate(row["regime"], row["changed"], tuple(row["changes"])): row for row in kept["rows"]
    }
    random = kept.get("random") or _beside(settings)
    wanted = [
        Candidate(regime, name, changes)
        for regime, candidates in CHANGES.items()
        for name, changes in candidates.items()
    ]
    for candidate in wanted:
        if candidate in rows:
            continue
        row = rows[candidate] = candidate.measure(settings)
        found = {
            "data": "ESC-50 without the classes of ESC-10, trained on folds 1 to 3, tested on 4",
            "epochs": EPOCHS,
            "random": random,
            "rows": [rows[one] for one in wanted if one in rows],
            "provenance": settings.provenance("search"),
        }
        write_result(path, found)
        print(f"search: {candidate.regime}, {candidate.name}: {row['value']:.3f}", flush=True)
