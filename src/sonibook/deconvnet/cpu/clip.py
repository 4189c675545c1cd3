"""What the way back needs to know of a clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sonibook.deconvnet.cpu.windows import Window

Gates = Float[Tensor, "phase steps channel"]


@dataclass(frozen=True)
class Clip:
    """One clip of a forward pass, layer 1 first.

    Attributes
    ----------
    maps : sequence of Tensor, shapes (filter, steps)
    switches : sequence of Tensor or None, the shapes of `maps`
    gates : callable
        For a layer and a stretch of its steps, shape (phase, stretch, filter): 1 where the maximum
        was at phase 1, 2 …, else 0. Steps are counted from `early` steps before the first, one less
        than `Weights.steps`; as many are added at the end.
    """

    maps: Sequence[Float[Tensor, "_ _"]]
    switches: Sequence[Bool[Tensor, "_ _"] | UInt8[Tensor, "_ _"] | None]
    gates: Callable[[int, slice], Gates]

    def unpooled(self, layer: int, window: Window, pool: int) -> Float[Tensor, " time"]:
        """The one live map of a window, each value where its maximum was."""
        steps = slice(window.first, window.last)
        values = self.maps[layer - 1][window.filter, steps]
        switches = self.switches[layer - 1]
        if switches is None:
            return values
        position = torch.arange(pool)
        return (values[:, None] * (switches[window.filter, steps, None] == position)).flatten()
