"""Ablation by subtraction: how much a network misses what is taken away (paper, section 4.1).

The sonification s of each clip's most active filter of a layer is subtracted, and the network is
asked again. The paper reads the loss as proof that s holds what recognition needs. But every loud
signal that is subtracted hurts, so s is tested against controls, too, clip by clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from scipy import stats
from torch import Tensor, nn

from sonibook.analysis import stream
from sonibook.analysis.controls import (
    CONTROLS,
    chosen_of,
    normalise,
    perturbations,
    scale,
    with_partners,
)
from sonibook.analysis.networks import Network, Networks, as_networks, layers_of, mixed, untrained
from sonibook.analysis.result import Estimate, ResultTable, Row, fingerprint
from sonibook.analysis.stream import Measured, Streaming
from sonibook.datasets.base import Clip, Dataset, Task
from sonibook.deconvnet.alternatives import METHODS, STEPS, Method, most_active_sounds
from sonibook.errors import AnalysisError
from sonibook.metrics.intervals import holm, mcnemar_test, runs_interval, sign_flip_test
from sonibook.metrics.scores import (
    accuracy,
    log_probability,
    mean_average_precision,
    mean_precisions,
    targets_of,
)
from sonibook.model.stack import blocks_of, least_length

_METRICS: dict[Task, Callable[[ndarray, ndarray], float]] = {
    "single-label": accuracy,
    "multi-label": mean_average_precision,
}


class AblationResult(ResultTable):
    """What is left of scores, and tests of sonifications against controls; made by `ablate`.

    The condition of a row is what was subtracted, one of `CONTROLS`. Clips on which no filter of
    a layer is live are left out, and not counted in ``clips``. The quantities:

    - ``score`` on the residuals (accuracy or, for clips with any number of labels, mAP), and, of
      no layer, on ``untouched`` clips; ``untouched``, without an interval: on the same clips.
    - ``drop``, in nats: mean loss of log-probability of the true labels, which sees a network
      waver before it falls.
    - ``difference``, in nats: drop by the sonification minus drop by the control, clip by clip.
      Above 0, removing the sonification hurts more.
    - ``p`` of a sign-flip test of that difference, and ``p_holm``, adjusted by Holm's method for
      all layers and controls of the network.
    - ``mcnemar`` and ``mcnemar_holm``, of McNemar's test on which clips are classified correctly;
      not for mAP.

    Of no network, where the networks are runs of one experiment: ``difference`` over them, with
    its 95 % t interval, and ``p`` and ``p_holm`` of a t test; their ``clips`` are networks.

    Attributes
    ----------
    score : {"accuracy", "mAP"}
    """

    analysis: Literal["ablation"] = "ablation"
    score: Literal["accuracy", "mAP"]


def ablate(
    classifiers: Networks,
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    controls: Sequence[str] = CONTROLS,
    method: Method = "sonification",
    level: str = "peak",
    residual: str = "as is",
    are_runs: bool = False,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> AblationResult:
    """Subtract each clip's sonifications, and controls, and ask networks again.

    Parameters
    ----------
    classifiers : mapping from str to torch.nn.Module, or sequence of Network
        Each maps waveforms (batch, 1, time) to a logit for each class of `data` (`AnalysisError` if
        to others), in `eval` mode, such as a `Classifier`. Its attribute ``encoder``, or where it
        has none it itself, is sonified, and must be as `sonibook.sonify` takes it.
    data, layers, seed, streaming
        As for every analysis: see `sonibook.analysis`. The logits are kept: four bytes a clip,
        class, layer and control.
    controls : sequence of str
        Of `CONTROLS`; the sonification itself is always among them.
    method : str
        What to subtract in the sonification's place; see `sonibook.deconvnet.alternatives.METHODS`.
    level : {"peak", "least squares"}
        At which level the sonification is subtracted; see `sonibook.analysis.controls.scale`.
    residual : {"as is", "unit peak"}
        How the network hears what is left: as it is, or scaled to a peak of 1.
    are_runs : bool
        The classifiers differ in their seed alone: test over them, too.

    Examples
    --------
    Your own 1-D CNN: the part that is sonified is called ``encoder``.

    >>> from collections import OrderedDict
    >>> from sonibook import open_dataset
    >>> data = open_dataset("soundscapes", size=4, duration=1.0, task="single-label")
    >>> blocks = []
    >>> for inputs, outputs in ((1, 8), (8, 8), (8, 16), (16, 16)):
    ...     blocks += [nn.Conv1d(inputs, outputs, 9), nn.ReLU(), nn.MaxPool1d(4)]
    >>> head = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, len(data.classes))]
    >>> parts = OrderedDict(encoder=nn.Sequential(*blocks), head=nn.Sequential(*head))
    >>> result = ablate({"mine": nn.Sequential(parts).eval()}, data, controls=["white noise"])
    >>> [row.layer for row in result.select(quantity="difference")]
    [1, 2, 3, 4]
    """
    work = Subtraction(controls, layers, method, level, residual, seed)
    networks = work.check(classifiers, data)
    if are_runs and len({fingerprint(network.module) for network in networks}) < 2:
        raise AnalysisError("Runs to compare must be two different networks or more: give another.")
    settings = work.settings(
        controls=work.controls, method=method, residual=residual, are_runs=are_runs
    )
    found = stream.measure_clips("ablation", work, networks, data, settings=settings, **streaming)
    rows = [row for network in networks for row in work.rows(network, found, data.task)]
    if are_runs:
        rows += over_runs(rows, networks=len(networks))
    score = "accuracy" if data.task == "single-label" else "mAP"
    return AblationResult(score=score, rows=tuple(rows), **found.fields)


@dataclass(frozen=True)
class Subtraction:
    """What of clips is explained by their sonifications, or another method, and left without.

    The measure of `ablate`, which other analyses build on: `layers` None for all.
    """

    controls: Sequence[str] = CONTROLS
    layers: Sequence[int] | None = None
    method: Method = "sonification"
    level: str = "peak"
    residual: str = "as is"
    seed: int = 0
    steps: int = STEPS

    def __post_init__(self) -> None:
        chosen_of("method", METHODS, [self.method])
        chosen_of("level", ("peak", "least squares"), [self.level])
        chosen_of("residual", ("as is", "unit peak"), [self.residual])
        stream.check_least(1, steps=self.steps)
        object.__setattr__(self, "controls", chosen_of("control", CONTROLS, self.controls))
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))

    def settings(self, **others: Any) -> dict[str, Any]:
        """Those of an analysis that is built on it."""
        return {"layers": self.layers, "level": self.level, "seed": self.seed, **others}

    def check(
        self, classifiers: Networks, data: Dataset, *, one_label: bool = False
    ) -> list[Network]:
        """Networks that have the layers, and a logit for each class of the data; else an error."""
        if one_label and data.task != "single-label":
            raise AnalysisError(f"{data.name} is {data.task}: take clips with one label each.")
        networks = as_networks(classifiers)
        for network in networks:
            self.layers_of(network.module)
            outputs = logits_of(network.module, torch.zeros(1, 1)).shape[1]
            if outputs != len(data.classes):
                raise AnalysisError(
                    f"{network.name} names {outputs} classes and {data.name} has "
                    f"{len(data.classes)}: take the data set it was trained for."
                )
        return networks

    def __call__(self, classifier: nn.Module, clips: Sequence[Clip]) -> Measured:
        """What `logits` gives of all clips."""
        every = self.explained(classifier, clips)
        return stream.stacked(self.logits(classifier, clip, taken) for clip, _, taken in every)

    def explained(
        self, classifier: nn.Module, clips: Sequence[Clip]
    ) -> Iterator[tuple[Clip, Float[Tensor, "layers time"], Float[Tensor, "controls layers time"]]]:
        """Each clip, its sounds, and what each control takes away; of silent sounds, nothing."""
        sounds = [self.sounds(classifier, clip) for clip in clips]
        for clip, own, of_another in with_partners(clips, sounds):
            x = torch.from_numpy(clip.waveform)
            random = "random weights" in self.controls
            taken = perturbations(
                x,
                scale(own, x, self.level),
                self.controls,
                by_random=self._by_random(classifier, clip) if random else None,
                of_another=of_another,
                clip_id=clip.clip_id,
                seed=self.seed,
            )
            yield clip, own, taken

    def logits(
        self, classifier: nn.Module, clip: Clip, taken: Float[Tensor, "*sounds time"]
    ) -> Measured:
        """Logits of a ``clip`` and of its ``residual`` without each sound; and its ``targets``.

        NaN where nothing was taken away.
        """
        x, measured = torch.from_numpy(clip.waveform), (taken != 0).any(dim=-1)
        residuals = normalise(x - taken[measured], self.residual)
        logits = logits_of(classifier, torch.cat([x[None], residuals]))
        left = np.full((*measured.shape, logits.shape[1]), np.nan, np.float32)
        left[measured.numpy()] = logits[1:]
        targets = targets_of([clip.labels], logits.shape[1])[0]
        return {"clip": logits[0], "residual": left, "targets": targets}

    def layers_of(self, classifier: nn.Module) -> tuple[int, ...]:
        """The layers to measure of a classifier; raises a `LayerError` for one it lacks."""
        return layers_of(blocks_of(_stack_of(classifier)), self.layers)

    def sounds(self, classifier: nn.Module, clip: Clip) -> Float[Tensor, "layers time"]:
        """Of the most active filters on a clip."""
        stack, layers = _stack_of(classifier), self.layers_of(classifier)
        x = torch.from_numpy(clip.waveform)
        return most_active_sounds(self.method, stack, x, layers, steps=self.steps)[0].cpu()

    def _by_random(self, classifier: nn.Module, clip: Clip) -> Float[Tensor, "layers time"]:
        """By weights of the clip's own, so that intervals over clips hold for other weights."""
        blocks = blocks_of(_stack_of(classifier))[: max(self.layers_of(classifier))]
        seed = int(stream.seeded(self.seed, "random weights", clip.clip_id).integers(2**31))
        fresh = untrained(blocks, seed=seed)
        return self.sounds(mixed(fresh, fresh, (), heard=[clip]), clip)

    def rows(
        self, network: Network, found: stream.ClipArrays, task: Task, *, condition: str = ""
    ) -> Iterator[Row]:
        """The rows of one network, from what `logits` gave of all clips."""
        clip, residual, targets = (
            found.arrays[network.name, name, condition] for name in ("clip", "residual", "targets")
        )
        layers, controls, seed = self.layers_of(network.module), self.controls, self.seed
        measured = ~np.isnan(residual).any(axis=3)
        yield network.row("score", _score(clip, targets, task, seed), condition="untouched")
        for column, place in np.ndindex(*measured.shape[1:]):
            of: dict[str, Any] = {"layer": layers[place], "condition": controls[column]}
            here = measured[:, column, place]
            score = _score(residual[here, column, place], targets[here], task, seed)
            yield network.row("score", score, **of)
            if here.any():
                whole = _METRICS[task](clip[here], targets[here])
                yield network.row("untouched", Estimate(mean=whole, clips=score.clips), **of)
        before, after = (log_probability(one, targets, task) for one in (clip, residual))
        drop = before[:, None, None] - after
        difference = (drop[:, :1] - drop)[:, 1:]
        means: dict[tuple[str, str, str], ndarray] = {}
        for column, control in enumerate(controls):
            means[network.name, "drop", control] = drop[:, column]
        for column, control in enumerate(controls[1:]):
            means[network.name, "difference", control] = difference[:, column]
        rows = list(stream.table_rows([network], means, layers=layers, seed=seed))
        yield from rows
        compared = [row for row in rows if row.quantity == "difference" and row.clips]
        there = ~np.isnan(difference).all(axis=0)
        yield from p_rows(compared, sign_flip_test(difference[:, there], seed=seed))
        if task == "single-label":
            right = measured & (residual.argmax(axis=3) == targets.argmax(axis=1)[:, None, None])
            own = (right[:, :1] & measured[:, 1:])[:, there]
            p = [*map(mcnemar_test, own.T, right[:, 1:][:, there].T)]
            yield from p_rows(compared, np.array(p), "mcnemar")


