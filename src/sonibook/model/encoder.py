"""CNN12, the paper's raw-waveform encoder (appendix A.1, figure A.1), at any width.

The paper trains without normalisation. Here a convolution may have one that folds away: it helps
to train, can always say which plain weights it multiplies by (`effective_weight`), and `fold` gives
the plain convolution itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.model.layers import Blocks, Conv1d, MaxPool1d, convolve, he_normal
from sonibook.model.stack import blocks_of, check_layer, least_length

#: ReLU halves the second moment of a centred Gaussian and leaves this share of it as variance.
#: Dividing by its square root gives unit variance after ReLU (Brock et al. 2021, section 2).
_RELU_GAIN = math.sqrt(2.0 / (1.0 - 1.0 / math.pi))
#: Of batch normalisation, as PyTorch's.
_MOMENTUM, _EPS = 0.1, 1e-5


class FoldableConv1d(Conv1d):
    """A convolution with a normalisation that a plain one can stand in for."""

    bias: nn.Parameter

    def __init__(self, *sizes: int, stride: int = 1) -> None:
        super().__init__(*sizes, stride=stride)
        self.gain = nn.Parameter(torch.ones(self.out_channels))

    def effective_bias(self) -> Float[Tensor, " filter"]:
        """The bias that is really added."""
        return self.bias

    def fold(self) -> Conv1d:
        """The plain convolution with the same effective weights."""
        sizes = self.in_channels, self.out_channels, self.kernel_size[0]
        plain = Conv1d(*sizes, stride=self.stride[0]).to(self.weight)
        folded = {"weight": self.effective_weight(), "bias": self.effective_bias()}
        plain.load_state_dict(folded)
        return plain


class StandardisedConv1d(FoldableConv1d):
    """A convolution whose filters are centred and scaled to unit gain at every step.

    Scaled weight standardisation (Brock, De & Smith 2021, "Characterizing signal propagation to
    close the performance gap in unnormalized ResNets", equation 1), times one learned number a
    filter. No batch statistics: clips of a batch know nothing of each other.

    Untrained, its features are poorer for a probe than He's: deep filters that are centred have no
    thresholds of their own (``make results/starts``).
    """

    def effective_weight(self) -> Float[Tensor, "filter channel tap"]:
        var, mean = torch.var_mean(self.weight, dim=(1, 2), keepdim=True, correction=0)
        fan_in = self.in_channels * self.kernel_size[0]
        scale = torch.rsqrt(var * fan_in + 1e-8) * (_RELU_GAIN * self.gain[:, None, None])
        return (self.weight - mean) * scale


class BatchNormConv1d(FoldableConv1d):
    """A convolution followed by batch normalisation (Ioffe & Szegedy 2015).

    For comparison: clips of a batch see each other's statistics, and where several processes train
    together the statistics are those of the whole batch, so that no process can tell its own clips
    from the others' (a leak that contrastive training would exploit; Chen et al. 2020).
    """

    running_mean: Tensor
    running_var: Tensor
    sees_batch = True

    def __init__(self, *sizes: int, stride: int = 1) -> None:
        super().__init__(*sizes, stride=stride)
        self.register_buffer("running_mean", torch.zeros(self.out_channels))
        self.register_buffer("running_var", torch.ones(self.out_channels))

    def _scale(self) -> Float[Tensor, " filter"]:
        return self.gain * torch.rsqrt(self.running_var + _EPS)

    def effective_weight(self) -> Float[Tensor, "filter channel tap"]:
        return self.weight * self._scale()[:, None, None]

    def effective_bias(self) -> Float[Tensor, " filter"]:
        return super().effective_bias() - self.running_mean * self._scale()

    def forward(self, input: Float[Tensor, "batch channel time"]) -> Tensor:
        if not self.training:
            return convolve(input, self, self.effective_weight(), self.effective_bias())
        y = convolve(input, self, self.weight, None)
        mean, var = _moments(y)
        with torch.no_grad():
            count = y.shape[0] * y.shape[2] * process_count()
            self.running_mean.lerp_(mean, _MOMENTUM)
            self.running_var.lerp_(var * (count / max(count - 1, 1)), _MOMENTUM)
        scale = self.gain * torch.rsqrt(var + _EPS)
        shift = super().effective_bias() - mean * scale
        return y * scale[:, None] + shift[:, None]


def _moments(
    y: Float[Tensor, "batch channel time"],
) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """Mean and variance of each channel over the whole batch, all processes together."""
    var, mean = torch.var_mean(y, dim=(0, 2), correction=0)
    if process_count() == 1:
        return mean, var
    # Every process has as many clips: the moments are means of moments.
    both = torch.stack((mean, var + mean.square())) / process_count()
    mean, square = sum_of_all(both)
    return mean, square - mean.square()


def process_count() -> int:
    """How many processes train together; 1 if this one is alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_of_all(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sum of a tensor, of one shape everywhere, over all processes; gradients flow back."""
    return _Sum.apply(x)


class _Sum(torch.autograd.Function):
    """Every process's loss hangs on every process's summand: gradients are summed, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


_Norm = Literal["none", "weight", "batch"]
Downsample = Literal["max", "stride"]

#: Channels of the eleven convolutions at width 1, their kernels, and how many blocks pool.
CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024, 2048)
_KERNELS = (7, 7, 5, 5, 5, 3, 3, 3, 3, 3, 3)
_POOLED_BLOCKS = 8
_EMBEDDING = 512
DROPOUT = 0.4

_LAYERS: dict[str, type[Conv1d]] = {
    "none": Conv1d,
    "weight": StandardisedConv1d,
    "batch": BatchNormConv1d,
}


class CNN12(nn.Module):
    """Eleven conv-relu-[pool] blocks, mean over time, dropout, linear (paper, figure A.1).

    Parameters
    ----------
    width : float > 0
        Factor on every channel count: 1 is the paper's CNN12 (13,757,248 parameters), 2 its
        CNN12_x2, 0.25 suits a laptop.
    norm : {"none", "weight", "batch"}
        ``"none"`` is the paper's network. ``"weight"`` standardises the weights while training
        (`StandardisedConv1d`), ``"batch"`` the maps (`BatchNormConv1d`); `fold` turns either into
        the plain network.
    downsample : {"max", "stride"}
        What halves the rate in each of the first eight blocks: a max-pool of two, as in the paper,
        or the stride of the block's convolution, and no pool. The weights are alike.
    depth : int from 1 to 11
        Blocks to keep. Below 11 the network ends in the mean over time of its last block, with
        no linear layer (paper, appendix B).
    seed : int or None
        Seed of the initial weights (He, with zero biases); None draws from PyTorch's generator.

    Attributes
    ----------
    features : Blocks
        A `torch.nn.Sequential` of ``conv1, act1, mp1, …, conv11, act11``, named as in the
        paper's listing.
    fc1 : torch.nn.Sequential
        ``drop10, fc10``; empty for a truncated network.
    channels : int
        Filters of the last block.
    dim : int
        Size of the output vector: 512, or the channels of the last block when truncated.

    Examples
    --------
    >>> encoder = CNN12(width=0.25, seed=0).eval()
    >>> encoder(torch.zeros(2, 1, 8000)).shape
    torch.Size([2, 512])
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        norm: _Norm = "none",
        downsample: Downsample = "max",
        depth: int = len(CHANNELS),
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if round(CHANNELS[0] * width) < 1:
            raise ValueError(f"width {width} leaves no channel: choose at least {1 / CHANNELS[0]}.")
        if not 1 <= depth <= len(CHANNELS):
            raise ValueError(f"depth {depth} is impossible: choose 1 to {len(CHANNELS)}.")
        self.width, self.norm, self.depth, self.downsample = width, norm, depth, downsample
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        previous = 1
        for number in range(1, depth + 1):
            channels = round(CHANNELS[number - 1] * width)
            halves = number <= _POOLED_BLOCKS
            kernel, stride = _KERNELS[number - 1], 2 if halves and downsample == "stride" else 1
            modules[f"conv{number}"] = _LAYERS[norm](previous, channels, kernel, stride=stride)
            modules[f"act{number}"] = nn.ReLU()
            if halves and downsample == "max":
                modules[f"mp{number}"] = MaxPool1d(2)
            previous = channels
        self.features = Blocks(modules)
        self.fc1 = nn.Sequential()
        self.channels = self.dim = previous
        if depth == len(CHANNELS):
            self.fc1.add_module("drop10", nn.Dropout(DROPOUT))
            self.fc1.add_module("fc10", nn.Linear(previous, _EMBEDDING))
            self.dim = _EMBEDDING
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                he_normal(module, generator)

    @property
    def least_length(self) -> int:
        """The fewest samples the network takes (its receptive field)."""
        return least_length(blocks_of(self))

    def pooled(self, x: Float[Tensor, "batch mono time"]) -> Float[Tensor, "batch channel"]:
        """The last block's feature maps, averaged over time.

        Parameters
        ----------
        x : Tensor, shape (batch, 1, time)
            Mono waveforms at 8 kHz, scaled to unit peak.

        Raises
        ------
        ValueError
            If `x` has another shape, or fewer samples than `least_length`.
        """
        if x.ndim != 3 or x.shape[1] != 1:
            raise ValueError(f"Expected waveforms of shape (batch, 1, time), got {tuple(x.shape)}.")
        if x.shape[2] < self.least_length:
            raise ValueError(
                f"A clip of {x.shape[2]} samples is shorter than the {self.least_length} that the "
                "network needs: pad it with zeros (sonibook.audio.pad)."
            )
        return self.features(x).mean(dim=2)

    def forward(
        self,
        x: Float[Tensor, "batch mono time"],
        *,
        kept: Float[Tensor, "batch channel"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """The representation h of a batch of waveforms (paper, section 3.1).

        Parameters
        ----------
        x : Tensor, shape (batch, 1, time)
            As for `pooled`, with the same errors.
        kept : Tensor, shape (batch, channel), or None
            Which channels dropout keeps (1, else 0) while training. None draws them from
            PyTorch's generator.
        """
        y = self.pooled(x)
        if kept is None or not self.training or not self.fc1:
            return self.fc1(y)
        return self.fc1[1](y * kept / (1 - DROPOUT))

    def truncate(self, depth: int) -> CNN12:
        """The first `depth` blocks as a network of their own, sharing this one's weights.

        It ends in the mean over time of block `depth` (paper, appendix B); LayerError if there is
        none.
        """
        check_layer(blocks_of(self), depth)
        short = CNN12(width=self.width, norm=self.norm, downsample=self.downsample, depth=depth)
        short.train(self.training)
        for name in list(short.features._modules):
            short.features._modules[name] = self.features._modules[name]
        if depth == self.depth:
            short.fc1 = self.fc1
        return short

    def fold(self) -> CNN12:
        """The plain conv-relu-pool network with the same effective weights: a copy, to evaluate."""
        device = next(self.parameters()).device
        plain = CNN12(width=self.width, downsample=self.downsample, depth=self.depth).to(device)
        with torch.no_grad():
            for name, module in self.features.named_children():
                if isinstance(module, FoldableConv1d):
                    module = module.fold()
                plain.features.get_submodule(name).load_state_dict(module.state_dict())
            plain.fc1.load_state_dict(self.fc1.state_dict())
        return plain.eval()


class Classifier(nn.Module):
    """An encoder and a linear layer that names classes (paper, appendix A.3).

    Parameters
    ----------
    encoder : CNN12
    classes : sequence of str
        One output for each.
    seed : int or None
        Seed of the initial weights; None draws from PyTorch's generator.
    """

    def __init__(
        self, encoder: CNN12, classes: tuple[str, ...], *, seed: int | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = tuple(classes)
        self.head = nn.Linear(encoder.dim, len(self.classes))
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        with torch.no_grad():
            nn.init.normal_(self.head.weight, std=0.01, generator=generator)
            self.head.bias.zero_()

    def forward(
        self,
        x: Float[Tensor, "batch 1 time"],
        *,
        kept: Float[Tensor, "batch channel"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Logits of waveforms, shape (batch, 1, time); `kept` is as for `CNN12`."""
        return self.head(self.encoder(x, kept=kept))
