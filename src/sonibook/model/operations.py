"""The operations that a 1-D CNN is made of, each with its way forward and its way back.

On the way back three kinds differ (paper, section 3.2). A *max-pool* is undone by its switches. An
activation of any kind *rectifies*, as ReLU does, and is not inverted. Everything else is linear
once the clip is given, and is *transposed*: convolutions, batch normalisation with its running
statistics, padding, average pools. Biases and shifts have no part in the way back. Group and layer
normalisation are linear only if their statistics are taken as constants of the clip, which is an
approximation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sonibook.errors import AudioError, StackError
from sonibook.model.layers import (
    Map,
    Pooled,
    Switches,
    channels_last,
    convolve,
    effective_bias,
    effective_weight,
    is_simple,
    max_pool,
)


@runtime_checkable
class Unpool(Protocol):
    """Undoes a max-pool: `max_unpool`, or what is to stand in its place."""

    def __call__(self, x: Pooled, switches: Switches, *, pool: int, length: int) -> Map: ...


@torch.no_grad()
def max_unpool(x: Pooled, switches: Switches, *, pool: int, length: int) -> Map:
    """Put each value back where its maximum was, and zeros elsewhere (paper, step 3i).

    Parameters
    ----------
    x : Tensor, shape (batch, channel, steps)
    switches : Tensor of bool or int, the shape of `x`
    pool : int >= 2
        Kernel and stride of the max-pool that is reverted.
    length : int >= pool * steps
        Steps before pooling; what the pool had left over at the end becomes zero.
    """
    # Channels side by side in memory, as the convolution that follows wants them.
    values, places = x.transpose(1, 2), switches.transpose(1, 2)
    places = places.to(torch.uint8) if places.dtype == torch.bool else places
    out = x.new_empty(len(x), length, x.shape[1])
    end = pool * values.shape[1]
    windows = out[:, :end].unflatten(1, (-1, pool))
    for phase in range(pool):
        torch.mul(values, places == phase, out=windows[:, :, phase])
    out[:, end:] = 0
    return out.transpose(1, 2)


class Operation:
    """One module of a block: its geometry, its way forward, and its transpose."""

    #: Steps that one step of what it gives depends on, and from one such stretch to the next.
    extent, step = 1, 1
    #: Steps added before and after.
    padding = (0, 0)

    def __init__(self, module: nn.Module, name: str = "") -> None:
        self.module, self.name = module, name

    def out_length(self, length: int) -> int:
        """Steps that it makes of `length` (0 where the kernel does not fit)."""
        return max((length + sum(self.padding) - self.extent) // self.step + 1, 0)

    def least_length(self, steps: int) -> int:
        """The fewest steps of which it makes at least `steps`."""
        length = max((steps - 1) * self.step + self.extent - sum(self.padding), 1)
        while length > 1 and self.out_length(length - 1) >= steps:
            length -= 1
        while self.out_length(length) < steps:
            length += 1
        return length

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What it gives, and what of each clip the way back needs: switches or a scale."""
        raise NotImplementedError

    def transpose(self, y: Tensor, length: int, scale: Tensor | None) -> Tensor:
        """Back to what it took, `length` steps, by its transpose (no shift): here, by its scale."""
        return y if scale is None else y * scale


