"""How similar two sounds are: by coherence (paper, section 4.2), other measures, and to a listener.

None of them depends on gain or sign, because a sonification's level is arbitrary: x, -x and 0.01 x
are all perfectly coherent. All of them take pairs, and give NaN where one of the two is silent.
Coherence, by Welch's method with scipy's defaults, is a ratio of averages over segments: with one
segment (up to `nperseg` samples) it is 1 for any two signals, so such signals are refused.

References
----------
J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018 (rank correlation, SSIM).
Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE
Transactions on Image Processing 13, 2004.
L. Rabiner and B.-H. Juang, "Fundamentals of speech recognition", 1993, section 4.5 (log-spectral
distance).
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from scipy.stats import rankdata
from torch import Tensor

from sonibook.errors import AudioError

#: Pairs whose coherence is computed together: their segments, a few megabytes, stay in the cache.
_PAIRS = 2
#: Frames of 32 ms at 8 kHz, half of one to the next.
_FRAME, _HOP = 256, 128
_BANDS = 32
#: What is softer than this, in dB re a sound's mean power in a band, is not heard beside the rest.
_FLOOR_DB = -60.0
#: Bands and frames in a window of structural similarity.
_WINDOW = 7

_First = Float[Tensor, "*first time"]
_Second = Float[Tensor, "*second time"]
_Pairs = Float[Tensor, "*pairs"]


def short_time_spectra(
    x: Float[Tensor, "*batch time"], *, frame: int = _FRAME, hop: int = _HOP
) -> Complex[Tensor, "*batch frequency frame"]:
    """Spectra of overlapping frames (Hann windows, zeros beyond both ends)."""
    window = torch.hann_window(frame, dtype=x.dtype, device=x.device)
    return torch.stft(x, frame, hop, window=window, pad_mode="constant", return_complex=True)


def rank_correlation(x: _First, y: _Second) -> _Pairs:
    """Spearman's rank correlation of magnitudes, sample by sample (Adebayo et al. 2018)."""
    a, b = (rankdata(one.detach().abs().cpu().numpy(), axis=-1) for one in (x, y))
    return _correlation(torch.from_numpy(a), torch.from_numpy(b), dims=1)


def mel_levels(
    x: Float[Tensor, "*batch time"], *, sample_rate: float = 8000.0
) -> Float[Tensor, "*batch band frame"]:
    """Levels in 32 mel bands, every 16 ms at 8 kHz: roughly what an ear has of a sound.

    Returns
    -------
    Tensor, shape (..., 32, time // 128 + 1), in dB, >= 0
        Above the floor, which lies 60 dB below the mean power of a band over the sound. NaN for
        silence.
    """
    frames = short_time_spectra(x.reshape(-1, x.shape[-1]))
    bands = _mel_bands(sample_rate).to(x) @ frames.abs().square()
    relative = bands / bands.mean(dim=(1, 2), keepdim=True)
    levels = 10 * relative.clamp_min(10 ** (_FLOOR_DB / 10)).log10() - _FLOOR_DB
    return levels.reshape(*x.shape[:-1], *levels.shape[1:])


@cache
def _mel_bands(sample_rate: float) -> Tensor:
    """Triangles of one area, (band, frequency): white noise is equally loud in all of them."""
    top = 2595.0 * torch.log10(torch.tensor(1.0 + sample_rate / 2 / 700.0, dtype=torch.float64))
    edges = 700.0 * (10 ** (torch.linspace(0, 1, _BANDS + 2) * top / 2595.0) - 1.0)
    low, centre, high = (edges[n : n + _BANDS, None] for n in range(3))
    frequency = torch.linspace(0, sample_rate / 2, _FRAME // 2 + 1, dtype=torch.float64)
    rising, falling = (frequency - low) / (centre - low), (high - frequency) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    return triangles / triangles.sum(dim=1, keepdim=True)


def log_spectral_distance(x: _First, y: _Second) -> _Pairs:
    """By how many decibels two sounds differ in a mel band, as a listener would judge."""
    difference = mel_levels(x) - mel_levels(y)
    return difference.square().mean(dim=-2).sqrt().mean(dim=-1)


def spectrogram_correlation(x: _First, y: _Second) -> _Pairs:
    """Pearson's correlation of two sounds' levels in mel bands, over bands and frames."""
    return _correlation(mel_levels(x), mel_levels(y), dims=2)


def structural_similarity(x: _First, y: _Second) -> _Pairs:
    """SSIM of levels in mel bands, over windows of 7 by 7, by the article's constants for 60 dB."""
    a, b = torch.broadcast_tensors(mel_levels(x).double(), mel_levels(y).double())

    def local_mean(image: Tensor) -> Tensor:
        return F.avg_pool2d(image.reshape(-1, 1, *image.shape[-2:]), _WINDOW, stride=1)

    mean_a, mean_b = local_mean(a), local_mean(b)
    variances = local_mean(a * a) - mean_a**2 + local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * _FLOOR_DB) ** 2, (0.03 * _FLOOR_DB) ** 2
    level = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return (level * structure).mean(dim=(1, 2, 3)).reshape(a.shape[:-2])


def _correlation(a: Tensor, b: Tensor, *, dims: int) -> Tensor:
    """Pearson's correlation over the last `dims` dimensions; NaN where one of the two is flat."""
    over = tuple(range(-dims, 0))
    a, b = a - a.mean(dim=over, keepdim=True), b - b.mean(dim=over, keepdim=True)
    norms = a.square().sum(dim=over).sqrt() * b.square().sum(dim=over).sqrt()
    return ((a * b).sum(dim=over) / norms).clamp(-1.0, 1.0)


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
    some = (one.reshape(-1, one.shape[-1]).split(_PAIRS) for one in (x, y))
    rows = [
        _ratio(_spectra(a, window, step), _spectra(b, window, step)).to(x.dtype)
        for a, b in zip(*some, strict=True)
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
