"""What every analysis gives back: a typed result that writes itself as JSON and reads it again.

A result is a subclass of `Result`, whose further fields are what was measured. pydantic checks it
when it is made and when it is read: no NaN, nothing missing, nothing unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from torch import nn

from sonibook.datasets.base import Dataset
from sonibook.errors import AnalysisError
from sonibook.results import provenance as provenance_of_now
from sonibook.results import write_result
from sonibook.untrusted import read_json

_REPEATS = 2000
#: Clips that the bootstrap draws at once: eight megabytes of indices.
_DRAWN_TOGETHER = 1_000_000
Kind = TypeVar("Kind", bound="Result")


class Record(BaseModel):
    """A part of a result: cannot be changed, holds no NaN, and no field that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Measured(Record):
    """On what a result was measured.

    Attributes
    ----------
    dataset, split : str
    size : int
        Clips in the data set.
    clips : int
        Clips that were measured.
    skipped : dict of str to int
        How many were not, by reason.
    """

    dataset: str
    split: str
    size: int
    clips: int
    skipped: dict[str, int]

    @classmethod
    def of(cls, data: Dataset, *, clips: int, skipped: dict[str, int]) -> Measured:
        """As `data` says, with what was counted."""
        return cls(
            dataset=data.name, split=data.split, size=len(data), clips=clips, skipped=skipped
        )


class Estimate(Record):
    """A mean over clips, with its 95 % interval; make it with `estimate`.

    Attributes
    ----------
    mean : float or None
        None if there was nothing to measure.
    low, high : float or None
        Ends of the interval; None for fewer than two clips.
    clips : int
        How many the mean is over.
    """

    mean: float | None
    low: float | None
    high: float | None
    clips: int


def estimate(values: Float[ndarray, " clips"], *, seed: int = 0) -> Estimate:
    """The mean of a measure over clips, and its bootstrap interval.

    The interval is that of `sonibook.metrics.bootstrap_interval`, quicker since it is of a mean.

    Parameters
    ----------
    values : ndarray, shape (clips,)
        One a clip; NaN where it could not be measured, which is left out and counted.
    seed : int >= 0
        Of the bootstrap.

    Returns
    -------
    Estimate
    """
    found = np.asarray(values, np.float64)
    found = found[~np.isnan(found)]
    count = len(found)
    if count < 2:
        mean = float(found[0]) if count else None
        return Estimate(mean=mean, low=None, high=None, clips=count)
    generator = np.random.default_rng(seed)
    together = max(_DRAWN_TOGETHER // count, 1)
    means = [
        found[generator.integers(count, size=(min(together, _REPEATS - start), count))].mean(axis=1)
        for start in range(0, _REPEATS, together)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Estimate(mean=float(found.mean()), low=float(low), high=float(high), clips=count)


class Result(Record):
    """What an analysis found, on what, with which networks and settings.

    Two results are equal if they say the same, whenever and wherever they were measured.

    Attributes
    ----------
    analysis : str
    data : Measured
    networks : dict of str to str
        The `fingerprint` of each network, by name.
    settings : dict of str to JSON
    provenance : dict
        See `sonibook.results.provenance`; of when the result was made.
    """

    analysis: str
    data: Measured
    networks: dict[str, str]
    settings: dict[str, JsonValue]
    provenance: dict[str, Any] = Field(default_factory=lambda: provenance_of_now(), repr=False)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Result)
            and type(self) is type(other)
            and self.model_dump(exclude={"provenance"}) == other.model_dump(exclude={"provenance"})
        )

    __hash__ = None  # type: ignore[assignment]

    def write(self, path: str | Path) -> None:
        """Write the result as JSON, whole or not at all.

        Parameters
        ----------
        path : str or Path
            Missing folders are made.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        write_result(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls: type[Kind], path: str | Path) -> Kind:
        """A result from its JSON.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        Result
            Equal to the one that was written.

        Raises
        ------
        AnalysisError
            If there is no such file, it is not JSON, or it is not such a result; it says where.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise AnalysisError(
                f"{path}: is no {cls.__name__} result ({place}: {first['msg']})."
            ) from None
        except OSError as error:
            raise AnalysisError(f"{path}: cannot be read ({error.strerror}).") from None
        except ValueError as error:
            raise AnalysisError(f"{path}: is not JSON ({error}).") from None


def fingerprint(network: nn.Module) -> str:
    """What tells a network from others: a digest of its modules and weights.

    Parameters
    ----------
    network : torch.nn.Module

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(repr(network).encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def key_of(
    analysis: str, networks: Mapping[str, nn.Module], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of a `Result` that are known before anything is measured: also a stream's key.

    Parameters
    ----------
    analysis : str
    networks : mapping from str to torch.nn.Module
    settings : mapping from str to JSON

    Returns
    -------
    dict
        ``analysis``, ``networks`` (fingerprints by name) and ``settings``.
    """
    prints = {name: fingerprint(network) for name, network in networks.items()}
    return {"analysis": analysis, "networks": prints, "settings": dict(settings)}
