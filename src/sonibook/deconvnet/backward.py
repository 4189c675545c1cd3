"""Sonification: one filter's feature map, run back through the network until it is sound.

The paper's section 3.2 and figure B.2, step by step. `forward_pass` keeps the maps and the
switches of a clip; `sonify` goes the way back. The functions here are the plain path, which runs
on any device and which the book shows; on a CPU, `sonibook.deconvnet.cpu` computes the same numbers
many times faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from sonibook.deconvnet.cpu import Engine, supports
from sonibook.deconvnet.forward import FeatureMaps, Map, Pooled, Switches
from sonibook.errors import SonibookWarning
from sonibook.model.layers import effective_weight
from sonibook.model.stack import Block, check_filters, check_layer


@runtime_checkable
class Unpool(Protocol):
    """Undoes a max-pool: `max_unpool`, or what is to stand in its place."""

    def __call__(self, x: Pooled, switches: Switches, *, pool: int, length: int) -> Map: ...


def max_unpool(x: Pooled, switches: Switches, *, pool: int, length: int) -> Map:
    """Put each value back where its maximum was, and zeros elsewhere (paper, step 3i).

    Parameters
    ----------
    x : Tensor, shape (batch, channel, steps)
    switches : Tensor of bool or uint8, the shape of `x`
    pool : int >= 2
        Kernel and stride of the max-pool that is reverted.
    length : int >= pool * steps
        Steps before pooling; what the pool had left over at the end becomes zero.

    Returns
    -------
    Tensor, shape (batch, channel, length)
    """
    position = torch.arange(pool, device=x.device)
    placed = torch.where(switches.unsqueeze(3) == position, x.unsqueeze(3), x.new_zeros(()))
    return F.pad(placed.flatten(2), (0, length - pool * x.shape[2]))


def transposed_convolution(
    x: Float[Tensor, "batch filter steps"], conv: nn.Conv1d
) -> Float[Tensor, "batch channel time"]:
    """The transposed convolution with `conv`'s own weights and no bias (paper, step 3iii).

    Parameters
    ----------
    x : Tensor, shape (batch, out_channels, steps)
        What the convolution gave, or what has come back so far.
    conv : torch.nn.Conv1d
        Stride 1.

    Returns
    -------
    Tensor, shape (batch, in_channels, time)
        As long as what the convolution took.
    """
    return F.conv_transpose1d(
        x, effective_weight(conv), padding=Block(conv).padding, dilation=conv.dilation
    )


class ForwardPass(FeatureMaps):
    """A clip's maps and switches, and the way back from them, for any number of sonifications.

    Parameters
    ----------
    network, x, depth
        As for `FeatureMaps`, whose attributes, exceptions and warnings it has, too.
    """

    _engine: Engine | None = None

    @torch.no_grad()
    def way_back(
        self, layer: int, start: Pooled, *, unpool: Unpool = max_unpool
    ) -> Float[Tensor, "batch 1 time"]:
        """From a map of layer `layer` to the waveform: unpool, rectify, deconvolve, repeat.

        Parameters
        ----------
        layer : int
        start : Tensor, shape (batch, channel, steps)
            What the way back starts from: as a rule the layer's own maps, all but one set to zero.
        unpool : callable
            How a max-pool is undone; `sonibook.deconvnet.unpooling` has others.

        Returns
        -------
        Tensor, shape (batch, 1, time)
            Not rescaled.
        """
        y = start
        for index in range(check_layer(self.blocks, layer) - 1, -1, -1):
            block, switches = self.blocks[index], self.switches[index]
            if switches is not None:
                y = unpool(y, switches, pool=block.pool, length=self.lengths[index])
            y = transposed_convolution(F.relu(y), block.conv)
        return y

    @torch.no_grad()
    def sonify(
        self, layer: int, filters: Sequence[int] | None = None, *, rescale: bool = True
    ) -> Float[Tensor, "*batch filters time"]:
        """Sonify some filters of a layer, or all; see `sonibook.sonify`."""
        everything = range(self.blocks[check_layer(self.blocks, layer) - 1].conv.out_channels)
        chosen = check_filters(self.blocks, layer, everything if filters is None else filters)
        fast = self._fast()
        result = self._plain(layer, chosen) if fast is None else fast.sonify(layer, chosen)
        return self._finished(result, f"Layer {layer}", rescale)

    @torch.no_grad()
    def sonify_most_active(
        self, layers: Sequence[int] | None = None, *, rescale: bool = True
    ) -> tuple[Float[Tensor, "*batch layers time"], Int[ndarray, "*batch layers"]]:
        """Sonify each clip's most active filter of some layers, or of all (paper, section 4).

        Parameters
        ----------
        layers : sequence of int, or None
        rescale : bool
            As for `sonibook.sonify`.

        Returns
        -------
        sounds : Tensor, shape (layers, time) or (batch, layers, time)
        filters : ndarray of int, shape (layers,) or (batch, layers)
            Which filter each is of.

        Raises
        ------
        LayerError
            If there is no such layer.
        """
        chosen = list(range(1, len(self.blocks) + 1)) if layers is None else list(layers)
        filters = torch.stack([self.energy(layer).argmax(dim=1) for layer in chosen], dim=1)
        indices = filters.cpu().numpy()
        fast = self._fast()
        if fast is not None:
            result = fast.sonify_one_each(chosen, indices)
        else:
            rows = torch.arange(len(filters))
            result = torch.stack(
                [
                    self._plain(layer, indices[:, n].tolist())[rows, rows]
                    for n, layer in enumerate(chosen)
                ],
                dim=1,
            )
        sounds = self._finished(result, "Most active filters", rescale)
        return sounds, indices if self.is_batch else indices[0]

    @torch.no_grad()
    def sonify_together(
        self,
        layer: int,
        filters: Sequence[int] | None = None,
        *,
        weights: Sequence[float] | None = None,
        unpool: Unpool = max_unpool,
        rescale: bool = True,
    ) -> Float[Tensor, "*batch time"]:
        """Sonify some filters of a layer, or all, as one sound (beyond the paper: its outlook).

        Their maps are kept, all others are set to zero, and what they have in common meets in
        every ReLU on the way back: the sound is not the sum of the filters' own.

        Parameters
        ----------
        layer : int
        filters : sequence of int, or None
            None for all.
        weights : sequence of float, or None
            One for each of `filters`, to multiply its map by; None for 1 each.
        unpool : callable
            As for `way_back`.
        rescale : bool
            As for `sonibook.sonify`.

        Returns
        -------
        Tensor, shape (time,) or (batch, time)

        Raises
        ------
        LayerError
            If there is no such layer or filter.
        ValueError
            If there are not as many weights as filters.
        """
        maps = self.maps[check_layer(self.blocks, layer) - 1]
        everything = range(maps.shape[1])
        chosen = check_filters(self.blocks, layer, everything if filters is None else filters)
        factors = maps.new_ones(len(chosen)) if weights is None else maps.new_tensor(weights)
        if len(factors) != len(chosen):
            raise ValueError(f"Give one weight a filter: {len(factors)} for {len(chosen)}.")
        start = torch.zeros_like(maps)
        start[:, chosen] = maps[:, chosen] * factors[:, None]
        sound = self.way_back(layer, start, unpool=unpool)
        return self._finished(sound, f"Layer {layer}", rescale)[..., 0, :]

    def _fast(self) -> Engine | None:
        """The engine of this pass, where there is one that can compute it."""
        if self._engine is None and supports(self):
            self._engine = Engine(self)
        return self._engine

    def _finished(self, sounds: Tensor, what: str, rescale: bool) -> Tensor:
        """Cut to the clip's length, scaled, in the shape of what was asked."""
        sounds = sounds[:, :, : self.samples]
        if rescale:
            sounds = self._rescaled(sounds, what)
        return sounds if self.is_batch else sounds[0]

    def _plain(self, layer: int, filters: Sequence[int]) -> Float[Tensor, "batch filters time"]:
        """One filter after the other, by the steps of the paper."""
        maps = self.maps[layer - 1]
        sounds = []
        for index in filters:
            only = torch.zeros_like(maps)
            only[:, index] = maps[:, index]
            sounds.append(self.way_back(layer, only))
        return torch.cat(sounds, dim=1)

    def _rescaled(self, s: Tensor, what: str) -> Tensor:
        """Peak to max|x| (paper, step 4); a silent map stays silent, and the caller is told."""
        peak = torch.maximum(s.amax(dim=2, keepdim=True), -s.amin(dim=2, keepdim=True))
        silent = int((peak == 0).sum())
        if silent:
            warnings.warn(
                f"{what}: {silent} of {peak.numel()} sonifications are silent, because the "
                "filter's map is zero all along the clip.",
                SonibookWarning,
                stacklevel=5,
            )
        loudest = self.x.abs().amax(dim=2, keepdim=True)
        # To unit peak first: a subnormal peak would overflow `loudest / peak`.
        return s.div_(peak.where(peak > 0, 1.0)).mul_(loudest)


