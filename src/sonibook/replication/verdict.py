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
does not hold here   no effect passes, and of one at least the opposite is shown; or the claim is
                     universal, and of one effect at least the opposite is shown
not shown here       no effect passes, and none is shown to be the other way round
not measured yet     no effect passes, and at least one was not measured
cannot be tested     what it takes is not here; the claim says what
==================== =============================================================================

Beside the verdict stands what qualifies it: that there was one network a regime; that the opposite
of a control is shown; and, as many tests are made, that no effect passes once their number is
corrected for: within the claim by Holm's method, over all claims by Benjamini and Hochberg's.

`freeze` writes the list of claims, their tests and this rule down with a date and a hash, before
networks that nobody has looked at are measured. ``claims.json`` says whether it still is that list.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy import ndarray
from scipy import stats

from sonibook.analysis.result import Record
from sonibook.files import read_json, write_result
from sonibook.metrics.intervals import holm
from sonibook.replication.claims_scores import SCORE_CLAIMS
from sonibook.replication.claims_sounds import SOUND_CLAIMS
from sonibook.replication.results import Claim, Results, Test
from sonibook.training.probe import ProbeKind

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
    """A verdict; its words, with what qualifies it; why, in a sentence."""

    verdict: Verdict
    words: str
    why: str
    #: Networks of the regime that has fewest; 0 where nothing was measured.
    seeds: int
    #: Whether an effect passes with its p-value adjusted for the number of the claim's tests.
    corrected: bool


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


def judge(tests: Sequence[Test], *, untestable: str = "", universal: bool = False) -> Judgement:
    """Apply the rule.

    Parameters
    ----------
    tests : sequence of Test
        One effect at least (else ValueError), unless `untestable`.
    untestable : str
        Why the claim cannot be tested here; empty if it can.
    universal : bool
        Whether the claim is of any or of all, so that one counterexample refutes it.
    """
    if untestable:
        verdict: Verdict = "cannot be tested here"
        return Judgement(verdict=verdict, words=verdict, why=untestable, seeds=0, corrected=False)
    effects = [test for test in tests if test.kind == "effect"]
    if not effects:
        raise ValueError("A claim needs an effect: controls alone prove nothing.")
    against = any(test.reversed for test in effects)
    if universal and against:
        verdict = "does not hold here"
    elif any(test.passes for test in effects):
        verdict = "holds" if all(test.passes for test in tests) else "holds in part"
    elif any(test.measure is None for test in effects):
        verdict = "not measured yet"
    else:
        verdict = "does not hold here" if against else "not shown here"
    seeds = min((test.measure.seeds for test in tests if test.measure is not None), default=0)
    adjusted = _corrected(tests, "p_claim", holm)
    corrected = any(test.significant("p_claim") for test in adjusted if test.kind == "effect")
    words, why = _qualified(verdict, tests, seeds=seeds, corrected=corrected), _why(tests)
    return Judgement(verdict=verdict, words=words, why=why, seeds=seeds, corrected=corrected)


def _corrected(
    tests: Sequence[Test], name: str, method: Callable[[ndarray], ndarray]
) -> list[Test]:
    """Tests with a p-value adjusted for how many there are that were measured."""
    known = np.array([test.p for test in tests if test.p is not None])
    adjusted = iter(method(known).tolist() if len(known) else ())
    return [
        test if test.p is None else test.model_copy(update={name: next(adjusted)}) for test in tests
    ]


def _qualified(verdict: Verdict, tests: Sequence[Test], *, seeds: int, corrected: bool) -> str:
    """A verdict in words, with what a reader of the verdict alone must know."""
    if verdict == "not measured yet":
        return verdict
    notes = ["one seed"] if seeds == 1 else []
    if verdict in ("holds", "holds in part"):
        turned = sum(test.reversed for test in tests)
        if turned:
            notes.append(f"the opposite is shown of {turned} of its {len(tests)} tests")
        if not corrected:
            notes.append("no longer once the number of its tests is corrected for")
    return verdict + (f" ({'; '.join(notes)})" if notes else "")


