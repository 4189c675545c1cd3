"""Layer importances: what each truncation depth tells of the classes (paper, appendix B, figure 4).

A linear probe on the feature maps of every layer, summed up over time, beside the same layers with
random weights: depth, width and receptive field alone make features that tell classes apart, and
only what a trained network adds to that has been learned. All layers come from one forward pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import nn
from tqdm.auto import tqdm

from sonibook.analysis.networks import Network, Networks, layers_of, with_random_weights
from sonibook.analysis.result import Estimate, ResultTable, Row, estimate
from sonibook.analysis.stream import ClipArrays, Measured, Streaming, measure_clips
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError, MetricError
from sonibook.files import atomic, read_arrays, read_json
from sonibook.metrics.intervals import runs_interval, wilson_interval
from sonibook.metrics.scores import mean_precisions, targets_of
from sonibook.model.stack import blocks_of
from sonibook.training.probe import (
    FeatureKind,
    ProbeKind,
    groups_of,
    linear_probe,
    over_time,
)

#: Of each clip the class that a probe names, or its score for each class.
_Answers: TypeAlias = Int[ndarray, " _"] | Float[ndarray, "_ classes"]
#: The classes of clips, alike: a number each, or 1 for each class that a clip has.
_Truth: TypeAlias = _Answers


def layer_importances(
    networks: Networks,
    data: Dataset,
    *,
    training: Dataset | None = None,
    trained: Sequence[Row] = (),
    features: FeatureKind = "mean",
    probes: Sequence[ProbeKind] = ("logistic",),
    layers: Sequence[int] | None = None,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """Fit a linear probe on every layer of every network, and score what it says of each clip.

    Parameters
    ----------
    networks, data, seed, streaming
        As for every analysis: see `sonibook.analysis`; `limit` is of each of the two data sets.
        Probes that were fitted are kept in `parts`, too.
    training : Dataset or None
        What probes are fitted to. None leaves out each group of `data` in turn (of ESC-50 the
        fold, of FSDD the speaker), and names its clips by a probe fitted to the others.
    trained : sequence of Row
        Of training runs, to set beside the probes; see `read_trained`.
    features : {"mean", "log"}
        What probes see of feature maps, as `sonibook.training.probe.probe_features` says.
    probes : sequence of {"logistic", "ridge"}
        What is fitted to the same features, as `sonibook.training.probe.linear_probe` says.
    layers : sequence of int, or None
        Those to probe, counted from 1; None for all.

    Returns
    -------
    ResultTable
        Its quantity is ``accuracy``, in [0, 1]: under the conditions ``probe`` and ``ridge probe``,
        of linear probes by logistic and by ridge regression, with Wilson's interval; under
        ``trained whole``, of networks of that depth, whose name says what they started from; and of
        no network, under ``chance``. ``above random`` is how much more often a probe is right than
        the one on the same layer with random weights, clip by clip (of ridge under ``ridge
        probe``). Of clips with any number of labels ``mAP`` stands in the place of ``accuracy``,
        with bootstrap intervals, and its ``chance`` is the mean share of clips that have a class.
        The setting ``trained_on`` is the split that probes were fitted to, or says that each group
        was left out.

    Raises
    ------
    AnalysisError
        As every analysis, and if the classes or tasks differ, or there is but one group.
    DatasetError
        As `linear_probe`.
    """
    check_fitting(data, training)
    every = with_random_weights(networks, data, seed=seed)
    for network in every:
        layers_of(blocks_of(network.module), layers)
    trained_on = "each group left out in turn" if training is None else training.split
    settings: dict[str, Any] = {"features": features, "seed": seed, "trained_on": trained_on}
    settings |= {"probes": list(probes), "layers": list(layers or ()) or None}

    def measured(part: Dataset) -> ClipArrays:
        measure = partial(_features, features)
        return measure_clips("layers", measure, every, part, settings=settings, **streaming)

    tested, seen = measured(data), None if training is None else measured(training)
    fitted = Probes(data, tested, training, seen, seed=seed, parts=streaming.get("parts"))
    truth, rows = fitted.truth, list[Row]()
    for kind in probes:
        answers: dict[str, dict[int, _Answers]] = {network.name: {} for network in every}
        for network in every:
            depths = layers or range(1, len(blocks_of(network.module)) + 1)
            for layer in tqdm(depths, f"{kind} probes {network.name}", disable=None, leave=False):
                key = (network.name, f"layer {layer}", "")
                known = None if seen is None else seen.arrays[key]
                answers[network.name][layer] = fitted.answers(kind, tested.arrays[key], known)
        rows += _rows(kind, every, answers, fitted)
    rows += trained
    chance = 1 / len(data.classes) if truth.ndim == 1 else float(truth[:, truth.any(axis=0)].mean())
    rows.append(Row(quantity=fitted.score, condition="chance", mean=chance, clips=len(truth)))
    return ResultTable(**tested.fields, rows=tuple(rows))


def _features(kind: FeatureKind, network: nn.Module, clips: Sequence[Clip]) -> Measured:
    """What a probe sees of every layer's feature maps, clip by clip."""
    with torch.no_grad():
        passes = [FeatureMaps(network, clip.waveform).maps for clip in clips]
    return {
        f"layer {layer}": np.concatenate([over_time(one, kind).cpu().numpy() for one in maps])
        for layer, maps in enumerate(zip(*passes, strict=True), start=1)
    }


