"""Augmentations of a batch of waveforms.

Each takes waveforms of shape (batch, 1, time) and `RandomStreams`, one for each row, and returns a
new tensor of the same shape. Shapes never depend on what is drawn.

Gain, noise, mask, mix-back and mixup are the paper's (appendix A.2 and A.3). The others are ours:
what a microphone, a room or a loudspeaker does to a sound, and another sound behind it. Those that
filter give a response over frequency, so that several cost one Fourier transform (`filtered`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sonibook.audio import SAMPLE_RATE
from sonibook.training.config import AugmentConfig
from sonibook.training.sampling import RandomStreams

_Waveforms = Float[Tensor, "batch 1 time"]
_Targets = Float[Tensor, "batch classes"]
_Frequencies = Float[Tensor, " frequency"]
_Response = Float[Tensor, "batch 1 frequency"]

#: Samples of the longest reverberation, and of the silence that a filter may ring on into.
_ROOM_SAMPLES = SAMPLE_RATE // 2
#: Where the equaliser draws its gains: evenly spaced in octaves.
EQUALISED_HZ = tuple(20.0 * 200.0 ** (knot / 6) for knot in range(7))


def _rms(x: _Waveforms) -> Float[Tensor, "batch 1 1"]:
    return x.square().mean(dim=2, keepdim=True).sqrt()


def random_gain(x: _Waveforms, *, max_db: float = 6.0, streams: RandomStreams) -> _Waveforms:
    """Change the level of each clip by up to `max_db` dB, up or down.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    max_db : float >= 0, in dB
    streams : RandomStreams
    """
    return x * 10 ** (streams.uniform(-max_db, max_db) / 20)


def random_level(x: _Waveforms, *, most_db: float = 12.0, streams: RandomStreams) -> _Waveforms:
    """Scale each clip to a peak of 1, then lower it by a random number of dB; silence stays."""
    peak = x.abs().amax(dim=2, keepdim=True).clamp_min(1e-8)
    return x / peak * 10 ** (-streams.uniform(0.0, most_db) / 20)


def gaussian_noise(
    x: _Waveforms, *, min_snr_db: float = 15.0, max_snr_db: float = 50.0, streams: RandomStreams
) -> _Waveforms:
    """Add white Gaussian noise at a random signal-to-noise ratio.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    min_snr_db, max_snr_db : float, in dB re the clip's own RMS
        The ratio is uniform between them.
    streams : RandomStreams
    """
    level = _rms(x) * 10 ** (-streams.uniform(min_snr_db, max_snr_db) / 20)
    return x + level * streams.normal(x.shape[2])


def time_mask(x: _Waveforms, *, max_share: float = 0.2, streams: RandomStreams) -> _Waveforms:
    """Silence one stretch of each clip, of random length and place.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    max_share : float in [0, 1]
        Longest stretch, as a share of the clip.
    streams : RandomStreams
    """
    length = streams.uniform(0.0, max_share)
    start = streams.uniform() * (1.0 - length)
    time = torch.linspace(0.0, 1.0, x.shape[2])
    return x * ~((time >= start) & (time < start + length))


def mix_back(
    x: _Waveforms, *, min_snr_db: float = 0.0, max_snr_db: float = 30.0, streams: RandomStreams
) -> _Waveforms:
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
    """
    other = x[streams.partners()]
    return background(x, other, min_snr_db=min_snr_db, max_snr_db=max_snr_db, streams=streams)


def background(
    x: _Waveforms,
    behind: _Waveforms,
    *,
    min_snr_db: float = 0.0,
    max_snr_db: float = 25.0,
    streams: RandomStreams,
) -> _Waveforms:
    """Put a given sound into the background of each clip, as `mix_back` puts another clip."""
    level = _rms(x) * 10 ** (-streams.uniform(min_snr_db, max_snr_db) / 20)
    return x + behind * (level / _rms(behind).clamp_min(1e-8))


