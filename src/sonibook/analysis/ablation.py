"""Ablation by subtraction: how much a network misses what is taken away (paper, section 4.1).

The sonification s of each clip's most active filter of a layer is subtracted, and the network is
asked again. The paper reads the loss as proof that s holds what recognition needs. But every loud
signal that is subtracted hurts, so s is tested against controls, too, clip by clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from scipy import stats
from torch import Tensor, nn

from sonibook.analysis.controls import (
    CONTROLS,
    Control,
    Level,
    Residual,
    check_levels,
    chosen_of,
    normalise,
    perturbations,
    scale,
    with_partners,
)
from sonibook.analysis.networks import Network, Networks, as_networks, layers_of, mixed, untrained
from sonibook.analysis.result import Estimate, ResultTable, Row, fingerprint
from sonibook.analysis.stream import Measured, Streaming, measure_clips, seeded, table_rows
from sonibook.datasets.base import Clip, Dataset, Task
from sonibook.deconvnet.alternatives import METHODS, STEPS, Method, most_active_sounds
from sonibook.errors import AnalysisError
from sonibook.metrics import accuracy, mean_average_precision, runs_interval
from sonibook.metrics.intervals import holm, mcnemar_test, sign_flip_test
from sonibook.metrics.scores import log_probability, mean_precisions, targets_of
from sonibook.model.stack import blocks_of, least_length

#: Samples that the network hears at once, residuals times their length.
_AT_ONCE = 2**19
_ARRAYS = ("clip", "residual", "targets")
_METRICS: dict[Task, Callable[[ndarray, ndarray], float]] = {
    "single-label": accuracy,
    "multi-label": mean_average_precision,
}


class AblationResult(ResultTable):
    """What is left of scores, and tests of sonifications against controls; made by `ablate`.

    The condition of a row is what was subtracted, one of `CONTROLS`. Clips on which no filter of
    a layer is live are left out, and not counted in ``clips``. The quantities:

    - ``score`` on the residuals (accuracy or, for clips with any number of labels, mAP), and, of
      no layer, on ``untouched`` clips; ``untouched``, without an interval: on the same clips.
    - ``drop``, in nats: mean loss of log-probability of the true labels, which sees a network
      waver before it falls.
    - ``difference``, in nats: drop by the sonification minus drop by the control, clip by clip.
      Above 0, removing the sonification hurts more.
    - ``p`` of a sign-flip test of that difference, and ``p_holm``, adjusted by Holm's method for
      all layers and controls of the network.
    - ``mcnemar`` and ``mcnemar_holm``, of McNemar's test on which clips are classified correctly;
      not for mAP.

    Of no network, where the networks are runs of one experiment: ``difference`` over them, with
    its 95 % t interval, and ``p`` and ``p_holm`` of a t test; their ``clips`` are networks.

    Attributes
    ----------
    score : {"accuracy", "mAP"}
    """

    analysis: Literal["ablation"] = "ablation"
    score: Literal["accuracy", "mAP"]


def ablate(
    classifiers: Networks,
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    controls: Sequence[Control] = CONTROLS,
    method: Method = "sonification",
    level: Level = "peak",
    residual: Residual = "as is",
    are_runs: bool = False,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> AblationResult:
    """Subtract each clip's sonifications, and controls, and ask networks again.

    Parameters
    ----------
    classifiers : mapping from str to torch.nn.Module, or sequence of Network
        Each maps waveforms (batch, 1, time) to a logit for each class of `data`, in `eval` mode,
        such as a `Classifier`. Its attribute ``encoder``, or where it has none it itself, is
        sonified, and must be as `sonibook.sonify` takes it.
    data, layers, seed, streaming
        As for every analysis: see `sonibook.analysis`. The logits are kept: four bytes a clip,
        class, layer and control.
    controls : sequence of str
        Of `CONTROLS`; the sonification itself is always among them.
    method : str
        What to subtract in the sonification's place; see `sonibook.deconvnet.alternatives.METHODS`.
    level : {"peak", "least squares"}
        At which level the sonification is subtracted; see `sonibook.analysis.controls.scale`.
    residual : {"as is", "unit peak"}
        How the network hears what is left: as it is, or scaled to a peak of 1.
    are_runs : bool
        The classifiers differ in their seed alone: test over them, too.

    Raises
    ------
    AnalysisError
        As every analysis, and if a classifier's logits do not fit the data's classes.

    Examples
    --------
    Your own 1-D CNN: the part that is sonified is called ``encoder``.

    >>> from collections import OrderedDict
    >>> from sonibook import open_dataset
    >>> data = open_dataset("soundscapes", size=4, duration=1.0, task="single-label")
    >>> blocks = []
    >>> for inputs, outputs in ((1, 8), (8, 8), (8, 16), (16, 16)):
    ...     blocks += [nn.Conv1d(inputs, outputs, 9), nn.ReLU(), nn.MaxPool1d(4)]
    >>> head = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, len(data.classes))]
    >>> parts = OrderedDict(encoder=nn.Sequential(*blocks), head=nn.Sequential(*head))
    >>> result = ablate({"mine": nn.Sequential(parts).eval()}, data, controls=["white noise"])
    >>> [row.layer for row in result.select(quantity="difference")]
    [1, 2, 3, 4]
    """
    chosen = chosen_of("control", CONTROLS, controls)
    chosen_of("method", METHODS, [method])
    check_levels(level, residual)
    measure = Subtraction(chosen, layers, method, level, residual, seed)
    networks = as_networks(classifiers)
    if are_runs and len({fingerprint(network.module) for network in networks}) < 2:
        raise AnalysisError("Runs to compare must be two different networks or more: give another.")
    measure.check(networks, data)
    settings: dict[str, Any] = {"layers": measure.layers, "controls": chosen, "method": method}
    settings |= {"level": level, "residual": residual, "are_runs": are_runs, "seed": seed}
    found = measure_clips("ablation", measure, networks, data, settings=settings, **streaming)
    rows: list[Row] = []
    for network in networks:
        named = {name: found.arrays[network.name, name, ""] for name in _ARRAYS}
        of_network = measure.layers_of(network.module)
        rows += ablation_rows(network, of_network, chosen, named, data.task, seed=seed)
    if are_runs:
        rows += over_runs(rows, networks=len(networks))
    score = "accuracy" if data.task == "single-label" else "mAP"
    return AblationResult(score=score, rows=tuple(rows), **found.fields)


def stack_of(classifier: nn.Module) -> nn.Module:
    """The stack that is sonified: the classifier's ``encoder``, or itself where it has none."""
    encoder: nn.Module = getattr(classifier, "encoder", classifier)
    return encoder


