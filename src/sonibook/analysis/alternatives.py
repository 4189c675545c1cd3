"""Alternatives to the paper's sonification, by the measures that it is judged by.

They are those of `sonibook.deconvnet.alternatives`: ways to undo max-pools without their switches,
and gradients of the same filters. All are measured by coherence with the clip (section 4.2),
unpoolings by separation, too, and gradients by ablation (section 4.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, Unpack, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis import sources, stream
from sonibook.analysis.ablation import Subtraction, ablation_rows
from sonibook.analysis.controls import Control, Level, Residual, check_levels, chosen_of
from sonibook.analysis.networks import Network, Networks, as_networks
from sonibook.analysis.result import ResultTable, Row
from sonibook.analysis.sources import SOURCE_SCORES, SceneClip, SceneClips
from sonibook.analysis.stream import Measured, Streaming
from sonibook.datasets.base import Clip, Dataset
from sonibook.datasets.soundscapes import SceneDataset
from sonibook.deconvnet.alternatives import METHODS, STEPS, UNPOOLING, Method
from sonibook.deconvnet.backward import ForwardPass
from sonibook.metrics.intervals import holm, sign_flip_test
from sonibook.metrics.scores import log_probability
from sonibook.metrics.similarity import mean_top_coherence, spectrogram_correlation
from sonibook.model.stack import blocks_of, check_layer

Start = Literal["most active filter", "whole layer"]
STARTS: tuple[Start, ...] = get_args(Start)
#: What is measured of sounds; the last of scenes alone.
_NAMES = ("coherence", "similarity", *SOURCE_SCORES)
#: What explanations are subtracted beside; the first stands for the explanation itself.
_CONTROLS: tuple[Control, ...] = ("sonification", "random phase", "white noise")


@dataclass(frozen=True)
class Unpooled:
    """The measure of `compare_unpoolings`, on some layers."""

    layers: tuple[int, ...]

    def __call__(self, network: nn.Module, clips: Sequence[Clip]) -> Measured:
        """Arrays (clips, layers) by quantity and condition; NaN for what cannot be measured."""
        return stream.stacked(self._clip(network, clip) for clip in clips)

    def _clip(self, network: nn.Module, clip: Clip) -> Measured:
        passed = ForwardPass(network, clip.waveform, depth=max(self.layers))
        unpools, measured = UNPOOLING.values(), Measured()
        for start in STARTS:
            rows = []
            for layer in self.layers:
                filters = passed.most_active(layer) if start == STARTS[0] else None
                ways = [passed.sonify_together(layer, filters, unpool=one) for one in unpools]
                rows.append(_measured(torch.stack(ways).cpu(), clip))
            by_unpooling = np.stack(rows, axis=2)
            for unpooling, values in zip(UNPOOLING, by_unpooling, strict=True):
                condition = f"{start}, {unpooling}"
                for name, own, by_switches in zip(_NAMES, values, by_unpooling[0], strict=False):
                    measured[name, condition] = own
                    measured[f"{name} beyond switches", condition] = own - by_switches
        return measured


def _measured(
    sounds: Float[Tensor, "unpoolings time"], clip: Clip
) -> Float[ndarray, "unpoolings quantities"]:
    x = torch.from_numpy(clip.waveform).expand_as(sounds)
    own = [mean_top_coherence(x, sounds), spectrogram_correlation(sounds[:1], sounds)]
    columns = [torch.stack(own, dim=1).double()]
    if isinstance(clip, SceneClip):
        columns.append(sources.scores_in_scene(sounds, clip))
    return torch.cat(columns, dim=1).numpy()


def compare_unpoolings(
    networks: Networks,
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """Sonify a filter and a whole layer, with switches and without, and compare.

    Parameters
    ----------
    networks, data, layers, streaming
        As for every analysis: see `sonibook.analysis`. Clips of fewer than 1,024 samples are
        skipped.

    Returns
    -------
    ResultTable
        The condition of a row says where the backward pass starts and how max-pools are undone,
        such as ``whole layer, repeat``; ``switches`` are the paper's. The quantities are
        ``coherence`` with the clip, in [0, 1]; ``similarity`` of the spectrogram to that by
        switches from the same start, a correlation; and, of scenes with two sources or more, each
        of `SOURCE_SCORES`; each of these followed by ``beyond switches``, by how much it exceeds
        that of the paper's unpooling, clip by clip; and ``sources``, of no network, how many the
        scenes have that have several.
    """
    given = as_networks(networks)
    stacks = [blocks_of(network.module) for network in given]
    chosen = tuple(layers or range(1, min(map(len, stacks)) + 1))
    for blocks, layer in product(stacks, chosen):
        check_layer(blocks, layer)
    streaming.setdefault("chunk", 2)  # a clip takes seconds
    return stream.measure_networks(
        "unpooling",
        Unpooled(chosen),
        given,
        SceneClips(data) if isinstance(data, SceneDataset) else data,
        settings={"layers": chosen},
        of_clips=sources.count_sources,
        least_samples=1024,
        **streaming,
    )


class ExplanationResult(ResultTable):
    """How explanations compare; make it with `compare_explanations`.

    The condition of a row is the method, one of `sonibook.deconvnet.alternatives.METHODS`. The
    quantities are ``coherence`` with the clip, in [0, 1], and those of an `AblationResult`, of
    which those of a control name it, such as ``difference, white noise``. ``coherence beyond
    sonification`` and ``drop beyond sonification`` are differences clip by clip; their p-values,
    such as ``p, drop beyond sonification`` and ``p_holm, …``, are of a sign-flip test.
    """

    analysis: Literal["explanations"] = "explanations"
    score: Literal["accuracy", "mAP"]


@dataclass(frozen=True)
class _Explained:
    """Coherences of explanations with clips, and logits of clips without them."""

    works: dict[Method, Subtraction]

    def __call__(self, classifier: nn.Module, clips: Sequence[Clip]) -> Measured:
        found: Measured = {}
        for method, work in self.works.items():
            sounds = [work.sounds(classifier, clip) for clip in clips]
            subtracted = work.subtract(classifier, clips, sounds)
            found["residual", method] = subtracted.pop("residual")
            waveforms = (torch.from_numpy(clip.waveform).double() for clip in clips)
            pairs = ((x.expand_as(s), s.double()) for x, s in zip(waveforms, sounds, strict=True))
            found["coherence", method] = torch.stack(
                [mean_top_coherence(*p) for p in pairs]
            ).numpy()
        return {**found, **subtracted}


def compare_explanations(
    classifier: nn.Module,
    data: Dataset,
    *,
    name: str = "network",
    methods: Sequence[Method] = METHODS,
    layers: Sequence[int] | None = None,
    steps: int = STEPS,
    level: Level = "peak",
    residual: Residual = "as is",
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ExplanationResult:
    """Put several explanations through the measures of `ablate`, sonification always among them."""
    chosen = chosen_of("method", METHODS, methods)
    check_levels(level, residual)
    work = Subtraction(_CONTROLS, layers, "sonification", level, residual, seed, steps)
    stream.check_least(1, steps=steps)
    network = Network(name, classifier)
    work.check([network], data)
    of_network = work.layers_of(classifier)
    settings: dict[str, Any] = {"methods": chosen, "layers": of_network, "steps": steps}
    settings |= {"level": level, "residual": residual, "seed": seed}
    found = stream.measure_clips(
        "explanations",
        _Explained({method: replace(work, method=method) for method in chosen}),
        [network],
        data,
        settings=settings,
        least_samples=512,  # two segments of coherence
        **streaming,
    )
    clip, targets = (found.arrays[name, quantity, ""] for quantity in ("clip", "targets"))
    before = log_probability(clip, targets, data.task)[:, None]
    measures: dict[tuple[str, str], ndarray] = {}
    rows: list[Row] = []
    for method in chosen:
        left = found.arrays[name, "residual", method]
        measures["coherence", method] = found.arrays[name, "coherence", method]
        measures["drop", method] = before - log_probability(left[:, :, 0], targets, data.task)
        arrays = {"clip": clip, "targets": targets, "residual": left}
        for row in ablation_rows(network, of_network, _CONTROLS, arrays, data.task, seed=seed):
            if row.condition == "sonification":
                rows.append(row.model_copy(update={"condition": method}))
            elif row.condition in _CONTROLS:
                named = f"{row.quantity}, {row.condition}"
                rows.append(row.model_copy(update={"quantity": named, "condition": method}))
            elif method == chosen[0]:
                rows.append(row)  # of the untouched clips, whatever the method
    coherence = {(name, *key): array for key, array in measures.items() if key[0] == "coherence"}
    rows += stream.table_rows([network], coherence, layers=of_network, seed=seed)
    rows += _beyond_sonification(network, measures, of_network, seed)
    score = "accuracy" if data.task == "single-label" else "mAP"
    return ExplanationResult(score=score, rows=tuple(rows), **found.fields)


def _beyond_sonification(
    network: Network,
    measures: dict[tuple[str, str], Float[ndarray, "clips layers"]],
    layers: Sequence[int],
    seed: int,
) -> Iterator[Row]:
    """Every method but sonification, beside it, clip by clip."""
    differences = {
        (network.name, f"{measure} beyond sonification", method): values
        - measures[measure, "sonification"]
        for measure in ("coherence", "drop")
        for (quantity, method), values in measures.items()
        if quantity == measure and method != "sonification"
    }
    if not differences:
        return
    means = list(stream.table_rows([network], differences, layers=layers, seed=seed))
    p = sign_flip_test(np.concatenate(list(differences.values()), axis=1), seed=seed)
    yield from means
    for kind, values in (("p", p), ("p_holm", holm(p))):
        for row, value in zip(means, values, strict=True):
            quantity = f"{kind}, {row.quantity}"
            point = {"quantity": quantity, "mean": float(value), "low": None, "high": None}
            yield row.model_copy(update=point)