def _stack_of(classifier: nn.Module) -> nn.Module:
    """The stack that is sonified: the classifier's ``encoder``, or itself where it has none."""
    encoder: nn.Module = getattr(classifier, "encoder", classifier)
    return encoder


@torch.no_grad()
def logits_of(classifier: nn.Module, x: Float[Tensor, "sounds time"]) -> ndarray:
    """A classifier's logits of sounds, shape (sounds, classes); short ones are padded."""
    blocks = blocks_of(_stack_of(classifier))
    least, weight = least_length(blocks), blocks[0].conv.weight
    waveforms = F.pad(x.to(weight), (0, max(least - x.shape[1], 0))).unsqueeze(1)
    at_once = max(2**19 // waveforms.shape[2], 1)  # half a million samples
    return torch.cat([classifier(some) for some in waveforms.split(at_once)]).cpu().numpy()


def _score(
    scores: Float[ndarray, "kept classes"], targets: ndarray, task: Task, seed: int
) -> Estimate:
    clips = len(scores)
    if clips > 1 and task == "multi-label":
        return Estimate.of_statistic(partial(mean_precisions, scores, targets), clips, seed=seed)
    value = _METRICS[task](scores, targets) if clips else None
    if value is None or task == "multi-label":
        return Estimate(mean=value, clips=clips)
    return Estimate.of_share(round(value * clips), clips)


def p_rows(
    rows: Sequence[Row], p: Float[ndarray, " rows"], name: str = "p", *, named: bool = False
) -> Iterator[Row]:
    """P-values of tests of rows, which they name if `named`, and adjusted by Holm's method."""
    for test, values in ((name, p), (f"{name}_holm", holm(p))):
        for row, value in zip(rows, values.tolist(), strict=True):
            quantity = f"{test}, {row.quantity}" if named else test
            point = {"quantity": quantity, "mean": value, "low": None, "high": None}
            yield row.model_copy(update=point)


def over_runs(rows: Iterable[Row], *, networks: int) -> Iterator[Row]:
    """Each difference over several networks, each an observation, where all were measured."""
    means: dict[tuple[int | None, str], list[float]] = {}
    for row in rows:
        if row.quantity == "difference" and row.mean is not None:
            means.setdefault((row.layer, row.condition), []).append(row.mean)
    over, p = list[Row](), list[float]()
    for (layer, control), values in means.items():
        if len(values) == networks:
            low, high = runs_interval(values)
            of: dict[str, Any] = {"layer": layer, "condition": control, "clips": networks}
            mean = float(np.mean(values))
            over.append(Row(quantity="difference", mean=mean, low=low, high=high, **of))
            # Where nothing varies, as between a control and itself, there is nothing to test.
            p.append(stats.ttest_1samp(values, 0.0).pvalue if np.ptp(values) > 0 else 1.0)
    yield from over
    yield from p_rows(over, np.array(p))
