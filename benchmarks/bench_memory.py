"""Memory and time against the amount of data: clips through two analyses, an hour of sound."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from timing import write

from sonibook import CNN12, open_dataset
from sonibook.analysis.activations import top_activations
from sonibook.analysis.layer_coherence import coherence_by_layer

CLIPS = (500, 2_000, 8_000)
SECONDS = 0.5
NETWORK = {"width": 1 / 64, "depth": 3}
PROCESSES = 2
ANALYSES = {"activations": top_activations, "coherence": coherence_by_layer}
MINUTES = (1, 10, 60)


def used() -> dict[str, float]:
    """Seconds of processor time, and the largest process, of what ran in this process."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu_seconds": sum(one.ru_utime + one.ru_stime for one in (own, children)),
        "peak_bytes": _peak(own.ru_maxrss * unit),
        "peak_bytes_of_a_worker": children.ru_maxrss * unit,
    }


def _peak(otherwise: int) -> int:
    """The largest this process was; Linux's rusage counts its parent's memory before it began."""
    status = Path("/proc/self/status")
    if not status.exists():
        return otherwise
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def analyse(name: str, count: int) -> None:
    """Run an analysis of `count` soundscapes, and print what it used."""
    torch.set_num_threads(1)
    network = CNN12(seed=0, **NETWORK).eval()
    data = open_dataset("soundscapes", size=count, duration=SECONDS, seed=0)
    result = ANALYSES[name]({"tiny": network}, data, processes=PROCESSES, chunk=64)
    print(json.dumps({"clips": count, "measured": result.data.clips, **used()}))


def hour(folder: Path, minutes: int, arguments: list[str]) -> dict[str, float]:
    """What ``sonibook sonify`` uses for a recording of so many minutes, 44.1 kHz, stereo."""
    path = folder / f"{minutes}.flac"
    random = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", 44100, 2, "PCM_16") as file:
        for _ in range(minutes):
            file.write(0.1 * random.standard_normal((60 * 44100, 2)).clip(-5, 5))
    command = ["sonify", str(path), "--layer", "8", "--top", "1", "--out", str(folder / "out")]
    code = f"import json; from bench_memory import used; from sonibook.cli import main; \
assert main({command + arguments!r}) == 0; print(json.dumps(used()))"
    found = {"minutes": minutes, **last_line(["-c", code])}
    path.unlink()
    return found


def last_line(arguments: list[str]) -> dict[str, float]:
    """The JSON that a process of its own prints last."""
    done = subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print and write."""
    found: dict[str, list[dict[str, float]]] = {}
    network = f"CNN12, width 1/{round(1 / NETWORK['width'])}, depth {NETWORK['depth']}"
    settings = {"clip_seconds": SECONDS, "network": network, "processes": PROCESSES}

    def note(name: str, row: dict[str, float]) -> None:
        found.setdefault(name, []).append(row)
        print(name, row, flush=True)
        write("bench-memory", {**settings, **found})  # after each: the whole takes long

    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in (("sonify", []), ("sonify_whole", ["--seconds", "3600"])):
            for minutes in MINUTES:
                note(name, hour(Path(folder), minutes, [*arguments, "--no-pictures"]))
    for count in CLIPS:
        for name in ANALYSES:
            note(name, last_line([str(Path(__file__).resolve()), name, str(count)]))


if __name__ == "__main__":
    if sys.argv[1:]:
        analyse(sys.argv[1], int(sys.argv[2]))
    else:
        main()
