"""The rule of the claims, the arithmetic of intervals, and claims on made-up results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sonibook.analysis.coherence import CoherenceResult
from sonibook.analysis.result import Estimate, Measured, Row
from sonibook.plots.claims import claim_figure, claims_table, measured_in_words
from sonibook.replication.claims_scores import SCORE_CLAIMS
from sonibook.replication.paper import TABLES
from sonibook.replication.results import (
    MISSING,
    Measure,
    Results,
    Test,
    over_layers,
    over_seeds,
)
from sonibook.replication.verdict import CLAIMS, claims_content, judge, judge_claims, write_claims


def measure(mean: float, half: float = 0.1, **changes) -> Measure:
    given = {"mean": mean, "low": mean - half, "high": mean + half, "clips": 40}
    return Measure.model_validate(given | changes)


def one(mean: float | None, kind: str = "effect", **changes) -> Test:
    found = None if mean is None else measure(mean, **changes)
    return Test(says=f"{kind} {mean}", kind=kind, unit="Hz", file="figure-1", measure=found)


@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        ([one(1.0)], "holds"),
        ([one(1.0), one(1.0, "control")], "holds"),
        ([one(1.0), one(0.05, "control")], "holds in part"),
        ([one(1.0), one(-1.0)], "holds in part"),
        ([one(1.0), one(None, "control")], "holds in part"),
        ([one(0.05), one(1.0, "control")], "not shown here"),
        ([one(0.05), one(-1.0, "control")], "not shown here"),
        ([one(-1.0)], "does not hold here"),
        ([one(0.05), one(-1.0)], "does not hold here"),
        ([one(0.05), one(None, "control")], "not shown here"),
        ([one(0.05), one(None)], "not measured yet"),
        ([one(None)], "not measured yet"),
    ],
)
def test_the_rule_reaches_each_verdict(tests: list[Test], verdict: str) -> None:
    assert judge(tests).verdict == verdict


def test_every_difference_that_a_claim_asks_for_is_one_that_its_table_makes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def difference(
        _: Results, table: str, question: str, row: str, training: str, minus: str, other: str = ""
    ) -> Measure:
        asked.append((table, (question, row, training, minus, other or training)))
        return MISSING

    monkeypatch.setattr(Results, "difference", difference)
    for claim in SCORE_CLAIMS:
        claim.tests(Results(tmp_path))
    assert len(asked) > 20
    for table, wanted in asked:
        assert wanted in TABLES[table].compared


def test_what_cannot_be_tested_says_why() -> None:
    found = judge([], untestable="It takes listeners.")
    assert (found.verdict, found.why) == ("cannot be tested here", "It takes listeners.")
    with pytest.raises(ValueError, match="controls alone prove nothing"):
        judge([one(1.0, "control")])


def test_one_seed_is_said_and_several_are_not() -> None:
    assert judge([one(1.0)]).words == "holds (one seed)"
    assert judge([one(1.0, seeds=3)]).words == "holds"
    assert judge([one(1.0, seeds=3), one(1.0)]).words == "holds (one seed)"
    assert judge([one(None)]).words == "not measured yet"


def test_the_reason_tells_open_from_opposite() -> None:
    why = judge([one(1.0), one(0.05), one(-1.0), one(None)]).why
    assert why == (
        "Shown: effect 1.0; not shown: effect 0.05; the opposite is shown of: effect -1.0; "
        "not measured yet: effect None."
    )


def test_the_mean_over_layers_is_cautious() -> None:
    rows = [measure(1.0, 0.1), measure(2.0, 0.3)]
    found = over_layers(rows)
    assert (found.mean, found.low, found.high) == pytest.approx((1.5, 1.3, 1.7))
    assert not over_layers([measure(1.0), MISSING]).known
    assert not over_layers([]).known


def test_several_seeds_give_students_interval() -> None:
    values = [0.4, 0.5, 0.7]
    found = over_seeds({seed: measure(value) for seed, value in enumerate(values)})
    interval = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(interval)
    assert (found.seeds, found.values) == (3, dict(enumerate(values)))
    alone = over_seeds({0: measure(0.4, 0.2), 1: MISSING})
    assert (alone.low, alone.high, alone.seeds) == pytest.approx((0.2, 0.6, 1))


def seeds(*values: float) -> Measure:
    return over_seeds({seed: measure(value) for seed, value in enumerate(values)})


def test_differences_of_one_seed_square_and_add_of_other_seeds_are_welchs() -> None:
    a, b = measure(1.0, 0.3), measure(0.2, 0.4)
    found = a - b
    assert (found.mean, found.low, found.high) == pytest.approx((0.8, 0.3, 1.3))
    first, second = [0.9, 1.0, 1.2], [0.1, 0.4]
    found = seeds(*first) - seeds(*second)
    gap = np.mean(first) - np.mean(second)
    var = [np.var(side, ddof=1) / len(side) for side in (first, second)]
    freedom = sum(var) ** 2 / sum(
        v**2 / (len(s) - 1) for v, s in zip(var, (first, second), strict=True)
    )
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(var))
    assert (found.mean, found.low, found.high) == pytest.approx((gap, gap - half, gap + half))
    assert found.seeds == 2
    assert not (a - MISSING).known
    assert not (MISSING - seeds(*first)).known


def test_the_same_seeds_are_paired_and_so_are_differences_of_differences() -> None:
    first, then, last = (0.9, 0.92, 0.99), (0.6, 0.64, 0.61), (0.5, 0.45, 0.4)
    fall = seeds(*first) - seeds(*then)
    expected = stats.ttest_rel(first, then).confidence_interval(0.95)
    assert (fall.low, fall.high) == pytest.approx(expected)
    both = fall - seeds(*last)
    gaps = np.subtract(first, then)
    expected = stats.ttest_rel(gaps, last).confidence_interval(0.95)
    assert (both.low, both.high, both.seeds) == pytest.approx((*expected, 3))
    nothing = fall - fall
    assert (nothing.low, nothing.mean, nothing.high) == (0.0, 0.0, 0.0)


def test_between_its_layers_each_seed_is_compared_with_itself(tmp_path: Path) -> None:
    levels, falls = [0.5, 0.7, 0.9], [0.20, 0.21, 0.22]
    rows = tuple(
        Row(network=f"c{seed}", regime="contrastive", seed=seed, layer=layer, quantity="coherence",
            mean=mean, low=mean - 0.01, high=mean + 0.01, clips=40)
        for seed, (level, fall) in enumerate(zip(levels, falls, strict=True))
        for layer, mean in ((1, level), (2, level - fall))
    )  # fmt: skip
    data = Measured(dataset="made up", split="all", size=40, clips=40, skipped={})
    table = CoherenceResult(data=data, networks={}, settings={}, rows=rows)
    table.write(tmp_path / "figure-7.json")
    results = Results(tmp_path)
    found = results.means("figure-7", "coherence", (1,), less=(2,))["contrastive"]
    half = stats.t.ppf(0.975, 2) * np.std(falls, ddof=1) / np.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.21 - half, 0.21 + half))
    assert found.values == pytest.approx(dict(enumerate(falls)))


def test_signs_and_sizes() -> None:
    a = measure(-1.0, 0.3)
    assert -a == measure(1.0, 0.3)
    assert abs(a) == measure(1.0, 0.3)
    across = abs(measure(-0.1, 0.3))
    assert (across.low, across.high) == pytest.approx((0.0, 0.4))
    sizes = abs(seeds(-1.0, 2.0, 3.0))
    assert sizes.values == {0: 1.0, 1: 2.0, 2: 3.0}
    assert sizes.mean == 2.0
    assert (measure(1.0) - 0.99).mean == pytest.approx(0.01)
    assert not Measure.of(Estimate(mean=0.3, low=None, high=None, clips=1)).known


def test_a_regime_is_what_rows_say_and_not_a_name(tmp_path: Path) -> None:
    networks = [
        ("contrastive", "contrastive", 0, 1.0), ("contrastive-1", "contrastive", 1, 3.0),
        ("contrastive-plain", "contrastive, not normalised", 0, 9.0),
        ("esc40-supervised", "supervised", 0, 5.0), ("supervised", "supervised, esc50", 0, 9.0),
        ("random weights", "random", 0, 7.0), ("random weights-1", "random", 1, 9.0),
    ]  # fmt: skip
    rows = tuple(
        Row(network=name, regime=regime, seed=seed, layer=1, quantity="coherence",
            mean=mean, low=mean - 0.1, high=mean + 0.1, clips=40)
        for name, regime, seed, mean in networks
    )  # fmt: skip
    data = Measured(dataset="made up", split="all", size=40, clips=40, skipped={})
    table = CoherenceResult(data=data, networks={}, settings={}, rows=rows)
    table.write(tmp_path / "figure-7.json")
    found = Results(tmp_path).means("figure-7", "coherence", (1,))
    assert not found["centred random"].known
    regimes = ("contrastive", "supervised", "random")
    means = {regime: (found[regime].mean, found[regime].seeds) for regime in regimes}
    assert means == {"contrastive": (2.0, 2), "supervised": (5.0, 1), "random": (8.0, 2)}


def coherence(path: Path, **deep: float) -> None:
    """Figure 7, made up: coherence falls from 0.9 to a network's own value at the top."""
    CoherenceResult(
        data=Measured(dataset="made up", split="all", size=40, clips=40, skipped={}),
        networks={},
        settings={"k": 5},
        rows=tuple(
            Row(network=regime, regime=regime, seed=0, layer=layer, quantity="coherence",
                mean=mean, low=mean - 0.01, high=mean + 0.01, clips=40)
            for regime, value in deep.items()
            for layer, mean in enumerate(np.linspace(0.9, value, 11).tolist(), start=1)
        ),
    ).write(path / "figure-7.json")  # fmt: skip