class Convolution(Operation):
    """A `torch.nn.Conv1d` of any kernel, stride, dilation, groups and zero padding."""

    module: nn.Conv1d
    #: The batch normalisation that is folded into the module.
    norm: nn.BatchNorm1d | None = None

    def __init__(self, module: nn.Conv1d, name: str = "") -> None:
        super().__init__(module, name)
        if module.padding_mode != "zeros":
            raise StackError(f"{name}: only padding_mode='zeros' can be inverted.")
        self.step, self.is_simple = int(module.stride[0]), is_simple(module)
        self.extent = int(module.dilation[0]) * (int(module.kernel_size[0]) - 1) + 1
        before, after = module._reversed_padding_repeated_twice
        self.padding = (before, after)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        weight, bias = effective_weight(self.module), effective_bias(self.module)
        return convolve(channels_last(x), self.module, weight, bias), None

    def transpose(self, y: Tensor, length: int, scale: Tensor | None) -> Tensor:
        return self._cut(self._spread(y), length)

    def transpose_single(
        self, y: Float[Tensor, "batch steps"], filters: Int[Tensor, " batch"], length: int
    ) -> Map:
        """`transpose` of maps of which a single filter is alive, each by the weights of its own."""
        conv = self.module
        if (conv.groups, self.step, conv.dilation) != (1, 1, (1,)):
            only = y.new_zeros(len(y), y.shape[1], conv.out_channels)
            only[torch.arange(len(y), device=y.device), :, filters] = y
            return self.transpose(only.transpose(1, 2), length, None)
        kernels = effective_weight(conv)[filters].flip(2).transpose(1, 2)
        beyond = self.extent - 1
        windows = F.pad(y, (beyond, beyond)).unfold(1, self.extent, 1)
        return self._cut((windows @ kernels).transpose(1, 2), length)

    def _spread(self, y: Tensor) -> Map:
        """Each value spread over its kernel, and no padding cut off."""
        conv, weight = self.module, effective_weight(self.module)
        stride, dilation = (1, self.step), (1, int(conv.dilation[0]))
        if conv.in_channels == 1:
            # One channel leaves a convolution nothing to vectorise over: multiply, then add by
            # places.
            products = weight[:, 0].t() @ y
            size = (1, self.step * (y.shape[2] - 1) + self.extent)
            return F.fold(products, size, (1, weight.shape[2]), dilation, stride=stride).squeeze(2)
        # In two dimensions, of which one has a single step: in channels-last memory a CPU is
        # several times as quick at it as at `conv_transpose1d`.
        y, weight = channels_last(y).unsqueeze(2), weight.unsqueeze(2)
        return F.conv_transpose2d(
            y, weight, stride=stride, dilation=dilation, groups=conv.groups
        ).squeeze(2)

    def _cut(self, whole: Tensor, length: int) -> Tensor:
        """What a kernel spreads, without what padding added, and with what the stride left over."""
        before, rest = self.padding[0], length + self.padding[0] - whole.shape[2]
        if before == rest == 0:
            return whole
        return F.pad(whole.transpose(1, 2), (0, 0, -before, rest)).transpose(1, 2)

    def normalised(self, norm: nn.BatchNorm1d) -> Convolution:
        """With the batch normalisation that follows folded in: the same numbers, padded or not."""
        conv = self.module
        plain = nn.utils.skip_init(
            nn.Conv1d, conv.in_channels, conv.out_channels, int(conv.kernel_size[0]),
            stride=conv.stride, padding=conv.padding, dilation=conv.dilation, groups=conv.groups,
        )  # fmt: skip
        plain.weight, plain.bias = fuse_conv_bn_weights(
            effective_weight(conv), effective_bias(conv), cast(Tensor, norm.running_mean),
            cast(Tensor, norm.running_var), norm.eps, norm.weight, norm.bias,
        )  # fmt: skip
        plain.requires_grad_(False)
        folded = Convolution(plain, self.name)
        folded.norm = norm
        return folded


def transposed_convolution(
    x: Float[Tensor, "batch filter steps"], conv: nn.Conv1d
) -> Float[Tensor, "batch channel time"]:
    """The transposed convolution with `conv`'s own weights and no bias (paper, step 3iii).

    Parameters
    ----------
    x : Tensor, shape (batch, out_channels, steps)
        What the convolution gave, or what has come back so far.
    conv : torch.nn.Conv1d
        With any kernel, stride, dilation, groups and zero padding. It is taken to have had the
        fewest steps that give as many as `x` has, which with stride 1 is not a choice.
    """
    convolution = Convolution(conv)
    return convolution.transpose(x, convolution.least_length(x.shape[2]), None)


class Padding(Operation):
    """`torch.nn.ConstantPad1d`, on the way back cut off (or, where it cuts, filled with zeros)."""

    module: nn.ConstantPad1d

    def __init__(self, module: nn.ConstantPad1d, name: str = "") -> None:
        super().__init__(module, name)
        self.padding = (int(module.padding[0]), int(module.padding[1]))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return F.pad(x, self.padding, value=float(self.module.value)), None

    def transpose(self, y: Tensor, length: int, scale: Tensor | None) -> Tensor:
        return F.pad(y, (-self.padding[0], -self.padding[1]))


