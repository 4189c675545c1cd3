"""How faithful explanations are to a classifier, by the measures of listenable maps (L-MAC).

An explanation s of a clip x is handed to the classifier alone (the explained part) and taken away
from the clip (the rest, x - s), and it is asked what becomes of the class c that it names on x,
whose probability is p:

============== ======================= ==========================================================
quantity       of one clip             better
============== ======================= ==========================================================
``AI``         100 if p(s) > p(x)      higher: average increase, in %
``AD``         100 max(0, p(x) - p(s)) lower: average drop, in %
               / p(x)
``AG``         100 max(0, p(s) - p(x)) higher: average gain, in %
               / (1 - p(x))
``FF``         p(x) - p(x - s)         higher: faithfulness, in [-1, 1]
``Fid-In``     1 if s is named c, too  higher: input fidelity
``sparseness`` Gini index of S         higher: how few points hold the explanation, in [0, 1]
``complexity`` entropy of S            lower: over how many points it spreads, in nats
``insertion``  mean of p over shares   higher: the points of x that are loudest in s come first
``deletion``   mean of p over shares   lower: these points of x are taken away first
============== ======================= ==========================================================

S is the size of the short-time spectrum of s, at its points of time and frequency; for its entropy,
their shares of its sum. `dose_response` takes s away bit by bit. L-MAC masks the
spectrogram of x, so that explained part and rest are of it by design; a sonification is a sound of
its own, whose level is open: see `sonibook.analysis.controls.scale`.

Sources: F. Paissan, M. Ravanelli, C. Subakan, "Listenable maps for audio classifiers", ICML 2024
(arXiv 2403.13086): AI, AD, AG, FF, Fid-In. P. Chalasani et al., "Concise explanations of neural
networks using adversarial training", ICML 2020: sparseness. U. Bhatt, A. Weller, J. Moura,
"Evaluating and aggregating feature-based model explanations", IJCAI 2020: complexity.
V. Petsiuk, A. Das, K. Saenko, "RISE", BMVC 2018: insertion and deletion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis import controls
from sonibook.analysis.ablation import Subtraction, logits_of
from sonibook.analysis.controls import REMOVED, Control, Level
from sonibook.analysis.networks import Networks, as_networks
from sonibook.analysis.result import ResultTable
from sonibook.analysis.stream import Measured, Streaming, check_least, measure_networks
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.alternatives import METHODS, STEPS, Method
from sonibook.errors import AnalysisError
from sonibook.metrics.scores import targets_of
from sonibook.metrics.similarity import short_time_spectra

#: What stands in the sonification's place, at its RMS; the clip itself at its own.
CONTROLS: tuple[Control, ...] = (
    "sonification",
    "random weights",
    "another clip",
    "random phase",
    "white noise",
)
_ITSELF = "the clip itself"
#: How much of a sonification is taken away.
SHARES = (0.25, 0.5, 0.75, 1.0)
QUANTITIES = (
    "AI", "AD", "AG", "FF", "Fid-In", "sparseness", "complexity", "insertion", "deletion",
)  # fmt: skip
#: Short-time spectra: frames of 32 ms at 8 kHz, half of one to the next.
_FRAME, _HOP = 256, 128


def kept_and_lost(
    whole: Float[ndarray, " classes"],
    explained: Float[ndarray, "sounds classes"],
    rest: Float[ndarray, "sounds classes"],
) -> dict[str, Float[ndarray, " sounds"]]:
    """AI, AD, AG, FF and Fid-In of explanations of one clip, from class probabilities."""
    named = int(whole.argmax())
    p, inside, outside = float(whole[named]), explained[:, named], rest[:, named]
    room = max(1.0 - p, np.finfo(np.float64).tiny)
    return {
        "AI": 100.0 * (inside > p),
        "AD": 100.0 * np.maximum(p - inside, 0.0) / p,
        "AG": 100.0 * np.maximum(inside - p, 0.0) / room,
        "FF": p - outside,
        "Fid-In": (explained.argmax(axis=1) == named).astype(float),
    }


def sparseness(sizes: Float[ndarray, "sounds points"]) -> Float[ndarray, " sounds"]:
    """Gini index of each row of sizes: 0 if all points are alike, near 1 if one holds all."""
    ordered, count = np.sort(sizes, axis=1), sizes.shape[1]
    weights = 2 * np.arange(1, count + 1) - count - 1
    return (ordered @ weights) / (count * ordered.sum(axis=1))


def complexity(sizes: Float[ndarray, "sounds points"]) -> Float[ndarray, " sounds"]:
    """Entropy, in nats, of the shares that points have of each row's sum."""
    shares = sizes / sizes.sum(axis=1, keepdims=True)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.maximum(-(shares * logs).sum(axis=1), 0.0)


