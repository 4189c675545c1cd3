"""What a result says of how it was made."""

from __future__ import annotations

import pytest

from sonibook.provenance import provenance


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
