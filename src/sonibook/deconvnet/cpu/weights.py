"""A block's weights as the backward pass wants them, and one block down by them.

`multiply` and `convolve` take rectified maps and write to `out` what comes out before it is
rectified, both of shape (column, time, channel). The maps begin some steps early: one pooled step
of what comes out depends on `Weights.steps` pooled steps, itself and those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.deconvnet.cpu.windows import SwitchMasks
from sonibook.model.gradients import CACHED_FLOATS
from sonibook.model.layers import effective_weight
from sonibook.model.stack import Block


class Weights:
    """A block's weights in the forms that are multiplied by, each made when first asked."""

    def __init__(self, weight: Float[Tensor, "filter channel tap"], pool: int) -> None:
        self.weight, self.pool = weight, pool
        self.filters, self.channels, self.taps = weight.shape
        self.steps = -(-(self.taps + pool - 1) // pool)

    @cached_property
    def single(self) -> Float[Tensor, "filter tap channel"]:
        """For one live channel: its own weights, flipped."""
        return self.weight.flip(2).transpose(1, 2).contiguous()

    @cached_property
    def convolution(self) -> Float[Tensor, "channel filter 1 tap"]:
        """For all channels: a convolution in channels-last memory that transposes the forward's."""
        flipped = self.weight.flip(2).transpose(0, 1).unsqueeze(2)
        return flipped.contiguous(memory_format=torch.channels_last)

    @cached_property
    def switched(self) -> Float[Tensor, "phase out in"]:
        """Unpooling and transposed convolution as matrices, one for each place a maximum can have.

        They take `steps` pooled steps of all filters to one pooled step of what comes out, that is
        `pool` samples of all channels. The first is for maxima at phase 0 of their windows; each
        other is what the weights for that phase have more than those.
        """
        places = torch.arange(self.pool)
        ago = torch.arange(self.steps).flip(0)
        # A maximum at phase q, some steps ago, reaches the sample at `place` through this tap:
        tap = self.pool * ago + places[:, None] - places[:, None, None]
        reached = (tap >= 0) & (tap < self.taps)
        entries = self.weight[:, :, tap.clamp(0, self.taps - 1)] * reached
        matrices = entries.permute(2, 3, 1, 4, 0).flatten(3, 4).flatten(1, 2)
        return torch.cat((matrices[:1], matrices[1:] - matrices[0])).contiguous()

    @cached_property
    def last(self) -> Float[Tensor, "phase reach filter"]:
        """The last block for a few sounds: from one pooled step to all the samples it reaches.

        The first for a value at phase 0, the others what those for their phase have more.
        """
        kernel, reach = self.weight[:, 0], self.steps * self.pool
        ends = [reach - self.taps - phase for phase in range(self.pool)]
        phases = [F.pad(kernel, (phase, end)).t() for phase, end in enumerate(ends)]
        return torch.stack([phases[0], *(other - phases[0] for other in phases[1:])])


def reach(weights: Sequence[Weights]) -> tuple[int, int]:
    """Samples from one step of the last block's map to the next, and those a step sounds beyond.

    Step s reaches the samples from s * stride to (s + 1) * stride + beyond.
    """
    stride, beyond = 1, 0
    for block in reversed(weights):
        stride, beyond = stride * block.pool, beyond * block.pool + block.taps - 1
    return stride, beyond


def context(weights: Sequence[Weights]) -> int:
    """Steps of the last block's map before a step on which that step's first sample depends."""
    stride, beyond = reach(weights)
    return -(-beyond // stride)


_WEIGHTS: WeakKeyDictionary[nn.Conv1d, tuple[tuple[int, int, int], Weights]] = WeakKeyDictionary()


def weights_of(block: Block) -> Weights:
    """A block's weights, prepared once for all clips; made anew when they have changed."""
    weight = effective_weight(block.conv).detach()
    lasting = weight.data_ptr() == block.conv.weight.data_ptr() and not weight.is_inference()
    if not lasting:
        return Weights(weight, block.pool)
    source = (weight.data_ptr(), weight._version, block.pool)
    known = _WEIGHTS.get(block.conv)
    if known is None or known[0] != source:
        known = _WEIGHTS[block.conv] = (source, Weights(weight, block.pool))
    return known[1]


Maps = Float[Tensor, "column steps channel"]


def single(
    signal: Float[Tensor, "column padded"], weights: Weights, filters: list[int]
) -> Float[Tensor, "column time below"]:
    """Deconvolve one live channel, each column by its own filter; it is unpooled and padded."""
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


def multiply(y: Maps, masks: SwitchMasks, weights: Weights, out: Tensor) -> None:
    """Unpool and deconvolve by one product for each step.

    Half of what a convolution multiplies after unpooling are zeros; this matrix leaves them out.
    Memory is (time, channel, column).
    """
    columns, _, channels = y.shape
    base, *surplus = weights.switched
    steps, size = y.shape[1] - weights.steps + 1, weights.steps * channels
    y = y.permute(1, 2, 0).contiguous()
    seen = y.as_strided((steps, size, columns), (y.stride(0), columns, 1))
    where = [mask.as_strided((steps, 1, size), (channels, 0, 1)) for mask in masks]
    target = out.permute(1, 2, 0).contiguous()
    product = target.view(steps, len(base), columns)
    tile = max(1, min(steps, CACHED_FLOATS // (8 * base.numel())))
    room = y.new_empty(tile, *base.shape)
    for start in range(0, steps, tile):
        here = slice(start, start + tile)
        matrix = base
        for mask, more in zip(where, surplus, strict=True):
            matrix = torch.addcmul(matrix, mask[here], more, out=room[: steps - start])
        torch.bmm(matrix, seen[here], out=product[here])
    if target.data_ptr() != out.data_ptr():
        out.copy_(target.permute(2, 0, 1))


def step(y: Maps, masks: SwitchMasks, weights: Weights, out: Tensor) -> None:
    """Write one block of the backward pass to `out`."""
    if is_switched(weights):
        multiply(y, masks, weights, out)
    else:
        convolve(y, weights, out)


def is_switched(weights: Weights) -> bool:
    """Whether the block has a pool; then `step` wants its columns side by side in memory."""
    return weights.pool > 1
