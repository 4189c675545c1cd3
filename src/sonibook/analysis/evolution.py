"""How a filter's sonification came to be: back through the checkpoints of one training run.

The paper's section 3.4 and figure 5. The clip is fixed by the last checkpoint, where it activates
the filter most, so that nothing jumps when another clip takes the lead; each earlier checkpoint
sonifies that clip, and is compared with what came out in the end. How much would have jumped is
measured beside it, with the top clip of each checkpoint itself (Zeiler and Fergus, "Visualizing and
understanding convolutional networks", ECCV 2014, section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isnan
from typing import Literal, Unpack

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.activations import (
    TopClip,
    packed,
    small_spectrogram,
    top_activations,
    unpacked,
)
from sonibook.analysis.result import Record, Result, key_of
from sonibook.analysis.stream import Streaming, check_least, quietly_on_one_thread, seeded
from sonibook.datasets.base import Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError
from sonibook.metrics.similarity import mean_top_coherence, spectrogram_correlation
from sonibook.model.stack import blocks_of, check_filters


class _EvolutionStep(Record):
    """One filter at one checkpoint, on its clip, beside the last checkpoint; None where it is dead.

    `steadiness` is the correlation of the spectrogram's levels with those of the checkpoint before,
    on the clip that stays the same, and `top_clip_steadiness` on each checkpoint's own top clip.
    """

    epoch: int
    energy: float
    correlation: float | None
    coherence: float | None
    cosine: float | None
    spectrogram: str
    top_clip: TopClip | None = None
    steadiness: float | None = None
    top_clip_steadiness: float | None = None

    @property
    def levels(self) -> UInt8[ndarray, "64 80"]:
        """The spectrogram, in dB above a floor 80 dB below its loudest point."""
        return unpacked(self.spectrogram)


class FilterEvolution(Record):
    """One filter through training, on the clip that activates it most at the last checkpoint."""

    layer: int
    filter: int
    clip: TopClip
    seconds: float
    steps: tuple[_EvolutionStep, ...]


class EvolutionResult(Result):
    """Filters through training, by layer, on clips of a rate in Hz: see `feature_evolution`."""

    analysis: Literal["evolution"] = "evolution"
    filters: tuple[FilterEvolution, ...]
    sample_rate: int


def feature_evolution(
    checkpoints: Mapping[int, nn.Module],
    data: Dataset,
    *,
    filters: Sequence[tuple[int, int]] | None = None,
    per_layer: int = 1,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> EvolutionResult:
    """Sonify some filters' top clips with every checkpoint of one training run.

    Parameters
    ----------
    checkpoints : mapping from int to torch.nn.Module
        Two networks of one shape at least, by epoch.
    data, seed, streaming : as for every analysis, see `sonibook.analysis`
    filters : sequence of (layer, filter), or None
        Live on some clip at the last checkpoint. None draws some of each layer that are.
    per_layer : int >= 1
        How many are drawn, where as many are live.
    """
    epochs = sorted(checkpoints)
    if len(epochs) < 2:
        raise AnalysisError("Evolution needs two checkpoints of a run at least.")
    check_least(1, per_layer=per_layer)
    blocks = blocks_of(checkpoints[epochs[-1]])
    for layer, index in filters or ():
        check_filters(blocks, layer, [index])
    networks = {f"epoch {epoch}": checkpoints[epoch] for epoch in epochs}
    found = top_activations(networks, data, k=1, **streaming)
    tops: dict[str, dict[tuple[int, int], TopClip]] = {name: {} for name in networks}
    for one in found.filters:
        if one.top:
            tops[one.network][one.layer, one.filter] = one.top[0]
    live = tops[f"epoch {epochs[-1]}"]
    chosen = list(dict.fromkeys(filters or ()))
    if filters is None:
        of_layers = {layer: [one for own, one in live if own == layer] for layer, _ in live}
        for layer, own in of_layers.items():
            drawn = seeded(seed, f"layer {layer}").permutation(own)[:per_layer]
            chosen += [(layer, int(index)) for index in drawn]
    for layer, index in chosen:
        if (layer, index) not in live:
            raise AnalysisError(
                f"Filter {index} of layer {layer} is live on no clip at epoch {epochs[-1]}: "
                "choose another, or more clips."
            )
    named = None if filters is None else chosen
    settings = {"filters": named, "per_layer": per_layer, "seed": seed}
    return EvolutionResult(
        **key_of("evolution", networks, settings),
        data=found.data,
        sample_rate=data.sample_rate,
        filters=tuple(
            _follow(checkpoints, data, pair, live[pair], [one.get(pair) for one in tops.values()])
            for pair in sorted(chosen)
        ),
    )


def sonify_through_training(
    checkpoints: Mapping[int, nn.Module], x: Float[ndarray, " time"], *, layer: int, filter: int
) -> tuple[Float[Tensor, "epochs time"], Float[Tensor, " epochs"]]:
    """One clip and filter, sonified by each checkpoint, first epoch first.

    Returns
    -------
    sounds : Tensor, shape (epochs, time)
        Silent where the filter was dead.
    energy : Tensor, shape (epochs,), >= 0
        Mean square of the filter's map.
    """
    sounds, energies = [], []
    with quietly_on_one_thread():
        for epoch in sorted(checkpoints):
            passed = ForwardPass(checkpoints[epoch], x, depth=layer)
            sounds.append(passed.sonify(layer, [filter])[0])
            energies.append(passed.energy(layer)[0, filter])
    return torch.stack(sounds).cpu(), torch.stack(energies).cpu()


def _follow(
    checkpoints: Mapping[int, nn.Module],
    data: Dataset,
    pair: tuple[int, int],
    clip: TopClip,
    tops: Sequence[TopClip | None],
) -> FilterEvolution:
    """One filter on one clip, and on its top clip at each checkpoint."""
    (layer, index), epochs = pair, sorted(checkpoints)
    x = data[clip.index].waveform
    sounds, energies = sonify_through_training(checkpoints, x, layer=layer, filter=index)
    sounds = sounds.double()
    final = sounds[-1:].expand_as(sounds)
    enough = sounds.shape[1] >= 256 + 128  # samples in two segments
    missing = sounds.new_full((len(sounds),), torch.nan)
    similarity = {
        "correlation": spectrogram_correlation(sounds, final),
        "coherence": mean_top_coherence(sounds, final) if enough else missing,
        "cosine": (sounds * final).sum(dim=1) / (sounds.norm(dim=1) * final.norm(dim=1)),
    }
    levels = [small_spectrogram(sound) for sound in sounds]
    jumping: list[UInt8[ndarray, "64 80"] | None] = []
    for epoch, top in zip(epochs, tops, strict=True):
        jumping.append(None)
        if top is not None:
            own, there = {epoch: checkpoints[epoch]}, data[top.index].waveform
            heard, _ = sonify_through_training(own, there, layer=layer, filter=index)
            jumping[-1] = small_spectrogram(heard[0])
    columns = {
        "epoch": epochs,
        "energy": energies.tolist(),
        "spectrogram": [packed(one) for one in levels],
        "top_clip": tops,
        "steadiness": _steadiness(levels),
        "top_clip_steadiness": _steadiness(jumping),
    }
    for name, values in similarity.items():
        columns[name] = [None if isnan(value) else value for value in values.tolist()]
    steps = tuple(
        _EvolutionStep(**dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    )
    seconds = len(x) / data.sample_rate
    return FilterEvolution(layer=layer, filter=index, clip=clip, seconds=seconds, steps=steps)


def _steadiness(levels: Sequence[UInt8[ndarray, "64 80"] | None]) -> list[float | None]:
    """The correlation of each with the one before; None where one of the two is flat."""
    found: list[float | None] = [None]
    for before, now in pairwise(levels):
        if before is None or now is None or not (np.ptp(before) and np.ptp(now)):
            found.append(None)
        else:
            found.append(float(np.corrcoef(before.ravel(), now.ravel())[0, 1]))
    return found
