"""Makes the figures' results: the analyses, on the networks that there are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from torch import nn

from sonibook.analysis.ablation import ablate
from sonibook.analysis.coherence import coherence_by_layer
from sonibook.analysis.controls import Level
from sonibook.analysis.evolution import feature_evolution
from sonibook.analysis.faithfulness import faithfulness
from sonibook.analysis.grid import grid
from sonibook.analysis.layers import layer_importances
from sonibook.analysis.listeners import listen
from sonibook.analysis.networks import RANDOM, Network, load_network
from sonibook.analysis.result import Result, Row, fingerprint
from sonibook.analysis.selectivity import selectivity_by_layer
from sonibook.analysis.shifts import shift_law
from sonibook.analysis.stimulation import stimulation
from sonibook.analysis.stream import Streaming
from sonibook.analysis.top_clips import top_clip_agreement
from sonibook.datasets import Dataset, open_dataset
from sonibook.model.checkpoint import (
    kept_checkpoints,
    load_classifier,
    load_encoder,
    read_card,
)
from sonibook.model.encoder import CNN12
from sonibook.replication.benchmarks import SEEDS, Pretrained
from sonibook.training.probe import probed
from tools.results_settings import PROFILES, Settings

Measure = Callable[[Settings, Streaming], Result]
#: Of the random weights that analyses add.
SEED = SEEDS[0]
#: Who hears clips that are not speech.
_OF_EVENTS = ("event", "event, SoundNet", "STOI", "SI-SDR")


def make(target: str, path: Path, settings: Settings) -> None:
    """Measure one figure, unless the same networks were measured alike, or by a fuller profile."""
    wanted = NETWORKS_OF[target](settings)
    if not wanted or not any(one.trained for one in settings.encoders()):
        print(f"{target}: the networks are not there: not measured yet.")
        return
    prints = {name: fingerprint(network) for name, network in wanted.items()}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        by = before["provenance"].get("profile", "quick")
        same = prints == before["provenance"].get("encoders")
        if PROFILES[by].rank > settings.how_much.rank:
            print(f"{path} was made by profile {by}, which is fuller: kept.")
            return
        if same and by == settings.profile:
            print(f"{path} is up to date.")
            return
    parts = path.with_name(f".{path.name}.parts")
    streaming: Streaming = {
        "parts": parts,
        "processes": settings.processes,
        "limit": settings.limit(target),
    }
    print(f"{target}: {', '.join(wanted)}", flush=True)
    result = FIGURES[target](settings, streaming)
    made = {**settings.provenance(target), "encoders": prints}
    result.model_copy(update={"provenance": made}).write(path)
    shutil.rmtree(parts, ignore_errors=True)
    print(f"{path} is written.")


def _unseen(settings: Settings) -> Dataset:
    """All of ESC-10: no pretraining has seen its classes."""
    return open_dataset("esc10", root=settings.root, split="all")


def _trained(settings: Settings) -> dict[str, nn.Module]:
    """The pretrained encoders by name."""
    return {one.name: one.load() for one in settings.encoders() if one.trained}


def _networks(settings: Settings) -> list[Network]:
    """The pretrained encoders, and the untrained ones but the one that analyses add themselves."""
    return [
        Network(one.name, one.load(), one.row, one.seed, baseline=one.regime == RANDOM)
        for one in settings.encoders()
        if (one.regime, one.seed) != (RANDOM, SEED)
    ]


def _by_name(settings: Settings) -> dict[str, nn.Module]:
    """The same by name."""
    return {network.name: network.module for network in _networks(settings)}


def _every(settings: Settings) -> dict[str, nn.Module]:
    """All encoders by name, for what adds none itself."""
    return {one.name: one.load() for one in settings.encoders()}


def _beside_one(settings: Settings) -> list[Pretrained]:
    """The pretrained encoders and one random one, for analyses that add none."""
    encoders = settings.encoders()
    untrained = next(one for one in encoders if not one.trained)
    return [*(one for one in encoders if one.trained), untrained]


def _kept(run: str) -> dict[int, nn.Module]:
    """What a published run has kept, by epoch, its last one among it."""
    return {epoch: load_encoder(path) for epoch, path in kept_checkpoints(run).items()}


def _kept_of(run: str) -> Callable[[Settings], dict[str, nn.Module]]:
    return lambda _: {f"epoch {epoch}": network for epoch, network in _kept(run).items()}


def _evolution_of(run: str) -> Measure:
    def measure(settings: Settings, streaming: Streaming) -> Result:
        return feature_evolution(_kept(run), _unseen(settings), per_layer=3, **streaming)

    return measure


def _coherence(settings: Settings, streaming: Streaming) -> Result:
    return coherence_by_layer(_networks(settings), _unseen(settings), seed=SEED, **streaming)


def _selectivity(settings: Settings, streaming: Streaming) -> Result:
    return selectivity_by_layer(_networks(settings), _unseen(settings), seed=SEED, **streaming)


def _top_clips(settings: Settings, streaming: Streaming) -> Result:
    # The top clips of a few say nothing: all clips, whatever the profile.
    return top_clip_agreement(
        _networks(settings), _unseen(settings), seed=SEED, **_of_all(streaming)
    )


def _stimulation(settings: Settings, streaming: Streaming) -> Result:
    return stimulation(_networks(settings), _fold(settings, (5,)), seed=SEED, **streaming)


def _heard(settings: Settings) -> list[Network]:
    """Those of three seeds, for listeners take a second for a clip and a network."""
    return [network for network in _networks(settings) if network.seed in SEEDS[:3]]


def _listeners_of_events(settings: Settings, streaming: Streaming) -> Result:
    return listen(_heard(settings), _unseen(settings), listeners=_OF_EVENTS, seed=SEED, **streaming)


def _listeners_of_digits(settings: Settings, streaming: Streaming) -> Result:
    test, training = (
        open_dataset("fsdd", root=settings.root, split=split) for split in ("test", "train")
    )
    return listen(_heard(settings), test, training=training, seed=SEED, **streaming)


def _listeners_of_scenes(settings: Settings, streaming: Streaming) -> Result:
    test, training = (
        open_dataset("soundscapes", split=split, size=size)
        for split, size in (("test", 200), ("train", 1000))
    )
    return listen(
        _heard(settings), test, training=training, listeners=_OF_EVENTS, seed=SEED, **streaming
    )


def _faithfulness_at(level: Level) -> Measure:
    """Of a network that names ESC-50's classes, and of a probe on random weights, on a new fold."""

    def measure(settings: Settings, streaming: Streaming) -> Result:
        tested, training = (
            open_dataset("esc50", root=settings.root, folds=folds) for folds in ((5,), (1, 2, 3, 4))
        )
        by_random = probed(CNN12(width=0.25, seed=0).eval(), training, progress=True)
        networks = [
            Network("supervised", load_classifier("supervised"), "supervised"),
            Network("random weights", by_random, "random", baseline=True),
        ]
        return faithfulness(networks, tested, layers=(2, 5, 8, 11), level=level, **streaming)

    return measure


