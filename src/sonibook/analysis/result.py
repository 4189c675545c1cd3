"""What every analysis gives back: a typed result that writes itself as JSON and reads it again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from torch import nn

from sonibook.datasets.base import Dataset
from sonibook.errors import AnalysisError
from sonibook.files import provenance, read_json, write_result
from sonibook.metrics import intervals
from sonibook.model.stack_file import weights_digest

_Kind = TypeVar("_Kind", bound="Result")
#: Redrawn data sets of a statistic that takes its time, such as a sort of every class.
_REPEATS = 200


class Record(BaseModel):
    """A part of a result: cannot be changed, holds no NaN, and no field that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MeasuredOn(Record):
    """On what a result was measured: clips of a data set, of which some were skipped, by reason."""

    dataset: str
    split: str
    size: int
    clips: int
    skipped: dict[str, int]

    @classmethod
    def of(cls, data: Dataset, *, clips: int, skipped: dict[str, int]) -> MeasuredOn:
        """As `data` says, with what was counted."""
        part: dict[str, Any] = {"dataset": data.name, "split": data.split, "size": len(data)}
        return cls(**part, clips=clips, skipped=skipped)


def _unsigned_zero(number: str) -> str:
    """A number as text, without the sign of one that was rounded to zero."""
    return number if re.search("[1-9]|inf|nan", number) else number.lstrip("-+")


class Estimate(Record):
    """A mean over `clips`, with its 95 % interval; None for what could not be measured."""

    mean: float | None
    low: float | None = None
    high: float | None = None
    clips: int

    @classmethod
    def of_share(cls, right: int, clips: int) -> Estimate:
        """A share of clips, such as an accuracy, with Wilson's interval."""
        low, high = intervals.wilson_interval(right, clips)
        return cls(mean=right / clips, low=low, high=high, clips=clips)

    @classmethod
    def of_statistic(
        cls, statistic: Callable[[ndarray], Float[ndarray, " some"]], clips: int, *, seed: int = 0
    ) -> Estimate:
        """One by how often each clip counts, with a bootstrap interval of few repeats: it costs."""
        ends = intervals.redrawn_ends(statistic, clips, repeats=_REPEATS, seed=seed)
        found = [*ends, *statistic(np.ones((1, clips)))]
        low, high, mean = (None if np.isnan(value) else float(value) for value in found)
        return cls(mean=mean, low=low, high=high, clips=clips)

    def __format__(self, spec: str) -> str:
        """The mean and its interval as text: ``f"{found:.2f}"`` is ``0.59 [0.58, 0.61]``."""
        if self.mean is None:
            return "not measured"
        mean = _unsigned_zero(format(self.mean, spec))
        if self.low is None or self.high is None:
            return mean
        low, high = (_unsigned_zero(format(end, spec)) for end in (self.low, self.high))
        return f"{mean} [{low}, {high}]"

    def below(self, other: Estimate) -> bool:
        """Whether the whole interval lies below the other's; not if either has none."""
        return self.high is not None and other.low is not None and self.high < other.low


def estimates(values: Float[ndarray, "clips quantities"], *, seed: int = 0) -> list[Estimate]:
    """The means of several quantities over the same clips, and their 95 % intervals."""
    values = np.asarray(values, np.float64)
    counts = (~np.isnan(values)).sum(axis=0)
    low, high = intervals.bootstrap_means(values, seed=seed)
    return [
        Estimate(
            mean=float(np.nanmean(column)) if count else None,
            low=float(lower) if count > 1 else None,
            high=float(upper) if count > 1 else None,
            clips=int(count),
        )
        for column, count, lower, upper in zip(values.T, counts, low, high, strict=True)
    ]


def estimate(values: Float[ndarray, " clips"], *, seed: int = 0) -> Estimate:
    """The mean of one quantity over clips: see `estimates`."""
    return estimates(np.asarray(values, np.float64)[:, None], seed=seed)[0]


class Row(Estimate):
    """One number of a result: of which network and layer, what, under which condition."""

    #: Empty, and the layer None, for what concerns none; see `sonibook.analysis.networks.Network`.
    network: str = ""
    regime: str = ""
    seed: int | None = None
    baseline: bool = False
    layer: int | None = None
    quantity: str
    #: Under which control, of which filters, …; empty for the thing itself.
    condition: str = ""


