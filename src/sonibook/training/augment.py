"""Augmentations of a batch of waveforms (paper, appendix A.2 and A.3).

Each takes waveforms of shape (batch, 1, time) and `Draws`, one stream of random numbers a row, and
returns a new tensor of the same shape. Shapes never depend on what is drawn.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sonibook.training.config import AugmentConfig
from sonibook.training.draws import Draws

Waveforms = Float[Tensor, "batch 1 time"]
Targets = Float[Tensor, "batch classes"]


def _rms(x: Waveforms) -> Float[Tensor, "batch 1 1"]:
    return x.square().mean(dim=2, keepdim=True).sqrt()


def random_gain(x: Waveforms, *, max_db: float = 6.0, draws: Draws) -> Waveforms:
    """Change the level of each clip by up to `max_db` dB, up or down.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    max_db : float >= 0, in dB
    draws : Draws

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    return x * 10 ** (draws.uniform(-max_db, max_db) / 20)


def gaussian_noise(
    x: Waveforms, *, min_snr_db: float = 15.0, max_snr_db: float = 50.0, draws: Draws
) -> Waveforms:
    """Add white Gaussian noise at a random signal-to-noise ratio.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    min_snr_db, max_snr_db : float, in dB re the clip's own RMS
        The ratio is uniform between them.
    draws : Draws

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    level = _rms(x) * 10 ** (-draws.uniform(min_snr_db, max_snr_db) / 20)
    return x + level * draws.normal(x.shape[2])


def time_mask(x: Waveforms, *, max_share: float = 0.2, draws: Draws) -> Waveforms:
    """Silence one stretch of each clip, of random length and place.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    max_share : float in [0, 1]
        Longest stretch, as a share of the clip.
    draws : Draws

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    length = draws.uniform(0.0, max_share)
    start = draws.uniform() * (1.0 - length)
    time = torch.linspace(0.0, 1.0, x.shape[2])
    return x * ~((time >= start) & (time < start + length))


def mix_back(
    x: Waveforms, *, min_snr_db: float = 0.0, max_snr_db: float = 30.0, draws: Draws
) -> Waveforms:
    """Put another clip of the batch into the background of each, at a random ratio of levels.

    The paper's background noise injection, akin to the mix-back of Fonseca et al. 2021.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    min_snr_db, max_snr_db : float, in dB, RMS of the clip re RMS of the background
        The ratio is uniform between them. A silent background adds nothing.
    draws : Draws

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    background = x[draws.partners()]
    level = _rms(x) * 10 ** (-draws.uniform(min_snr_db, max_snr_db) / 20)
    return x + background * (level / _rms(background).clamp_min(1e-8))


def mixup(
    x: Waveforms, targets: Targets, *, alpha: float, draws: Draws
) -> tuple[Waveforms, Targets]:
    """Mix each clip, and its targets, with another of the batch (Zhang et al. 2017).

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    targets : Tensor, shape (batch, classes), in [0, 1]
    alpha : float > 0
        Both parameters of the Beta distribution that the share of the first clip is drawn from.
    draws : Draws

    Returns
    -------
    tuple of Tensor
        Mixed waveforms and targets, of the shapes given.
    """
    share, partner = draws.beta(alpha), draws.partners()
    mixed = share * x + (1 - share) * x[partner]
    return mixed, share[:, :, 0] * targets + (1 - share[:, :, 0]) * targets[partner]


def augmented(
    x: Waveforms, targets: Targets, *, config: AugmentConfig, draws: Draws
) -> tuple[Waveforms, Targets]:
    """All augmentations that a configuration asks for: mixing first, then mask, noise, gain.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    targets : Tensor, shape (batch, classes)
    config : AugmentConfig
    draws : Draws

    Returns
    -------
    tuple of Tensor
        Waveforms and targets, of the shapes given.
    """
    if config.mixup_alpha is not None:
        x, targets = mixup(x, targets, alpha=config.mixup_alpha, draws=draws)
    if config.mix_back_min_snr_db is not None:
        x = mix_back(x, min_snr_db=config.mix_back_min_snr_db, draws=draws)
    if config.time_mask_share is not None:
        x = time_mask(x, max_share=config.time_mask_share, draws=draws)
    if config.noise_min_snr_db is not None:
        x = gaussian_noise(x, min_snr_db=config.noise_min_snr_db, draws=draws)
    if config.gain_db is not None:
        x = random_gain(x, max_db=config.gain_db, draws=draws)
    return x, targets
