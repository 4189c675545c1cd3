"""The paper's claims: where each stands, and the tests that it is judged by.

Claims about sonifications are in `sonibook.replication.claims_sounds`, those about layers and
transfer in
`sonibook.replication.claims_scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sonibook.replication.evidence import Evidence
from sonibook.replication.verdict import Test

Tests = Callable[[Evidence], Iterator[Test]]


def nothing(evidence: Evidence) -> Iterator[Test]:
    """The tests of a claim that cannot be tested here."""
    yield from ()


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes
    ----------
    name : str
        Short, for links.
    where : str
        Section, figure or table.
    says : str
        The claim in one line, in our words.
    tests : callable
        From evidence to tests.
    chapter : str
        The chapter that explains it, as `doc` roles take it.
    figure : str
        The results file that shows it, or "".
    untestable : str
        Why it cannot be tested here, or "".
    would_change : str
        What would change the verdict.
    """

    name: str
    where: str
    says: str
    tests: Tests
    chapter: str
    figure: str = ""
    untestable: str = ""
    would_change: str = "More seeds, and a network as large and as long trained as the paper's."


#: The two regimes that the paper compares.
REGIMES = ("supervised", "contrastive")
#: Regimes of weights that have learned nothing, as tests name them.
UNTRAINED = {"random": "random weights", "centred random": "centred random filters"}
