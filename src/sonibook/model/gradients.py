"""Derivatives that PyTorch's own kernels are slow at on a CPU, for `sonibook.model.layers`.

In channels-last memory a convolution's weight gradient over many time steps takes oneDNN up to
three times as long as the products it consists of, a max-pool of two is two slices, and a whole
block of convolution, ReLU and pool need not leave the processor's cache. The numbers are PyTorch's,
but for the order in which sums are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Map = Float[Tensor, "batch channel time"]
#: By the map, the weight and the bias, where they are wanted.
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

#: Floats that one step's largest array should hold: four megabytes, about what a core's caches do.
CACHED_FLOATS = 2**20
#: From so many channels on, products for the weight gradient fill a core.
_SOME_CHANNELS = 64
#: Whole numbers as wide as floats, by their bytes.
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _autocast(*inputs: Tensor) -> tuple[Tensor, ...]:
    """The inputs as a convolution takes them: in low precision where `torch.autocast` asks."""
    if not torch.is_autocast_enabled("cpu"):
        return inputs
    return tuple(one.to(torch.get_autocast_dtype("cpu")) for one in inputs)


def is_long(x: Map, channels: int) -> bool:
    """Whether a map has so many more steps than channels that `LongConvolution` pays."""
    return channels >= _SOME_CHANNELS and x.shape[2] > 8 * channels


class LongConvolution(Function):
    """A convolution, unpadded and undilated, of a map with many more steps than channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = _autocast(x, weight)
        ctx.save_for_backward(x, weight)
        return F.conv2d(x.unsqueeze(2), weight.unsqueeze(2), bias).squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        return _convolution_backward(gradient, x, weight, ctx.needs_input_grad)


class PooledBlock(Function):
    """Convolution, ReLU and max-pool of two: a few clips at a time, so that all stays in cache.

    Switches are masks, as `_unpooled` takes them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight, bias = _autocast(x, weight, bias)
        steps = (x.shape[2] - weight.shape[2] + 1) // 2
        pooled = x.new_empty(len(x), steps, len(weight)).transpose(1, 2)
        masks = torch.empty_like(pooled, dtype=_BITS[x.element_size()])
        for some in _few_clips(pooled):
            y = F.conv2d(x[some].unsqueeze(2), weight.unsqueeze(2), bias).squeeze(2)
            first, second = y[:, :, 0 : 2 * steps : 2], y[:, :, 1 : 2 * steps : 2]
            torch.maximum(first, second, out=pooled[some]).relu_()
            # The bits of positive floats are in the order of their values, and of two negative
            # ones ReLU lets neither pass.
            bits = masks[some]
            torch.gt(second.view(bits.dtype), first.view(bits.dtype), out=bits).neg_()
        ctx.save_for_backward(x, weight, pooled, masks)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, weight, pooled, masks = ctx.saved_tensors
        length = x.shape[2] - weight.shape[2] + 1
        wanted = ctx.needs_input_grad
        for_x = torch.empty_like(x) if wanted[0] else None
        precise = torch.promote_types(weight.dtype, torch.float32)
        for_weight = torch.zeros_like(weight, dtype=precise)
        for_bias = weight.new_zeros(len(weight), dtype=precise)
        for some in _few_clips(pooled):
            passed = torch.ops.aten.threshold_backward(gradient[some], pooled[some], 0)
            whole = _unpooled(passed, masks[some], length)
            by_x, by_weight, by_bias = _convolution_backward(whole, x[some], weight, wanted)
            if for_x is not None and by_x is not None:
                for_x[some] = by_x
            if by_weight is not None:
                for_weight += by_weight
            if by_bias is not None:
                for_bias += by_bias
        return for_x, for_weight if wanted[1] else None, for_bias if wanted[2] else None


def _few_clips(pooled: Map) -> list[slice]:
    """The batch in parts whose convolutions a core's caches can hold."""
    # oneDNN leaves a single clip of one channel to a slower kernel.
    few = max(2, CACHED_FLOATS // max(1, 2 * pooled.shape[1:].numel()))
    return [slice(start, start + few) for start in range(0, len(pooled), few)]


def _convolution_backward(
    gradient: Float[Tensor, "batch filter steps"], x: Map, weight: Tensor, wanted: Sequence[bool]
) -> Gradients:
    """The gradients of an unpadded convolution by its map, weight and bias, of which are wanted."""
    if not is_long(x, x.shape[1]):
        found = torch.ops.aten.convolution_backward(
            gradient.unsqueeze(2), x.unsqueeze(2), weight.unsqueeze(2), [len(weight)],
            [1, 1], [0, 0], [1, 1], False, [0, 0], 1, list(wanted),
        )  # fmt: skip
        for_x, for_weight, for_bias = found
        return (
            for_x.squeeze(2) if wanted[0] else None,
            for_weight.squeeze(2) if wanted[1] else None,
            for_bias if wanted[2] else None,
        )
    steps, taps = gradient.shape[2], weight.shape[2]
    for_x = for_weight = None
    if wanted[0]:
        turned = weight.flip(2).transpose(0, 1).unsqueeze(2)
        for_x = F.conv2d(gradient.unsqueeze(2), turned, padding=(0, taps - 1)).squeeze(2)
    if wanted[1]:
        rows = x.transpose(1, 2)
        each = [torch.bmm(gradient, rows[:, tap : tap + steps]).sum(0) for tap in range(taps)]
        for_weight = torch.stack(each, dim=1).transpose(1, 2)
    return for_x, for_weight, gradient.sum(dim=(0, 2)) if wanted[2] else None


class PoolOfTwo(Function):
    """The larger of every two steps; of equal ones the first passes its gradient on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        steps = x.shape[2] // 2
        first, second = x[:, :, 0 : 2 * steps : 2], x[:, :, 1 : 2 * steps : 2]
        masks = torch.empty_like(first, dtype=_BITS[x.element_size()])
        ctx.save_for_backward(torch.gt(second, first, out=masks).neg_())
        ctx.length = x.shape[2]
        return torch.maximum(first, second)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (masks,) = ctx.saved_tensors
        return _unpooled(gradient, masks, ctx.length)


def _unpooled(
    gradient: Float[Tensor, "batch channel steps"],
    masks: Int[Tensor, "batch channel steps"],
    length: int,
) -> Map:
    """Each step's gradient at the one of two that was larger, and zero at the other.

    Where the second was, its mask has all bits set, else none. A float times nought or one is its
    bits and such a mask, which a CPU has done in a fraction of the time that a product with a
    boolean takes, and in bfloat16 too.
    """
    batch, channels, steps = gradient.shape
    whole = gradient.new_empty(batch, length, channels).transpose(1, 2)
    whole[:, :, 2 * steps :] = 0
    bits, both = gradient.view(masks.dtype), whole.view(masks.dtype)
    second = torch.bitwise_and(bits, masks, out=both[:, :, 1 : 2 * steps : 2])
    torch.bitwise_xor(bits, second, out=both[:, :, 0 : 2 * steps : 2])
    return whole
