"""Do sonifications stimulate the filter that they are of? (paper, sections 3.2 and 4.1)

The paper infers it from a loss of accuracy when sonifications are taken away. Here the filter is
asked itself: how much energy has its map when it hears the sonification instead of the clip, and
when it hears what is left of the clip; beside signals of the same RMS that are no sonification.
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
from sonibook.analysis.controls import (
    as_long_as,
    matched,
    partners,
    random_phase,
    white_noise,
)
from sonibook.analysis.estimates import estimates
from sonibook.analysis.result import Estimate, Measured, Record, Result, key_of
from sonibook.analysis.stream import Streaming, gather, seeded, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.model.stack import blocks_of

#: What stands in the sonification's place; see `sonibook.analysis.controls`.
STIMULI = ("sonification", "random phase", "another clip", "white noise")
#: What is subtracted from the clip. The last is the clip itself, so much of it that what is left is
#: as loud as what the sonification leaves: whatever resembles the clip makes it quieter.
TAKEN = (*STIMULI, "the clip itself")
#: A map of less energy than this below its energy on the clip counts as this low.
FLOOR_DB = -60.0


class LayerStimulation(Record):
    """One layer's most active filters.

    Attributes
    ----------
    layer : int
    heard : dict of str to Estimate, in dB
        Energy of the filter's map on each of `STIMULI`, at the clip's RMS, re that on the clip.
    left : dict of str to Estimate, in dB
        On what is left of the clip when each of `TAKEN` is subtracted: at the sonification's RMS,
        but for the clip itself.
    above : dict of str to Estimate, in dB
        How far ``heard`` of the sonification is above that of each other, clip by clip.
    below : dict of str to Estimate, in dB
        How far ``left`` by the sonification is below that by each other, clip by clip.
    """

    layer: int
    heard: dict[str, Estimate]
    left: dict[str, Estimate]
    above: dict[str, Estimate]
    below: dict[str, Estimate]


class NetworkStimulation(Record):
    """One network.

    Attributes
    ----------
    network : str
    baseline : bool
    layers : tuple of LayerStimulation
    """

    network: str
    baseline: bool
    layers: tuple[LayerStimulation, ...]


class StimulationResult(Result):
    """What `stimulation` found.

    Attributes
    ----------
    stimulation : tuple of NetworkStimulation
    """

    analysis: Literal["stimulation"] = "stimulation"
    stimulation: tuple[NetworkStimulation, ...]


@dataclass(frozen=True)
class _Energies:
    """Levels of maps on stimuli and on residuals, re the clip."""

    networks: dict[str, nn.Module]
    seed: int

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        result = {}
        for name, network in self.networks.items():
            passes = [ForwardPass(network, clip.waveform) for clip in clips]
            heard = [one.sonify_most_active() for one in passes]
            result[name] = np.stack(
                [
                    self._clip(network, clip, passes[place], *heard[place],
                               None if other is None else heard[other][0])
                    for place, (clip, other) in enumerate(zip(clips, partners(clips), strict=True))
                ]
            )  # fmt: skip
        return result

    def _clip(
        self,
        network: nn.Module,
        clip: Clip,
        passed: ForwardPass,
        sounds: Float[Tensor, "layers time"],
        filters: ndarray,
        of_another: Float[Tensor, "layers samples"] | None,
    ) -> Float[ndarray, "layers levels"]:
        """Of each layer the levels on `STIMULI`, and then without each of `TAKEN`."""
        x = torch.from_numpy(clip.waveform)
        levels = np.full((len(sounds), len(STIMULI) + len(TAKEN)), np.nan)
        for row, (s, index) in enumerate(zip(sounds[:, : len(x)], filters, strict=True)):
            layer, own = row + 1, float(passed.energy(row + 1)[0, int(index)])
            if own <= 0 or not s.any():
                continue
            generator = seeded(self.seed, "stimulation", clip.clip_id, str(layer))
            other = None if of_another is None else as_long_as(of_another[row], len(x))
            stimuli = [s, random_phase(s, generator=generator), other,
                       white_noise(s, generator=generator)]  # fmt: skip
            there = [place for place, one in enumerate(stimuli) if one is not None and one.any()]
            those = torch.stack([matched(stimuli[place], s) for place in there])
            quieter = matched(x.expand(1, -1), x - those[:1])
            asked = torch.cat([matched(those, x.expand_as(those)), x - those, quieter]).unsqueeze(1)
            energy = FeatureMaps(network, asked, depth=layer).energy(layer)[:, int(index)].double()
            in_db = (10 * (energy / own).clamp_min(10 ** (FLOOR_DB / 10)).log10()).numpy()
            places = [*there, *(len(STIMULI) + place for place in (*there, len(STIMULI)))]
            levels[row, places] = in_db
        return levels


def stimulation(
    networks: Mapping[str, nn.Module],
    data: Dataset,
    *,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> StimulationResult:
    """How active the most active filter of each layer is on its sonification, and without it.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
        By name; each as `sonibook.model.stack.blocks_of` takes it.
    data : Dataset
    seed : int >= 0
        Of the random weights, the controls and the intervals.
    **streaming
        As for `stream`. The other clip is one of the same chunk.

    Returns
    -------
    StimulationResult

    Raises
    ------
    AnalysisError
        If there is no network, or as `stream`.
    StackError
        If a network cannot be inverted.
    """
    if not networks:
        raise AnalysisError("There is no network to analyse: give one at least.")
    everything = with_random_weights(networks, seed=seed)
    key = key_of("stimulation", everything, {"seed": seed, "floor_db": FLOOR_DB})
    work = _Energies(everything, seed)
    whole = gather(stream(work, data, key=key, description="stimulation", **streaming))
    return StimulationResult(
        **key,
        data=Measured.of(data, clips=len(whole.clip_ids), skipped=whole.skipped),
        stimulation=tuple(
            NetworkStimulation(
                network=name,
                baseline=is_baseline(name),
                layers=tuple(
                    _layer(layer, whole.arrays[name][:, layer - 1], seed)
                    for layer in range(1, len(blocks_of(network)) + 1)
                ),
            )
            for name, network in everything.items()
        ),
    )


def _layer(layer: int, levels: Float[ndarray, "clips levels"], seed: int) -> LayerStimulation:
    heard, left = np.split(levels, [len(STIMULI)], axis=1)
    return LayerStimulation(
        layer=layer,
        heard=estimates(STIMULI, heard, seed=seed),
        left=estimates(TAKEN, left, seed=seed),
        above=estimates(STIMULI[1:], heard[:, :1] - heard[:, 1:], seed=seed),
        below=estimates(TAKEN[1:], left[:, 1:] - left[:, :1], seed=seed),
    )
