"""Any 1-D CNN seen as what sonification needs: a stack of conv-relu-[pool] blocks.

`blocks_of` reads a `torch.nn.Sequential` (or a module that keeps one as ``features``) and either
returns its blocks or names the module that the way back cannot invert. The rest of the file is
their geometry: what a block is called, sees and needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from sonibook.errors import LayerError, StackError

_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout1d)


@dataclass(frozen=True)
class Block:
    """One conv-relu-[pool] block: a stride-1 convolution, ReLU, and perhaps a max-pool.

    Attributes
    ----------
    conv : torch.nn.Conv1d
        The convolution, with any kernel, zero padding and dilation.
    pool : int
        Kernel and stride of the max-pool after ReLU; 1 where the block has none.
    """

    conv: nn.Conv1d
    pool: int = 1

    @property
    def extent(self) -> int:
        """Samples from the first to the last tap of the kernel."""
        return int(self.conv.dilation[0]) * (int(self.conv.kernel_size[0]) - 1) + 1

    @property
    def padding(self) -> int:
        """Zeros added at each end before the convolution."""
        padding = self.conv.padding
        if padding == "valid":
            return 0
        return (self.extent - 1) // 2 if padding == "same" else int(padding[0])

    def conv_length(self, length: int) -> int:
        """Steps after the convolution of `length` steps (0 where the kernel does not fit)."""
        return max(length + 2 * self.padding - self.extent + 1, 0)

    def out_length(self, length: int) -> int:
        """Steps after the whole block for `length` steps."""
        return self.conv_length(length) // self.pool


def blocks_of(network: nn.Module) -> tuple[Block, ...]:
    """The conv-relu-[pool] blocks of a network, first layer first.

    Parameters
    ----------
    network : torch.nn.Module
        A (nested) `torch.nn.Sequential`, or a module with one as its attribute ``features``
        (as `CNN12` has). Dropout and identity modules are passed over.

    Returns
    -------
    tuple of Block

    Raises
    ------
    StackError
        Naming the module that sonification cannot invert, and what would do instead.
    """
    features = getattr(network, "features", network)
    if not isinstance(features, nn.Sequential):
        raise StackError(
            f"{type(network).__name__} is no torch.nn.Sequential of Conv1d, ReLU and MaxPool1d "
            "and has none as .features: pass the part of your network that is one."
        )
    blocks: list[Block] = []
    conv: nn.Conv1d | None = None
    rectified = True
    for name, module in _leaves(features, ""):
        if isinstance(module, nn.Conv1d):
            if not rectified:
                raise StackError(f"{name}: a convolution follows another without ReLU between.")
            _check_conv(name, module)
            blocks.append(Block(module))
            conv, rectified = module, False
        elif isinstance(module, nn.ReLU):
            rectified = True
        elif isinstance(module, nn.MaxPool1d):
            if conv is None or not rectified:
                raise StackError(f"{name}: a max-pool must follow the ReLU of a convolution.")
            blocks[-1] = Block(conv, _pool_size(name, module))
            conv = None
        else:
            raise StackError(
                f"{name}: {type(module).__name__} cannot be inverted by sonification, which "
                "knows Conv1d, ReLU and MaxPool1d: fold it into a convolution or leave it out."
            )
    if not blocks or not rectified:
        raise StackError("The stack must be one or more blocks that each hold Conv1d, then ReLU.")
    for number, (first, second) in enumerate(zip(blocks, blocks[1:], strict=False), start=1):
        if first.conv.out_channels != second.conv.in_channels:
            raise StackError(
                f"Block {number} gives {first.conv.out_channels} channels and block {number + 1} "
                f"takes {second.conv.in_channels}."
            )
    if blocks[0].conv.in_channels != 1:
        raise StackError(
            f"The first convolution takes {blocks[0].conv.in_channels} channels: sonification "
            "goes back to a mono waveform, so it must take 1."
        )
    return tuple(blocks)


def _leaves(sequential: nn.Sequential, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a nested Sequential in order, by dotted name, without transparent ones."""
    for name, module in sequential.named_children():
        if isinstance(module, nn.Sequential):
            yield from _leaves(module, f"{prefix}{name}.")
        elif not isinstance(module, _TRANSPARENT):
            yield prefix + name, module


def _check_conv(name: str, conv: nn.Conv1d) -> None:
    if conv.stride != (1,):
        raise StackError(
            f"{name}: stride {conv.stride[0]}; a strided convolution distorts the time structure "
            "of what comes back (paper, section 3.2): use stride 1 and a max-pool."
        )
    if conv.groups != 1 or conv.padding_mode != "zeros":
        raise StackError(f"{name}: only groups=1 and padding_mode='zeros' can be inverted.")


def _pool_size(name: str, pool: nn.MaxPool1d) -> int:
    def first(value: object) -> int:
        return int(value[0]) if isinstance(value, Sequence) else int(value)  # type: ignore[call-overload]

    size = first(pool.kernel_size)
    if first(pool.stride) != size or first(pool.padding) or first(pool.dilation) != 1:
        raise StackError(
            f"{name}: only a max-pool with stride = kernel size, no padding and no dilation can "
            "be inverted."
        )
    if pool.ceil_mode:
        raise StackError(f"{name}: a max-pool with ceil_mode=True cannot be inverted; set False.")
    return size


def check_layer(blocks: Sequence[Block], layer: int) -> int:
    """`layer` itself, if the stack has it (layers count from 1).

    Raises
    ------
    LayerError
        With the range that exists.
    """
    if not 1 <= layer <= len(blocks):
        raise LayerError(f"Layer {layer} does not exist: choose 1 to {len(blocks)}.")
    return layer


def check_filters(blocks: Sequence[Block], layer: int, filters: Sequence[int]) -> list[int]:
    """`filters` as a list, if layer `layer` has them all (filters count from 0).

    Raises
    ------
    LayerError
        With the range that exists.
    """
    count = blocks[check_layer(blocks, layer) - 1].conv.out_channels
    for index in filters:
        if not 0 <= index < count:
            raise LayerError(
                f"Filter {index} of layer {layer} does not exist: choose 0 to {count - 1}."
            )
    return [int(index) for index in filters]


def stride(blocks: Sequence[Block], layer: int) -> int:
    """Input samples from one step of layer `layer`'s map (after its pool) to the next."""
    step = 1
    for block in blocks[: check_layer(blocks, layer)]:
        step *= block.pool
    return step


def receptive_field(blocks: Sequence[Block], layer: int) -> int:
    """Input samples that one step of layer `layer`'s map (after its pool) depends on."""
    field, step = 1, 1
    for block in blocks[: check_layer(blocks, layer)]:
        field += (block.extent - 1) * step + (block.pool - 1) * step
        step *= block.pool
    return field


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
        length = max(length * block.pool + block.extent - 1 - 2 * block.padding, 1)
    return length
