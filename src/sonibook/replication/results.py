"""What claims are judged by: results files, arithmetic with intervals, and tests made of both.

What is missing, a file or a network in it, is `MISSING`, and so is whatever is made of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import ConfigDict, Field
from scipy import stats

from sonibook.analysis.ablation import AblationResult
from sonibook.analysis.activations import TopClipsResult
from sonibook.analysis.evolution import EvolutionResult, FilterEvolution
from sonibook.analysis.result import Estimate, Record, ResultTable, Row, estimate
from sonibook.metrics.intervals import runs_interval
from sonibook.replication.benchmarks import UNTRAINED
from sonibook.replication.tables import Difference
from sonibook.training.probe import ProbeKind

_Content = TypeVar("_Content")
#: Of one network, by quantity, condition and layer; and of many, by regime and seed.
_Rows = dict[tuple[str, str, int | None], Row]
_Networks = dict[str, dict[int, _Rows]]
#: The results file of each regime's figure 5.
EVOLUTIONS = {"contrastive": "figure-5", "supervised": "figure-5-supervised"}
#: Files of rows that hold more than rows.
_KINDS: dict[str, type[ResultTable]] = {
    "figures-2-3": TopClipsResult,
    "figure-6": AblationResult,
    "figure-6-full": AblationResult,
}
_SONIFICATION = "sonification"
#: Standard errors in half of a 95 % interval.
_Z = float(stats.norm.ppf(0.975))


class Measure(Estimate):
    """An estimate over clips (or filters) and networks; NaN where nothing was measured.

    ``a - b`` is a difference with its interval, of the same seeds on either side Student's t over
    their differences. A seed names the weights that a network started from, whatever it was trained
    for. Of several networks each, but of other seeds, it is Welch's t interval. Else, as of single
    networks, each side's distance to its end is squared and added (R. G. Newcombe 1998, "Interval
    estimation for the difference between independent proportions", method 10), as if they had no
    clips in common: on the same clips that is cautious.
    """

    model_config = ConfigDict(allow_inf_nan=True)

    mean: float
    low: float
    high: float
    #: Networks of the regime that has fewest, and the mean of each by its seed.
    seeds: int = 1
    values: dict[int, float] = Field(default_factory=dict)
    #: Standard error over clips, by which the interval is widened; 0 where they are as they are.
    clip_error: float = Field(default=0.0, exclude=True)

    @classmethod
    def of(cls, one: Estimate) -> Measure:
        """An estimate as a measure; one without an interval counts as not measured."""
        if one.mean is None or one.low is None or one.high is None:
            return MISSING
        return cls(mean=one.mean, low=one.low, high=one.high, clips=one.clips)

    @property
    def known(self) -> bool:
        """Whether it was measured."""
        return not np.isnan(self.mean)

    @property
    def p(self) -> float:
        """Two-sided p-value of "it is zero", in (0, 1]: below 0.05 where the interval excludes it.

        The interval's end that is nearer to zero gives the standard error: by Student's t with a
        degree of freedom less than there are networks, or normal where there is one a side.
        """
        nearer = self.mean - self.low if self.mean > 0 else self.high - self.mean
        if self.mean == 0:
            return 1.0
        law, freedom = (stats.t, (self.seeds - 1,)) if self.seeds > 1 else (stats.norm, ())
        errors = abs(self.mean) / max(nearer, 1e-300) * law.ppf(0.975, *freedom)
        return max(float(2 * law.sf(errors, *freedom)), 1e-300)

    def __sub__(self, other: Measure | float) -> Measure:
        if isinstance(other, float):  # which is known
            return self._changed(lambda value: value - other)
        clips, seeds = min(self.clips, other.clips), min(self.seeds, other.seeds)
        error = float(np.hypot(self.clip_error, other.clip_error))
        if seeds > 1 and self.values.keys() == other.values.keys():
            differences = {seed: self.values[seed] - other.values[seed] for seed in self.values}
            return _over(differences, clips, error)
        mean = self.mean - other.mean
        ours, theirs = [*self.values.values()], [*other.values.values()]
        if seeds > 1 and ours and theirs and np.ptp(ours) + np.ptp(theirs) > 0:
            interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
            half = float(np.hypot((interval.high - interval.low) / 2, _Z * error))
            low, high = mean - half, mean + half
        else:
            low = mean - float(np.hypot(self.mean - self.low, other.high - other.mean))
            high = mean + float(np.hypot(self.high - self.mean, other.mean - other.low))
        return Measure(mean=mean, low=low, high=high, clips=clips, seeds=seeds, clip_error=error)

    def __neg__(self) -> Measure:
        return self._changed(lambda value: -value)

    def __abs__(self) -> Measure:
        """Without its sign: of several networks, the mean of each one's size."""
        if len(self.values) > 1:
            sizes = {seed: abs(value) for seed, value in self.values.items()}
            return _over(sizes, self.clips, self.clip_error)
        across = {"low": 0.0} if self.low <= 0 <= self.high else {}
        return self._changed(abs).model_copy(update=across)

    def _changed(self, change: Callable[[float], float]) -> Measure:
        """With all numbers changed, which may turn the interval round."""
        low, high = sorted((change(self.low), change(self.high)))
        values = {seed: change(value) for seed, value in self.values.items()}
        update = {"mean": change(self.mean), "low": low, "high": high, "values": values}
        return self.model_copy(update=update)


