"""One block of the way back, for many sounds of a clip at once: unpool, then deconvolve.

`multiply` and `convolve` take rectified maps and write to `out` what comes out before it is
rectified, both of shape (lane, time, channel). The maps begin some steps early: one pooled step of
what comes out depends on `Weights.steps` pooled steps, itself and those before.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sonibook.deconvnet.cpu.clip import Gates
from sonibook.deconvnet.cpu.weights import Weights
from sonibook.model.gradients import CACHED_FLOATS

Maps = Float[Tensor, "lane steps channel"]


def single(
    signal: Float[Tensor, "lane padded"], weights: Weights, filters: list[int]
) -> Float[Tensor, "lane time below"]:
    """Deconvolve one live channel, each lane by its own filter; it is unpooled and padded."""
    chosen, taps = weights.single[filters], weights.taps
    if chosen.shape[2] > 1:
        return torch.bmm(signal.unfold(1, taps, 1), chosen)
    time = signal.shape[1] - taps + 1
    sound = signal[:, :time] * chosen[:, 0]
    for tap in range(1, taps):
        sound.addcmul_(signal[:, tap : tap + time], chosen[:, tap])
    return sound.unsqueeze(2)


def convolve(y: Maps, weights: Weights, out: Tensor) -> None:
    """Deconvolve by a channels-last convolution: where there is no pool to undo."""
    out.copy_(
        F.conv2d(y.transpose(1, 2).unsqueeze(2), weights.convolution)[:, :, 0].transpose(1, 2)
    )


def multiply(y: Maps, gates: Gates, weights: Weights, out: Tensor) -> None:
    """Unpool and deconvolve by one product for each step.

    Half of what a convolution multiplies after unpooling are zeros; this matrix leaves them out.
    Memory is (time, channel, lane).
    """
    lanes, _, channels = y.shape
    base, *surplus = weights.switched
    steps, size = y.shape[1] - weights.steps + 1, weights.steps * channels
    y = y.permute(1, 2, 0).contiguous()
    seen = y.as_strided((steps, size, lanes), (y.stride(0), lanes, 1))
    where = [gate.as_strided((steps, 1, size), (channels, 0, 1)) for gate in gates]
    target = out.permute(1, 2, 0).contiguous()
    product = target.view(steps, len(base), lanes)
    tile = max(1, min(steps, CACHED_FLOATS // (8 * base.numel())))
    room = y.new_empty(tile, *base.shape)
    for start in range(0, steps, tile):
        here = slice(start, start + tile)
        matrix = base
        for gate, more in zip(where, surplus, strict=True):
            matrix = torch.addcmul(matrix, gate[here], more, out=room[: steps - start])
        torch.bmm(matrix, seen[here], out=product[here])
    if target.data_ptr() != out.data_ptr():
        out.copy_(target.permute(2, 0, 1))


def step(y: Maps, gates: Gates, weights: Weights, out: Tensor) -> None:
    """Write one block of the way back to `out`."""
    if is_switched(weights):
        multiply(y, gates, weights, out)
    else:
        convolve(y, weights, out)


def is_switched(weights: Weights) -> bool:
    """Whether the block has a pool; then `step` wants its lanes side by side in memory."""
    return weights.pool > 1
