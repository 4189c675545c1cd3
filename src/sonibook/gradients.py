"""Two derivatives that PyTorch's own kernels are slow at on a CPU, for `sonibook.layers`.

In channels-last memory a convolution's weight gradient over many time steps takes oneDNN three
times as long as the products it consists of, and a max-pool of two is two slices. The numbers are
PyTorch's, but for the order in which sums are taken.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Map = Float[Tensor, "batch channel time"]


class LongConvolution(Function):
    """A convolution, unpadded and undilated, of a map with many more steps than channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x.unsqueeze(2), weight.unsqueeze(2), bias).squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        steps, taps = gradient.shape[2], weight.shape[2]
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2).transpose(0, 1)
            padded = (0, taps - 1)
            for_x = F.conv2d(gradient.unsqueeze(2), turned.unsqueeze(2), padding=padded).squeeze(2)
        if ctx.needs_input_grad[1]:
            rows = x.transpose(1, 2)
            each = [torch.bmm(gradient, rows[:, tap : tap + steps]).sum(0) for tap in range(taps)]
            for_weight = torch.stack(each, dim=1).transpose(1, 2)
        if ctx.needs_input_grad[2]:
            for_bias = gradient.sum(dim=(0, 2))
        return for_x, for_weight, for_bias


class PoolOfTwo(Function):
    """The larger of every two steps; of equal ones the first passes its gradient on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        steps = x.shape[2] // 2
        first, second = x[:, :, 0 : 2 * steps : 2], x[:, :, 1 : 2 * steps : 2]
        ctx.save_for_backward(second > first)
        ctx.length = x.shape[2]
        return torch.maximum(first, second)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (switch,) = ctx.saved_tensors
        batch, channels, steps = gradient.shape
        whole = gradient.new_empty(batch, ctx.length, channels).transpose(1, 2)
        whole[:, :, 2 * steps :] = 0
        second = torch.mul(gradient, switch, out=whole[:, :, 1 : 2 * steps : 2])
        torch.sub(gradient, second, out=whole[:, :, 0 : 2 * steps : 2])
        return whole
