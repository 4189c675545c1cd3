"""Fair timing: peers interleaved in one run, medians, the machine's own peak beside them."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from sonibook import open_dataset
from sonibook.files import write_result

RESULTS = Path(__file__).parents[1] / "data" / "results"
REPEATS = 5


def interleaved(functions: dict[str, Callable[[], object]], *, repeats: int = REPEATS) -> dict:
    """Median, least and greatest seconds of each function, called in turn after one warm-up."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {"median": statistics.median(s), "min": min(s), "max": max(s)}
        for name, s in seconds.items()
    }


def gemm_peak(repeats: int = 15) -> float:
    """The best rate at which this machine's libraries multiply matrices, in GFLOP/s.

    MKL's products of three sizes, and oneDNN's inside a wide convolution, which can be quicker.
    """
    convolution, x = nn.Conv1d(512, 512, 3, padding=1, bias=False), torch.randn(1, 512, 4000)
    squares = [torch.randn(size, size) for size in (512, 1024, 2048)]
    work = {2 * len(a) ** 3: lambda a=a: a @ a for a in squares}
    work[2 * x.numel() * convolution.weight[0].numel()] = lambda: convolution(x)
    with torch.no_grad():
        seconds = interleaved({str(flop): run for flop, run in work.items()}, repeats=repeats)
    return max(int(flop) / measured["min"] for flop, measured in seconds.items()) / 1e9


def clips(count: int, *, seconds: float = 5.0) -> tuple[list[torch.Tensor], str]:
    """Real recordings (ESC-50's fold 5, evenly spaced) where there are any, else soundscapes."""
    samples = round(8000 * seconds)
    if os.environ.get("SONIBOOK_DATA"):
        data, name = open_dataset("esc50", folds=(5,)), "ESC-50, fold 5"
        step = len(data) // (2 * count)
    else:
        data, name, step = open_dataset("soundscapes", size=count), "soundscapes", 1
    chosen = []
    for index in range(0, len(data), step):
        waveform = torch.from_numpy(data[index].waveform)
        if len(waveform) == samples and waveform.any():
            chosen.append(waveform)
        if len(chosen) == count:
            return chosen, name
    raise SystemExit(f"{name}: fewer than {count} sounding clips of {seconds} s.")


def memory(field: str, process: int | str = "self") -> int:
    """The memory of a process, in bytes: "VmRSS" now, "VmHWM" at most ever.

    What rusage calls the maximum would count that of its parent before it began.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def write(name: str, result: dict) -> None:
    """Write a result to data/results."""
    machine = {
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    script = f"python benchmarks/{name.replace('-', '_')}.py"
    write_result(RESULTS / f"{name}.json", {**result, **machine}, command=script)
    print(f"wrote data/results/{name}.json")
