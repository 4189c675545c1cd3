"""What networks make of sounds that are not theirs.

What networks that others trained answer to this book's questions, beside random weights: a results
file for each network and analysis, such as ``soundnet-coherence.json``, and a few sounds of
SoundNet on soundscapes, for pages that are made where it is not; where a network was not imported,
its files are left as they are. The measures are small: minutes, not hours.

And which of the synthesiser's events `supervised`, trained on ESC-50, calls by their names, in
clips of a single event, all else at its defaults; beside ESC-50's own recordings of fold 5, which
it has not heard either.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy import ndarray

from sonibook.analysis.activations import top_activations
from sonibook.analysis.coherence import coherence_by_layer, selectivity_by_layer
from sonibook.analysis.controls import stimulation
from sonibook.analysis.layers import layer_importances
from sonibook.analysis.networks import RANDOM, RANDOM_WEIGHTS, Network, random_twin
from sonibook.analysis.result import Estimate, Result, Row, fingerprint
from sonibook.analysis.sanity import sanity
from sonibook.analysis.separation import separation
from sonibook.analysis.stream import Streaming
from sonibook.datasets import Dataset, open_dataset
from sonibook.deconvnet import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.files import atomic, write_result
from sonibook.metrics import wilson_interval
from sonibook.model.checkpoint import imported, load_classifier, open_network
from sonibook.model.stack_file import sample_rate_of
from sonibook.training.data import predict
from tools.results_settings import Settings

Measure = Callable[[Network, Dataset, Streaming], Result]

#: By name: random networks beside each, besides the one that an analysis draws, and what share of
#: `_CLIPS` it hears. CREPE takes ten times as long.
NETWORKS: dict[str, tuple[tuple[int, ...], float]] = {
    "soundnet": ((1, 2), 1.0),
    "crepe-tiny": ((), 0.4),
}
#: Clips, and scenes, of what is measured clip by clip.
_CLIPS = {"activations": 100, "selectivity": 40, "coherence": 40, "stimulation": 12, "sanity": 8,
          "separation": 16}  # fmt: skip
#: Scenes of which sounds are kept, their length, the layers, and that beside random weights.
_KEPT, _SECONDS, _LAYERS, _DEEP = 2, 2.5, (1, 3, 5, 7), 5


def make(settings: Settings) -> None:
    """Measure what is missing or was made by other networks, or say that there is none."""
    there = imported()
    for name, (_, share) in NETWORKS.items():
        if name not in there:
            print(f"{name} is not there, and is not measured: make networks imports it.")
            continue
        module, _ = open_network(name)
        network, rate = Network(name, module), sample_rate_of(module)
        if name == "soundnet":
            write_sounds(network, rate, settings.folder / "soundnet-sounds.zip")
        for analysis, measure in MEASURES.items():
            path = settings.folder / f"{name}-{analysis}.json"
            if path.exists():
                before = json.loads(path.read_text(encoding="utf-8"))
                if before["provenance"].get("network") == fingerprint(module):
                    print(f"{path} is up to date.")
                    continue
            print(f"{name}: {analysis}", flush=True)
            limit = round(_CLIPS[analysis] * share) if analysis in _CLIPS else None
            made = {**settings.provenance("elsewhere"), "network": fingerprint(module)}
            run = partial(measure, network, _data(analysis, settings, rate))
            settings.write(path, run, limit=limit, made=made)


def write_sounds(network: Network, rate: int, path: Path) -> None:
    """Each layer's most active filter on a few scenes, and a random network's, as FLAC files."""
    scenes = open_dataset("soundscapes", size=_KEPT, duration=_SECONDS, seed=0, sample_rate=rate)
    twin = random_twin(network.module, scenes, seed=0)
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for number in range(_KEPT):
            x = scenes[number].waveform
            own, random = (
                ForwardPass(one, x).sonify_most_active()[0] for one in (network.module, twin)
            )
            sounds = {f"layer {layer}": own[layer - 1].numpy() for layer in _LAYERS}
            sounds |= {f"layer {_DEEP}, random weights": random[_DEEP - 1].numpy()}
            for name, sound in {"the scene": x, **sounds}.items():
                file = io.BytesIO()
                soundfile.write(file, sound, rate, format="FLAC", subtype="PCM_16")
                # With no time of its own, so that the same sounds make the same file.
                archive.writestr(zipfile.ZipInfo(f"{number}/{name}.flac"), file.getvalue())
    print(f"{path} is written: {path.stat().st_size:,} bytes.")


def _data(analysis: str, settings: Settings, rate: int) -> Dataset:
    if analysis == "separation":
        return open_dataset("soundscapes", size=_CLIPS[analysis], seed=0, sample_rate=rate)
    name = "esc10" if analysis == "layers" else "esc50"
    return open_dataset(name, root=settings.root, split="all", sample_rate=rate)


def _beside(network: Network, data: Dataset) -> list[Network]:
    """A network, and random ones of its shape besides the one that an analysis adds."""
    seeds, _ = NETWORKS[network.name]
    return [network, *(_twin(network, data, seed, f"{RANDOM_WEIGHTS}-{seed}") for seed in seeds)]


def _twin(network: Network, data: Dataset, seed: int, name: str) -> Network:
    twin = random_twin(network.module, data, seed=seed)
    return Network(name, twin, RANDOM, seed, baseline=True)


def _activations(network: Network, data: Dataset, streaming: Streaming) -> Result:
    networks = [network, _twin(network, data, 0, RANDOM_WEIGHTS)]
    result = top_activations(networks, data, k=1, **streaming)
    rows = (*result.rows, *_choices(networks, data, result.data.clips))
    return result.model_copy(update={"rows": rows, "filters": ()})  # there are thousands


def _choices(networks: list[Network], data: Dataset, count: int) -> Iterator[Row]:
    """How often one and the same filter of a layer is its most active: the share of clips."""
    places = np.linspace(0, len(data) - 1, count).astype(int).tolist()
    for network in networks:
        chosen: list[list[int]] = []
        for place in places:
            maps = FeatureMaps(network.module, data[place].waveform)
            chosen.append([maps.most_active(n)[0] for n in range(1, len(maps.blocks) + 1)])
        for layer, filters in enumerate(zip(*chosen, strict=True), start=1):
            share = Estimate.of_share(max(map(filters.count, filters)), len(filters))
            yield network.row("most frequent choice", share, layer=layer)


#: By the last part of a results file's name.
MEASURES: dict[str, Measure] = {
    "layers": lambda own, data, how: layer_importances(
        _beside(own, data), data, features="log", **how
    ),
    "coherence": lambda own, data, how: coherence_by_layer(_beside(own, data), data, **how),
    "separation": lambda own, data, how: separation([own], data, filters=2, **how),
    "sanity": lambda own, data, how: sanity(own.module, data, name=own.name, **how),
    "stimulation": lambda own, data, how: stimulation([own], data, **how),
    "activations": _activations,
    "selectivity": lambda own, data, how: selectivity_by_layer([own], data, filters=0, **how),
}

#: Of the synthesiser: who names its events, in how many clips, and how many names count.
_CLASSIFIER, _EVENTS, TOP = "supervised", 1300, 5
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


def make_synthesiser(path: Path, settings: Settings) -> None:
    """Let the classifier name the synthesiser's events, and write the file anew."""
    events = open_dataset("soundscapes", split="test", size=_EVENTS, events=(1, 1))
    recordings = open_dataset("esc50", root=settings.root, folds=(5,))
    content: dict[str, Any] = {"network": _CLASSIFIER, "top": TOP} | {
        "events": _named(events, NAMES),
        "recordings": _named(recordings, {name: name for name in NAMES.values()}),
        "provenance": settings.provenance("synthesiser"),
    }
    write_result(path, content)
    whole = content["events"]["all"]
    print(f"synthesiser: {whole['first']:.3f} of {whole['clips']} events are named.", flush=True)


def _named(data: Dataset, names: dict[str, str]) -> dict[str, Any]:
    """Which share of a data set's clips is given its name, of all and by class."""
    network = load_classifier(_CLASSIFIER)
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
