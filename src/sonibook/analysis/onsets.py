"""When a sound begins, and when a feature map does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sonibook.model.stack import Block, padding_before, receptive_field, stride

#: A sound has begun when it first reaches this level, re its peak: -20 dB.
_THRESHOLD = 0.1


def onsets(x: Float[Tensor, "rows time"], *, sample_rate: int | float) -> Float[Tensor, " rows"]:
    """When each of some sounds first reaches a tenth of its peak.

    Examples
    --------
    >>> onsets(torch.tensor([[0.0, 0.05, -0.4, 1.0]]), sample_rate=10.0).tolist()
    [0.2]
    """
    size = x.abs()
    peak = size.amax(dim=1, keepdim=True)
    first = (size >= _THRESHOLD * peak).int().argmax(dim=1).double() / sample_rate
    return first.masked_fill(peak[:, 0] == 0, torch.nan)


def map_onsets(
    maps: Float[Tensor, "rows steps"],
    quiet: Float[Tensor, " rows"],
    blocks: Sequence[Block],
    *,
    sample_rate: int | float,
) -> Float[Tensor, " rows"]:
    """When each of some feature maps first reaches a tenth of what it reaches at most."""
    step = stride(blocks, len(blocks))
    middle = (receptive_field(blocks, len(blocks)) - 1) / 2 - padding_before(blocks, len(blocks))
    above = (maps - quiet[:, None]).clamp_min(0.0)
    return onsets(above, sample_rate=sample_rate / step) + middle / sample_rate
