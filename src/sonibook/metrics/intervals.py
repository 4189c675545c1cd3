"""How sure one can be of a figure: intervals over clips, and over runs.

Two questions, not to be confused. Over clips (`wilson_interval`, `bootstrap_means`,
`bootstrap_interval`): how would *this* network do on other clips of the same kind? Over runs
(`runs_interval`, the paper's): how would the figure come out if training were done again?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from scipy import stats

from sonibook.errors import MetricError


def wilson_interval(correct: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a share that was counted, such as an accuracy.

    Wilson's score interval: unlike the normal approximation it keeps within [0, 1] and its
    coverage near 0 and 1. It takes clips as independent; clips cut from one recording are not
    quite.

    Parameters
    ----------
    correct, total : int, 0 <= correct <= total, total >= 1
    confidence : float in (0, 1)

    Returns
    -------
    tuple of float
        Lower and upper end, in [0, 1].

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22, 1927.

    Examples
    --------
    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    interval = stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_means(
    values: Float[ndarray, "clips quantities"],
    clusters: Sequence[Any] | Shaped[ndarray, " clips"] | None = None,
    *,
    repeats: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[Float[ndarray, " quantities"], Float[ndarray, " quantities"]]:
    """Confidence intervals of the means of many quantities over clips.

    The percentile bootstrap, as `bootstrap_interval`. All quantities are redrawn with the same
    clips, so that a redrawn mean is a product of matrices: quick, however many there are.

    Parameters
    ----------
    values : ndarray, shape (clips, quantities)
        NaN where a quantity was not measured. It is left out of each redrawn mean; a redrawn data
        set without any value of a quantity is left out of its interval.
    clusters : sequence of length clips, or None
        As for `bootstrap_interval`; the means stay means over clips.
    repeats : int >= 1
    seed : int >= 0
    confidence : float in (0, 1)

    Returns
    -------
    low, high : ndarray, shape (quantities,)
        NaN where fewer than two clips, or clusters, have a value.

    Raises
    ------
    MetricError
        If `clusters` is of another length, or `repeats` or `confidence` is out of its range.

    Examples
    --------
    >>> low, high = bootstrap_means(np.arange(100.0)[:, None])
    >>> bool(low[0] < 49.5 < high[0])
    True
    """
    _check_confidence(confidence)
    _check_repeats(repeats)
    count, cluster = _cluster_of(len(values), clusters)
    sums, numbers = np.nan_to_num(values), (~np.isnan(values)).astype(float)
    if clusters is not None:  # what is drawn is a cluster: the sum and the number of its values
        members = np.eye(count)[:, cluster]
        sums, numbers = members @ sums, members @ numbers
    low, high = np.full((2, values.shape[1]), np.nan)
    judged = np.count_nonzero(numbers, axis=0) > 1
    if judged.any():
        ends = _ends_of_ratios(sums[:, judged], numbers[:, judged], repeats, seed, confidence)
        low[judged], high[judged] = ends
    return low, high


def bootstrap_ratio(
    values: Float[ndarray, " clips"], of: Float[ndarray, " clips"], *, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of a ratio of means over the same clips; NaN of fewer than two clips."""
    if len(values) < 2:
        return np.nan, np.nan
    low, high = _ends_of_ratios(values[:, None], of[:, None], 2000, seed, 0.95)
    return float(low[0]), float(high[0])


def _ends_of_ratios(
    above: Float[ndarray, "rows quantities"],
    below: Float[ndarray, "rows quantities"],
    repeats: int,
    seed: int,
    confidence: float,
) -> tuple[Float[ndarray, " quantities"], Float[ndarray, " quantities"]]:
    """Percentile intervals of ratios of sums; a redrawn one without any value below is left out."""
    times = _times_drawn(len(above), repeats, seed)
    drawn = times @ below
    ratios = np.full(drawn.shape, np.nan)
    np.divide(times @ above, drawn, out=ratios, where=drawn > 0)
    low, high = np.nanquantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


