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

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sonibook.analysis.result import Record
from sonibook.replication.claims_scores import SCORE_CLAIMS
from sonibook.replication.claims_sounds import SOUND_CLAIMS
from sonibook.replication.results import Claim, Results, Test
from sonibook.results import write_result

#: All, in the paper's order.
CLAIMS: tuple[Claim, ...] = (*SOUND_CLAIMS, *SCORE_CLAIMS)
Verdict = Literal[
    "holds",
    "holds in part",
    "does not hold here",
    "not shown here",
    "cannot be tested here",
    "not measured yet",
]


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


class Judged(Record):
    """A claim, what was measured, and the verdict; see `Claim`, `Test` and `Judgement`."""

    name: str
    where: str
    says: str
    judgement: Judgement
    tests: tuple[Test, ...]
    chapter: str
    figure: str
    would_change: str


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
    effects = [test for test in tests if test.kind == "effect"]
    if not effects:
        raise ValueError("A claim needs an effect: controls alone prove nothing.")
    if any(test.passes for test in effects):
        verdict = "holds" if all(test.passes for test in tests) else "holds in part"
    elif any(test.measure is None for test in effects):
        verdict = "not measured yet"
    else:
        against = any(test.reversed for test in effects)
        verdict = "does not hold here" if against else "not shown here"
    seeds = min((test.measure.seeds for test in tests if test.measure is not None), default=0)
    note = " (one seed)" if seeds == 1 and verdict != "not measured yet" else ""
    return Judgement(verdict=verdict, words=verdict + note, why=_why(tests), seeds=seeds)


def _why(tests: Sequence[Test]) -> str:
    """What passed, what did not, and what is missing, in one sentence."""
    if all(test.passes for test in tests):
        if len(tests) == 1:
            return "Its one test passes."
        return f"All {len(tests)} tests pass, controls among them where there are any."
    outcomes = ("shown", "not shown", "the opposite is shown of", "not measured yet")
    said = {
        outcome: ", ".join(test.says for test in tests if _outcome(test) == outcome)
        for outcome in outcomes
    }
    text = "; ".join(f"{outcome}: {tests}" for outcome, tests in said.items() if tests)
    return text[0].upper() + text[1:] + "."


def _outcome(test: Test) -> str:
    if test.measure is None:
        return "not measured yet"
    if test.reversed:
        return "the opposite is shown of"
    return "shown" if test.passes else "not shown"


def judge_claims(folder: str | Path) -> list[Judged]:
    """Every claim with its verdict, by the results files that there are.

    Parameters
    ----------
    folder : str or Path
        Such as ``data/results``.

    Returns
    -------
    list of Judged

    Raises
    ------
    AnalysisError
        If a results file is damaged.
    """
    results = Results(folder)
    return [
        Judged(
            name=claim.name,
            where=claim.where,
            says=claim.says,
            judgement=judge(tests, untestable=claim.untestable),
            tests=tests,
            chapter=claim.chapter,
            figure=claim.figure,
            would_change=claim.would_change,
        )
        for claim in CLAIMS
        for tests in [claim.tests(results)]
    ]


def claims_content(folder: str | Path) -> dict[str, Any]:
    """What ``claims.json`` holds, without its provenance: JSON."""
    judged = judge_claims(folder)
    return {
        "rule": "sonibook.replication.verdict: a test passes if its 95 % interval lies above zero.",
        "verdicts": dict(Counter(one.judgement.verdict for one in judged)),
        "claims": [one.model_dump(mode="json") for one in judged],
    }


def write_claims(folder: str | Path, *, command: str | None = None) -> None:
    """Write ``claims.json`` into the folder whose results files it is made from."""
    write_result(Path(folder) / "claims.json", claims_content(folder), command=command)
