"""The rule of the claims, the arithmetic of intervals, and claims on made-up results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sonibook.analysis.result import Estimate, MeasuredOn, ResultTable, Row
from sonibook.plots.claims import claim_figure, claims_table
from sonibook.replication import verdict as rule
from sonibook.replication.benchmarks import UNTRAINED
from sonibook.replication.claims_scores import SCORE_CLAIMS, probe_gains
from sonibook.replication.paper import TABLES
from sonibook.replication.results import (
    MISSING,
    Measure,
    Results,
    Test,
    control,
    effect,
    over_layers,
    over_seeds,
)
from sonibook.replication.verdict import (
    CLAIMS,
    claims_content,
    freeze,
    frozen_list,
    judge,
    judge_claims,
    write_claims,
)

RESULTS = Path(__file__).parents[2] / "data" / "results"


def measure(mean: float, half: float = 0.1, **changes) -> Measure:
    given = {"mean": mean, "low": mean - half, "high": mean + half, "clips": 40}
    return Measure.model_validate(given | changes)


def one(mean: float | None, kind: str = "effect", **changes) -> Test:
    found = MISSING if mean is None else measure(mean, **changes)
    return (effect if kind == "effect" else control)(f"{kind} {mean}", found, unit="Hz")


def write_rows(path: Path, rows: tuple[Row, ...]) -> None:
    data = MeasuredOn(dataset="made up", split="all", size=40, clips=40, skipped={})
    ResultTable(analysis="a", data=data, networks={}, settings={}, rows=rows).write(path)


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


def test_one_counterexample_refutes_a_universal_claim() -> None:
    assert judge([one(1.0), one(-1.0)], universal=True).verdict == "does not hold here"
    # That a control is the other way round is not a counterexample; nor is what is open.
    assert judge([one(1.0), one(-1.0, "control")], universal=True).verdict == "holds in part"
    assert judge([one(1.0), one(0.05)], universal=True).verdict == "holds in part"


def test_a_p_value_is_below_its_level_just_where_the_interval_excludes_zero() -> None:
    draw = np.random.default_rng(0)
    for values in draw.normal(0.6, 1.0, (40, 4)):
        several = over_seeds({seed: measure(value) for seed, value in enumerate(values)})
        assert several.p == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
        assert (several.p < 0.05) == (several.low > 0 or several.high < 0)
    alone = measure(0.3, 0.2)
    assert alone.p == pytest.approx(2 * stats.norm.sf(1.5 * stats.norm.ppf(0.975)))
    assert measure(0.0, 0.2).p == 1.0
    assert 0 < Measure(mean=1.0, low=1.0, high=1.0, clips=3).p < 1e-99


def test_what_qualifies_a_verdict_is_in_its_words() -> None:
    turned = judge([one(1.0, seeds=3), one(-1.0, "control", seeds=3)])
    assert turned.words == "holds in part (the opposite is shown of 1 of its 2 tests)"
    # Of twenty tests the one that passes has p = .04, which Holm's method makes .8.
    barely = Test(
        says="", kind="effect", unit="", file="", p=0.04,
        measure=Measure(mean=1.0, low=0.01, high=2.0, clips=9, seeds=3),
    )  # fmt: skip
    assert judge([barely]).corrected
    among = judge([barely, *[one(0.05, seeds=3) for _ in range(19)]])
    assert not among.corrected
    assert among.words == "holds in part (no longer once the number of its tests is corrected for)"


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
    write_rows(tmp_path / "figure-7.json", rows)
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
        ("supervised-esc40", "supervised", 0, 5.0), ("supervised", "supervised, esc50", 0, 9.0),
        ("random weights", "random", 0, 7.0), ("random weights-1", "random", 1, 9.0),
    ]  # fmt: skip
    rows = tuple(
        Row(network=name, regime=regime, seed=seed, layer=1, quantity="coherence",
            mean=mean, low=mean - 0.1, high=mean + 0.1, clips=40)
        for name, regime, seed, mean in networks
    )  # fmt: skip
    write_rows(tmp_path / "figure-7.json", rows)
    found = Results(tmp_path).means("figure-7", "coherence", (1,))
    assert not found["centred random"].known
    regimes = ("contrastive", "supervised", "random")
    means = {regime: (found[regime].mean, found[regime].seeds) for regime in regimes}
    assert means == {"contrastive": (2.0, 2), "supervised": (5.0, 1), "random": (8.0, 2)}


def test_intervals_over_networks_and_recordings_cover_what_both_were_drawn_from() -> None:
    rng, covered = np.random.default_rng(0), {True: 0, False: 0}
    for _ in range(400):
        heard = rng.normal(0.0, 1.0, 30)  # how far each clip is off, for every network alike
        networks = {}
        for seed, own in enumerate(rng.normal(0.0, 0.1, 5)):
            clips = own + heard + rng.normal(0.0, 0.3, 30)
            half = 1.96 * clips.std(ddof=1) / 30**0.5
            mean = clips.mean()
            networks[seed] = Measure(mean=mean, low=mean - half, high=mean + half, clips=30)
        for recordings in covered:
            found = over_seeds(networks, recordings=recordings)
            covered[recordings] += found.low <= 0 <= found.high
    assert covered[True] >= 0.92 * 400
    assert covered[False] < 0.8 * 400  # of these clips alone


def test_a_difference_is_widened_by_the_clips_of_both() -> None:
    one = {seed: measure(0.5 + seed / 100, 0.1) for seed in range(3)}
    two = {seed: measure(0.2, 0.1) for seed in range(3)}
    plain, crossed = (
        over_seeds(one, recordings=of) - over_seeds(two, recordings=of) for of in (False, True)
    )
    assert crossed.mean == plain.mean
    error = np.hypot(plain.high - plain.mean, np.hypot(0.1, 0.1))
    assert crossed.high - crossed.mean == pytest.approx(error)
    assert (-crossed).high - (-crossed).mean == pytest.approx(error)
    assert abs(crossed).low == pytest.approx(crossed.low)


def test_a_verdict_may_owe_to_the_kind_of_probe(tmp_path: Path) -> None:
    def figure(name: str, condition: str, **regimes: float) -> None:
        rows = tuple(
            Row(network=f"{regime}{seed}", regime=regime, seed=seed, layer=layer, clips=40,
                quantity="accuracy", condition=condition, mean=mean + seed / 100, low=0.0, high=1.0)
            for regime, mean in regimes.items()
            for seed in range(3)
            for layer in range(1, 12)
        )  # fmt: skip
        write_rows(tmp_path / f"figure-4-in-domain{name}.json", rows)

    untrained = {"random": 0.4, "centred random": 0.3}
    figure("", "probe", supervised=0.8, contrastive=0.6, **untrained)
    figure("-ridge", "ridge probe", supervised=0.6, contrastive=0.8, **untrained)
    verdicts = [
        next(one.judgement.verdict for one in judged if one.name == "deep-supervised")
        for judged in (judge_claims(tmp_path), judge_claims(tmp_path, probe="ridge"))
    ]
    assert verdicts == ["holds", "does not hold here"]
    gains = probe_gains(tmp_path)
    assert len(gains) == 2 * 2 * 2
    for gain in gains:
        best = (gain["network"] == "supervised") == (gain["probe"] == "logistic")
        above = [gain[f"above {name}"].mean for name in UNTRAINED.values()]
        assert above == pytest.approx([0.4, 0.5] if best else [0.2, 0.3])
        assert gain["accuracy"].mean == pytest.approx(0.81 if best else 0.61)


def test_figure_1_is_judged_by_drawn_filters_too(tmp_path: Path) -> None:
    centroids = {
        "supervised": 500.0,
        "contrastive": 700.0,
        "random": 400.0,
        "centred random": 300.0,
    }
    rows = tuple(
        Row(network=f"{regime}{seed}", regime=regime, seed=seed, layer=layer, clips=40,
            quantity="centroid", condition=condition, mean=sign * hertz + seed,
            low=sign * hertz - 9, high=sign * hertz + 9)
        for condition, sign in (("", -1), ("drawn", 1))
        for regime, hertz in centroids.items()
        for seed in range(3)
        for layer in (8, 9)
    )  # fmt: skip
    write_rows(tmp_path / "figure-1.json", rows)
    verdicts = [
        next(one.judgement.verdict for one in judged if one.name == "high-bins")
        for judged in (judge_claims(tmp_path), judge_claims(tmp_path, drawn=True))
    ]
    assert verdicts == ["does not hold here", "holds"]


def coherence(path: Path, **deep: float) -> None:
    """Figure 7, made up: coherence falls from 0.9 to a network's own value at the top."""
    rows = tuple(
        Row(network=regime, regime=regime, seed=0, layer=layer, quantity="coherence",
            mean=mean, low=mean - 0.01, high=mean + 0.01, clips=40)
        for regime, value in deep.items()
        for layer, mean in enumerate(np.linspace(0.9, value, 11).tolist(), start=1)
    )  # fmt: skip
    write_rows(path / "figure-7.json", rows)


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
    assert found["coherence-decay"].judgement.words.startswith(f"{verdict} (one seed")
    assert found["strided"].judgement.verdict == "not measured yet"
    assert found["shift"].judgement.verdict == "not measured yet"
    _, row = str(claims_table([found["coherence-decay"]])).splitlines()
    words = re.split(r" {2,}", row.strip())[3]
    passed = sum(test.passes for test in found["coherence-decay"].tests)
    assert f"; {passed} of 4 tests pass" in words
    assert words.endswith(" after correction") == (passed > 0)
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
    assert content["frozen"] is None


