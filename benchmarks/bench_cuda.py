"""On a GPU: sonification against Captum, and the way up and training against its matrix product.

Both sides run on the same device in one run, in full float32 (no TF32), and the clock stops when
the device has finished. On Captum's side a few filters stand for all, since its time does not
depend on the filter. Without a GPU nothing is measured; ``--device cpu`` runs everything on the
CPU with a tiny network, to see that it runs, and writes only where ``--out`` says.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from bench_forward import flops as forward_flops
from bench_training import flops as training_flops
from bench_training import training_step
from captum_peer import captum, plain_modules, spread
from timing import RESULTS, clips, interleaved
from torch import Tensor
from tqdm import tqdm

from sonibook import CNN12, ForwardPass
from sonibook.errors import SonibookWarning
from sonibook.files import write_result
from sonibook.model.encoder import Classifier

CROP = 20_000
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


class Sizes(NamedTuple):
    """How much is measured."""

    widths: tuple[float, ...]
    layers: tuple[int, ...]
    seconds: float
    clips: int
    captum_filters: int
    crops: dict[float, int]
    product: int
    repeats: int


FULL = Sizes((0.25, 1.0), tuple(range(1, 12)), 5.0, 32, 4, {0.25: 512, 1.0: 128}, 8192, 5)
TINY = Sizes((1 / 16,), (1, 8, 11), 0.6, 2, 1, {1 / 16: 2}, 128, 1)


class Bench:
    """What is measured on one device."""

    def __init__(self, device: torch.device, sizes: Sizes) -> None:
        self.device, self.sizes = device, sizes
        sounds, self.source = clips(sizes.clips)
        samples = round(8000 * sizes.seconds)
        self.batch = torch.stack(sounds)[:, None, :samples].to(device)

    def seconds(self, functions: dict[str, Callable[[], object]]) -> dict[str, float]:
        """The median seconds of each, until the device has finished."""

        def finished(function: Callable[[], object]) -> Callable[[], None]:
            def run() -> None:
                function()
                self.wait()

            return run

        timed = {name: finished(function) for name, function in functions.items()}
        found = interleaved(timed, repeats=self.sizes.repeats)
        return {name: value["median"] for name, value in found.items()}

    def wait(self) -> None:
        """Until the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def peak_memory(self, row: dict) -> Iterator[None]:
        """Write the most memory that was in use on a GPU meanwhile, in bytes, into a row."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        if self.device.type == "cuda":
            row["peak_bytes"] = torch.cuda.max_memory_allocated(self.device)

    def products(self) -> dict[str, float]:
        """The rate of this device's own matrix product, in GFLOP/s, by precision."""
        size, rates = self.sizes.product, {}
        for name, kind in PRECISIONS.items():
            a = torch.randn(size, size, device=self.device, dtype=kind or torch.float32)
            taken = [
                self.seconds({"product": lambda a=a: [a @ a for _ in range(10)]})["product"] / 10
                for _ in range(3)
            ]
            rates[name] = 2 * size**3 / min(taken) / 1e9
        return rates

    def encoder(self, width: float) -> CNN12:
        """A network with random weights on the device."""
        return CNN12(width=width, seed=0).eval().to(self.device)

    def all_filters(self, width: float) -> Iterator[dict]:
        """Every filter of each layer, the forward pass included on both sides."""
        encoder, x = self.encoder(width), self.batch[0, 0]
        network, ends = plain_modules(encoder)
        network = network.to(self.device)
        for layer in tqdm(self.sizes.layers, desc=f"width {width:g}"):
            theirs = captum(network, ends[layer - 1], x)
            total = ForwardPass(encoder, x, depth=layer).maps[-1].shape[1]
            sample = spread(self.sizes.captum_filters, total)

            def ours(layer: int = layer) -> Tensor:
                return ForwardPass(encoder, x, depth=layer).sonify(layer, rescale=False)

            def peer(sample: list[int] = sample, one: Callable = theirs) -> list[Tensor]:
                return [one(index) for index in sample]

            row: dict = {"layer": layer, "filters": total, "captum_filters": len(sample)}
            with self.peak_memory(row):
                sounds = ours()
            seconds = self.seconds({"sonibook": ours, "captum": peer})
            loudest = int(sounds.abs().amax(dim=1).argmax())
            expected = theirs(loudest)
            error = (sounds[loudest] - expected).abs().median() / expected.abs().max()
            row |= {
                "sonibook": seconds["sonibook"] / total,
                "captum": seconds["captum"] / len(sample),
                "ratio": seconds["captum"] / len(sample) / (seconds["sonibook"] / total),
                # The median: another kernel's rounding flips a few switches.
                "median_error": float(error),
            }
            yield row

    def most_active(self, width: float) -> dict:
        """The most active filter of every layer, of many clips at once; Captum on the first."""
        encoder, x = self.encoder(width), self.batch[0, 0]
        network, ends = plain_modules(encoder)
        network = network.to(self.device)
        _, chosen = ForwardPass(encoder, self.batch[:1]).sonify_most_active()

        def ours() -> None:
            ForwardPass(encoder, self.batch).sonify_most_active()

        def theirs() -> None:
            for end, index in zip(ends, chosen[0], strict=True):
                captum(network, end, x)(int(index))

        row: dict = {"clips": len(self.batch)}
        with self.peak_memory(row):
            seconds = self.seconds({"sonibook": ours, "captum": theirs})
        each = seconds["sonibook"] / len(self.batch)
        return row | {
            "sonibook": each,
            "captum": seconds["captum"],
            "ratio": seconds["captum"] / each,
        }

    def by_filters(self, width: float, layer: int = 8) -> list[dict]:
        """Filters a second against how many are asked for, once the clip was passed forward."""
        passed = ForwardPass(self.encoder(width), self.batch[0, 0], depth=layer)
        total = passed.maps[-1].shape[1]
        rows = []
        for count in sorted({min(4**power, total) for power in range(6)}):
            some = passed.most_active(layer, count)
            row: dict = {"layer": layer, "filters": count}
            with self.peak_memory(row):
                taken = self.seconds({"all": lambda s=some: passed.sonify(layer, s, rescale=False)})
            rows.append(row | {"filters_a_second": count / taken["all"]})
        return rows

    def forward(self, width: float, products: dict[str, float]) -> dict[str, dict]:
        """Maps and switches of all clips at once, as a share of the matrix product's rate."""
        encoder = self.encoder(width)
        work = forward_flops(ForwardPass(encoder, self.batch[:1])) * len(self.batch)
        rows = {}
        for name, kind in PRECISIONS.items():
            row = rows[name] = {"clips": len(self.batch)}
            with self.peak_memory(row):
                taken = self.seconds(
                    {"up": lambda k=kind: ForwardPass(encoder, self.batch, precision=k)}
                )
            row |= _share(work, taken["up"], products[name])
        return rows

    def training(self, width: float, products: dict[str, float]) -> dict[str, dict]:
        """A step of supervised training, alike."""
        count = self.sizes.crops[width]
        crops = torch.randn(count, 1, CROP, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(count) % 40
        rows = {}
        for name in PRECISIONS:
            model = Classifier(CNN12(width=width, seed=0), tuple(map(str, range(40))), seed=0)
            work = training_flops(model.encoder, CROP) * count
            step = training_step(
                model.to(self.device), crops.to(self.device), labels.to(self.device),
                precision=name, device=self.device,
            )  # fmt: skip
            row = rows[name] = {"crops": count}
            with self.peak_memory(row):
                taken = self.seconds({"step": step})
            row |= _share(work, taken["step"], products[name]) | {
                "crops_a_second": count / taken["step"]
            }
        return rows


def _share(work: float, seconds: float, peak: float) -> dict[str, float]:
    rate = work / seconds / 1e9
    return {"seconds": seconds, "gflops": rate, "share_of_product": rate / peak}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="default: data/results/bench-cuda.json, on a GPU")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU here: nothing was measured (--device cpu shows that it runs).")
        return
    warnings.simplefilter("ignore", SonibookWarning)  # silent maps are part of the measurement
    is_gpu = chosen.device == "cuda"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    bench = Bench(torch.device(chosen.device), FULL if is_gpu else TINY)
    out = chosen.out or (RESULTS / "bench-cuda.json" if is_gpu else None)
    products = bench.products()
    result: dict = {
        "card": torch.cuda.get_device_name() if is_gpu else "none: on the CPU, to see that it runs",
        "clips": bench.source, "clip_seconds": bench.sizes.seconds,
        "product_gflops": products, "networks": {},
    }  # fmt: skip
    for width in bench.sizes.widths:
        network = result["networks"][f"random, width {width:g}"] = {}
        network["layers"] = list(bench.all_filters(width))
        network["most_active"] = bench.most_active(width)
        network["by_filters"] = bench.by_filters(width)
        network["forward"] = bench.forward(width, products)
        network["training"] = bench.training(width, products)
        ratios = [round(row["ratio"], 1) for row in network["layers"]]
        shares = {name: row["share_of_product"] for name, row in network["training"].items()}
        print(
            f"width {width:g}: {ratios} x Captum; training at {shares} of the product", flush=True
        )
        if out is not None:  # at once: the machine may be lent for minutes
            write_result(out, result, command="python benchmarks/bench_cuda.py")


if __name__ == "__main__":
    main()