def _shifts(settings: Settings, streaming: Streaming) -> Result:
    networks = [Network(one.name, one.load(), one.row, one.seed) for one in _beside_one(settings)]
    return shift_law(networks, _fold(settings, (5,)), **streaming)


def _halved(settings: Settings) -> dict[Path, Network]:
    """Encoders that were trained alike with max-pools and with strides, by their files.

    By ``sonibook train configs/supervised-esc40.yaml --seeds 31,32,33 --out runs/strided/pooled``
    and the same with ``--set encoder.downsample=stride``.
    """
    paths = sorted((settings.runs / "strided").rglob("encoder.safetensors"))
    found = {path: load_network(str(path), "") for path in paths}
    return {path: replace(one, name=f"{one.regime} {one.seed}") for path, one in found.items()}


def _beside_starts(trained: Iterable[Network]) -> list[Network]:
    """Networks, and what each started from."""
    networks = []
    for network in trained:
        networks.append(network)
        if network.start is not None:
            regime = network.regime.replace("supervised", "own start")
            networks.append(replace(network.start, name=f"{regime} {network.seed}", regime=regime))
    return networks


def _strided(settings: Settings, streaming: Streaming) -> Result:
    scenes = open_dataset("soundscapes", root=settings.root, mixture_of="esc10", size=60)
    halved = _halved(settings)
    result = grid(_beside_starts(halved.values()), scenes, **streaming)
    accuracies = tuple(
        Row(**network.identity, layer=None, quantity="accuracy", mean=test["accuracy"],
            low=None, high=None, clips=test["clips"])
        for path, network in halved.items()
        for test in [read_card(path)["test"]]
    )  # fmt: skip
    return result.model_copy(update={"rows": (*result.rows, *accuracies)})


