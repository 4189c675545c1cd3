"""Makes the figures' results: the analyses, on the networks that there are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn

from sonibook.analysis.ablation import ablate
from sonibook.analysis.activations import top_clip_agreement
from sonibook.analysis.alternatives import compare_explanations, compare_unpoolings
from sonibook.analysis.coherence import coherence_by_layer, selectivity_by_layer
from sonibook.analysis.controls import stimulation
from sonibook.analysis.evolution import feature_evolution
from sonibook.analysis.faithfulness import dose_response, faithfulness
from sonibook.analysis.layers import layer_importances
from sonibook.analysis.listeners import listen
from sonibook.analysis.networks import RANDOM, Network, load_network
from sonibook.analysis.result import Estimate, Result, ResultTable, fingerprint
from sonibook.analysis.sanity import remove_and_retrain, sanity
from sonibook.analysis.separation import separation
from sonibook.analysis.shifts import downsampling, shift_law
from sonibook.analysis.stream import Streaming
from sonibook.datasets import Dataset, open_dataset
from sonibook.model.checkpoint import kept_checkpoints, load_classifier, load_encoder, read_card
from sonibook.model.encoder import CNN12
from sonibook.replication.benchmarks import SEEDS
from sonibook.training.probe import probed
from tools.results_settings import Settings, rank_of

Measure = Callable[[list[Network], Settings, Streaming], Result]
#: A part of some recordings, and what is fitted before it is measured on it.
Parts = Callable[[Settings], tuple[Dataset, ...]]
#: Of the random weights that analyses add.
SEED = SEEDS[0]
#: Kinds of probe.
_BOTH, _RIDGE = ("logistic", "ridge"), ("ridge",)
#: Who hears clips that are not speech.
_OF_EVENTS = ("event", "event, SoundNet", "STOI", "SI-SDR")
#: Of eleven layers those that stand for all where a clip takes seconds.
_LAYERS = (2, 5, 8, 11)


def make(target: str, path: Path, settings: Settings) -> None:
    """Measure one figure, unless the same networks were measured on as many clips, or by a fuller
    profile.
    """
    networks_of, measure = FIGURES[target]
    networks = networks_of(settings)
    if not networks or not any(one.trained for one in settings.encoders()):
        print(f"{target}: the networks are not there: not measured yet.")
        return
    prints = {network.name: fingerprint(network.module) for network in networks}
    limit = settings.limit(target)
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        by = before.get("profile", "quick")
        same = prints == before.get("encoders") and limit == before.get("limit", limit)
        if rank_of(before) > settings.rank:
            print(f"{path} was made by profile {by}, which is fuller: kept.")
            return
        if same and by == settings.profile:
            print(f"{path} is up to date.")
            return
    print(f"{target}: {', '.join(prints)}", flush=True)
    made = {**settings.provenance(target), "encoders": prints, "limit": limit}
    settings.write(path, lambda how: measure(networks, settings, how), limit=limit, made=made)


def _parts(dataset: str, *parts: dict[str, Any]) -> Parts:
    """Parts of a data set: what is measured on, and what is fitted before."""
    return lambda settings: tuple(
        open_dataset(dataset, root=settings.root, **part) for part in parts
    )


_FOLDS: tuple[dict[str, Any], ...] = ({"folds": (5,)}, {"folds": (1, 2, 3, 4)})
#: All of ESC-10: no pretraining has seen its classes.
_unseen = _parts("esc10", {"split": "all"})
_last_fold = _parts("esc10", *_FOLDS)
_digits = _parts("fsdd", {"split": "test"}, {"split": "train"})
_scenes = _parts("soundscapes", {"split": "test", "size": 200}, {"split": "train", "size": 1000})
#: Scenes of ESC-10's recordings, whose stems are known.
_mixtures = _parts("soundscapes", {"mixture_of": "esc10", "size": 60})


def _over(
    measure: Callable[..., Result], parts: Parts, *, fit: bool = False, **how: Any
) -> Measure:
    """An analysis on the first of some parts, to the second of which probes are fitted."""

    def run(networks: list[Network], settings: Settings, streaming: Streaming) -> Result:
        data, *training = parts(settings)
        fitted = {"training": training[0]} if fit else {}
        return measure(networks, data, **{**streaming, **how, **fitted})

    return run


def _in_turn(measure: Callable[..., ResultTable]) -> Callable[..., ResultTable]:
    """An analysis of one network, on each of several, as one table."""

    def run(networks: list[Network], data: Dataset, **how: Any) -> ResultTable:
        parts = [measure(one.module, data, name=one.name, **how) for one in networks]
        rows = tuple(
            row.model_copy(update=one.identity)
            for one, part in zip(networks, parts, strict=True)
            for row in part.rows
        )
        prints = {name: found for part in parts for name, found in part.networks.items()}
        return parts[0].model_copy(update={"rows": rows, "networks": prints})

    return run


def _encoders(
    settings: Settings,
    *,
    trained: bool = False,
    added: bool = False,
    seeds: Sequence[int] = SEEDS,
) -> list[Network]:
    """The encoders to compare, or the pretrained ones.

    For analyses that have random weights added to what they take, these are baselines, and those
    that are added are left out.
    """
    return [
        Network(one.name, one.load(), one.regime, one.seed, added and one.regime == RANDOM)
        for one in settings.encoders()
        if one.seed in seeds
        and (one.trained or not trained)
        and not (added and (one.regime, one.seed) == (RANDOM, SEED))
    ]


_networks = partial(_encoders, added=True)
#: Those of three seeds, where a clip and a network take a second.
_three, _heard = partial(_encoders, seeds=SEEDS[:3]), partial(_networks, seeds=SEEDS[:3])


def _kept(run: str) -> dict[int, nn.Module]:
    """What a published run has kept, by epoch, its last one among it."""
    return {epoch: load_encoder(path) for epoch, path in kept_checkpoints(run).items()}


def _kept_networks(run: str) -> list[Network]:
    return [Network(f"epoch {epoch}", one) for epoch, one in _kept(run).items()]


def _by_epoch(_: Settings) -> list[Network]:
    """What the first run of either regime has kept, from its start on."""
    return [
        Network(f"{regime}, epoch {epoch}", one, regime, SEED)
        for regime, run in (("supervised", "supervised-esc40"), ("contrastive", "contrastive"))
        for epoch, one in _kept(run).items()
    ]


def _along_training(networks: list[Network], settings: Settings, streaming: Streaming) -> Result:
    """Coherence of a part of the clips, and what a probe on all makes of the deepest layers."""
    (data,) = _unseen(settings)
    coherent = coherence_by_layer(networks, data, seed=SEED, **streaming)
    every: Streaming = {**streaming, "limit": None, "parts": f"{streaming['parts']}.probes"}
    probes = layer_importances(networks, data, layers=(8, 11), seed=SEED, **every)
    shutil.rmtree(f"{streaming['parts']}.probes", ignore_errors=True)
    both = {"settings": probes.settings | coherent.settings, "rows": coherent.rows + probes.rows}
    return coherent.model_copy(update=both)


def _evolution(run: str) -> Measure:
    def measure(_: list[Network], settings: Settings, streaming: Streaming) -> Result:
        return feature_evolution(_kept(run), *_unseen(settings), per_layer=3, **streaming)

    return measure


def _classifier(_: Settings) -> list[Network]:
    return [Network("supervised", load_classifier("supervised"), "supervised")]


def _faithfulness_at(level: str) -> Measure:
    """Of a network that names ESC-50's classes, and of a probe on random weights, on a new fold."""

    def measure(networks: list[Network], settings: Settings, streaming: Streaming) -> Result:
        tested, training = _parts("esc50", *_FOLDS)(settings)
        by_random = probed(CNN12(width=0.25, seed=0).eval(), training, progress=True)
        both = [*networks, Network("random weights", by_random, "random", baseline=True)]
        return faithfulness(both, tested, layers=_LAYERS, level=level, **streaming)

    return measure


