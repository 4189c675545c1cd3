"""Random numbers that depend on nothing but where they are used.

Every clip of every step has a stream of its own, so that what is drawn for it is the same however
the batch is divided among processes, whatever was drawn before, and after a restart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: Clips that are mixed are partners within stretches of this many rows of the whole batch, so that
#: a process finds every partner in its own part.
PARTNERS = 16


def seeded(*keys: int) -> np.random.Generator:
    """A random generator that depends on nothing but `keys` (integers >= 0).

    Zeros at the end make no difference among the first four `keys`.
    """
    return np.random.default_rng(np.random.SeedSequence(keys))


class RandomStreams:
    """A stream of random numbers for each row of a batch.

    Parameters
    ----------
    seed, step : int >= 0
        Of the run, and within it.
    rows : sequence of int >= 0
        The rows' places in the whole batch.
    purpose : int >= 0
        Tells streams of the same row and step apart.
    """

    def __init__(self, seed: int, step: int, rows: Sequence[int], *, purpose: int = 0) -> None:
        key = np.array([seed, step], np.uint64)
        self._streams = [
            np.random.Generator(np.random.Philox(key=key, counter=[0, 0, purpose, row]))
            for row in rows
        ]

    def __len__(self) -> int:
        return len(self._streams)

    def where(self, chosen: Bool[Tensor, " batch"]) -> RandomStreams:
        """The streams of some of the rows."""
        some = RandomStreams(0, 0, ())
        some._streams = [self._streams[row] for row in chosen.nonzero()[:, 0].tolist()]
        return some

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "batch 1 1"]:
        """One number a row, uniform in [low, high)."""
        return self._column([stream.uniform(low, high) for stream in self._streams])

    def integers(self, count: int) -> Int[Tensor, " batch"]:
        """One whole number a row, from 0 to `count` - 1."""
        return torch.tensor([int(stream.integers(count)) for stream in self._streams])

    def chosen(self, share: float) -> Bool[Tensor, " batch"]:
        """True with probability `share`; nothing is drawn where that is 1."""
        if share == 1.0:
            return torch.ones(len(self), dtype=torch.bool)
        return torch.tensor([stream.random() < share for stream in self._streams]).bool()

    def beta(self, alpha: float) -> Float[Tensor, "batch 1 1"]:
        """One number a row, from the Beta distribution with both parameters `alpha`."""
        return self._column([stream.beta(alpha, alpha) for stream in self._streams])

    def normal(self, samples: int) -> Float[Tensor, "batch 1 samples"]:
        """Independent standard normal numbers."""
        numbers = torch.empty(len(self), 1, samples)
        for row, stream in zip(numbers.numpy(), self._streams, strict=True):
            stream.standard_normal(dtype=np.float32, out=row[0])
        return numbers

    def kept(self, share: float, count: int) -> Float[Tensor, "batch count"]:
        """1 with probability `share`, else 0."""
        numbers = [stream.random(count, dtype=np.float32) < share for stream in self._streams]
        return torch.from_numpy(np.stack(numbers).astype(np.float32))

    def partners(self) -> Int[Tensor, " batch"]:
        """Another row for each, near it (`PARTNERS`); its own only if there is no other.

        The rows must be a whole stretch of the batch that begins at a multiple of `PARTNERS`.
        """
        count = len(self)
        stretches = max(1, count // PARTNERS)
        partners = []
        for row, stream in enumerate(self._streams):
            stretch = min(row // PARTNERS, stretches - 1)
            first = stretch * PARTNERS
            # The last stretch takes in what is left over.
            size = count - first if stretch == stretches - 1 else PARTNERS
            away = 1 + int(stream.integers(size - 1)) if size > 1 else 0
            partners.append(first + (row - first + away) % size)
        return torch.tensor(partners)

    def _column(self, numbers: list[float]) -> Float[Tensor, "batch 1 1"]:
        return torch.tensor(numbers, dtype=torch.float32)[:, None, None]
