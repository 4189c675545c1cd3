"""Does a sonification depend on what the network has learned (Adebayo et al. 2018)?

An explanation of what a network has learned must change when the network forgets it. Each clip's
most active filter of a layer is chosen on the trained network and kept; then layers are given
fresh He weights, and the filter is sonified again:

- *cascading*: from the filter's own layer down to another (what lies above takes no part in a
  sonification, and forgetting it changes nothing);
- *independent*: one layer alone.

How alike the two sonifications are is read against what cannot tell of learning: the clip itself,
the next most active filter of the same layer, and two random networks. Every clip meets random
weights of its own, so that the intervals over clips hold for other weights, too. Networks trained
otherwise, such as on shuffled labels, are compared by the filters that they themselves are most
active in, since no filter of one is the counterpart of another's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.estimates import estimates
from sonibook.analysis.networks import mixed, untrained
from sonibook.analysis.result import Estimate, Measured, Record, Result, key_of
from sonibook.analysis.stream import Streaming, gather, seeded, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError
from sonibook.metrics.similarity import (
    log_spectral_distance,
    rank_correlation,
    spectrogram_correlation,
    structural_similarity,
)
from sonibook.model.stack import Block, blocks_of, check_layer

#: How alike two sounds are: the higher the more alike, but for the distance.
MEASURES = {
    "rank correlation": rank_correlation,
    "structural similarity": structural_similarity,
    "spectrogram correlation": spectrogram_correlation,
    "log-spectral distance": log_spectral_distance,
}

Randomised = Literal["cascading", "independent"]
#: What every network is read against.
BASELINES = ("input", "runner-up filter", "random network", "two random networks")
#: Frames enough for a window of structural similarity.
_LEAST_SAMPLES = 1024


class SanityPoint(Record):
    """One layer's sonifications after other layers were randomised.

    Attributes
    ----------
    randomised : {"cascading", "independent"}
    layer : int
        Of the filter that is listened to.
    down_to : int
        The lowest layer with random weights: from `layer` down to it, or it alone.
    likeness : dict of str to Estimate
        To the trained network's sonification, by measure.
    """

    randomised: Randomised
    layer: int
    down_to: int
    likeness: dict[str, Estimate]


class SanityBaseline(Record):
    """One layer's sonifications beside something else, named after it."""

    name: str
    layer: int
    likeness: dict[str, Estimate]


class SanityResult(Result):
    """How much sonifications change as a network forgets; see `sanity`.

    Where an estimate is over fewer clips than were measured, one sound of the other pairs was
    silent, because its map was.

    Attributes
    ----------
    points : tuple of SanityPoint
    baselines : tuple of SanityBaseline
    """

    analysis: Literal["sanity"] = "sanity"
    points: tuple[SanityPoint, ...]
    baselines: tuple[SanityBaseline, ...]


@dataclass(frozen=True)
class Sanity:
    """The measure of `sanity`, for `stream`.

    Attributes
    ----------
    network : torch.nn.Module
    layers : tuple of int
    others : dict of str to torch.nn.Module
    seed : int
    """

    network: nn.Module
    layers: tuple[int, ...]
    others: dict[str, nn.Module] = field(default_factory=dict)
    seed: int = 0

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        """By kind, arrays (clip, layer, randomised layer or baseline, measure); NaN for none."""
        rows = [self._clip(clip) for clip in clips]
        return {kind: np.stack([row[kind] for row in rows]) for kind in rows[0]}

    def _clip(self, clip: Clip) -> dict[str, ndarray]:
        x, blocks = torch.from_numpy(clip.waveform), blocks_of(self.network)[: max(self.layers)]
        passed = ForwardPass(self.network, x, depth=len(blocks))
        trained, filters = passed.sonify_most_active(self.layers)
        seeds = seeded(self.seed, clip.clip_id).integers(2**31, size=2)
        first, second = (untrained(blocks, seed=int(one)) for one in seeds)

        def most_active(network: nn.Module) -> Tensor:
            return ForwardPass(network, x, depth=len(blocks)).sonify_most_active(self.layers)[0]

        def randomised(layers: Collection[int]) -> Tensor:
            """The fixed filters; those of layers below all random ones are not changed: NaN."""
            sounds = torch.full_like(trained, torch.nan)
            again = ForwardPass(mixed(blocks, first, layers), x)
            for row, layer in enumerate(self.layers):
                if layer >= min(layers):
                    sounds[row] = again.sonify(layer, [int(filters[row])])[0]
            return sounds

        every = range(1, len(blocks) + 1)
        random, another = (most_active(mixed(blocks, one, every)) for one in (first, second))
        baselines = [
            (trained, x.expand_as(trained)),
            (trained, self._runners_up(passed)),
            (trained, random),
            (random, another),
            *((trained, most_active(other)) for other in self.others.values()),
        ]
        return {
            "cascading": _likeness(
                [(trained, randomised(range(down_to, len(blocks) + 1))) for down_to in every]
            ),
            "independent": _likeness([(trained, randomised([layer])) for layer in every]),
            "baseline": _likeness(baselines),
        }

    def _runners_up(self, passed: ForwardPass) -> Tensor:
        """The second most active filter of each layer; NaN where there is just one."""
        sounds = passed.x.new_full((len(self.layers), passed.samples), torch.nan)
        for row, layer in enumerate(self.layers):
            second = passed.most_active(layer, 2)[1:]
            if second:
                sounds[row] = passed.sonify(layer, second)[0]
        return sounds


