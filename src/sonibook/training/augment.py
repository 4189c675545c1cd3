"""Augmentations of a batch of waveforms (paper, appendix A.2 and A.3).

Each takes waveforms of shape (batch, 1, time) and a `torch.Generator`, draws one set of random
numbers a clip, and returns a new tensor of the same shape. Shapes never depend on what is drawn,
so that a compiler (XLA) needs to see each function only once.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Waveforms = Float[Tensor, "batch 1 time"]


def _uniform(x: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    """One number a clip, uniform in [low, high), shape (batch, 1, 1)."""
    draws = torch.rand(x.shape[0], 1, 1, generator=generator)
    return (low + (high - low) * draws).to(x.device)


def random_gain(x: Waveforms, *, max_db: float = 6.0, generator: Generator) -> Waveforms:
    """Change the level of each clip by up to `max_db` dB, up or down.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    max_db : float >= 0, in dB
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    return x * 10 ** (_uniform(x, -max_db, max_db, generator) / 20)


def gaussian_noise(
    x: Waveforms, *, min_snr_db: float = 15.0, max_snr_db: float = 50.0, generator: Generator
) -> Waveforms:
    """Add white Gaussian noise at a random signal-to-noise ratio.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    min_snr_db, max_snr_db : float, in dB re the clip's own RMS
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    level = x.square().mean(dim=2, keepdim=True).sqrt()
    level = level * 10 ** (-_uniform(x, min_snr_db, max_snr_db, generator) / 20)
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    return x + level * noise


def time_mask(x: Waveforms, *, max_share: float = 0.2, generator: Generator) -> Waveforms:
    """Silence one stretch of each clip, of random length and place.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    max_share : float in [0, 1]
        Longest stretch, as a share of the clip.
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    length = _uniform(x, 0.0, max_share, generator)
    start = _uniform(x, 0.0, 1.0, generator) * (1.0 - length)
    time = torch.linspace(0.0, 1.0, x.shape[2], device=x.device)
    return x * ~((time >= start) & (time < start + length))


def mixup(
    x: Waveforms, targets: Float[Tensor, "batch classes"], *, alpha: float, generator: Generator
) -> tuple[Waveforms, Float[Tensor, "batch classes"]]:
    """Mix each clip, and its targets, with another of the batch (Zhang et al. 2017).

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    targets : Tensor, shape (batch, classes), in [0, 1]
    alpha : float > 0
        Both parameters of the Beta distribution that the share of the first clip is drawn from.
    generator : torch.Generator

    Returns
    -------
    tuple of Tensor
        Mixed waveforms and targets, of the shapes given.
    """
    # Beta(a, a) from two Gammas; torch's samplers take no generator, so draw a seed for NumPy.
    import numpy as np

    seed = int(torch.randint(2**62, (1,), generator=generator))
    beta = np.random.default_rng(seed).beta(alpha, alpha, size=(x.shape[0], 1, 1))
    share = torch.from_numpy(beta.astype(np.float32)).to(x.device)
    partner = torch.randperm(x.shape[0], generator=generator).to(x.device)
    mixed = share * x + (1 - share) * x[partner]
    return mixed, share[:, :, 0] * targets + (1 - share[:, :, 0]) * targets[partner]
