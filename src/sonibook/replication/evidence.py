"""Reads the results files that claims are judged by; what is missing gives None."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from sonibook.analysis.ablation import AblationResult
from sonibook.analysis.coherence import CoherenceResult
from sonibook.analysis.evolution import EvolutionResult, FilterEvolution
from sonibook.analysis.layers import LayerResult
from sonibook.analysis.result import Result, ResultTable, Row, estimate
from sonibook.analysis.selectivity import SelectivityResult
from sonibook.analysis.shifts import ShiftResult
from sonibook.analysis.stimulation import StimulationResult
from sonibook.analysis.top_clips import TopClipsResult
from sonibook.replication.measures import (
    Measure,
    less,
    minus,
    negative,
    of,
    over_layers,
    over_seeds,
)
from sonibook.replication.tables import Difference

Kind = TypeVar("Kind", bound=Result)
#: The results file of each regime's figure 5.
EVOLUTIONS = {"contrastive": "figure-5", "supervised": "figure-5-supervised"}
_SONIFICATION = "sonification"


class Evidence:
    """The results files of one folder.

    Every method gives None where the file, or a network in it, is missing.

    Parameters
    ----------
    folder : str or Path
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def _read(self, kind: type[Kind], name: str) -> Kind | None:
        path = self.folder / f"{name}.json"
        return kind.read(path) if path.exists() else None

    @cached_property
    def coherence(self) -> CoherenceResult | None:
        """Figure 7."""
        return self._read(CoherenceResult, "figure-7")

    @cached_property
    def selectivity(self) -> SelectivityResult | None:
        """Figure 1."""
        return self._read(SelectivityResult, "figure-1")

    @cached_property
    def top_clips(self) -> TopClipsResult | None:
        """Figures 2 and 3."""
        return self._read(TopClipsResult, "figures-2-3")

    @cached_property
    def stimulation(self) -> StimulationResult | None:
        """What filters answer to, which the paper has no figure of."""
        return self._read(StimulationResult, "stimulation")

    @cached_property
    def shifts(self) -> ShiftResult | None:
        """Figure B.3."""
        return self._read(ShiftResult, "figure-b3")

    @cached_property
    def evolutions(self) -> dict[str, EvolutionResult | None]:
        """Figure 5, by the regime of the run."""
        return {regime: self._read(EvolutionResult, name) for regime, name in EVOLUTIONS.items()}

    @cached_property
    def importances(self) -> dict[str, LayerResult | None]:
        """Figure 4, in-domain and out-of-domain."""
        return {
            domain: self._read(LayerResult, f"figure-4-{domain}")
            for domain in ("in-domain", "out-of-domain")
        }

    def ablation(self, name: str = "figure-6") -> AblationResult | None:
        """Figure 6, of probed networks ("figure-6") or those trained whole ("figure-6-full")."""
        return self._read(AblationResult, name)

    def difference(
        self, table: str, question: str, row: str, training: str, minus: str, other: str = ""
    ) -> Measure | None:
        """A difference of a table; `other` is the training of `minus`, the same if empty."""
        path = self.folder / f"{table}.json"
        if not path.exists():
            return None
        wanted = (question, row, training, minus, other or training)
        for one in json.loads(path.read_text(encoding="utf-8"))["differences"]:
            found = Difference.model_validate(one)
            names = (found.question, found.row, found.training, found.minus, found.minus_training)
            if names == wanted:
                return Measure(
                    mean=found.mean,
                    low=found.low,
                    high=found.high,
                    clips=found.clips,
                    seeds=min(len(found.seeds), len(found.minus_seeds)),
                )
        return None


def regime_mean(
    result: ResultTable | None,
    regime: str,
    quantity: str,
    layers: Iterable[int],
    *,
    condition: str = "",
    less: Iterable[int] = (),
) -> Measure | None:
    """A regime's mean of a quantity over some layers."""

    def mean(rows: tuple[Row, ...], some: set[int]) -> Measure | None:
        return over_layers([of(row) for row in rows if row.layer in some])

    if result is None:
        return None
    wanted, others = set(layers), set(less)
    chosen = result.select(regime=regime, quantity=quantity, condition=condition)
    found: dict[int, Measure | None] = {}
    for seed in dict.fromkeys(row.seed for row in chosen if row.seed is not None):
        rows = tuple(row for row in chosen if row.seed == seed)
        found[seed] = mean(rows, wanted)
        if others:
            found[seed] = minus(found[seed], mean(rows, others))
    return over_seeds(found)


def ablation_score(
    result: AblationResult | None, regime: str, control: str | None = None
) -> Measure | None:
    """How much accuracy a regime loses when its sonifications are subtracted: of 1.

    Over all layers; with a `control`, how much more than when the control is. It is accuracy, as
    the paper counts scores, and not log-probability, which depends on how sure of itself a
    classifier is, right or wrong.
    """
    found = {}
    for seed, rows in _scores_by_seed(result, regime).items():
        untouched = {
            (row.layer, row.condition): row.mean or 0.0
            for row in rows
            if row.quantity == "untouched"
        }
        lost = {
            (row.layer, row.condition): negative(less(of(row), untouched[row.layer, row.condition]))
            for row in rows
            if row.quantity == "score" and row.clips and row.layer is not None
        }
        own = {layer: one for (layer, condition), one in lost.items() if condition == _SONIFICATION}
        found[seed] = over_layers(
            one if control is None else minus(one, lost.get((layer, control)))
            for layer, one in own.items()
        )
    return over_seeds(found)


def spread_over_layers(result: AblationResult | None, regime: str) -> Measure | None:
    """The variance over layers of the score that is left when sonifications are subtracted.

    None for one network: only several give an interval.
    """
    found: dict[int, Measure | None] = {}
    for seed, rows in _scores_by_seed(result, regime).items():
        scores = [row for row in rows if row.quantity == "score" and row.condition == _SONIFICATION]
        spread = float(np.var([row.mean for row in scores if row.mean is not None]))
        clips = min((row.clips for row in scores if row.clips), default=0)
        found[seed] = Measure(mean=spread, low=spread, high=spread, clips=clips)
    whole = over_seeds(found)
    return whole if whole is not None and whole.seeds > 1 else None


def _scores_by_seed(result: AblationResult | None, regime: str) -> dict[int, tuple[Row, ...]]:
    if result is None:
        return {}
    rows = result.select(regime=regime, quantity={"score", "untouched"})
    seeds = dict.fromkeys(row.seed for row in rows if row.seed is not None)
    return {seed: tuple(row for row in rows if row.seed == seed) for seed in seeds}


def over_filters(
    found: EvolutionResult | None, value: Callable[[FilterEvolution], float]
) -> Measure | None:
    """A number of each filter that was followed through training, over filters."""
    if found is None:
        return None
    values = np.array([value(one) for one in found.filters])
    return of(estimate(values))


def fullness(one: FilterEvolution, place: int) -> float:
    """The share of a spectrogram's points that are within 40 dB of its loudest."""
    return float((one.steps[place].levels > 40).mean())


def steadier(one: FilterEvolution) -> float:
    """How much more alike neighbouring checkpoints are on a fixed clip than each on its top clip.

    A difference of correlations; NaN for a filter that is silent too often to tell.
    """
    pairs = [
        step.steadiness - step.top_clip_steadiness
        for step in one.steps
        if step.steadiness is not None and step.top_clip_steadiness is not None
    ]
    return float(np.mean(pairs)) if pairs else float("nan")
