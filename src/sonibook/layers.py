"""The four layers CNN12 is made of, laid out in memory so that a CPU is quick at them.

Shapes are PyTorch's: ``(batch, channel, time)``. Memory is ``(batch, time, channel)``: the
channels of one time step lie side by side, so that a convolution is one long matrix product.
A two-dimensional convolution over a height of one, in the channels-last format, does exactly
that; everything else in this file follows from it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

#: ReLU halves the second moment of a centred Gaussian and leaves this share of it as variance.
#: Dividing by its square root gives unit variance after ReLU (Brock et al. 2021, section 2).
RELU_GAIN = math.sqrt(2.0 / (1.0 - 1.0 / math.pi))

#: Floats that one step's largest array should hold: four megabytes, about what a core's caches do.
CACHED_FLOATS = 2**20
#: Weights that outgrow a usual core's cache.
_MANY_WEIGHTS = 2**20


def channels_last(x: Tensor) -> Tensor:
    """Lay the channels of each time step side by side in memory; values and shape stay.

    Parameters
    ----------
    x : Tensor, shape (batch, channel, time) or (out, in, kernel)
        A feature map, or the weights of a convolution.

    Returns
    -------
    Tensor, the shape of `x`
    """
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def effective_weight(conv: nn.Conv1d) -> Float[Tensor, "filter channel tap"]:
    """The weights that a convolution really multiplies by, standardised or plain."""
    return conv.effective_weight() if isinstance(conv, Conv1d) else conv.weight


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d`, the same numbers, computed in channels-last memory."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)
        self.weight = nn.Parameter(channels_last(self.weight.detach()))

    def effective_weight(self) -> Float[Tensor, "filter channel tap"]:
        """The weights of the convolution that is really computed."""
        return self.weight

    def forward(self, input: Float[Tensor, "batch channel time"]) -> Tensor:
        weight = self.effective_weight()
        simple = self.padding == (0,) and self.dilation == (1,)
        if simple and self.in_channels == 1:
            # One channel leaves a convolution nothing to vectorise over: multiply windows instead.
            windows = input[:, 0].unfold(1, self.kernel_size[0], 1)
            return F.linear(windows, weight[:, 0], self.bias).transpose(1, 2)
        if simple and weight.numel() > _MANY_WEIGHTS and input.numel() < weight.numel() // 8:
            # Few steps, many weights: one product reads them once, as they lie.
            windows = input.transpose(1, 2).unfold(1, self.kernel_size[0], 1).transpose(2, 3)
            flat = weight.transpose(1, 2).flatten(1)
            return F.linear(windows.flatten(2), flat, self.bias).transpose(1, 2)
        return F.conv2d(
            input.unsqueeze(2),
            weight.unsqueeze(2),
            self.bias,
            padding=(0, int(self.padding[0])),
            dilation=(1, self.dilation[0]),
        ).squeeze(2)


class StandardisedConv1d(Conv1d):
    """A convolution whose filters are centred and scaled to unit gain at every step.

    Scaled weight standardisation (Brock, De & Smith 2021, "Characterizing signal propagation to
    close the performance gap in unnormalized ResNets", equation 1): each filter has its mean
    taken away, is divided by its standard deviation times the square root of its fan-in, and is
    multiplied by the gain of ReLU and by one learned number. No batch statistics: clips of a
    batch know nothing of each other, and the effective weights are plain convolution weights
    (`fold`).

    Parameters
    ----------
    in_channels, out_channels, kernel_size : int
        As for `torch.nn.Conv1d`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.gain = nn.Parameter(torch.ones(out_channels))

    def effective_weight(self) -> Float[Tensor, "filter channel tap"]:
        var, mean = torch.var_mean(self.weight, dim=(1, 2), keepdim=True, correction=0)
        fan_in = self.in_channels * self.kernel_size[0]
        scale = torch.rsqrt(var * fan_in + 1e-8) * (RELU_GAIN * self.gain[:, None, None])
        return (self.weight - mean) * scale

    def fold(self) -> Conv1d:
        """The plain convolution with the same effective weights.

        Returns
        -------
        Conv1d
            Equal to this layer up to rounding (none: the same product is computed).
        """
        plain = Conv1d(self.in_channels, self.out_channels, self.kernel_size[0])
        with torch.no_grad():
            plain.weight.copy_(self.effective_weight())
            if plain.bias is not None and self.bias is not None:
                plain.bias.copy_(self.bias)
        return plain


class MaxPool1d(nn.MaxPool1d):
    """`torch.nn.MaxPool1d`, the same numbers, computed in channels-last memory."""

    def forward(self, input: Float[Tensor, "batch channel time"]) -> Tensor:
        size, *_ = self.kernel_size if isinstance(self.kernel_size, tuple) else (self.kernel_size,)
        return F.max_pool2d(input.unsqueeze(2), (1, size)).squeeze(2)
