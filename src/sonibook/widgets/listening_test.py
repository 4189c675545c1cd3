"""The blind listening test: a folder with one page, its sounds, and the answers apart from it.

The page works from disk: its sounds are scripts, as the atlas's are. All sounds have one level
(RMS), as far as their peaks allow, and names, clips and answers have numbers that say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sonibook.analysis.controls import random_phase
from sonibook.analysis.listening import GROUPS, TASKS, ListeningTest, Trial
from sonibook.analysis.networks import Network
from sonibook.analysis.result import MeasuredOn, fingerprint
from sonibook.analysis.stream import seeded
from sonibook.audio import excerpt
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet import ForwardPass
from sonibook.errors import AnalysisError, AudioError
from sonibook.files import write_result
from sonibook.model.stack import blocks_of, least_length
from sonibook.widgets.atlas import earlier_in, flac_text, replaced
from sonibook.widgets.lab import write_page, write_script

#: Classes to choose from, so that each has a key, and clips of each.
_CLASSES, _CLIPS = 10, 2
#: The level of all sounds, as a share of full scale (RMS), and their quantisation noise in dB.
_LEVEL, _SNR = 0.05, 40.0
#: Sounds in a piece: below 3 MB, however little they can be compressed.
_PIECE = 96
_Key = tuple[str, str, str]
_PHASE = "random phase"


class _Item(NamedTuple):
    """A clip of the test, and its sounds by group of layers, regime and control."""

    clip: Clip
    credit: str
    family: Sequence[Network]
    layers: Mapping[str, int]
    sounds: Mapping[_Key, Float[ndarray, " time"]]


_CLIP: _Key = ("", "", "")


def make_listening_test(
    families: Sequence[Sequence[Network]],
    data: Dataset,
    out: str | Path,
    *,
    seconds: float = 1.5,
    seed: int = 0,
) -> ListeningTest:
    """Make the sounds and trials of a test, and write its folder, whole or not at all.

    Of each clip and group of layers, one layer's most active filter is heard, and a sound of its
    spectrum with random phases. A family has a network of each of three regimes to compare:
    supervised, contrastive, and what those started from. Clips, of one label each, take the
    families by turns: there may be one a seed.
    """
    out = Path(out)
    earlier_in(out, "trials.json", "a listening test")
    items, practice = _choose(families, data, seconds=seconds, seed=seed)
    asked = product(GROUPS, items)
    draft = [one for group, item in asked for one in _ask(item, group, items, seed)]
    # In the page nothing stands in an order that tells.
    order = seeded(seed, "order").permutation(len(draft))
    draft = [draft[place] for place in order]
    test = ListeningTest(
        data=MeasuredOn.of(data, clips=len(items), skipped={}),
        networks={one.name: fingerprint(one.module) for family in families for one in family},
        trials=tuple(
            Trial(id=f"t{number:04d}", **question.said) for number, question in enumerate(draft)
        ),
    )
    with replaced(out) as folder:
        _write(folder, test, draft, items, practice, data, seed)
    return test


def _choose(
    families: Sequence[Sequence[Network]], data: Dataset, *, seconds: float, seed: int
) -> tuple[list[_Item], list[_Item]]:
    """The clips of the test, class by class, and some others to practise with."""
    by_class: dict[int, list[int]] = {}
    for index in range(len(data)):
        if len(labels := data.labels(index)) == 1:
            by_class.setdefault(labels[0], []).append(index)
    rich = sorted(label for label, clips in by_class.items() if len(clips) >= _CLIPS)
    spread = np.linspace(0, len(rich) - 1, min(_CLASSES, len(rich))).round().astype(int)
    items: list[_Item] = []
    practice: list[_Item] = []

    def listen(index: int) -> _Item | None:
        """A clip and its sounds; None where it cannot be read, or a network is silent on it."""
        turn, place = divmod(len(items), len(families))
        family = families[place]
        layers = {group: own[turn % len(own)] for group, own in GROUPS.items()}
        least = max(least_length(blocks_of(network.module)) for network in family)
        how: Any = {"seconds": seconds, "sample_rate": data.sample_rate, "least_length": least}
        try:
            clip = data[index]
            x = excerpt(clip.waveform, unit_peak=True, **how)
        except AudioError:
            return None
        sounds = {_CLIP: x}
        for network in family:
            made = ForwardPass(network.module, x).sonify_most_active([*layers.values()])[0].cpu()
            if not (made != 0).any(dim=1).all():
                return None
            turned = random_phase(made, generator=seeded(seed, _PHASE, clip.clip_id, network.name))
            for group, sound, other in zip(layers, made.numpy(), turned.numpy(), strict=True):
                sounds[group, network.regime, ""] = sound
                sounds[group, network.regime, _PHASE] = other
        return _Item(clip, data.credit(index), family, layers, sounds)

    for label in (rich[place] for place in spread):
        wanted = _CLIPS + (len(practice) < len(TASKS))
        found = islice(filter(None, map(listen, by_class[label])), wanted)
        for number, item in enumerate(found):
            (items if number < _CLIPS else practice).append(item)
    if len({item.clip.labels for item in items}) < 3:
        raise AnalysisError(
            f"{data.name} ({data.split}): a listening test needs two clips of each of three "
            "classes at least, on which every network is live: choose another data set."
        )
    return items, practice or items


class _Question(NamedTuple):
    """A trial without its id, whose sounds it plays, and of what a listener gets it once."""

    cell: str
    said: dict[str, Any]
    heard: list[tuple[str, _Key]]


def _ask(item: _Item, group: str, items: Sequence[_Item], seed: int) -> Iterator[_Question]:
    """All trials of a clip and a group of layers, and for each group some of the clip alone."""
    clip = item.clip.clip_id
    generator = seeded(seed, "trials", clip, group)
    classes = sorted({one.clip.labels[0] for one in items})
    strangers = [one.clip.clip_id for one in items if one.clip.labels != item.clip.labels]

    def trial(task: str, key: _Key, other: _Key = _CLIP, *, catch: bool = False) -> _Question:
        _, regime, control = key
        network = next((one.name for one in item.family if one.regime == regime), "")
        said = {
            "task": task,
            "catch": catch,
            "regime": regime,
            "network": network,
            "layer": item.layers[group] if network else None,
            "layers": group if network else "",
            "condition": control if network else "the clip itself",
            "clip": clip,
        }
        if task == "class":
            answer, choices = classes.index(item.clip.labels[0]), len(classes)
            heard = [(clip, key)]
        elif task == "clip":
            shown = [clip, *generator.choice(strangers, 2, replace=False).tolist()]
            shown = [shown[place] for place in generator.permutation(3)]
            answer, choices = shown.index(clip), 3
            heard = [(clip, key), *((one, _CLIP) for one in shown)]
        else:
            answer, choices = int(generator.integers(2)), 2
            sides = [key, other] if answer == 0 else [other, key]
            heard = [(clip, _CLIP), *((clip, side) for side in sides)]
            said["condition"] = other[2] or other[1]
        cell = repr((task, group, regime, said["condition"], catch))
        return _Question(cell, said | {"answer": answer, "choices": choices}, heard)

    regimes = [network.regime for network in item.family]
    for regime in regimes:
        for control in ("", _PHASE):
            for task in ("clip", "class"):
                yield trial(task, (group, regime, control))
    supervised, contrastive, *untrained = ((group, regime, "") for regime in regimes)
    for ours in (supervised, contrastive):
        for other in ((*ours[:2], _PHASE), *untrained):
            yield trial("closer", ours, other)
    yield trial("closer", contrastive, supervised)
    yield trial("class", _CLIP)
    for task in ("clip", "closer"):
        yield trial(task, _CLIP, (*supervised[:2], _PHASE), catch=True)


def _write(
    folder: Path,
    test: ListeningTest,
    draft: Sequence[_Question],
    items: Sequence[_Item],
    practice: Sequence[_Item],
    data: Dataset,
    seed: int,
) -> None:
    """The page, its trials and sounds; ``trials.json`` alone has the answers."""
    tried = [
        next(question for question in _ask(item, "3 to 7", items, seed)
             if question.said["task"] == task)
        for item, task in zip(islice(cycle(practice), len(TASKS)), TASKS, strict=True)
    ]  # fmt: skip
    known = {(one.clip.clip_id, key): x for one in (*items, *practice)
             for key, x in one.sounds.items()}  # fmt: skip
    wanted = list(dict.fromkeys(heard for one in (*draft, *tried) for heard in one.heard))
    generator = seeded(seed, "sounds")
    wanted = [wanted[place] for place in generator.permutation(len(wanted))]
    numbers = {heard: number for number, heard in enumerate(wanted)}
    noise = generator.standard_normal(2 * data.sample_rate)
    sounds = [
        flac_text(_levelled(x), data.sample_rate, snr=_SNR)
        for x in (*(known[heard] for heard in wanted), noise)
    ]
    pieces = [f"sounds-{number}" for number in range(-(-len(sounds) // _PIECE))]
    for number, piece in enumerate(pieces):
        write_script(folder, piece, sounds[number * _PIECE :][:_PIECE])
    cells = list(dict.fromkeys(one.cell for one in draft))
    clips = list(dict.fromkeys(one.said["clip"] for one in draft))
    classes = sorted({one.clip.labels[0] for one in items})
    trials = [
        {"id": trial.id, "task": trial.task, "cell": cells.index(one.cell),
         "clip": clips.index(trial.clip), "catch": trial.catch,
         "sounds": [numbers[heard] for heard in one.heard]}
        for trial, one in zip(test.trials, draft, strict=True)
    ]  # fmt: skip
    content = {
        "version": test.version,
        "test": test.digest,
        "rate": data.sample_rate,
        "classes": [data.classes[label].replace("_", " ") for label in classes],
        "clips": len(clips),
        "trials": trials,
        "practice": [
            {key: one.said[key] for key in ("task", "answer")}
            | {"sounds": [numbers[heard] for heard in one.heard]}
            for one in tried
        ],
        "noise": len(sounds) - 1,
        "piece": _PIECE,
        "licence": data.licence,
        "credits": sorted({one.credit for one in (*items, *practice)} - {""}),
    }
    write_script(folder, "trials", content)
    names = ["listening_test", "trials", *pieces]
    tags = "\n".join(f'<script src="{name}.js" defer></script>' for name in names)
    write_page(folder, "listening_test", scripts=tags)
    write_result(folder / "trials.json", test.model_dump(mode="json"))


def _levelled(x: Float[ndarray, " time"]) -> Float[ndarray, " time"]:
    """A sound at the one level; lower where its peak would be cut."""
    return x * min(_LEVEL / np.sqrt(np.mean(np.square(x, dtype=float))), 1 / np.abs(x).max())
