"""The explorer, from a slider to the last widget set: the kernel's share of what a learner waits.

Wall time, and the processor's beside it, which another load on the machine does not stretch.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch
from timing import clips, write

from sonibook import CNN12, load_encoder
from sonibook.show import Explorer

MOVES = 10


def measured(move: Callable[[int], None]) -> dict[str, float]:
    """Milliseconds a move: the median and the longest by the clock, the median of the processor."""
    wall, processor = [], []
    for number in range(MOVES + 1):
        start, used = time.perf_counter(), time.process_time()
        move(number)
        wall.append(1000 * (time.perf_counter() - start))
        processor.append(1000 * (time.process_time() - used))
    return {
        "median_ms": statistics.median(wall[1:]),
        "max_ms": max(wall[1:]),
        "processor_ms": statistics.median(processor[1:]),
    }


def main() -> None:
    """Measure, print and write."""
    sounds, source = clips(2)
    networks = {"supervised": load_encoder("supervised"), "random": CNN12(width=0.25, seed=0)}
    explorer = Explorer(networks, dict(zip(("first", "second"), sounds, strict=True)))
    rows = {}

    def rank(number: int) -> None:
        explorer.rank.value = 1 + (explorer.rank.value + 6) % min(explorer.rank.max, 30)

    for layer in range(1, 12):
        explorer.layer.value = layer
        rows[f"another filter of layer {layer}"] = measured(rank)
    rows["another layer"] = measured(lambda number: explorer.layer.set_trait("value", 1 + number))
    rows["another clip"] = measured(
        lambda number: explorer.clip.set_trait("value", ("second", "first")[number % 2])
    )
    explorer.beside.value = True
    rows["another filter, two networks"] = measured(rank)
    for name, row in rows.items():
        print(f"{name}: {row['median_ms']:.0f} ms, processor {row['processor_ms']:.0f} ms")
    result = {
        "clips": source,
        "clip_seconds": 5.0,
        "moves": MOVES,
        "load_average": os.getloadavg()[0],
        "rows": rows,
    }
    write("bench-explorer", result)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
