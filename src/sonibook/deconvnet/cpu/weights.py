"""A convolution's weights, as the way back wants them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.model.layers import effective_weight
from sonibook.model.stack import Block


class Weights:
    """A block's weights in the forms that the way back multiplies by, each made when first asked.

    Parameters
    ----------
    weight : Tensor, shape (filter, channel, tap)
    pool : int
        Of the max-pool after the convolution; 1 where there is none.

    Attributes
    ----------
    steps : int
        Pooled steps that one pooled step of what comes out depends on: itself and those before.
    """

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
    for made in reversed(weights):
        stride, beyond = stride * made.pool, beyond * made.pool + made.taps - 1
    return stride, beyond


def context(weights: Sequence[Weights]) -> int:
    """Steps of the last block's map before a step on which that step's first sample depends."""
    stride, beyond = reach(weights)
    return -(-beyond // stride)


_PREPARED: WeakKeyDictionary[nn.Conv1d, tuple[tuple[int, int, int], Weights]] = WeakKeyDictionary()


def prepared(block: Block) -> Weights:
    """A block's weights, prepared once for all clips; made anew when they have changed."""
    weight = effective_weight(block.conv).detach()
    lasting = weight.data_ptr() == block.conv.weight.data_ptr() and not weight.is_inference()
    if not lasting:
        return Weights(weight, block.pool)
    source = (weight.data_ptr(), weight._version, block.pool)
    known = _PREPARED.get(block.conv)
    if known is None or known[0] != source:
        known = _PREPARED[block.conv] = (source, Weights(weight, block.pool))
    return known[1]