class BatchNorm(Operation):
    """Batch normalisation by running statistics: a factor a channel, and a shift."""

    module: nn.BatchNorm1d

    def __init__(self, module: nn.BatchNorm1d, name: str = "") -> None:
        super().__init__(module, name)
        if module.running_var is None:
            raise StackError(
                f"{name}: BatchNorm1d has no running statistics (track_running_stats=False), so "
                "what it does depends on the other clips of a batch."
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.module
        y = F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
        return y, self.scale[:, None].expand(len(x), -1, -1)

    @property
    def scale(self) -> Float[Tensor, " channel"]:
        """The factor of each channel."""
        scale = torch.rsqrt(cast(Tensor, self.module.running_var) + self.module.eps)
        return scale if self.module.weight is None else scale * self.module.weight


class ClipNorm(Operation):
    """Group, instance or layer normalisation: on the way back this clip's scale, as a constant."""

    module: nn.GroupNorm | nn.InstanceNorm1d | nn.LayerNorm

    def __init__(self, module: nn.Module, name: str = "") -> None:
        super().__init__(module, name)
        if getattr(module, "track_running_stats", False):
            raise StackError(f"{name}: InstanceNorm1d with running statistics: use BatchNorm1d.")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        norm, channels = self.module, x.shape[1]
        if isinstance(norm, nn.LayerNorm):
            shape = tuple(norm.normalized_shape)
            if len(shape) > 2 or tuple(x.shape[-len(shape) :]) != shape:
                raise AudioError(
                    f"{self.name}: LayerNorm takes maps of shape {shape}, and those of this clip "
                    f"are {tuple(x.shape[1:])}."
                )
            y, _, scale = torch.native_layer_norm(x, shape, norm.weight, norm.bias, norm.eps)
            return y, scale if norm.weight is None else scale * norm.weight
        groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else channels
        if x[0].numel() == groups:
            raise AudioError(f"{self.name}: the clip is too short: one value has no variance.")
        y, _, scale = torch.native_group_norm(
            x.contiguous(), norm.weight, norm.bias, len(x), channels, x.shape[2], groups, norm.eps
        )
        scale = scale.repeat_interleave(channels // groups, dim=1)[:, :, None]
        return y, scale if norm.weight is None else scale * norm.weight[:, None]


class Rectifier(Operation):
    """An activation; on the way back ReLU, whichever it is."""

    @property
    def is_relu(self) -> bool:
        """Whether its maps are nowhere below zero, and ReLU's."""
        return isinstance(self.module, nn.ReLU)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return F.relu(x) if self.is_relu else type(self.module).forward(self.module, x), None


class _Pool(Operation):
    """A pool of either kind."""

    module: nn.AvgPool1d | nn.MaxPool1d

    def __init__(self, module: nn.AvgPool1d | nn.MaxPool1d, name: str = "") -> None:
        super().__init__(module, name)
        self.size, self.step = _first(module.kernel_size), _first(module.stride)
        self.extent = _first(getattr(module, "dilation", 1)) * (self.size - 1) + 1
        self.padding = (_first(module.padding),) * 2

    def out_length(self, length: int) -> int:
        # As PyTorch counts: in ceil mode a last window may be partial, but must begin in the map.
        if not self.module.ceil_mode:
            return super().out_length(length)
        steps = -(-(length + sum(self.padding) - self.extent) // self.step) + 1
        return max(steps - ((steps - 1) * self.step >= length + self.padding[0]), 0)


class _AveragePool(_Pool):
    """`torch.nn.AvgPool1d`; on the way back each value is spread evenly over its window."""

    module: nn.AvgPool1d

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return nn.AvgPool1d.forward(self.module, x), None

    def transpose(self, y: Tensor, length: int, scale: Tensor | None) -> Tensor:
        shape = y.new_empty(*y.shape[:2], 1, length)
        spread = torch.ops.aten.avg_pool2d_backward(
            y.unsqueeze(2).contiguous(), shape, (1, self.extent), (1, self.step),
            (0, self.padding[0]), self.module.ceil_mode, self.module.count_include_pad, None,
        )  # fmt: skip
        return spread.squeeze(2)


class MaxPool(_Pool):
    """`torch.nn.MaxPool1d`, undone by its switches.

    Where windows lie side by side a switch is a position in its window. Where they overlap, leave
    gaps, are padded or partial, it is a position in the map, and what several windows chose adds
    up.
    """

    module: nn.MaxPool1d

    @property
    def is_simple(self) -> bool:
        """Whether its windows lie side by side, with none that is partial."""
        side_by_side = self.extent == self.size == self.step and self.padding == (0, 0)
        return side_by_side and not self.module.ceil_mode

    def out_length(self, length: int) -> int:
        if length < self.extent - self.padding[0] and self.extent > self.size:
            return 0  # a dilated window would see nothing but padding
        return super().out_length(length)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.is_simple:
            return max_pool(x, self.step)
        pooled, switches = F.max_pool1d(
            x, self.size, self.step, self.padding[0], _first(self.module.dilation),
            ceil_mode=self.module.ceil_mode, return_indices=True,
        )  # fmt: skip
        return pooled, switches.to(torch.int32)

    def unpool(self, y: Tensor, switches: Tensor, length: int, unpool: Unpool) -> Tensor:
        """Undo it by its switches, or by `unpool` in place of `max_unpool`."""
        if self.is_simple:
            return unpool(y, switches, pool=self.step, length=length)
        if unpool is not max_unpool:
            raise StackError(
                f"{self.name}: only a max-pool with stride = kernel size, no padding and no "
                "dilation can be undone in other ways than by its switches."
            )
        places = switches.long().expand(len(y), -1, -1)
        return y.new_zeros(*y.shape[:2], length).scatter_add_(2, places, y)


def _first(value: int | Sequence[int]) -> int:
    return int(value[0]) if isinstance(value, Sequence) else int(value)


#: Every kind of module that a stack holds, and the operation that it is.
KINDS: dict[type[nn.Module], type[Operation]] = {
    nn.Conv1d: Convolution,
    nn.ConstantPad1d: Padding,
    nn.BatchNorm1d: BatchNorm,
    nn.MaxPool1d: MaxPool,
    nn.AvgPool1d: _AveragePool,
    **dict.fromkeys((nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d), ClipNorm),
    **dict.fromkeys(
        (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
         nn.Mish),
        Rectifier,
    ),
}  # fmt: skip
