"""Magnitude-squared coherence between sounds and their sonifications (paper, section 4.2).

Welch's method with scipy's defaults, for batches. Three things that coherence cannot do, and that
a reading of it must allow for:

- It is a ratio of averages over segments. With one segment (up to `nperseg` samples) it is 1 for
  any two signals, so such signals are refused.
- It sees neither gain nor sign: x, -x and 0.01 x are all perfectly coherent.
- Where a signal is silent it is 0/0: such a pair gives NaN, never a number.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sonibook.errors import AudioError

#: Pairs computed together: their segments, a few megabytes, stay in the cache.
_PAIRS = 2


def coherence(
    x: Float[Tensor, "*batch time"],
    y: Float[Tensor, "*pairs samples"],
    *,
    sample_rate: float = 8000.0,
    nperseg: int = 256,
    noverlap: int | None = None,
) -> tuple[Float[Tensor, " frequency"], Float[Tensor, "*batch frequency"]]:
    """Magnitude-squared coherence of pairs of signals (paper, equation 2; Welch 1967).

    Equal to ``scipy.signal.coherence(x, y, fs=sample_rate, nperseg=nperseg, noverlap=noverlap)``:
    Hann window, each segment's mean taken away.

    Parameters
    ----------
    x, y : Tensor, shape (..., time)
        Pairs of signals, in float64 or float32; `time` must exceed `nperseg`.
    sample_rate : float > 0, in Hz
    nperseg : int >= 2, in samples
        Length of a segment.
    noverlap : int from 0 to nperseg - 1, or None
        Samples that neighbouring segments share; None for half.

    Returns
    -------
    frequency : Tensor, shape (nperseg // 2 + 1,), in Hz
    coherence : Tensor, shape (..., nperseg // 2 + 1), in [0, 1]
        NaN where one of the two has no power at that frequency (a silent signal: everywhere).

    Raises
    ------
    AudioError
        If the shapes differ, or the signals hold fewer than two segments.
    ValueError
        If `noverlap` leaves no step.
    """
    shared = nperseg // 2 if noverlap is None else noverlap
    if nperseg < 2 or not 0 <= shared < nperseg:
        raise ValueError(f"nperseg {nperseg} and noverlap {shared} do not make segments.")
    if x.shape != y.shape:
        raise AudioError(f"Signals of shapes {tuple(x.shape)} and {tuple(y.shape)} are no pairs.")
    step = nperseg - shared
    if x.shape[-1] < nperseg + step:
        raise AudioError(
            f"Signals of {x.shape[-1]} samples hold one segment of {nperseg} at most, and over one "
            "segment the coherence is 1 whatever the signals: use longer ones or a shorter nperseg."
        )
    window = torch.hann_window(nperseg, dtype=x.dtype, device=x.device)
    pairs = zip(
        x.reshape(-1, x.shape[-1]).split(_PAIRS),
        y.reshape(-1, x.shape[-1]).split(_PAIRS),
        strict=True,
    )
    rows = [
        _ratio(_spectra(a, window, step), _spectra(b, window, step)).to(x.dtype) for a, b in pairs
    ]
    frequency = torch.fft.rfftfreq(nperseg, 1 / sample_rate, dtype=x.dtype, device=x.device)
    bins = frequency.shape[0]
    result = torch.cat(rows) if rows else x.new_zeros(0, bins)
    return frequency, result.reshape(*x.shape[:-1], bins)


def _spectra(x: Tensor, window: Tensor, step: int) -> Tensor:
    """Spectra of the windowed segments without their means, (pair, segment, frequency, 2)."""
    segments = x.unfold(1, window.shape[0], step)
    centred = (segments - segments.mean(dim=2, keepdim=True)).mul_(window)
    return torch.view_as_real(torch.fft.rfft(centred))


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """|sum A* B|^2 / (sum |A|^2 sum |B|^2), summed over segments."""
    # Over segments first: summing two dimensions at once takes ten times as long.
    power_a = (a * a).sum(dim=1).sum(dim=2)
    power_b = (b * b).sum(dim=1).sum(dim=2)
    cross = (torch.view_as_complex(a).conj() * torch.view_as_complex(b)).sum(dim=1)
    ratio = torch.view_as_real(cross).square().sum(dim=2) / (power_a * power_b)
    return ratio.clamp_max(1.0)  # rounding may go beyond


def mean_top_coherence(
    x: Float[Tensor, "*batch time"],
    y: Float[Tensor, "*pairs samples"],
    *,
    k: int = 5,
    nperseg: int = 256,
    noverlap: int | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean of the `k` most coherent frequencies of each pair (paper, equation 3, with k = 5).

    Takes and raises what `coherence` does; `ValueError` if there are fewer than `k` frequencies.

    Returns
    -------
    Tensor, shape (...), in [0, 1]
        NaN for a pair of which one is silent: skip and count those.

    Examples
    --------
    >>> x = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    >>> float(mean_top_coherence(x, -0.1 * x))
    1.0
    """
    bins = nperseg // 2 + 1
    if not 1 <= k <= bins:
        raise ValueError(f"k {k} is impossible: choose 1 to {bins}.")
    _, values = coherence(x, y, nperseg=nperseg, noverlap=noverlap)
    silent = values.isnan().all(dim=-1)
    top = values.nan_to_num(nan=0.0).topk(k, dim=-1).values.mean(dim=-1)
    return top.masked_fill(silent, torch.nan)