def sonify(
    network: nn.Module,
    x: Tensor | ndarray,
    *,
    layer: int,
    filters: Sequence[int] | None = None,
    rescale: bool = True,
) -> Float[Tensor, "*batch filters time"]:
    """Turn what single filters respond to in a clip back into sound (paper, section 3.2).

    Forward, keeping maps and switches; set every map of the layer but one to zero; then, for
    each block from `layer` down to 1: unpool by the switches, ReLU, transposed convolution with
    the block's own weights and no bias. To ask for several layers of one clip, keep its
    `ForwardPass`.

    Parameters
    ----------
    network : torch.nn.Module
        A `CNN12`, or any `torch.nn.Sequential` of Conv1d (stride 1), ReLU and MaxPool1d.
    x : ndarray or Tensor, shape (time,) or (batch, 1, time)
        Mono waveforms at the network's sampling rate (CNN12: 8 kHz), scaled to unit peak.
    layer : int
        Block to listen to, counted from 1.
    filters : sequence of int, or None
        Filters of that layer, counted from 0; None for all.
    rescale : bool
        Scale each sonification to the peak of its input (paper, step 4). False leaves it raw.

    Returns
    -------
    Tensor, shape (filters, time) or (batch, filters, time)
        As long as `x`. A filter whose map is zero all along gives silence.

    Raises
    ------
    StackError
        If the network holds a module that cannot be inverted; it is named.
    LayerError
        If there is no such layer or filter.
    AudioError
        If `x` has another shape, is empty, or holds samples that are not finite.

    Warns
    -----
    SonibookWarning
        If the clip was padded, or a sonification is silent.

    Examples
    --------
    >>> from sonibook import CNN12
    >>> x = torch.sin(torch.arange(8000) * 0.3)
    >>> sonify(CNN12(width=0.25, seed=0), x, layer=3, filters=[2, 7]).shape
    torch.Size([2, 8000])
    """
    return ForwardPass(network, x, depth=layer).sonify(layer, filters, rescale=rescale)
