"""Sonifications and gradients on one scale: what is heard in them, and what is missed without.

Each clip's most active filter of a layer is explained by every method
(`sonibook.deconvnet.attributions`). Each explanation is put through the same measures: coherence
with the clip (paper, section 4.2), and ablation by subtraction with its controls (section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from sonibook.analysis.ablation import Subtraction, ablation_rows, stack_of, targets_of
from sonibook.analysis.controls import LEVELS, RESIDUALS, Control, Level, Residual, check_choices
from sonibook.analysis.networks import Network
from sonibook.analysis.result import Estimate, Measured, Record, Result, Row, estimate, key_of
from sonibook.analysis.stream import Streaming, gather, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.attributions import METHODS, STEPS, Method, most_active_sounds
from sonibook.errors import AnalysisError
from sonibook.metrics.coherence import mean_top_coherence
from sonibook.metrics.scores import log_probability
from sonibook.metrics.significance import holm, sign_flip_test

#: What each explanation is read against; the first stands for the explanation itself.
_CONTROLS: tuple[Control, ...] = ("sonification", "random phase", "white noise")
#: Of coherence: two segments and more.
_LEAST_SAMPLES = 512


class AgainstSonification(Record):
    """A method beside sonification, by one measure in one layer, clip by clip."""

    method: Method
    layer: int
    measure: Literal["coherence", "drop"]
    difference: Estimate
    p: float
    p_holm: float


class Explained(Record):
    """One method, layer by layer."""

    method: Method
    coherence: dict[int, Estimate]
    ablation: tuple[Row, ...]


class ExplanationResult(Result):
    """What `compare_explanations` found."""

    analysis: Literal["explanations"] = "explanations"
    score: Literal["accuracy", "mAP"]
    methods: tuple[Explained, ...]
    against_sonification: tuple[AgainstSonification, ...]


@dataclass(frozen=True)
class _Comparison:
    """Coherences of explanations with clips, and logits of clips without them."""

    classifier: nn.Module
    layers: tuple[int, ...]
    work: Subtraction
    methods: tuple[Method, ...]
    steps: int

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        rows: dict[str, list[ndarray]] = {}
        for clip in clips:
            x = torch.from_numpy(clip.waveform)
            for method in self.methods:
                sounds, _ = most_active_sounds(
                    method,
                    stack_of(self.classifier),
                    x,
                    self.layers,
                    steps=self.steps,
                )
                top = mean_top_coherence(x.expand_as(sounds).double(), sounds.double())
                heard, left = self.work.logits(self.classifier, clip, sounds)
                rows.setdefault(f"coherence {method}", []).append(top.numpy())
                rows.setdefault(f"residual {method}", []).append(left)
            rows.setdefault("clip", []).append(heard)
        arrays = {name: np.stack(row) for name, row in rows.items()}
        return {**arrays, "targets": targets_of(clips, arrays["clip"].shape[1])}


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
    """Put several explanations of the same filters through the same measures."""
    check_choices(
        *(("method", method, METHODS) for method in methods),
        ("level", level, LEVELS),
        ("residual", residual, RESIDUALS),
    )
    if steps < 1:
        raise AnalysisError(f"steps {steps} is impossible: choose 1 or more.")
    chosen = tuple(one for one in METHODS if one == "sonification" or one in methods)
    wanted = None if layers is None else tuple(sorted(set(layers)))
    work = Subtraction(_CONTROLS, wanted, level=level, residual=residual, seed=seed)
    work.check(classifier, data, name=name)
    of_network = work.layers_of(classifier)
    settings: dict[str, Any] = {
        "methods": list(chosen),
        "layers": list(of_network),
        "steps": steps,
        "level": level,
        "residual": residual,
        "seed": seed,
    }
    key = key_of("explanations", {name: classifier}, settings)
    chunks = stream(
        _Comparison(classifier, of_network, work, chosen, steps),
        data,
        key=key,
        least_samples=_LEAST_SAMPLES,
        description="explanations",
        **streaming,
    )
    whole = gather(chunks)
    arrays = whole.arrays
    coherence = {method: arrays[f"coherence {method}"] for method in chosen}
    before = log_probability(arrays["clip"], arrays["targets"], data.task)[:, None]
    drop = {
        method: before
        - log_probability(arrays[f"residual {method}"][:, :, 0], arrays["targets"], data.task)
        for method in chosen
    }
    explained = tuple(
        Explained(
            method=method,
            coherence={
                layer: estimate(coherence[method][:, row], seed=seed)
                for row, layer in enumerate(of_network)
            },
            ablation=tuple(
                ablation_rows(
                    Network(name, classifier),
                    of_network,
                    _CONTROLS,
                    {**arrays, "residual": arrays[f"residual {method}"]},
                    data.task,
                    seed=seed,
                )
            ),
        )
        for method in chosen
    )
    return ExplanationResult(
        **key,
        data=Measured.of(data, clips=len(whole.clip_ids), skipped=whole.skipped),
        score="accuracy" if data.task == "single-label" else "mAP",
        methods=explained,
        against_sonification=_against({"coherence": coherence, "drop": drop}, of_network, seed),
    )


def _against(
    measures: dict[Literal["coherence", "drop"], dict[Method, ndarray]],
    layers: Sequence[int],
    seed: int,
) -> tuple[AgainstSonification, ...]:
    """Every method but sonification, beside it."""
    cells, columns = [], []
    for measure, values in measures.items():
        for method, own in values.items():
            for row, layer in enumerate(layers):
                if method != "sonification":
                    cells.append((measure, method, layer))
                    columns.append(own[:, row] - values["sonification"][:, row])
    if not cells:
        return ()
    p = sign_flip_test(np.stack(columns, axis=1), seed=seed)
    return tuple(
        AgainstSonification(
            method=method,
            layer=layer,
            measure=measure,
            difference=estimate(column, seed=seed),
            p=float(own),
            p_holm=float(adjusted),
        )
        for (measure, method, layer), column, own, adjusted in zip(
            cells, columns, p, holm(p), strict=True
        )
    )
