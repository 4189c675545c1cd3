"""Estimates over layers as curves, each with its interval as a band."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from matplotlib.axes import Axes

from sonibook.analysis.result import Estimate
from sonibook.plots.kinds import kind_of, main_networks
from sonibook.plots.style import CYCLE, GREY

_MARKERS = "os^Dv*"
#: A label that legends leave out.
_UNLISTED = "_"


def draw_estimates(
    axes: Axes,
    layers: Sequence[int],
    estimates: Sequence[Estimate],
    *,
    label: str,
    number: int,
    baseline: bool = False,
    variant: bool = False,
) -> None:
    """Draw one curve: the means, and a band from low to high where there is an interval.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    layers : sequence of int
    estimates : sequence of Estimate
        One a layer; the curve has a gap where nothing was measured.
    label : str
        In the legend.
    number : int >= 0
        Which curve it is: gives it a colour and a marker of its own.
    baseline : bool
        Whether it is what others are to be read against: dashed and grey.
    variant : bool
        Whether it is one more of a kind that has a curve already, such as another seed: thin, with
        neither markers nor a band.
    """
    colour = GREY if baseline else CYCLE[number % len(CYCLE)]
    mean, low, high = (
        np.array([_or_nan(getattr(one, end)) for one in estimates])
        for end in ("mean", "low", "high")
    )
    axes.plot(
        layers,
        mean,
        color=colour,
        linestyle="--" if baseline else "-",
        marker=None if variant else _MARKERS[number % len(_MARKERS)],
        markersize=4.5,
        linewidth=0.8 if variant else None,
        label=label,
    )
    if not variant:
        axes.fill_between(layers, low, high, color=colour, alpha=0.18, linewidth=0)


@runtime_checkable
class NetworkCurve(Protocol):
    """What an analysis found of one network, layer by layer."""

    @property
    def network(self) -> str:
        """Its name."""

    @property
    def baseline(self) -> bool:
        """Whether others are to be read against it."""

    @property
    def layers(self) -> Sequence[Any]:
        """Rows, each with its number as ``layer``."""


AnyCurve = TypeVar("AnyCurve", bound=NetworkCurve)


def main_curves(networks: Sequence[AnyCurve]) -> list[AnyCurve]:
    """The curves that are drawn boldly: one of each kind, of those that differ in their seed."""
    mains = main_networks([one.network for one in networks])
    return [one for one in networks if one.network in mains]


def draw_networks(
    axes: Axes,
    networks: Sequence[NetworkCurve],
    pick: Callable[[Any], Estimate],
    *,
    label: str = "{}",
) -> None:
    """Draw a curve for each network; those that differ in their seed alone share a colour.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    networks : sequence of NetworkCurve
        ``contrastive-1`` is drawn thinly in the colour of ``contrastive``, where both are there.
    pick : callable
        From a layer's row to its estimate.
    label : str
        In the legend, with ``{}`` where the network's name goes; it counts the thin curves.
    """
    names = [one.network for one in networks]
    mains = main_networks(names)
    kinds = Counter(kind_of(name, names) for name in names)
    for one in networks:
        kind = kind_of(one.network, names)
        variant = one.network != kind
        more = f" (thin: {kinds[kind] - 1} more)" if kinds[kind] > 1 else ""
        draw_estimates(
            axes,
            [row.layer for row in one.layers],
            [pick(row) for row in one.layers],
            label=_UNLISTED if variant else label.format(one.network) + more,
            number=mains.index(kind),
            baseline=one.baseline,
            variant=variant,
        )


def over_layers(axes: Axes, layers: Sequence[int], **labels: Any) -> None:
    """Give axes whose horizontal one counts layers their ticks, grid and labels.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    layers : sequence of int
    **labels
        Of `Axes.set`, such as `ylabel` and `title`.
    """
    axes.set(xlabel="layer", xticks=layers, **labels)
    axes.grid(True)


def course(name: str, layers: Sequence[int], estimates: Sequence[Estimate]) -> str:
    """A curve in words, for alternative text: where it starts, ends and turns.

    Returns
    -------
    str
        Such as "supervised: 0.94 at layer 1, 0.58 at layer 11".
    """
    known = [
        (layer, one.mean)
        for layer, one in zip(layers, estimates, strict=True)
        if one.mean is not None
    ]
    if not known:
        return f"{name}: nothing measured"
    ends = {known[0], known[-1], max(known, key=_height), min(known, key=_height)}
    return f"{name}: " + ", ".join(f"{mean:.2g} at layer {layer}" for layer, mean in sorted(ends))


def _height(point: tuple[int, float]) -> float:
    return point[1]


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
