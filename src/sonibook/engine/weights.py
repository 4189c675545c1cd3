"""A convolution's weights, as the way back wants them."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.layers import effective_weight
from sonibook.stack import Block


@dataclass(frozen=True)
class Weights:
    """A convolution's weights as the way back wants them, and what they were made from."""

    source: tuple[int, int]
    top: Float[Tensor, "filter tap channel"]  # for the step with one live channel
    full: Float[Tensor, "channel filter 1 tap"]  # in channels-last memory, for those with many


_PREPARED: WeakKeyDictionary[nn.Conv1d, Weights] = WeakKeyDictionary()


def prepared(block: Block) -> Weights:
    """A block's weights, flipped once for all clips; made anew when the weights have changed."""
    weight = effective_weight(block.conv).detach()
    lasting = weight.data_ptr() == block.conv.weight.data_ptr() and not weight.is_inference()
    source = (weight.data_ptr(), weight._version) if lasting else (0, 0)
    known = _PREPARED.get(block.conv)
    if known is not None and lasting and known.source == source:
        return known
    flipped = weight.flip(2)
    fresh = Weights(
        source,
        top=flipped.transpose(1, 2).contiguous(),
        full=flipped.transpose(0, 1).unsqueeze(2).contiguous(memory_format=torch.channels_last),
    )
    if lasting:
        _PREPARED[block.conv] = fresh
    return fresh


def surplus(first: Block) -> int:
    """Columns that `last_step` adds so that they divide by the pool."""
    return -(first.extent + first.pool - 1) % first.pool


def last_step(
    weight: Float[Tensor, "filter 1 kernel"], pool: int
) -> Float[Tensor, "phase filter reach"]:
    """The last deconvolution as matrices: from one pooled step to all the samples it reaches.

    The first is for a value at phase 0 of its pool; each other is what the weights at that phase
    have more than those at phase 0.
    """
    kernel = weight[:, 0]
    reach = kernel.shape[1] + pool - 1
    reach += -reach % pool
    phases = [F.pad(kernel, (phase, reach - kernel.shape[1] - phase)) for phase in range(pool)]
    return torch.stack([phases[0], *(other - phases[0] for other in phases[1:])]).detach()
