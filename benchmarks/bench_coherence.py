"""Batched Welch coherence against scipy: 32 pairs of 5 s, a clip and itself in noise."""

from __future__ import annotations

import torch
from scipy import signal
from timing import clips, interleaved, write

from sonibook.analysis import coherence


def main() -> None:
    """Measure, print and write."""
    generator = torch.Generator().manual_seed(0)
    sounds, source = clips(32)
    x = torch.stack(sounds).double()
    # Noise on both sides: digital silence has no coherence.
    x = x + 1e-3 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    y = x + 0.1 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    a, b = x.numpy(), y.numpy()
    x32, y32 = x.float(), y.float()
    seconds = interleaved(
        {
            "scipy, in a loop": lambda: [signal.coherence(p, q) for p, q in zip(a, b, strict=True)],
            "scipy, axis=-1": lambda: signal.coherence(a, b, axis=-1),
            "sonibook, float64": lambda: coherence(x, y),
            "sonibook, float32": lambda: coherence(x32, y32),
        },
        repeats=9,
    )
    difference = abs(coherence(x, y)[1].numpy() - signal.coherence(a, b)[1]).max()
    ours = seconds["sonibook, float64"]["median"]
    result = {
        "clips": source,
        "pairs": 32,
        "seconds": seconds,
        "ratio_loop": seconds["scipy, in a loop"]["median"] / ours,
        "ratio_axis": seconds["scipy, axis=-1"]["median"] / ours,
        "largest_difference": float(difference),
    }
    for name, value in seconds.items():
        print(f"{name}: {1e3 * value['median']:.1f} ms")
    print(f"{result['ratio_loop']:.1f} x the loop, {result['ratio_axis']:.1f} x axis=-1")
    write("bench-coherence", result)


if __name__ == "__main__":
    main()
