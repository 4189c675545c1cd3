"""Training as pictures: where crops lie, how a run went, how sure its result is.

Chapter: Supervised training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from sonibook.audio import SAMPLE_RATE
from sonibook.plots.excerpts import Sound, peak_of
from sonibook.plots.plots import draw_waveform
from sonibook.plots.style import BLUE, CYCLE, GREY, INPUT, look, new_figure

Numbers = Sequence[float] | Sequence[int] | ndarray


def crops(
    x: Sound, starts: Mapping[str, int], *, length: int, sample_rate: int = SAMPLE_RATE
) -> Figure:
    """A clip's waveform, and under it where crops were cut from it.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
    starts : mapping from str to int, in samples
        Where each crop begins, by its name.
    length : int > 0, in samples
        Of every crop.
    sample_rate : int > 0, in Hz

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    AudioError
        If `x` is no waveform.
    ValueError
        If there is no crop.
    """
    if not starts:
        raise ValueError("There is no crop to draw: give the start of at least one.")
    with look():
        figure = new_figure(8.0, 1.7 + 0.25 * len(starts))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, len(starts)])
        draw_waveform(above, x, sample_rate=sample_rate, peak=peak_of(x), colour=INPUT)
        above.set(ylabel="amplitude")
        for row, (start, colour) in enumerate(zip(starts.values(), _colours(starts), strict=True)):
            below.barh(row, length / sample_rate, left=start / sample_rate, color=colour)
        # A crop that is longer than its clip ends beyond it: in the zeros that fill it up.
        ends = [len(x), *(start + length for start in starts.values())]
        below.set(xlabel="time / s", xlim=(0, max(ends) / sample_rate))
        below.set(yticks=range(len(starts)), yticklabels=list(starts))
        below.invert_yaxis()
        below.tick_params(axis="y", length=0)
    return figure


def progress(
    curves: Mapping[str, tuple[Numbers, Numbers]],
    *,
    xlabel: str,
    ylabel: str,
    references: Mapping[str, float] | None = None,
    log_x: bool = False,
) -> Figure:
    """Curves with an axis of their own each, and dashed lines to read them against.

    Parameters
    ----------
    curves : mapping from str to (sequence of float, sequence of float), shapes (points,)
        Where, and what was measured there, by name.
    xlabel, ylabel : str
    references : mapping from str to float, or None
        Heights, by name, such as what chance would give.
    log_x : bool
        Whether the level axis is logarithmic.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a curve has not one value for each place.
    """
    for name, (at, values) in curves.items():
        if len(at) != len(values):
            raise ValueError(f"{name}: {len(values)} values were given for {len(at)} places.")
    with look():
        figure = new_figure(7.0, 2.8)
        axes = figure.subplots()
        for (name, (at, values)), colour in zip(curves.items(), _colours(curves), strict=True):
            # A few points are measurements, many are a course.
            marker = "o" if len(at) <= 30 else ""
            axes.plot(at, values, marker=marker, markersize=4, color=colour, label=name)
        for number, (name, height) in enumerate((references or {}).items()):
            style = ("--", ":", "-.")[number % 3]
            axes.axhline(height, color=GREY, linestyle=style, label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log_x else "linear")
        if not log_x and all(float(x).is_integer() for at, _ in curves.values() for x in at):
            whole = MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])  # no epoch 1.5
            axes.xaxis.set_major_locator(whole)
        axes.grid(True)
        axes.legend()
    return figure


def intervals(
    results: Mapping[str, tuple[float, float, float]], *, xlabel: str, chance: float
) -> Figure:
    """Results side by side, each with its interval, and what chance would give.

    Parameters
    ----------
    results : mapping from str to (float, float, float)
        A result, and the lower and upper end of its interval, by name.
    xlabel : str
    chance : float

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a result does not lie within its interval.
    """
    for name, (value, low, high) in results.items():
        if not low <= value <= high:
            raise ValueError(f"{name}: {value:.3g} does not lie between {low:.3g} and {high:.3g}.")
    with look():
        figure = new_figure(7.0, 1.1 + 0.34 * len(results))
        axes = figure.subplots()
        for row, (value, low, high) in enumerate(results.values()):
            axes.plot([low, high], [row, row], color=BLUE, linewidth=3, alpha=0.4)
            axes.plot(value, row, "o", color=BLUE)
            axes.annotate(
                f"{value:.0%}", (high, row), (6, 0), textcoords="offset points", va="center"
            )
        axes.axvline(chance, color=GREY, linestyle="--", label="chance")
        axes.set(xlabel=xlabel, xlim=(0, 1.08), yticks=range(len(results)))
        axes.set(yticklabels=list(results), ylim=(len(results) - 0.5, -0.5))
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return figure


def _colours(named: Mapping[str, object]) -> list[str]:
    return [CYCLE[number % len(CYCLE)] for number in range(len(named))]