def mixup(
    x: _Waveforms, targets: _Targets, *, alpha: float, streams: RandomStreams
) -> tuple[_Waveforms, _Targets]:
    """Mix each clip, and its targets, with another of the batch (Zhang et al. 2017).

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    targets : Tensor, shape (batch, classes), in [0, 1]
    alpha : float > 0
        Both parameters of the Beta distribution that the share of the first clip is drawn from.
    streams : RandomStreams
    """
    share, partner = streams.beta(alpha), streams.partners()
    mixed = share * x + (1 - share) * x[partner]
    return mixed, share[:, :, 0] * targets + (1 - share[:, :, 0]) * targets[partner]


def change_speed(
    x: Float[Tensor, "batch 1 longer"], *, most: float = 0.25, samples: int, streams: RandomStreams
) -> _Waveforms:
    """Play each clip 1 / (1 + `most`) to 1 + `most` times as fast, its pitch with it.

    By linear interpolation; what is shorter than (1 + most) * samples ends in its last sample.
    """
    octaves = math.log2(1 + most)
    place = 2 ** streams.uniform(-octaves, octaves) * torch.arange(samples)
    place = place.clamp_max(x.shape[2] - 1)
    before = place.long().clamp_max(max(x.shape[2] - 2, 0))
    first = x.gather(2, before)
    after = x.gather(2, (before + 1).clamp_max(x.shape[2] - 1))
    return torch.lerp(first, after, place - before)


def equalisation(
    frequencies: _Frequencies, max_db: float = 12.0, *, streams: RandomStreams
) -> _Response:
    """A random smooth equaliser: gains at seven frequencies, an octave and a quarter apart.

    Between two of them decibels are linear in the logarithm of frequency; the phase stays.
    """
    octaves = frequencies.clamp(EQUALISED_HZ[0], EQUALISED_HZ[-1]).log2()
    knots = torch.tensor(EQUALISED_HZ).log2()
    spacing = (knots[-1] - knots[0]) / (len(knots) - 1)
    # Each knot's share in every frequency: a triangle around it.
    hats = (1 - (octaves - knots[:, None]).abs() / spacing).clamp_min(0)
    gains = torch.cat([streams.uniform(-max_db, max_db) for _ in EQUALISED_HZ], dim=2)
    return ((math.log(10) / 20) * (gains @ hats)).exp()


def low_pass(
    frequencies: _Frequencies, lowest_hz: float = 800.0, *, streams: RandomStreams
) -> _Response:
    """The magnitude of a fourth-order Butterworth low-pass, its corner up to 3,500 Hz."""
    corner = _log_uniform(lowest_hz, 3500.0, streams)
    return (1 + (frequencies / corner) ** 8).rsqrt()


def high_pass(
    frequencies: _Frequencies, highest_hz: float = 800.0, *, streams: RandomStreams
) -> _Response:
    """The magnitude of a second-order Butterworth high-pass, its corner from 80 Hz on."""
    ratio = (frequencies / _log_uniform(80.0, highest_hz, streams)) ** 2
    return ratio * (1 + ratio.square()).rsqrt()


def reverberation(
    longest_seconds: float = 0.5, *, streams: RandomStreams
) -> Float[Tensor, "batch 1 half_a_second"]:
    """The impulse response of a synthetic room: the sound itself, then noise that dies away.

    The noise falls by 60 dB in 0.05 s to `longest_seconds`; its energy is 0 to 12 dB below that of
    the first sample, which is 1.
    """
    decay = streams.uniform(0.05, longest_seconds) * SAMPLE_RATE
    below = streams.uniform(0.0, 12.0)
    tail = streams.normal(_ROOM_SAMPLES) * 10 ** (-3 * torch.arange(_ROOM_SAMPLES) / decay)
    tail[:, :, 0] = 0.0
    tail *= 10 ** (-below / 20) / tail.norm(dim=2, keepdim=True)
    tail[:, :, 0] = 1.0
    return tail


def filtered(x: _Waveforms, response: Shaped[Tensor, "batch 1 frequency"]) -> _Waveforms:
    """Waveforms with a response at `filter_frequencies`; what rings on after the end is cut off."""
    size = x.shape[2] + _ROOM_SAMPLES
    return torch.fft.irfft(torch.fft.rfft(x, size) * response, size)[:, :, : x.shape[2]]


