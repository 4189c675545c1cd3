"""How sure one can be of a figure: intervals over clips, and over runs; and tests of differences.

Two questions, not to be confused. Over clips (`wilson_interval`, `bootstrap_means`,
`bootstrap_interval`): how would *this* network do on other clips of the same kind? Over runs
(`runs_interval`, the paper's): how would the figure come out if training were done again?

Whether two treatments of the same clips differ is tested clip by clip (`sign_flip_test`,
`mcnemar_test`), since a clip is harder or easier whatever is done to it, and corrected for the
number of tests (`holm`). A clip that one of the two could not be measured on is NaN, and counts for
neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray
from scipy import stats

from sonibook.errors import MetricError

#: The share of cases in which an interval is to hold the truth, and the quantiles it lies between.
_CONFIDENCE = 0.95
_ENDS = ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2)
#: Clips times flips that are drawn together: a hundred megabytes.
_DRAWN = 2**24


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95 % interval (low, high) of a share `correct` of `total` >= 1, such as an accuracy.

    Wilson's score interval (E. B. Wilson, "Probable inference, the law of succession, and
    statistical inference", Journal of the American Statistical Association 22, 1927): unlike the
    normal approximation it keeps within [0, 1] and its coverage near 0 and 1. It takes clips as
    independent; clips cut from one recording are not quite.

    Examples
    --------
    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    interval = stats.binomtest(correct, total).proportion_ci(_CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_means(
    values: Float[ndarray, "clips quantities"], *, repeats: int = 2000, seed: int = 0
) -> Float[ndarray, "2 quantities"]:
    """The ends of the 95 % intervals of the means of many quantities over clips.

    The percentile bootstrap, as `bootstrap_interval`, whose errors it has; all quantities are
    redrawn with the same clips, so that a redrawn mean is a product of matrices. NaN, for what was
    not measured, is left out of each redrawn mean, and a redrawn data set without any value of a
    quantity out of its interval. The ends are NaN where fewer than two clips have a value.
    """
    _check_repeats(repeats)
    known = ~np.isnan(values)
    ends, judged = np.full((2, values.shape[1]), np.nan), known.sum(axis=0) > 1
    if judged.any():
        some, of = np.nan_to_num(values[:, judged]), known[:, judged].astype(float)
        ends[:, judged] = bootstrap_ratio(some, of, repeats=repeats, seed=seed)
    return ends


def bootstrap_ratio(
    values: Float[ndarray, "rows ..."],
    of: Float[ndarray, "rows ..."],
    *,
    repeats: int = 2000,
    seed: int = 0,
) -> Float[ndarray, "2 ..."]:
    """The ends of 95 % intervals of ratios of means over the same two clips or more.

    A redrawn ratio whose divisor is not above 0 is left out.
    """
    times = times_drawn(len(values), repeats, seed)
    drawn = times @ of
    ratios = times @ values / np.where(drawn > 0, drawn, np.nan)
    return np.nanquantile(ratios, _ENDS, axis=0)


@lru_cache(maxsize=2)
def times_drawn(count: int, repeats: int, seed: int) -> Float[ndarray, "repeats count"]:
    """How often each of `count` rows is drawn, repeat by repeat."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), size=repeats).astype(float)


