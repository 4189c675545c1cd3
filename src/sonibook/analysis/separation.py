"""What a filter picks out of a scene whose sources are known, and when.

Three questions, asked alike of every network and of one with random weights:

- *Separation*: how much of one source do the sonifications of a layer's most active filters hold,
  beyond what the mixture holds of it anyway? Needs two stems.
- *Detection*: which filters respond to which event, by the energy of their maps? The best of
  thousands looks good by chance alone. So it is chosen on every other clip, and what is reported is
  how well it does on the rest (`choose`).
- *Timing*: how long after an event does the most active filter's map begin, and its sonification?
  Asked of a scene's first event, where quiet enough to fill the widest receptive field comes
  before it, and no other event for half a second after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.stats import mannwhitneyu, rankdata
from torch import Tensor, nn

from sonibook.analysis import sources, stream
from sonibook.analysis.networks import Networks, with_random_weights
from sonibook.analysis.result import Estimate, Record, ResultTable
from sonibook.analysis.sources import SOURCE_SCORES, SceneClip
from sonibook.analysis.stream import Measured, Streaming
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.alternatives import Method, explain
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.metrics.intervals import holm, times_drawn
from sonibook.metrics.scores import roc_auc, targets_of
from sonibook.model import stack
from sonibook.model.stack import Block, blocks_of

#: For this long the first event must be alone, in s.
_ALONE = 0.5


class _Detector(Record):
    """The filter that tells best of one class of events; see `Chosen`."""

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
    detectors: tuple[_Detector, ...]


@dataclass(frozen=True)
class Separation:
    """The measure of `separation`, on clips that are scenes; `quiet` in samples."""

    filters: int
    quiet: int
    sample_rate: int
    method: Method = "sonification"

    def __call__(self, network: nn.Module, clips: Sequence[Clip]) -> Measured:
        """The energy of all filters, and by layer what sounds hold and when they begin."""
        return stream.stacked(self._scene(network, clip) for clip in clips)

    def of_clips(self, clips: Sequence[Clip]) -> Measured:
        """What concerns the scenes themselves; NaN where a measure does not apply."""
        rows: list[Measured] = []
        for clip in clips:
            x = torch.from_numpy(clip.waveform)[None]
            scores = sources.scores_in_scene(x, clip).numpy()[0]
            first, alone = self._first_event(clip)
            begun = float(onsets(x[:, :alone], sample_rate=self.sample_rate)) if alone else np.nan
            row: Measured = {"lag of input": np.array(begun - first)}
            for name in ("main stem's share", "SI-SDR"):
                row[name, "mixture"] = np.asarray(scores[SOURCE_SCORES.index(name)])
            rows.append(row)
        return {**stream.stacked(rows), **sources.count_sources(clips)}

    def _scene(self, network: nn.Module, clip: Clip) -> Measured:
        x = torch.from_numpy(clip.waveform)
        # A map must not have begun before an event that is timed.
        first, alone = self._first_event(clip)
        passed = ForwardPass(network, x)
        blocks = passed.blocks
        layers = range(1, len(blocks) + 1)
        silence = FeatureMaps(network, x.new_zeros(stack.least_length(blocks)))
        rows = []
        for layer, maps, quiet in zip(layers, passed.maps, silence.maps, strict=True):
            chosen = passed.most_active(layer, self.filters)
            if self.method == "sonification":
                sounds = passed.sonify(layer, chosen).cpu()
            else:
                each = [explain(self.method, network, x, layer=layer, filter=one) for one in chosen]
                sounds = torch.stack(each).cpu()
            scores = sources.scores_in_scene(sounds, clip).nanmean(dim=0)  # but of silent ones
            lags = scores.new_full((2,), torch.nan)
            if alone:
                begun = map_onsets(
                    maps[0, chosen[:1], : stack.out_length(blocks, layer, alone)].cpu(),
                    quiet[0, chosen[:1], 0].cpu(),
                    blocks[:layer],
                    sample_rate=self.sample_rate,
                )
                heard = onsets(sounds[:1, :alone], sample_rate=self.sample_rate)
                lags = torch.cat([begun, heard]) - first
            rows.append(torch.cat([scores, lags]))
        energy = torch.cat([passed.energy(layer)[0] for layer in layers])
        names = ("energy", *SOURCE_SCORES, "lag of map", "lag of sound")
        arrays = (energy.cpu().numpy(), *torch.stack(rows, dim=1).numpy())
        return dict(zip(names, arrays, strict=True))

    def _first_event(self, clip: Clip) -> tuple[float, int]:
        """When the first event begins, in s, and until which sample it is alone; else 0."""
        events = clip.events if isinstance(clip, SceneClip) else ()
        onset, *later = [event.onset for event in events if event.stem.any()]
        end = later[0] if later else len(clip.waveform) / self.sample_rate
        timed = end - onset >= _ALONE and onset * self.sample_rate >= self.quiet
        return onset, round(end * self.sample_rate) if timed else 0


def onsets(x: Float[Tensor, "rows time"], *, sample_rate: int | float) -> Float[Tensor, " rows"]:
    """When each of some sounds first reaches a tenth of its peak, in s; NaN for silence."""
    size = x.abs()
    peak = size.amax(dim=1, keepdim=True)
    first = (size >= 0.1 * peak).int().argmax(dim=1).double() / sample_rate
    return first.masked_fill(peak[:, 0] == 0, torch.nan)


def map_onsets(
    maps: Float[Tensor, "rows steps"],
    quiet: Float[Tensor, " rows"],
    blocks: Sequence[Block],
    *,
    sample_rate: int | float,
) -> Float[Tensor, " rows"]:
    """When each of some maps first rises a tenth of the way from silence to its highest, in s."""
    step = stack.stride(blocks, len(blocks))
    middle = (stack.receptive_field(blocks, len(blocks)) - 1) / 2 - stack.padding_before(
        blocks, len(blocks)
    )
    above = (maps - quiet[:, None]).clamp_min(0.0)
    return onsets(above, sample_rate=sample_rate / step) + middle / sample_rate


def areas(
    scores: Float[ndarray, "clips filters"], present: Bool[ndarray, "clips classes"]
) -> Float[ndarray, "filters classes"]:
    """Area under the ROC curve of every score, as a detector of every class; ties count half."""
    ranks = rankdata(scores, axis=0)
    positives = present.sum(axis=0)
    pairs = positives * (len(present) - positives)
    wins = ranks.T @ present.astype(float) - positives * (positives + 1) / 2
    return wins / np.where(pairs > 0, pairs, np.nan)


@dataclass(frozen=True)
class Chosen:
    """The best detector of each class that has clips enough, chosen on one half of the clips.

    `chosen_area` flatters it. Of the other half are `area`, `redrawn`, the same of redrawn clips,
    and `p`, of "no better than chance", adjusted for the number of classes (Holm).
    """

    classes: Int[ndarray, " detectors"]
    filters: Int[ndarray, " detectors"]
    chosen_area: Float[ndarray, " detectors"]
    area: Float[ndarray, " detectors"]
    p: Float[ndarray, " detectors"]
    redrawn: Float[ndarray, "redrawn detectors"]

    @property
    def interval(self) -> Float[ndarray, "detectors 2"]:
        """The 95 % interval of each `area`."""
        return np.nanquantile(self.redrawn, [0.025, 0.975], axis=0).T.reshape(-1, 2)

    @property
    def mean_interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean of `area`; there must be a detector."""
        drawn = self.redrawn[~np.isnan(self.redrawn).all(axis=1)]
        low, high = np.quantile(np.nanmean(drawn, axis=1), [0.025, 0.975])
        return float(low), float(high)