def _in_domain(settings: Settings, streaming: Streaming) -> Result:
    return layer_importances(
        _networks(settings), _unseen(settings), seed=SEED, **_of_all(streaming)
    )


def _out_of_domain(settings: Settings, streaming: Streaming) -> Result:
    test, training = (
        open_dataset("fsdd", root=settings.root, split=split) for split in ("test", "train")
    )
    return layer_importances(_networks(settings), test, training=training, seed=SEED, **streaming)


def _fine_tuned_networks(settings: Settings) -> list[Network]:
    """The encoders that table A.4 trained whole, fold 5 left out, as classifiers."""
    found = []
    for one in settings.encoders():
        run = f"a4-cnn12-contrastive-full-{one.regime}-{one.seed}-fold-5"
        path = settings.runs / "results" / run / "encoder.safetensors"
        if path.exists():
            found.append(Network(one.name, load_classifier(path), one.row, one.seed))
    return found


def _fine_tuned(settings: Settings) -> dict[str, nn.Module]:
    """The same by name."""
    return {network.name: network.module for network in _fine_tuned_networks(settings)}


def _ablation_of_fine_tuned(settings: Settings, streaming: Streaming) -> Result:
    return ablate(_fine_tuned_networks(settings), _fold(settings, (5,)), **streaming)


def _ablation(settings: Settings, streaming: Streaming) -> Result:
    """Linear probes on the frozen encoders, trained and not: the paper's fc-only."""
    training = _fold(settings, (1, 2, 3, 4))
    classifiers = [
        Network(one.name, probed(one.load(), training, progress=True), one.row, one.seed)
        for one in settings.encoders()
    ]
    return ablate(classifiers, _fold(settings, (5,)), **streaming)


def _of_all(streaming: Streaming) -> Streaming:
    return {**streaming, "limit": None}


def _fold(settings: Settings, folds: tuple[int, ...]) -> Dataset:
    return open_dataset("esc10", root=settings.root, folds=folds)


#: By the name of the results file.
FIGURES: dict[str, Measure] = {
    "figure-7": _coherence,
    "figure-1": _selectivity,
    "figures-2-3": _top_clips,
    "figure-4-in-domain": _in_domain,
    "figure-4-out-of-domain": _out_of_domain,
    "figure-5": _evolution_of("contrastive"),
    "figure-5-supervised": _evolution_of("supervised-esc40"),
    "figure-6": _ablation,
    "figure-6-full": _ablation_of_fine_tuned,
    "figure-b3": _shifts,
    "faithfulness": _faithfulness_at("peak"),
    "faithfulness-least-squares": _faithfulness_at("least squares"),
    "listeners-esc10": _listeners_of_events,
    "listeners-fsdd": _listeners_of_digits,
    "listeners-scenes": _listeners_of_scenes,
    "stimulation": _stimulation,
    "strided": _strided,
}

#: The networks that each is measured on, which tell whether it is up to date.
NETWORKS_OF: dict[str, Callable[[Settings], dict[str, nn.Module]]] = {
    **dict.fromkeys(FIGURES, _by_name),
    **dict.fromkeys(
        ("faithfulness", "faithfulness-least-squares"),
        lambda _: {"supervised": load_classifier("supervised")},
    ),
    **dict.fromkeys(
        ("listeners-esc10", "listeners-fsdd", "listeners-scenes"),
        lambda settings: {network.name: network.module for network in _heard(settings)},
    ),
    "figure-6": _every,
    "figure-b3": _trained,
    "figure-5": _kept_of("contrastive"),
    "figure-5-supervised": _kept_of("supervised-esc40"),
    "figure-6-full": _fine_tuned,
    "strided": lambda settings: {
        one.name: one.module for one in _beside_starts(_halved(settings).values())
    },
}
