"""CNN12, the paper's raw-waveform encoder (appendix A.1, figure A.1), at any width."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.model.layers import Blocks, Conv1d, MaxPool1d, he_normal
from sonibook.model.norms import BatchNormConv1d, FoldableConv1d, StandardisedConv1d
from sonibook.model.stack import blocks_of, check_layer, least_length

Norm = Literal["none", "weight", "batch"]
Downsample = Literal["max", "stride"]

#: Channels of the eleven convolutions at width 1, their kernels, and how many blocks pool.
CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024, 2048)
KERNELS = (7, 7, 5, 5, 5, 3, 3, 3, 3, 3, 3)
POOLED_BLOCKS = 8
EMBEDDING = 512
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
        norm: Norm = "none",
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
            halves = number <= POOLED_BLOCKS
            kernel, stride = KERNELS[number - 1], 2 if halves and downsample == "stride" else 1
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
            self.fc1.add_module("fc10", nn.Linear(previous, EMBEDDING))
            self.dim = EMBEDDING
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
        """The plain conv-relu-pool network with the same effective weights: a copy, in
        `eval` mode.
        """
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