@lru_cache(maxsize=2)
def _times_drawn(count: int, repeats: int, seed: int) -> Float[ndarray, "repeats count"]:
    """How often each of `count` rows is drawn, repeat by repeat."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), size=repeats).astype(float)


def bootstrap_interval(
    *values: Shaped[ndarray, "rows ..."],
    statistic: Callable[..., Any] = np.mean,
    clusters: Sequence[Any] | Shaped[ndarray, " rows"] | None = None,
    repeats: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Confidence interval of any statistic, by drawing the rows again with replacement.

    The percentile bootstrap: the middle `confidence` of the statistic over `repeats` redrawn data
    sets of the same number of rows. Where rows belong together, such as clips cut from one
    recording, draw whole clusters: their rows say less than as many independent ones.

    Parameters
    ----------
    *values : ndarray, shape (rows, ...)
        Arrays whose rows are drawn together, such as the scores and the targets of clips.
    statistic : callable
        Takes as many arrays as there are `values`, and gives a number. A class that a redrawn
        data set has no clip of is left out by the means over classes, there alone.
    clusters : sequence of length rows, or None
        What each row belongs to (any names or numbers); None for rows that stand alone.
    repeats : int >= 1
    seed : int >= 0
    confidence : float in (0, 1)

    Returns
    -------
    tuple of float
        Lower and upper end.

    Raises
    ------
    MetricError
        If the arrays are empty or of different lengths, there are fewer than two clusters, or
        `repeats` or `confidence` is out of its range.

    References
    ----------
    B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.

    Examples
    --------
    >>> low, high = bootstrap_interval(np.arange(100.0))
    >>> low < 49.5 < high
    True
    """
    rows = {len(one) for one in values} | ({len(clusters)} if clusters is not None else set())
    if len(rows) != 1 or rows == {0}:
        raise MetricError(f"A bootstrap needs arrays of as many rows each, not of {sorted(rows)}.")
    _check_confidence(confidence)
    _check_repeats(repeats)
    (size,) = rows
    count, cluster = _cluster_of(size, clusters)
    if count < 2:
        raise MetricError("A bootstrap needs two rows or clusters at least: add clips.")
    generator = np.random.default_rng(seed)
    redrawn = np.empty(repeats)
    for repeat in range(repeats):
        times = np.bincount(generator.integers(count, size=count), minlength=count)
        index = np.repeat(np.arange(size), times[cluster])
        redrawn[repeat] = statistic(*(one[index] for one in values))
    low, high = np.quantile(redrawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def runs_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of the mean over runs that differ in their seed alone.

    Student's t interval, the paper's "95 % confidence intervals": the figures of further runs,
    trained alike, are taken to be normal around that mean. It lies evenly about the mean of
    `values`, so that it can be printed as mean ± half its width.

    Parameters
    ----------
    values : sequence of float, of length two or more
        The figure that each run came to.
    confidence : float in (0, 1)

    Returns
    -------
    tuple of float
        Lower and upper end.

    Raises
    ------
    MetricError
        If there are fewer than two runs, a value is not finite, or `confidence` is out of range.

    References
    ----------
    Student, "The probable error of a mean", Biometrika 6, 1908.

    Examples
    --------
    >>> low, high = runs_interval([0.42, 0.44, 0.43])
    >>> round(low, 3), round(high, 3)
    (0.405, 0.455)
    """
    _check_confidence(confidence)
    if len(values) < 2:
        raise MetricError(
            f"An interval over runs needs two runs at least, not {len(values)}: train another with "
            "a different seed."
        )
    runs = np.asarray(values, float)
    if not np.isfinite(runs).all():
        raise MetricError(f"A run came to no number ({runs.tolist()}): leave it out and say so.")
    half_width = stats.t.ppf((1 + confidence) / 2, len(runs) - 1) * stats.sem(runs)
    return float(runs.mean() - half_width), float(runs.mean() + half_width)


def _cluster_of(
    rows: int, clusters: Sequence[Any] | Shaped[ndarray, " rows"] | None
) -> tuple[int, Shaped[ndarray, " rows"]]:
    """How many clusters there are, and which of them each row is in."""
    if clusters is None:
        return rows, np.arange(rows)
    if len(clusters) != rows:
        raise MetricError(f"A bootstrap of {rows} rows got clusters of {len(clusters)}.")
    names, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    return len(names), cluster


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
    estimated, each from means over the other factor, and added: two-way clustering (Cameron,
    Gelbach and Miller 2011), cautious in that what depends on seed and recording at once is counted
    twice. The half-width is Student's t times the root, with Satterthwaite's degrees of freedom, so
    that three seeds, or six speakers, do not pass for many. With one seed on either side that
    side's share of the first variance is left out.

    References
    ----------
    A. C. Cameron, J. B. Gelbach and D. L. Miller, "Robust inference with multiway clustering",
    Journal of Business & Economic Statistics 29, 2011.

    F. E. Satterthwaite, "An approximate distribution of estimates of variance components",
    Biometrics Bulletin 2, 1946.
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
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(whole))
    return mean - half, mean + half


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise MetricError(f"confidence {confidence} is impossible: choose between 0 and 1.")