def choose(
    scores: Float[ndarray, "clips filters"],
    present: Bool[ndarray, "clips classes"],
    *,
    seed: int = 0,
) -> Chosen:
    """The best detector of each class, chosen on every other clip and tried on the rest.

    Classes are left out that fewer than two clips of one half have, or do not have.
    """
    halves = [(scores[start::2], present[start::2]) for start in (0, 1)]
    enough = [np.minimum(part.sum(axis=0), (~part).sum(axis=0)) >= 2 for _, part in halves]
    classes = np.flatnonzero(enough[0] & enough[1])
    (first, first_present), (second, second_present) = halves
    found = areas(first, first_present[:, classes])
    filters = found.argmax(axis=0)
    tried, truth = second[:, filters], second_present[:, classes]
    p = [
        float(mannwhitneyu(score[has], score[~has], alternative="greater").pvalue)
        for score, has in zip(tried.T, truth.T, strict=True)
    ]
    return Chosen(
        classes=classes,
        filters=filters,
        chosen_area=found.max(axis=0),
        area=roc_auc(tried, truth),
        p=holm(np.array(p)),
        # On redrawn clips, all on the same; NaN where a class is not drawn.
        redrawn=roc_auc(tried, truth, times_drawn(len(tried), 2000, seed)),
    )


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
    """
    stream.check_least(1, filters=filters)
    every = with_random_weights(networks, data, seed=seed)
    stacks = {network.name: blocks_of(network.module) for network in every}
    scenes = sources.SceneClips(data)
    widest = max(stack.receptive_field(blocks, len(blocks)) for blocks in stacks.values())
    measure = Separation(filters, widest, scenes.sample_rate, method)
    streaming.setdefault("chunk", 4)  # a clip takes seconds
    found = stream.measure_clips(
        "separation",
        measure,
        every,
        scenes,
        settings={"filters": filters, "method": method, "seed": seed},
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
    rows = list(stream.table_rows(every, means))
    detectors: list[_Detector] = []
    for network in every:
        channels = [block.conv.out_channels for block in stacks[network.name]]
        layers = np.repeat(np.arange(1, len(channels) + 1), channels)
        energy = found.arrays[network.name, "energy", ""]
        best = choose(energy, present, seed=seed)
        numbers = np.column_stack([best.chosen_area, best.area, best.interval, best.p]).tolist()
        for event, place, of_detector in zip(best.classes, best.filters, numbers, strict=True):
            layer = int(layers[place])
            of = {"network": network.name, "event": data.classes[event], "layer": layer}
            of |= dict(zip(("chosen_area", "area", "low", "high", "p"), of_detector, strict=True))
            detectors.append(_Detector(filter=place - sum(channels[: layer - 1]), **of))
        for layer in range(1, len(channels) + 1):
            best = choose(energy[:, layers == layer], present, seed=seed)
            if len(best.classes):
                (low, high), mean = best.mean_interval, float(best.area.mean())
                area = Estimate(mean=mean, low=low, high=high, clips=len(best.classes))
                rows.append(network.row("detection", area, layer=layer))
    return SeparationResult(rows=tuple(rows), detectors=tuple(detectors), **found.fields)
