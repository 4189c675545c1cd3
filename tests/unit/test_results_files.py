"""What is committed in data/results is what the code makes of it, and says where it is from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sonibook.files import provenance
from sonibook.replication.paper import TABLES
from sonibook.replication.tables import assemble
from sonibook.replication.trials import TrialFile
from sonibook.replication.verdict import claims_content

RESULTS = Path(__file__).parents[2] / "data" / "results"
FILES = sorted(RESULTS.glob("*.json"))


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
    assert {key: kept.before[key] for key in again} == again
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
