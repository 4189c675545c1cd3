"""Augmentations that filter: an equaliser, a low- and a high-pass, a room.

Each gives a response over frequency, so that several cost one Fourier transform (`filtered`).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sonibook.audio import SAMPLE_RATE
from sonibook.training.config import AugmentConfig
from sonibook.training.random_streams import RandomStreams

Waveforms = Float[Tensor, "batch 1 time"]
Frequencies = Float[Tensor, " frequency"]

#: Samples of the longest reverberation, and of the silence that a filter may ring on into.
ROOM_SAMPLES = SAMPLE_RATE // 2
#: Where the equaliser draws its gains: evenly spaced in octaves.
EQUALISED_HZ = tuple(20.0 * 200.0 ** (knot / 6) for knot in range(7))


def equalisation(
    frequencies: Frequencies, *, max_db: float = 12.0, streams: RandomStreams
) -> Float[Tensor, "batch 1 frequency"]:
    """A random smooth equaliser: gains at seven frequencies, an octave and a quarter apart.

    Parameters
    ----------
    frequencies : Tensor, shape (frequency,), in Hz
        Where the response is wanted.
    max_db : float >= 0, in dB
        Each gain is uniform from minus this to this; between two, decibels are linear in the
        logarithm of frequency.
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, frequency), > 0
        The factor on every frequency: the phase stays.
    """
    octaves = frequencies.clamp(EQUALISED_HZ[0], EQUALISED_HZ[-1]).log2()
    knots = torch.tensor(EQUALISED_HZ).log2()
    spacing = (knots[-1] - knots[0]) / (len(knots) - 1)
    # Each knot's share in every frequency: a triangle around it.
    hats = (1 - (octaves - knots[:, None]).abs() / spacing).clamp_min(0)
    gains = torch.cat([streams.uniform(-max_db, max_db) for _ in EQUALISED_HZ], dim=2)
    return ((math.log(10) / 20) * (gains @ hats)).exp()


def low_pass(
    frequencies: Frequencies, *, lowest_hz: float = 800.0, streams: RandomStreams
) -> Float[Tensor, "batch 1 frequency"]:
    """The magnitude of a fourth-order Butterworth low-pass with a random corner.

    Parameters
    ----------
    frequencies : Tensor, shape (frequency,), in Hz
    lowest_hz : float > 0, in Hz
        The corner's logarithm is uniform from this to 3,500 Hz.
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, frequency), in [0, 1]
    """
    corner = _log_uniform(lowest_hz, 3500.0, streams)
    return (1 + (frequencies / corner) ** 8).rsqrt()


def high_pass(
    frequencies: Frequencies, *, highest_hz: float = 800.0, streams: RandomStreams
) -> Float[Tensor, "batch 1 frequency"]:
    """The magnitude of a second-order Butterworth high-pass with a random corner.

    Parameters
    ----------
    frequencies : Tensor, shape (frequency,), in Hz
    highest_hz : float > 0, in Hz
        The corner's logarithm is uniform from 80 Hz to this.
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, frequency), in [0, 1]
    """
    ratio = (frequencies / _log_uniform(80.0, highest_hz, streams)) ** 2
    return ratio * (1 + ratio.square()).rsqrt()


def reverberation(
    *, longest_seconds: float = 0.5, streams: RandomStreams
) -> Float[Tensor, "batch 1 half_a_second"]:
    """The impulse response of a synthetic room: the sound itself, then noise that dies away.

    Parameters
    ----------
    longest_seconds : float from 0.05 to 0.5, in s
        The time in which the noise falls by 60 dB is uniform from 0.05 s to this.
    streams : RandomStreams

    Returns
    -------
    Tensor, shape (batch, 1, 4000)
        1 at the first sample. The energy of all others is 0 to 12 dB below that.
    """
    decay = streams.uniform(0.05, longest_seconds) * SAMPLE_RATE
    below = streams.uniform(0.0, 12.0)
    tail = streams.normal(ROOM_SAMPLES) * 10 ** (-3 * torch.arange(ROOM_SAMPLES) / decay)
    tail[:, :, 0] = 0.0
    tail *= 10 ** (-below / 20) / tail.norm(dim=2, keepdim=True)
    tail[:, :, 0] = 1.0
    return tail


def filtered(x: Waveforms, response: Shaped[Tensor, "batch 1 frequency"]) -> Waveforms:
    """Waveforms with a response over frequency.

    Parameters
    ----------
    x : Tensor, shape (batch, 1, time)
    response : Tensor, shape (batch, 1, frequency)
        At `filter_frequencies` of this time: real, or complex.

    Returns
    -------
    Tensor, shape (batch, 1, time)
        What rings on after the end is cut off.
    """
    size = x.shape[2] + ROOM_SAMPLES
    return torch.fft.irfft(torch.fft.rfft(x, size) * response, size)[:, :, : x.shape[2]]


def filter_frequencies(samples: int) -> Frequencies:
    """The frequencies, in Hz, that `filtered` knows of waveforms of that length."""
    return torch.fft.rfftfreq(samples + ROOM_SAMPLES, 1 / SAMPLE_RATE)


def _log_uniform(low: float, high: float, streams: RandomStreams) -> Float[Tensor, "batch 1 1"]:
    return streams.uniform(math.log(low), math.log(high)).exp()


def randomly_filtered(x: Waveforms, *, config: AugmentConfig, streams: RandomStreams) -> Waveforms:
    """Equalisation, low-pass, high-pass and reverberation, each on its share of the crops."""
    count, shares = len(x), config.shares
    frequencies = filter_frequencies(x.shape[2])
    changed = torch.zeros(count, dtype=torch.bool)
    response = torch.ones(count, 1, len(frequencies), dtype=torch.complex64)
    for share, value, change in (
        (
            shares.equalise,
            config.equalise_db,
            lambda value, some: equalisation(frequencies, max_db=value, streams=some),
        ),
        (
            shares.low_pass,
            config.low_pass_hz,
            lambda value, some: low_pass(frequencies, lowest_hz=value, streams=some),
        ),
        (
            shares.high_pass,
            config.high_pass_hz,
            lambda value, some: high_pass(frequencies, highest_hz=value, streams=some),
        ),
        (
            shares.reverberation,
            config.reverberation_seconds,
            lambda value, some: torch.fft.rfft(
                reverberation(longest_seconds=value, streams=some), x.shape[2] + ROOM_SAMPLES
            ),
        ),
    ):
        if value is not None and (chosen := streams.chosen(share)).any():
            response[chosen] *= change(value, streams.where(chosen))
            changed |= chosen
    if changed.any():
        x = x.clone()
        x[changed] = filtered(x[changed], response[changed])
    return x
