"""Sonification: one filter's feature map, run back through the network until it is sound.

The paper's section 3.2 and figure B.2, step by step. `forward_pass` keeps the maps and the
switches of a clip; `sonify` goes the way back. The functions here are the plain path, which runs
on any device and which the book shows; on a CPU, `sonibook.deconvnet.cpu` computes the same numbers
many times faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from copy import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from sonibook.deconvnet.cpu import Engine, supports
from sonibook.deconvnet.forward import FeatureMaps, Step
from sonibook.errors import SonibookWarning
from sonibook.model.layers import CACHED_FLOATS
from sonibook.model.operations import MaxPool, Rectifier, Unpool, max_unpool
from sonibook.model.stack import Block, check_filters, check_layer

#: Floats of a map that are on their way back at once, for as many sounds as that allows: on a CPU
#: what its caches all but hold, elsewhere what is quick and leaves room.
_AT_ONCE = {"cpu": 4 * CACHED_FLOATS}
_ELSEWHERE = 2**26
#: Samples of sounds in a batch.
_BATCH = 2**25


class ForwardPass(FeatureMaps):
    """A clip's maps and switches, and the way back from them, for any number of sonifications.

    Parameters, attributes, exceptions and warnings are those of `FeatureMaps`.
    """

    _engine: Engine | None = None

    @torch.no_grad()
    def backward(
        self, layer: int, start: Float[Tensor, "batch filter steps"], *, unpool: Unpool = max_unpool
    ) -> Float[Tensor, "batch channel time"]:
        """From a map of layer `layer` to the waveform: unpool, rectify, deconvolve, repeat.

        Parameters
        ----------
        layer : int
        start : Tensor, shape (batch, filter, steps)
            What the way back starts from: as a rule the layer's own maps, all but one set to zero.
        unpool : callable
            How a max-pool is undone; `sonibook.deconvnet.alternatives` has others.

        Returns
        -------
        Tensor, shape (batch, channel, time), not rescaled
            As many channels as the network takes, as a rule 1.
        """
        y = start
        for index in range(check_layer(self.blocks, layer) - 1, -1, -1):
            y = self._undo(self._steps[index], self.switches[index], y, unpool, keep=y is start)
        return y

    def _undo(
        self,
        steps: Sequence[Step],
        switches: Tensor | None,
        y: Tensor,
        unpool: Unpool = max_unpool,
        *,
        keep: bool = False,
    ) -> Tensor:
        """Go back through some steps of a block, last first; `keep` what is handed in as it is."""
        given = y if keep else None
        for operation, length, scale in reversed(steps):
            if isinstance(operation, MaxPool) and switches is not None:
                y = operation.unpool(y, switches, length, unpool)
            elif isinstance(operation, Rectifier):
                y = F.relu(y, inplace=y is not given)
            else:
                y = operation.transpose(y, length, scale)
        return y

    @torch.no_grad()
    def sonify(
        self, layer: int, filters: Sequence[int] | None = None, *, rescale: bool = True
    ) -> Float[Tensor, "*batch filters time"]:
        """Sonify some filters of a layer, or all; see `sonibook.sonify`."""
        chosen = check_filters(self.blocks, layer, filters)
        fast = self._fast()
        result = self._plain(layer, chosen) if fast is None else fast.sonify(layer, chosen)
        return self._finished(result, f"Layer {layer}", rescale)

    def sonify_in_batches(
        self,
        layer: int,
        filters: Sequence[int] | None = None,
        *,
        rescale: bool = True,
        at_once: int | None = None,
    ) -> Iterator[tuple[list[int], Float[Tensor, "*batch filters time"]]]:
        """Sonify filters of a layer a few at a time, for more sounds than memory holds.

        Memory does not grow with the number of filters: 2,048 of a minute at 8 kHz take less than
        2 GB, of which the sounds together would fill twice as much. Takes and raises what `sonify`
        does.

        Parameters
        ----------
        at_once : int, or None
            Filters in each batch; None for as many as are quick together.

        Yields
        ------
        filters : list of int
            The filters of this batch, in the order that was asked for.
        sounds : Tensor, shape (filters, time) or (batch, filters, time)

        Examples
        --------
        >>> from sonibook import CNN12
        >>> passed = ForwardPass(CNN12(width=0.25, seed=0), torch.sin(torch.arange(8000) * 0.3))
        >>> [(filters, tuple(sounds.shape)) for filters, sounds
        ...  in passed.sonify_in_batches(3, [2, 7, 9], at_once=2)]
        [([2, 7], (2, 8000)), ([9], (1, 8000))]
        """
        chosen = check_filters(self.blocks, layer, filters)
        size = max(1, _BATCH // self.x.numel()) if at_once is None else at_once
        if size < 1:
            raise ValueError(f"at_once must be at least 1, not {at_once}.")
        batches = (chosen[start : start + size] for start in range(0, len(chosen), size))
        return ((some, self.sonify(layer, some, rescale=rescale)) for some in batches)

    @torch.no_grad()
    def sonify_most_active(
        self, layers: Sequence[int] | None = None, *, rescale: bool = True
    ) -> tuple[Float[Tensor, "*shape time"], Int[ndarray, "*batch layers"]]:
        """Sonify each clip's most active filter of some layers, or of all (paper, section 4).

        Returns
        -------
        sounds : Tensor, shape (layers, time) or (batch, layers, time)
        filters : ndarray of int, shape (layers,) or (batch, layers)
            Which filter each is of.
        """
        chosen = list(range(1, len(self.blocks) + 1)) if layers is None else list(layers)
        filters = torch.stack([self.energy(layer).argmax(dim=1) for layer in chosen], dim=1)
        indices = filters.cpu().numpy()
        fast = self._fast()
        if fast is not None:
            result = fast.sonify_one_each(chosen, indices)
        else:
            result = torch.stack(
                [self._plain_one_each(layer, filters[:, n]) for n, layer in enumerate(chosen)],
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
        every ReLU on the way back: the sound is not the sum of the filters' own. `layer`, `filters`
        and `rescale` are as for `sonify`, `unpool` as for `backward`.

        Parameters
        ----------
        weights : sequence of float, or None
            One for each of `filters`, to multiply its map by; None for 1 each.

        Returns
        -------
        Tensor, shape (time,) or (batch, time)

        Raises
        ------
        ValueError
            If there are not as many weights as filters.
        """
        chosen = check_filters(self.blocks, layer, filters)
        maps = self.maps[layer - 1]
        factors = maps.new_ones(len(chosen)) if weights is None else maps.new_tensor(weights)
        if len(factors) != len(chosen):
            raise ValueError(f"Give one weight a filter: {len(factors)} for {len(chosen)}.")
        start = torch.zeros_like(maps)
        start[:, chosen] = maps[:, chosen] * factors[:, None]
        sound = self.backward(layer, start, unpool=unpool)[:, None]
        sound = self._finished(sound, f"Layer {layer}", rescale)
        return sound.squeeze(1 if self.is_batch else 0)

    def _fast(self) -> Engine | None:
        """The engine of this pass, where there is one that can compute it."""
        if self._engine is None and supports(self):
            self._engine = Engine(self)
        return self._engine

    def _plain(self, layer: int, filters: Sequence[int]) -> Tensor:
        """By the steps of the paper, for as many filters at once as there is room for.

        Returns what has the shape (batch, filters, time), with channels before time if there are
        several.
        """
        chosen = torch.tensor(list(filters), device=self.x.device)
        sounds = self.x.new_empty(len(self.x), len(chosen), *self.x.shape[1:])
        at_once = self._at_once(layer)
        for clip in range(len(sounds)):
            alone = self._some(slice(clip, clip + 1))
            for some, place in zip(chosen.split(at_once), sounds[clip].split(at_once), strict=True):
                place[:] = alone._from_single(layer, some)
        return sounds[:, :, 0] if sounds.shape[2] == 1 else sounds

    def _plain_one_each(self, layer: int, filters: Int[Tensor, " batch"]) -> Tensor:
        """By the steps of the paper, another filter of each clip, for some clips at once."""
        at_once = self._at_once(layer)
        parts = [slice(first, first + at_once) for first in range(0, len(filters), at_once)]
        return torch.cat([self._some(here)._from_single(layer, filters[here]) for here in parts])

    @torch.no_grad()
    def _from_single(self, layer: int, filters: Int[Tensor, " sounds"]) -> Tensor:
        """`backward` from one filter's map each, of every clip or all of the only one.

        The dense maps that they start from would be all zero but for one channel: down to the
        layer's convolution, that channel is all there is.
        """
        steps, switches = self._steps[layer - 1], self.switches[layer - 1]
        maps, conv = self.maps[layer - 1], self.blocks[layer - 1].convolution
        rows = torch.arange(len(filters), device=filters.device) % len(maps)

        def single(x: Tensor) -> Tensor:
            return x.expand(*maps.shape[:2], -1)[rows, filters].unsqueeze(1)

        at = next(n for n, step in enumerate(steps) if step.operation is conv)
        above = [
            step if step.scale is None else step._replace(scale=single(step.scale))
            for step in steps[at + 1 :]
        ]
        y = self._undo(above, None if switches is None else single(switches), single(maps))
        y = self._undo(steps[:at], None, conv.transpose_single(y[:, 0], filters, steps[at].length))
        return y if layer == 1 else self.backward(layer - 1, y)

    def _at_once(self, layer: int) -> int:
        """How many sounds may be on their way back from a layer together."""
        largest = max(
            length * block.conv.out_channels
            for length, block in zip(self.lengths[:layer], self.blocks, strict=False)
        )
        return max(1, _AT_ONCE.get(self.x.device.type, _ELSEWHERE) // largest)

    def _some(self, here: slice) -> ForwardPass:
        """The pass of some clips of the batch."""
        some = copy(self)
        some.maps = [map_[here] for map_ in self.maps]
        some.switches = [None if kept is None else kept[here] for kept in self.switches]
        some._steps = [
            [
                step._replace(scale=None if step.scale is None else step.scale[here])
                for step in steps
            ]
            for steps in self._steps
        ]
        return some

    def _finished(self, sounds: Tensor, what: str, rescale: bool) -> Tensor:
        """Cut to the clip's length, scaled, in the shape of what was asked.

        The peak becomes max|x| (paper, step 4); a silent map stays silent, and the caller is told.
        """
        if sounds.ndim == 4 and sounds.shape[2] == 1:
            sounds = sounds[:, :, 0]
        s = sounds[..., : self.samples]
        if rescale:
            over = tuple(range(2, s.ndim))
            peak = torch.maximum(s.amax(dim=over, keepdim=True), -s.amin(dim=over, keepdim=True))
            silent = int((peak == 0).sum())
            if silent:
                warnings.warn(
                    f"{what}: {silent} of {peak.numel()} sonifications are silent, because the "
                    "filter's map is zero all along the clip.",
                    SonibookWarning,
                    stacklevel=4,
                )
            loudest = self.x.abs().amax(dim=(1, 2)).view(-1, *[1] * (s.ndim - 1))
            # To unit peak first: a subnormal peak would overflow `loudest / peak`.
            s = s.div_(peak.where(peak > 0, 1.0)).mul_(loudest)
        return s if self.is_batch else s[0]


def sonify(
    network: nn.Module | Sequence[Block],
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
    network : torch.nn.Module or sequence of Block
        A `CNN12`, or any `torch.nn.Sequential` of convolutions, activations, pools, padding and
        normalisation, or the blocks that `sonibook.model.stack.blocks_of` makes of a list of
        modules. Other activations than ReLU are rectified on the way back as ReLU is; group and
        layer normalisation take this clip's statistics as constants, an approximation.
    x : ndarray or Tensor, shape (time,) or (batch, 1, time)
        Mono waveforms at the network's sampling rate (CNN12: 8 kHz), scaled to unit peak. Of a
        network that takes several channels: (channel, time) or (batch, channel, time).
    layer : int
        Block to listen to, counted from 1.
    filters : sequence of int, or None
        Filters of that layer, counted from 0; None for all.
    rescale : bool
        Scale each sonification to the peak of its input (paper, step 4). False leaves it raw.

    Returns
    -------
    Tensor, shape (filters, time) or (batch, filters, time)
        As long as `x`. A filter whose map is zero all along gives silence. Of a network that takes
        several channels, (filters, channel, time) or (batch, filters, channel, time).

    Raises
    ------
    StackError
        If the network holds a module that cannot be inverted, which is named, or computes
        something else than its modules do one after the other.
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
