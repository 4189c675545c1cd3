"""What training runs at some truncation depth came to (paper, appendix B, the full models)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sonibook.analysis.result import Estimate, Record
from sonibook.errors import AnalysisError
from sonibook.metrics import runs_interval, wilson_interval
from sonibook.untrusted import read_json


class TrainedDepth(Record):
    """A network of some depth that was trained whole, by one seed or several.

    Attributes
    ----------
    curve : str
        What it started from, which tells the curve it belongs to: a checkpoint, or "He weights".
    layer : int
        Its depth.
    accuracy : Estimate
        Of one run with Wilson's interval over clips; of several the t interval of their mean.
    """

    curve: str
    layer: int
    accuracy: Estimate


def read_trained(path: str | Path) -> TrainedDepth:
    """What a training run, or one with several seeds, wrote as its ``metrics.json``.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    TrainedDepth

    Raises
    ------
    AnalysisError
        If there is no such file, or it holds no accuracy.
    """
    try:
        content = read_json(path)
        encoder, clips = content["config"]["encoder"], content["test_clips"]
        start, depth = encoder["start"], encoder["depth"]
        values = (
            content["metrics"]["accuracy"]["values"]
            if "metrics" in content
            else [content["test"]["accuracy"]]
        )
    except (OSError, ValueError) as error:
        raise AnalysisError(f"{path}: cannot be read as JSON ({error}).") from None
    except (KeyError, TypeError):
        raise AnalysisError(f"{path}: is no metrics.json of a run that names classes.") from None
    return TrainedDepth(
        curve="He weights" if start is None else _title(Path(start)),
        layer=11 if depth is None else depth,
        accuracy=_estimate(values, clips),
    )


def _title(start: Path) -> str:
    """Of a checkpoint or configuration; a run's own file is called after its folder."""
    return start.parent.name if start.stem == "encoder" and start.parent.name else start.stem


def _estimate(values: list[Any], clips: int) -> Estimate:
    mean = sum(values) / len(values)
    low, high = (
        wilson_interval(round(mean * clips), clips) if len(values) == 1 else runs_interval(values)
    )
    return Estimate(mean=mean, low=low, high=high, clips=clips)
