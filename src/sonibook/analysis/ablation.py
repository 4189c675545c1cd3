"""Ablation by subtraction: how much a network misses what is taken away (paper, section 4.1).

The sonification s of each clip's most active filter of a layer is subtracted, and the network is
asked again. The paper reads the loss as proof that s holds what recognition needs. But every
loud signal that is subtracted hurts, so each layer is measured under the controls of
`sonibook.analysis.controls` too, and s is tested against each, clip by clip.

Two measures: the *score*, which is accuracy or, for clips with any number of labels, mAP; and the
*drop*, how much log-probability of the clip's true labels is lost, which sees a network waver
before it falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from torch import nn

from sonibook.analysis.ablation_result import AblationResult, over_runs, summarised
from sonibook.analysis.controls import CONTROLS, LEVELS, RESIDUALS, Control, Level, Residual
from sonibook.analysis.result import Measured, fingerprint, key_of
from sonibook.analysis.stream import Streaming, gather, stream
from sonibook.analysis.subtraction import Subtraction, layers_of
from sonibook.datasets.base import Dataset
from sonibook.deconvnet.attributions import METHODS, Method
from sonibook.errors import AnalysisError


def ablate(
    classifiers: Mapping[str, nn.Module],
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    controls: Sequence[Control] = CONTROLS,
    method: Method = "sonification",
    level: Level = "peak",
    residual: Residual = "as is",
    are_runs: bool = False,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> AblationResult:
    """Subtract each clip's sonifications, and controls, and ask networks again.

    Parameters
    ----------
    classifiers : mapping from str to torch.nn.Module
        Each maps waveforms (batch, 1, time) to a logit for each class of `data`, in `eval` mode,
        such as a `Classifier` or a `ProbedEncoder`. Its attribute ``encoder``, or where it has
        none it itself, is sonified, and must be as `sonibook.sonify` takes it.
    data : Dataset
        Clips with one label, or any number. Of those with any, the logits are kept for the mAP:
        four bytes a class, layer and control.
    layers : sequence of int, or None
        None for all.
    controls : sequence of str
        Of `CONTROLS`; the sonification itself is always among them.
    method : str
        What to subtract in the sonification's place; see `sonibook.deconvnet.attributions.METHODS`.
    level : {"peak", "least squares"}
        At which level the sonification is subtracted; see `sonibook.analysis.controls.levelled`.
    residual : {"as is", "unit peak"}
        How the network hears what is left; see `sonibook.analysis.controls.finished`.
    are_runs : bool
        The classifiers differ in their seed alone: test over them, too.
    seed : int >= 0
        Of everything random, with the clip's id.
    **streaming
        `parts`, `chunk`, `processes` and `limit`, as for `stream`. The other clip is one of the
        same chunk.

    Returns
    -------
    AblationResult

    Raises
    ------
    AnalysisError
        If there is nothing to measure, an argument is none of its choices, or a classifier's
        logits do not fit the data's classes.
    LayerError, StackError
        If a network has no such layer, or cannot be sonified.

    Examples
    --------
    Your own 1-D CNN: the part that is sonified is called ``encoder``.

    >>> from collections import OrderedDict
    >>> from sonibook import open_dataset
    >>> data = open_dataset("soundscapes", size=4, duration=1.0, task="single-label")
    >>> blocks = []
    >>> for inputs, outputs in ((1, 8), (8, 8), (8, 16), (16, 16)):
    ...     blocks += [nn.Conv1d(inputs, outputs, 9), nn.ReLU(), nn.MaxPool1d(4)]
    >>> parts = OrderedDict(
    ...     encoder=nn.Sequential(*blocks),
    ...     mean=nn.AdaptiveAvgPool1d(1),
    ...     flat=nn.Flatten(),
    ...     head=nn.Linear(16, len(data.classes)),
    ... )
    >>> result = ablate({"mine": nn.Sequential(parts).eval()}, data, controls=["white noise"])
    >>> [row.layer for row in result.ablations[0].comparisons]
    [1, 2, 3, 4]
    """
    for what, value, known in (
        *(("control", control, CONTROLS) for control in controls),
        ("method", method, METHODS),
        ("level", level, LEVELS),
        ("residual", residual, RESIDUALS),
    ):
        if value not in known:
            raise AnalysisError(f"There is no {what} {value!r}: choose one of {', '.join(known)}.")
    if are_runs and len({fingerprint(one) for one in classifiers.values()}) < 2:
        raise AnalysisError(
            "Runs to be compared must be two different networks or more: give another."
        )
    chosen = tuple(one for one in CONTROLS if one == "sonification" or one in controls)
    settings: dict[str, Any] = {
        "layers": None if layers is None else sorted(set(layers)),
        "controls": list(chosen),
        "method": method,
        "level": level,
        "residual": residual,
        "are_runs": are_runs,
        "seed": seed,
    }
    works = {
        name: Subtraction(
            classifier, layers_of(classifier, layers), chosen, method, level, residual, seed
        )
        for name, classifier in classifiers.items()
    }
    for name, work in works.items():
        work.check(data, name=name)
    ablations = []
    for name, work in works.items():
        chunks = stream(
            work,
            data,
            key=key_of("ablation", {name: work.classifier}, settings),
            description=name,
            **streaming,
        )
        whole = gather(chunks)
        ablations.append(summarised(name, work.layers, chosen, whole.arrays, data.task, seed=seed))
    measured = Measured.of(data, clips=len(whole.clip_ids), skipped=whole.skipped)
    return AblationResult(
        data=measured,
        score="accuracy" if data.task == "single-label" else "mAP",
        ablations=tuple(ablations),
        runs=over_runs(ablations) if are_runs else (),
        **key_of("ablation", classifiers, settings),
    )
