"""The layers CNN12 is made of, laid out in memory so that a CPU is quick at them.

Shapes are PyTorch's: ``(batch, channel, time)``. Memory is ``(batch, time, channel)``: the
channels of one time step lie side by side, so that a convolution is one long matrix product.
A two-dimensional convolution over a height of one, in the channels-last format, does exactly
that; everything else in this file follows from it.

So do the derivatives, at which PyTorch's own kernels are slow there: a convolution's weight
gradient over many time steps takes oneDNN up to three times as long as the products it consists of,
a max-pool of two is two slices, and a whole block of convolution, ReLU and pool need not leave the
processor's cache. The numbers are PyTorch's, but for the order in which sums are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Map = Float[Tensor, "batch channel time"]
Pooled = Float[Tensor, "batch channel steps"]
#: Of every clip, or those of one for all of a batch.
Switches = (
    Bool[Tensor, "#batch channel steps"]
    | UInt8[Tensor, "#batch channel steps"]
    | Int[Tensor, "#batch channel steps"]
)
#: By the map, the weight and the bias, where they are wanted.
_Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

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


def _is_long(x: Map, channels: int) -> bool:
    """Whether a map has so many more steps than channels that `_LongConvolution` pays."""
    return channels >= _SOME_CHANNELS and x.shape[2] > 8 * channels


class _LongConvolution(Function):
    """A convolution, unpadded and undilated, of a map with many more steps than channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = _autocast(x, weight)
        ctx.save_for_backward(x, weight)
        return F.conv2d(x.unsqueeze(2), weight.unsqueeze(2), bias).squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> _Gradients:
        x, weight = ctx.saved_tensors
        return _convolution_backward(gradient, x, weight, ctx.needs_input_grad)


class _PooledBlock(Function):
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
    def backward(ctx: Any, gradient: Tensor) -> _Gradients:
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
) -> _Gradients:
    """The gradients of an unpadded convolution by its map, weight and bias, of which are wanted."""
    if not _is_long(x, x.shape[1]):
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


class _PoolOfTwo(Function):
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


#: Weights that outgrow a usual core's cache.
_MANY_WEIGHTS = 2**20


def channels_last(x: Tensor) -> Tensor:
    """Lay the channels of each time step side by side in memory; values and shape stay."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def max_pool(
    x: Map, pool: int, *, out: tuple[Pooled, Switches] | None = None
) -> tuple[Pooled, Switches]:
    """Max-pool, into `out` if given, and its switches: where each window's first maximum was."""
    steps = x.shape[2] // pool
    if pool == 2:
        first, second = x[:, :, 0 : 2 * steps : 2], x[:, :, 1 : 2 * steps : 2]
        pooled, switches = (None, None) if out is None else out
        return torch.maximum(first, second, out=pooled), torch.gt(second, first, out=switches)
    pooled, position = x[:, :, : steps * pool].unflatten(2, (steps, pool)).max(dim=3)
    if out is None:
        return pooled, position.to(switch_type(pool))
    return out[0].copy_(pooled), out[1].copy_(position)


def switch_type(pool: int) -> torch.dtype:
    """The smallest type that can say where in a window of `pool` steps the maximum was."""
    if pool == 2:
        return torch.bool
    return torch.uint8 if pool <= 256 else torch.int32


def he_normal(module: nn.Conv1d | nn.Linear, generator: torch.Generator | None) -> None:
    """Give a layer He (Kaiming) normal weights and zero biases, in place.

    With PyTorch's default an un-normalised stack never leaves chance.
    """
    # Drawn in the order of the shape, however the weights lie in memory.
    fresh = torch.empty(module.weight.shape)
    nn.init.kaiming_normal_(fresh, nonlinearity="relu", generator=generator)
    with torch.no_grad():
        module.weight.copy_(fresh)
        if module.bias is not None:
            module.bias.zero_()


def effective_weight(conv: nn.Conv1d) -> Float[Tensor, "filter channel tap"]:
    """The weights that a convolution really multiplies by, if its class can tell; else `weight`."""
    own = getattr(conv, "effective_weight", None)
    return conv.weight if own is None else own()


