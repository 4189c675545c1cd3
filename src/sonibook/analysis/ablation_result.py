"""What an ablation found: scores of residuals, and the tests of sonifications against controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from sonibook.analysis.controls import Control
from sonibook.analysis.paired import holm, mcnemar_test, sign_flip_test
from sonibook.analysis.result import Estimate, Record, Result, estimate
from sonibook.analysis.subtraction import log_probability
from sonibook.datasets.base import Task
from sonibook.metrics import (
    accuracy,
    bootstrap_interval,
    mean_average_precision,
    runs_interval,
    wilson_interval,
)

#: Redrawn data sets for the interval of a mAP, each of which costs a sort of every class.
_REPEATS = 200
_METRICS: dict[Task, Callable[[ndarray, ndarray], float]] = {
    "single-label": accuracy,
    "multi-label": mean_average_precision,
}


class Remainder(Record):
    """What is left of a network's score when one layer's sonification, or a control, is removed.

    Attributes
    ----------
    layer : int
    control : str
        One of `CONTROLS`.
    score : Estimate
        Accuracy or mAP on the residuals, over the clips that there were any of.
    baseline : float
        The score on the same clips, untouched.
    drop : Estimate
        Mean loss of log-probability of the true labels, in nats.
    """

    layer: int
    control: Control
    score: Estimate
    baseline: float
    drop: Estimate


class Comparison(Record):
    """The sonification against one control of the same layer, clip by clip.

    Attributes
    ----------
    layer : int
    control : str
    difference : Estimate
        Drop by the sonification minus drop by the control, in nats: above 0, its removal hurts
        more.
    p : float
        Of a sign-flip test of that difference.
    p_holm : float
        Adjusted by Holm's method for all layers and controls of this network.
    mcnemar, mcnemar_holm : float or None
        Of McNemar's test on which clips are named rightly, and adjusted alike; None for mAP.
    """

    layer: int
    control: Control
    difference: Estimate
    p: float
    p_holm: float
    mcnemar: float | None
    mcnemar_holm: float | None


class NetworkAblation(Record):
    """One network's part of an `AblationResult`.

    Attributes
    ----------
    network : str
    score : Estimate
        On the clips as they are.
    silent : dict of int to int
        By layer: clips of which no filter's map is live, so that nothing could be removed.
    remainders : tuple of Remainder
    comparisons : tuple of Comparison
    """

    network: str
    score: Estimate
    silent: dict[int, int]
    remainders: tuple[Remainder, ...]
    comparisons: tuple[Comparison, ...]


class RunsComparison(Record):
    """The sonification against a control, over networks that differ in their seed alone.

    Attributes
    ----------
    layer : int
    control : str
    difference : float
        Mean over networks of `Comparison.difference`, in nats.
    low, high : float
        Ends of its 95 % t interval.
    p, p_holm : float
        Of a t test over networks; adjusted for all layers and controls.
    """

    layer: int
    control: Control
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


class AblationResult(Result):
    """What `ablate` found.

    Attributes
    ----------
    score : {"accuracy", "mAP"}
    ablations : tuple of NetworkAblation
    runs : tuple of RunsComparison
        Empty unless the networks were said to be runs of one experiment.
    """

    analysis: Literal["ablation"] = "ablation"
    score: Literal["accuracy", "mAP"]
    ablations: tuple[NetworkAblation, ...]
    runs: tuple[RunsComparison, ...]


def summarised(
    network: str,
    layers: Sequence[int],
    controls: Sequence[Control],
    arrays: Mapping[str, ndarray],
    task: Task,
    *,
    seed: int = 0,
) -> NetworkAblation:
    """The scores, drops and tests of one network.

    Parameters
    ----------
    network : str
        Its name.
    layers, controls
        As in `Subtraction`, the sonification first.
    arrays : mapping from str to ndarray
        What `Subtraction` gives, for all clips.
    task : {"single-label", "multi-label"}
    seed : int >= 0
        Of the intervals and the sign flips.

    Returns
    -------
    NetworkAblation
        A layer and control that no clip could be measured under is left out.
    """
    clip, residual, targets = arrays["clip"], arrays["residual"], arrays["targets"]
    before = log_probability(clip, targets, task)[:, None, None]
    drop = before - log_probability(residual, targets, task)
    kept = ~np.isnan(residual).any(axis=3)
    remainders, compared = [], []
    for row, column in np.ndindex(*kept.shape[1:]):
        here = kept[:, row, column]
        if not here.any():
            continue
        left = residual[here, row, column]
        remainders.append(
            Remainder(
                layer=layers[row],
                control=controls[column],
                score=_score(left, targets[here], task, seed),
                baseline=_METRICS[task](clip[here], targets[here]),
                drop=estimate(drop[:, row, column], seed=seed),
            )
        )
        if column > 0:
            compared.append((row, column))
    return NetworkAblation(
        network=network,
        score=_score(clip, targets, task, seed),
        silent={layer: int((~kept[:, row, 0]).sum()) for row, layer in enumerate(layers)},
        remainders=tuple(remainders),
        comparisons=tuple(
            Comparison(layer=layers[row], control=controls[column], **tested)
            for (row, column), tested in zip(
                compared, _tests(drop, residual, targets, task, compared, seed), strict=True
            )
        ),
    )


def _score(
    scores: Float[ndarray, "kept classes"], targets: ndarray, task: Task, seed: int
) -> Estimate:
    value, clips = _METRICS[task](scores, targets), len(scores)
    if task == "single-label":
        low, high = wilson_interval(round(value * clips), clips)
    elif clips > 1:
        low, high = bootstrap_interval(
            scores, targets, statistic=mean_average_precision, repeats=_REPEATS, seed=seed
        )
    else:
        return Estimate(mean=value, low=None, high=None, clips=clips)
    return Estimate(mean=value, low=low, high=high, clips=clips)


def _tests(
    drop: Float[ndarray, "clips layers controls"],
    residual: Float[ndarray, "clips layers controls classes"],
    targets: Float[ndarray, "clips classes"],
    task: Task,
    cells: Sequence[tuple[int, int]],
    seed: int,
) -> list[dict[str, Any]]:
    """The fields of a `Comparison` that are measured, for each (layer, control) of `cells`."""
    if not cells:
        return []
    difference = np.stack([drop[:, row, 0] - drop[:, row, column] for row, column in cells], axis=1)
    tests = {"p": sign_flip_test(difference, seed=seed)}
    if task == "single-label":
        right = residual.argmax(axis=3) == targets.argmax(axis=1)[:, None, None]
        measured = ~np.isnan(residual).any(axis=3)
        tests["mcnemar"] = np.array(
            [
                mcnemar_test(right[both, row, 0], right[both, row, column])
                for row, column in cells
                for both in [measured[:, row, 0] & measured[:, row, column]]
            ]
        )
    adjusted = {name: (p, holm(p)) for name, p in tests.items()}
    return [
        {
            "difference": estimate(difference[:, place], seed=seed),
            "mcnemar": None,
            "mcnemar_holm": None,
        }
        | {name: float(p[place]) for name, (p, _) in adjusted.items()}
        | {f"{name}_holm": float(p[place]) for name, (_, p) in adjusted.items()}
        for place in range(len(cells))
    ]


def over_runs(ablations: Sequence[NetworkAblation]) -> tuple[RunsComparison, ...]:
    """The comparisons of several networks as one, each network an observation.

    Parameters
    ----------
    ablations : sequence of NetworkAblation
        Two or more, of networks that differ in their seed alone.

    Returns
    -------
    tuple of RunsComparison
        For each layer and control that every network was measured under.
    """
    found: dict[tuple[int, Control], list[float]] = {}
    for ablation in ablations:
        for one in ablation.comparisons:
            if one.difference.mean is not None:
                found.setdefault((one.layer, one.control), []).append(one.difference.mean)
    whole = {key: values for key, values in found.items() if len(values) == len(ablations)}
    # Where nothing varies, as between a control and itself, there is nothing to test.
    p = np.array(
        [
            float(stats.ttest_1samp(values, 0.0).pvalue) if np.ptp(values) > 0 else 1.0
            for values in whole.values()
        ]
    )
    result = []
    for (layer, control), own, adjusted in zip(whole, p, holm(p), strict=True):
        low, high = runs_interval(whole[layer, control])
        result.append(
            RunsComparison(
                layer=layer,
                control=control,
                difference=float(np.mean(whole[layer, control])),
                low=low,
                high=high,
                p=float(own),
                p_holm=float(adjusted),
            )
        )
    return tuple(result)
