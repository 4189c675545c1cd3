"""Whether two treatments of the same clips differ: paired tests, corrected for their number.

A clip is harder or easier whatever is done to it, so treatments are compared clip by clip. A clip
that one of the two could not be measured on is NaN, and counts for neither.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import stats

#: Clips times flips that are drawn together: a hundred megabytes.
_DRAWN = 2**24


def sign_flip_test(
    differences: Float[ndarray, "clips ..."], *, flips: int = 9999, seed: int = 0
) -> Float[ndarray, "*tests"]:
    """Two-sided p-values of "the mean difference is zero", by flipping the signs of differences.

    Were the two treatments alike, each clip's difference would be as likely with the other sign.
    All tests, of shape (...), use the same flips. NaN differences, of shape (clips, ...), are left
    out; where none could be measured, or all are zero, p is 1. The least is 1 / (flips + 1).

    References
    ----------
    E. S. Edgington, "Randomization tests", 1980; the observed signs are counted as one of the
    draws (B. Phipson and G. K. Smyth, "Permutation p-values should never be zero", 2010).
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

    Only clips that one classifies correctly and the other does not tell them apart; were both
    equally good, either would win such a clip with probability one half.

    References
    ----------
    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12, 1947.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def holm(p: Float[ndarray, "*tests"]) -> Float[ndarray, "*tests"]:
    """P-values of all tests that are read together, adjusted so that one below 0.05 is rare among
    them.

    References
    ----------
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
