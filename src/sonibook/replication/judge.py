"""Judges every claim by the results files of a folder, and writes ``claims.json``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from sonibook.analysis.result import Record
from sonibook.replication.claims_scores import SCORE_CLAIMS
from sonibook.replication.claims_sounds import SOUND_CLAIMS
from sonibook.replication.evidence import Evidence
from sonibook.replication.verdict import Claim, Judgement, Test, judge
from sonibook.results import write_result

#: All, in the paper's order.
CLAIMS: tuple[Claim, ...] = (*SOUND_CLAIMS, *SCORE_CLAIMS)


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
    evidence = Evidence(folder)
    return [_judged(claim, evidence) for claim in CLAIMS]


def _judged(claim: Claim, evidence: Evidence) -> Judged:
    tests = tuple(claim.tests(evidence))
    return Judged(
        name=claim.name,
        where=claim.where,
        says=claim.says,
        judgement=judge(tests, untestable=claim.untestable),
        tests=tests,
        chapter=claim.chapter,
        figure=claim.figure,
        would_change=claim.would_change,
    )


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
