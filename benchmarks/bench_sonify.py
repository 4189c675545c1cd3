"""Sonification against Captum: all filters of a layer, and the most active filter of every layer.

Captum runs the network forward at every call; here one forward pass serves all filters, and our
time holds it. Two ratios are given: against Captum as it is called, and against Captum less its
forward pass (as if it could share it, too), which compares the ways back alone but for our one
forward pass. On Captum's side a few evenly spaced filters stand for the layer, since its time does
not depend on the filter; on ours every filter at width 1/4, and up to 128 at width 1.

Beside the most active filters stands what their convolutions cost as plain products at the rate of
the machine's own matrix multiplication: the ratio that no dense way back can pass.
"""

from __future__ import annotations

import math
import warnings

import torch
from captum_peer import captum, plain_modules, spread
from timing import clips, gemm_peak, interleaved, write
from torch import nn
from tqdm import tqdm

from sonibook import CNN12, ForwardPass, load_encoder, sonify
from sonibook.errors import SonibookWarning

LAYERS = range(1, 12)


def networks() -> dict[str, CNN12]:
    """The trained encoder, and an untrained one at the paper's width."""
    return {
        "supervised, width 1/4": load_encoder("supervised"),
        "random, width 1": CNN12(width=1.0, seed=0).eval(),
    }


def measure_layer(
    encoder: CNN12, peer: tuple[nn.Sequential, list[nn.Module]], layer: int, x: torch.Tensor
) -> dict[str, float]:
    """Seconds a filter of one layer and clip, and how far the two sounds are apart."""
    network, ends = peer
    theirs = captum(network, ends[layer - 1], x)
    total = ForwardPass(encoder, x, depth=layer).maps[-1].shape[1]
    ours = spread(total if encoder.width < 1 else min(total, 128), total)
    sample = spread(4, total)

    def run_ours() -> torch.Tensor:
        return ForwardPass(encoder, x, depth=layer).sonify(layer, ours, rescale=False)

    def run_captum() -> list[torch.Tensor]:
        return [theirs(index) for index in sample]

    @torch.no_grad()
    def run_forward() -> torch.Tensor:
        return network(x[None, None])

    functions = {"sonibook": run_ours, "captum": run_captum, "forward": run_forward}
    timed = interleaved(functions, repeats=3)
    seconds = {name: value["median"] for name, value in timed.items()}
    (loudest,) = ForwardPass(encoder, x, depth=layer).most_active(layer)
    reference = theirs(loudest)
    sound = sonify(encoder, x, layer=layer, filters=[loudest], rescale=False)[0]
    # The median: another kernel's rounding flips a few switches, and with them a few samples.
    error = (sound - reference).abs().median() / reference.abs().max()
    return {
        "filters": len(ours),
        "captum_filters": len(sample),
        "sonibook": seconds["sonibook"] / len(ours),
        "captum": seconds["captum"] / len(sample),
        "captum_less_forward": seconds["captum"] / len(sample) - seconds["forward"],
        "median_error": float(error),
        "error_same_switches": same_switches(encoder, x, layer, ours),
    }


def same_switches(encoder: CNN12, x: torch.Tensor, layer: int, filters: list[int]) -> float:
    """The largest relative error against the plain way back with the same maps and switches."""
    passed = ForwardPass(encoder, x, depth=layer)
    fast = passed.sonify(layer, filters, rescale=False)
    loud = fast.abs().amax(dim=1).argsort(descending=True)[:2]
    maps, errors = passed.maps[-1], []
    for row in loud.tolist():
        only = torch.zeros_like(maps)
        only[:, filters[row]] = maps[:, filters[row]]
        plain = passed.backward(layer, only)[0, 0]
        errors.append(float((fast[row] - plain).abs().max() / plain.abs().max()))
    return max(errors)


def layer_rows(encoder: CNN12, sounds: list[torch.Tensor]) -> list[dict]:
    """All filters of each layer, averaged over clips."""
    peer = plain_modules(encoder)
    rows = []
    for layer in tqdm(LAYERS, desc=f"width {encoder.width:g}"):
        measured = [measure_layer(encoder, peer, layer, x) for x in sounds]
        mean = {key: sum(m[key] for m in measured) / len(measured) for key in measured[0]}
        rows.append(
            {
                "layer": layer,
                **mean,
                "median_error": max(m["median_error"] for m in measured),
                "error_same_switches": max(m["error_same_switches"] for m in measured),
                "ratio": mean["captum"] / mean["sonibook"],
                "ratio_less_forward": mean["captum_less_forward"] / mean["sonibook"],
            }
        )
    return rows