def _likeness(
    pairs: Sequence[tuple[Tensor, Tensor]],
) -> Float[ndarray, "layer pair measure"]:
    result = np.full((len(pairs[0][0]), len(pairs), len(MEASURES)), np.nan)
    for column, (first, second) in enumerate(pairs):
        rows = ~second.isnan().any(dim=1)
        if rows.any():
            values = [measure(first[rows], second[rows]) for measure in MEASURES.values()]
            result[rows.numpy(), column] = torch.stack([one.double() for one in values], dim=1)
    return result


def sanity(
    network: nn.Module,
    data: Dataset,
    *,
    name: str = "network",
    others: Mapping[str, nn.Module] | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> SanityResult:
    """How much sonifications change when layers are given random weights.

    Parameters
    ----------
    network : torch.nn.Module
        As `sonibook.sonify` takes it; trained.
    data : Dataset
        Clips of fewer than 1,024 samples are skipped.
    name : str
        Of the network, in the result.
    others : mapping from str to torch.nn.Module, or None
        Networks to set beside it, with as many layers: one trained on shuffled labels, say.
    layers : sequence of int, or None
        Whose filters to listen to; None for all.
    seed : int >= 0
        Of the random weights, with the clip's id.
    **streaming
        `parts`, `chunk`, `processes` and `limit`, as for `stream`.

    Returns
    -------
    SanityResult

    Raises
    ------
    AnalysisError
        If there is nothing to measure, or another network has a baseline's name.
    LayerError, StackError
        If a network has no such layer, or cannot be sonified.
    """
    others = dict(others or {})
    taken = {name, *BASELINES} & others.keys()
    if taken:
        raise AnalysisError(f"{taken.pop()!r} names two things here: give the network another.")
    chosen = _checked(blocks_of(network), layers)
    for other in others.values():
        _checked(blocks_of(other), chosen)
    settings: dict[str, Any] = {"layers": list(chosen), "seed": seed}
    key = key_of("sanity", {name: network, **others}, settings)
    streaming.setdefault("chunk", 2)  # a clip takes seconds
    chunks = stream(
        Sanity(network, chosen, others, seed),
        data,
        key=key,
        least_samples=_LEAST_SAMPLES,
        description="sanity",
        **streaming,
    )
    whole = gather(chunks)
    points = tuple(
        SanityPoint(
            randomised=kind,
            layer=layer,
            down_to=down_to,
            likeness=estimates(tuple(MEASURES), whole.arrays[kind][:, row, down_to - 1]),
        )
        for kind in ("cascading", "independent")
        for row, layer in enumerate(chosen)
        for down_to in range(1, layer + 1)
    )
    baselines = tuple(
        SanityBaseline(
            name=one,
            layer=layer,
            likeness=estimates(tuple(MEASURES), whole.arrays["baseline"][:, row, column]),
        )
        for column, one in enumerate((*BASELINES, *others))
        for row, layer in enumerate(chosen)
    )
    measured = Measured.of(data, clips=len(whole.clip_ids), skipped=whole.skipped)
    return SanityResult(data=measured, points=points, baselines=baselines, **key)


def _checked(blocks: Sequence[Block], layers: Sequence[int] | None) -> tuple[int, ...]:
    """`layers`, or all, if the stack has them."""
    if layers is None:
        return tuple(range(1, len(blocks) + 1))
    return tuple(sorted({check_layer(blocks, layer) for layer in layers}))
