"""Augmentations of a batch of waveforms.

Each takes waveforms of shape (batch, 1, time) and `RandomStreams`, one for each row, and returns a
new tensor of the same shape. Shapes never depend on what is drawn.

Gain, noise, mask, mix-back and mixup are the paper's (appendix A.2 and A.3). The others are ours:
what a microphone, a room or a loudspeaker does to a sound, and another sound behind it. Those that
filter are in `sonibook.training.filters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sonibook.training.config import AugmentConfig
from sonibook.training.filters import randomly_filtered
from sonibook.training.random_streams import RandomStreams

Waveforms = Float[Tensor, "batch 1 time"]
Targets = Float[Tensor, "batch classes"]


def _rms(x: Waveforms) -> Float[Tensor, "batch 1 1"]:
    return x.square().mean(dim=2, keepdim=True).sqrt()


def random_gain(x: Waveforms, *, max_db: float = 6.0, streams: RandomStreams) -> Waveforms:
    """Change the level of each clip by up to `max_db` dB, up or down.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    max_db : float >= 0, in dB
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    return x * 10 ** (streams.uniform(-max_db, max_db) / 20)


def gaussian_noise(
    x: Waveforms, *, min_snr_db: float = 15.0, max_snr_db: float = 50.0, streams: RandomStreams
) -> Waveforms:
    """Add white Gaussian noise at a random signal-to-noise ratio.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    min_snr_db, max_snr_db : float, in dB re the clip's own RMS
        The ratio is uniform between them.
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    level = _rms(x) * 10 ** (-streams.uniform(min_snr_db, max_snr_db) / 20)
    return x + level * streams.normal(x.shape[2])


def time_mask(x: Waveforms, *, max_share: float = 0.2, streams: RandomStreams) -> Waveforms:
    """Silence one stretch of each clip, of random length and place.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    max_share : float in [0, 1]
        Longest stretch, as a share of the clip.
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    length = streams.uniform(0.0, max_share)
    start = streams.uniform() * (1.0 - length)
    time = torch.linspace(0.0, 1.0, x.shape[2])
    return x * ~((time >= start) & (time < start + length))


