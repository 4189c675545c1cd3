"""Layer importances: what each truncation depth tells of the classes (paper, appendix B, figure 4).

A linear probe on the mean feature maps of every layer, beside the same layers with random weights:
depth, width and receptive field alone make features that tell classes apart, and only what a
trained network adds to that has been learned. All layers come from one forward pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import nn
from tqdm.auto import tqdm

from sonibook.analysis.measure import Measured, measure_clips
from sonibook.analysis.networks import Network, Networks, with_random_weights
from sonibook.analysis.parts import Chunk
from sonibook.analysis.result import ResultTable, Row, estimate
from sonibook.analysis.stream import Streaming
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.metrics import (
    bootstrap_interval,
    mean_average_precision,
    runs_interval,
    wilson_interval,
)
from sonibook.model.stack import blocks_of
from sonibook.training.probe import groups_of, linear_probe, multilabel_probe
from sonibook.untrusted import read_json

#: From the features' name to the scores of a probe on them.
_Scores = Callable[[str], Float[ndarray, "clips classes"]]
#: Redrawn data sets of a mean average precision, which takes its time.
_REPEATS = 200
#: From the features' name to which clips a probe on them names rightly.
_Right = Callable[[str], Bool[ndarray, " clips"]]


class LayerResult(ResultTable):
    """What probes on each layer name rightly; make it with `layer_importances`.

    Its quantity is ``accuracy``, in [0, 1]: under the condition ``probe``, of linear probes, with
    Wilson's interval; under ``trained whole``, of networks of that depth, whose name says what they
    started from; and of no network, under ``chance``. ``above random`` is how much more often a
    probe is right than the one on the same layer with random weights, clip by clip. Of clips with
    any number of labels ``mAP`` stands in the place of ``accuracy``, with bootstrap intervals, and
    its ``chance`` is the mean share of clips that have a class. The setting
    ``trained_on`` is the split that probes were fitted to, or says that each group was left out.
    """

    analysis: Literal["layers"] = "layers"


def layer_importances(
    networks: Networks,
    data: Dataset,
    *,
    training: Dataset | None = None,
    trained: Sequence[Row] = (),
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> LayerResult:
    """Fit a linear probe on every layer of every network, and score what it says of each clip.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module, or sequence of Network
        In `eval` mode.
    data : Dataset
        The clips to name; with one label each, or any number.
    training : Dataset or None
        What probes are fitted to. None leaves out each group of `data` in turn (of ESC-50 the
        fold, of FSDD the speaker), and names its clips by a probe fitted to the others.
    trained : sequence of Row
        Of training runs, to set beside the probes; see `read_trained`.
    seed : int >= 0
        Of the random weights, the probes and the intervals.
    **streaming
        As for `sonibook.analysis.stream.stream`; `limit` for each of the two data sets. What
        resumes is the forward pass; the probes are fitted anew.

    Returns
    -------
    LayerResult

    Raises
    ------
    AnalysisError
        If the classes or tasks differ, or there is but one group; and as `stream`.
    DatasetError
        As `linear_probe` and `multilabel_probe`.
    StackError
        If a network cannot be inverted.
    """
    if training is not None and training.task != data.task:
        raise AnalysisError(
            f"{training.name} is {training.task} and {data.name} is {data.task}: a probe fitted to "
            "one cannot score the other."
        )
    if training is not None and training.classes != data.classes:
        raise AnalysisError(
            f"{training.name} and {data.name} have different classes: probes fitted to one cannot "
            "name those of the other."
        )
    every = with_random_weights(networks, seed=seed)
    trained_on = "each group left out in turn" if training is None else training.split
    settings = {"seed": seed, "trained_on": trained_on}

    def features(part: Dataset) -> tuple[Chunk, dict[str, Any]]:
        return measure_clips("layers", _mean_maps, every, part, settings=settings, **streaming)

    tested, fields = features(data)
    seen = None if training is None else features(training)[0]
    if data.task == "multi-label":
        targets = _targets(data, tested)
        scores = _scores(data, tested, targets, training, seen, seed=seed)
        rows = tuple(_precisions(every, scores, targets, seed=seed))
        return LayerResult(**fields, rows=(*rows, *trained))
    right = (
        _leaving_out(data, tested, seed=seed)
        if training is None or seen is None
        else _fitted_to(training, seen, data, tested, seed=seed)
    )
    chance = Row(
        quantity="accuracy",
        condition="chance",
        mean=1 / len(data.classes),
        low=None,
        high=None,
        clips=len(tested.clip_ids),
    )
    rows = (*_probed(every, right, seed=seed), *trained, chance)
    return LayerResult(**fields, rows=rows)


def _mean_maps(network: nn.Module, clips: Sequence[Clip]) -> Measured:
    """Every layer's feature maps, averaged over each clip."""
    with torch.no_grad():
        passes = [FeatureMaps(network, clip.waveform).maps for clip in clips]
    return {
        f"layer {layer}": np.stack([one[0].mean(dim=1).numpy() for one in maps])
        for layer, maps in enumerate(zip(*passes, strict=True), start=1)
    }


