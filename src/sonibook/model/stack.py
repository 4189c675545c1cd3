"""Any 1-D CNN seen as what sonification needs: a stack of blocks, each with one convolution.

`blocks_of` reads a `torch.nn.Sequential` (or a module that keeps one as ``features``, or a list of
modules in the order in which they run) and either returns its blocks or names the module that the
way back cannot invert. The rest of the file is their geometry: what a block is called, sees and
needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from operator import index
from typing import Any

import torch
from torch import nn

from sonibook.errors import LayerError, StackError
from sonibook.model.layers import Blocks, Conv1d, MaxPool1d
from sonibook.model.operations import (
    KINDS,
    BatchNorm,
    Convolution,
    MaxPool,
    Operation,
    Padding,
    Rectifier,
)

_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d)
#: What is not overridden in a module that computes what its class is known for.
_FORWARDS = frozenset({"forward", "_conv_forward"})
_PLAIN = (nn.Sequential, *KINDS, Blocks, Conv1d, MaxPool1d, *_TRANSPARENT)


@dataclass(frozen=True)
class Block:
    """One block of a stack: what is computed from one convolution up to the next.

    As a rule a convolution, ReLU, and perhaps a max-pool; there may be padding and normalisation
    around them, other activations and average pools.

    Attributes
    ----------
    operations : tuple of Operation
        In the order of the way forward.
    """

    operations: tuple[Operation, ...]

    @cached_property
    def convolution(self) -> Convolution:
        """The operation that holds `conv`."""
        return next(one for one in self.operations if isinstance(one, Convolution))

    @property
    def conv(self) -> nn.Conv1d:
        """The convolution, with any batch normalisation folded in that follows it directly."""
        return self.convolution.module

    @property
    def extent(self) -> int:
        """Samples from the first to the last tap of the kernel."""
        return self.convolution.extent

    @cached_property
    def pool(self) -> int:
        """Stride of the pool after the convolution; 1 where the block has none."""
        return prod(one.step for one in self.operations if not isinstance(one, Convolution))

    @cached_property
    def is_simple(self) -> bool:
        """Whether it is an unpadded convolution of stride 1, ReLU and at most a plain max-pool."""
        match self.operations:
            case (Convolution(is_simple=True), Rectifier(is_relu=True), *pools):
                plain = [pool for pool in pools if isinstance(pool, MaxPool) and pool.is_simple]
                return len(pools) <= 1 and pools == plain
        return False

    @property
    def modules(self) -> list[nn.Module]:
        """The modules that compute it, in order."""
        return [operation.module for operation in self.operations]

    def out_length(self, length: int) -> int:
        """Steps after the whole block for `length` steps."""
        for operation in self.operations:
            length = operation.out_length(length) if length else 0
        return length


class Stack(tuple[Block, ...]):
    """The blocks of a network, first layer first, which it is, and which modules run in order."""

    network: nn.Module | None = None
    modules: tuple[nn.Module, ...] = ()


def blocks_of(
    network: nn.Module | Sequence[Block], *, modules: Sequence[nn.Module] | None = None
) -> tuple[Block, ...]:
    """The blocks of a network, each with one convolution, first layer first.

    Parameters
    ----------
    network : torch.nn.Module, or blocks
        A (nested) `torch.nn.Sequential`, or a module with one as its attribute ``features``
        (as `CNN12` has). Dropout and identity modules are passed over, batch normalisation that
        follows a convolution is folded into it. Blocks are returned as they are: what takes a
        network takes its blocks, too.
    modules : sequence of torch.nn.Module, or None
        For a network that is not a Sequential: those of its modules that sonification is to go
        through, in the order in which the network runs them, the first of them on the waveform
        itself.

    Raises
    ------
    StackError
        Naming the module that sonification cannot invert, and what would do instead.

    Examples
    --------
    >>> pooled = nn.Sequential(nn.Conv1d(1, 4, 5, stride=2), nn.ReLU(), nn.MaxPool1d(3))
    >>> blocks = blocks_of(pooled)
    >>> stride(blocks, 1), receptive_field(blocks, 1)
    (6, 9)
    """
    if not isinstance(network, nn.Module):
        return network if isinstance(network, Stack) else tuple(network)
    if modules is None:
        features = getattr(network, "features", network)
        if not isinstance(features, nn.Sequential):
            raise StackError(
                f"{type(network).__name__} is not a torch.nn.Sequential of Conv1d, ReLU and "
                "MaxPool1d and has none as .features: pass the part of your network that is one, "
                "or list its modules in order: blocks_of(network, modules=[...])."
            )
        members = leaves([("", features)])
        ends: Sequence[nn.Module] = [features]
    else:
        members = leaves((f"modules[{n}]", module) for n, module in enumerate(modules))
        ends = modules
    blocks = _blocks(members)
    for number, (first, second) in enumerate(zip(blocks, blocks[1:], strict=False), start=1):
        if first.conv.out_channels != second.conv.in_channels:
            raise StackError(
                f"Block {number} gives {first.conv.out_channels} channels and block {number + 1} "
                f"takes {second.conv.in_channels}."
            )
    stack = Stack(blocks)
    stack.network, stack.modules = network, tuple(ends)
    return stack


def _blocks(members: Iterable[tuple[str, nn.Module]]) -> list[Block]:
    """Divide modules into blocks: each begins with a convolution and the padding before it."""
    blocks: list[list[Operation]] = [[]]
    for name, module in members:
        operations = blocks[-1]
        kinds = [type(one) for one in operations]
        has_conv = Convolution in kinds
        operation = _operation(name, module, len(blocks) - (not has_conv))
        last = operations[-1] if operations else None
        if isinstance(operation, Convolution) and has_conv:
            if Rectifier not in kinds:
                raise StackError(f"{name}: a convolution follows another without ReLU between.")
            blocks.append([])
            while isinstance(operations[-1], Padding):
                blocks[-1].insert(0, operations.pop())
        elif isinstance(operation, BatchNorm) and isinstance(last, Convolution):
            given, taken = last.module.out_channels, operation.module.num_features
            if given != taken:
                raise StackError(
                    f"{name}: BatchNorm1d takes {taken} channels and the convolution gives {given}."
                )
            operation = last.normalised(operation.module)
            operations.pop()
        elif isinstance(operation, MaxPool):
            if not has_conv or MaxPool in kinds:
                raise StackError(
                    f"{name}: a max-pool must follow a convolution, and no other max-pool of it."
                )
            if operation.extent == operation.step == 1 and operation.padding == (0, 0):
                continue
        elif isinstance(operation, Rectifier) and not has_conv:
            raise StackError(
                f"{name}: {type(module).__name__} before the first convolution rectifies the "
                "waveform itself: pass the part of your network after it."
            )
        blocks[-1].append(operation)
    for operations in blocks:
        if not any(isinstance(one, Rectifier) for one in operations):
            raise StackError(
                "The stack must be one or more blocks that each hold Conv1d, then ReLU."
            )
    return [Block(tuple(operations)) for operations in blocks]


def leaves(children: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    """The modules of nested Sequentials as they run, one used twice twice; transparent ones not."""
    for name, module in children:
        if isinstance(module, nn.Sequential) and _is_plain(module):
            prefix = f"{name}." if name else ""
            # Not `named_children`, which gives a module that is used twice only once.
            members = [(key, one) for key, one in module._modules.items() if one is not None]
            yield from leaves((prefix + key, child) for key, child in members)
        elif not (isinstance(module, _TRANSPARENT) and _is_plain(module)):
            yield name, module


def _is_plain(module: nn.Module) -> bool:
    """Whether its class, and nothing below it, says what it computes."""
    kind: Any = type(module)
    return _is_plain_class(kind) and _FORWARDS.isdisjoint(vars(module))


@lru_cache(maxsize=256)
def _is_plain_class(kind: type[nn.Module]) -> bool:
    return any(
        all(getattr(kind, name, None) is getattr(base, name, None) for name in _FORWARDS)
        for base in _PLAIN
        if issubclass(kind, base)
    )


def _operation(name: str, module: nn.Module, before: int) -> Operation:
    """A module as an operation; `before` blocks are complete without it."""
    tells = isinstance(module, nn.Conv1d) and hasattr(module, "effective_weight")
    if not _is_plain(module) and not tells:
        raise StackError(_refusal(name, module, before))
    operation = next(KINDS[kind] for kind in KINDS if isinstance(module, kind))(module, name)
    if isinstance(operation, Convolution) and not _is_plain(module) and not _tells_truly(operation):
        raise StackError(
            f"{name}: {type(module).__name__} computes something else than a convolution with the "
            "weights that its effective_weight() tells."
        )
    return operation


@torch.no_grad()
def _tells_truly(convolution: Convolution) -> bool:
    """Whether a convolution of another class multiplies by the weights that it tells."""
    conv = convolution.module
    size = (2, conv.in_channels, 2 * convolution.extent + convolution.step)
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(conv.weight)
    training = conv.training
    try:  # one that normalises by its batch while it trains is folded by what it has learned
        conv.eval()
        ours, theirs = convolution.forward(x)[0], type(conv).forward(conv, x)
    finally:
        conv.train(training)
    close = torch.finfo(x.dtype).eps ** 0.5 * float(theirs.abs().max())
    return ours.shape == theirs.shape and float((ours - theirs).abs().max()) <= close


def _refusal(name: str, module: nn.Module, before: int) -> str:
    kind = type(module).__name__
    known = next((base for base in _PLAIN if isinstance(module, base)), None)
    where = f"{name}: " if name else ""
    if known is not None:
        reason = f"{where}{kind} computes something else than its base class {known.__name__} does"
        if isinstance(module, nn.Conv1d):
            reason += " and has no effective_weight() that tells the weights it multiplies by"
    else:
        reason = (
            f"{where}{kind} cannot be inverted by sonification, which knows Conv1d, ReLU and "
            "other activations, pools, padding and normalisation, one after the other"
        )
    if before:
        blocks = "block" if before == 1 else f"{before} blocks"
        return f"{reason}: the {blocks} before it can be sonified, passed as a torch.nn.Sequential."
    return f"{reason}: fold it into a convolution or leave it out."


def check_layer(blocks: Sequence[object], layer: int) -> int:
    """`layer` itself, if the stack has it (layers count from 1); else a `LayerError`."""
    if not 1 <= layer <= len(blocks):
        raise LayerError(f"Layer {layer} does not exist: choose 1 to {len(blocks)}.")
    return layer


def check_filters(blocks: Sequence[Block], layer: int, filters: Sequence[int] | None) -> list[int]:
    """`filters`, or all, as a list, if layer `layer` has them (from 0); else a `LayerError`."""
    count = blocks[check_layer(blocks, layer) - 1].conv.out_channels
    if filters is None:
        return list(range(count))
    try:
        chosen = [index(one) for one in filters]
    except TypeError:
        raise LayerError(
            f"filters must be a list of whole numbers such as [3, 17], not {filters!r}."
        ) from None
    for number in chosen:
        if not 0 <= number < count:
            raise LayerError(
                f"Filter {number} of layer {layer} does not exist: choose 0 to {count - 1}."
            )
    return chosen


def _geometry(blocks: Sequence[Block], layer: int) -> tuple[int, int, int]:
    """Receptive field, stride and what padding puts before the first sample, of a layer's step."""
    field, step, before = 1, 1, 0
    for block in blocks[: check_layer(blocks, layer)]:
        for operation in block.operations:
            field += (operation.extent - 1) * step
            before += operation.padding[0] * step
            step *= operation.step
    return field, step, before


def stride(blocks: Sequence[Block], layer: int) -> int:
    """Input samples from one step of layer `layer`'s map (after its pool) to the next."""
    return _geometry(blocks, layer)[1]


def receptive_field(blocks: Sequence[Block], layer: int) -> int:
    """Input samples that one step of layer `layer`'s map (after its pool) depends on."""
    return _geometry(blocks, layer)[0]


def padding_before(blocks: Sequence[Block], layer: int) -> int:
    """Samples before the first of the clip that the first step of layer `layer`'s map sees."""
    return _geometry(blocks, layer)[2]


def out_length(blocks: Sequence[Block], layer: int, length: int) -> int:
    """Steps of layer `layer`'s map (after its pool) for an input of `length` samples."""
    for block in blocks[: check_layer(blocks, layer)]:
        length = block.out_length(length)
    return length


def least_length(blocks: Sequence[Block], layer: int | None = None) -> int:
    """The fewest input samples for which layer `layer` (by default the last) has a step.

    Walks from one step at the top back to the input. For an unpadded stack it equals the
    receptive field.
    """
    length = 1
    for block in reversed(blocks[: len(blocks) if layer is None else check_layer(blocks, layer)]):
        for operation in reversed(block.operations):
            length = operation.least_length(length)
    return length
