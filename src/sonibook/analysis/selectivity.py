"""Band selectivity and activity, layer by layer (paper, section 3.3.1 and figure 1).

The paper looks at spectrograms and finds that early filters select bands, and that deep maps are
less active in a supervised network than in a contrastive one. Here both are measured: the
spectrum of sonifications (`sonibook.analysis.spectra`), to be read against that of the clips
themselves, and the share of a layer that is live, both beside a network with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.analysis.baselines import is_baseline, with_random_weights
from sonibook.analysis.result import Estimate, Measured, Record, Result, estimate, key_of
from sonibook.analysis.spectra import spectral_shape
from sonibook.analysis.stream import Streaming, gather, seeded, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError


class Spectrum(Record):
    """Where sounds lie in frequency, on average over clips.

    Attributes
    ----------
    centroid, bandwidth : Estimate, in Hz
    entropy : Estimate, in [0, 1]
        1 for a flat spectrum; the smaller, the more selective.
    """

    centroid: Estimate
    bandwidth: Estimate
    entropy: Estimate


class LayerSelectivity(Record):
    """Of one layer.

    Attributes
    ----------
    layer : int
    top : Spectrum
        Of the sonification of each clip's most active filter.
    drawn : Spectrum or None
        Of filters drawn at random among those that are live on the clip, first averaged over
        them; None where none were drawn.
    live_maps : Estimate, in [0, 1]
        Share of the layer's maps that are not zero throughout.
    live_steps : Estimate, in [0, 1]
        Share of all steps of all its maps that are not zero.
    dead : int
        Clips on which no filter of the layer is live: they have no spectrum.
    """

    layer: int
    top: Spectrum
    drawn: Spectrum | None
    live_maps: Estimate
    live_steps: Estimate
    dead: int


class NetworkSelectivity(Record):
    """Of one network.

    Attributes
    ----------
    network : str
    baseline : bool
        Whether it has random weights, and the shape of one that was given.
    layers : tuple of LayerSelectivity
    """

    network: str
    baseline: bool
    layers: tuple[LayerSelectivity, ...]


class SelectivityResult(Result):
    """Band selectivity and activity; make it with `selectivity_by_layer`.

    Attributes
    ----------
    selectivity : tuple of NetworkSelectivity
        The networks as given, then their baselines.
    inputs : Spectrum
        Of the clips themselves.
    """

    analysis: Literal["selectivity"] = "selectivity"
    selectivity: tuple[NetworkSelectivity, ...]
    inputs: Spectrum


@dataclass(frozen=True)
class _Selectivity:
    """Spectra and activity of some clips, for several networks."""

    networks: dict[str, nn.Module]
    filters: int
    seed: int

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        result = {"inputs": np.stack([spectral_shape(clip.waveform) for clip in clips])}
        for name, network in self.networks.items():
            rows = [self._clip(network, clip) for clip in clips]
            for part, values in zip(("top", "drawn", "live"), zip(*rows, strict=True), strict=True):
                result[f"{part} {name}"] = np.stack(values)
        return result

    def _clip(
        self, network: nn.Module, clip: Clip
    ) -> tuple[
        Float[ndarray, "layers shape"], Float[ndarray, "layers shape"], Float[ndarray, "layers 2"]
    ]:
        """Spectral shapes of the top filters and of those drawn, and live shares, by layer."""
        passed = ForwardPass(network, clip.waveform)
        top = spectral_shape(passed.sonify_most_active()[0].numpy())
        drawn = np.full_like(top, np.nan)
        shares = np.empty((len(top), 2))
        for layer, maps in enumerate(passed.maps, start=1):
            live = maps[0] > 0
            shares[layer - 1] = float(live.any(dim=1).double().mean()), float(live.double().mean())
            chosen = self._draw(torch.nonzero(live.any(dim=1))[:, 0].numpy(), clip, layer)
            if len(chosen):
                sounds = passed.sonify(layer, chosen.tolist()).numpy()
                drawn[layer - 1] = spectral_shape(sounds).mean(axis=0)
        return top, drawn, shares

    def _draw(self, live: ndarray, clip: Clip, layer: int) -> ndarray:
        generator = seeded(self.seed, clip.clip_id, f"layer {layer}")
        return generator.choice(live, min(self.filters, len(live)), replace=False)


def selectivity_by_layer(
    networks: Mapping[str, nn.Module],
    data: Dataset,
    *,
    filters: int = 4,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> SelectivityResult:
    """How selective the filters of each layer are, and how much of each layer is live.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
        By name; each as `sonibook.model.stack.blocks_of` takes it.
    data : Dataset
    filters : int >= 0
        Filters drawn for each clip and layer, besides the most active one.
    seed : int >= 0
        Of the draws, the random weights and the intervals.
    **streaming
        `parts`, `chunk`, `processes` and `limit`, as for `stream`.

    Returns
    -------
    SelectivityResult

    Raises
    ------
    AnalysisError
        If there is no network, `filters` is below 0, or as `stream`.
    StackError
        If a network cannot be inverted.
    """
    if filters < 0:
        raise AnalysisError(f"filters {filters} is impossible: choose 0 or more.")
    everything = with_random_weights(networks, seed=seed)
    key = key_of("selectivity", everything, {"filters": filters, "seed": seed})
    work = _Selectivity(everything, filters, seed)
    whole = gather(stream(work, data, key=key, description="selectivity", **streaming))
    measured = whole.arrays

    def layer_of(name: str, layer: int) -> LayerSelectivity:
        top, drawn, live = (
            measured[f"{part} {name}"][:, layer - 1] for part in ("top", "drawn", "live")
        )
        return LayerSelectivity(
            layer=layer,
            top=_spectrum(top, seed),
            drawn=_spectrum(drawn, seed) if filters else None,
            live_maps=estimate(live[:, 0], seed=seed),
            live_steps=estimate(live[:, 1], seed=seed),
            dead=int((live[:, 0] == 0).sum()),
        )

    return SelectivityResult(
        **key,
        data=Measured.of(data, clips=len(whole.clip_ids), skipped=whole.skipped),
        selectivity=tuple(
            NetworkSelectivity(
                network=name,
                baseline=is_baseline(name),
                layers=tuple(
                    layer_of(name, layer)
                    for layer in range(1, measured[f"top {name}"].shape[1] + 1)
                ),
            )
            for name in everything
        ),
        inputs=_spectrum(measured["inputs"], seed),
    )


def _spectrum(shapes: Float[ndarray, "clips 3"], seed: int) -> Spectrum:
    centroid, bandwidth, entropy = (estimate(values, seed=seed) for values in shapes.T)
    return Spectrum(centroid=centroid, bandwidth=bandwidth, entropy=entropy)
