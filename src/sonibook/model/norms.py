"""Normalisation that folds away: it helps a network to train, and leaves plain convolutions.

The paper trains without any. A normalised convolution here can always say which plain weights it
multiplies by (`effective_weight`), and `fold` gives the plain convolution itself.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.model.layers import Conv1d

#: ReLU halves the second moment of a centred Gaussian and leaves this share of it as variance.
#: Dividing by its square root gives unit variance after ReLU (Brock et al. 2021, section 2).
RELU_GAIN = math.sqrt(2.0 / (1.0 - 1.0 / math.pi))
#: Of batch normalisation, as PyTorch's.
_MOMENTUM, _EPS = 0.1, 1e-5


class FoldableConv1d(Conv1d):
    """A convolution with a normalisation that a plain one can stand in for."""

    bias: nn.Parameter

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride)
        self.gain = nn.Parameter(torch.ones(out_channels))

    def effective_bias(self) -> Float[Tensor, " filter"]:
        """The bias that is really added."""
        return self.bias

    def fold(self) -> Conv1d:
        """The plain convolution with the same effective weights."""
        sizes = self.in_channels, self.out_channels, self.kernel_size[0]
        plain = Conv1d(*sizes, stride=self.stride[0]).to(self.weight)
        folded = {"weight": self.effective_weight(), "bias": self.effective_bias()}
        plain.load_state_dict(folded)
        return plain


class StandardisedConv1d(FoldableConv1d):
    """A convolution whose filters are centred and scaled to unit gain at every step.

    Scaled weight standardisation (Brock, De & Smith 2021, "Characterizing signal propagation to
    close the performance gap in unnormalized ResNets", equation 1), times one learned number a
    filter. No batch statistics: clips of a batch know nothing of each other.
    """

    def effective_weight(self) -> Float[Tensor, "filter channel tap"]:
        var, mean = torch.var_mean(self.weight, dim=(1, 2), keepdim=True, correction=0)
        fan_in = self.in_channels * self.kernel_size[0]
        scale = torch.rsqrt(var * fan_in + 1e-8) * (RELU_GAIN * self.gain[:, None, None])
        return (self.weight - mean) * scale


class BatchNormConv1d(FoldableConv1d):
    """A convolution followed by batch normalisation (Ioffe & Szegedy 2015).

    For comparison: clips of a batch see each other's statistics, and where several processes train
    together the statistics are those of the whole batch, so that no process can tell its own clips
    from the others' (a leak that contrastive training would exploit; Chen et al. 2020).
    """

    running_mean: Tensor
    running_var: Tensor
    sees_batch = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride)
        self.register_buffer("running_mean", torch.zeros(out_channels))
        self.register_buffer("running_var", torch.ones(out_channels))

    def _scale(self) -> Float[Tensor, " filter"]:
        return self.gain * torch.rsqrt(self.running_var + _EPS)

    def effective_weight(self) -> Float[Tensor, "filter channel tap"]:
        return self.weight * self._scale()[:, None, None]

    def effective_bias(self) -> Float[Tensor, " filter"]:
        return super().effective_bias() - self.running_mean * self._scale()

    def forward(self, input: Float[Tensor, "batch channel time"]) -> Tensor:
        if not self.training:
            return self.convolve(input, self.effective_weight(), self.effective_bias())
        y = self.convolve(input, self.weight, None)
        mean, var = _moments(y)
        with torch.no_grad():
            count = y.shape[0] * y.shape[2] * process_count()
            self.running_mean.lerp_(mean, _MOMENTUM)
            self.running_var.lerp_(var * (count / max(count - 1, 1)), _MOMENTUM)
        scale = self.gain * torch.rsqrt(var + _EPS)
        shift = super().effective_bias() - mean * scale
        return y * scale[:, None] + shift[:, None]


def _moments(
    y: Float[Tensor, "batch channel time"],
) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """Mean and variance of each channel over the whole batch, all processes together."""
    var, mean = torch.var_mean(y, dim=(0, 2), correction=0)
    if process_count() == 1:
        return mean, var
    # Every process has as many clips: the moments are means of moments.
    both = torch.stack((mean, var + mean.square())) / process_count()
    mean, square = sum_of_all(both)
    return mean, square - mean.square()


def process_count() -> int:
    """How many processes train together; 1 if this one is alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_of_all(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sum of a tensor, of one shape everywhere, over all processes; gradients flow back."""
    return _Sum.apply(x)


class _Sum(torch.autograd.Function):
    """Every process's loss hangs on every process's summand: gradients are summed, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])
