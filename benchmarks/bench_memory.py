"""Memory and time against the amount of data: clips through two analyses, an hour of sound.

``python benchmarks/bench_memory.py activations`` measures one of the parts anew, and leaves what
stands in the results file of the others.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
import torch
from timing import memory, write

from sonibook import CNN12, open_dataset
from sonibook.analysis.activations import top_activations
from sonibook.analysis.coherence import coherence_by_layer
from sonibook.files import read_result

CLIPS = 100_000
#: The shortest scenes, the smallest network: what is measured is the stream.
SECONDS = 0.5
NETWORK = {"width": 1 / 64, "depth": 1}
PROCESSES = 2
CHUNK = 100
#: An analysis is looked at so many times, evenly.
LOOKS = 20
ANALYSES = {"activations": top_activations, "coherence": coherence_by_layer}
MINUTES = (1, 10, 60)
RECORDINGS: dict[str, list[str]] = {"sonify": [], "sonify_whole": ["--seconds", "3600"]}
SETTINGS = {
    "clip_seconds": SECONDS,
    "clips_are": "scenes, synthesised as they are read",
    "network": f"CNN12, width 1/{round(1 / NETWORK['width'])}, depth {NETWORK['depth']}",
    "processes": PROCESSES,
    "clips_per_chunk": CHUNK,
}


def seconds_of(process: psutil.Process) -> float:
    """Processor time of a process."""
    times = process.cpu_times()
    return times.user + times.system


def workers() -> list[psutil.Process]:
    """The processes of this one that compute."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.ZombieProcess):  # it has just ended
            found += [child] if "spawn_main" in str(child.cmdline()) else []
    return found


def look(folder: Path, begun: float) -> dict[str, float]:
    """What an analysis that is under way has done and used."""
    clips = CHUNK * sum(1 for _ in folder.rglob("[0-9]*.npz"))
    running = workers()
    return {
        "clips": clips,
        "cpu_seconds": round(seconds_of(psutil.Process()) + sum(map(seconds_of, running)), 2),
        "seconds": round(time.monotonic() - begun, 2),
        "peak_bytes": memory("VmHWM"),
        "peak_bytes_of_a_worker": max(memory("VmHWM", one.pid) for one in running),
    }


def analyse(name: str, count: int) -> None:
    """Run an analysis of `count` scenes; print what it has used after each of `LOOKS` parts."""
    torch.set_num_threads(1)
    network = CNN12(seed=0, **NETWORK).eval()
    data = open_dataset("soundscapes", size=count, duration=SECONDS, seed=0)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:

        def watch() -> None:
            following = count // LOOKS
            while following < count:
                time.sleep(0.2)
                if CHUNK * sum(1 for _ in Path(folder).rglob("[0-9]*.npz")) >= following:
                    row = look(Path(folder), begun)
                    following += count // LOOKS
                    print(json.dumps(row), flush=True)

        threading.Thread(target=watch, daemon=True).start()
        result = ANALYSES[name](
            {"tiny": network}, data, processes=PROCESSES, chunk=CHUNK, parts=folder
        )
        own, children = (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        used = sum(one.ru_utime + one.ru_stime for one in (own, children))
    last = {
        "clips": result.data.clips,
        "cpu_seconds": round(used, 2),
        "seconds": round(time.monotonic() - begun, 2),
        "peak_bytes": memory("VmHWM"),
        "peak_bytes_of_a_worker": children.ru_maxrss * 1024,
    }
    print(json.dumps(last), flush=True)


def line_through(rows: list[dict[str, float]]) -> dict[str, float]:
    """The straight line through processor time against clips, and how much of it that explains."""
    clips = np.array([row["clips"] for row in rows], dtype=float)
    seconds = np.array([row["cpu_seconds"] for row in rows])
    slope, start = np.polyfit(clips, seconds, 1)
    off = seconds - start - slope * clips
    return {
        "milliseconds_a_clip": round(1000 * slope, 4),
        "seconds_to_start": round(start, 3),
        "r_squared": round(1 - float(off @ off / (len(rows) * seconds.var())), 6),
        "bytes_a_clip": round(np.polyfit(clips, [row["peak_bytes"] for row in rows], 1)[0], 1),
    }


def recordings(arguments: list[str]) -> Iterator[dict[str, float]]:
    """What ``sonibook sonify`` uses for longer and longer recordings, 44.1 kHz, stereo."""
    for minutes in MINUTES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{minutes}.flac")
            random = np.random.default_rng(0)
            with soundfile.SoundFile(path, "w", 44100, 2, "PCM_16") as file:
                for _ in range(minutes):
                    file.write(0.1 * random.standard_normal((60 * 44100, 2)).clip(-5, 5))
            command = ["sonify", str(path), "--layer", "8", "--top", "1", "--no-pictures"]
            command += ["--out", str(Path(folder, "out")), *arguments]
            code = f"""
import json
import psutil
from bench_memory import seconds_of
from timing import memory
from sonibook.cli import main
assert main({command!r}) == 0
print(json.dumps({{"cpu_seconds": seconds_of(psutil.Process()), "peak_bytes": memory("VmHWM")}}))
"""
            yield {"minutes": minutes, **list(printed(["-c", code]))[-1]}


def printed(arguments: list[str]) -> Iterator[dict[str, float]]:
    """What a process of its own prints in JSON, as it prints it."""
    command = [sys.executable, *arguments]
    here = Path(__file__).parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here) as running:
        for line in running.stdout or ():
            if line.startswith("{"):
                yield json.loads(line)
    if running.returncode:
        raise SystemExit(f"{command} ended with {running.returncode}.")


def main(names: list[str]) -> None:
    """Measure, print and write, after each look: the whole takes half an hour."""
    before = read_result("bench-memory") if set(names) < {*RECORDINGS, *ANALYSES} else {}
    found: dict[str, Any] = {
        name: before[name] for name in (*RECORDINGS, *ANALYSES) if name in before
    }
    found["lines"] = before.get("lines", {})
    for name in names:
        found[name] = []
        found["lines"].pop(name, None)
        script = [str(Path(__file__).resolve()), "run", name, str(CLIPS)]
        for row in recordings(RECORDINGS[name]) if name in RECORDINGS else printed(script):
            found[name].append(row)
            if name in ANALYSES and len(found[name]) > 2:
                found["lines"][name] = line_through(found[name])
            print(name, row, flush=True)
            write("bench-memory", {**SETTINGS, **found})


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        analyse(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1:] or [*RECORDINGS, *ANALYSES])
