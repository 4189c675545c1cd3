"""Other ways than the paper's: gradients as sounds, and max-pools undone without their switches.

A sonification is one answer to "what in this clip does that filter respond to?"; gradients give
others. All methods here are asked about one target, the energy of the filter's map,
E(x) = 1/2 sum over time of a(x)^2, of which a sonification is the deconvolution: with ReLU's
backward rule replaced, its gradient is the sonification exactly.

- *Guided backpropagation*: the gradient, rectified at each ReLU on its way back, which also lets
  through only what the forward pass did (Springenberg et al. 2015).
- *Gradient x input*: the gradient times the clip, sample by sample (Shrikumar et al. 2016).
- *Integrated gradients*: the gradient averaged along the straight line from silence to the clip,
  times the clip; its sum is E(x) - E(silence) (Sundararajan et al. 2017).

Captum computes them (``pip install 'sonibook[explain]'``); it is imported when first needed.

The ways to unpool take what `sonibook.model.operations.max_unpool` takes, and can stand in its
place in `ForwardPass.backward`. All are linear, and what follows is homogeneous (a ReLU, a
convolution without bias): a constant factor here would be a factor of the sound, and rescaling
takes it away.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from sonibook.deconvnet.backward import ForwardPass, sonify
from sonibook.deconvnet.forward import FeatureMaps, as_clips
from sonibook.errors import AnalysisError
from sonibook.model.layers import Map, Pooled, Switches
from sonibook.model.operations import MaxPool, Operation, Rectifier, Unpool, max_unpool
from sonibook.model.stack import Block, blocks_of, check_filters

Method = Literal[
    "sonification", "guided backpropagation", "gradient x input", "integrated gradients"
]
METHODS: tuple[Method, ...] = get_args(Method)
#: Points along the line that integrated gradients average over.
STEPS = 32


def explain(
    method: Method,
    network: nn.Module,
    x: Float[Tensor, " time"],
    *,
    layer: int,
    filter: int,
    steps: int = STEPS,
    rescale: bool = True,
) -> Float[Tensor, " time"]:
    """What one filter responds to in a clip, shape (time,), as a sound, by one of several methods.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    network, x, layer
        As for `sonibook.sonify`. The map is taken after the layer's ReLU and pool.
    filter : int
        Counted from 0. One whose map is zero all along gives silence.
    steps : int >= 1
        Of integrated gradients.
    rescale : bool
        Scale to the peak of the clip, as a sonification. False leaves attributions as they are,
        in units of E; sonifications in those of the way back.

    Raises
    ------
    AnalysisError
        If there is no such method, or Captum is not installed.
    StackError, LayerError, AudioError
        As `sonibook.sonify`.
    """
    if method not in METHODS:
        raise AnalysisError(f"There is no method {method!r}: choose one of {', '.join(METHODS)}.")
    if method == "sonification":
        return sonify(network, x, layer=layer, filters=[filter], rescale=rescale)[0]
    blocks = blocks_of(network)
    check_filters(blocks, layer, [filter])
    batch, samples = as_clips(x.to(blocks[0].conv.weight), blocks, layer)
    sound = _attribute(method, MapEnergy(blocks[:layer], filter), batch, steps)[0, 0, :samples]
    peak = sound.abs().max()
    if not rescale or peak == 0:
        return sound
    return sound / peak * batch.abs().max()


def most_active_sounds(
    method: Method,
    network: nn.Module,
    x: Float[Tensor, " time"],
    layers: Sequence[int],
    *,
    steps: int = STEPS,
) -> tuple[Float[Tensor, "layers time"], Int[ndarray, " layers"]]:
    """The clip's most active filter of each layer, explained by one method, and which they are."""
    depth = max(layers)
    if method == "sonification":
        return ForwardPass(network, x, depth=depth).sonify_most_active(layers)
    passed = FeatureMaps(network, x, depth=depth)
    filters = [passed.most_active(layer)[0] for layer in layers]
    sounds = [
        explain(method, network, x, layer=layer, filter=one, steps=steps)
        for layer, one in zip(layers, filters, strict=True)
    ]
    return torch.stack(sounds), np.array(filters)


class MapEnergy(nn.Module):
    """Half the summed square of one filter's map, as a network that gradients can be asked of.

    `blocks` go up to the filter's layer. Every ReLU is a module of its own, and none is in place:
    Captum hooks modules, and passes silently over what is called as a function.
    """

    def __init__(self, blocks: Sequence[Block], filter: int) -> None:
        super().__init__()
        self.filter = filter
        self._operations = [operation for block in blocks for operation in block.operations]
        self.rectifiers = nn.ModuleList(nn.ReLU() for one in self._operations if _is_relu(one))

    def forward(self, x: Float[Tensor, "batch 1 time"]) -> Float[Tensor, " batch"]:
        """The energy of each clip, shape (batch,)."""
        rectifiers = iter(self.rectifiers)
        y: Tensor = x
        for operation in self._operations:
            if _is_relu(operation):
                y = next(rectifiers)(y)
            elif isinstance(operation, MaxPool):
                y = operation.module(y)  # of equal steps the first alone has the gradient
            else:
                y, _ = operation.forward(y)
        return 0.5 * y[:, self.filter].square().sum(dim=1)


def _is_relu(operation: Operation) -> bool:
    return isinstance(operation, Rectifier) and operation.is_relu


def _attribute(method: Method, energy: MapEnergy, x: Tensor, steps: int) -> Tensor:
    try:
        import captum.attr as captum
    except ImportError:
        raise AnalysisError(
            "This explanation is computed by Captum, which is not installed: "
            "pip install 'sonibook[explain]'."
        ) from None
    x = x.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its hooks at each call
        if method == "guided backpropagation":
            sound = captum.GuidedBackprop(energy).attribute(x)
        elif method == "gradient x input":
            sound = captum.InputXGradient(energy).attribute(x)
        else:
            sound = captum.IntegratedGradients(energy).attribute(
                x, n_steps=steps, internal_batch_size=4
            )
    return sound.detach()


def repeat(x: Pooled, switches: Switches, *, pool: int, length: int) -> Map:
    """Hold each value for a whole window (nearest-neighbour upsampling).

    What the pool had left over at the end, of a map of this `length`, becomes zero. The switches
    are not looked at.
    """
    return F.pad(x.repeat_interleave(pool, dim=2), (0, length - pool * x.shape[2]))


def interpolate(x: Pooled, switches: Switches, *, pool: int, length: int) -> Map:
    """Join the values by straight lines from one window's centre to the next.

    Before the first centre and after the last the values are held.
    """
    lines = F.interpolate(x, scale_factor=float(pool), mode="linear")
    return F.pad(lines, (0, length - pool * x.shape[2]))


def insert_zeros(x: Pooled, switches: Switches, *, pool: int, length: int) -> Map:
    """Put each value in the middle of its window, wherever its maximum was.

    The middle of an even window is the sample after it.
    """
    spread = x.new_zeros(*x.shape, pool)
    spread[..., pool // 2] = x
    return F.pad(spread.flatten(2), (0, length - pool * x.shape[2]))


#: Every way to undo a max-pool, the paper's first.
UNPOOLING: dict[str, Unpool] = {
    "switches": max_unpool,
    "repeat": repeat,
    "linear": interpolate,
    "zeros": insert_zeros,
}