NAMES = ("supervised", "contrastive", "random", "centred random")


@pytest.mark.parametrize(
    ("deep", "verdict"),
    [
        ((0.3, 0.7, 0.5, 0.5), "holds"),
        ((0.6, 0.7, 0.5, 0.7), "holds in part"),
        ((0.4, 0.7, 0.5, 0.3), "holds in part"),
        ((0.7, 0.3, 0.5, 0.5), "does not hold here"),
    ],
)
def test_a_claim_follows_its_results(tmp_path: Path, deep: tuple[float, ...], verdict: str) -> None:
    coherence(tmp_path, **dict(zip(NAMES, deep, strict=True)))
    found = {claim.name: claim for claim in judge_claims(tmp_path)}
    assert found["coherence-decay"].judgement.verdict == verdict
    assert found["coherence-decay"].judgement.words == f"{verdict} (one seed)"
    assert found["strided"].judgement.verdict == "not measured yet"
    assert found["shift"].judgement.verdict == "not measured yet"
    words = measured_in_words(found["coherence-decay"])
    assert words.endswith("of 4 tests pass")
    alt = claim_figure(found["coherence-decay"]).alt
    assert words.split(" [")[0] in alt
    with pytest.raises(ValueError, match="Nothing was measured"):
        claim_figure(found["shift"])


