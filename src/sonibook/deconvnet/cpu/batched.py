"""A few sounds, of one clip or of several, on their backward pass together.

Each sound is a `Segment`: rows of channels, one for each step, and where they begin. A block takes
many segments at once, laid out one behind the other with a kernel's width of zeros between: one
channels-last convolution then reads its weights once for all of them. What outgrows the cache goes
down in parts, each to the sound before the next is begun.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sonibook.deconvnet.cpu.tiled import Clip, Window
from sonibook.deconvnet.cpu.weights import SwitchMasks, Weights, reach, unpool
from sonibook.model.layers import CACHED_FLOATS

#: Floats after unpooling that are computed at once; more where the weights are more.
_PART = CACHED_FLOATS


@dataclass(frozen=True)
class Segment:
    """A stretch of one sound, at some layer on its backward pass."""

    clip: Clip
    #: Where it is to be written, and the samples of it that are this segment's to write.
    sound: Float[Tensor, " samples"]
    begin: int
    end: int
    #: What came out of the block above, not yet rectified, and the step that it begins with.
    first: int
    y: Float[Tensor, "steps channel"]


#: A window, its clip, and where its sound goes.
Entry = tuple[Clip, Window, Float[Tensor, " samples"]]


@torch.inference_mode()
def sonify_batched(entries: Mapping[int, Sequence[Entry]], weights: Sequence[Weights]) -> None:
    """Write the raw sonifications of some windows, by the layer they enter at, to their places."""
    segments: list[Segment] = []
    for layer in range(max(entries), 0, -1):
        if segments:
            segments = _fitting(layer - 1, block(layer, segments, weights[layer - 1]), weights)
        for entry in entries.get(layer, ()):
            entered = _entered(layer, entry, weights[:layer])
            segments = _fitting(layer - 1, [*segments, entered], weights)


def _fitting(layer: int, segments: list[Segment], weights: Sequence[Weights]) -> list[Segment]:
    """Segments that can wait for others; those that outgrow the cache go on to the sound."""
    if layer and sum(segment.y.shape[0] for segment in segments) <= _most(weights[layer - 1]):
        return segments
    _down(layer, segments, weights)
    return []


def _down(layer: int, segments: Sequence[Segment], weights: Sequence[Weights]) -> None:
    """Take segments at a layer all the way to the sound, a cacheful at a time."""
    if layer == 0:
        for segment in _within(0, segments):
            begin = max(segment.begin, segment.first)
            end = min(segment.end, segment.first + segment.y.shape[0])
            here = slice(begin - segment.first, max(begin, end) - segment.first)
            start = begin - segment.clip.bounds[0][0]
            segment.sound[start : start + here.stop - here.start] = segment.y[here, 0]
        return
    for batch in _batches(layer, segments, weights):
        _down(layer - 1, block(layer, batch, weights[layer - 1]), weights)


def _most(weights: Weights) -> int:
    """Steps of a block's maps that are computed at once."""
    floats = weights.pool * max(weights.filters, weights.outputs)
    return max(1, max(_PART, weights.weight.numel()) // floats)


def _batches(
    layer: int, segments: Sequence[Segment], weights: Sequence[Weights]
) -> Iterator[list[Segment]]:
    """Segments that are computed at once; a long one is cut."""
    most = _most(weights[layer - 1])
    batch: list[Segment] = []
    steps = 0
    for segment in segments:
        for part in _parts(segment, most, weights[:layer]):
            if batch and steps + part.y.shape[0] > most:
                yield batch
                batch, steps = [], 0
            batch.append(part)
            steps += part.y.shape[0]
    if batch:
        yield batch


def _parts(segment: Segment, size: int, weights: Sequence[Weights]) -> Iterator[Segment]:
    """A segment, cut in time; a part begins early by the steps that its first sample depends on."""
    steps = segment.y.shape[0]
    if steps <= size:
        yield segment
        return
    reached = reach(weights)
    stride = reached.stride
    size = -(-steps // -(-steps // size))
    for start in range(0, steps, size):
        stop, early = min(start + size, steps), min(start, reached.context)
        begin = max(segment.begin, (segment.first + start) * stride)
        end = segment.end if stop == steps else min(segment.end, (segment.first + stop) * stride)
        if begin < end:
            first, y = segment.first + start - early, segment.y[start - early : stop]
            yield replace(segment, begin=begin, end=end, first=first, y=y)


def _entered(layer: int, entry: Entry, weights: Sequence[Weights]) -> Segment:
    """Unpool and deconvolve the one live channel of a window, by its own filter."""
    clip, window, sound = entry
    entering = weights[-1]
    stride, beyond = reach(weights)
    begin, end = window.first * stride, window.last * stride + beyond
    pad = entering.beyond
    signal = F.pad(clip.unpooled(layer, window, entering), (pad, pad))
    y = entering.enter(signal[None], [window.filter])[0]
    return Segment(clip, sound, begin, end, window.first * entering.step, y)


def block(layer: int, segments: Sequence[Segment], weights: Weights) -> list[Segment]:
    """Take segments at a layer down one block: rectify, unpool, deconvolve."""
    segments = _within(layer, segments)
    if not segments:
        return []
    masks: list[SwitchMasks] = []
    for segment in segments:
        begin = segment.first + weights.steps - 1
        masks.append(segment.clip.masks(layer, slice(begin, begin + segment.y.shape[0])))
        weights.rectify(segment.y)
    rows = [segment.y for segment in segments]
    if weights.channels == 1 and weights.dilation == 1:
        below = [_last(y, mask, weights) for y, mask in zip(rows, masks, strict=True)]
    else:
        below = _convolve(rows, masks, weights)
    first = [segment.first * weights.step for segment in segments]
    return [
        replace(segment, first=begin, y=y)
        for segment, begin, y in zip(segments, first, below, strict=True)
    ]


def _within(layer: int, segments: Sequence[Segment]) -> list[Segment]:
    """Segments without what came out in the padding around a layer's map, or around the sound."""
    inside = []
    for segment in segments:
        first, last = segment.clip.bounds[layer]
        begin, end = max(segment.first, first), min(segment.first + segment.y.shape[0], last)
        if begin < end:
            y = segment.y[begin - segment.first : end - segment.first]
            inside.append(replace(segment, first=begin, y=y))
    return inside


def _convolve(segments: list[Tensor], masks: list[Tensor], weights: Weights) -> list[Tensor]:
    """Unpool into rows with zeros between the segments, and convolve them all."""
    pool, pad = weights.pool, weights.beyond
    sizes = [pool * y.shape[0] + pad for y in segments]
    z = segments[0].new_empty(pad + sum(sizes), weights.filters)
    z[:pad] = 0
    for y, mask, rows in zip(segments, masks, z[pad:].split(sizes), strict=True):
        unpool(y, mask, rows[: rows.shape[0] - pad])
        rows[rows.shape[0] - pad :] = 0
    return list(weights.convolve(z[None])[0].split([size * weights.stride for size in sizes]))


def _last(
    y: Float[Tensor, "steps channel"], masks: SwitchMasks, weights: Weights
) -> Float[Tensor, "time 1"]:
    """A block of one channel, as the last is, which leaves a convolution little to do.

    A value goes to phase 0, or to the phase of its mask: it times the weights at phase 0, plus it
    times its mask times what the weights at that phase have more.
    """
    steps = y.shape[0]
    base, *surplus = weights.last
    spread = base @ y.t()
    for mask, more in zip(masks, surplus, strict=True):
        spread.addmm_(more, (y * mask).t())
    sound = y.new_zeros(weights.step, steps + weights.steps - 1)
    for ago, samples in enumerate(spread.split(weights.step)):
        sound[:, ago : ago + steps] += samples
    end = weights.step * steps + weights.beyond * weights.stride
    return sound.t().reshape(-1, 1)[:end]