def _rows(
    kind: ProbeKind,
    networks: Sequence[Network],
    answers: Mapping[str, Mapping[int, _Answers]],
    fitted: Probes,
) -> Iterator[Row]:
    """The rows of one kind of probe, on the layers of every network."""
    probe = probe_condition(kind)
    for network in networks:
        for layer, own in answers[network.name].items():
            yield fitted.row(network, own, layer=layer, condition=probe)
    over = "" if kind == "logistic" else probe
    for network in networks:
        if not network.baseline:
            by_random = answers[_twin(network, networks)]
            for layer, own in answers[network.name].items():
                found = fitted.gain(own, by_random[layer])
                yield network.row("above random", found, layer=layer, condition=over)


def probe_condition(kind: ProbeKind) -> str:
    """The condition of a probe's rows."""
    return "probe" if kind == "logistic" else f"{kind} probe"


@dataclass(frozen=True, eq=False)
class Probes:
    """What linear probes say of the clips of `data` that were measured, and how right they are.

    They are fitted to what was `seen` of a training part, or to all groups but a clip's own, and
    kept in the folder `parts`.
    """

    data: Dataset
    tested: ClipArrays
    training: Dataset | None = None
    seen: ClipArrays | None = None
    seed: int = 0
    parts: str | Path | None = None

    @cached_property
    def truth(self) -> _Truth:
        """The classes of the clips."""
        return _truth_of(self.data, self.tested)

    @property
    def score(self) -> str:
        """What is counted: accuracy or, of several labels, mAP."""
        return "accuracy" if self.truth.ndim == 1 else "mAP"

    def answers(
        self,
        kind: ProbeKind,
        features: Float[ndarray, "clips features"],
        seen: Float[ndarray, "seen features"] | None = None,
    ) -> _Answers:
        """What probes on features say of the clips; `seen` are those of the training part."""
        parted: list[tuple[Any, Any, list[str] | None]]  # rows to fit to, rows to name, groups
        if self.training is None or self.seen is None or seen is None:
            own, classes = features, self.truth
            groups = groups_at(self.data, self.tested.index.tolist())
            parted = [(~out, out, rest) for _, out, rest in left_out(self.data, groups)]
        else:
            own, classes = seen, _truth_of(self.training, self.seen)
            groups = groups_at(self.training, self.seen.index.tolist(), tested=self.data)
            parted = [(slice(None), slice(None), groups)]

        def fit() -> _Answers:
            found = np.zeros_like(self.truth)
            for rows, out, together in parted:
                how: Any = {"groups": together, "seed": self.seed, "kind": kind}
                found[out] = linear_probe(own[rows], classes[rows], features[out], **how).predicted
            return found

        asked = [] if own is features else [features]
        inputs = [kind, self.seed, groups, own, classes, *asked]
        return _kept(self.parts, inputs, fit)

    def row(
        self, network: Network, answers: _Answers, *, layer: int | None = None, condition: str
    ) -> Row:
        """How often answers are right."""
        if self.truth.ndim == 2:
            precisions = partial(mean_precisions, answers, self.truth)
            found = Estimate.of_statistic(precisions, len(answers), seed=self.seed)
        else:
            found = Estimate.of_share(int((answers == self.truth).sum()), len(answers))
        return network.row(self.score, found, layer=layer, condition=condition)

    def gain(self, own: _Answers, other: _Answers) -> Estimate:
        """By how much the score of one exceeds that of the other, on the same clips."""
        truth = self.truth
        if truth.ndim == 1:
            return estimate((own == truth).astype(float) - (other == truth), seed=self.seed)

        def gained(times: ndarray) -> Float[ndarray, " repeats"]:
            return mean_precisions(own, truth, times) - mean_precisions(other, truth, times)

        return Estimate.of_statistic(gained, len(truth), seed=self.seed)


