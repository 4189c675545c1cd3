"""Coherence between sounds and their sonifications, layer by layer (paper, 4.2 and figure 7).

Coherence falls with depth in networks that have learned nothing, too. So each curve is measured
beside three baselines: the same network with random weights, the sonification of another clip,
and noise, which is what chance gives for clips of this length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.controls import partners
from sonibook.analysis.measure import Measured, measure_networks
from sonibook.analysis.networks import Networks, with_random_weights
from sonibook.analysis.result import ResultTable
from sonibook.analysis.stream import Streaming, seeded
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet import ForwardPass
from sonibook.errors import AnalysisError
from sonibook.metrics.similarity import mean_top_coherence


@dataclass(frozen=True)
class _TopCoherence:
    """Mean top-k coherences of clips: with what a network makes of them, and with noise."""

    k: int
    nperseg: int
    noverlap: int | None
    seed: int

    def __call__(self, network: nn.Module, clips: Sequence[Clip]) -> Measured:
        passes = [ForwardPass(network, clip.waveform) for clip in clips]
        sounds = [passed.sonify_most_active()[0].cpu() for passed in passes]
        own = [self._top(clip, s) for clip, s in zip(clips, sounds, strict=True)]
        other = [
            np.full(len(own[0]), np.nan) if partner is None else self._top(clip, sounds[partner])
            for clip, partner in zip(clips, partners(clips), strict=True)
        ]
        return {"coherence": np.stack(own), ("coherence", "another clip"): np.stack(other)}

    def with_noise(self, clips: Sequence[Clip]) -> Measured:
        """Of the clips with white noise."""
        values = [
            self._top(clip, torch.from_numpy(noise.standard_normal((1, len(clip.waveform)))))[0]
            for clip in clips
            for noise in [seeded(self.seed, clip.clip_id, "noise")]
        ]
        return {("coherence", "white noise"): np.array(values)}

    def _top(self, clip: Clip, s: Float[Tensor, "layers samples"]) -> Float[ndarray, " layers"]:
        x = torch.from_numpy(clip.waveform).double()
        length = min(len(x), s.shape[1])
        return mean_top_coherence(
            x[:length].expand(len(s), -1),
            s[:, :length].double(),
            k=self.k,
            nperseg=self.nperseg,
            noverlap=self.noverlap,
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

    For each clip and layer: of the most active filter's sonification, the mean of the k most
    coherent frequencies. Beside each network stand the same network with random weights, another
    clip's sonification and white noise.

    Parameters
    ----------
    networks, data, seed, streaming
        As for every analysis: see `sonibook.analysis`. Clips of fewer than two segments are skipped
        and counted, since their coherence is 1 whatever is compared.
    k : int >= 1
        Most coherent frequencies to average.
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
    measure = _TopCoherence(k, nperseg, noverlap, seed)
    return measure_networks(
        "coherence",
        measure,
        with_random_weights(networks, data, seed=seed),
        data,
        settings={"k": k, "nperseg": nperseg, "noverlap": noverlap, "seed": seed},
        of_clips=measure.with_noise,
        seed=seed,
        least_samples=2 * nperseg - shared,
        **streaming,
    )
