"""Which pretrained encoders there are to be compared, as their cards say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sonibook.model.checkpoint import load_encoder, read_card
from sonibook.model.encoder import CNN12

Regime = Literal["random", "supervised", "contrastive"]

#: The two regimes that the paper compares.
REGIMES = ("supervised", "contrastive")
#: Regimes of weights that have learned nothing, as tests name them.
UNTRAINED = {"random": "random weights", "centred random": "centred random filters"}
#: Of the encoders with random weights, which need no file.
RANDOM_SEEDS = (0, 1, 2)
#: What encoders must have been pretrained on: classes that transfer is not measured on.
PRETRAINED_ON = "esc40"


@dataclass(frozen=True)
class Pretrained:
    """An encoder to start from."""

    name: str
    regime: Regime
    seed: int
    norm: str
    width: float

    @property
    def label(self) -> str:
        """How results name it: one that is not shipped after its run, wherever that lies."""
        file = Path(self.name)
        return file.parent.name if file.suffix == ".safetensors" else self.name

    @property
    def row(self) -> str:
        """The row of a table that it belongs to, beside others that differ in their seed alone."""
        plain = self.regime != "random" and self.norm == "none"
        size = "" if self.width == 0.25 else f", width {self.width:g}"
        return self.regime + (", not normalised" if plain else "") + size

    @property
    def main(self) -> bool:
        """Whether it is of the usual size and normalisation, and so one of those compared."""
        return self.row == self.regime

    def load(self) -> CNN12:
        """The encoder, in evaluation mode."""
        if self.regime == "random":
            return CNN12(width=self.width, seed=self.seed).eval()
        return load_encoder(self.name)


def pretrained(checkpoints: Mapping[str, Path], *, width: float = 0.25) -> list[Pretrained]:
    """Encoders pretrained on ESC-50's 40 classes that ESC-10 lacks, and random ones.

    Others, such as one that has seen all 50 classes, are left out: what they know of the classes
    that transfer is measured on, they may have been told.
    """
    found = [Pretrained(f"random:{seed}", "random", seed, "none", width) for seed in RANDOM_SEEDS]
    regimes: dict[str, Regime] = {"cross_entropy": "supervised", "nt_xent": "contrastive"}
    for name in sorted(checkpoints):
        card = read_card(checkpoints[name])
        config = card.get("config", {})
        if config.get("data", {}).get("name") != PRETRAINED_ON:
            continue
        if config.get("encoder", {}).get("start") is not None:
            continue
        regime = regimes.get(config.get("objective"))
        if regime is not None:
            norm, size = config["encoder"]["norm"], float(card["width"])
            found.append(Pretrained(name, regime, int(config["seed"]), norm, size))
    found += [
        Pretrained(f"random:{seed}", "random", seed, "none", other)
        for other in sorted({one.width for one in found} - {width})
        for seed in RANDOM_SEEDS
    ]
    order = ("random", "supervised", "contrastive")
    return sorted(found, key=lambda one: (order.index(one.regime), not one.main, one.seed))
