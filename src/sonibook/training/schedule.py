"""The learning rate, step by step."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, warmup: int, total: int) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine to zero, without restarts.

    Parameters
    ----------
    step : int from 0 to `total`
    warmup, total : int
        Steps of the warm-up and of the whole run.

    Returns
    -------
    float in [0, 1]

    References
    ----------
    Paper, section 3.1; Loshchilov & Hutter 2016.

    Examples
    --------
    >>> [round(warmup_cosine(s, warmup=2, total=6), 2) for s in range(7)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
