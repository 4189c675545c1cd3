"""Which filters are detectors of which event, by the energy of their maps.

The best of thousands of filters looks good by chance alone. So it is chosen on every other clip,
and what is reported is how well it does on the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.stats import mannwhitneyu, rankdata

from sonibook.metrics.scores import roc_auc
from sonibook.metrics.significance import holm

_REDRAWN = 2000
#: Clips with an event, and without it, that each half must hold.
_LEAST = 2


def areas(
    scores: Float[ndarray, "clips filters"], present: Bool[ndarray, "clips classes"]
) -> Float[ndarray, "filters classes"]:
    """Area under the ROC curve of every score, as a detector of every class.

    The probability that a clip with the class scores higher than one without it; ties count half
    (Mann and Whitney 1947).
    """
    ranks = rankdata(scores, axis=0)
    positives = present.sum(axis=0)
    pairs = (positives * (len(present) - positives)).astype(float)
    wins = ranks.T @ present.astype(float) - positives * (positives + 1) / 2
    return np.divide(wins, pairs, out=np.full_like(wins, np.nan), where=pairs > 0)


@dataclass(frozen=True)
class Chosen:
    """Detectors, one of each class that has clips enough: chosen on one half of the clips, tried on
    the other.

    `chosen_area` flatters them; `area` is on the other half, as are `p`, of "no better than
    chance", adjusted for the number of classes (Holm), and `redrawn`, `area` on redrawn clips (NaN
    where a class is not drawn).
    """

    classes: Int[ndarray, " detectors"]
    filters: Int[ndarray, " detectors"]
    chosen_area: Float[ndarray, " detectors"]
    area: Float[ndarray, " detectors"]
    p: Float[ndarray, " detectors"]
    redrawn: Float[ndarray, "redrawn detectors"]

    @property
    def interval(self) -> Float[ndarray, "detectors 2"]:
        """The 95 % interval of each `area`."""
        return np.nanquantile(self.redrawn, [0.025, 0.975], axis=0).T

    @property
    def mean_interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean of `area`; there must be a detector."""
        drawn = self.redrawn[~np.isnan(self.redrawn).all(axis=1)]
        low, high = np.quantile(np.nanmean(drawn, axis=1), [0.025, 0.975])
        return float(low), float(high)


def choose(
    scores: Float[ndarray, "clips filters"],
    present: Bool[ndarray, "clips classes"],
    *,
    seed: int = 0,
) -> Chosen:
    """The best detector of each class, chosen on every other clip and tried on the rest.

    Classes are left out that fewer than two clips of one half have, or do not have.
    """
    halves = [(scores[start::2], present[start::2]) for start in (0, 1)]
    enough = [np.minimum(part.sum(axis=0), (~part).sum(axis=0)) >= _LEAST for _, part in halves]
    classes = np.flatnonzero(enough[0] & enough[1])
    (first, first_present), (second, second_present) = halves
    found = areas(first, first_present[:, classes])
    filters = found.argmax(axis=0)
    tried, truth = second[:, filters], second_present[:, classes]
    p = [
        float(mannwhitneyu(score[has], score[~has], alternative="greater").pvalue)
        for score, has in zip(tried.T, truth.T, strict=True)
    ]
    return Chosen(
        classes=classes,
        filters=filters,
        chosen_area=found.max(axis=0),
        area=roc_auc(tried, truth),
        p=holm(np.array(p)),
        redrawn=_redrawn(tried, truth, seed),
    )


def _redrawn(
    scores: Float[ndarray, "clips detectors"], present: Bool[ndarray, "clips detectors"], seed: int
) -> Float[ndarray, "redrawn detectors"]:
    """Each detector's area on redrawn clips, all on the same; NaN where a class is not drawn."""
    clips = len(scores)
    generator = np.random.default_rng(seed)
    times = generator.multinomial(clips, np.full(clips, 1 / clips), size=_REDRAWN).astype(float)
    result = np.empty((_REDRAWN, scores.shape[1]))
    for column, (score, has) in enumerate(zip(scores.T, present.T, strict=True)):
        with_it, without = score[has][:, None], score[~has][None]
        wins = (with_it > without) + 0.5 * (with_it == without)
        won = ((times[:, has] @ wins) * times[:, ~has]).sum(axis=1)
        pairs = times[:, has].sum(axis=1) * times[:, ~has].sum(axis=1)
        result[:, column] = np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)
    return result