def _shifts(trained: list[Network], settings: Settings, streaming: Streaming) -> Result:
    one = next(one for one in settings.encoders() if not one.trained)
    untrained = Network(one.name, one.load(), one.regime, one.seed)
    return shift_law([*trained, untrained], _last_fold(settings)[0], **streaming)


def _halved(settings: Settings) -> dict[Path, Network]:
    """Encoders that were trained alike with max-pools and with strides, by their files.

    By ``sonibook train configs/supervised-esc40.yaml --seeds 31,32,33 --out runs/strided/pooled``
    and the same with ``--set encoder.downsample=stride``.
    """
    paths = sorted((settings.runs / "strided").rglob("encoder.safetensors"))
    found = {path: load_network(str(path), "") for path in paths}
    return {path: replace(one, name=f"{one.regime} {one.seed}") for path, one in found.items()}


def _halved_beside_starts(settings: Settings) -> list[Network]:
    """The same, and what each started from."""
    networks = []
    for network in _halved(settings).values():
        networks.append(network)
        if network.start is not None:
            regime = network.regime.replace("supervised", "own start")
            networks.append(replace(network.start, name=f"{regime} {network.seed}", regime=regime))
    return networks


def _strided(networks: list[Network], settings: Settings, streaming: Streaming) -> Result:
    result = downsampling(networks, *_mixtures(settings), **streaming)
    accuracies = tuple(
        network.row("accuracy", Estimate(mean=test["accuracy"], clips=test["clips"]))
        for path, network in _halved(settings).items()
        for test in [read_card(path)["test"]]
    )
    return result.model_copy(update={"rows": (*result.rows, *accuracies)})