def effective_bias(conv: nn.Conv1d) -> Float[Tensor, " filter"] | None:
    """The bias that a convolution really adds, if its class can tell; else `bias`."""
    own = getattr(conv, "effective_bias", None)
    return conv.bias if own is None else own()


def is_simple(conv: nn.Conv1d) -> bool:
    """Whether a convolution is neither strided, dilated, padded nor in groups."""
    shape = (*conv.stride, *conv.dilation, conv.groups, *conv._reversed_padding_repeated_twice)
    return shape == (1, 1, 1, 0, 0)


def convolve(
    x: Map,
    conv: nn.Conv1d,
    weight: Float[Tensor, "filter of_group tap"],
    bias: Float[Tensor, " filter"] | None,
) -> Float[Tensor, "batch filter steps"]:
    """Convolve with weights of `conv`'s shape, the way that is quick for them."""
    # The short cuts are a CPU's alone: XLA has no windows that overlap in memory.
    simple, taps = x.is_cpu and is_simple(conv), weight.shape[2]
    if simple and conv.in_channels == 1 and torch.is_grad_enabled():
        # One channel leaves a convolution nothing to vectorise over: multiply windows instead.
        return F.linear(x[:, 0].unfold(1, taps, 1), weight[:, 0], bias).transpose(1, 2)
    if simple and weight.numel() > _MANY_WEIGHTS and x.numel() < weight.numel() // 8:
        # Few steps, many weights: one product reads them once, as they lie.
        windows = x.transpose(1, 2).unfold(1, taps, 1).transpose(2, 3)
        return F.linear(windows.flatten(2), weight.transpose(1, 2).flatten(1), bias).transpose(1, 2)
    if simple and _is_long(x, conv.in_channels):
        return _LongConvolution.apply(x, weight, bias)
    before, after = conv._reversed_padding_repeated_twice
    if before != after:
        x, before = F.pad(x, (before, after)), 0
    x, weight = x.unsqueeze(2), weight.unsqueeze(2)
    stride, dilation = (1, *conv.stride), (1, *conv.dilation)
    return F.conv2d(x, weight, bias, stride, (0, before), dilation, conv.groups).squeeze(2)


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d`, the same numbers, computed in channels-last memory."""

    #: Whether in training a clip's map depends on the other clips.
    sees_batch = False

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.weight = nn.Parameter(channels_last(self.weight.detach()))

    def effective_weight(self) -> Float[Tensor, "filter channel tap"]:
        """The weights of the convolution that is really computed."""
        return self.weight

    def forward(self, input: Float[Tensor, "batch channel time"]) -> Tensor:
        return convolve(input, self, self.effective_weight(), self.bias)


class MaxPool1d(nn.MaxPool1d):
    """`torch.nn.MaxPool1d`, the same numbers, computed in channels-last memory."""

    def forward(self, input: Float[Tensor, "batch channel time"]) -> Tensor:
        size, *_ = self.kernel_size if isinstance(self.kernel_size, tuple) else (self.kernel_size,)
        if size == 2 and input.is_cpu:
            return _PoolOfTwo.apply(input)
        return F.max_pool2d(input.unsqueeze(2), (1, size)).squeeze(2)


class Blocks(nn.Sequential):
    """Conv-relu-[pool] blocks one after the other; in training, each pooled one is a single step.

    The numbers are those of the modules, one by one. Hooks on them are called in evaluation mode
    and under `torch.no_grad`, and not while a CPU trains.
    """

    def forward(self, input: Float[Tensor, "batch channel time"]) -> Tensor:
        if not (self.training and input.is_cpu and torch.is_grad_enabled()):
            return super().forward(input)
        y, modules = input, list(self)
        while modules:
            match modules[:3]:
                case [Conv1d() as conv, nn.ReLU(), MaxPool1d(kernel_size=2)] if (
                    is_simple(conv) and conv.bias is not None and not conv.sees_batch
                ):
                    y = _PooledBlock.apply(y, conv.effective_weight(), conv.bias)
                    del modules[:3]
                case _:
                    y = modules.pop(0)(y)
        return y
