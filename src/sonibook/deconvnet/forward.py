"""The way up: feature maps and the switches of max-pools (paper, section 3.2, step 1)."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from sonibook.errors import AudioError, SonibookWarning
from sonibook.model.gradients import CACHED_FLOATS
from sonibook.model.layers import channels_last
from sonibook.model.stack import Block, blocks_of, check_layer, least_length

#: Floats that convolutions give at once.
_AT_ONCE = 2 * CACHED_FLOATS

Map = Float[Tensor, "batch channel time"]
Pooled = Float[Tensor, "batch channel steps"]
Switches = Bool[Tensor, "batch channel steps"] | UInt8[Tensor, "batch channel steps"]


def max_pool(
    x: Map, pool: int, *, out: tuple[Pooled, Switches] | None = None
) -> tuple[Pooled, Switches]:
    """Max-pool with its switches: where in each window the largest value was.

    Parameters
    ----------
    x : Tensor, shape (batch, channel, time), >= 0
    pool : int >= 2
        Kernel and stride.
    out : pair of Tensor, or None
        Where to write what is returned.

    Returns
    -------
    pooled : Tensor, shape (batch, channel, time // pool)
    switches : Tensor of bool (pool 2) or uint8, the shape of `pooled`
        Position in the window, from 0. Of equal values the first is chosen.
    """
    steps = x.shape[2] // pool
    if pool == 2:
        first, second = x[:, :, 0 : 2 * steps : 2], x[:, :, 1 : 2 * steps : 2]
        pooled, switches = (None, None) if out is None else out
        return torch.maximum(first, second, out=pooled), torch.gt(second, first, out=switches)
    pooled, position = x[:, :, : steps * pool].unflatten(2, (steps, pool)).max(dim=3)
    if out is None:
        return pooled, position.to(torch.uint8)
    return out[0].copy_(pooled), out[1].copy_(position)


def forward_block(block: Block, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The map of one block, after its pool, and its switches.

    Many clips are computed one after the other and a long map in tiles of time: what is larger
    than the map, the convolution's output, then never leaves the processor's cache.

    Parameters
    ----------
    block : Block
    x : Tensor, shape (batch, channel, time)
        What comes up from the block below.

    Returns
    -------
    map : Tensor, shape (batch, filter, steps)
    switches : Tensor, the shape of `map`, or None
        None where the block has no pool.
    """
    clips, steps, channels = len(x), block.out_length(x.shape[2]), block.conv.out_channels
    if block.pool == 1 or block.padding or x.device.type != "cpu":
        y = F.relu(channels_last(block.conv(x)), inplace=True)
        return max_pool(y, block.pool) if block.pool > 1 else (y, None)
    pooled = x.new_empty(clips, steps, channels).transpose(1, 2)
    kind = torch.bool if block.pool == 2 else torch.uint8
    switches = torch.empty_like(pooled, dtype=kind)
    together = max(1, _AT_ONCE // (steps * block.pool * channels))
    tile = max(1, _AT_ONCE // (block.pool * channels))
    for clip in range(0, clips, together):
        for start in range(0, steps, tile):
            stop = min(start + tile, steps)
            seen = slice(start * block.pool, stop * block.pool + block.extent - 1)
            y = block.conv(x[clip : clip + together, :, seen])
            here = (slice(clip, clip + together), slice(None), slice(start, stop))
            _rectify_and_pool(y, block.pool, out=(pooled[here], switches[here]))
    return pooled, switches


def _rectify_and_pool(y: Map, pool: int, *, out: tuple[Pooled, Switches]) -> None:
    """ReLU, then `max_pool`; of every two steps only the first needs the ReLU."""
    if pool == 2:
        y[:, :, ::2].relu_()
    else:
        y.relu_()
    max_pool(y, pool, out=out)


def prepared(x: Tensor, least: int) -> tuple[Tensor, int]:
    """A waveform as the network takes it.

    Parameters
    ----------
    x : Tensor, shape (time,) or (batch, 1, time)
    least : int, in samples
        Shorter clips are padded with zeros to it, with a warning.

    Returns
    -------
    x : Tensor, shape (batch, 1, time)
    samples : int
        What it had before it was padded.

    Raises
    ------
    AudioError
        If `x` has another shape, is empty, or holds samples that are not finite.
    """
    if x.ndim == 1:
        x = x[None, None]
    if x.ndim != 3 or x.shape[1] != 1:
        raise AudioError(
            f"Expected a waveform (time,) or a batch (batch, 1, time), got {tuple(x.shape)}."
        )
    samples = x.shape[2]
    if samples == 0 or x.shape[0] == 0:
        raise AudioError("The sound holds no samples.")
    if not torch.isfinite(x).all():
        raise AudioError("The sound holds samples that are NaN or infinite.")
    if samples < least:
        warnings.warn(
            f"The clip has {samples} samples; it was padded with zeros to the {least} that this "
            "layer needs.",
            SonibookWarning,
            stacklevel=4,
        )
        x = F.pad(x, (0, least - samples))
    return x, samples


class FeatureMaps:
    """The maps and switches of a batch of clips.

    Parameters
    ----------
    network : torch.nn.Module
        As `sonibook.model.stack.blocks_of` takes it.
    x : ndarray or Tensor, shape (time,) or (batch, 1, time)
        Mono waveforms at the network's sampling rate, scaled to unit peak.
    depth : int or None
        The last layer to compute; None for all.

    Attributes
    ----------
    blocks : tuple of Block
    x : Tensor, shape (batch, 1, time)
        The input, zero-padded where it was shorter than the network needs.
    maps : list of Tensor, shapes (batch, channel, time)
        The map of layer L, after its ReLU and pool, at index L - 1.
    switches : list of Tensor or None
        The switches of layer L at index L - 1; None where the block has no pool.
    lengths : list of int
        Steps of layer L after its convolution, before its pool.

    Raises
    ------
    StackError, LayerError
        As `blocks_of`, and if there is no layer `depth`.
    AudioError
        If `x` has another shape, is empty, or holds samples that are not finite.

    Warns
    -----
    SonibookWarning
        If the clip is shorter than the network's least input and was padded.
    """

    @torch.no_grad()
    def __init__(self, network: nn.Module, x: Tensor | ndarray, *, depth: int | None = None):
        blocks = blocks_of(network)
        depth = len(blocks) if depth is None else check_layer(blocks, depth)
        weight = blocks[0].conv.weight
        waveforms = torch.as_tensor(x, dtype=weight.dtype, device=weight.device)
        self.is_batch = waveforms.ndim == 3
        self.x, self.samples = prepared(waveforms, least_length(blocks, depth))
        self.blocks = blocks[:depth]
        self.maps: list[Tensor] = []
        self.switches: list[Tensor | None] = []
        self.lengths: list[int] = []
        y = self.x
        for block in self.blocks:
            self.lengths.append(block.conv_length(y.shape[2]))
            y, switches = forward_block(block, y)
            self.maps.append(y)
            self.switches.append(switches)

    def energy(self, layer: int) -> Float[Tensor, "batch channel"]:
        """Mean square of every filter's map: how active it is, shape (batch, channel)."""
        return self.maps[check_layer(self.blocks, layer) - 1].square().mean(dim=2)

    def most_active(self, layer: int, count: int = 1) -> list[int]:
        """The `count` filters of a layer with the most energy over the batch, loudest first."""
        return self.energy(layer).sum(dim=0).argsort(descending=True, stable=True)[:count].tolist()
