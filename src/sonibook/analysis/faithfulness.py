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
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis import controls
from sonibook.analysis.ablation import Subtraction, logits_of
from sonibook.analysis.networks import Networks
from sonibook.analysis.result import ResultTable
from sonibook.analysis.stream import Measured, Streaming, check_least, measure_networks, stacked
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.alternatives import METHODS, STEPS, Method
from sonibook.errors import AnalysisError
from sonibook.metrics.similarity import short_time_spectra

#: What stands in the sonification's place, at its RMS; the clip itself at its own.
_CONTROLS, _ITSELF = controls.CONTROLS[:5], "the clip itself"
_CURVES = ("insertion", "deletion")
QUANTITIES = ("AI", "AD", "AG", "FF", "Fid-In", "sparseness", "complexity", *_CURVES)
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


def concentration(sizes: Float[ndarray, "sounds points"]) -> dict[str, Float[ndarray, " sounds"]]:
    """Sparseness and complexity of each row of sizes.

    The Gini index is 0 if all points are alike, near 1 if one holds all; the entropy is of the
    shares that points have of the row's sum, in nats.
    """
    count, shares = sizes.shape[1], sizes / sizes.sum(axis=1, keepdims=True)
    weights = (2 * np.arange(1, count + 1) - count - 1) / count
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return {
        "sparseness": np.sort(shares, axis=1) @ weights,
        "complexity": np.maximum(-(shares * logs).sum(axis=1), 0.0),
    }


def partial_clips(
    x: Float[Tensor, " time"], s: Float[Tensor, " time"], points: int
) -> tuple[Float[Tensor, "steps time"], Float[Tensor, "steps time"]]:
    """A clip with the first 1/points, 2/points … of its points, the largest in s, and without."""
    spectrum = short_time_spectra(x, frame=_FRAME, hop=_HOP)
    sizes = short_time_spectra(s, frame=_FRAME, hop=_HOP).abs().flatten()
    place = sizes.argsort(descending=True).argsort()
    first = (place[None] < torch.arange(1, points)[:, None] * (len(place) / points)).to(x.dtype)
    masked = spectrum * first.reshape(-1, *spectrum.shape)
    window = torch.hann_window(_FRAME)
    inserted = torch.istft(masked, _FRAME, _HOP, window=window, length=len(x))
    return inserted, x - inserted


def _faithful(
    work: Subtraction,
    methods: Sequence[Method],
    points: int | None,
    classifier: nn.Module,
    clips: Sequence[Clip],
) -> Measured:
    """The measure of `faithfulness`; `points` None for no curves."""
    conditions = (*work.controls, *methods, _ITSELF)
    quantities = [name for name in QUANTITIES if points is not None or name not in _CURVES]
    rows: list[Measured] = []
    for clip, s, taken in work.explained(classifier, clips):
        x = torch.from_numpy(clip.waveform)
        others = [replace(work, method=one).sounds(classifier, clip) for one in methods]
        scaled = (controls.scale(one, x, work.level) for one in others)
        every = torch.stack([*taken, *scaled, x.expand_as(s)])
        asked = ((every != 0).any(dim=2) & (s != 0).any(dim=1)).numpy()
        values = np.full((len(quantities), *asked.shape), np.nan)
        if asked.any():
            found = _values(classifier, x, every[asked], points)
            values[:, asked] = [found[name] for name in quantities]
        rows.append(
            {
                (quantity, condition): values[row, column]
                for row, quantity in enumerate(quantities)
                for column, condition in enumerate(conditions)
            }
        )
    return stacked(rows)


def _values(
    classifier: nn.Module,
    x: Float[Tensor, " time"],
    s: Float[Tensor, "sounds time"],
    points: int | None,
) -> dict[str, Float[ndarray, " sounds"]]:
    """The `QUANTITIES` of some explanations of one clip."""
    silence = torch.zeros_like(x)
    heard = _softmax(logits_of(classifier, torch.cat([x[None], silence[None], s, x - s])))
    whole = heard[0]
    found = kept_and_lost(whole, heard[2 : 2 + len(s)], heard[2 + len(s) :])
    sizes = short_time_spectra(s, frame=_FRAME, hop=_HOP).abs().flatten(1).double().numpy()
    found |= concentration(sizes)
    if points is not None:
        named, sums = int(whole.argmax()), []
        for one in s:
            parts = torch.cat(partial_clips(x, one, points))
            curves = _softmax(logits_of(classifier, parts))[:, named].reshape(2, -1)
            sums.append(curves.sum(axis=1))
        # Trapezoids; both curves have silence at one end, and the clip at the other.
        areas = (np.array(sums) + heard[:2, named].mean()) / points
        found |= dict(zip(_CURVES, areas.T, strict=True))
    return found


def faithfulness(
    classifiers: Networks,
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    methods: Sequence[Method] | None = None,
    points: int | None = 5,
    steps: int = STEPS,
    level: str = "peak",
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
        is one of the first five of `sonibook.analysis.controls.CONTROLS`, another of
        `sonibook.deconvnet.alternatives.METHODS`, or ``the clip itself``, which explains all and
        leaves nothing. Clips on which no filter of a layer is live are left out.
    """
    every = METHODS if find_spec("captum") is not None else ()
    _, *chosen = controls.chosen_of("method", METHODS, every if methods is None else methods)
    work = Subtraction(_CONTROLS, layers, level=level, seed=seed, steps=steps)
    check_least(2, points=points)
    networks = work.check(classifiers, data, one_label=True)
    streaming.setdefault("chunk", 4)  # a clip takes seconds
    return measure_networks(
        "faithfulness",
        partial(_faithful, work, chosen, points),
        networks,
        data,
        settings=work.settings(methods=chosen, points=points, steps=steps),
        **streaming,
    )


def _dosed(
    work: Subtraction, shares: Sequence[float], classifier: nn.Module, clips: Sequence[Clip]
) -> Measured:
    """The measure of `dose_response`."""
    doses, rows = torch.tensor(shares)[:, None, None, None], []
    for clip, _, taken in work.explained(classifier, clips):
        logits = work.logits(classifier, clip, doses * taken)
        whole, left = (
            (_softmax(logits[name]) * logits["targets"]).sum(axis=-1)
            for name in ("clip", "residual")
        )
        found: Measured = {"score at 0": np.asarray(whole)}
        for share, (own, *others) in zip(shares, left, strict=True):
            found[f"score at {share:g}", work.controls[0]] = own
            for control, other in zip(work.controls[1:], others, strict=True):
                found[f"score at {share:g}", control] = other
                found[f"lead at {share:g}", control] = other - own
        rows.append(found)
    return stacked(rows)


def _softmax(logits: Float[ndarray, "*rows classes"]) -> Float[ndarray, "*rows classes"]:
    return torch.from_numpy(logits).double().softmax(dim=-1).numpy()


def dose_response(
    classifiers: Networks,
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    level: str = "peak",
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
    work = Subtraction(controls.REMOVED, layers, level=level, seed=seed)
    if not shares or min(shares) <= 0:
        raise AnalysisError(f"Shares {list(shares)} are impossible: give some above 0.")
    networks = work.check(classifiers, data, one_label=True)
    settings = work.settings(shares=list(shares))
    streaming.setdefault("chunk", 4)  # a clip takes seconds
    measure = partial(_dosed, work, tuple(shares))
    return measure_networks(
        "dose-response", measure, networks, data, settings=settings, **streaming
    )
