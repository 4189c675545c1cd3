"""What tables are measured on: which pretrained encoders there are, as their cards say, and the
splits of which data sets they are tested on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from numpy import ndarray

from sonibook.analysis.activations import SelectedPair
from sonibook.analysis.networks import CENTRED, RANDOM, trained_regime
from sonibook.analysis.result import fingerprint
from sonibook.datasets import Dataset, open_dataset
from sonibook.datasets.base import FileDataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.model.checkpoint import canonical, load_encoder, read_card, shipped
from sonibook.model.encoder import CNN12
from sonibook.training.probe import groups_of

#: The two regimes that the paper compares.
REGIMES = ("supervised", "contrastive")
#: Regimes of weights that have learned nothing, as tests name them.
UNTRAINED = {RANDOM: "random weights", CENTRED: "centred random filters"}
#: Of the networks that are shipped, and of the untrained ones that figures set beside them.
SEEDS = (31, 32, 33, 34, 35)
#: Of the untrained encoders that tables set beside them: ten draws, which need no file.
_RANDOM_SEEDS = (0, 1, 2, *SEEDS, 36, 37)


@dataclass(frozen=True)
class Pretrained:
    """An encoder to start from, or "none"; those of one regime differ in the seed alone."""

    name: str
    regime: str
    seed: int
    width: float = 0.25

    @property
    def label(self) -> str:
        """How results name it: one that is not shipped after its run, wherever that lies."""
        file = Path(self.name)
        return file.parent.name if file.suffix == ".safetensors" else self.name

    @property
    def kind(self) -> str:
        """The regime without what tells it from networks of the usual size and normalisation."""
        return self.regime.partition(",")[0]

    @property
    def trained(self) -> bool:
        """Whether it has learned anything."""
        return self.kind not in ("none", *UNTRAINED)

    @property
    def main(self) -> bool:
        """Whether it is of the usual size and normalisation, and so one of those compared."""
        return self.regime == self.kind

    def load(self) -> CNN12:
        """The encoder, in evaluation mode; a centred one as a published run starts from it."""
        if self.trained:
            return load_encoder(self.name)
        if self.kind == RANDOM:
            return CNN12(width=self.width, seed=self.seed).eval()
        return canonical(CNN12(width=self.width, norm="weight", seed=self.seed))


def pretrained(checkpoints: Mapping[str, Path]) -> list[Pretrained]:
    """Untrained encoders, and those pretrained on ESC-50's 40 classes that ESC-10 lacks.

    What others know of the classes that transfer is measured on, they may have been told.
    """
    found = [
        Pretrained(f"{regime}:{seed}", regime, seed)
        for seed in _RANDOM_SEEDS
        for regime in UNTRAINED
    ]
    for name in sorted(checkpoints):
        card = read_card(checkpoints[name])
        regime, config = trained_regime(card), card.get("config", {})
        started = config.get("encoder", {}).get("start") is not None
        if regime and config["data"].get("name") == "esc40" and not started:
            found.append(Pretrained(name, regime, int(config["seed"]), float(card["width"])))
    for width in sorted({one.width for one in found} - {0.25}):
        regime = f"{RANDOM}, width {width:g}"
        found += [Pretrained(f"random:{seed}", regime, seed, width) for seed in (0, 1, 2)]
    order = (*UNTRAINED, *REGIMES)
    return sorted(found, key=lambda one: (order.index(one.kind), not one.main, one.seed))


class _Split(NamedTuple):
    """A tested part and what classifiers of it are trained on, as options of a data set."""

    name: str
    train: dict[str, Any]
    test: dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """A data set, divided."""

    name: str
    dataset: str
    splits: tuple[_Split, ...]
    root: Path | None = field(default=None, compare=False)

    @classmethod
    def of_folds(cls, dataset: str, root: Path | None) -> Benchmark:
        """ESC-50 or a subset of it, each fold tested in turn."""
        return cls(f"{dataset}, five folds", dataset, _in_turn("fold", range(1, 6)), root)

    @classmethod
    def of_speakers(cls, dataset: str, root: Path | None) -> Benchmark:
        """Spoken digits, each speaker tested in turn."""
        speakers = sorted(set(groups_of(open_dataset(dataset, root=root, split="all")) or ()))
        splits = _in_turn("speaker", speakers, split="all")
        return cls(f"{dataset}, a speaker left out", dataset, splits, root)

    @classmethod
    def of_split(
        cls,
        dataset: str,
        root: Path | None,
        *,
        name: str = "its own split",
        train: dict[str, Any] | None = None,
        test: dict[str, Any] | None = None,
    ) -> Benchmark:
        """One part: a data set's own split, or what the options ``train`` and ``test`` open."""
        split = _Split("test", train or {"split": "train"}, test or {"split": "test"})
        return cls(f"{dataset}, {name}", dataset, (split,), root)

    def open(self, options: dict[str, Any]) -> Dataset:
        """A part of the data set."""
        return open_dataset(self.dataset, root=self.root, **options)

    def recordings(self) -> dict[str, list[str]]:
        """For each tested part, the recording, or speaker, that each clip is cut from.

        By benchmark and part ("esc10, five folds: fold 1"); nothing of what is synthesised.
        """
        found = {}
        for split in self.splits:
            data = self.open(split.test)
            if isinstance(data, FileDataset):
                ids = [one.clip_id for one in data.entries]
                if split.name.startswith("speaker "):
                    ids = [split.name] * len(data)
                elif data.name.startswith("esc"):
                    # The source on Freesound, the second part of a name: 5-253085-A-0.
                    ids = [one.split("-")[1] for one in ids]
                found[f"{self.name}: {split.name}"] = ids
        return found


def _in_turn(what: str, values: Sequence[Any], **options: Any) -> tuple[_Split, ...]:
    """Each value of an option tested, with all others to train on."""
    return tuple(
        _Split(
            f"{what} {one}",
            {**options, f"{what}s": [other for other in values if other != one]},
            {**options, f"{what}s": [one]},
        )
        for one in values
    )


def pair_sounds(
    pairs: Sequence[SelectedPair],
    networks: Mapping[str, str],
    data: Dataset,
    *,
    seconds: float = 1.5,
) -> dict[str, tuple[Float[ndarray, " time"], Float[ndarray, " time"]]]:
    """The sounds of figures 2 and 3: clips, and what a filter keeps of each.

    Parameters
    ----------
    pairs : sequence of SelectedPair
        Of networks that `pretrained` finds.
    networks : mapping from str to str
        Fingerprints of the networks that chose the pairs.
    data : Dataset
        What they were chosen from.
    seconds : float > 0
        How much of either is kept, around the largest value of the sonification.

    Returns
    -------
    dict from str to (ndarray, ndarray), shapes (time,)
        By layer, filter and class. Without the pairs of networks that are no longer the same.
    """
    asked = {pair.network for pair in pairs}
    loaded = {one.name: one.load() for one in pretrained(shipped()) if one.name in asked}
    sounds = {}
    for pair in pairs:
        network = loaded.get(pair.network)
        if network is None or fingerprint(network) != networks[pair.network]:
            continue
        x = data[pair.clip.index].waveform
        passed = ForwardPass(network, x, depth=pair.layer)
        s = passed.sonify(pair.layer, [pair.filter])[0].numpy()
        size = round(seconds * data.sample_rate)
        start = min(max(int(abs(s).argmax()) - size // 2, 0), max(len(x) - size, 0))
        name = f"Layer {pair.layer}, filter {pair.filter}, {pair.label.replace('_', ' ')}"
        sounds[name] = x[start : start + size], s[start : start + size]
    return sounds