def _probed(networks: Sequence[Network], right: _Right, *, seed: int) -> Iterator[Row]:
    """The rows of probes on every layer of every network."""
    found = {
        network.name: [
            right(json.dumps([network.name, f"layer {layer}", ""]))
            for layer in tqdm(
                range(1, len(blocks_of(network.module)) + 1),
                desc=f"probes {network.name}",
                disable=None,
                leave=False,
            )
        ]
        for network in networks
    }
    for network in networks:
        clips = len(found[network.name][0])
        for layer, own in enumerate(found[network.name], start=1):
            low, high = wilson_interval(int(own.sum()), clips)
            yield Row(
                **network.identity,
                layer=layer,
                quantity="accuracy",
                condition="probe",
                mean=float(own.mean()),
                low=low,
                high=high,
                clips=clips,
            )
    for network in networks:
        if network.baseline:
            continue
        pairs = zip(found[network.name], found[_twin(network, networks)], strict=True)
        for layer, (own, by_random) in enumerate(pairs, start=1):
            above = estimate(own.astype(float) - by_random, seed=seed)
            yield Row(
                **network.identity, layer=layer, quantity="above random", **above.model_dump()
            )


def _precisions(
    networks: Sequence[Network],
    scores: _Scores,
    targets: Float[ndarray, "clips classes"],
    *,
    seed: int,
) -> Iterator[Row]:
    """The rows of probes of several labels, by mean average precision."""
    found = {
        network.name: [
            scores(json.dumps([network.name, f"layer {layer}", ""]))
            for layer in range(1, len(blocks_of(network.module)) + 1)
        ]
        for network in networks
    }

    def row(
        quantity: str, fields: dict[str, Any], statistic: Callable[..., float], *of: ndarray
    ) -> Row:
        low, high = bootstrap_interval(*of, statistic=statistic, repeats=_REPEATS, seed=seed)
        mean, clips = statistic(*of), len(targets)
        return Row(quantity=quantity, mean=mean, low=low, high=high, clips=clips, **fields)

    for network in networks:
        for layer, own in enumerate(found[network.name], start=1):
            fields = {**network.identity, "layer": layer, "condition": "probe"}
            yield row("mAP", fields, mean_average_precision, own, targets)
    for network in networks:
        if not network.baseline:
            pairs = zip(found[network.name], found[_twin(network, networks)], strict=True)
            for layer, (own, by_random) in enumerate(pairs, start=1):
                fields = {**network.identity, "layer": layer}
                yield row("above random", fields, _precision_gain, own, by_random, targets)
    chance = float(targets[:, targets.any(axis=0)].mean())
    yield Row(quantity="mAP", condition="chance", mean=chance, low=None, high=None,
              clips=len(targets))  # fmt: skip


def _precision_gain(own: ndarray, other: ndarray, targets: ndarray) -> float:
    return mean_average_precision(own, targets) - mean_average_precision(other, targets)


def _scores(
    data: Dataset,
    tested: Chunk,
    targets: Float[ndarray, "clips classes"],
    training: Dataset | None,
    seen: Chunk | None,
    *,
    seed: int,
) -> _Scores:
    """Scores by probes of several labels, fitted to a training part or to the other groups."""
    if training is not None and seen is not None:
        labels, together = _targets(training, seen), _groups(training, seen, tested=data)
        return lambda name: multilabel_probe(
            seen.arrays[name], labels, tested.arrays[name], groups=together, seed=seed
        )[0]
    groups = _groups(data, tested)
    if groups is None:
        raise AnalysisError(
            f"{data.name} ({data.split}) has no groups to leave out in turn: give a training part."
        )
    group = np.array(groups)

    def leaving_out(name: str) -> Float[ndarray, "clips classes"]:
        features, found = tested.arrays[name], np.zeros(targets.shape)
        for one in np.unique(group):
            out = group == one
            rest = group[~out].tolist()
            found[out], _ = multilabel_probe(
                features[~out],
                targets[~out],
                features[out],
                groups=rest if len(set(rest)) > 1 else None,
                seed=seed,
            )
        return found

    return leaving_out


