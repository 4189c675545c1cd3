"""What a filter picks out of a scene whose sources are known, and when.

Three questions, on scenes of sound events with known stems, asked alike of every network and of
one with random weights, which the answers are to be read against:

- *Separation*: how much of one source do the sonifications of a layer's most active filters hold,
  beyond what the mixture holds of it anyway? Needs two stems.
- *Detection*: which filters respond to which event? See `sonibook.analysis.detectors`.
- *Timing*: how long after an event does the most active filter's map begin, and its sonification?
  Asked of a scene's first event, where quiet enough to fill the widest receptive field comes
  before it, and no other event for half a second after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.detectors import Chosen, choose
from sonibook.analysis.measure import Measured, measure_clips, table_rows
from sonibook.analysis.networks import Network, Networks, with_random_weights
from sonibook.analysis.result import Estimate, Record, ResultTable, Row
from sonibook.analysis.sources import (
    SOURCE_SCORES,
    SceneClip,
    SceneClips,
    count_sources,
    source_scores,
)
from sonibook.analysis.stream import Streaming
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.alternatives import Method, explain
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.metrics.scores import targets_of
from sonibook.model.stack import (
    Block,
    blocks_of,
    least_length,
    out_length,
    padding_before,
    receptive_field,
    stride,
)

#: For this long the first event must be alone, in s.
_ALONE = 0.5
#: A sound has begun when it first reaches this level, re its peak: -20 dB.
_THRESHOLD = 0.1
#: What begins: the most active filter's map, and its sound.
_LAGS = ("lag of map", "lag of sound")
_OF_MIXTURES = ("main stem's share", "SI-SDR")


class Detector(Record):
    """The filter, of all layers, that tells best of one class of events.

    `area` is that under its ROC curve on scenes that it was not chosen on, with its 95 % interval;
    `chosen_area`, on those that it was, flatters it. `p` is of "no better than chance", adjusted
    for the number of classes (Holm).
    """

    network: str
    event: str
    layer: int
    filter: int
    chosen_area: float
    area: float
    low: float
    high: float
    p: float


class SeparationResult(ResultTable):
    """What filters pick out of scenes; make it with `separation`.

    Its quantities, layer by layer:

    - each of `SOURCE_SCORES`, on scenes of several sources, where a scene counts with the mean over
      its filters; ``lead of first``, by how much the first network's ``gain in share`` exceeds
      another's, scene by scene;
    - ``detection``: area under the ROC curve of a layer's best filters, mean over classes (which
      ``clips`` counts), on scenes that they were not chosen on;
    - ``lag of map`` and ``lag of sound``, in s, from the onset of a scene's first event.

    Of no network: ``sources``, how many the scenes have that have several; the ``main stem's
    share`` and ``SI-SDR`` of the ``mixture`` to its own main stem; ``lag of input``, from the onset
    until the mixture has begun by the same rule, over the scenes that timing is measured on.
    """

    analysis: Literal["separation"] = "separation"
    detectors: tuple[Detector, ...]


@dataclass(frozen=True)
class Separation:
    """The measure of `separation`, on clips that are scenes; `quiet` in samples."""

    filters: int
    quiet: int
    sample_rate: int
    method: Method = "sonification"

    def __call__(self, network: nn.Module, clips: Sequence[Clip]) -> Measured:
        """The energy of all filters, and by layer what sounds hold and when they begin."""
        rows = [self._scene(network, clip) for clip in clips if isinstance(clip, SceneClip)]
        energy, scores, lags = (np.stack(arrays) for arrays in zip(*rows, strict=True))
        return {
            "energy": energy,
            **dict(zip(SOURCE_SCORES, np.moveaxis(scores, 2, 0), strict=True)),
            **dict(zip(_LAGS, np.moveaxis(lags, 2, 0), strict=True)),
        }

    def of_clips(self, clips: Sequence[Clip]) -> Measured:
        """What concerns the scenes themselves; NaN where a measure does not apply."""
        mixtures = np.full((len(clips), len(SOURCE_SCORES)), np.nan)
        lags = np.full(len(clips), np.nan)
        for row, clip in enumerate(clips):
            if isinstance(clip, SceneClip):
                x, (first, alone) = torch.from_numpy(clip.waveform), self._first_event(clip)
                if len(clip.stems) > 1:
                    mixtures[row] = source_scores(x[None], x, clip.stems)[0].numpy()
                if alone:
                    lags[row] = onsets(x[None, :alone], sample_rate=self.sample_rate) - first
        columns = [SOURCE_SCORES.index(name) for name in _OF_MIXTURES]
        named: Measured = {
            (name, "mixture"): mixtures[:, column]
            for name, column in zip(_OF_MIXTURES, columns, strict=True)
        }
        return {**named, **count_sources(clips), "lag of input": lags}

    def _scene(self, network: nn.Module, clip: SceneClip) -> tuple[ndarray, ndarray, ndarray]:
        x, stems = torch.from_numpy(clip.waveform), clip.stems
        first, alone = self._first_event(clip)
        passed = ForwardPass(network, x)
        blocks = passed.blocks
        layers = range(1, len(blocks) + 1)
        silence = FeatureMaps(network, x.new_zeros(least_length(blocks)))
        scores = np.full((len(layers), len(SOURCE_SCORES)), np.nan)
        lags = np.full((len(layers), len(_LAGS)), np.nan)
        for row, layer in enumerate(layers):
            chosen = passed.most_active(layer, self.filters)
            sounds = self._sounds(network, passed, layer, chosen).cpu()
            sounding = sounds[sounds.abs().amax(dim=1) > 0]
            if len(stems) > 1 and len(sounding):
                scores[row] = source_scores(sounding, x, stems).mean(dim=0).numpy()
            if alone:
                begun = map_onsets(
                    passed.maps[row][0, chosen[:1], : out_length(blocks, layer, alone)].cpu(),
                    silence.maps[row][0, chosen[:1], 0].cpu(),
                    blocks[:layer],
                    sample_rate=self.sample_rate,
                )
                heard = onsets(sounds[:1, :alone], sample_rate=self.sample_rate)
                lags[row] = torch.cat([begun, heard]).numpy() - first
        energy = torch.cat([passed.energy(layer)[0] for layer in layers])
        return energy.cpu().numpy(), scores, lags

    def _sounds(
        self, network: nn.Module, passed: ForwardPass, layer: int, filters: list[int]
    ) -> Float[Tensor, "filters time"]:
        if self.method == "sonification":
            return passed.sonify(layer, filters)
        x = passed.x[0, 0, : passed.samples]
        return torch.stack(
            [explain(self.method, network, x, layer=layer, filter=one) for one in filters]
        )

    def _first_event(self, clip: SceneClip) -> tuple[float, int]:
        """When the first event begins, in s, and until which sample it is alone.

        That sample is 0 where it is not alone for long enough, or after fewer than `quiet` samples
        of quiet, so that a map has not begun before it.
        """
        sounding = [event for event in clip.events if event.stem.any()]
        first = sounding[0].onset
        length = len(clip.waveform) / self.sample_rate
        end = sounding[1].onset if len(sounding) > 1 else length
        timed = end - first >= _ALONE and first * self.sample_rate >= self.quiet
        return first, round(end * self.sample_rate) if timed else 0


def onsets(x: Float[Tensor, "rows time"], *, sample_rate: int | float) -> Float[Tensor, " rows"]:
    """When each of some sounds first reaches a tenth of its peak, in s; NaN for silence.

    Examples
    --------
    >>> onsets(torch.tensor([[0.0, 0.05, -0.4, 1.0]]), sample_rate=10.0).tolist()
    [0.2]
    """
    size = x.abs()
    peak = size.amax(dim=1, keepdim=True)
    first = (size >= _THRESHOLD * peak).int().argmax(dim=1).double() / sample_rate
    return first.masked_fill(peak[:, 0] == 0, torch.nan)


def map_onsets(
    maps: Float[Tensor, "rows steps"],
    quiet: Float[Tensor, " rows"],
    blocks: Sequence[Block],
    *,
    sample_rate: int | float,
) -> Float[Tensor, " rows"]:
    """When each of some maps first rises a tenth of the way from silence to its highest, in s."""
    step = stride(blocks, len(blocks))
    middle = (receptive_field(blocks, len(blocks)) - 1) / 2 - padding_before(blocks, len(blocks))
    above = (maps - quiet[:, None]).clamp_min(0.0)
    return onsets(above, sample_rate=sample_rate / step) + middle / sample_rate


def separation(
    networks: Networks,
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
    networks, data, seed, streaming
        As for every analysis: see `sonibook.analysis`. Each shape of network is set beside one with
        random weights. The data are scenes with known stems: ``open_dataset("soundscapes")``, also
        with ``mixture_of``.
    filters : int >= 1
        How many of a layer's most active filters to sonify.
    method : str
        What else to make a filter's sound with, to put it to the same test: one of
        `sonibook.deconvnet.alternatives.METHODS`.

    Returns
    -------
    SeparationResult
    """
    if filters < 1:
        raise AnalysisError(f"filters {filters} is impossible: choose 1 or more.")
    every = with_random_weights(networks, data, seed=seed)
    stacks = {network.name: blocks_of(network.module) for network in every}
    scenes = SceneClips(data)
    widest = max(receptive_field(blocks, len(blocks)) for blocks in stacks.values())
    measure = Separation(filters, widest, scenes.sample_rate, method)
    settings: dict[str, Any] = {"filters": filters, "method": method, "seed": seed}
    streaming.setdefault("chunk", 4)  # a clip takes seconds
    found = measure_clips(
        "separation",
        measure,
        every,
        scenes,
        settings=settings,
        of_clips=measure.of_clips,
        least_samples=round(_ALONE * scenes.sample_rate),
        **streaming,
    )
    labels = [data.labels(place) for place in found.index.tolist()]
    present = targets_of(labels, len(data.classes)) > 0
    means = {key: array for key, array in found.arrays.items() if key[1] != "energy"}
    first, gain = every[0], "gain in share"
    for other in every[1:]:
        shared = min(len(stacks[first.name]), len(stacks[other.name]))
        own, theirs = (means[one.name, gain, ""][:, :shared] for one in (first, other))
        means[other.name, "lead of first", ""] = own - theirs
    rows = list(table_rows(every, means))
    detectors: list[Detector] = []
    for network in every:
        channels = [block.conv.out_channels for block in stacks[network.name]]
        ends, energy = np.cumsum(channels), found.arrays[network.name, "energy", ""]
        best = choose(energy, present, seed=seed)
        detectors += _detectors(network.name, best, ends, data.classes)
        for layer, of_layer in enumerate(np.split(energy, ends[:-1], axis=1), start=1):
            rows += _detection(network, layer, choose(of_layer, present, seed=seed))
    return SeparationResult(rows=tuple(rows), detectors=tuple(detectors), **found.fields)


def _detection(network: Network, layer: int, found: Chosen) -> Iterator[Row]:
    """None where no class is on scenes enough."""
    if len(found.classes):
        low, high = found.mean_interval
        mean, classes = float(found.area.mean()), len(found.classes)
        of_layer = Estimate(mean=mean, low=low, high=high, clips=classes)
        yield network.row("detection", of_layer, layer=layer)


def _detectors(
    network: str, found: Chosen, ends: ndarray, classes: Sequence[str]
) -> Iterator[Detector]:
    """One detector a class; filters are counted on from layer to layer, which `ends` undoes."""
    for row, place in enumerate(found.filters):
        layer = int(np.searchsorted(ends, place, side="right"))
        yield Detector(
            network=network,
            event=classes[found.classes[row]],
            layer=layer + 1,
            filter=int(place - (ends[layer - 1] if layer else 0)),
            chosen_area=float(found.chosen_area[row]),
            area=float(found.area[row]),
            low=float(found.interval[row, 0]),
            high=float(found.interval[row, 1]),
            p=float(found.p[row]),
        )
