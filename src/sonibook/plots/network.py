"""A network as pictures: what its layers see, what their maps look like, how strong they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor, nn

from sonibook.audio import SAMPLE_RATE
from sonibook.model.stack import blocks_of, receptive_field, stride
from sonibook.plots.excerpts import as_array
from sonibook.plots.plots import lines
from sonibook.plots.style import ACTIVITY, BLUE, SKY, look, new_figure


def receptive_fields(network: nn.Module, *, sample_rate: int = SAMPLE_RATE) -> Figure:
    """The receptive field and the stride of every layer, on a logarithmic axis.

    Parameters
    ----------
    network : torch.nn.Module
        As `sonibook.model.stack.blocks_of` takes it.
    sample_rate : int > 0, in Hz

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    StackError
        If the network is no stack of conv-relu-[pool] blocks.
    """
    blocks = blocks_of(network)
    layers = range(1, len(blocks) + 1)
    fields = [receptive_field(blocks, layer) for layer in layers]
    strides = [stride(blocks, layer) for layer in layers]
    with look():
        figure = new_figure(8.0, 0.8 + 0.27 * len(blocks))
        axes = figure.subplots()
        axes.barh(layers, fields, color=SKY, height=0.72, label="receptive field")
        axes.barh(layers, strides, color=BLUE, height=0.3, label="stride")
        for layer, field in zip(layers, fields, strict=True):
            text = f" {field} samples = {1000 * field / sample_rate:.3g} ms"
            axes.text(field, layer, text, va="center", fontsize=8)
        axes.set_xscale("log", base=2)
        axes.set(xlim=(0.8, fields[-1] * 8), xlabel="samples", ylabel="layer", yticks=layers)
        axes.invert_yaxis()
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="upper right")
    return figure


def feature_maps(
    maps: Sequence[Float[ndarray, "channel time"] | Float[Tensor, "channel time"]],
    *,
    titles: Sequence[str],
    seconds: float,
) -> Figure:
    """Feature maps as heat maps, one panel a layer, the most active filter on top.

    Each panel is scaled to its own largest value; brightness is the square root of activity, so
    that the soft ones show.

    Parameters
    ----------
    maps : sequence of ndarray or Tensor, shapes (channel, time), >= 0
    titles : sequence of str
        One for each.
    seconds : float > 0
        How long the clip is.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with look():
        figure = new_figure(8.0, 0.5 + 1.55 * len(maps))
        rows = figure.subplots(len(maps), 1, sharex=True, squeeze=False)[:, 0]
        for axes, values, title in zip(rows, maps, titles, strict=True):
            array = as_array(values)
            order = np.argsort(np.square(array).mean(axis=1), kind="stable")
            shown = np.sqrt(shortened(array[order], 1000) / max(float(array.max()), 1e-30))
            axes.imshow(
                shown,
                cmap=ACTIVITY,
                vmin=0,
                vmax=1,
                extent=(0, seconds, 0, len(array)),
                interpolation="nearest",
            )
            axes.set(title=title, ylabel="filters", yticks=[0, len(array)])
        rows[-1].set_xlabel("time / s")
    return figure


def signal_levels(curves: Mapping[str, Sequence[float]]) -> Figure:
    """How strong the signal is after each layer, for several networks.

    Parameters
    ----------
    curves : mapping from str to sequence of float, > 0
        A number for each layer, by name of the network.

    Returns
    -------
    matplotlib.figure.Figure
    """
    count = max(len(values) for values in curves.values())
    figure = lines(
        curves,
        range(1, count + 1),
        xlabel="layer",
        ylabel="standard deviation",
        log_y=True,
    )
    figure.axes[0].set_xticks(range(1, count + 1))
    return figure


def shortened(values: Float[ndarray, "channel time"], most: int) -> Float[ndarray, "channel t"]:
    """At most `most` columns: each the largest of its stretch, so that no short event is lost."""
    if values.shape[1] <= most:
        return values
    edges = np.linspace(0, values.shape[1], most, endpoint=False).astype(int)
    return np.maximum.reduceat(values, edges, axis=1)