def _targets(data: Dataset, measured: Chunk) -> Float[ndarray, "clips classes"]:
    """1 where a clip has a class, else 0."""
    targets = np.zeros((len(measured.index), len(data.classes)), np.float32)
    for row, place in enumerate(measured.index):
        targets[row, list(data.labels(int(place)))] = 1.0
    return targets


def _twin(network: Network, networks: Sequence[Network]) -> str:
    """The last network of the same shape: the one with random weights."""

    def shape(one: Network) -> list[Any]:
        return [(block.conv.weight.shape, block.pool) for block in blocks_of(one.module)]

    return [one.name for one in networks if shape(one) == shape(network)][-1]


def _labels(data: Dataset, measured: Chunk) -> Int[ndarray, " clips"]:
    return np.array([data.labels(int(place))[0] for place in measured.index])


def _groups(data: Dataset, measured: Chunk, *, tested: Dataset | None = None) -> list[str] | None:
    groups = groups_of(data, tested=tested)
    if groups is None:
        return None
    chosen = [groups[int(place)] for place in measured.index]
    return chosen if len(set(chosen)) > 1 else None


def _fitted_to(
    training: Dataset, seen: Chunk, data: Dataset, tested: Chunk, *, seed: int
) -> _Right:
    labels, truth = _labels(training, seen), _labels(data, tested)
    groups = _groups(training, seen, tested=data)

    def right(name: str) -> Bool[ndarray, " clips"]:
        probe = linear_probe(
            seen.arrays[name], labels, tested.arrays[name], groups=groups, seed=seed
        )
        return probe.predicted == truth

    return right


def _leaving_out(data: Dataset, tested: Chunk, *, seed: int) -> _Right:
    """Where each group's clips are named by a probe fitted to the other groups."""
    labels, groups = _labels(data, tested), _groups(data, tested)
    if groups is None:
        raise AnalysisError(
            f"{data.name} ({data.split}) has no groups to leave out in turn: give a training part."
        )
    group = np.array(groups)

    def right(name: str) -> Bool[ndarray, " clips"]:
        features, found = tested.arrays[name], np.zeros(len(labels), bool)
        for one in np.unique(group):
            out = group == one
            rest = group[~out].tolist()
            probe = linear_probe(
                features[~out],
                labels[~out],
                features[out],
                groups=rest if len(set(rest)) > 1 else None,
                seed=seed,
            )
            found[out] = probe.predicted == labels[out]
        return found

    return right


def read_trained(path: str | Path) -> Row:
    """What a training run, or one with several seeds, wrote as its ``metrics.json``."""
    try:
        content = read_json(path)
        encoder, clips = content["config"]["encoder"], content["test_clips"]
        start, depth = encoder["start"], encoder["depth"]
        values = (
            content["metrics"]["accuracy"]["values"]
            if "metrics" in content
            else [content["test"]["accuracy"]]
        )
    except (OSError, ValueError) as error:
        raise AnalysisError(f"{path}: cannot be read as JSON ({error}).") from None
    except (KeyError, TypeError):
        raise AnalysisError(f"{path}: is not metrics.json of a run that names classes.") from None
    mean = sum(values) / len(values)
    low, high = (
        wilson_interval(round(mean * clips), clips) if len(values) == 1 else runs_interval(values)
    )
    name = "He weights" if start is None else _title(Path(start))
    return Row(
        network=name,
        regime=name,
        layer=11 if depth is None else depth,
        quantity="accuracy",
        condition="trained whole",
        mean=mean,
        low=low,
        high=high,
        clips=clips,
    )


def _title(start: Path) -> str:
    """Of a checkpoint or configuration; a run's own file is called after its folder."""
    return start.parent.name if start.stem == "encoder" and start.parent.name else start.stem
