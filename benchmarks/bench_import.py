"""What `import sonibook` and all its names cost beyond `import torch`, in fresh processes.

`sonibook` loads a name when it is first asked for: so `import` alone costs next to nothing, and
what is timed here asks for them all.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from timing import write

REPEATS = 5
STATEMENTS = {
    "import torch": "import torch",
    "import sonibook": "import torch, sonibook",
    "from sonibook import *": "import torch; from sonibook import *",
}
_TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def importing(statement: str) -> float:
    """Seconds that a statement takes in a process of its own."""
    run = [sys.executable, "-c", _TIMED.format(statement)]
    return float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure, print and write."""
    rounds = [{name: importing(s) for name, s in STATEMENTS.items()} for _ in range(REPEATS)]
    medians = {name: statistics.median(r[name] for r in rounds) for name in STATEMENTS}
    beyond = {
        name: statistics.median(r[name] - r["import torch"] for r in rounds)
        for name in list(STATEMENTS)[1:]
    }
    for name, seconds in beyond.items():
        print(f"{name}: {1e3 * seconds:.0f} ms beyond import torch")
    write("bench-import", {"seconds": medians, "beyond_torch": beyond})


if __name__ == "__main__":
    main()
