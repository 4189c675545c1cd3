"""How good a network is, and how sure one can be of that."""

from __future__ import annotations

from scipy import stats


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
