"""The way up: feature maps and the switches of max-pools (paper, section 3.2, step 1)."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.errors import AudioError, SonibookWarning, StackError
from sonibook.model.layers import CACHED_FLOATS, channels_last, max_pool, switch_type
from sonibook.model.operations import ClipNorm, MaxPool, Operation
from sonibook.model.stack import Block, Stack, blocks_of, check_layer, least_length

#: Floats that convolutions give at once.
_AT_ONCE = 2 * CACHED_FLOATS
#: Samples of the clip on which the stack is compared with the network.
_COMPARED = 8192


class Step(NamedTuple):
    """What the way back needs of an operation: how long its input was, and a norm's scale."""

    operation: Operation
    length: int
    scale: Tensor | None = None


def forward_block(block: Block, x: Tensor) -> tuple[Tensor, Tensor | None, list[Step]]:
    """The map of one block, after its pool, its switches, and what else the way back needs.

    Many clips are computed one after the other and a long map in tiles of time: what is larger
    than the map, the convolution's output, then never leaves the processor's cache.
    """
    if not (block.is_simple and block.pool > 1 and x.device.type == "cpu"):
        return _forward_plainly(block, x)
    clips, steps, channels = len(x), block.out_length(x.shape[2]), block.conv.out_channels
    pooled = x.new_empty(clips, steps, channels).transpose(1, 2)
    switches = torch.empty_like(pooled, dtype=switch_type(block.pool))
    together = max(1, _AT_ONCE // (steps * block.pool * channels))
    tile = max(1, _AT_ONCE // (block.pool * channels))
    for clip in range(0, clips, together):
        for start in range(0, steps, tile):
            stop = min(start + tile, steps)
            # All of it where it can be: of several clips a part would be copied first.
            end = stop * block.pool + block.extent - 1
            seen = slice(start * block.pool, end if tile < steps else None)
            y, _ = block.convolution.forward(x[clip : clip + together, :, seen])
            here = (slice(clip, clip + together), slice(None), slice(start, stop))
            # Of every two steps only the first needs the ReLU.
            (y[:, :, ::2] if block.pool == 2 else y).relu_()
            max_pool(y, block.pool, out=(pooled[here], switches[here]))
    length = block.convolution.out_length(x.shape[2])
    lengths = (x.shape[2], length, length)
    return pooled, switches, list(map(Step, block.operations, lengths))


def _forward_plainly(block: Block, x: Tensor) -> tuple[Tensor, Tensor | None, list[Step]]:
    """One operation after the other, on any device."""
    switches: Tensor | None = None
    steps: list[Step] = []
    for operation in block.operations:
        length = x.shape[2]
        x, kept = operation.forward(x)
        if isinstance(operation, MaxPool):
            switches, kept = kept, None
        steps.append(Step(operation, length, kept))
    return channels_last(x), switches, steps


def as_clips(x: Tensor, blocks: Sequence[Block], depth: int) -> tuple[Tensor, int]:
    """A sound as a network takes it, (batch, channel, time), and its samples.

    It is padded with zeros, with a warning, where it is too short for layer `depth`. A single
    sound is (time,), or (channel, time) for a network of several channels.
    """
    channels, least = blocks[0].conv.in_channels, least_length(blocks, depth)
    if x.ndim == (1 if channels == 1 else 2):
        x = x[None, None] if x.ndim == 1 else x[None]
    if x.ndim != 3 or x.shape[1] != channels:
        expected = "a waveform (time,)" if channels == 1 else f"a sound ({channels}, time)"
        raise AudioError(
            f"Expected {expected} or a batch (batch, {channels}, time), got {tuple(x.shape)}."
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
    network : torch.nn.Module or sequence of Block
        As `sonibook.model.stack.blocks_of` takes it, or what it returned.
    x : ndarray or Tensor, shape (time,) or (batch, 1, time)
        Mono waveforms at the network's sampling rate, scaled to unit peak. Of a network that takes
        several channels: (channel, time) or (batch, channel, time).
    depth : int or None
        The last layer to compute; None for all.
    precision : torch.dtype or None
        ``torch.bfloat16`` or ``torch.float16`` for the convolutions on the way up, which is quicker
        where the device has instructions for it; None for the network's own. The switches are those
        of the maps that are really computed, and the backward pass keeps the network's precision.

    Attributes
    ----------
    blocks : tuple of Block
    x : Tensor, shape (batch, channel, time)
        The input, zero-padded where it was shorter than the network needs.
    maps : list of Tensor, shapes (batch, channel, time)
        The map of layer L, after its ReLU and pool, at index L - 1.
    switches : list of Tensor or None
        The switches of layer L at index L - 1; None where the block has no max-pool.
    lengths : list of int
        Steps of layer L after its convolution, before its pool.

    Raises
    ------
    StackError, LayerError
        As `blocks_of`; if the network computes something else than its blocks do; and if there is
        no layer `depth`.
    AudioError
        If `x` has another shape, is empty, or holds samples that are not finite.

    Warns
    -----
    SonibookWarning
        If the clip is shorter than the network's least input and was padded.
    """

    @torch.no_grad()
    def __init__(
        self,
        network: nn.Module | Sequence[Block],
        x: Tensor | ndarray,
        *,
        depth: int | None = None,
        precision: torch.dtype | None = None,
    ):
        blocks = blocks_of(network)
        depth = len(blocks) if depth is None else check_layer(blocks, depth)
        weight = blocks[0].conv.weight
        if torch.is_complex(torch.as_tensor(x)):
            raise AudioError("The sound holds complex numbers, and samples are real.")
        waveforms = torch.as_tensor(x, dtype=weight.dtype, device=weight.device)
        self.is_batch = waveforms.ndim == 3
        self.x, self.samples = as_clips(waveforms, blocks, depth)
        _compare(blocks, self.x)
        self.blocks = tuple(blocks[:depth])
        self.maps: list[Tensor] = []
        self.switches: list[Tensor | None] = []
        self.lengths: list[int] = []
        self._steps: list[list[Step]] = []
        y = self.x
        for block in self.blocks:
            with torch.autocast(y.device.type, precision, enabled=precision is not None):
                y, switches, steps = forward_block(block, y)
            y = y.to(weight.dtype)
            self.maps.append(y)
            self.switches.append(switches)
            self._steps.append(steps)
            (taken,) = [step for step in steps if step.operation is block.convolution]
            self.lengths.append(block.convolution.out_length(taken.length))

    def energy(self, layer: int) -> Float[Tensor, "batch channel"]:
        """Mean square of every filter's map: how active it is, shape (batch, channel)."""
        return self.maps[check_layer(self.blocks, layer) - 1].square().mean(dim=2)

    def most_active(self, layer: int, count: int = 1) -> list[int]:
        """The `count` filters of a layer with the most energy over the batch, loudest first."""
        return self.energy(layer).sum(dim=0).argsort(descending=True, stable=True)[:count].tolist()


#: Networks that were found to compute what their blocks do, and what they consisted of then.
_COMPARISONS: WeakKeyDictionary[nn.Module, tuple[object, ...]] = WeakKeyDictionary()


def _compare(blocks: Sequence[Block], x: Tensor) -> None:
    """See once for each network that its blocks compute what it computes itself.

    A module may override `forward` unseen, a hook may change a map, a network may do more than
    run its ``features``: only the numbers tell.
    """
    if not isinstance(blocks, Stack) or blocks.network is None:
        return
    network = blocks.network
    consists_of = tuple(
        (id(one), type(one), len(one._forward_hooks), len(one._forward_pre_hooks))
        for one in (network, *network.modules(), *blocks.modules)
    )
    if _COMPARISONS.get(network) == consists_of:
        return
    probe = _probe(blocks, x)
    what = type(network).__name__
    with _evaluating(network):
        try:
            ours, slack = [probe], []
            for block in blocks:
                given, rounding = _forward_with_rounding(block, ours[-1])
                ours.append(given)
                slack.append(rounding)
            heard, theirs = _run(network, blocks, probe)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise StackError(f"{what} cannot run on a sound: {reason}") from None
    if heard.shape != probe.shape or not torch.equal(heard, probe):
        raise StackError(
            f"{what} changes the sound before its first convolution sees it: pass the part of it "
            "that is a torch.nn.Sequential, and the sound as that part takes it."
        )
    eps = torch.finfo(x.dtype).eps
    if x.is_cuda and torch.backends.cudnn.allow_tf32 and x.dtype == torch.float32:
        eps = 2.0**-10
    # Every map, not only the last: what is silent on the way hides what came before.
    apart = max(map(_apart, ours[1:], theirs, slack))
    if not apart <= eps**0.5:
        raise StackError(
            f"{what} computes something else than its convolutions, activations and pools do one "
            f"after the other (a map differs by {apart:.1g} of its peak): a hook changes a map, or "
            "a module does more than its class says."
        )
    _COMPARISONS[network] = consists_of


def _forward_with_rounding(block: Block, x: Tensor) -> tuple[Tensor, float]:
    """A block's map, and what rounding alone may change of it where a norm makes it louder.

    Group and layer normalisation take the mean of a map that is the same all along away, and
    multiply what is left, which is rounding.
    """
    rounding = 0.0
    for operation in block.operations:
        peak = float(x.abs().max())
        x, scale = operation.forward(x)
        if isinstance(operation, ClipNorm) and scale is not None:
            rounding = 16 * torch.finfo(x.dtype).eps * peak * float(scale.abs().max())
    return x, rounding


def _apart(ours: Tensor, theirs: Tensor, rounding: float) -> float:
    """How far two maps differ beyond rounding, as a share of the peak."""
    if ours.shape != theirs.shape or not torch.isfinite(ours - theirs).all():
        return 1.0
    difference = float((ours - theirs).abs().max())
    return max(difference - rounding, 0.0) / max(float(theirs.abs().max()), 1e-30)


def _probe(blocks: Sequence[Block], x: Tensor) -> Tensor:
    """The loudest stretch of a clip, and noise as loud, long enough for every layer."""
    size = max(_COMPARED, 4 * least_length(blocks))
    modules = (module for block in blocks for module in block.modules)
    if any(isinstance(module, nn.LayerNorm) for module in modules):
        size = max(x.shape[2], least_length(blocks))  # it takes maps of one length alone
    loudest = int(x[0].abs().amax(dim=0).argmax())
    start = max(0, min(loudest - size // 2, x.shape[2] - size))
    clip = x[:1, :, start : start + size]
    clip = F.pad(clip, (0, size - clip.shape[2]))
    noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(0)).to(clip)
    peak = clip.abs().max()
    return torch.cat((clip, noise / noise.abs().max() * peak.where(peak > 0, 1.0)))


class _Reached(Exception):  # noqa: N818
    """The last module that matters has run."""


def _run(network: nn.Module, blocks: Stack, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What the first module gets and what each block's last one gives when the network hears `x`.

    The last map is what comes out of the whole chain, after any hook on it.
    """
    modules, ends = blocks.modules, [block.modules[-1] for block in blocks]
    last, times = modules[-1], modules.count(modules[-1])
    got: list[Tensor] = []
    given: defaultdict[nn.Module, list[Tensor]] = defaultdict(list)

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        got.append(inputs[0])

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        given[module].append(output.clone())
        if module is last and len(given[last]) == times:
            raise _Reached

    handles = [module.register_forward_hook(after) for module in {*ends, last}]
    handles.append(modules[0].register_forward_pre_hook(before))
    try:
        # A network may take other shapes than its features do: then these run alone.
        for chain in ((network,), modules):
            y = x
            got.clear()
            given.clear()
            try:
                for module in chain:
                    y = module(y)
            except _Reached:
                break
            except Exception:
                if chain is modules:
                    raise
    finally:
        for handle in handles:
            handle.remove()
    maps, used = [], Counter[nn.Module]()
    for block, end in zip(blocks, ends, strict=True):
        used.update(block.modules)
        maps.append(given[end][used[end] - 1])
    return got[0], [*maps[:-1], given[last][-1]]


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, and afterwards as it was."""
    modes = [(module, module.training) for module in network.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
