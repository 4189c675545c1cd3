"""Alternatives to the paper's sonification, by the measures that it is judged by.

They are those of `sonibook.deconvnet.alternatives`: ways to undo max-pools without their switches,
and gradients of the same filters. All are measured by coherence with the clip (section 4.2),
unpoolings by separation, too, and gradients by ablation (section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, Unpack

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from sonibook.analysis import sources, stream
from sonibook.analysis.ablation import Subtraction, p_rows
from sonibook.analysis.controls import chosen_of
from sonibook.analysis.networks import Networks, as_networks, layers_of
from sonibook.analysis.result import ResultTable, Row
from sonibook.analysis.sources import SOURCE_SCORES, SceneClip, SceneClips
from sonibook.analysis.stream import Measured, Streaming
from sonibook.datasets.base import Clip, Dataset
from sonibook.datasets.soundscapes import SceneDataset
from sonibook.deconvnet.alternatives import METHODS, STEPS, UNPOOLING, Method
from sonibook.deconvnet.backward import ForwardPass
from sonibook.metrics.intervals import sign_flip_test
from sonibook.metrics.scores import log_probability
from sonibook.metrics.similarity import mean_top_coherence, spectrogram_correlation
from sonibook.model.stack import blocks_of

#: Where the backward pass starts.
STARTS = ("most active filter", "whole layer")
#: What is measured of sounds; the last of scenes alone.
_NAMES = ("coherence", "similarity", *SOURCE_SCORES)
#: What explanations are subtracted beside; the first stands for the explanation itself.
_CONTROLS = ("sonification", "random phase", "white noise")


def unpooled(layers: Sequence[int], network: nn.Module, clip: Clip) -> Measured:
    """What `compare_unpoolings` measures of some layers; NaN for what cannot be measured."""
    passed = ForwardPass(network, clip.waveform, depth=max(layers))
    measured: Measured = {}
    for start in STARTS:
        rows = []
        for layer in layers:
            filters = passed.most_active(layer) if start == STARTS[0] else None
            ways = (
                passed.sonify_together(layer, filters, unpool=one) for one in UNPOOLING.values()
            )
            sounds = torch.stack([*ways]).cpu()
            x = torch.from_numpy(clip.waveform).expand_as(sounds)
            own = [mean_top_coherence(x, sounds), spectrogram_correlation(sounds[:1], sounds)]
            columns = [torch.stack(own, dim=1).double()]
            if isinstance(clip, SceneClip):
                columns.append(sources.scores_in_scene(sounds, clip))
            rows.append(torch.cat(columns, dim=1).numpy())
        by_unpooling = np.stack(rows, axis=2)
        for unpooling, values in zip(UNPOOLING, by_unpooling, strict=True):
            condition = f"{start}, {unpooling}"
            for name, found, by_switches in zip(_NAMES, values, by_unpooling[0], strict=False):
                measured[name, condition] = found
                measured[f"{name} beyond switches", condition] = found - by_switches
    return measured


def compare_unpoolings(
    networks: Networks,
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """Sonify a filter and a whole layer, with switches and without, and compare.

    Clips of fewer than 1,024 samples are skipped. Parameters are those of every analysis: see
    `sonibook.analysis`.

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
    shallowest = min((blocks_of(network.module) for network in given), key=len)
    chosen = layers_of(shallowest, layers)
    streaming.setdefault("chunk", 2)  # a clip takes seconds
    return stream.measure_networks(
        "unpooling",
        partial(stream.by_clip, partial(unpooled, chosen)),
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


def _explained(
    works: Mapping[Method, Subtraction], classifier: nn.Module, clips: Sequence[Clip]
) -> Measured:
    """Coherences of explanations with clips, and logits of clips without them."""
    found: Measured = {}
    for method, work in works.items():
        rows = []
        for clip, sounds, taken in work.explained(classifier, clips):
            x = torch.from_numpy(clip.waveform).double().expand_as(sounds)
            coherence = mean_top_coherence(x, sounds.double()).numpy()
            rows.append({**work.logits(classifier, clip, taken), "coherence": coherence})
        found |= {(str(name), method): array for name, array in stream.stacked(rows).items()}
    return found


def compare_explanations(
    classifier: nn.Module,
    data: Dataset,
    *,
    name: str = "network",
    methods: Sequence[Method] = METHODS,
    layers: Sequence[int] | None = None,
    steps: int = STEPS,
    level: str = "peak",
    residual: str = "as is",
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ExplanationResult:
    """Put several explanations through the measures of `ablate`, sonification always among them."""
    chosen = chosen_of("method", METHODS, methods)
    work = Subtraction(_CONTROLS, layers, chosen[0], level, residual, seed, steps)
    (network,) = work.check({name: classifier}, data)
    of_network = work.layers_of(classifier)
    settings = work.settings(methods=chosen, steps=steps, residual=residual)
    found = stream.measure_clips(
        "explanations",
        partial(_explained, {method: replace(work, method=method) for method in chosen}),
        [network],
        data,
        settings={**settings, "layers": of_network},
        least_samples=512,  # two segments of coherence
        **streaming,
    )
    rows: list[Row] = []
    arrays: dict[tuple[str, str, str], ndarray] = {}
    for method in chosen:
        clip, left, targets, coherence = (
            found.arrays[name, quantity, method]
            for quantity in ("clip", "residual", "targets", "coherence")
        )
        before, after = (log_probability(one, targets, data.task) for one in (clip, left[:, 0]))
        arrays[name, "coherence", method] = coherence
        arrays[name, "drop", method] = before[:, None] - after
        for row in work.rows(network, found, data.task, condition=method):
            if row.condition == "sonification":
                rows.append(row.model_copy(update={"condition": method}))
            elif row.condition in _CONTROLS:
                named = f"{row.quantity}, {row.condition}"
                rows.append(row.model_copy(update={"quantity": named, "condition": method}))
            elif method == chosen[0]:
                rows.append(row)  # of the untouched clips, whatever the method
    coherences = {key: array for key, array in arrays.items() if key[1] == "coherence"}
    rows += stream.table_rows([network], coherences, layers=of_network, seed=seed)
    beyond = {
        (name, f"{measure} beyond sonification", method): values - arrays[name, measure, chosen[0]]
        for (_, measure, method), values in arrays.items()
        if method != chosen[0]
    }
    if beyond:
        compared = list(stream.table_rows([network], beyond, layers=of_network, seed=seed))
        p = sign_flip_test(np.concatenate(list(beyond.values()), axis=1), seed=seed)
        rows += [*compared, *p_rows(compared, p, named=True)]
    score = "accuracy" if data.task == "single-label" else "mAP"
    return ExplanationResult(score=score, rows=tuple(rows), **found.fields)