def _why(tests: Sequence[Test]) -> str:
    """What passed, what did not, and what is missing, in one sentence."""
    if all(test.passes for test in tests):
        if len(tests) == 1:
            return "Its one test passes."
        return f"All {len(tests)} tests pass, controls among them where there are any."
    known = [test for test in tests if test.measure is not None]
    said = {
        "shown": [test for test in known if test.passes],
        "not shown": [test for test in known if not test.passes and not test.reversed],
        "the opposite is shown of": [test for test in known if test.reversed],
        "not measured yet": [test for test in tests if test.measure is None],
    }
    named = {outcome: ", ".join(test.says for test in of) for outcome, of in said.items() if of}
    text = "; ".join(f"{outcome}: {names}" for outcome, names in named.items())
    return text[0].upper() + text[1:] + "."


def judge_claims(
    folder: str | Path,
    *,
    probe: ProbeKind = "logistic",
    recordings: bool = False,
    drawn: bool = False,
) -> list[Judged]:
    """Every claim with its verdict, by the results files that there are.

    Parameters
    ----------
    folder : str or Path
        Such as ``data/results``; AnalysisError if a file in it is damaged.
    probe : {"logistic", "ridge"}
        What figure 4's claims are judged by. Those by ridge explore: it is not in the list of tests
        that was fixed before they were measured.
    recordings : bool
        Whether intervals over several networks are widened to be of other recordings, too; see
        `Results`. That explores as well.
    drawn : bool
        Whether all of figure 1 is of filters drawn at random, where it was measured of them, and
        not of the most active ones, which are a few of a layer. That explores as well.
    """
    results = Results(Path(folder), probe=probe, recordings=recordings, drawn=drawn)
    tests = {claim: _corrected(claim.tests(results), "p_claim", holm) for claim in CLAIMS}
    every = [test for own in tests.values() for test in own]
    among_all = iter(_corrected(every, "p_all", stats.false_discovery_control))
    return [
        Judged(
            judgement=judge(own, untestable=claim.untestable, universal=claim.universal),
            tests=tuple(next(among_all) for _ in own),
            **{name: value for name, value in vars(claim).items() if name in Judged.model_fields},
        )
        for claim, own in tests.items()
    ]


def frozen_list() -> list[dict[str, Any]]:
    """All claims and their tests, without what was measured, and the rule: JSON."""
    empty = Results(Path(__file__) / "none")  # no folder, and so no results
    claims = [
        {
            "name": claim.name,
            "says": claim.says,
            "universal": claim.universal,
            "untestable": claim.untestable,
            "tests": [
                test.model_dump(mode="json", include={"says", "kind", "unit", "file"})
                for test in claim.tests(empty)
            ],
        }
        for claim in CLAIMS
    ]
    return [{"rule": __doc__}, *claims]


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def freeze(folder: str | Path, *, command: str | None = None) -> Path:
    """Write the claims, tests and rule into ``frozen.json``: an older list there is replaced."""
    listed = frozen_list()
    path = Path(folder) / "frozen.json"
    write_result(path, {"hash": _hash(listed), "list": listed}, command=command)
    return path


def _frozen(folder: Path) -> dict[str, Any] | None:
    """The hash and date of the list that was frozen, and whether it is still this one."""
    path = folder / "frozen.json"
    if not path.exists():
        return None
    before = read_json(path)
    return {
        "hash": before["hash"],
        "created": before["provenance"]["created"],
        "unchanged": before["hash"] == _hash(frozen_list()),
    }


def claims_content(folder: str | Path) -> dict[str, Any]:
    """What ``claims.json`` holds, without its provenance: JSON."""
    judged = judge_claims(folder)
    tests = [test for one in judged for test in one.tests]
    return {
        "rule": "sonibook.replication.verdict: a test passes if its 95 % interval lies above zero.",
        "frozen": _frozen(Path(folder)),
        "verdicts": dict(Counter(one.judgement.verdict for one in judged)),
        "tests": {
            "measured": sum(test.p is not None for test in tests),
            "passed": sum(test.passes for test in tests),
            "passed, corrected within the claim": sum(t.significant("p_claim") for t in tests),
            "passed, corrected over all claims": sum(t.significant("p_all") for t in tests),
        },
        "claims": [one.model_dump(mode="json") for one in judged],
    }


def write_claims(folder: str | Path, *, command: str | None = None) -> Path:
    """Write ``claims.json`` into the folder whose results files it is made from."""
    path = Path(folder) / "claims.json"
    write_result(path, claims_content(folder), command=command)
    return path
