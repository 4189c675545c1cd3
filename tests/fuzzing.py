"""Fuzz every reader, guided by coverage: ``python tests/fuzzing.py --seconds 60``.

Each reader gets a process of its own, in which libFuzzer (by way of atheris, the extra ``fuzz``)
damages what it reads, keeps what reaches new branches of sonibook, PyYAML and the standard
library's archives, and damages that further. Compiled readers (libsndfile, safetensors) are damaged
without such guidance. What breaks one is kept in ``build/fuzz/READER/broken``, and the next run
tries it first. Runs add up in the results file: of each reader, its inputs in all runs, and what
came of the last.
"""

from __future__ import annotations

import argparse
import importlib
import json
import mmap
import os
import resource
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sonibook.files import provenance, write_result

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "fuzz"
INSTRUMENTED = ["sonibook", "yaml", "zipfile", "tarfile"]
#: An input that takes longer hangs, in seconds; memory beyond what the process starts with, and
#: that of the process, both in bytes, that none may need.
LONGEST, MEMORY, RESIDENT = 20, 3 << 30, 4 << 30


class Counter:
    """Inputs taken and refused, in a file that outlives the process, however it ends."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 16)
        self.taken = self.refused = 0

    def count(self, taken: bool) -> None:
        self.taken, self.refused = self.taken + taken, self.refused + (not taken)
        struct.pack_into("<2Q", self._map, 0, self.taken, self.refused)


def limit_memory() -> None:
    """Let an allocation beyond `MEMORY` fail, which no reader may let through."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def one_input(reader: Any, folder: Path, counter: Counter) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        counter.count(reader.takes(content, folder))

    return run


def instrumented() -> dict[str, Any]:
    """All readers, with what they call made to tell where it branches."""
    import atheris

    for large in ("matplotlib.pyplot", "scipy.signal", "torch"):
        importlib.import_module(large)  # not instrumented: that would take minutes
    for module in [name for name in sys.modules if name.split(".")[0] in ("sonibook", "yaml")]:
        del sys.modules[module]
    with atheris.instrument_imports(include=INSTRUMENTED):
        return importlib.import_module("readers").READERS


def fuzz(reader: Any, work: Path, options: list[str]) -> None:
    """Fuzz one reader in this process, which ends with it."""
    import atheris

    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        folder = Path(name)
        for number, seed in enumerate(reader.prepare(folder)):
            (work / "corpus" / f"seed-{number}").write_bytes(seed)
        arguments = [f"-artifact_prefix={work / 'broken'}/", *options, str(work / "corpus")]
        run = one_input(reader, folder, Counter(work / "tried"))
        atheris.Setup([sys.argv[0], *arguments], run)
        limit_memory()
        atheris.Fuzz()


def start(reader: Any, work: Path, seconds: int, seed: int) -> dict[str, Any]:
    """Fuzz one reader in a fork, and say what came of it."""
    for made in (work / "corpus", work / "broken"):
        made.mkdir(parents=True, exist_ok=True)
    for path in (work / "broken").iterdir():
        path.replace(work / "corpus" / path.name)
    (work / "tried").unlink(missing_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={LONGEST}",
        f"-rss_limit_mb={RESIDENT >> 20}",
        f"-seed={seed}",
        "-max_len=65536",
    ]
    child = os.fork()
    if child == 0:
        log = os.open(work / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            fuzz(reader, work, options)
        finally:
            os._exit(70)  # libFuzzer ends the process itself
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    tried = work / "tried"
    taken, refused = struct.unpack("<2Q", tried.read_bytes()) if tried.exists() else (0, 0)
    return {
        "inputs": taken + refused,
        "taken": taken,
        "refused": refused,
        "seconds": seconds,
        "exit_code": status,
        "broken": sorted(path.name for path in (work / "broken").glob("*")),
    }


def runs_in(before: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs in a results file, or the one in a file that knew of no others."""
    if not before or "runs" in before:
        return before.get("runs", [])
    own = {key: before[key] for key in ("seed", "inputs", "seconds")}
    return [own | before["provenance"]]


def add_up(before: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """The content of the results file after one more run."""
    readers = dict(before.get("readers", {}))
    for name, found in run["readers"].items():
        earlier = readers.get(name, {})
        counts = ("inputs", "taken", "refused", "seconds")
        readers[name] = found | {key: found[key] + earlier.get(key, 0) for key in counts}
    runs = runs_in(before)
    own = {key: sum(one[key] for one in run["readers"].values()) for key in ("inputs", "seconds")}
    runs = [*runs, {"seed": run["seed"], **own, **provenance(run["command"])}]
    return {
        "inputs": sum(one["inputs"] for one in runs),
        "seconds": sum(one["seconds"] for one in runs),
        "limits": {"longest_seconds": LONGEST, "memory_bytes": MEMORY},
        "readers": readers,
        "runs": runs,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--seed", type=int, help="by default another than any run before had")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "results" / "fuzz.json")
    parser.add_argument("--readers", nargs="*", help="by default all")
    asked = parser.parse_args()
    before = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    seed = len(runs_in(before)) + 1 if asked.seed is None else asked.seed
    command = f"make fuzz FUZZ_SECONDS={asked.seconds}"
    readers = instrumented()
    found: dict[str, dict[str, Any]] = {}
    for name in asked.readers or readers:
        found[name] = start(readers[name], WORK / name, asked.seconds, seed)
        sys.stdout.write(f"{name}: {found[name]}\n")
        sys.stdout.flush()
        run = {"seed": seed, "command": command, "readers": found}
        write_result(asked.out, add_up(before, run), command=command)
    return 1 if any(one["exit_code"] for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
