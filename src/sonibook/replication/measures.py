"""Numbers with intervals, and what one does with them: over layers, over seeds, differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from pydantic import Field
from scipy import stats

from sonibook.analysis.result import Estimate, Record
from sonibook.metrics import runs_interval


class Measure(Record):
    """A number with its 95 % interval.

    Attributes
    ----------
    mean, low, high : float
    clips : int
        Or filters, where these are what is counted.
    seeds : int
        Networks of the regime that has fewest.
    values : dict of int to float
        By seed, where it is a mean over networks that differ in theirs; else empty.
    """

    mean: float
    low: float
    high: float
    clips: int
    seeds: int = 1
    values: dict[int, float] = Field(default_factory=dict)


def of(one: Estimate | None) -> Measure | None:
    """An estimate as a measure; None where it has no interval."""
    if one is None or one.mean is None or one.low is None or one.high is None:
        return None
    return Measure(mean=one.mean, low=one.low, high=one.high, clips=one.clips)


def over_layers(rows: Iterable[Measure | None]) -> Measure | None:
    """The mean over layers, its interval as if all layers erred together (which is cautious).

    None where a layer was not measured.
    """
    found = list(rows)
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    return Measure(
        mean=float(np.mean([one.mean for one in known])),
        low=float(np.mean([one.low for one in known])),
        high=float(np.mean([one.high for one in known])),
        clips=min(one.clips for one in known),
    )


def over_seeds(networks: Mapping[int, Measure | None]) -> Measure | None:
    """The mean over networks that differ in their seed alone, which are given by seed.

    One network's interval is that over clips; of several it is Student's t over networks, the clips
    being taken as they are.
    """
    known = {seed: one for seed, one in networks.items() if one is not None}
    if not known:
        return None
    clips = min(one.clips for one in known.values())
    if len(known) == 1:
        ((seed, one),) = known.items()
        return one.model_copy(update={"values": {seed: one.mean}})
    return _over({seed: one.mean for seed, one in known.items()}, clips)


def _over(values: dict[int, float], clips: int) -> Measure:
    """Of several seeds."""
    low, high = runs_interval([*values.values()])
    mean = float(np.mean([*values.values()]))
    return Measure(mean=mean, low=low, high=high, clips=clips, seeds=len(values), values=values)


def minus(a: Measure | None, b: Measure | None) -> Measure | None:
    """The difference of two measures.

    Of the same seeds on either side: Student's t over their differences. A seed names the weights
    that a network started from, whatever it was trained for, so that networks of one seed belong
    together. Of several networks each, but of other seeds, Welch's t interval. Else, as of single
    networks, each side's distance to its end is squared and added (Newcombe 1998, method 10), as if
    they had no clips in common: on the same clips that is cautious.

    References
    ----------
    R. G. Newcombe, "Interval estimation for the difference between independent proportions:
    comparison of eleven methods", Statistics in Medicine 17, 1998.
    """
    if a is None or b is None:
        return None
    mean, clips, seeds = a.mean - b.mean, min(a.clips, b.clips), min(a.seeds, b.seeds)
    if seeds > 1 and a.values.keys() == b.values.keys():
        return _over({seed: a.values[seed] - b.values[seed] for seed in a.values}, clips)
    ours, theirs = [*a.values.values()], [*b.values.values()]
    if seeds > 1 and ours and theirs and np.ptp(ours) + np.ptp(theirs) > 0:
        interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
        low, high = float(interval.low), float(interval.high)
    else:
        low = mean - float(np.hypot(a.mean - a.low, b.high - b.mean))
        high = mean + float(np.hypot(a.high - a.mean, b.mean - b.low))
    return Measure(mean=mean, low=low, high=high, clips=clips, seeds=seeds)


def less(a: Measure | None, number: float) -> Measure | None:
    """A measure less a number that is known."""
    if a is None:
        return None
    shifted = {"mean": a.mean - number, "low": a.low - number, "high": a.high - number}
    values = {seed: one - number for seed, one in a.values.items()}
    return a.model_copy(update={**shifted, "values": values})


def negative(a: Measure | None) -> Measure | None:
    """A measure with the other sign."""
    if a is None:
        return None
    turned = {"mean": -a.mean, "low": -a.high, "high": -a.low}
    return a.model_copy(update={**turned, "values": {k: -one for k, one in a.values.items()}})


def size(a: Measure | None) -> Measure | None:
    """A measure without its sign: of several networks, the mean of each one's size."""
    if a is None:
        return None
    if len(a.values) > 1:
        return _over({seed: abs(one) for seed, one in a.values.items()}, a.clips)
    least = 0.0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
    ends = {"mean": abs(a.mean), "low": least, "high": max(abs(a.low), abs(a.high))}
    return a.model_copy(update={**ends, "values": {k: abs(one) for k, one in a.values.items()}})
