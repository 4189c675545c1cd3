"""What sonifications are like, layer by layer: coherence with the clip, and band selectivity.

Coherence (paper, section 4.2 and figure 7) falls with depth in networks that have learned nothing,
too. So each curve stands beside three baselines: the same network with random weights, the
sonification of another clip, and noise, which is what chance gives for clips of this length.

The paper looks at spectrograms and finds that early filters select bands, and that deep maps are
less active in a supervised network than in a contrastive one (section 3.3.1 and figure 1). Here
both are measured: the spectrum of sonifications, and the share of a layer that is live.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy import signal
from torch import Tensor, nn

from sonibook.analysis import stream
from sonibook.analysis.controls import with_partners
from sonibook.analysis.networks import Networks, with_random_weights
from sonibook.analysis.result import ResultTable
from sonibook.analysis.stream import Measured, Streaming, by_clip, seeded, stacked
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet import ForwardPass
from sonibook.errors import AnalysisError
from sonibook.metrics.similarity import mean_top_coherence

#: What `spectral_shape` gives, in its order.
_SHAPE = ("centroid", "bandwidth", "entropy")


def _coherences(options: dict[str, Any], network: nn.Module, clips: Sequence[Clip]) -> Measured:
    """Of clips with what a network makes of them, and of others."""
    sounds = [ForwardPass(network, x.waveform).sonify_most_active()[0].cpu() for x in clips]
    rows: list[Measured] = []
    for clip, *both in with_partners(clips, sounds):
        own, other = (_coherence(clip, s, options) for s in both)
        rows.append({"coherence": own, ("coherence", "another clip"): other})
    return stacked(rows)


def _with_noise(options: dict[str, Any], seed: int, clips: Sequence[Clip]) -> Measured:
    """Of clips with white noise."""
    values = []
    for clip in clips:
        generator = seeded(seed, clip.clip_id, "noise")
        noise = torch.from_numpy(generator.standard_normal((1, len(clip.waveform))))
        values.append(_coherence(clip, noise, options))
    return {("coherence", "white noise"): np.concatenate(values)}


def _coherence(
    clip: Clip, s: Float[Tensor, "layers samples"], options: dict[str, Any]
) -> Float[ndarray, " layers"]:
    x = torch.from_numpy(clip.waveform).double()
    length = min(len(x), s.shape[1])
    return mean_top_coherence(
        x[:length].expand(len(s), -1), s[:, :length].double(), **options
    ).numpy()


def coherence_by_layer(
    networks: Networks,
    data: Dataset,
    *,
    k: int = 5,
    nperseg: int = 256,
    noverlap: int | None = None,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """Mean coherence of clips and their sonifications, layer by layer (figure 7).

    Beside each network stands the same network with random weights.

    Parameters
    ----------
    networks, data, seed, streaming
        As for every analysis: see `sonibook.analysis`. Clips of fewer than two segments are skipped
        and counted, since their coherence is 1 whatever is compared.
    k : int >= 1
        Most coherent frequencies to average, for each clip and layer.
    nperseg : int >= 2
        Samples in a segment (Welch).
    noverlap : int >= 0, or None
        Samples that segments share; None for half.

    Returns
    -------
    ResultTable
        Its quantity is ``coherence``, in [0, 1]: of a clip with its most active filter's
        sonification, clips left out on which no filter of the layer is live; under the condition
        ``another clip``, with the sonification of a clip that shares no label where there is such.
        Of no network: clips with ``white noise``.
    """
    shared = nperseg // 2 if noverlap is None else noverlap
    if not 0 <= shared < nperseg or nperseg < 2:
        raise AnalysisError(f"nperseg {nperseg} and noverlap {shared} do not make segments.")
    if not 1 <= k <= nperseg // 2 + 1:
        raise AnalysisError(f"k {k} is impossible: choose 1 to {nperseg // 2 + 1}.")
    options = {"k": k, "nperseg": nperseg, "noverlap": noverlap}
    return stream.measure_networks(
        "coherence",
        partial(_coherences, options),
        with_random_weights(networks, data, seed=seed),
        data,
        settings={**options, "seed": seed},
        of_clips=partial(_with_noise, options, seed),
        least_samples=2 * nperseg - shared,
        **streaming,
    )


def _selectivity(
    filters: int, seed: int, sample_rate: int, network: nn.Module, clip: Clip
) -> Measured:
    """Spectra and activity of a clip; no spectra of drawn filters where none is to be drawn."""
    passed = ForwardPass(network, clip.waveform)
    top = passed.sonify_most_active()[0].cpu().numpy()
    shapes = spectral_shape(top, sample_rate=sample_rate)
    drawn = np.full_like(shapes, np.nan)
    live_maps, live_steps = np.empty((2, len(top)))
    for layer, maps in enumerate(passed.maps, start=1):
        live = maps[0] > 0
        live_maps[layer - 1] = float(live.any(dim=1).double().mean())
        live_steps[layer - 1] = float(live.double().mean())
        able = torch.nonzero(live.any(dim=1))[:, 0].cpu().numpy()
        generator = seeded(seed, clip.clip_id, f"layer {layer}")
        chosen = generator.choice(able, min(filters, len(able)), replace=False)
        if len(chosen):
            sounds = passed.sonify(layer, chosen.tolist()).cpu().numpy()
            drawn[layer - 1] = spectral_shape(sounds, sample_rate=sample_rate).mean(axis=0)
    measured: Measured = dict(zip(_SHAPE, shapes.T, strict=True))
    if filters:
        measured |= {(name, "drawn"): x for name, x in zip(_SHAPE, drawn.T, strict=True)}
    return measured | {"live maps": live_maps, "live steps": live_steps}


def _shapes_of_clips(sample_rate: int, clips: Sequence[Clip]) -> Measured:
    shapes = np.stack([spectral_shape(clip.waveform, sample_rate=sample_rate) for clip in clips])
    return {(name, "the clips themselves"): x for name, x in zip(_SHAPE, shapes.T, strict=True)}


def selectivity_by_layer(
    networks: Networks,
    data: Dataset,
    *,
    filters: int = 4,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """How selective the filters of each layer are, and how much of each layer is live.

    Beside each network stands the same network with random weights.

    Parameters
    ----------
    networks, data, seed, streaming : as for every analysis, see `sonibook.analysis`
    filters : int >= 0
        Filters drawn for each clip and layer, besides the most active one.

    Returns
    -------
    ResultTable
        Its quantities are ``centroid`` and ``bandwidth`` in Hz and ``entropy`` in [0, 1], as of
        `spectral_shape`: of the sonification of each clip's most active filter, clips left out on
        which no filter of the layer is live; under the condition ``drawn``, of filters drawn at
        random among those that are live on the clip, averaged over them first; and of no network,
        of ``the clips themselves``. Then ``live maps`` and ``live steps`` in [0, 1]: the shares of
        the layer's maps that are not zero throughout, and of all steps of all its maps that are
        not zero.
    """
    stream.check_least(0, filters=filters)
    return stream.measure_networks(
        "selectivity",
        partial(by_clip, partial(_selectivity, filters, seed, data.sample_rate)),
        with_random_weights(networks, data, seed=seed),
        data,
        settings={"filters": filters, "seed": seed},
        of_clips=partial(_shapes_of_clips, data.sample_rate),
        **streaming,
    )


def spectral_shape(
    x: Float[ndarray, "*batch time"], *, sample_rate: int | float = 8000
) -> Float[ndarray, "*batch 3"]:
    """Centroid, bandwidth and entropy of the mean power spectrum of sounds.

    The spectrum is Welch's, with scipy's defaults: Hann windows of 256 samples, half overlapping,
    each segment's mean taken away. Its share p of power in each bin is read as a distribution:
    the centroid is its mean and the bandwidth its standard deviation; the entropy is
    -sum p log p, divided by that of a flat spectrum.

    Parameters
    ----------
    x : ndarray, shape (..., time), with at least 256 samples
    sample_rate : int or float > 0, in Hz

    Returns
    -------
    ndarray, shape (..., 3), float64
        In Hz, Hz, and [0, 1]. NaN for silence.

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 1000 / 8000 * np.arange(8000))
    >>> centroid, bandwidth, entropy = spectral_shape(tone)
    >>> round(float(centroid)), round(float(bandwidth)), round(float(entropy), 2)
    (1000, 18, 0.18)
    """
    frequency, power = signal.welch(x.astype(np.float64), sample_rate, nperseg=256)
    total = power.sum(axis=-1, keepdims=True)
    # A silent sound has no distribution: NaN, without the warning of a division by zero.
    p = power / np.where(total > 0, total, np.nan)
    centroid = (p * frequency).sum(axis=-1)
    bandwidth = np.sqrt((p * (frequency - centroid[..., None]) ** 2).sum(axis=-1))
    surprise = np.log(np.where(p > 0, p, 1.0))
    entropy = -(p * surprise).sum(axis=-1) / np.log(len(frequency))
    return np.stack([centroid, bandwidth, entropy], axis=-1)
