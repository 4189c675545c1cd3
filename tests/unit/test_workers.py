"""Processes that compute for another: what becomes of them when that one is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sonibook.analysis import workers

SCRIPT = """
import os, sys, time
from workers import in_order

def work(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()

if __name__ == "__main__":
    for process in in_order(work, [(number,) for number in range(100_000)], 2):
        print(process, flush=True)
"""


def alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_no_process_outlives_the_one_that_it_works_for(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    shutil.copy(workers.__file__, tmp_path)  # alone: the library would be imported three times
    found: set[int] = set()
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        while len(found) < 2:
            found.add(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while any(map(alive, found)) and time.monotonic() < until:
        time.sleep(0.05)
    left = [process for process in found if alive(process)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left
