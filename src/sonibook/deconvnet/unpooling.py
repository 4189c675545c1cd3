"""Ways to undo a max-pool without its switches, to put the paper's way to the test.

Each takes what `sonibook.model.operations.max_unpool` takes, and can stand in its place in
`ForwardPass.backward`. All are linear, and what follows is homogeneous (a ReLU, a convolution
without bias): a constant factor here would be a factor of the sound, and rescaling takes it away.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sonibook.model.operations import Map, Pooled, Switches, Unpool, max_unpool


def repeat(x: Pooled, switches: Switches, *, pool: int, length: int) -> Map:
    """Hold each value for a whole window (nearest-neighbour upsampling).

    What the pool had left over at the end, of a map of this `length`, becomes zero. The switches
    are not looked at.
    """
    return _padded(x.repeat_interleave(pool, dim=2), length)


def interpolate(x: Pooled, switches: Switches, *, pool: int, length: int) -> Map:
    """Join the values by straight lines from one window's centre to the next.

    Before the first centre and after the last the values are held.
    """
    return _padded(F.interpolate(x, scale_factor=float(pool), mode="linear"), length)


def insert_zeros(x: Pooled, switches: Switches, *, pool: int, length: int) -> Map:
    """Put each value in the middle of its window, wherever its maximum was.

    The middle of an even window is the sample after it.
    """
    spread = x.new_zeros(*x.shape, pool)
    spread[..., pool // 2] = x
    return _padded(spread.flatten(2), length)


def _padded(x: Tensor, length: int) -> Tensor:
    return F.pad(x, (0, length - x.shape[2]))


#: Every way to undo a max-pool, the paper's first.
UNPOOLING: dict[str, Unpool] = {
    "switches": max_unpool,
    "repeat": repeat,
    "linear": interpolate,
    "zeros": insert_zeros,
}