@dataclass(frozen=True)
class Subtraction:
    """The measure of `ablate`: logits of clips, and of what is left; `layers` None for all."""

    controls: tuple[Control, ...]
    layers: Sequence[int] | None = None
    method: Method = "sonification"
    level: Level = "peak"
    residual: Residual = "as is"
    seed: int = 0
    steps: int = STEPS

    def __post_init__(self) -> None:
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))

    def check(self, networks: Sequence[Network], data: Dataset) -> None:
        """Raise an error unless all have the layers, and a logit for each class of the data."""
        for network in networks:
            self.layers_of(network.module)
            outputs = logits_of(network.module, torch.zeros(1, 1)).shape[1]
            if outputs != len(data.classes):
                raise AnalysisError(
                    f"{network.name} names {outputs} classes and {data.name} has "
                    f"{len(data.classes)}: take the data set it was trained for."
                )

    def __call__(self, classifier: nn.Module, clips: Sequence[Clip]) -> Measured:
        """Logits of ``clip`` and ``residual`` (NaN where nothing was taken away), and targets."""
        return self.subtract(classifier, clips, [self.sounds(classifier, clip) for clip in clips])

    def subtract(
        self, classifier: nn.Module, clips: Sequence[Clip], sounds: Sequence[Tensor]
    ) -> Measured:
        """The same, of sounds that are there."""
        rows = [
            self.logits(classifier, torch.from_numpy(clip.waveform), taken)
            for clip, taken in zip(clips, self.taken(classifier, clips, sounds), strict=True)
        ]
        whole, left = (np.stack(arrays) for arrays in zip(*rows, strict=True))
        targets = targets_of([clip.labels for clip in clips], whole.shape[1])
        return {"clip": whole, "residual": left, "targets": targets}

    def taken(
        self, classifier: nn.Module, clips: Sequence[Clip], sounds: Sequence[Tensor]
    ) -> Iterator[Float[Tensor, "layers controls time"]]:
        """What each control takes away from each clip; nothing where the filter's map is silent."""
        for clip, own, of_another in with_partners(clips, sounds):
            every = self.instead(classifier, clip, own, of_another)
            # Where the map is silent, no control has a level to match.
            yield (every * (own != 0).any(dim=1)[:, None]).transpose(0, 1)

    def instead(
        self,
        classifier: nn.Module,
        clip: Clip,
        own: Float[Tensor, "layers time"],
        of_another: Float[Tensor, "layers samples"],
    ) -> Float[Tensor, "controls layers time"]:
        """The `perturbations` of a clip, by its own sounds and another's."""
        x, random = torch.from_numpy(clip.waveform), "random weights" in self.controls
        return perturbations(
            x,
            scale(own, x, self.level),
            self.controls,
            by_random=self.by_random(classifier, clip) if random else None,
            of_another=of_another,
            clip_id=clip.clip_id,
            seed=self.seed,
        )

    def logits(
        self, classifier: nn.Module, x: Float[Tensor, " time"], taken: Float[Tensor, "*sounds time"]
    ) -> tuple[Float[ndarray, " classes"], Float[ndarray, "*sounds classes"]]:
        """The logits of a clip, and of what is left of it without each sound; NaN for silence."""
        measured = (taken != 0).any(dim=-1)
        residuals = normalise(x - taken[measured], self.residual)
        logits = logits_of(classifier, torch.cat([x[None], residuals]))
        left = np.full((*measured.shape, logits.shape[1]), np.nan, np.float32)
        left[measured.numpy()] = logits[1:]
        return logits[0], left

    def layers_of(self, classifier: nn.Module) -> tuple[int, ...]:
        """The layers to measure of a classifier; raises a `LayerError` for one it lacks."""
        return layers_of(blocks_of(stack_of(classifier)), self.layers)

    def sounds(self, classifier: nn.Module, clip: Clip) -> Float[Tensor, "layers time"]:
        """Of the most active filters on a clip."""
        stack, layers = stack_of(classifier), self.layers_of(classifier)
        x = torch.from_numpy(clip.waveform)
        return most_active_sounds(self.method, stack, x, layers, steps=self.steps)[0].cpu()

    def by_random(self, classifier: nn.Module, clip: Clip) -> Float[Tensor, "layers time"]:
        """By weights of the clip's own, so that intervals over clips hold for other weights."""
        blocks = blocks_of(stack_of(classifier))[: max(self.layers_of(classifier))]
        seed = int(seeded(self.seed, "random weights", clip.clip_id).integers(2**31))
        fresh = untrained(blocks, seed=seed)
        return self.sounds(mixed(fresh, fresh, (), heard=[clip]), clip)


