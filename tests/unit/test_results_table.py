"""Tables against naive formulas, and committed results against what the code makes of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sonibook.errors import AnalysisError
from sonibook.files import provenance, write_result
from sonibook.metrics import crossed_interval, wilson_interval
from sonibook.plots.claims import paper_tables
from sonibook.replication.paper import REPORTED, TABLES
from sonibook.replication.tables import assemble, difference, table_rows
from sonibook.replication.trials import Trial, TrialFile
from sonibook.replication.verdict import claims_content

QUESTION = "esc10, five folds"
PAIR = (QUESTION, "contrastive", "linear probe", "random", "linear probe")
RESULTS = Path(__file__).parents[2] / "data" / "results"
FILES = sorted(RESULTS.glob("*.json"))


def bits(seed: int, share: float, count: int = 20) -> str:
    rng = np.random.default_rng(seed)
    return "".join("1" if one else "0" for one in rng.uniform(size=count) < share)


def trial(row: str, seed: int, fold: int, right: str, **changes) -> Trial:
    given = {
        "key": f"{row}-{seed}-{fold}-{changes.get('training', '')}",
        "row": row,
        "network": f"{row}-{seed}",
        "seed": seed,
        "question": QUESTION,
        "training": "linear probe",
        "tested": f"fold {fold}",
        "clips": len(right),
        "metrics": {"accuracy": right.count("1") / len(right)},
        "right": right,
        "settings": {},
    }
    return Trial.model_validate(given | changes)


def trials_of(row: str, seeds: tuple[int, ...], share: float, folds: int = 5) -> list[Trial]:
    return [
        trial(row, seed, fold, bits(100 * seed + fold + hash_of(row), share, 20 + fold))
        for seed in seeds
        for fold in range(1, folds + 1)
    ]


def hash_of(row: str) -> int:
    return sum(map(ord, row))


def test_a_rows_mean_is_over_all_clips_and_its_interval_over_seeds() -> None:
    trials = trials_of("contrastive", (0, 1, 2), 0.7)
    (row,) = table_rows(trials)
    shares = [
        np.mean([float(bit) for one in trials if one.seed == seed for bit in one.right])
        for seed in (0, 1, 2)
    ]
    half = stats.t.ppf(0.975, 2) * np.std(shares, ddof=1) / np.sqrt(3)
    found = row.metrics["accuracy"]
    assert found.mean == pytest.approx(np.mean(shares))
    assert (found.low, found.high) == pytest.approx(
        (np.mean(shares) - half, np.mean(shares) + half)
    )
    assert (found.over, row.seeds, row.parts, row.clips) == ("seeds", (0, 1, 2), 5, 115)
    assert list(found.values.values()) == pytest.approx(shares)


def test_one_seeds_interval_is_over_folds_and_one_parts_over_clips() -> None:
    trials = trials_of("contrastive", (0,), 0.7)
    found = table_rows(trials)[0].metrics["accuracy"]
    values = [one.metrics["accuracy"] for one in trials]
    half = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) / np.sqrt(5)
    assert found.over == "folds"
    assert found.high - found.low == pytest.approx(2 * half)

    (alone,) = table_rows([trial("random", 0, 5, "1" * 15 + "0" * 5)])
    found = alone.metrics["accuracy"]
    assert found.over == "clips"
    assert (found.low, found.high) == pytest.approx(wilson_interval(15, 20))


def test_a_seed_that_lacks_a_fold_is_left_out() -> None:
    trials = [*trials_of("contrastive", (0, 1), 0.7), *trials_of("contrastive", (2,), 0.7, folds=3)]
    assert table_rows(trials)[0].seeds == (0, 1)


def test_rows_of_two_questions_or_trainings_are_apart() -> None:
    trials = [
        trial("random", 0, 1, "1100"),
        trial("random", 0, 1, "1111", training="full"),
        trial("random", 0, 1, "0000", question="fsdd, its own split"),
    ]
    assert [row.metrics["accuracy"].mean for row in table_rows(trials)] == [0.5, 1.0, 0.0]


def recordings(folds: int = 5) -> dict[str, list[str]]:
    """Two clips of each recording."""
    return {
        f"{QUESTION}: fold {fold}": [f"{fold}-{number // 2}" for number in range(20 + fold)]
        for fold in range(1, folds + 1)
    }


@pytest.mark.parametrize("others", [(0, 1), (0, 1, 2)])
def test_a_difference_is_over_recordings_and_seeds(others: tuple[int, ...]) -> None:
    trials = [*trials_of("contrastive", (0, 1), 0.8), *trials_of("random", others, 0.5)]
    found = difference(trials, PAIR, recordings())
    assert found is not None
    first, second = (
        np.array(
            [
                [float(bit) for one in trials if (one.row, one.seed) == (row, seed)
                 for bit in one.right]
                for seed in seeds
            ]
        )
        for row, seeds in (("contrastive", (0, 1)), ("random", others))
    )  # fmt: skip
    assert found.mean == pytest.approx(first.mean() - second.mean())
    names = [name for own in recordings().values() for name in own]
    expected = crossed_interval(first, second, names, paired=len(others) == 2)
    assert (found.low, found.high) == expected
    assert (found.clips, found.recordings) == (115, len(set(names)))
    assert (found.seeds, found.minus_seeds) == ((0, 1), others)


def test_over_one_factor_the_interval_is_students() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 1, 30))
    names = [f"{number}" for number in range(30)]
    clips = stats.ttest_rel(first[0], second[0]).confidence_interval(0.95)
    assert crossed_interval(first, second, names, paired=True) == pytest.approx(clips)
    seeds, others = rng.normal(size=(3, 1)), rng.normal(size=(3, 1))
    sides = [side.repeat(30, axis=1) for side in (seeds, others)]  # clips do not matter
    paired = stats.ttest_rel(seeds[:, 0], others[:, 0]).confidence_interval(0.95)
    assert crossed_interval(*sides, names, paired=True) == pytest.approx(paired)
    welch = stats.ttest_ind(seeds[:, 0], others[:, 0], equal_var=False).confidence_interval(0.95)
    assert crossed_interval(*sides, names, paired=False) == pytest.approx(welch)


@pytest.mark.parametrize(("groups", "seeds"), [(100, 3), (6, 3), (100, 1)])
def test_the_interval_covers_what_it_says(groups: int, seeds: int) -> None:
    rng, covered, trials = np.random.default_rng(1), 0, 400
    names = [f"{number // 4}" for number in range(4 * groups)]
    for _ in range(trials):
        of_seeds = 0.05 * (seeds > 1) * rng.normal(size=(2, seeds, 1))
        of_recordings = 0.3 * rng.normal(size=groups).repeat(4)
        first, second = of_seeds + 0.3 * rng.normal(size=(2, seeds, 4 * groups))
        low, high = crossed_interval(first + of_recordings, second, names, paired=True)
        covered += low < 0 < high
    # Four standard errors of 400 trials below 95 %. Above it the interval is only cautious.
    assert covered / trials > 0.95 - 4 * np.sqrt(0.95 * 0.05 / trials)


def test_what_belongs_together_gives_a_wider_interval() -> None:
    rng = np.random.default_rng(0)
    first = np.repeat(rng.uniform(size=(1, 40)) < 0.5, 5, axis=1).astype(float)
    second = np.full_like(first, 0.5)
    together = crossed_interval(
        first, second, [f"{number // 5}" for number in range(200)], paired=True
    )
    apart = crossed_interval(first, second, [f"{number}" for number in range(200)], paired=True)
    assert np.ptp(together) > 1.7 * np.ptp(apart)


def test_no_difference_without_both_rows() -> None:
    trials = trials_of("contrastive", (0,), 0.7)
    assert difference(trials, PAIR, recordings()) is None
    both = [trial("contrastive", 0, 1, "1101"), trial("random", 0, 1, "1001")]
    one = {f"{QUESTION}: fold 1": ["the same recording"] * 4}
    assert difference(both, PAIR, one) is None


def made(kept: TrialFile) -> TrialFile:
    kept.parts = recordings()
    for one in (*trials_of("contrastive", (0,), 0.9), *trials_of("random", (0, 1), 0.4)):
        kept.add(one)
    return kept


def test_a_tables_file_is_its_own_memory(tmp_path: Path) -> None:
    path = tmp_path / "table-a4.json"
    kept = made(TrialFile(path, {"command": "made up", "created": "then", "commit": "0"}))
    write_result(path, {**assemble(TABLES["table-a4"], kept), **kept.content()})
    again = TrialFile(path)
    assert len(again.trials) == len(kept.trials)
    assert again.known == {one.key for one in kept.trials}
    assert again.content() == kept.content()
    # The same place, measured with another network: the old trial gives way.
    again.add(trial("random", 0, 1, "1" * 21, key="new"))
    assert len(again.trials) == len(kept.trials)
    assert "new" in again.known
    # Of networks that are no longer there, by name and seed, and of others under their names.
    again.add(trial("none", 0, 1, "1" * 21, network="none"))
    again.forget({("contrastive-0", 0), ("random-1", 0)})
    assert {one.network for one in again.trials} == {"contrastive-0", "none"}


def test_a_table_says_what_it_lacks_and_shows_the_papers_numbers(tmp_path: Path) -> None:
    kept = made(TrialFile(tmp_path / "table-a4.json"))
    content = json.loads(json.dumps(assemble(TABLES["table-a4"], kept)))
    assert [QUESTION, "supervised", "linear probe"] in content["not_measured_yet"]
    assert [QUESTION, "contrastive", "linear probe"] not in content["not_measured_yet"]
    (one,) = content["differences"]
    assert (one["row"], one["minus"]) == ("contrastive", "random")
    assert one["low"] > 0
    text, differences = map(str, paper_tables(content))
    assert "0.424 ± 0.004" in text  # table A.4, contrastive, full
    assert text.count("not measured yet") == len(content["not_measured_yet"])
    assert "yes" in differences


def test_another_publications_figure_stands_in_a_row_of_its_own(tmp_path: Path) -> None:
    kept = TrialFile(tmp_path / "esc50-folds.json")
    kept.add(trial("none", 0, 5, bits(0, 0.5), question="esc50, five folds", training="full"))
    (text,) = map(str, paper_tables(json.loads(json.dumps(assemble(TABLES["esc50-folds"], kept)))))
    assert re.search(r"EnvNet[^\n]* 44\.1 kHz .*0\.640 .*Tokozume and Harada 2017", text)


def test_a_file_without_cells_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(AnalysisError, match="holds no table of trials"):
        TrialFile(tmp_path / "x.json")


def test_every_row_of_the_paper_has_a_place() -> None:
    """Whatever the paper reports and is measured here stands in the same row."""
    for name in ("table-a1", "table-a2", "table-a4", "table-a6"):
        spec = TABLES[name]
        wanted = {(row, training) for _, row, training in spec.wanted}
        for one in REPORTED[spec.table]:
            if "x2" not in one.row or name == "table-a1":
                assert (one.row, one.training) in wanted, (name, one.row, one.training)


def test_the_papers_numbers_are_those_of_the_configurations() -> None:
    """The first lines of configs/paper say them, too: two transcripts, held against each other."""
    folder = Path(__file__).parents[2] / "configs" / "paper"
    for stem, (table, row, training) in {
        "a1-cnn12-noise-fc": ("A.1", "+ noise", "fc-only"),
        "a1-cnn12-tau03-full": ("A.1", "all, tau 0.3", "full"),
        "a2-cnn12-contrastive-full": ("A.2", "contrastive", "full"),
        "a4-cnn12-scratch": ("A.4", "none", "full"),
        "a4-cnn12-supervised-fc": ("A.4", "supervised", "fc-only"),
        "a4-cnn12x2-contrastive-fc": ("A.4", "contrastive, CNN12_x2", "fc-only"),
    }.items():
        head = (folder / f"{stem}.yaml").read_text(encoding="utf-8").split("\nname:")[0]
        (one,) = (r for r in REPORTED[table] if (r.row, r.training) == (row, training))
        for mean, half in one.metrics.values():
            assert f"{mean:.3f} ± {half:.3f}" in head.replace("\n# ", " "), stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_results_file_names_what_made_it(path: Path) -> None:
    made = json.loads(path.read_text(encoding="utf-8"))["provenance"]
    assert made["command"]
    assert {"sonibook", "torch", "numpy"} <= made["versions"].keys()
    assert re.fullmatch(r"[0-9a-f]{12}", made["commit"]), "made by code that was not committed"


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_is_what_its_cells_make(name: str) -> None:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{name} was not measured yet")
    kept = TrialFile(path)
    again = json.loads(json.dumps(assemble(TABLES[name], kept)))
    # Rounded: Python 3.12 and newer add numbers up more exactly.
    assert rounded({key: kept.before[key] for key in again}) == rounded(again)
    for trial in kept.trials:
        assert kept.made[trial.made]["commit"]
        assert kept.made[trial.made]["profile"] in ("quick", "frozen", "full")
        if trial.right is not None:
            assert len(trial.right) == trial.clips
            assert trial.metrics["accuracy"] == pytest.approx(trial.right.count("1") / trial.clips)


def test_claims_are_what_the_code_makes_of_the_results() -> None:
    path = RESULTS / "claims.json"
    if not path.exists():
        pytest.skip("the claims were not judged yet")
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["provenance"]
    again = json.loads(json.dumps(claims_content(RESULTS)))
    assert rounded(content) == rounded(again)


def rounded(value: object) -> object:
    """With floats to nine digits: sums differ in their last ones from machine to machine."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("/somewhere/ann/runs/mine", "mine"),
        ("--out=/somewhere/ann/runs/mine", "--out=mine"),
        ("runs/mine", "runs/mine"),
        ("--out=runs/mine", "--out=runs/mine"),
        ("seed=1", "seed=1"),
        ("/", "/"),
    ],
)
def test_a_command_tells_nothing_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, argument: str, said: str
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/sonibook", "train", argument])
    assert provenance()["command"] == f"sonibook train {said}"
