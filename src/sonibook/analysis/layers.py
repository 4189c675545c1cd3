"""Layer importances: what each truncation depth tells of the classes (paper, appendix B, figure 4).

A linear probe on the mean feature maps of every layer, beside the same layers with random weights:
depth, width and receptive field alone make features that tell classes apart, and only what a
trained network adds to that has been learned. All layers come from one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import nn
from tqdm.auto import tqdm

from sonibook.analysis.baselines import is_baseline, with_random_weights
from sonibook.analysis.parts import Chunk
from sonibook.analysis.result import Estimate, Measured, Record, Result, estimate, key_of
from sonibook.analysis.stream import Streaming, gather, stream
from sonibook.analysis.trained_depth import TrainedDepth
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.metrics import wilson_interval
from sonibook.model.stack import blocks_of
from sonibook.training.probe import groups_of, linear_probe

_LEFT_OUT = "each group left out in turn"


class LayerImportance(Record):
    """A linear probe on one layer.

    Attributes
    ----------
    layer : int
    accuracy : Estimate
        With Wilson's interval.
    above_random : Estimate or None
        How much more often it is right than the probe on the same layer with random weights, clip
        by clip; None for random weights themselves.
    """

    layer: int
    accuracy: Estimate
    above_random: Estimate | None


class NetworkImportances(Record):
    """The layers of one network.

    Attributes
    ----------
    network : str
    baseline : bool
        Whether it has random weights.
    layers : tuple of LayerImportance
    """

    network: str
    baseline: bool
    layers: tuple[LayerImportance, ...]


class LayerResult(Result):
    """What `layer_importances` found.

    Attributes
    ----------
    chance : float
    trained_on : str
        The split that probes were fitted to; or that each group was left out in turn.
    curves : tuple of NetworkImportances
        The networks as given, then their baselines.
    trained : tuple of TrainedDepth
        Networks of some depths that were trained or fine-tuned whole, to set beside them.
    """

    analysis: Literal["layers"] = "layers"
    chance: float
    trained_on: str
    curves: tuple[NetworkImportances, ...]
    trained: tuple[TrainedDepth, ...] = ()


@dataclass(frozen=True)
class _MeanMaps:
    """Every layer's feature maps, averaged over each clip."""

    networks: dict[str, nn.Module]

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        rows: dict[str, list[ndarray]] = {}
        for clip in clips:
            for name, network in self.networks.items():
                with torch.no_grad():
                    maps = FeatureMaps(network, clip.waveform).maps
                for layer, one in enumerate(maps, start=1):
                    rows.setdefault(f"{layer} {name}", []).append(one[0].mean(dim=1).numpy())
        return {key: np.stack(row) for key, row in rows.items()}


def layer_importances(
    networks: Mapping[str, nn.Module],
    data: Dataset,
    *,
    training: Dataset | None = None,
    trained: Sequence[TrainedDepth] = (),
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> LayerResult:
    """Fit a linear probe on every layer of every network, and count what it names rightly.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
        By name; each as `sonibook.model.stack.blocks_of` takes it, in `eval` mode.
    data : Dataset
        Single-label: the clips to name.
    training : Dataset or None
        What probes are fitted to. None leaves out each group of `data` in turn (of ESC-50 the
        fold, of FSDD the speaker), and names its clips by a probe fitted to the others.
    trained : sequence of TrainedDepth
        Of training runs; see `read_trained`. Handed on into the result.
    seed : int >= 0
        Of the random weights, the probes and the intervals.
    **streaming
        As for `stream`; `limit` for each of the two data sets. What resumes is the forward
        pass; the probes are fitted anew.

    Returns
    -------
    LayerResult

    Raises
    ------
    AnalysisError
        If the data is not single-label, the classes differ, or there is but one group; and as
        `stream`.
    DatasetError
        As `linear_probe`.
    StackError
        If a network cannot be inverted.
    """
    if data.task != "single-label":
        raise AnalysisError(f"{data.name} is {data.task}: a linear probe needs one label a clip.")
    if training is not None and training.classes != data.classes:
        raise AnalysisError(
            f"{training.name} and {data.name} have different classes: probes fitted to one cannot "
            "name those of the other."
        )
    everything = with_random_weights(networks, seed=seed)
    trained_on = _LEFT_OUT if training is None else training.split
    settings: dict[str, Any] = {"seed": seed, "trained_on": trained_on}
    key = key_of("layers", everything, settings)

    def features(part: Dataset) -> Chunk:
        work = _MeanMaps(everything)
        return gather(stream(work, part, key=key, description=part.split, **streaming))

    tested = features(data)
    probe = (
        _leaving_out(data, tested, seed=seed)
        if training is None
        else _fitted_to(training, features(training), data, tested, seed=seed)
    )
    depths = {name: len(blocks_of(network)) for name, network in everything.items()}
    right = {
        (name, layer): probe(f"{layer} {name}")
        for name, depth in depths.items()
        for layer in tqdm(range(1, depth + 1), desc=f"probes {name}", disable=None, leave=False)
    }
    curves = tuple(
        NetworkImportances(
            network=name,
            baseline=is_baseline(name),
            layers=tuple(
                LayerImportance(
                    layer=layer,
                    accuracy=_accuracy(right[name, layer]),
                    above_random=None
                    if is_baseline(name)
                    else _above(right[name, layer], right[_twin(name, everything), layer], seed),
                )
                for layer in range(1, depth + 1)
            ),
        )
        for name, depth in depths.items()
    )
    return LayerResult(
        **key,
        data=Measured.of(data, clips=len(tested.clip_ids), skipped=tested.skipped),
        chance=1 / len(data.classes),
        trained_on=trained_on,
        curves=curves,
        trained=tuple(trained),
    )


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
) -> Callable[[str], Bool[ndarray, " clips"]]:
    """From the features' name to which clips a probe fitted to a training part names rightly."""
    labels, truth = _labels(training, seen), _labels(data, tested)
    groups = _groups(training, seen, tested=data)

    def right(name: str) -> Bool[ndarray, " clips"]:
        probe = linear_probe(
            seen.arrays[name], labels, tested.arrays[name], groups=groups, seed=seed
        )
        return probe.predicted == truth

    return right


def _leaving_out(
    data: Dataset, tested: Chunk, *, seed: int
) -> Callable[[str], Bool[ndarray, " clips"]]:
    """The same, where each group's clips are named by a probe fitted to the other groups."""
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


def _twin(name: str, networks: Mapping[str, nn.Module]) -> str:
    """The last network of the same shape: the one with random weights."""
    shapes = {
        one: [(block.conv.weight.shape, block.pool) for block in blocks_of(network)]
        for one, network in networks.items()
    }
    return [one for one, shape in shapes.items() if shape == shapes[name]][-1]


def _accuracy(right: Bool[ndarray, " clips"]) -> Estimate:
    low, high = wilson_interval(int(right.sum()), len(right))
    return Estimate(mean=float(right.mean()), low=low, high=high, clips=len(right))


def _above(
    right: Bool[ndarray, " clips"], by_random: Bool[ndarray, " clips"], seed: int
) -> Estimate:
    return estimate(right.astype(float) - by_random, seed=seed)
