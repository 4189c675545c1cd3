"""A few faults of each kind; ``make faults`` does twenty, and its counts are in data/results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).parents[1] / "faults.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes, which Windows cannot")
def test_nothing_is_lost_by_a_fault_at_a_random_moment(tmp_path):
    out = tmp_path / "faults.json"
    done = subprocess.run(
        # A worker that dies is in test_analysis_stream.py.
        [sys.executable, FAULTS, "--times", "1", "--seed", "7", "--out", out,
         "--faults", "kill", "interrupt", "full", "gone", "readonly"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = json.loads(out.read_text("utf-8"))["jobs"]
    assert set(jobs) == {"training", "packing", "analysis"}
    for faults in jobs.values():
        for counts in faults.values():
            if isinstance(counts, str):
                assert "cannot be mounted" in counts
            else:
                assert counts["met"] == 1
                assert counts["defects"] == []
                assert counts["resumed_identical"] == counts["trials"]
