"""Do sonifications stimulate the filter that they are of? (paper, sections 3.2 and 4.1)

The paper infers it from a loss of accuracy when sonifications are taken away. Here the filter is
asked itself: how much energy has its map when it hears the sonification instead of the clip, and
when it hears what is left of the clip; beside signals of the same RMS that are not sonifications.
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

from sonibook.analysis.controls import as_long_as, matched, partners, random_phase, white_noise
from sonibook.analysis.measure import Measured, measure_networks
from sonibook.analysis.networks import Networks, with_random_weights
from sonibook.analysis.result import ResultTable
from sonibook.analysis.stream import Streaming, seeded
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps

#: What stands in the sonification's place; see `sonibook.analysis.controls`.
STIMULI = ("sonification", "random phase", "another clip", "white noise")
#: What is subtracted from the clip. The last is the clip itself, so much of it that what is left is
#: as loud as what the sonification leaves: whatever resembles the clip makes it quieter.
TAKEN = (*STIMULI, "the clip itself")
#: A map of less energy than this below its energy on the clip counts as this low.
_FLOOR_DB = -60.0


@dataclass(frozen=True)
class _Energies:
    """Levels of maps on stimuli and on residuals, re the clip."""

    seed: int

    def __call__(self, network: nn.Module, clips: Sequence[Clip]) -> Measured:
        passes = [ForwardPass(network, clip.waveform) for clip in clips]
        sounds = [one.sonify_most_active()[0].cpu() for one in passes]
        levels = np.stack(
            [
                self._levels(network, clip, own, s, None if other is None else sounds[other])
                for clip, own, s, other in zip(clips, passes, sounds, partners(clips), strict=True)
            ]
        )
        heard = dict(zip(STIMULI, np.moveaxis(levels, 2, 0), strict=False))
        left = dict(zip(TAKEN, np.moveaxis(levels[:, :, len(STIMULI) :], 2, 0), strict=True))
        return {
            **{("heard", name): values for name, values in heard.items()},
            **{("left", name): values for name, values in left.items()},
            **{("above", name): heard["sonification"] - heard[name] for name in STIMULI[1:]},
            **{("below", name): left[name] - left["sonification"] for name in TAKEN[1:]},
        }

    def _levels(
        self,
        network: nn.Module,
        clip: Clip,
        passed: ForwardPass,
        sounds: Float[Tensor, "layers time"],
        of_another: Float[Tensor, "layers samples"] | None,
    ) -> Float[ndarray, "layers levels"]:
        """Of each layer the levels on `STIMULI`, and then without each of `TAKEN`."""
        x = torch.from_numpy(clip.waveform)
        levels = np.full((len(sounds), len(STIMULI) + len(TAKEN)), np.nan)
        for row, s in enumerate(sounds[:, : len(x)]):
            layer = row + 1
            index = passed.most_active(layer)[0]
            own = float(passed.energy(layer)[0, index])
            if own <= 0 or not s.any():
                continue
            generator = seeded(self.seed, "stimulation", clip.clip_id, str(layer))
            stimuli = [
                s,
                random_phase(s, generator=generator),
                None if of_another is None else as_long_as(of_another[row], len(x)),
                white_noise(s, generator=generator),
            ]
            there = [place for place, one in enumerate(stimuli) if one is not None and one.any()]
            those = torch.stack([matched(stimuli[place], s) for place in there])
            quieter = matched(x.expand(1, -1), x - those[:1])
            asked = torch.cat([matched(those, x.expand_as(those)), x - those, quieter]).unsqueeze(1)
            energy = FeatureMaps(network, asked, depth=layer).energy(layer)[:, index].cpu().double()
            in_db = (10 * (energy / own).clamp_min(10 ** (_FLOOR_DB / 10)).log10()).numpy()
            places = [*there, *(len(STIMULI) + place for place in (*there, len(STIMULI)))]
            levels[row, places] = in_db
        return levels


def stimulation(
    networks: Networks, data: Dataset, *, seed: int = 0, **streaming: Unpack[Streaming]
) -> ResultTable:
    """How active the most active filter of each layer is on its sonification, and without it.

    The same network with random weights stands beside each.

    Parameters
    ----------
    networks, data, seed, streaming
        As for every analysis: see `sonibook.analysis`.

    Returns
    -------
    ResultTable
        All quantities are in dB re the map's energy on the clip: ``heard``, by `STIMULI` as
        condition, on each, at the clip's RMS; ``left``, by `TAKEN`, on what is left of the clip
        when each is subtracted, at the sonification's RMS, but for the clip itself; ``above`` and
        ``below``, how far, clip by clip, ``heard`` of the sonification is above that of each other,
        and ``left`` by it below that by each other.
    """
    return measure_networks(
        "stimulation",
        _Energies(seed),
        with_random_weights(networks, data, seed=seed),
        data,
        settings={"seed": seed, "floor_db": _FLOOR_DB},
        seed=seed,
        **streaming,
    )