def _kept(parts: str | Path | None, inputs: Sequence[Any], fit: Callable[[], _Answers]) -> _Answers:
    """What was fitted to the same inputs before, else what `fit` gives, kept in a folder."""
    if parts is None:
        return fit()
    digest = hashlib.sha256(version("scikit-learn").encode())
    for one in inputs:
        digest.update(one.tobytes() if isinstance(one, ndarray) else repr(one).encode())
    path = Path(parts) / f"probe-{digest.hexdigest()[:16]}.npz"
    try:
        return read_arrays(path, ("answers",))["answers"]
    except (OSError, ValueError):
        answers = fit()
    with atomic(path) as temporary:
        np.savez(temporary, answers=answers)
    return answers


def check_fitting(data: Dataset, training: Dataset | None = None) -> None:
    """See, before it takes an hour to measure clips, that there are others to fit a probe to."""
    if training is None:
        next(left_out(data, groups_at(data, range(len(data)))))
    elif (training.task, training.classes) != (data.task, data.classes):
        raise AnalysisError(
            f"{training.name} ({training.task}) and {data.name} ({data.task}) have different "
            "classes or tasks: what is fitted to one cannot score the other."
        )


def left_out(
    data: Dataset, groups: Sequence[str] | None
) -> Iterator[tuple[str, Bool[ndarray, " clips"], list[str] | None]]:
    """Each group in turn: where its clips are, and the groups of the others, if several."""
    if groups is None:
        raise AnalysisError(
            f"{data.name} ({data.split}) has no groups to leave out in turn: give a training part."
        )
    own = np.array(groups)
    for group in np.unique(own).tolist():
        rest = own[own != group].tolist()
        yield group, own == group, rest if len(set(rest)) > 1 else None


def _truth_of(data: Dataset, measured: ClipArrays) -> _Truth:
    """The classes of the clips that were measured."""
    labels = [data.labels(place) for place in measured.index.tolist()]
    if data.task == "single-label":
        return np.array([own[0] for own in labels])
    return targets_of(labels, len(data.classes)).astype(float)


def groups_at(
    data: Dataset, places: Sequence[int], *, tested: Dataset | None = None
) -> list[str] | None:
    """The groups of some clips, as `groups_of` has them; None unless there are several."""
    groups = groups_of(data, tested=tested)
    chosen = [groups[place] for place in places] if groups is not None else []
    return chosen if len(set(chosen)) > 1 else None


def _twin(network: Network, networks: Sequence[Network]) -> str:
    """The last network of the same shape: the one with random weights."""

    def shape(one: Network) -> list[Any]:
        return [(block.conv.weight.shape, block.pool) for block in blocks_of(one.module)]

    return [one.name for one in networks if shape(one) == shape(network)][-1]


def read_trained(path: str | Path) -> Row:
    """What a training run, or one with several seeds, wrote as its ``metrics.json``."""
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise AnalysisError(f"{path}: cannot be read as JSON ({error}).") from None
    try:
        encoder, clips = content["config"]["encoder"], content["test_clips"]
        start, depth = encoder["start"], encoder["depth"]
        values = (
            content["metrics"]["accuracy"]["values"]
            if "metrics" in content
            else [content["test"]["accuracy"]]
        )
        mean = sum(values) / len(values)
        one = len(values) == 1
        ends = wilson_interval(round(mean * clips), clips) if one else runs_interval(values)
        began = Path("He weights" if start is None else start)
        # A run's own file is called after its folder.
        name = (began.stem == "encoder" and began.parent.name) or began.stem
        of = {"network": name, "regime": name, "layer": 11 if depth is None else depth}
        found = {"mean": mean, "low": ends[0], "high": ends[1], "clips": clips}
        return Row(quantity="accuracy", condition="trained whole", **of, **found)
    # Such as 2 for an accuracy, no accuracy at all, or a list for the number of clips.
    except (LookupError, TypeError, ValueError, ArithmeticError, MetricError):
        raise AnalysisError(f"{path}: is not metrics.json of a run that names classes.") from None