@torch.no_grad()
def logits_of(classifier: nn.Module, x: Float[Tensor, "sounds time"]) -> ndarray:
    """A classifier's logits of sounds, shape (sounds, classes); short ones are padded."""
    blocks = blocks_of(stack_of(classifier))
    least, weight = least_length(blocks), blocks[0].conv.weight
    waveforms = F.pad(x.to(weight), (0, max(least - x.shape[1], 0))).unsqueeze(1)
    at_once = max(_AT_ONCE // waveforms.shape[2], 1)
    return torch.cat([classifier(some) for some in waveforms.split(at_once)]).cpu().numpy()


def ablation_rows(
    network: Network,
    layers: Sequence[int],
    controls: Sequence[Control],
    arrays: Mapping[str, ndarray],
    task: Task,
    *,
    seed: int = 0,
) -> Iterator[Row]:
    """The rows of one network, from what `Subtraction` gives for all clips."""
    clip, residual, targets = arrays["clip"], arrays["residual"], arrays["targets"]
    before = log_probability(clip, targets, task)[:, None, None]
    drop = before - log_probability(residual, targets, task)
    difference = drop[:, :, :1] - drop
    measured = ~np.isnan(residual).any(axis=3)
    compared = measured & measured[:, :, :1]

    def row(quantity: str, condition: str, layer: int | None, found: Estimate) -> Row:
        return network.row(quantity, found, layer=layer, condition=condition)

    yield row("score", "untouched", None, _score(clip, targets, task, seed))
    for place, column in np.ndindex(*measured.shape[1:]):
        here = measured[:, place, column]
        score = _score(residual[here, place, column], targets[here], task, seed)
        yield row("score", controls[column], layers[place], score)
        if here.any():
            whole = _METRICS[task](clip[here], targets[here])
            same = Estimate(mean=whole, clips=score.clips)
            yield row("untouched", controls[column], layers[place], same)
    means: dict[tuple[str, str, str], ndarray] = {
        (network.name, quantity, control): values[:, :, column]
        for quantity, values, first in (("drop", drop, 0), ("difference", difference, 1))
        for column, control in enumerate(controls)
        if column >= first
    }
    yield from table_rows([network], means, layers=layers, seed=seed)
    places, columns = np.nonzero(measured.any(axis=0) & (np.arange(len(controls)) > 0))
    if not len(places):
        return
    tests = {"p": sign_flip_test(difference[:, places, columns], seed=seed)}
    if task == "single-label":
        right = residual.argmax(axis=3) == targets.argmax(axis=1)[:, None, None]
        both = compared[:, places, columns]
        own, other = (right[:, places, one] & both for one in (0, columns))
        tests["mcnemar"] = np.array([*map(mcnemar_test, own.T, other.T)])
    for name, raw in tests.items():
        for quantity, p in ((name, raw), (f"{name}_holm", holm(raw))):
            for place, column, value in zip(places.tolist(), columns.tolist(), p, strict=True):
                clips = int(compared[:, place, column].sum())
                found = Estimate(mean=float(value), clips=clips)
                yield row(quantity, controls[column], layers[place], found)


def _score(
    scores: Float[ndarray, "kept classes"], targets: ndarray, task: Task, seed: int
) -> Estimate:
    clips = len(scores)
    if clips > 1 and task == "multi-label":
        return Estimate.of_statistic(mean_precisions, scores, targets, seed=seed)
    value = _METRICS[task](scores, targets) if clips else None
    if value is None or task == "multi-label":
        return Estimate(mean=value, clips=clips)
    return Estimate.of_share(round(value * clips), clips)


def over_runs(rows: Iterable[Row], *, networks: int) -> Iterator[Row]:
    """Each difference over several networks, each an observation, where all were measured."""
    means: dict[tuple[int | None, str], list[float]] = {}
    for row in rows:
        if row.quantity == "difference" and row.mean is not None:
            means.setdefault((row.layer, row.condition), []).append(row.mean)
    whole = {cell: values for cell, values in means.items() if len(values) == networks}
    # Where nothing varies, as between a control and itself, there is nothing to test.
    varying = ((values, np.ptp(values) > 0) for values in whole.values())
    p = np.array([stats.ttest_1samp(one, 0.0).pvalue if varies else 1.0 for one, varies in varying])
    for ((layer, control), values), own, adjusted in zip(whole.items(), p, holm(p), strict=True):
        low, high = runs_interval(values)
        of: dict[str, Any] = {"layer": layer, "condition": control, "clips": networks}
        yield Row(quantity="difference", mean=float(np.mean(values)), low=low, high=high, **of)
        yield Row(quantity="p", mean=float(own), **of)
        yield Row(quantity="p_holm", mean=float(adjusted), **of)
