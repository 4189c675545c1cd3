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

from sonibook.analysis.ablation_result import NetworkAblation, summarised
from sonibook.analysis.controls import LEVELS, RESIDUALS, Control, Level, Residual
from sonibook.analysis.paired import holm, sign_flip_test
from sonibook.analysis.result import Estimate, Measured, Record, Result, estimate, key_of
from sonibook.analysis.stream import Streaming, gather, stream
from sonibook.analysis.subtraction import Subtraction, layers_of, listened_to, log_probability
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.attributions import METHODS, STEPS, Method, most_active_sounds
from sonibook.errors import AnalysisError
from sonibook.metrics.coherence import mean_top_coherence

#: What each explanation is read against; the first stands for the explanation itself.
_CONTROLS: tuple[Control, ...] = ("sonification", "random phase", "white noise")
#: Of coherence: two segments and more.
_LEAST_SAMPLES = 512


class AgainstSonification(Record):
    """A method beside sonification, by one measure in one layer, clip by clip.

    Attributes
    ----------
    method : str
    layer : int
    measure : {"coherence", "drop"}
    difference : Estimate
        The method's minus the sonification's.
    p, p_holm : float
        Of a sign-flip test; adjusted by Holm's method for all methods, layers and both measures.
    """

    method: Method
    layer: int
    measure: Literal["coherence", "drop"]
    difference: Estimate
    p: float
    p_holm: float


class Explained(Record):
    """One method, layer by layer.

    Attributes
    ----------
    method : str
    coherence : dict of int to Estimate, in [0, 1]
        Mean top-5 coherence of explanations with their clips, by layer.
    ablation : NetworkAblation
        Of explanations in the sonification's place, which its control ``"sonification"`` is.
    """

    method: Method
    coherence: dict[int, Estimate]
    ablation: NetworkAblation


class ExplanationResult(Result):
    """What `compare_explanations` found.

    Attributes
    ----------
    score : {"accuracy", "mAP"}
    methods : tuple of Explained
    against_sonification : tuple of AgainstSonification
    """

    analysis: Literal["explanations"] = "explanations"
    score: Literal["accuracy", "mAP"]
    methods: tuple[Explained, ...]
    against_sonification: tuple[AgainstSonification, ...]


@dataclass(frozen=True)
class _Comparison:
    """Coherences of explanations with clips, and logits of clips without them."""

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
                    listened_to(self.work.classifier),
                    x,
                    self.work.layers,
                    steps=self.steps,
                )
                top = mean_top_coherence(x.expand_as(sounds).double(), sounds.double())
                heard, left = self.work.logits(clip, sounds)
                rows.setdefault(f"coherence {method}", []).append(top.numpy())
                rows.setdefault(f"residual {method}", []).append(left)
            target = np.zeros_like(heard)
            target[list(clip.labels)] = 1.0
            rows.setdefault("clip", []).append(heard)
            rows.setdefault("targets", []).append(target)
        return {name: np.stack(row) for name, row in rows.items()}


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
    """Put several explanations of the same filters through the same measures.

    Parameters
    ----------
    classifier : torch.nn.Module
        As for `ablate`.
    data : Dataset
        Clips of fewer than 512 samples are skipped.
    name : str
        Of the classifier, in the result.
    methods : sequence of str
        Of `METHODS`; sonification is always among them.
    layers : sequence of int, or None
        None for all.
    steps : int >= 1
        Of integrated gradients.
    level, residual : str
        As for `ablate`. At the clip's peak, a sound of a few spikes has little power.
    seed : int >= 0
        Of everything random, with the clip's id.
    **streaming
        As for `stream`.

    Returns
    -------
    ExplanationResult

    Raises
    ------
    AnalysisError
        As `ablate`, and if Captum is not installed.
    LayerError, StackError
        If the network has no such layer, or cannot be sonified.
    """
    for what, value, known in (
        *(("method", method, METHODS) for method in methods),
        ("level", level, LEVELS),
        ("residual", residual, RESIDUALS),
    ):
        if value not in known:
            raise AnalysisError(f"There is no {what} {value!r}: choose one of {', '.join(known)}.")
    if steps < 1:
        raise AnalysisError(f"steps {steps} is impossible: choose 1 or more.")
    chosen = tuple(one for one in METHODS if one == "sonification" or one in methods)
    work = Subtraction(
        classifier,
        layers_of(classifier, layers),
        _CONTROLS,
        level=level,
        residual=residual,
        seed=seed,
    )
    work.check(data, name=name)
    settings: dict[str, Any] = {
        "methods": list(chosen),
        "layers": list(work.layers),
        "steps": steps,
        "level": level,
        "residual": residual,
        "seed": seed,
    }
    key = key_of("explanations", {name: classifier}, settings)
    chunks = stream(
        _Comparison(work, chosen, steps),
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
                for row, layer in enumerate(work.layers)
            },
            ablation=summarised(
                name,
                work.layers,
                _CONTROLS,
                {**arrays, "residual": arrays[f"residual {method}"]},
                data.task,
                seed=seed,
            ),
        )
        for method in chosen
    )
    return ExplanationResult(
        **key,
        data=Measured.of(data, clips=len(whole.clip_ids), skipped=whole.skipped),
        score="accuracy" if data.task == "single-label" else "mAP",
        methods=explained,
        against_sonification=_against({"coherence": coherence, "drop": drop}, work.layers, seed),
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