def filter_frequencies(samples: int) -> _Frequencies:
    """The frequencies, in Hz, that `filtered` knows of waveforms of that length."""
    return torch.fft.rfftfreq(samples + _ROOM_SAMPLES, 1 / SAMPLE_RATE)


def _log_uniform(low: float, high: float, streams: RandomStreams) -> Float[Tensor, "batch 1 1"]:
    return streams.uniform(math.log(low), math.log(high)).exp()


def _randomly_filtered(x: _Waveforms, config: AugmentConfig, streams: RandomStreams) -> _Waveforms:
    """Equalisation, low-pass, high-pass and reverberation, each on its share of the crops."""
    shares, frequencies = config.shares, filter_frequencies(x.shape[2])
    changes: tuple[tuple[float, float | None, Callable[..., Tensor]], ...] = (
        (shares.equalise, config.equalise_db, partial(equalisation, frequencies)),
        (shares.low_pass, config.low_pass_hz, partial(low_pass, frequencies)),
        (shares.high_pass, config.high_pass_hz, partial(high_pass, frequencies)),
        (shares.reverberation, config.reverberation_seconds, reverberation),
    )
    changed = torch.zeros(len(x), dtype=torch.bool)
    response = torch.ones(len(x), 1, len(frequencies), dtype=torch.complex64)
    for share, value, change in changes:
        if value is not None and (chosen := streams.chosen(share)).any():
            given = change(value, streams=streams.where(chosen))
            if change is reverberation:
                given = torch.fft.rfft(given, x.shape[2] + _ROOM_SAMPLES)
            response[chosen] *= given
            changed |= chosen
    if changed.any():
        x = x.clone()
        x[changed] = filtered(x[changed], response[changed])
    return x


def _sometimes(
    x: _Waveforms, share: float, streams: RandomStreams, change: Callable[..., _Waveforms]
) -> _Waveforms:
    """A change of a random share of the crops."""
    chosen = streams.chosen(share)
    if chosen.all():
        return change(x, streams=streams)
    if chosen.any():
        x = x.clone()
        x[chosen] = change(x[chosen], streams=streams.where(chosen))
    return x


def source_samples(config: AugmentConfig | None, samples: int) -> int:
    """How long a crop must be cut for `augmented` to make `samples` of it."""
    speed = None if config is None else config.speed
    return samples if speed is None else math.ceil((1 + speed) * samples)


def augmented(
    x: Float[Tensor, "batch 1 longer"],
    targets: _Targets,
    *,
    config: AugmentConfig,
    streams: RandomStreams,
    samples: int | None = None,
    backgrounds: Callable[[RandomStreams], _Waveforms] | None = None,
) -> tuple[_Waveforms, _Targets]:
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
    x = _randomly_filtered(x, config, streams)
    if config.mixup_alpha is not None:
        x, targets = mixup(x, targets, alpha=config.mixup_alpha, streams=streams)
    if (least := config.mix_back_min_snr_db) is not None:
        x = mix_back(x, min_snr_db=least, streams=streams)
    if (least := config.background_min_snr_db) is not None and backgrounds is not None:
        put = partial(background, min_snr_db=least)
        x = _sometimes(
            x,
            shares.background,
            streams,
            lambda x, streams: put(x, backgrounds(streams), streams=streams),
        )
    if (longest := config.time_mask_share) is not None:
        x = _sometimes(x, shares.time_mask, streams, partial(time_mask, max_share=longest))
    if (least := config.noise_min_snr_db) is not None:
        x = _sometimes(x, shares.noise, streams, partial(gaussian_noise, min_snr_db=least))
    if config.polarity:
        x = x * (1 - 2 * streams.kept(0.5, 1)[:, :, None])
    if config.level_db is not None:
        x = random_level(x, most_db=config.level_db, streams=streams)
    if config.gain_db is not None:
        x = random_gain(x, max_db=config.gain_db, streams=streams)
    return x, targets
