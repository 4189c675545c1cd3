"""A training step against the same network of PyTorch's own layers.

Supervised: cross-entropy of a batch of 2.5 s crops, backward, and Adam's step. Both sides run in
one process, in turn, on the same crops; beside them ours in bfloat16, which is quicker only where
the processor has instructions for it. glibc by default gives large blocks back to the system and
asks for them again at every step; the thresholds below stop that for both sides.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from captum_peer import plain_modules
from timing import clips, gemm_peak, interleaved, write
from torch import Tensor, nn

from sonibook import CNN12
from sonibook.model.encoder import Classifier
from sonibook.model.stack import blocks_of
from sonibook.training.distributed import Runtime

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}
SAMPLES, CLASSES = 20_000, 40
CPU = torch.device("cpu")
#: Crops a batch, by width.
BATCHES = {0.25: 64, 1.0: 16}


def plain_classifier(model: Classifier) -> nn.Sequential:
    """The same network, with the same weights, of PyTorch's own layers."""
    encoder = model.encoder
    features = plain_modules(encoder)[0].requires_grad_(True)
    mean = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten())
    embed, head = (
        nn.Linear(encoder.fc1.fc10.in_features, encoder.dim),
        nn.Linear(encoder.dim, CLASSES),
    )
    embed.load_state_dict(encoder.fc1.fc10.state_dict())
    head.load_state_dict(model.head.state_dict())
    return nn.Sequential(features, mean, nn.Dropout(0.4), embed, head)


def training_step(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    *,
    precision: str = "float32",
    device: torch.device = CPU,
) -> Callable[[], None]:
    """One step of supervised training of a network of its own."""
    runtime = Runtime(device, precision=precision)
    model.train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run() -> None:
        adam.zero_grad()
        with runtime.autocast():
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        adam.step()

    return run


def flops(encoder: CNN12, samples: int) -> int:
    """Multiplications and additions of all convolutions for one crop, up and back.

    On the way back each costs twice what it did on the way up: once for its weights, once for its
    input, of which the first has none that needs a gradient.
    """
    total, length = 0, samples
    for number, block in enumerate(blocks_of(encoder)):
        length = block.convolution.out_length(length)
        total += (2 if number == 0 else 3) * 2 * length * block.conv.weight.numel()
        length //= block.pool
    return total


def measure(width: float, sounds: Tensor) -> dict[str, float]:
    """One width: seconds a step of both, and what that is of the machine's peak."""
    batch = BATCHES[width]
    x = sounds[:batch, None]
    labels = torch.arange(batch) % CLASSES
    model = Classifier(CNN12(width=width, seed=0), tuple(map(str, range(CLASSES))), seed=0)
    plain = plain_classifier(model)
    with torch.no_grad():
        difference = (model.eval()(x[:2]) - plain.eval()(x[:2])).abs().max()
    work = flops(model.encoder, SAMPLES) * batch
    before = gemm_peak()
    seconds = interleaved(
        {
            "sonibook": training_step(model, x, labels),
            "plain": training_step(plain, x, labels),
            "bfloat16": training_step(deepcopy(model), x, labels, precision="bfloat16"),
        },
        repeats=7,
    )
    peak = max(before, gemm_peak())
    ours, theirs = seconds["sonibook"]["median"], seconds["plain"]["median"]
    return {
        "batch": batch,
        "crop_seconds": SAMPLES / 8000,
        "sonibook": ours,
        "plain": theirs,
        "ratio": theirs / ours,
        "bfloat16": seconds["bfloat16"]["median"],
        "gflops": work / ours / 1e9,
        "gemm_peak_gflops": peak,
        "share_of_peak": work / ours / 1e9 / peak,
        "largest_difference": float(difference),
    }


def main() -> None:
    """Measure, print and write."""
    if not MALLOC.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    sounds, source = clips(32)
    crops = torch.cat([torch.stack(sounds).unflatten(1, (2, SAMPLES))[:, half] for half in (0, 1)])
    rows = {}
    for width in BATCHES:
        row = rows[f"width {width:g}"] = measure(width, crops)
        print(
            f"width {width:g}, {row['batch']} crops: {1e3 * row['plain']:.0f} -> "
            f"{1e3 * row['sonibook']:.0f} ms a step, {row['ratio']:.2f} x, "
            f"{1e3 * row['bfloat16']:.0f} in bfloat16; "
            f"{row['share_of_peak']:.0%} of the matrix-multiply peak"
        )
    write("bench-training", {"clips": source, "malloc": MALLOC, "rows": rows})


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