MISSING = Measure(mean=np.nan, low=np.nan, high=np.nan, clips=0)


def over_layers(layers: Iterable[Estimate]) -> Measure:
    """The mean over layers, its interval as if all erred together; missing if one is missing."""
    found = [*layers]
    ends = np.array([(one.mean, one.low, one.high) for one in found], float)
    if not found or np.isnan(ends).any():
        return MISSING
    mean, low, high = (float(column.mean()) for column in ends.T)
    return Measure(mean=mean, low=low, high=high, clips=min(one.clips for one in found))


def over_seeds(networks: Mapping[int, Measure], *, recordings: bool = False) -> Measure:
    """The mean over networks, by seed: of one over clips, of several Student's t over networks.

    With `recordings` it is of other clips, too: half of the interval over networks and half of the
    one over clips, which more networks do not narrow, as all hear the same clips, are squared and
    added.
    """
    known = {seed: one for seed, one in networks.items() if one.known}
    values = {seed: one.mean for seed, one in known.items()}
    if len(known) > 1:
        halves = [(one.high - one.low) / 2 for one in known.values()]
        error = float(np.mean(halves)) / _Z if recordings else 0.0
        return _over(values, min(one.clips for one in known.values()), error)
    return next((one.model_copy(update={"values": values}) for one in known.values()), MISSING)


def _over(values: dict[int, float], clips: int, error: float) -> Measure:
    """Of several seeds, with the standard error over clips."""
    low, high = runs_interval([*values.values()])
    mean = float(np.mean([*values.values()]))
    half = float(np.hypot((high - low) / 2, _Z * error))
    ends = {"mean": mean, "low": mean - half, "high": mean + half}
    return Measure(**ends, clips=clips, seeds=len(values), values=values, clip_error=error)


def _networks(path: Path) -> _Networks:
    """The networks of a file of rows."""
    found: _Networks = {}
    for row in _KINDS.get(path.stem, ResultTable).read(path).rows:
        if row.seed is not None:
            own = found.setdefault(row.regime, {}).setdefault(row.seed, {})
            own[row.quantity, row.condition, row.layer] = row
    return found


@lru_cache(maxsize=64)
def _read(read: Callable[[Path], _Content], path: Path, changed: int) -> _Content:
    """What a file held when it was last changed: whoever judges again need not read it again."""
    return read(path)


@dataclass(frozen=True)
class Results:
    """The results files of one folder; `probe` is the kind that figure 4's accuracies are of.

    With `recordings`, figures' intervals over networks are of other clips, too, as tables' always
    are; of what is compared, as if no clips were in common, which is cautious. With `drawn`, figure
    1 is of filters drawn at random, where it was measured of them.
    """

    folder: Path
    _: KW_ONLY
    probe: ProbeKind = "logistic"
    recordings: bool = False
    drawn: bool = False

    def _read(self, name: str, read: Callable[[Path], _Content]) -> _Content | None:
        """A file's content; None where it is not there."""
        path = self.folder / f"{name}.json"
        return _read(read, path, path.stat().st_mtime_ns) if path.exists() else None

    def networks(self, file: str) -> _Networks:
        """The networks that a figure was measured of, by regime and seed: their rows."""
        return self._read(file, _networks) or {}

    def _over_networks(
        self, file: str, value: Callable[[_Rows], Measure]
    ) -> defaultdict[str, Measure]:
        """Each regime's mean, over its networks, of what `value` makes of the rows of one."""
        found: defaultdict[str, Measure] = defaultdict(lambda: MISSING)
        for regime, networks in self.networks(file).items():
            by_seed = {seed: value(rows) for seed, rows in networks.items()}
            found[regime] = over_seeds(by_seed, recordings=self.recordings)
        return found

    def means(
        self,
        file: str,
        quantity: str,
        layers: Sequence[int],
        *,
        condition: str = "",
        less: Sequence[int] = (),
    ) -> defaultdict[str, Measure]:
        """Each regime's mean of a quantity over some layers, less that over others."""
        conditions = ("drawn", condition) if self.drawn and file == "figure-1" else (condition,)

        def over(rows: _Rows, some: Sequence[int]) -> Measure:
            of_each = (
                [rows[place] for layer in some if (place := (quantity, one, layer)) in rows]
                for one in conditions
            )
            return over_layers(next(filter(None, of_each), ()))

        def mean(rows: _Rows) -> Measure:
            return over(rows, layers) - over(rows, less) if less else over(rows, layers)

        return self._over_networks(file, mean)

    def drops(self, file: str, control: str = "") -> defaultdict[str, Measure]:
        """How much accuracy each regime loses when its sonifications are subtracted, over layers.

        With a `control`, how much more than by that. Accuracy is how the paper counts scores;
        log-probability depends on how sure of itself a classifier is, right or wrong.
        """

        def lost(rows: _Rows, condition: str) -> dict[int | None, Measure]:
            return {
                layer: -(Measure.of(row) - (rows["untouched", condition, layer].mean or 0.0))
                for (quantity, of, layer), row in rows.items()
                if (quantity, of) == ("score", condition) and row.clips and layer is not None
            }

        def mean(rows: _Rows) -> Measure:
            own, other = lost(rows, _SONIFICATION), lost(rows, control) if control else {}
            return over_layers(
                one - other.get(layer, MISSING) if control else one for layer, one in own.items()
            )

        return self._over_networks(file, mean)

    def spread(self, file: str, regime: str) -> Measure:
        """The variance over layers of the score that is left; missing for one network alone."""

        def variance(rows: _Rows) -> Measure:
            scores = [row for place, row in rows.items() if place[:2] == ("score", _SONIFICATION)]
            spread = float(np.var([row.mean for row in scores if row.mean is not None]))
            clips = min((row.clips for row in scores if row.clips), default=0)
            return Measure(mean=spread, low=spread, high=spread, clips=clips)

        found = self._over_networks(file, variance)[regime]
        return found if found.seeds > 1 else MISSING

    def over_filters(self, regime: str, value: Callable[[FilterEvolution], float]) -> Measure:
        """A number of each filter that was followed through a regime's training, over filters."""
        result = self._read(EVOLUTIONS[regime], EvolutionResult.read)
        if result is None:
            return MISSING
        return Measure.of(estimate(np.array([value(one) for one in result.filters])))

    def difference(
        self, table: str, question: str, row: str, training: str, minus: str, other: str = ""
    ) -> Measure:
        """A difference of a table; `other` is the training of `minus`, the same if empty."""
        wanted = (question, row, training, minus, other or training)
        for found in self._read(table, Difference.read) or ():
            names = (found.question, found.row, found.training, found.minus, found.minus_training)
            if names == wanted:
                seeds = min(len(found.seeds), len(found.minus_seeds))
                return Measure.of(found).model_copy(update={"seeds": seeds})
        return MISSING


