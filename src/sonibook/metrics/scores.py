"""How good a network is: average precision, area under the ROC curve, d' and accuracy.

Scores are only ever compared with each other within a class (accuracy: within a clip), so logits,
probabilities and any other increasing scale give the same figures. Means over classes are
unweighted, as in the paper's tables. A class that the clips at hand cannot judge, because none of
them has it (or, for the ROC curve, all of them do), is left out and not counted as zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from scipy import stats
from scipy.special import log_expit, log_softmax

from sonibook.errors import MetricError
from sonibook.metrics.intervals import redrawn_ends

_Scores = Float[ndarray, "clips classes"]
#: 1 or True where the clip has the label, else 0 or False.
_Targets = Shaped[ndarray, "rows columns"]
#: How often several data sets have each clip.
_Times = Shaped[ndarray, "repeats rows"]
#: How many clips, with the label or in all, lie at each distinct score or above, in each data set.
_Above = Shaped[ndarray, "repeats scores"]
_OfRanks = Callable[[_Above, _Above], Float[ndarray, " repeats"]]


def average_precision(scores: _Scores, targets: _Targets) -> Float[ndarray, " classes"]:
    """Average precision of each class.

    The sum, over the distinct scores from the highest down, of the precision there times the gain
    in recall; in [0, 1], and NaN for a class that no clip has. Clips of equal score are found
    together: their order in the data set cannot matter. `MetricError` if the shapes differ, a score
    is NaN, or a target neither 0 nor 1.
    """
    return _ranked(scores, targets, None, _precision)[0]


def roc_auc(
    scores: _Scores, targets: _Targets, times: _Times | None = None
) -> Float[ndarray, "*repeats classes"]:
    """Area under the ROC curve of each class, by the ranks of its scores (Mann-Whitney).

    The probability that a clip with the label scores higher than one without; equal scores count
    half. NaN for a class that no clip has, or every clip. With `times`, of data sets that have each
    clip so many times. Raises what `average_precision` does.
    """
    return _ranked(scores, targets, times, _area)[0]


def _ranked(
    scores: _Scores, targets: _Targets, times: _Times | None, *measures: _OfRanks
) -> Float[ndarray, "measures *repeats classes"]:
    """Measures of the ranking of each class."""
    # By hand: scikit-learn's, which a bootstrap asks thousands of times, takes ten times as long.
    _check(scores, targets)
    counts = np.ones((1, len(scores))) if times is None else times
    found = np.full((len(measures), len(counts), scores.shape[1]), np.nan)
    for label in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-scores[:, label])
        falling, drawn = scores[order, label], counts[:, order]
        last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of equal scores
        hits = np.cumsum(drawn * (targets[order, label] != 0), axis=1)[:, last]
        clips = np.cumsum(drawn, axis=1)[:, last]
        with np.errstate(invalid="ignore"):  # a class that is not there, or that all have
            found[:, :, label] = [measure(hits, clips) for measure in measures]
    return found[:, 0] if times is None else found


def _precision(hits: _Above, clips: _Above) -> Float[ndarray, " repeats"]:
    return (np.diff(hits, prepend=0.0) * hits / np.maximum(clips, 1)).sum(axis=1) / hits[:, -1]


def _area(hits: _Above, clips: _Above) -> Float[ndarray, " repeats"]:
    misses = clips - hits
    below = misses[:, -1:] - misses + np.diff(misses, prepend=0.0) / 2  # equal scores count half
    won = (np.diff(hits, prepend=0.0) * below).sum(axis=1)
    return won / (hits[:, -1] * misses[:, -1])


def mean_average_precision(scores: _Scores, targets: _Targets) -> float:
    """`average_precision`, unweighted mean over the classes that some clip has (mAP), in [0, 1].

    Raises what `average_precision` does, and a `MetricError` if no clip has any label.
    """
    return _mean_over_classes(average_precision(scores, targets), "a clip that has it")


def mean_precisions(
    scores: _Scores, targets: _Targets, times: _Times
) -> Float[ndarray, " repeats"]:
    """`mean_average_precision` of data sets that have each clip so many times; NaN without any."""
    return _over_classes(_ranked(scores, targets, times, _precision)[0])


def mean_auc(scores: _Scores, targets: _Targets) -> float:
    """`roc_auc`, unweighted mean over the classes that some clip has and some has not (mAUC).

    Raises what `average_precision` does, and a `MetricError` if there is no such class.
    """
    return _mean_over_classes(roc_auc(scores, targets), "a clip that has it and one that has not")


def d_prime(auc: float) -> float:
    """The d' that a (mean) area under the ROC curve, in [0, 1], stands for.

    By how many standard deviations two normal distributions of equal width, the scores of the
    clips without and with a label, would have to lie apart for that area: sqrt(2) times the inverse
    of the normal distribution function, 0 at chance (0.5), minus and plus infinity at 0 and 1, and
    a `MetricError` beyond (Gemmeke et al., "Audio Set: an ontology and human-labeled dataset for
    audio events", 2017).

    Examples
    --------
    >>> round(d_prime(0.5), 3), round(d_prime(0.954), 2)
    (0.0, 2.38)
    """
    if not 0 <= auc <= 1:
        raise MetricError(f"An area under the ROC curve of {auc} is impossible: it is 0 to 1.")
    return math.sqrt(2) * float(stats.norm.ppf(auc))


def accuracy(scores: _Scores, targets: _Targets) -> float:
    """Share of clips, each with one label, whose highest score, of equal ones the first, is at it.

    `MetricError` if there is no clip, a score is NaN, or a clip has no label or several.
    """
    _check(scores, targets)
    if not len(scores) or not (np.count_nonzero(targets, axis=1) == 1).all():
        raise MetricError(
            "Accuracy needs clips with exactly one label each: of others take the mean average "
            "precision."
        )
    return float(np.mean(scores.argmax(axis=1) == targets.argmax(axis=1)))


def multilabel_metrics(scores: _Scores, targets: _Targets) -> dict[str, float | int]:
    """What the paper's tables report of clips with any number of labels.

    ``mAP``, ``mAUC`` and ``d_prime`` (of the mean area), and over how many classes: ``mAP_classes``
    and ``mAUC_classes``. ``d_prime`` is left out where it is infinite, which no JSON file could
    hold. Raises what `mean_average_precision` and `mean_auc` do.
    """
    precision, area = average_precision(scores, targets), roc_auc(scores, targets)
    mean_area = _mean_over_classes(area, "a clip that has it and one that has not")
    separation = d_prime(mean_area)
    return {
        "mAP": _mean_over_classes(precision, "a clip that has it"),
        "mAUC": mean_area,
        **({"d_prime": separation} if math.isfinite(separation) else {}),
        "mAP_classes": int(np.isfinite(precision).sum()),
        "mAUC_classes": int(np.isfinite(area).sum()),
    }


def multilabel_intervals(
    scores: _Scores, targets: _Targets, *, seed: int = 0
) -> dict[str, list[float]]:
    """Bootstrap intervals (95 %, over clips) of what `multilabel_metrics` gives.

    A clip that is drawn twice ranks beside its like: of few clips the interval of mAP lies high.
    The bootstrap draws 2,000 times, or where there are more than 50,000 scores less often, but 200
    times at least. Of ``mAP``, ``mAUC`` and ``d_prime`` (the ends of the area's, if finite), one is
    left out where the clips are too few to draw again.
    """

    def means(times: _Times) -> Float[ndarray, "repeats figures"]:
        return _over_classes(_ranked(scores, targets, times, _precision, _area)).T

    _check(scores, targets)
    if len(scores) < 2:
        return {}
    repeats = int(np.clip(1e8 / max(scores.size, 1), 200, 2000))
    ends = redrawn_ends(means, len(scores), repeats=repeats, seed=seed)
    found = {
        name: own
        for name, own in zip(("mAP", "mAUC"), np.transpose(ends).tolist(), strict=True)
        if np.isfinite(own).all()
    }
    if "mAUC" in found and all(0 < end < 1 for end in found["mAUC"]):
        found["d_prime"] = [d_prime(end) for end in found["mAUC"]]
    return found


def single_label_metrics(scores: _Scores, targets: _Targets) -> dict[str, float | int]:
    """What is reported of clips with one label each: ``accuracy``, and over how many ``clips``.

    Takes and raises what `accuracy` does.
    """
    return {"accuracy": accuracy(scores, targets), "clips": len(scores)}


def log_probability(
    logits: Float[ndarray, "clips *treatments classes"],
    targets: Float[ndarray, "clips classes"],
    task: str,
) -> Float[ndarray, "clips ..."]:
    """The log-probability, in nats, of each clip's true labels: the mean over them.

    Classes exclude each other ("single-label", softmax) or do not ("multi-label", sigmoid). NaN for
    a clip that has no label, or whose logits are NaN.
    """
    wide = logits.astype(np.float64)
    logs = log_softmax(wide, axis=-1) if task == "single-label" else log_expit(wide)
    share = targets / np.where(targets.any(axis=1), targets.sum(axis=1), np.nan)[:, None]
    return (logs * share.reshape(len(share), *[1] * (logits.ndim - 2), -1)).sum(axis=-1)


def targets_of(labels: Sequence[Sequence[int]], classes: int) -> Float[ndarray, "clips classes"]:
    """1 for what a clip is labelled with, else 0."""
    targets = np.zeros((len(labels), classes), np.float32)
    for row, own in zip(targets, labels, strict=True):
        row[list(own)] = 1.0
    return targets


def _check(scores: _Scores, targets: _Targets) -> None:
    if scores.shape != targets.shape:
        raise MetricError(
            f"Scores of shape {scores.shape} do not fit targets of shape {targets.shape}: give "
            "both a row a clip and a column a class."
        )
    if np.isnan(scores).any():
        clip, label = np.argwhere(np.isnan(scores))[0]
        raise MetricError(
            f"The score of clip {clip} for class {label} is NaN and has no rank: see whether the "
            "network's weights or its input are NaN."
        )
    if not ((targets == 0) | (targets == 1)).all():
        raise MetricError("A target is neither 0 nor 1: give the labels, not a mixture of them.")


def _over_classes(values: Float[ndarray, "*of classes"]) -> Float[ndarray, "*of"]:
    """Means over the classes that can be judged, one after the other; NaN without any."""
    judged = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(judged, values, 0).sum(axis=-1) / judged.sum(axis=-1)


def _mean_over_classes(values: Float[ndarray, " classes"], needed: str) -> float:
    judged = values[~np.isnan(values)]
    if not len(judged):
        raise MetricError(f"No class can be judged, since each needs {needed}: add clips.")
    return float(judged.mean())
