"""From effects to a verdict, by one rule.

A claim is several tests, each a number that the claim says is above zero. An *effect* is what the
paper says; a *control* is how far the effect goes beyond what would be there anyway: in random
weights, with signals of the same energy, with another clip. A test passes if its whole 95 %
interval lies above zero; the opposite is shown if the whole interval lies below.

==================== =============================================================================
verdict              if
==================== =============================================================================
holds                every test passes, and none is missing
holds in part        an effect passes, but another test does not, or was not measured yet
does not hold here   no effect passes, and of one at least the opposite is shown
not shown here       no effect passes, and none is shown to be the other way round
not measured yet     no effect passes, and at least one was not measured
cannot be tested     what it takes is not here; the claim says what
==================== =============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sonibook.analysis.result import Record
from sonibook.replication.evidence import Evidence
from sonibook.replication.measures import Measure

Verdict = Literal[
    "holds",
    "holds in part",
    "does not hold here",
    "not shown here",
    "cannot be tested here",
    "not measured yet",
]
Kind = Literal["effect", "control"]


class Test(Record):
    """One test of a claim.

    Attributes
    ----------
    says : str
        What would be so if it passed.
    kind : {"effect", "control"}
    unit : str
        Of the measure.
    file : str
        The results file that it is from, without ``.json``.
    measure : Measure or None
        Above zero if the test passes; None for what was not measured yet.
    """

    __test__ = False  # pytest takes it for one of its own

    says: str
    kind: Kind
    unit: str
    file: str
    measure: Measure | None

    @property
    def passes(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.measure is not None and self.measure.low > 0

    @property
    def reversed(self) -> bool:
        """Whether the whole interval lies below zero: the opposite is shown."""
        return self.measure is not None and self.measure.high < 0


class Judgement(Record):
    """A verdict and its reasons.

    Attributes
    ----------
    verdict : str
    words : str
        The verdict as it is to be read: with one network a regime it says so.
    why : str
        One sentence.
    seeds : int
        Networks of the regime that has fewest; 0 where nothing was measured.
    """

    verdict: Verdict
    words: str
    why: str
    seeds: int


def judge(tests: Sequence[Test], *, untestable: str = "") -> Judgement:
    """Apply the rule.

    Parameters
    ----------
    tests : sequence of Test
        One effect at least, unless `untestable`.
    untestable : str
        Why the claim cannot be tested here; empty if it can.

    Returns
    -------
    Judgement

    Raises
    ------
    ValueError
        If there is no effect among the tests of a claim that can be tested.
    """
    if untestable:
        verdict: Verdict = "cannot be tested here"
        return Judgement(verdict=verdict, words=verdict, why=untestable, seeds=0)
    effects = [one for one in tests if one.kind == "effect"]
    if not effects:
        raise ValueError("A claim needs an effect: controls alone prove nothing.")
    passed = [one for one in tests if one.passes]
    missing = [one for one in tests if one.measure is None]
    failed = [one for one in tests if one.measure is not None and not one.passes]
    if any(one.passes for one in effects):
        verdict = "holds in part" if missing or failed else "holds"
    elif any(one.measure is None for one in effects):
        verdict = "not measured yet"
    else:
        against = any(one.reversed for one in effects)
        verdict = "does not hold here" if against else "not shown here"
    seeds = min((one.measure.seeds for one in tests if one.measure is not None), default=0)
    note = " (one seed)" if seeds == 1 and verdict != "not measured yet" else ""
    return Judgement(
        verdict=verdict, words=verdict + note, why=_why(passed, failed, missing), seeds=seeds
    )


def _why(passed: Sequence[Test], failed: Sequence[Test], missing: Sequence[Test]) -> str:
    """What passed, what did not, and what is missing, in one sentence."""
    if not failed and not missing and len(passed) == 1:
        return "Its one test passes."
    if not failed and not missing:
        return f"All {len(passed)} tests pass, controls among them where there are any."
    parts = []
    if passed:
        parts.append("shown: " + _listed(passed))
    against = [one for one in failed if one.reversed]
    open_ones = [one for one in failed if not one.reversed]
    if open_ones:
        parts.append("not shown: " + _listed(open_ones))
    if against:
        parts.append("the opposite is shown of: " + _listed(against))
    if missing:
        parts.append("not measured yet: " + _listed(missing))
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def _listed(tests: Sequence[Test]) -> str:
    return ", ".join(one.says for one in tests)


Tests = Callable[[Evidence], Iterator[Test]]


def nothing(evidence: Evidence) -> Iterator[Test]:
    """The tests of a claim that cannot be tested here."""
    yield from ()


@dataclass(frozen=True)
class Claim:
    """A claim of the paper."""

    name: str
    where: str
    says: str
    tests: Tests
    chapter: str
    figure: str = ""
    untestable: str = ""
    would_change: str = "More seeds, and a network as large and as long trained as the paper's."