def dense_gflop(passed: ForwardPass) -> float:
    """Arithmetic of one forward pass and one way back from every layer, nothing left out.

    At the top of a way back one channel is alive; the blocks below it cost what they cost forward.
    """
    blocks = zip(passed.lengths, passed.blocks, strict=True)
    costs = [2e-9 * length * block.conv.weight.numel() for length, block in blocks]
    alone = sum(cost / len(b.conv.weight) for cost, b in zip(costs, passed.blocks, strict=True))
    return sum(costs) + sum(sum(costs[:below]) for below in range(len(costs))) + alone


def most_active(encoder: CNN12, sounds: list[torch.Tensor], peak: float) -> dict:
    """The most active filter at all 11 layers, over a batch of clips."""
    network, ends = plain_modules(encoder)
    batch = torch.stack(sounds)[:, None]
    _, chosen = ForwardPass(encoder, batch).sonify_most_active()

    @torch.no_grad()
    def forward() -> None:
        for x in sample:
            network(x[None, None])

    def ours() -> None:
        ForwardPass(encoder, batch).sonify_most_active()

    sample = sounds[:4]

    def theirs() -> None:
        for row, x in enumerate(sample):
            for layer in LAYERS:
                captum(network, ends[layer - 1], x)(int(chosen[row, layer - 1]))

    seconds = interleaved({"sonibook": ours, "captum": theirs, "forward": forward}, repeats=3)
    ours_ms = 1e3 * seconds["sonibook"]["median"] / len(sounds)
    theirs_ms = 1e3 * seconds["captum"]["median"] / len(sample)
    forward_ms = 1e3 * seconds["forward"]["median"] / len(sample)
    gflop = dense_gflop(ForwardPass(encoder, sounds[0]))
    return {
        "clips": len(sounds),
        "captum_clips": len(sample),
        "ms_per_clip": {"sonibook": ours_ms, "captum": theirs_ms},
        "dense_gflop": gflop,
        "dense_ms_at_peak": 1e3 * gflop / peak,
        "ratio_dense_at_peak": theirs_ms / (1e3 * gflop / peak),
        "ratio": theirs_ms / ours_ms,
        "ratio_less_forward": (theirs_ms - len(LAYERS) * forward_ms) / ours_ms,
    }


def geometric_mean(values: list[float]) -> float:
    """The mean of ratios."""
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    """Measure, print and write."""
    warnings.simplefilter("ignore", SonibookWarning)  # silent maps are part of the measurement
    sounds, source = clips(32)
    result: dict = {"clips": source, "gemm_peak_gflops": gemm_peak(), "networks": {}}
    for name, encoder in networks().items():
        small = encoder.width < 1
        rows = layer_rows(encoder, sounds[:6:2] if small else sounds[:1])
        summary = {
            "layers": rows,
            "geometric_mean": geometric_mean([row["ratio"] for row in rows]),
            "least": min(row["ratio"] for row in rows),
            "geometric_mean_less_forward": geometric_mean(
                [row["ratio_less_forward"] for row in rows]
            ),
            "most_active": most_active(encoder, sounds, result["gemm_peak_gflops"]),
        }
        result["networks"][name] = summary
        for row in rows:
            print(
                f"{name}, layer {row['layer']:2}: {1e3 * row['captum']:7.1f} -> "
                f"{1e3 * row['sonibook']:6.2f} ms a filter, {row['ratio']:5.1f} x "
                f"({row['ratio_less_forward']:5.1f} x less forward)"
            )
        print(
            f"{name}: geometric mean {summary['geometric_mean']:.1f} x, least "
            f"{summary['least']:.1f} x; most active filter of every layer "
            f"{summary['most_active']['ratio']:.1f} x (dense, at the matrix-multiply peak: "
            f"{summary['most_active']['ratio_dense_at_peak']:.1f} x)"
        )
    write("bench-sonify", result)


if __name__ == "__main__":
    main()
