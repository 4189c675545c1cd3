"""Coherence between sounds and their sonifications, layer by layer (paper, 4.2 and figure 7).

Coherence falls with depth in networks that have learned nothing, too. So each curve is measured
beside three baselines: the same network with random weights, the sonification of another clip,
and noise, which is what chance gives for clips of this length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.baselines import is_baseline, with_random_weights
from sonibook.analysis.coherence import mean_top_coherence
from sonibook.analysis.controls import partners
from sonibook.analysis.result import Estimate, Measured, Record, Result, estimate, key_of
from sonibook.analysis.stream import Streaming, gather, seeded, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError


class LayerCoherence(Record):
    """Of one layer's most active filter.

    Attributes
    ----------
    layer : int
    coherence : Estimate, in [0, 1]
        Mean top-k coherence of a clip with its sonification; not over the `dead`.
    other_clip : Estimate, in [0, 1]
        With the sonification of another clip, one that shares no label where there is such.
    dead : int
        Clips on which no filter of the layer is live: there is nothing to compare.
    """

    layer: int
    coherence: Estimate
    other_clip: Estimate
    dead: int


class NetworkCoherence(Record):
    """A curve over the layers of one network.

    Attributes
    ----------
    network : str
    baseline : bool
        Whether it is a network with random weights, of the shape of one that was given.
    layers : tuple of LayerCoherence
    """

    network: str
    baseline: bool
    layers: tuple[LayerCoherence, ...]


class CoherenceResult(Result):
    """Mean top-k coherence with depth; make it with `coherence_by_layer`.

    Attributes
    ----------
    curves : tuple of NetworkCoherence
        The networks as given, then their baselines.
    noise : Estimate
        Of clips with white noise.
    """

    analysis: Literal["coherence"] = "coherence"
    curves: tuple[NetworkCoherence, ...]
    noise: Estimate


@dataclass(frozen=True)
class _Coherences:
    """Mean top-k coherences of some clips with what several networks make of them."""

    networks: dict[str, nn.Module]
    k: int
    nperseg: int
    noverlap: int | None
    seed: int

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        inputs = [torch.from_numpy(clip.waveform).double() for clip in clips]
        others = partners(clips)
        result = {"noise": np.array([self._noise(clip) for clip in clips])}
        for name, network in self.networks.items():
            heard = [
                ForwardPass(network, clip.waveform).sonify_most_active()[0].double()
                for clip in clips
            ]
            own = [self._top(x, s) for x, s in zip(inputs, heard, strict=True)]
            strange = [
                np.full(len(own[0]), np.nan) if other is None else self._top(x, heard[other])
                for x, other in zip(inputs, others, strict=True)
            ]
            result[f"own {name}"], result[f"other {name}"] = np.stack(own), np.stack(strange)
        return result

    def _top(
        self, x: Float[Tensor, " time"], s: Float[Tensor, "layers samples"]
    ) -> Float[ndarray, " layers"]:
        length = min(len(x), s.shape[1])
        return mean_top_coherence(
            x[:length].expand(len(s), -1),
            s[:, :length],
            k=self.k,
            nperseg=self.nperseg,
            noverlap=self.noverlap,
        ).numpy()

    def _noise(self, clip: Clip) -> float:
        noise = seeded(self.seed, clip.clip_id, "noise").standard_normal((1, len(clip.waveform)))
        x = torch.from_numpy(clip.waveform).double()
        return float(self._top(x, torch.from_numpy(noise))[0])


def coherence_by_layer(
    networks: Mapping[str, nn.Module],
    data: Dataset,
    *,
    k: int = 5,
    nperseg: int = 256,
    noverlap: int | None = None,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> CoherenceResult:
    """Mean top-k coherence of clips with their most active filters' sonifications.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
        By name; each as `sonibook.model.stack.blocks_of` takes it.
    data : Dataset
        Clips of fewer than two segments are skipped and counted, since their coherence is 1
        whatever is compared.
    k, nperseg, noverlap : int
        As for `mean_top_coherence`.
    seed : int >= 0
        Of the random weights, the noise and the intervals.
    **streaming
        `parts`, `chunk`, `processes` and `limit`, as for `stream`. The other clip is one of the
        same chunk.

    Returns
    -------
    CoherenceResult

    Raises
    ------
    AnalysisError
        If there is no network, there are fewer than `k` frequencies, `noverlap` leaves no step,
        or as `stream`.
    StackError
        If a network cannot be inverted.
    """
    shared = nperseg // 2 if noverlap is None else noverlap
    if not 0 <= shared < nperseg or nperseg < 2:
        raise AnalysisError(f"nperseg {nperseg} and noverlap {shared} do not make segments.")
    if not 1 <= k <= nperseg // 2 + 1:
        raise AnalysisError(f"k {k} is impossible: choose 1 to {nperseg // 2 + 1}.")
    everything = with_random_weights(networks, seed=seed)
    settings = {"k": k, "nperseg": nperseg, "noverlap": noverlap, "seed": seed}
    key = key_of("coherence", everything, settings)
    work = _Coherences(everything, k, nperseg, noverlap, seed)
    chunks = stream(
        work,
        data,
        key=key,
        least_samples=2 * nperseg - shared,
        description="coherence",
        **streaming,
    )
    whole = gather(chunks)
    curves = tuple(
        NetworkCoherence(
            network=name,
            baseline=is_baseline(name),
            layers=_layers(whole.arrays[f"own {name}"], whole.arrays[f"other {name}"], seed),
        )
        for name in everything
    )
    return CoherenceResult(
        **key,
        data=Measured.of(data, clips=len(whole.clip_ids), skipped=whole.skipped),
        curves=curves,
        noise=estimate(whole.arrays["noise"], seed=seed),
    )


def _layers(
    own: Float[ndarray, "clips layers"], other: Float[ndarray, "clips layers"], seed: int
) -> tuple[LayerCoherence, ...]:
    return tuple(
        LayerCoherence(
            layer=layer,
            coherence=estimate(mine, seed=seed),
            other_clip=estimate(theirs, seed=seed),
            dead=int(np.isnan(mine).sum()),
        )
        for layer, (mine, theirs) in enumerate(zip(own.T, other.T, strict=True), start=1)
    )