class Test(Record):
    """One test of a claim, with what it says if it passes; what was not measured yet is None.

    `p`, two-sided, is of "it is zero"; `p_claim` and `p_all` are adjusted for the number of tests
    of the claim (Holm) and of all claims (Benjamini and Hochberg).
    """

    __test__ = False  # pytest takes it for one of its own

    says: str
    kind: Literal["effect", "control"]
    unit: str
    file: str
    measure: Measure | None
    p: float | None = None
    p_claim: float | None = None
    p_all: float | None = None

    @property
    def passes(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.measure is not None and self.measure.low > 0

    @property
    def reversed(self) -> bool:
        """Whether the whole interval lies below zero: the opposite is shown."""
        return self.measure is not None and self.measure.high < 0

    def significant(self, p: Literal["p_claim", "p_all"]) -> bool:
        """Whether it passes with its p-value adjusted, too."""
        return self.passes and getattr(self, p) is not None and getattr(self, p) < 0.05


def effect(
    says: str,
    measure: Measure,
    *,
    unit: str = "",
    file: str = "",
    kind: Literal["effect", "control"] = "effect",
) -> Test:
    """A test of what the paper says; its unit and file are the claim's where they are empty."""
    known = measure if measure.known else None
    p = None if known is None else known.p
    return Test(says=says, kind=kind, unit=unit, file=file, measure=known, p=p)


#: A test of whether the effect goes beyond what would be there anyway.
control = partial(effect, kind="control")


def beyond_untrained(
    says: str,
    found: Mapping[str, Measure],
    regime: str,
    *,
    below: bool = False,
    rest: str = "",
    unit: str = "",
    file: str = "",
) -> Iterator[Test]:
    """Controls: a regime's number is above those of untrained networks, or below them."""
    for weights, named in UNTRAINED.items():
        more = found[weights] - found[regime] if below else found[regime] - found[weights]
        yield control(f"{says}{named}{rest}", more, unit=unit, file=file)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, where it stands, and how it is tested.

    It decorates the function that makes its tests, whose docstring is what the paper says. One that
    is `universal`, of any or of all, is refuted by a single counterexample.
    """

    where: str
    chapter: str
    figure: str
    _: KW_ONLY
    unit: str = "accuracy"
    untestable: str = ""
    universal: bool = False
    would_change: str = "More seeds, and a network as large and as long trained as the paper's."
    name: str = ""
    says: str = ""
    make: Callable[[Results], Iterable[Test]] = lambda _: ()

    def __call__(self, make: Callable[[Results], Iterable[Test]]) -> Claim:
        name, says = make.__name__.strip("_").replace("_", "-"), make.__doc__ or ""
        return replace(self, name=name, says=" ".join(says.split()), make=make)

    def tests(self, results: Results) -> tuple[Test, ...]:
        """Its tests, by some results."""
        return tuple(
            test.model_copy(
                update={"unit": test.unit or self.unit, "file": test.file or self.figure}
            )
            for test in self.make(results)
        )
