"""What a filter picks out of a scene whose sources are known, and when.

Three questions, on scenes of sound events with known stems, asked alike of every network and of
one with random weights, which the answers are to be read against:

- *Separation*: how much of one source do the sonifications of a layer's most active filters hold,
  beyond what the mixture holds of it anyway? Needs two stems.
- *Detection*: which filters respond to which event? See `detectors`.
- *Timing*: how long after an event does the most active filter's map begin, and its sonification?
  Asked of a scene's first event, where quiet enough to fill the widest receptive field comes
  before it, and no other event for half a second after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.detectors import Chosen, choose
from sonibook.analysis.networks import with_random_weights
from sonibook.analysis.onsets import map_onsets, onsets
from sonibook.analysis.result import Estimate, Measured, estimate, key_of, named_estimates
from sonibook.analysis.scenes import SceneClip, SceneClips
from sonibook.analysis.separation_result import (
    LAGS,
    Detection,
    Detector,
    LayerSeparation,
    SeparationResult,
)
from sonibook.analysis.stems import HOLDINGS, holdings
from sonibook.analysis.stream import Streaming, gather, stream
from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.attributions import Method, explain
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.model.stack import blocks_of, least_length, out_length, receptive_field

#: For this long the first event must be alone, in s.
_ALONE = 0.5


@dataclass(frozen=True)
class Separation:
    """The measure of `separation`, for `stream`, on clips that are scenes."""

    networks: dict[str, nn.Module]
    filters: int
    classes: int
    method: Method = "sonification"

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        """Arrays by name, a row for each clip; NaN where a measure does not apply."""
        rows = [self._scene(clip) for clip in clips if isinstance(clip, SceneClip)]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    @property
    def _widest(self) -> int:
        """Samples that a step of any network hears at most."""
        stacks = [blocks_of(network) for network in self.networks.values()]
        return max(receptive_field(blocks, len(blocks)) for blocks in stacks)

    def _scene(self, clip: SceneClip) -> dict[str, ndarray]:
        x, stems = torch.from_numpy(clip.waveform), clip.stems
        present = np.zeros(self.classes, bool)
        present[list(clip.labels)] = True
        mixture = np.full(len(HOLDINGS), np.nan)
        if len(stems) > 1:
            mixture = holdings(x[None], x, stems)[0].numpy()
        first, alone = _first_event(clip, self._widest)
        begun = float(onsets(x[None, :alone], sample_rate=SAMPLE_RATE)) if alone else np.nan
        result = {
            "present": present,
            "stems": np.array(len(stems)),
            "mixture": mixture,
            "input lag": np.array(begun - first),
        }
        for name, network in self.networks.items():
            energy, held, begins = self._network(network, x, stems, alone)
            result[f"energy of {name}"] = energy
            result[f"held by {name}"], result[f"lags of {name}"] = held, begins - first
        return result

    def _network(
        self, network: nn.Module, x: Tensor, stems: Tensor, alone: int
    ) -> tuple[ndarray, ndarray, ndarray]:
        """The energy of every filter; by layer, what its sounds hold, and when they begin, in s."""
        passed = ForwardPass(network, x)
        blocks = passed.blocks
        layers = range(1, len(blocks) + 1)
        quiet = FeatureMaps(network, x.new_zeros(least_length(blocks)))
        held = np.full((len(layers), len(HOLDINGS)), np.nan)
        begins = np.full((len(layers), len(LAGS)), np.nan)
        for row, layer in enumerate(layers):
            chosen = passed.most_active(layer, self.filters)
            sounds = self._sounds(network, passed, layer, chosen)
            sounding = sounds[sounds.abs().amax(dim=1) > 0]
            if len(stems) > 1 and len(sounding):
                held[row] = holdings(sounding, x, stems).mean(dim=0).numpy()
            if alone:
                steps = out_length(blocks, layer, alone)
                begun = map_onsets(
                    passed.maps[row][0, chosen[:1], :steps],
                    quiet.maps[row][0, chosen[:1], 0],
                    blocks[:layer],
                    sample_rate=SAMPLE_RATE,
                )
                heard = onsets(sounds[:1, :alone], sample_rate=SAMPLE_RATE)
                begins[row] = torch.cat([begun, heard]).numpy()
        energy = torch.cat([passed.energy(layer)[0] for layer in layers])
        return energy.numpy(), held, begins

    def _sounds(
        self, network: nn.Module, passed: ForwardPass, layer: int, filters: list[int]
    ) -> Float[Tensor, "filters time"]:
        if self.method == "sonification":
            return passed.sonify(layer, filters)
        x = passed.x[0, 0, : passed.samples]
        return torch.stack(
            [explain(self.method, network, x, layer=layer, filter=one) for one in filters]
        )


def _first_event(clip: SceneClip, quiet: int) -> tuple[float, int]:
    """When the first event begins, in s, and until which sample it is alone.

    That sample is 0 where it is not alone for long enough, or after fewer than `quiet` samples of
    quiet, so that a map has not begun before it.
    """
    sounding = [event for event in clip.events if event.stem.any()]
    first = sounding[0].onset
    end = sounding[1].onset if len(sounding) > 1 else len(clip.waveform) / SAMPLE_RATE
    timed = end - first >= _ALONE and first * SAMPLE_RATE >= quiet
    return first, round(end * SAMPLE_RATE) if timed else 0


def separation(
    networks: Mapping[str, nn.Module],
    data: Dataset,
    *,
    filters: int = 4,
    method: Method = "sonification",
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> SeparationResult:
    """What the filters of some networks pick out of scenes.

    Memory grows with the number of scenes by four bytes a filter.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
        As `sonibook.sonify` takes them, at 8 kHz. Each shape of network is set beside one with
        random weights.
    data : Dataset
        Of scenes with known stems: ``open_dataset("soundscapes")``, also with ``mixture_of``.
    filters : int >= 1
        How many of a layer's most active filters to sonify.
    method : str
        What else to make a filter's sound with, to put it to the same test: one of
        `sonibook.deconvnet.attributions.METHODS`.
    seed : int >= 0
        Of the random weights, and of the intervals of areas.
    **streaming
        `parts`, `chunk`, `processes` and `limit`, as for `stream`.

    Returns
    -------
    SeparationResult

    Raises
    ------
    AnalysisError
        If the clips are no scenes, there is no network, filter or method, or nothing to measure.
    StackError
        If a network cannot be sonified.
    """
    if filters < 1:
        raise AnalysisError(f"filters {filters} is impossible: choose 1 or more.")
    every = with_random_weights(networks, seed=seed)
    everything = {network.name: network.module for network in every}
    baselines = {network.name for network in every if network.baseline}
    counts = {
        name: [block.conv.out_channels for block in blocks_of(network)]
        for name, network in everything.items()
    }
    settings: dict[str, Any] = {"filters": filters, "method": method, "seed": seed}
    key = key_of("separation", everything, settings)
    scenes = SceneClips(data)
    streaming.setdefault("chunk", 4)  # a clip takes seconds
    chunks = stream(
        Separation(everything, filters, len(data.classes), method),
        scenes,
        key=key,
        least_samples=round(_ALONE * SAMPLE_RATE),
        description="separation",
        **streaming,
    )
    whole = gather(chunks)
    arrays = whole.arrays
    layers, detectors = [], []
    reference = arrays[f"held by {next(iter(networks))}"]
    for name, channels in counts.items():
        energy, ends = arrays[f"energy of {name}"], np.cumsum(channels)
        held, lags = arrays[f"held by {name}"], arrays[f"lags of {name}"]
        detectors += _detectors(name, choose(energy, arrays["present"], seed=seed), ends, data)
        for row, (end, count) in enumerate(zip(ends, channels, strict=True)):
            found = choose(energy[:, end - count : end], arrays["present"], seed=seed)
            layers.append(
                LayerSeparation(
                    network=name,
                    baseline=name in baselines,
                    layer=row + 1,
                    held=named_estimates(HOLDINGS, held[:, row]),
                    lead_of_first=_lead(reference, held, row),
                    lag=named_estimates(LAGS, lags[:, row]),
                    detection=_detection(found),
                )
            )
    mixtures = named_estimates(HOLDINGS, arrays["mixture"])
    return SeparationResult(
        data=Measured.of(scenes, clips=len(whole.clip_ids), skipped=whole.skipped),
        several=int((arrays["stems"] > 1).sum()),
        timed=int(np.isfinite(arrays["input lag"]).sum()),
        mixture={name: mixtures[name] for name in ("main stem's share", "SI-SDR")},
        input_lag=estimate(arrays["input lag"]),
        layers=tuple(layers),
        detectors=tuple(detectors),
        **key,
    )


def _lead(first: ndarray, other: ndarray, row: int) -> Estimate | None:
    """By how much the first network's gain in share exceeds another's, scene by scene."""
    if other is first or row >= first.shape[1]:
        return None
    gain = HOLDINGS.index("gain in share")
    return estimate(first[:, row, gain] - other[:, row, gain])


def _detection(found: Chosen) -> Detection | None:
    if not len(found.classes):
        return None
    low, high = found.mean_interval
    return Detection(area=float(found.area.mean()), low=low, high=high, classes=len(found.classes))


def _detectors(network: str, found: Chosen, ends: ndarray, data: Dataset) -> list[Detector]:
    """One detector a class; filters are counted on from layer to layer, which `ends` undoes."""
    rows = []
    for row, place in enumerate(found.filters):
        layer = int(np.searchsorted(ends, place, side="right"))
        rows.append(
            Detector(
                network=network,
                event=data.classes[found.classes[row]],
                layer=layer + 1,
                filter=int(place - (ends[layer - 1] if layer else 0)),
                chosen_area=float(found.chosen_area[row]),
                area=float(found.area[row]),
                low=float(found.interval[row, 0]),
                high=float(found.interval[row, 1]),
                p=float(found.p[row]),
            )
        )
    return rows
