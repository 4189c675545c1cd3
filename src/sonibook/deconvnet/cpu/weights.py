"""A block's weights as the backward pass wants them, and one block down by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.model.layers import CACHED_FLOATS, effective_weight
from sonibook.model.operations import BatchNorm, MaxPool, Padding, Rectifier
from sonibook.model.stack import Block

#: 1 where the maximum was at phase 1, 2 …, else 0.
SwitchMasks = Float[Tensor, "phase steps channel"]
_Maps = Float[Tensor, "column steps channel"]
#: Up to this pool the zeros that unpooling makes are left out: by as many matrices as a window has
#: steps, each as much larger.
_LARGEST_POOL = 16


@dataclass(eq=False)
class Weights:
    """A block's weights in the forms that are multiplied by, each made when first asked.

    A transposed convolution of stride s is one of stride 1 that gives s samples of every channel
    at each of its steps: its *outputs* are phase by phase all channels (polyphase). With a stride,
    the gaps of a dilated kernel are filled with zeros.

    Where the network pads, what lies in the padding is computed as if it were part of the map
    below, which `before` tells how long it is, and then left out.
    """

    weight: Float[Tensor, "filter output tap"]
    pool: int = 1
    _: KW_ONLY
    stride: int = 1
    dilation: int = 1
    #: Samples that the block adds before what it takes.
    before: int = 0
    #: Of switches that are positions in the map; None for positions in their window.
    pool_padding: int | None = None
    #: What the map is multiplied by on the backward pass before it is rectified.
    scale: Float[Tensor, " filter"] | None = None

    def __post_init__(self) -> None:
        self.filters, self.channels, _ = self.weight.shape
        if self.stride > 1:
            self.weight = _polyphase(self.weight, self.stride, self.dilation)
            self.dilation = 1
        self.outputs, self.taps = self.weight.shape[1:]
        #: Samples from one pooled step to the next.
        self.step = self.pool * self.stride
        #: Steps of the convolution beyond its own that a step reaches, and pooled steps that one
        #: depends on, itself and those before.
        self.beyond = self.dilation * (self.taps - 1)
        self.steps = 1 - (-self.beyond // self.pool)

    @property
    def is_switched(self) -> bool:
        """Whether one product does both; then `down` wants its columns side by side in memory."""
        return 1 < self.pool <= _LARGEST_POOL and self.dilation == 1

    @cached_property
    def single(self) -> Float[Tensor, "filter tap output"]:
        """For one live channel: its own weights, flipped."""
        return self.weight.flip(2).transpose(1, 2).contiguous()

    @cached_property
    def convolution(self) -> Float[Tensor, "output filter 1 tap"]:
        """For all channels: a convolution in channels-last memory that transposes the forward's."""
        flipped = self.weight.flip(2).transpose(0, 1).unsqueeze(2)
        return flipped.contiguous(memory_format=torch.channels_last)

    @cached_property
    def switched(self) -> Float[Tensor, "phase out in"]:
        """Unpooling and transposed convolution as matrices, one for each place a maximum can have.

        They take `steps` pooled steps of all filters to one pooled step of what comes out, that is
        `step` samples of all channels. The first is for maxima at phase 0 of their windows; each
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
        """A block of one channel for a few sounds: from a pooled step to all samples it reaches.

        The first for a value at phase 0, the others what those for their phase have more.
        """
        kernel, reach = self.weight.transpose(1, 2).flatten(1), self.steps * self.step
        starts = [phase * self.stride for phase in range(self.pool)]
        phases = [F.pad(kernel, (start, reach - kernel.shape[1] - start)).t() for start in starts]
        return torch.stack([phases[0], *(other - phases[0] for other in phases[1:])])

    def rectify(self, y: Float[Tensor, "*batch filter"]) -> None:
        """What the block's activation does to a map on the backward pass, in place."""
        if self.scale is not None:
            y.mul_(self.scale)
        y.relu_()

    def phases(self, switches: Tensor, first: int) -> Tensor:
        """Where in its window each maximum was, from the switches of steps from `first` on."""
        if self.pool_padding is None:
            return switches
        steps = torch.arange(first, first + switches.shape[-1])
        return switches - (steps * self.pool - self.pool_padding)

    def enter(
        self, signal: Float[Tensor, "column padded"], filters: list[int]
    ) -> Float[Tensor, "column time below"]:
        """Deconvolve one live channel, each column by its own filter; it is unpooled and padded."""
        chosen, dilation = self.single[filters], self.dilation
        if self.outputs > 1:
            windows = signal.unfold(1, self.beyond + 1, 1)[:, :, ::dilation]
            return torch.bmm(windows, chosen).view(len(signal), -1, self.channels)
        time = signal.shape[1] - self.beyond
        sound = signal[:, :time] * chosen[:, 0]
        for tap in range(1, self.taps):
            sound.addcmul_(signal[:, tap * dilation : tap * dilation + time], chosen[:, tap])
        return sound.unsqueeze(2)

    def convolve(self, z: _Maps) -> Float[Tensor, "column time below"]:
        """Deconvolve unpooled maps by a channels-last convolution, which the stride lengthens."""
        dilation = (1, self.dilation)
        out = F.conv2d(z.transpose(1, 2).unsqueeze(2), self.convolution, dilation=dilation)[:, :, 0]
        return out.transpose(1, 2).reshape(len(z), -1, self.channels)

    def down(self, y: _Maps, masks: SwitchMasks, out: Tensor) -> None:
        """Write one block of the backward pass to `out`.

        It takes rectified maps, which begin `steps` - 1 pooled steps early, to what comes out
        before it is rectified.
        """
        if self.is_switched:
            self._multiply(y, masks, out)
            return
        if self.pool > 1:
            z = y.new_empty(len(y), self.pool * y.shape[1], y.shape[2])
            unpool(y, masks, z)
            y = z[:, self.pool * (self.steps - 1) - self.beyond :]
        out.copy_(self.convolve(y))

    def _multiply(self, y: _Maps, masks: SwitchMasks, out: Tensor) -> None:
        """Unpool and deconvolve by one product for each step.

        Half of what a convolution multiplies after unpooling are zeros: this leaves them out.
        Memory is (time, channel, column).
        """
        columns, _, channels = y.shape
        base, *surplus = self.switched
        steps, size = y.shape[1] - self.steps + 1, self.steps * channels
        y = y.permute(1, 2, 0).contiguous()
        seen = y.as_strided((steps, size, columns), (y.stride(0), columns, 1))
        where = [mask.as_strided((steps, 1, size), (channels, 0, 1)) for mask in masks]
        target = out.permute(1, 2, 0).contiguous()
        product = target.view(steps, len(base), columns)
        tile = max(1, min(steps, CACHED_FLOATS // (8 * base.numel())))
        room = y.new_empty(tile, *base.shape)
        for start in range(0, steps, tile):
            here = slice(start, start + tile)
            matrix = base
            for mask, more in zip(where, surplus, strict=True):
                matrix = torch.addcmul(matrix, mask[here], more, out=room[: steps - start])
            torch.bmm(matrix, seen[here], out=product[here])
        if target.data_ptr() != out.data_ptr():
            out.copy_(target.permute(2, 0, 1))


def unpool(
    y: Float[Tensor, "*batch steps channel"],
    masks: SwitchMasks,
    out: Float[Tensor, "*batch time channel"],
) -> None:
    """Each value where its maximum was: one mask for each phase after the first, 1 or 0."""
    z = out.unflatten(-2, (y.shape[-2], 1 + masks.shape[0]))
    if not masks.shape[0]:
        z[..., 0, :] = y
    rest = y
    for phase, mask in enumerate(masks, start=1):
        placed = torch.mul(y, mask, out=z[..., phase, :])
        rest = torch.sub(rest, placed, out=z[..., 0, :] if phase == masks.shape[0] else None)


def _polyphase(
    weight: Float[Tensor, "filter channel tap"], stride: int, dilation: int
) -> Float[Tensor, "filter output fewer"]:
    """The kernel as one of stride 1 that gives all channels, `stride` samples each."""
    filters, channels, taps = weight.shape
    extent = dilation * (taps - 1) + 1
    kernel = weight.new_zeros(filters, channels, -(-extent // stride) * stride)
    kernel[:, :, :extent:dilation] = weight
    return kernel.unflatten(2, (-1, stride)).permute(0, 3, 1, 2).flatten(1, 2)


class _Reach(NamedTuple):
    """Where a step of the last block's map sounds, in samples.

    Step s reaches the samples from s * stride to (s + 1) * stride + beyond.
    """

    stride: int
    beyond: int

    @property
    def context(self) -> int:
        """Steps of the map before a step on which that step's first sample depends."""
        return -(-self.beyond // self.stride)


def reach(weights: Sequence[Weights]) -> _Reach:
    """How far a step of the last block's map sounds."""
    stride, beyond = 1, 0
    for block in reversed(weights):
        stride, beyond = stride * block.step, beyond * block.step + block.beyond * block.stride
    return _Reach(stride, beyond)


_WEIGHTS: WeakKeyDictionary[nn.Conv1d, tuple[tuple[int | None, ...], Weights]] = WeakKeyDictionary()


def weights_of(block: Block) -> Weights | None:
    """A block's weights, prepared once for all clips; made anew when they have changed.

    None where the engine cannot compute the block.
    """
    at = block.operations.index(block.convolution)
    conv, paddings = block.convolution, block.operations[:at]
    activation, *others = block.operations[at + 1 :]
    if not isinstance(activation, Rectifier) or conv.module.groups > 1:
        return None
    if any(not isinstance(one, Padding) or min(one.padding) < 0 for one in paddings):
        return None
    before = sum(one.padding[0] for one in (*paddings, conv))
    pool, pool_padding, scale = 1, None, None
    for operation in others:
        if isinstance(operation, MaxPool) and operation.extent <= operation.step:
            pool, before = operation.step, before + operation.padding[0] * conv.step
            pool_padding = None if operation.is_simple else operation.padding[0]
        elif isinstance(operation, BatchNorm):
            factor = operation.scale.detach()
            scale = factor if scale is None else scale * factor
        else:
            return None
    weight = effective_weight(conv.module).detach()

    def make() -> Weights:
        shape = {"stride": conv.step, "dilation": int(conv.module.dilation[0]), "before": before}
        return Weights(weight, pool, **shape, pool_padding=pool_padding, scale=scale)

    lasting = weight.data_ptr() == conv.module.weight.data_ptr() and not weight.is_inference()
    if scale is not None or not lasting:
        return make()
    source = (weight.data_ptr(), weight._version, pool, before, pool_padding)
    known = _WEIGHTS.get(conv.module)
    if known is None or known[0] != source:
        known = _WEIGHTS[conv.module] = (source, make())
    return known[1]
