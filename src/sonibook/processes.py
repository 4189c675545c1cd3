"""What processes that train together tell each other, where gradients have to flow."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def process_count() -> int:
    """How many processes train together; 1 if this one is alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Sum(torch.autograd.Function):
    """Every process's loss hangs on every process's summand: gradients are summed, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def sum_of_all(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sum of a tensor over all processes; gradients flow back to each.

    Parameters
    ----------
    x : Tensor
        Of the same shape in every process.

    Returns
    -------
    Tensor, the shape of `x`
    """
    return _Sum.apply(x)


def rows_of_all(x: Float[Tensor, "rows dim"]) -> Float[Tensor, "all dim"]:
    """The rows of all processes, in order of rank; gradients flow back to each.

    The plain ``all_gather`` of `torch.distributed` would cut the graph.

    Parameters
    ----------
    x : Tensor, shape (rows, dim)
        Of the same shape in every process.

    Returns
    -------
    Tensor, shape (processes * rows, dim)
    """
    # Zeros but for the own rows: the sum puts every process's rows in their place, exactly.
    before, own = dist.get_rank() * len(x), len(x)
    after = process_count() * own - before - own
    return sum_of_all(F.pad(x, (0, 0, before, after)))
