"""One block of the way back, for many sounds of a clip at once: unpool, then deconvolve.

All take rectified maps and write to `out` what comes out before it is rectified, both of shape
(lane, time, channel). The maps begin some steps early: one pooled step of what comes out depends
on `Weights.steps` pooled steps, itself and those before. Two ways compute the same:

- `convolve`, for a few lanes: unpool by the switches, then a channels-last convolution.
- `multiply`, for many: where the maxima were is the same for all lanes, so that unpooling and
  deconvolution together are one matrix for each step. Half of what a convolution multiplies after
  unpooling are zeros; this matrix leaves them out. Memory is (time, channel, lane).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sonibook.engine.weights import Weights
from sonibook.layers import CACHED_FLOATS

Maps = Float[Tensor, "lane steps channel"]
Gates = Float[Tensor, "phase steps channel"]

#: Lanes from which on a matrix for every step is worth making.
MANY = 16


def unpool(y: Maps, gates: Gates) -> Float[Tensor, "lane time below"]:
    """Each value where its maximum was: one gate for each phase after the first, 1 or 0."""
    if not len(gates):
        return y
    lanes, steps, channels = y.shape
    z = y.new_empty(lanes, steps, 1 + len(gates), channels)
    rest = y
    for phase, gate in enumerate(gates, start=1):
        torch.mul(y, gate, out=z[:, :, phase])
        target = z[:, :, 0] if phase == len(gates) else None
        rest = torch.sub(rest, z[:, :, phase], out=target)
    return z.flatten(1, 2)


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


def convolve(y: Maps, gates: Gates, weights: Weights, out: Tensor) -> None:
    """Unpool, then deconvolve by a convolution: for a few lanes."""
    early = weights.pool * (weights.steps - 1) - (weights.taps - 1)
    z = unpool(y, gates)[:, early:].transpose(1, 2).unsqueeze(2)
    out.copy_(F.conv2d(z, weights.convolution).squeeze(2).transpose(1, 2))


def multiply(y: Maps, gates: Gates, weights: Weights, out: Tensor) -> None:
    """Unpool and deconvolve by one product for each step: for many lanes."""
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


def to_sound(y: Maps, gates: Gates, weights: Weights, out: Tensor) -> None:
    """The last step for a few lanes, whose one channel leaves a convolution little to do.

    A value goes to phase 0, or to the phase of its gate: it times the weights at phase 0, plus it
    times its gate times what the weights at that phase have more.
    """
    lanes, steps, _ = y.shape
    pool, reach = weights.pool, weights.last.shape[2]
    spread = y @ weights.last[0]
    for gate, more in zip(gates, weights.last[1:], strict=True):
        spread += (y * gate) @ more
    sound = y.new_zeros(lanes, steps, pool)
    for ago in range(reach // pool):
        sound[:, ago:] += spread[:, : steps - ago, ago * pool : (ago + 1) * pool]
    out.copy_(sound[:, weights.steps - 1 :].flatten(1).unsqueeze(2))


def step(y: Maps, gates: Gates, weights: Weights, out: Tensor) -> None:
    """Write one block of the way back to `out`, by whichever way is quickest."""
    if is_many(len(y), weights):
        multiply(y, gates, weights, out)
    elif weights.weight.shape[1] == 1:
        to_sound(y, gates, weights, out)
    else:
        convolve(y, gates, weights, out)


def is_many(lanes: int, weights: Weights) -> bool:
    """Whether `step` multiplies, and so wants its lanes side by side in memory."""
    return lanes >= MANY and weights.pool > 1
