"""A network some of whose layers have forgotten what they learned (Adebayo et al. 2018)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy

import torch
from torch import nn

from sonibook.model.layers import he_normal
from sonibook.model.norms import FoldableConv1d
from sonibook.model.stack import Block


def untrained(blocks: Sequence[Block], *, seed: int) -> tuple[Block, ...]:
    """The same stack with fresh He (Kaiming) weights and zero biases.

    Parameters
    ----------
    blocks : sequence of Block
    seed : int >= 0

    Returns
    -------
    tuple of Block
        With convolutions of their own; those that were normalised are plain.
    """
    generator = torch.Generator().manual_seed(seed)
    return tuple(Block(_fresh(block.conv, generator), block.pool) for block in blocks)


def _fresh(conv: nn.Conv1d, generator: torch.Generator) -> nn.Conv1d:
    copy = conv.fold() if isinstance(conv, FoldableConv1d) else deepcopy(conv)
    he_normal(copy, generator)
    return copy


def mixed(
    blocks: Sequence[Block], others: Sequence[Block], layers: Collection[int]
) -> nn.Sequential:
    """A network whose `layers` are those of `others`, and all the rest those of `blocks`.

    Parameters
    ----------
    blocks, others : sequence of Block
        Of one shape. The network shares their weights.
    layers : collection of int
        Counted from 1.

    Returns
    -------
    torch.nn.Sequential
    """
    modules: list[nn.Module] = []
    for layer, (block, other) in enumerate(zip(blocks, others, strict=True), start=1):
        chosen = other if layer in layers else block
        modules += [chosen.conv, nn.ReLU()]
        if chosen.pool > 1:
            modules.append(nn.MaxPool1d(chosen.pool))
    return nn.Sequential(*modules)
