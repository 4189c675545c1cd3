"""A few sounds, of one clip or of several, on their way back together.

Each sound is a `Piece`: rows of channels, one for each step, and where they begin. A block takes
many pieces at once, laid out one behind the other with a kernel's width of zeros between: one
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

from sonibook.deconvnet.cpu.clip import Clip, Gates
from sonibook.deconvnet.cpu.steps import single
from sonibook.deconvnet.cpu.weights import Weights, context, reach
from sonibook.deconvnet.cpu.windows import Window
from sonibook.model.gradients import CACHED_FLOATS

#: Floats after unpooling that are computed at once; more where the weights are more.
_PART = CACHED_FLOATS


@dataclass(frozen=True)
class Piece:
    """A stretch of one sound, at some layer on its way back.

    Attributes
    ----------
    clip : Clip
    sound : Tensor, shape (samples,)
        Where it is to be written.
    begin, end : int, in samples
        The part of the sound that is this piece's to write.
    first : int
        The step of the layer that `y` begins with.
    y : Tensor, shape (steps, channel)
        What came out of the block above, not yet rectified.
    """

    clip: Clip
    sound: Float[Tensor, " samples"]
    begin: int
    end: int
    first: int
    y: Float[Tensor, "steps channel"]


#: A window, its clip, and where its sound shall go.
Entry = tuple[Clip, Window, Float[Tensor, " samples"]]


def sonify_few(entries: Mapping[int, Sequence[Entry]], weights: Sequence[Weights]) -> None:
    """Write the raw sonifications of some windows to their places.

    Parameters
    ----------
    entries : mapping of int to sequence of Entry
        By the layer at which they enter.
    weights : sequence of Weights
        Of the blocks, first layer first.
    """
    pieces: list[Piece] = []
    for layer in range(max(entries), 0, -1):
        if pieces:
            pieces = _fitting(layer - 1, block(layer, pieces, weights[layer - 1]), weights)
        for entry in entries.get(layer, ()):
            entered = _entered(layer, entry, weights[:layer])
            pieces = _fitting(layer - 1, [*pieces, entered], weights)


def _fitting(layer: int, pieces: list[Piece], weights: Sequence[Weights]) -> list[Piece]:
    """Pieces that can wait for others; once they outgrow the cache, they are taken to the sound."""
    if layer and sum(piece.y.shape[0] for piece in pieces) <= _most(weights[layer - 1]):
        return pieces
    _down(layer, pieces, weights)
    return []


def _down(layer: int, pieces: Sequence[Piece], weights: Sequence[Weights]) -> None:
    """Take pieces at a layer all the way to the sound, a cacheful at a time."""
    if layer == 0:
        for piece in pieces:
            here = slice(piece.begin - piece.first, piece.end - piece.first)
            piece.sound[piece.begin : piece.end] = piece.y[here, 0]
        return
    for batch in _batches(layer, pieces, weights):
        _down(layer - 1, block(layer, batch, weights[layer - 1]), weights)


def _most(weights: Weights) -> int:
    """Steps of a block's maps that are computed at once."""
    return max(1, max(_PART, weights.weight.numel()) // (weights.pool * weights.filters))


def _batches(
    layer: int, pieces: Sequence[Piece], weights: Sequence[Weights]
) -> Iterator[list[Piece]]:
    """Pieces that are computed at once; a long one is cut."""
    most = _most(weights[layer - 1])
    batch: list[Piece] = []
    steps = 0
    for piece in pieces:
        for part in _parts(piece, most, weights[:layer]):
            if batch and steps + part.y.shape[0] > most:
                yield batch
                batch, steps = [], 0
            batch.append(part)
            steps += part.y.shape[0]
    if batch:
        yield batch


def _parts(piece: Piece, size: int, weights: Sequence[Weights]) -> Iterator[Piece]:
    """A piece, cut in time; a part begins early by the steps that its first sample depends on."""
    steps = piece.y.shape[0]
    if steps <= size:
        yield piece
        return
    stride, _ = reach(weights)
    size = -(-steps // -(-steps // size))
    for start in range(0, steps, size):
        stop, early = min(start + size, steps), min(start, context(weights))
        begin = max(piece.begin, (piece.first + start) * stride)
        end = piece.end if stop == steps else min(piece.end, (piece.first + stop) * stride)
        if begin < end:
            first, y = piece.first + start - early, piece.y[start - early : stop]
            yield replace(piece, begin=begin, end=end, first=first, y=y)


def _entered(layer: int, entry: Entry, weights: Sequence[Weights]) -> Piece:
    """Unpool and deconvolve the one live channel of a window, by its own filter."""
    clip, window, sound = entry
    made = weights[-1]
    stride, beyond = reach(weights)
    begin, end = window.first * stride, window.last * stride + beyond
    signal = F.pad(clip.unpooled(layer, window, made.pool), (made.taps - 1, made.taps - 1))
    y = single(signal[None], made, [window.filter])[0]
    return Piece(clip, sound, begin, end, window.first * made.pool, y)


def block(layer: int, pieces: Sequence[Piece], weights: Weights) -> list[Piece]:
    """Take pieces at a layer down one block: rectify, unpool, deconvolve."""
    gates = [_gates(layer, piece, weights) for piece in pieces]
    rows = [piece.y for piece in pieces]
    if weights.channels == 1:
        below = [_last(y, gate, weights) for y, gate in zip(rows, gates, strict=True)]
    else:
        below = _convolve(rows, gates, weights)
    first = [piece.first * weights.pool for piece in pieces]
    return [
        replace(piece, first=begin, y=y)
        for piece, begin, y in zip(pieces, first, below, strict=True)
    ]


def _gates(layer: int, piece: Piece, weights: Weights) -> Gates:
    begin = weights.steps - 1 + piece.first
    return piece.clip.gates(layer, slice(begin, begin + piece.y.shape[0]))


def _convolve(pieces: list[Tensor], gates: list[Tensor], weights: Weights) -> list[Tensor]:
    """Unpool into rows with zeros between the pieces, and convolve them all."""
    pool, pad = weights.pool, weights.taps - 1
    sizes = [pool * y.shape[0] + pad for y in pieces]
    z = pieces[0].new_empty(pad + sum(sizes), weights.filters)
    z[:pad] = 0
    for y, gate, rows in zip(pieces, gates, z[pad:].split(sizes), strict=True):
        _unpool(y.relu_(), gate, rows[: rows.shape[0] - pad])
        rows[rows.shape[0] - pad :] = 0
    out = F.conv2d(z.t()[None, :, None], weights.convolution)[0, :, 0].t()
    return list(out.split(sizes))


def _unpool(
    y: Float[Tensor, "steps channel"], gates: Gates, out: Float[Tensor, "time channel"]
) -> None:
    """Each value where its maximum was: one gate for each phase after the first, 1 or 0."""
    z = out.unflatten(0, (y.shape[0], 1 + gates.shape[0]))
    if not gates.shape[0]:
        z[:, 0] = y
    rest = y
    for phase, gate in enumerate(gates, start=1):
        torch.mul(y, gate, out=z[:, phase])
        rest = torch.sub(rest, z[:, phase], out=z[:, 0] if phase == gates.shape[0] else None)


def _last(
    y: Float[Tensor, "steps channel"], gates: Gates, weights: Weights
) -> Float[Tensor, "time 1"]:
    """A block of one channel, as the last is, which leaves a convolution little to do.

    A value goes to phase 0, or to the phase of its gate: it times the weights at phase 0, plus it
    times its gate times what the weights at that phase have more.
    """
    steps, pool = y.shape[0], weights.pool
    base, *surplus = weights.last
    spread = base @ y.relu_().t()
    for gate, more in zip(gates, surplus, strict=True):
        spread.addmm_(more, (y * gate).t())
    sound = y.new_zeros(pool, steps + weights.steps - 1)
    for ago, samples in enumerate(spread.split(pool)):
        sound[:, ago : ago + steps] += samples
    return sound.t().reshape(-1, 1)[: pool * steps + weights.taps - 1]