def test_a_missing_network_is_not_measured_yet(tmp_path: Path) -> None:
    coherence(tmp_path, contrastive=0.5, **{"random weights": 0.4, "centred random": 0.4})
    found = {claim.name: claim for claim in judge_claims(tmp_path)}
    assert found["coherence-decay"].judgement.verdict == "not measured yet"
    falls = found["coherence-falls"]
    assert falls.judgement.verdict == "holds in part"
    assert "not measured yet: supervised" in falls.judgement.why


def test_claims_are_written_as_they_are_judged(tmp_path: Path) -> None:
    write_claims(tmp_path, command="a test")
    content = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))
    assert content.pop("provenance")["command"] == "a test"
    assert content == json.loads(json.dumps(claims_content(tmp_path)))
    verdicts = content["verdicts"]
    untestable = sum(bool(claim.untestable) for claim in CLAIMS)
    assert verdicts.get("cannot be tested here", 0) == untestable
    assert sum(verdicts.values()) == len(CLAIMS) >= 20


def test_every_claim_has_a_chapter_and_its_own_name() -> None:
    book = Path(__file__).parents[2] / "book"
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert (book / f"{claim.chapter}.ipynb").exists(), claim.name
    html = claims_table(judge_claims(book))._repr_html_()
    assert all(f'href="{claim.chapter}.html"' in html for claim in CLAIMS)