def _fine_tuned(settings: Settings) -> list[Network]:
    """The encoders that table A.4 trained whole, fold 5 left out, as classifiers."""
    found = []
    for one in settings.encoders():
        run = f"a4-cnn12-contrastive-full-{one.regime}-{one.seed}-fold-5"
        path = settings.runs / "results" / run / "encoder.safetensors"
        if path.exists():
            found.append(Network(one.name, load_classifier(path), one.regime, one.seed))
    return found


def _with_probes(measure: Callable[..., Result], **how: Any) -> Measure:
    """An analysis of linear probes on frozen encoders, trained and not: the paper's fc-only."""

    def run(networks: list[Network], settings: Settings, streaming: Streaming) -> Result:
        tested, training = _last_fold(settings)
        classifiers = [
            replace(one, module=probed(cast(CNN12, one.module), training, progress=True))
            for one in networks
        ]
        return measure(classifiers, tested, **streaming, **how)

    return run


#: By the name of the results file: the networks that it is measured on, which tell whether it is up
#: to date, and how.
FIGURES: dict[str, tuple[Callable[[Settings], list[Network]], Measure]] = {
    "figure-7": (_networks, _over(coherence_by_layer, _unseen, seed=SEED)),
    "figure-7-training": (_by_epoch, _along_training),
    "figure-1": (_networks, _over(selectivity_by_layer, _unseen, seed=SEED)),
    # The top clips of a few say nothing: all clips, whatever the profile.
    "figures-2-3": (_networks, _over(top_clip_agreement, _unseen, seed=SEED, limit=None)),
    "figure-4-in-domain": (_networks, _over(layer_importances, _unseen, seed=SEED, limit=None)),
    "figure-4-out-of-domain": (_networks, _over(layer_importances, _digits, fit=True, seed=SEED)),
    "figure-4-in-domain-ridge": (
        _networks,
        _over(layer_importances, _unseen, probes=_RIDGE, seed=SEED, limit=None),
    ),
    "figure-4-out-of-domain-ridge": (
        _networks,
        _over(layer_importances, _digits, fit=True, probes=_RIDGE, seed=SEED),
    ),
    # A speaker left out in turn: the network and layers that were named before it was measured.
    "figure-4-speakers": (
        lambda settings: [one for one in _networks(settings) if one.regime != "supervised"],
        _over(
            layer_importances,
            _parts("fsdd", {"split": "all"}),
            probes=_BOTH,
            layers=(8, 9, 10, 11),
            seed=SEED,
        ),
    ),
    "figure-5": (lambda _: _kept_networks("contrastive"), _evolution("contrastive")),
    "figure-5-supervised": (
        lambda _: _kept_networks("supervised-esc40"),
        _evolution("supervised-esc40"),
    ),
    "figure-6": (_encoders, _with_probes(ablate)),
    "figure-6-full": (_fine_tuned, _over(ablate, _last_fold)),
    "dose-response": (_three, _with_probes(dose_response, layers=(5, 11), seed=SEED)),
    "roar": (_three, _over(remove_and_retrain, _unseen, layers=(5, 11), seed=SEED)),
    "figure-b3": (partial(_encoders, trained=True), _shifts),
    "faithfulness": (_classifier, _faithfulness_at("peak")),
    "faithfulness-least-squares": (_classifier, _faithfulness_at("least squares")),
    "listeners-esc10": (_heard, _over(listen, _unseen, listeners=_OF_EVENTS, seed=SEED)),
    "listeners-fsdd": (_heard, _over(listen, _digits, fit=True, seed=SEED)),
    "listeners-scenes": (_heard, _over(listen, _scenes, fit=True, listeners=_OF_EVENTS, seed=SEED)),
    # He weights are among what it sets beside each.
    "sanity": (
        lambda settings: [one for one in _three(settings) if one.regime != RANDOM],
        _over(_in_turn(sanity), _unseen, layers=_LAYERS, seed=SEED),
    ),
    "separation": (_heard, _over(separation, _mixtures, filters=2, seed=SEED)),
    "unpooling": (_three, _over(compare_unpoolings, _mixtures, layers=_LAYERS)),
    "explanations": (
        _three,
        _with_probes(_in_turn(compare_explanations), layers=(5, 11), steps=8, seed=SEED),
    ),
    "stimulation": (_networks, _over(stimulation, _last_fold, seed=SEED)),
    "strided": (_halved_beside_starts, _strided),
}
