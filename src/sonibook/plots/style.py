"""One look for every figure: colours that everyone can tell apart, sober, ready for print.

The colours are those of M. Okabe and K. Ito, "Color universal design" (2008); the spectrograms'
colour map is perceptually uniform and keeps its order in grey. Figures have an opaque white
ground, so that they read alike on a light page, on a dark one and on paper.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, VERMILLION, PURPLE, GREY = "#E69F00", "#D55E00", "#CC79A7", "#6B7280"

#: What is always drawn in the same colour.
INPUT, SONIFICATION = BLUE, VERMILLION

#: Colours of several curves, in this order.
CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)

#: Colour map of spectrograms and other levels in dB, and of feature maps.
LEVELS, ACTIVITY = "magma", "viridis"

#: Levels are drawn down to this, in dB re the loudest.
FLOOR_DB = -80.0

RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#374151",
    "axes.formatter.use_mathtext": True,
    "axes.labelcolor": "#111827",
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "image.aspect": "auto",
    "image.origin": "lower",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "xtick.color": "#374151",
    "xtick.labelsize": 8.5,
    "ytick.color": "#374151",
    "ytick.labelsize": 8.5,
}


def new_figure(width: float = 8.0, height: float = 3.0) -> Figure:
    """An empty figure that no pyplot knows of; make it and fill it within `look`.

    Parameters
    ----------
    width, height : float > 0, in inches

    Returns
    -------
    matplotlib.figure.Figure
    """
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def look() -> Any:
    """A context in which everything that is drawn has the book's look."""
    return mpl.rc_context(RC)