def bootstrap_interval(
    *values: Shaped[ndarray, "rows ..."],
    statistic: Callable[..., Any] = np.mean,
    repeats: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval (low, high) of any statistic, by drawing the rows again with replacement.

    The percentile bootstrap: the middle 95 % of the statistic over `repeats` redrawn data sets of
    the same number of rows (B. Efron, "Bootstrap methods: another look at the jackknife", Annals of
    Statistics 7, 1979).

    Rows of all `values` are drawn together, such as the scores and the targets of clips, and handed
    to `statistic`. A class that a redrawn data set has no clip of is left out by the means over
    classes, there alone. `MetricError` if the arrays are of different lengths or have fewer than
    two rows, or `repeats` is below 1.
    """
    rows = {len(one) for one in values}
    if len(rows) != 1 or rows == {0}:
        raise MetricError(f"A bootstrap needs arrays of as many rows each, not of {sorted(rows)}.")

    def of_each(times: Int[ndarray, "some rows"]) -> ndarray:
        return np.array(
            [statistic(*(np.repeat(one, drawn, axis=0) for one in values)) for drawn in times]
        )

    low, high = redrawn_ends(of_each, rows.pop(), repeats=repeats, seed=seed)
    return float(low), float(high)


def redrawn_ends(
    statistic: Callable[[Int[ndarray, "some rows"]], Float[ndarray, "some ..."]],
    rows: int,
    *,
    repeats: int,
    seed: int,
) -> Float[ndarray, "2 ..."]:
    """The ends of intervals as `bootstrap_interval` has them, of figures by weight.

    `statistic` is told how often each of some redrawn data sets has each row. The ends are NaN
    where one of them has no such figure.
    """
    _check_repeats(repeats)
    if rows < 2:
        raise MetricError("A bootstrap needs two rows at least: add clips.")
    generator, step = np.random.default_rng(seed), max(1, 2**22 // rows)
    redrawn = []
    for first in range(0, repeats, step):
        drawn = (generator.integers(rows, size=rows) for _ in range(min(step, repeats - first)))
        redrawn.append(statistic(np.stack([np.bincount(one, minlength=rows) for one in drawn])))
    return np.quantile(np.concatenate(redrawn), _ENDS, axis=0)


def runs_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval (low, high) of the mean over runs that differ in their seed alone.

    Student's t interval ("The probable error of a mean", Biometrika 6, 1908), the paper's "95 %
    confidence intervals": the figures of further runs, trained alike, are taken to be normal around
    that mean, about which it lies evenly. `MetricError` if there are fewer than two runs, or a
    value is not finite.
    """
    if len(values) < 2:
        raise MetricError(
            f"An interval over runs needs two runs at least, not {len(values)}: train another with "
            "a different seed."
        )
    runs = np.asarray(values, float)
    if not np.isfinite(runs).all():
        raise MetricError(f"A run came to no number ({runs.tolist()}): leave it out and say so.")
    half_width = stats.t.ppf(_ENDS[1], len(runs) - 1) * stats.sem(runs)
    return float(runs.mean() - half_width), float(runs.mean() + half_width)


def _check_repeats(repeats: int) -> None:
    if repeats < 1:
        raise MetricError(f"repeats {repeats} is impossible: choose 1 or more, such as 2000.")


def crossed_interval(
    first: Float[ndarray, "seeds clips"],
    second: Float[ndarray, "others clips"],
    recordings: Sequence[str],
    *,
    paired: bool,
) -> tuple[float, float]:
    """The 95 % interval of a difference of means, over recordings and over seeds.

    Other seeds would give another difference, and so would other recordings. Both variances are
    estimated, each from means over the other factor, and added: two-way clustering (A. C. Cameron,
    J. B. Gelbach and D. L. Miller, "Robust inference with multiway clustering", Journal of Business
    & Economic Statistics 29, 2011), cautious in that what depends on seed and recording at once is
    counted twice. The half-width is Student's t times the root, with Satterthwaite's degrees of
    freedom (Biometrics Bulletin 2, 1946), so that three seeds, or six speakers, do not pass for
    many. With one seed on either side that side's share of the first variance is left out.
    """
    by_clip = first.mean(axis=0) - second.mean(axis=0)
    mean = float(by_clip.mean())
    names, cluster = np.unique(np.asarray(recordings), return_inverse=True)
    sums = np.bincount(cluster, weights=by_clip - mean)
    count = len(names)
    parts = [(count / (count - 1) * np.sum(sums**2) / len(by_clip) ** 2, count - 1)]
    for side in (first - second,) if paired else (first, second):
        if len(side) > 1:
            parts.append((np.var(side.mean(axis=1), ddof=1) / len(side), len(side) - 1))
    whole = sum(part for part, _ in parts)
    if whole == 0:
        return mean, mean
    freedom = whole**2 / sum(part**2 / own for part, own in parts)
    half = float(stats.t.ppf(_ENDS[1], freedom) * np.sqrt(whole))
    return mean - half, mean + half


def sign_flip_test(
    differences: Float[ndarray, "clips ..."], *, flips: int = 9999, seed: int = 0
) -> Float[ndarray, "*tests"]:
    """Two-sided p-values of "the mean difference is zero", by flipping the signs of differences.

    Were the two treatments alike, each clip's difference would be as likely with the other sign.
    All tests, of shape (...), use the same flips. NaN differences, of shape (clips, ...), are left
    out; where none could be measured, or all are zero, p is 1. The least is 1 / (flips + 1): the
    observed signs are counted as one of the draws (E. S. Edgington, "Randomization tests", 1980;
    B. Phipson and G. K. Smyth, "Permutation p-values should never be zero", 2010).
    """
    flat = np.nan_to_num(differences.reshape(len(differences), -1).astype(np.float64))
    generator = np.random.default_rng(seed)
    # Sums of the same numbers in another order differ by rounding: that is not a difference.
    observed = np.abs(flat.sum(axis=0)) - 1e-9 * np.abs(flat).sum(axis=0)
    extreme = np.zeros(flat.shape[1], int)
    left = flips
    while left > 0:
        count = min(left, max(_DRAWN // max(len(flat), 1), 1))
        signs = generator.integers(0, 2, (count, len(flat)), dtype=np.int8) * 2.0 - 1.0
        extreme += (np.abs(signs @ flat) >= observed).sum(axis=0)
        left -= count
    return ((1 + extreme) / (1 + flips)).reshape(differences.shape[1:])


def mcnemar_test(first: Bool[ndarray, " clips"], second: Bool[ndarray, " clips"]) -> float:
    """Two-sided p-value of "both classify as many clips correctly", exact; 1 where none differs.

    Were both equally good, either would win a clip that tells them apart with probability one half
    (Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12, 1947).
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def holm(p: Float[ndarray, "*tests"]) -> Float[ndarray, "*tests"]:
    """P-values of tests that are read together, adjusted so that one below 0.05 is rare among them.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979.

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    flat = p.reshape(-1)
    order = np.argsort(flat, kind="stable")
    adjusted = np.empty_like(flat)
    adjusted[order] = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    return np.minimum(adjusted, 1.0).reshape(p.shape)