def test_corrected_p_values_are_those_of_all_that_was_measured() -> None:
    content = claims_content(RESULTS)
    tests = [test for claim in content["claims"] for test in claim["tests"]]
    known = [test for test in tests if test["p"] is not None]
    assert len(known) == content["tests"]["measured"] > 100
    # Benjamini and Hochberg's largest rank by hand: the corrected count is that rank, at most.
    p = np.sort([test["p"] for test in known])
    ranks = np.flatnonzero(p <= 0.05 * np.arange(1, len(p) + 1) / len(p))
    significant = sum(test["p_all"] < 0.05 for test in known)
    assert significant == (ranks[-1] + 1 if len(ranks) else 0)
    for claim in content["claims"]:
        own = [test for test in claim["tests"] if test["p"] is not None]
        if own:
            least = min(own, key=lambda test: test["p"])
            assert least["p_claim"] == pytest.approx(min(1.0, least["p"] * len(own)))
    counts = content["tests"]
    assert counts["passed"] >= counts["passed, corrected over all claims"] > 0


def test_what_is_frozen_is_the_list_and_not_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = frozen_list()
    for claim, kept in zip(CLAIMS, listed[1:], strict=True):
        asked = [(test.says, test.kind) for test in claim.tests(Results(RESULTS))]
        assert asked == [(test["says"], test["kind"]) for test in kept["tests"]], claim.name
    freeze(tmp_path, command="a test")
    assert claims_content(tmp_path)["frozen"]["unchanged"]
    monkeypatch.setattr(rule, "CLAIMS", CLAIMS[1:])
    assert not claims_content(tmp_path)["frozen"]["unchanged"]


def test_every_claim_has_a_chapter_and_its_own_name() -> None:
    book = Path(__file__).parents[2] / "book"
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert (book / f"{claim.chapter}.ipynb").exists(), claim.name
    html = claims_table(judge_claims(book))._repr_html_()
    assert all(f'href="{claim.chapter}.html"' in html for claim in CLAIMS)
