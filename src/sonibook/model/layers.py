"""The layers CNN12 is made of, laid out in memory so that a CPU is quick at them.

Shapes are PyTorch's: ``(batch, channel, time)``. Memory is ``(batch, time, channel)``: the
channels of one time step lie side by side, so that a convolution is one long matrix product.
A two-dimensional convolution over a height of one, in the channels-last format, does exactly
that; everything else in this file follows from it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonibook.model.gradients import LongConvolution, PooledBlock, PoolOfTwo, is_long

#: Weights that outgrow a usual core's cache.
_MANY_WEIGHTS = 2**20


def channels_last(x: Tensor) -> Tensor:
    """Lay the channels of each time step side by side in memory; values and shape stay."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


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


def kernel_extent(conv: nn.Conv1d) -> int:
    """Samples from the first to the last tap of a kernel."""
    return int(conv.dilation[0]) * (int(conv.kernel_size[0]) - 1) + 1


def zeros_around(conv: nn.Conv1d) -> tuple[int, int]:
    """Zeros that a convolution adds before and after its input."""
    if isinstance(conv.padding, str):
        total = kernel_extent(conv) - 1 if conv.padding == "same" else 0
        return total // 2, total - total // 2
    return int(conv.padding[0]), int(conv.padding[0])


def spread(x: Tensor, conv: nn.Conv1d) -> Float[Tensor, "batch channel time"]:
    """The transpose of a convolution: each value spread over its kernel, and no padding cut off."""
    weight, stride, dilation = effective_weight(conv), int(conv.stride[0]), int(conv.dilation[0])
    if conv.in_channels == 1:
        # One channel leaves a convolution nothing to vectorise over: multiply, then add by places.
        products = weight[:, 0].t() @ x
        time = stride * (x.shape[2] - 1) + dilation * (weight.shape[2] - 1) + 1
        size, taps = (1, time), (1, weight.shape[2])
        return F.fold(products, size, taps, (1, dilation), stride=(1, stride)).squeeze(2)
    # In two dimensions, of which one has a single step: in channels-last memory a CPU is several
    # times as quick at it as at `conv_transpose1d`.
    return F.conv_transpose2d(
        channels_last(x).unsqueeze(2),
        weight.unsqueeze(2),
        stride=(1, stride),
        dilation=(1, dilation),
        groups=conv.groups,
    ).squeeze(2)


def spread_single(
    x: Float[Tensor, "batch steps"], conv: nn.Conv1d, filters: Int[Tensor, " batch"]
) -> Float[Tensor, "batch channel time"]:
    """`spread` of maps of which a single filter is alive, each by the weights of its own."""
    if (conv.groups, conv.stride, conv.dilation) != (1, (1,), (1,)):
        only = x.new_zeros(len(x), x.shape[1], conv.out_channels)
        only[torch.arange(len(x), device=x.device), :, filters] = x
        return spread(only.transpose(1, 2), conv)
    kernels = effective_weight(conv)[filters].flip(2).transpose(1, 2)
    beyond = kernels.shape[1] - 1
    return (F.pad(x, (beyond, beyond)).unfold(1, beyond + 1, 1) @ kernels).transpose(1, 2)


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d`, the same numbers, computed in channels-last memory."""

    #: Whether in training a clip's map depends on the other clips.
    sees_batch = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding=padding, dilation=dilation
        )
        self.weight = nn.Parameter(channels_last(self.weight.detach()))

    @property
    def is_simple(self) -> bool:
        """Whether it is neither strided, padded nor dilated."""
        return self.stride == (1,) and self.padding == (0,) and self.dilation == (1,)

    def effective_weight(self) -> Float[Tensor, "filter channel tap"]:
        """The weights of the convolution that is really computed."""
        return self.weight

    def forward(self, input: Float[Tensor, "batch channel time"]) -> Tensor:
        return self.convolve(input, self.effective_weight(), self.bias)

    def convolve(
        self,
        input: Float[Tensor, "batch channel time"],
        weight: Float[Tensor, "filter channel tap"],
        bias: Float[Tensor, " filter"] | None,
    ) -> Tensor:
        """Convolve with weights of this layer's shape, the way that is quick for them."""
        # The two short cuts are a CPU's alone: XLA has no windows that overlap in memory.
        simple = input.is_cpu and self.is_simple
        if simple and self.in_channels == 1 and torch.is_grad_enabled():
            # One channel leaves a convolution nothing to vectorise over: multiply windows instead.
            windows = input[:, 0].unfold(1, self.kernel_size[0], 1)
            return F.linear(windows, weight[:, 0], bias).transpose(1, 2)
        if simple and weight.numel() > _MANY_WEIGHTS and input.numel() < weight.numel() // 8:
            # Few steps, many weights: one product reads them once, as they lie.
            windows = input.transpose(1, 2).unfold(1, self.kernel_size[0], 1).transpose(2, 3)
            flat = weight.transpose(1, 2).flatten(1)
            return F.linear(windows.flatten(2), flat, bias).transpose(1, 2)
        if simple and is_long(input, self.in_channels):
            return LongConvolution.apply(input, weight, bias)
        return F.conv2d(
            input.unsqueeze(2),
            weight.unsqueeze(2),
            bias,
            stride=(1, self.stride[0]),
            padding=(0, int(self.padding[0])),
            dilation=(1, self.dilation[0]),
        ).squeeze(2)


class MaxPool1d(nn.MaxPool1d):
    """`torch.nn.MaxPool1d`, the same numbers, computed in channels-last memory."""

    def forward(self, input: Float[Tensor, "batch channel time"]) -> Tensor:
        size, *_ = self.kernel_size if isinstance(self.kernel_size, tuple) else (self.kernel_size,)
        if size == 2 and input.is_cpu:
            return PoolOfTwo.apply(input)
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
                    conv.is_simple and conv.bias is not None and not conv.sees_batch
                ):
                    y = PooledBlock.apply(y, conv.effective_weight(), conv.bias)
                    del modules[:3]
                case _:
                    y = modules.pop(0)(y)
        return y
