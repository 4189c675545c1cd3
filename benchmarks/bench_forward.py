"""The forward pass with its switches, as a share of the machine's own matrix-multiply peak."""

from __future__ import annotations

import torch
from timing import clips, gemm_peak, interleaved, write

from sonibook import CNN12, ForwardPass


def flops(passed: ForwardPass) -> int:
    """Multiplications and additions of all convolutions of one clip."""
    return sum(
        2 * length * block.conv.weight.numel()
        for length, block in zip(passed.lengths, passed.blocks, strict=True)
    )


def main() -> None:
    """Measure, print and write."""
    (x,), source = clips(1)
    rows = {}
    for width in (0.25, 1.0):
        encoder = CNN12(width=width, seed=0).eval()
        work = flops(ForwardPass(encoder, x))
        before = gemm_peak()
        seconds = interleaved({"forward": lambda e=encoder: ForwardPass(e, x)}, repeats=25)
        peak = max(before, gemm_peak())
        rate = work / seconds["forward"]["median"] / 1e9
        rows[f"width {width:g}"] = {
            "gflop": work / 1e9,
            "ms": 1e3 * seconds["forward"]["median"],
            "gflops": rate,
            "gemm_peak_gflops": peak,
            "share_of_peak": rate / peak,
        }
        print(f"width {width:g}: {rate:.0f} of {peak:.0f} GFLOP/s, {rate / peak:.0%}")
    write("bench-forward", {"clips": source, "clip_seconds": 5.0, "rows": rows})


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
