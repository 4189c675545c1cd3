"""Cost against clip length and number of filters, and the memory that a whole layer takes."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from timing import interleaved, write

from sonibook import ForwardPass, load_encoder
from sonibook.errors import SonibookWarning

SECONDS = (1, 2, 5, 10, 20, 40, 60)
FILTERS = (1, 2, 4, 8, 16, 32, 64, 128)
LAYER = 8

_MEMORY = f"""
import sys, warnings
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from timing import memory
from sonibook import CNN12, ForwardPass
warnings.simplefilter("ignore")
encoder = CNN12(width=1.0, seed=0).eval()
x = torch.randn(40000, generator=torch.Generator().manual_seed(0))
before = memory("VmRSS")
sounds = ForwardPass(encoder, x).sonify(11)
print(sounds.shape[0], memory("VmHWM") - before)
"""


def fit(x: tuple[int, ...], y: list[float]) -> dict[str, float]:
    """Least-squares line through the times, and the share of their variance it explains."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = np.array(y) - (slope * np.array(x) + intercept)
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "r_squared": float(1 - residual.var() / np.var(y)),
    }


def main() -> None:
    """Measure, print and write."""
    warnings.simplefilter("ignore", SonibookWarning)
    encoder = load_encoder("supervised")
    sounds = {seconds: torch.randn(8000 * seconds) for seconds in SECONDS}
    lengths = interleaved(
        {
            str(seconds): lambda x=x: ForwardPass(encoder, x, depth=LAYER).sonify(LAYER, range(16))
            for seconds, x in sounds.items()
        }
    )
    passed = ForwardPass(encoder, sounds[5], depth=LAYER)
    passed.sonify(LAYER, [0])
    counts = interleaved({str(n): lambda n=n: passed.sonify(LAYER, range(n)) for n in FILTERS})
    length_times = [lengths[str(s)]["median"] for s in SECONDS]
    count_times = [counts[str(n)]["median"] for n in FILTERS]
    run = [sys.executable, "-c", _MEMORY]
    output = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    result = {
        "network": "supervised, width 1/4",
        "layer": LAYER,
        "input": "white noise, whose maps have no long zeros to leave out",
        "clip_seconds": list(SECONDS),
        "seconds_by_length": length_times,
        "length_fit": fit(SECONDS, length_times),
        "filters": list(FILTERS),
        "seconds_by_filters": count_times,
        "filters_fit": fit(FILTERS, count_times),
        "memory": {
            "what": f"all {output[0]} filters of layer 11 at width 1, a clip of 5 s",
            "bytes_beyond_weights": int(output[1]),
        },
    }
    print(f"length: {result['length_fit']}\nfilters: {result['filters_fit']}")
    print(f"{result['memory']['what']}: {int(output[1]) / 2**30:.2f} GiB beyond the weights")
    write("bench-scaling", result)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