def mix_back(
    x: Waveforms, *, min_snr_db: float = 0.0, max_snr_db: float = 30.0, streams: RandomStreams
) -> Waveforms:
    """Put another clip of the batch into the background of each, at a random ratio of levels.

    The paper's background noise injection, akin to the mix-back of Fonseca et al. 2021. What is
    mixed in is one of the crops that a contrastive loss pushes this one away from, though it now
    holds both: `background` takes it from elsewhere.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    min_snr_db, max_snr_db : float, in dB, RMS of the clip re RMS of the background
        The ratio is uniform between them. A silent background adds nothing.
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    other = x[streams.partners()]
    return background(x, other, min_snr_db=min_snr_db, max_snr_db=max_snr_db, streams=streams)


def background(
    x: Waveforms,
    behind: Waveforms,
    *,
    min_snr_db: float = 0.0,
    max_snr_db: float = 25.0,
    streams: RandomStreams,
) -> Waveforms:
    """Put a given sound into the background of each clip, at a random ratio of levels.

    Parameters
    ----------
    x, behind : Tensor, shape (batch, 1, time)
    min_snr_db, max_snr_db : float, in dB, RMS of the clip re RMS of the background
        The ratio is uniform between them. A silent background adds nothing.
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, time)
    """
    level = _rms(x) * 10 ** (-streams.uniform(min_snr_db, max_snr_db) / 20)
    return x + behind * (level / _rms(behind).clamp_min(1e-8))


def mixup(
    x: Waveforms, targets: Targets, *, alpha: float, streams: RandomStreams
) -> tuple[Waveforms, Targets]:
    """Mix each clip, and its targets, with another of the batch (Zhang et al. 2017).

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    targets : Tensor, shape (batch, classes), in [0, 1]
    alpha : float > 0
        Both parameters of the Beta distribution that the share of the first clip is drawn from.
    streams : RandomStreams

    Returns
    -------
    tuple of Tensor
        Mixed waveforms and targets, of the shapes given.
    """
    share, partner = streams.beta(alpha), streams.partners()
    mixed = share * x + (1 - share) * x[partner]
    return mixed, share[:, :, 0] * targets + (1 - share[:, :, 0]) * targets[partner]


def change_speed(
    x: Float[Tensor, "batch 1 longer"], *, most: float = 0.25, samples: int, streams: RandomStreams
) -> Waveforms:
    """Play each clip faster or slower, its pitch with it, by linear interpolation.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, longer)
        At least ``(1 + most) * samples`` long, for the fastest; what is shorter ends in its last
        sample, held.
    most : float > 0
        Factors lie between ``1 / (1 + most)`` and ``1 + most``, their logarithms uniform.
    samples : int > 0
        Length of the result.
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, samples)
    """
    octaves = math.log2(1 + most)
    place = 2 ** streams.uniform(-octaves, octaves) * torch.arange(samples)
    place = place.clamp_max(x.shape[2] - 1)
    before = place.long().clamp_max(max(x.shape[2] - 2, 0))
    first = x.gather(2, before)
    after = x.gather(2, (before + 1).clamp_max(x.shape[2] - 1))
    return torch.lerp(first, after, place - before)


def _sometimes(
    x: Waveforms,
    share: float,
    streams: RandomStreams,
    change: Callable[[Waveforms, RandomStreams], Waveforms],
) -> Waveforms:
    """A change of a random share of the crops."""
    chosen = streams.chosen(share)
    if chosen.all():
        return change(x, streams)
    if chosen.any():
        x = x.clone()
        x[chosen] = change(x[chosen], streams.where(chosen))
    return x


def source_samples(config: AugmentConfig | None, samples: int) -> int:
    """How long a crop must be cut for `augmented` to make `samples` of it."""
    speed = None if config is None else config.speed
    return samples if speed is None else math.ceil((1 + speed) * samples)


def augmented(
    x: Float[Tensor, "batch 1 longer"],
    targets: Targets,
    *,
    config: AugmentConfig,
    streams: RandomStreams,
    samples: int | None = None,
    backgrounds: Callable[[RandomStreams], Waveforms] | None = None,
) -> tuple[Waveforms, Targets]:
    """All augmentations that a configuration asks for.

    In this order: speed, the filters, mixing, mask, noise, polarity, level, gain.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, source_samples(config, samples))
    targets : Tensor, shape (batch, classes)
    config : AugmentConfig
    streams : RandomStreams
    samples : int or None
        Length of the result; None is that of `x`.
    backgrounds : callable or None
        Gives a sound of `samples` for each row of the streams that it is given.

    Returns
    -------
    tuple of Tensor
        Waveforms, of shape (batch, 1, samples), and targets, of the shape given.
    """
    samples, shares = x.shape[2] if samples is None else samples, config.shares
    if config.speed is not None:
        most, chosen = config.speed, streams.chosen(shares.speed)
        source, x = x, x[:, :, :samples].clone()
        if chosen.any():
            x[chosen] = change_speed(
                source[chosen], most=most, samples=samples, streams=streams.where(chosen)
            )
    x = randomly_filtered(x, config=config, streams=streams)
    if config.mixup_alpha is not None:
        x, targets = mixup(x, targets, alpha=config.mixup_alpha, streams=streams)
    if (least := config.mix_back_min_snr_db) is not None:
        x = mix_back(x, min_snr_db=least, streams=streams)
    if (least := config.background_min_snr_db) is not None and backgrounds is not None:
        x = _sometimes(
            x,
            shares.background,
            streams,
            lambda x, some: background(x, backgrounds(some), min_snr_db=least, streams=some),
        )
    if (longest := config.time_mask_share) is not None:
        x = _sometimes(
            x,
            shares.time_mask,
            streams,
            lambda x, some: time_mask(x, max_share=longest, streams=some),
        )
    if (quietest := config.noise_min_snr_db) is not None:
        x = _sometimes(
            x,
            shares.noise,
            streams,
            lambda x, some: gaussian_noise(x, min_snr_db=quietest, streams=some),
        )
    if config.polarity:
        x = x * (1 - 2 * streams.kept(0.5, 1)[:, :, None])
    if config.level_db is not None:
        x = random_level(x, most_db=config.level_db, streams=streams)
    if config.gain_db is not None:
        x = random_gain(x, max_db=config.gain_db, streams=streams)
    return x, targets


def random_level(x: Waveforms, *, most_db: float = 12.0, streams: RandomStreams) -> Waveforms:
    """Scale each clip to a peak of 1, then lower it by a random number of dB.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
        A silent clip stays silent.
    most_db : float >= 0, in dB
        The number is uniform from 0 to this.
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, time), in [-1, 1]
    """
    peak = x.abs().amax(dim=2, keepdim=True).clamp_min(1e-8)
    return x / peak * 10 ** (-streams.uniform(0.0, most_db) / 20)