class Result(Record):
    """What an analysis found, whenever and wherever: on what, with networks of which fingerprint.

    pydantic checks it when it is made and read: no NaN, nothing missing, nothing unknown.
    """

    analysis: str
    data: MeasuredOn
    networks: dict[str, str]
    settings: dict[str, JsonValue]
    provenance: dict[str, Any] = Field(default_factory=lambda: provenance(), repr=False)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Result)
            and type(self) is type(other)
            and self.model_dump(exclude={"provenance"}) == other.model_dump(exclude={"provenance"})
        )

    __hash__ = None  # type: ignore[assignment]

    def write(self, path: str | Path) -> None:
        """Write the result as JSON, whole or not at all; missing folders are made."""
        write_result(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls: type[_Kind], path: str | Path, *, analysis: str = "") -> _Kind:
        """A result, of one analysis unless empty, from its JSON; else an `AnalysisError`."""
        try:
            found = cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise AnalysisError(
                f"{path}: is not a {cls.__name__} result ({place}: {first['msg']})."
            ) from None
        except OSError as error:
            raise AnalysisError(f"{path}: cannot be read ({error.strerror}).") from None
        except ValueError as error:
            raise AnalysisError(f"{path}: is not JSON ({error}).") from None
        if analysis and found.analysis != analysis:
            raise AnalysisError(f"{path}: is a result of {found.analysis!r}, not of {analysis!r}.")
        return found


class ResultTable(Result):
    """A result as rows of numbers, one number a row, network by network, the baselines last.

    ``pandas.DataFrame(json.load(open(path))["rows"])`` reads them, too.

    Examples
    --------
    >>> data = MeasuredOn(dataset="d", split="all", size=1, clips=1, skipped={})
    >>> rows = [Row(network="n", layer=n, quantity="q", mean=1 / n, clips=1) for n in (1, 2)]
    >>> table = ResultTable(analysis="a", data=data, networks={"n": ""}, settings={}, rows=rows)
    >>> [found.mean for found in table.select(network="n", quantity="q")]
    [1.0, 0.5]
    >>> table.row("q", network="n", layer=2).mean
    0.5
    """

    rows: tuple[Row, ...]

    def select(self, **fields: object) -> tuple[Row, ...]:
        """The rows whose fields are as given, in their order; a set allows each of its members."""
        allowed = {
            name: value if isinstance(value, set | frozenset) else (value,)
            for name, value in fields.items()
        }
        rows = (row for row in self.rows if all(getattr(row, n) in allowed[n] for n in allowed))
        return tuple(rows)

    def row(self, quantity: str, **fields: object) -> Row:
        """The one row of a quantity whose other fields are as given.

        Without them, ``network``, ``layer`` and ``condition`` are those of what concerns none.
        Raises an `AnalysisError` if there is no such row, or more than one.
        """
        wanted = {"network": "", "layer": None, "condition": "", **fields}
        found = self.select(quantity=quantity, **wanted)
        if len(found) != 1:
            raise AnalysisError(f"{len(found)} rows are {quantity!r} with {wanted}, not one.")
        return found[0]

    def over_seeds(self, quantity: str, regime: str, less: str = "", **fields: object) -> Estimate:
        """The mean of a quantity over a regime's networks, each an observation.

        Parameters
        ----------
        quantity, regime : str
        less : str
            Another regime, whose network of the same seed is subtracted from each; empty for none.
        **fields
            As for `row`.

        Returns
        -------
        Estimate
            With a t interval from two networks on; its ``clips`` are networks.
        """
        wanted = {"quantity": quantity, "layer": None, "condition": "", **fields}
        own, other = (
            {
                row.seed: row.mean
                for row in self.select(regime=one, **wanted)
                if row.mean is not None
            }
            for one in (regime, less)
        )
        seeds = [seed for seed in own if not less or seed in other]
        values = [own[seed] - (other[seed] if less else 0.0) for seed in seeds]
        low, high = intervals.runs_interval(values) if len(values) > 1 else (None, None)
        mean = float(np.mean(values)) if values else None
        return Estimate(mean=mean, low=low, high=high, clips=len(values))

    def names(self) -> list[str]:
        """The networks that have rows, in their order."""
        return list(dict.fromkeys(row.network for row in self.rows if row.network))


def fingerprint(network: nn.Module) -> str:
    """What tells a network from others: a digest of its modules and weights."""
    return weights_digest(network.state_dict(), before=repr(network))[:16]


def key_of(
    analysis: str, networks: Mapping[str, nn.Module], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of a `Result` that are known before anything is measured: also a stream's key."""
    prints = {name: fingerprint(network) for name, network in networks.items()}
    return {"analysis": analysis, "networks": prints, "settings": json.loads(json.dumps(settings))}
