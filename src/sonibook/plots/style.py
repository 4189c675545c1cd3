"""One look for every figure: its colours, its alternative text, and tables of results.

The colours are those of M. Okabe and K. Ito, "Color universal design" (2008); the spectrograms'
colour map is perceptually uniform and keeps its order in grey. Figures have an opaque white
ground; on a dark page, a filter inverts them around their spectrograms.
"""

from __future__ import annotations

import base64
import html
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, VERMILLION, PURPLE, GREY = "#E69F00", "#D55E00", "#CC79A7", "#6B7280"

#: Colours of several curves, in this order.
CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)

#: Colour map of spectrograms and other levels in dB, and of feature maps.
LEVELS, ACTIVITY = "magma", "viridis"

_RC: Any = {
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
    "image.cmap": LEVELS,
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

_Numbers = Sequence[float] | Sequence[int] | ndarray

#: On a phone a figure is drawn at least as wide as this many CSS pixels for each of its inches, and
#: scrolls: its labels, of 8.5 points, are then 10 pixels high.
_READABLE = 84

#: CSS's ``invert(0.92) hue-rotate(180deg)`` as one matrix of an SVG filter.
_INVERTED = (
    "0.4822 -1.201 -0.121 0 .92 -0.3578 -0.3612 -0.121 0 .92 -0.3578 -1.201 0.719 0 .92 0 0 0 1 0"
)

_PADDING = "padding: 0.15rem 0.4rem; vertical-align: top;"
_NUMBER = re.compile(r"[-−+]?\d[\d,.]*(e[-+]?\d+)?\s*\S*")
_INTERVAL = re.compile(r"([-+−]?[\d.,]+%?) (\[[^\[\]]+, [^\[\]]+\])")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@contextmanager
def drawing(
    width: float, height: float, rows: int = 1, columns: int = 1, of: str = "plots", **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure in the book's look, in inches, and its axes, or, of "figures", its subfigures."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, getattr(figure, f"sub{of}")(rows, columns, **options)


def lines(
    curves: Mapping[str, Any],
    at: _Numbers | None = None,
    *,
    xlabel: str,
    ylabel: str,
    references: Mapping[str, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> Figure:
    """Measured curves, and dashed lines to read them against.

    Parameters
    ----------
    curves : mapping from str to sequence of float, shape (points,), or to a pair of such
        By name, which the legend shows. Without `at` each is a pair: where it was measured, and
        what was measured there.
    at : sequence of float, shape (points,), or None
        Where all were measured; `ValueError` if a curve does not have one value for each.
    xlabel, ylabel : str
    references : mapping from str to float, or None
        Heights, by name, such as what chance would give.
    log_x, log_y : bool
        Whether that axis is logarithmic.
    """
    pairs = {name: curve if at is None else (at, curve) for name, curve in curves.items()}
    for name, (points, values) in pairs.items():
        if len(points) != len(values):
            raise ValueError(f"{name}: {len(values)} values were given for {len(points)} places.")
    names = [*pairs, *(references or {})]
    columns = 3 if max(map(len, names)) < 20 else 2
    # On a phone, most of it is seen at once; the legend stands above, and hides no curve.
    with drawing(5.6, 2.6 + 0.2 * -(-len(names) // columns)) as (figure, axes):
        for number, (name, (points, values)) in enumerate(pairs.items()):
            rounds, place = divmod(number, len(CYCLE))
            style: Any = {"linestyle": ("-", "--", "-.", ":")[rounds % 4], "markersize": 4.5}
            # A few points are measurements, many are a trend.
            marker = "os^Dv*"[place] if len(points) <= 30 else ""
            axes.plot(points, values, color=CYCLE[place], marker=marker, label=name, **style)
        for number, (name, height) in enumerate((references or {}).items()):
            axes.axhline(height, color=GREY, linestyle=("--", ":", "-.")[number % 3], label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        if not log_x and all(float(x).is_integer() for points, _ in pairs.values() for x in points):
            whole = MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])  # no epoch 1.5
            axes.xaxis.set_major_locator(whole)
        axes.grid(True)
        figure.legend(loc="outside upper left", ncols=columns)
    return figure


class Picture:
    """A figure as a notebook or page shows it: an ``<img>`` with alternative text.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    alt : str
        What is to be seen in it, for those who cannot see it; `ValueError` if empty.
    caption : str
        Shown below; empty for none.
    dpi : int > 0
    kind : {"png", "webp"}
        As which file: with sharp lines, or small.
    """

    def __init__(
        self, figure: Figure, *, alt: str, caption: str = "", dpi: int = 110, kind: str = "png"
    ) -> None:
        if not alt.strip():
            raise ValueError("A figure needs alt text: say in a sentence what it shows.")
        self.figure, self.alt, self.caption, self.dpi, self.kind = figure, alt, caption, dpi, kind

    @cached_property
    def image(self) -> bytes:
        """The figure as a file."""
        from PIL import Image

        drawn, file = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=self.dpi)
        image = Image.open(drawn).convert("RGB")
        if self.kind == "webp":
            image.save(file, format="webp", quality=45)
        else:  # with a palette, a third of the size of one in full colour
            image = image.quantize(192, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            image.save(file, format="png", optimize=True)
        return file.getvalue()

    def _repr_html_(self) -> str:
        data, alt = base64.b64encode(self.image).decode(), html.escape(self.alt, quote=True)
        name = f"dark-{zlib.crc32(self.image):08x}"
        style = "width: auto; max-width: 100%; height: auto; vertical-align: top; "
        style += f"--readable: {round(_READABLE * self.figure.get_figwidth())}px; "
        style += f"--dark: url(#{name});"  # with which the book's style sheet shows it in the dark
        image = f'<img src="data:image/{self.kind};base64,{data}" alt="{alt}" style="{style}">'
        image = f'<span class="picture">{image}{_dark(self.figure, name)}</span>'
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return f"<figure>{image}{caption}</figure>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        image = base64.b64encode(self.image).decode()
        shown = {"text/plain": self.alt, "text/html": self._repr_html_()}
        return shown | {f"image/{self.kind}": image}


def _dark(figure: Figure, name: str) -> str:
    """An SVG filter that inverts a figure, with the hues turned back, around its spectrograms."""
    boxes = [
        axes.get_window_extent().transformed(figure.transFigure.inverted())
        for axes in figure.axes
        if axes.images or axes.get_label() == "<colorbar>"
    ]
    kept = "".join(
        f'<feOffset in="SourceGraphic" x="{box.x0:.4f}" y="{1 - box.y1:.4f}" '
        f'width="{box.width:.4f}" height="{box.height:.4f}" result="{number}"/>'
        for number, box in enumerate(boxes)
    )
    merged = "".join(f'<feMergeNode in="{number}"/>' for number in ("dark", *range(len(boxes))))
    return (
        '<svg width="0" height="0" style="position: absolute" aria-hidden="true">'
        f'<filter id="{name}" x="0" y="0" width="1" height="1" primitiveUnits="objectBoundingBox" '
        f'color-interpolation-filters="sRGB"><feColorMatrix values="{_INVERTED}" result="dark"/>'
        f"{kept}<feMerge>{merged}</feMerge></filter></svg>"
    )


class Link(NamedTuple):
    """A text in a table that leads to another page."""

    text: str
    href: str


#: What stands in a table of results.
_Value = str | int | float | Link


@dataclass(frozen=True, repr=False)
class Html:
    """HTML that a notebook or page shows, and the text that stands for it elsewhere."""

    page: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.page


def folded(summary: str, *shown: Any) -> Html:
    """Fold away what only some readers want to see.

    Parameters
    ----------
    summary : str
        What stands there instead, to be opened.
    *shown
        What displays itself as HTML, such as pictures and tables.
    """
    inside = "".join(one._repr_html_() for one in shown)
    page = f"<details><summary>{html.escape(summary)}</summary>{inside}</details>"
    return Html(page, summary)


def grid(rows: Sequence[Mapping[str, _Value]], *, caption: str = "") -> Html:
    """A table of results, which displays itself in a notebook; `str` gives it as text.

    Parameters
    ----------
    rows : sequence of mapping from str to str, int or float
        Values by name of column; all rows, of which there is one at least, have the same columns in
        the same order, else `ValueError`. Floats are shown with three digits, from a thousand on as
        whole numbers.
    caption : str

    Examples
    --------
    >>> grid([{"layer": 1, "share": 0.25}, {"layer": 10, "share": 1 / 3}])
    layer  share
        1   0.25
       10  0.333
    """
    if not rows:
        raise ValueError("A table of results needs at least one row.")
    names = list(rows[0])
    for number, row in enumerate(rows, start=1):
        if list(row) != names:
            raise ValueError(f"Row {number} has the columns {list(row)}, not {names}.")
    values = [list(row.values()) for row in rows]
    aligned = [_alignment(column) for column in zip(*values, strict=True)]

    def line(begin: str, end: str, texts: Iterable[str]) -> str:
        cells = (
            f'<{begin} style="text-align: {align}; {_PADDING}">{text}</{end}>'
            for text, align in zip(texts, aligned, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    head = line('th scope="col"', "th", map(html.escape, names))
    body = "".join(line("td", "td", map(_cell, row)) for row in values)
    told = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    page = f'<table class="results">{told}<thead>{head}</thead><tbody>{body}</tbody></table>'
    texts = [names, *(list(map(_text, row)) for row in values)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    text = "\n".join("  ".join(map(str.rjust, row, widths)) for row in texts)
    return Html(page, text)


def layers(numbers: Sequence[int]) -> str:
    """Layers as text.

    Examples
    --------
    >>> layers([3]), layers([1, 2]), layers([6, 8, 9, 10]), layers([])
    ('layer 3', 'layers 1 and 2', 'layers 6 and 8 to 10', 'none of the layers')
    """
    if not numbers:
        return "none of the layers"
    ordered, parts = sorted(numbers), list[str]()
    for run in np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1):
        parts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    *first, last = parts
    named = f"{', '.join(first)} and {last}" if first else last
    return f"layer{'s' * (len(numbers) > 1)} {named}"


def _cell(value: _Value) -> str:
    """A value as HTML: what it says on one line, its interval smaller beside it."""
    text = html.escape(_text(value))
    if isinstance(value, Link):
        return f'<a href="{html.escape(value.href)}">{text}</a>'
    return _INTERVAL.sub(r'<span style="white-space: nowrap">\1 <small>\2</small></span>', text)


def _text(value: _Value) -> str:
    if isinstance(value, Link):
        return value.text
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    digits, _, power = f"{value:.3g}".replace("inf", "∞").partition("e")
    if 999.5 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{digits} × 10{str(int(power)).translate(_RAISED)}" if power else digits


def _alignment(column: tuple[_Value, ...]) -> str:
    """Where a column stands: numbers to the right, also those that come as text with a unit."""
    texts = [value for value in column if isinstance(value, str) and value]
    numeric = len(texts) < sum(value != "" for value in column) or all(
        map(_NUMBER.fullmatch, texts)
    )
    return "right" if numeric else "left"