def partial_clips(
    x: Float[Tensor, " time"], s: Float[Tensor, " time"], points: int
) -> tuple[Float[Tensor, "steps time"], Float[Tensor, "steps time"]]:
    """A clip with the first 1/points, 2/points … of its points, the largest in s, and without."""
    spectrum = short_time_spectra(x, frame=_FRAME, hop=_HOP)
    order = short_time_spectra(s, frame=_FRAME, hop=_HOP).abs().flatten().argsort(descending=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    first = (place[None] < torch.arange(1, points)[:, None] * (len(order) / points)).to(x.dtype)
    masked = spectrum * first.reshape(-1, *spectrum.shape)
    window = torch.hann_window(_FRAME)
    inserted = torch.istft(masked, _FRAME, _HOP, window=window, length=len(x))
    return inserted, x - inserted


@dataclass(frozen=True)
class _Faithful:
    """The measure of `faithfulness`; `points` None for no curves."""

    work: Subtraction
    methods: tuple[Method, ...]
    points: int | None

    def __call__(self, classifier: nn.Module, clips: Sequence[Clip]) -> Measured:
        works = [replace(self.work, method=one) for one in ("sonification", *self.methods)]
        explained = [[work.sounds(classifier, clip) for work in works] for clip in clips]
        conditions = (*CONTROLS, *self.methods, _ITSELF)
        partnered = controls.with_partners(clips, [sounds[0] for sounds in explained])
        values = np.stack(
            [
                self._of_clip(classifier, *of_clip, others)
                for of_clip, (_, *others) in zip(partnered, explained, strict=True)
            ]
        )
        return {
            (quantity, condition): values[:, row, :, column]
            for row, condition in enumerate(conditions)
            for column, quantity in enumerate(QUANTITIES)
            if self.points is not None or quantity not in ("insertion", "deletion")
        }

    def _of_clip(
        self,
        classifier: nn.Module,
        clip: Clip,
        s: Float[Tensor, "layers time"],
        of_another: Float[Tensor, "layers samples"],
        others: Sequence[Float[Tensor, "layers time"]],
    ) -> Float[ndarray, "conditions layers quantities"]:
        x = torch.from_numpy(clip.waveform)
        instead = self.work.instead(classifier, clip, s, of_another)
        scaled = (controls.scale(one, x, self.work.level) for one in others)
        every = torch.stack([*instead, *scaled, x.expand_as(s)])
        asked = ((every != 0).any(dim=2) & (s != 0).any(dim=1)).flatten().numpy()
        values = np.full((*every.shape[:2], len(QUANTITIES)), np.nan)
        if asked.any():
            flat = every.flatten(0, 1)[asked]
            values.reshape(-1, len(QUANTITIES))[asked] = self._values(classifier, x, flat)
        return values

    def _values(
        self, classifier: nn.Module, x: Float[Tensor, " time"], s: Float[Tensor, "sounds time"]
    ) -> Float[ndarray, "sounds quantities"]:
        silence = torch.zeros_like(x)
        heard = _softmax(logits_of(classifier, torch.cat([x[None], silence[None], s, x - s])))
        whole = heard[0]
        found = kept_and_lost(whole, heard[2 : 2 + len(s)], heard[2 + len(s) :])
        sizes = short_time_spectra(s, frame=_FRAME, hop=_HOP).abs().flatten(1).double().numpy()
        found |= {"sparseness": sparseness(sizes), "complexity": complexity(sizes)}
        if self.points is not None:
            named = int(whole.argmax())
            parts = (torch.cat(partial_clips(x, one, self.points)) for one in s)
            curves = np.stack(
                [_softmax(logits_of(classifier, one))[:, named].reshape(2, -1) for one in parts]
            )
            ends = np.broadcast_to(heard[[1, 0], named], (len(s), 2))
            insertion = np.column_stack([ends[:, :1], curves[:, 0], ends[:, 1:]])
            deletion = np.column_stack([ends[:, 1:], curves[:, 1], ends[:, :1]])
            found["insertion"] = np.trapezoid(insertion, dx=1 / self.points, axis=1)
            found["deletion"] = np.trapezoid(deletion, dx=1 / self.points, axis=1)
        missing = np.full(len(s), np.nan)
        return np.column_stack([found.get(name, missing) for name in QUANTITIES])


def faithfulness(
    classifiers: Networks,
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    methods: Sequence[Method] | None = None,
    points: int | None = 5,
    steps: int = STEPS,
    level: Level = "peak",
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """Put sonifications, controls and gradients through the measures of faithfulness.

    Parameters
    ----------
    classifiers, data, layers, seed, streaming
        As for `sonibook.analysis.ablation.ablate`, of clips with one label each. What is asked is
        the class that a classifier names, right or wrong.
    methods : sequence of str, or None
        Other explanations of the same filters, of `sonibook.deconvnet.alternatives.METHODS`; None
        for all where Captum is installed.
    points : int >= 2, or None
        Steps of the insertion and deletion curves, each of which takes a forward pass; None for no
        curves.
    steps : int >= 1
        Of integrated gradients.
    level : {"peak", "least squares"}
        Of every explanation; see `sonibook.analysis.controls.scale`. Controls have its RMS.

    Returns
    -------
    ResultTable
        Its quantities are `QUANTITIES`, of each clip's most active filter of a layer; the condition
        is one of `CONTROLS`, another of `sonibook.deconvnet.alternatives.METHODS`, or ``the clip
        itself``, which explains all and leaves nothing. Clips on which no filter of a layer is live
        are left out.
    """
    every = METHODS if find_spec("captum") is not None else ()
    _, *chosen = controls.chosen_of("method", METHODS, every if methods is None else methods)
    controls.check_levels(level)
    work = Subtraction(CONTROLS, layers, level=level, seed=seed, steps=steps)
    check_least(2, points=points)
    check_least(1, steps=steps)
    if data.task != "single-label":
        raise AnalysisError(
            f"{data.name} is {data.task}: these measures ask for the one class that is named."
        )
    networks = as_networks(classifiers)
    work.check(networks, data)
    settings: dict[str, Any] = {"layers": work.layers, "methods": chosen, "points": points}
    settings |= {"steps": steps, "level": level, "seed": seed}
    streaming.setdefault("chunk", 4)  # a clip takes seconds
    measure = _Faithful(work, tuple(chosen), points)
    return measure_networks("faithfulness", measure, networks, data, settings=settings, **streaming)


@dataclass(frozen=True)
class _Dosed:
    """The measure of `dose_response`."""

    work: Subtraction
    shares: tuple[float, ...]

    def __call__(self, classifier: nn.Module, clips: Sequence[Clip]) -> Measured:
        doses = torch.tensor(self.shares)[:, None, None, None]
        found: Measured = {}
        sounds = [self.work.sounds(classifier, clip) for clip in clips]
        rows = [
            self.work.logits(classifier, torch.from_numpy(clip.waveform), doses * taken)
            for clip, taken in zip(clips, self.work.taken(classifier, clips, sounds), strict=True)
        ]
        whole, left = (_softmax(np.stack(arrays)) for arrays in zip(*rows, strict=True))
        targets = targets_of([clip.labels for clip in clips], whole.shape[1])
        scores = (left * targets[:, None, None, None]).sum(axis=-1)
        for share, score in zip(self.shares, np.moveaxis(scores, 1, 0), strict=True):
            for column, control in enumerate(REMOVED):
                found[f"score at {share:g}", control] = score[:, :, column]
                if column:
                    found[f"lead at {share:g}", control] = score[:, :, column] - score[:, :, 0]
        found["score at 0"] = (whole * targets).sum(axis=1)
        return found


def _softmax(logits: Float[ndarray, "*rows classes"]) -> Float[ndarray, "*rows classes"]:
    return torch.from_numpy(logits).double().softmax(dim=-1).numpy()


def dose_response(
    classifiers: Networks,
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    shares: Sequence[float] = SHARES,
    level: Level = "peak",
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """What becomes of the true class's score as more and more of a sonification is taken away.

    Parameters
    ----------
    classifiers, data, layers, seed, streaming
        As for `sonibook.analysis.ablation.ablate`, of clips with one label each.
    shares : sequence of float > 0
        Of what is taken away: of share a of a sonification s, x - a s is left of a clip x.
    level : {"peak", "least squares"}
        Of the whole sonification; see `sonibook.analysis.controls.scale`.

    Returns
    -------
    ResultTable
        ``score at 0.25`` and so on: the mean probability of the true class, in [0, 1], when that
        share of what the condition says is taken away, one of `REMOVED`, at equal energy; of no
        layer ``score at 0``, of untouched clips. ``lead at 0.25``: by how much the score without
        a control exceeds that without the sonification, clip by clip: above 0, the sonification
        is missed more.
    """
    controls.check_levels(level)
    work = Subtraction(REMOVED, layers, level=level, seed=seed)
    if data.task != "single-label":
        raise AnalysisError(f"{data.name} is {data.task}: a dose is of the one class that is true.")
    if not shares or min(shares) <= 0:
        raise AnalysisError(f"Shares {list(shares)} are impossible: give some above 0.")
    networks = as_networks(classifiers)
    work.check(networks, data)
    settings = {"layers": work.layers, "shares": list(shares), "level": level, "seed": seed}
    streaming.setdefault("chunk", 4)  # a clip takes seconds
    measure = _Dosed(work, tuple(shares))
    return measure_networks(
        "dose-response", measure, networks, data, settings=settings, **streaming
    )
