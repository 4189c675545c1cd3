"""Claims and verdicts: one table of all, and a small figure of each."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from sonibook.plots.style import BLUE, GREY, VERMILLION, Picture, look, new_figure, picture
from sonibook.replication.results import Test
from sonibook.replication.verdict import Judged, Verdict

#: A sign for each verdict, so that nobody needs to tell colours apart.
SIGNS: dict[Verdict, str] = {
    "holds": "✓",
    "holds in part": "◐",
    "does not hold here": "✗",
    "not shown here": "○",
    "cannot be tested here": "–",
    "not measured yet": "…",
}
_PADDING = "padding: 0.2rem 0.5rem; vertical-align: top; text-align: left;"


@dataclass(frozen=True)
class ClaimsTable:
    """A row a claim; make it with `claims_table`."""

    rows: tuple[Judged, ...]

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th scope="col" style="{_PADDING}">{name}</th>'
            for name in ("Claim", "Where", "Verdict", "Measured", "Chapter")
        )
        body = "".join(self._row(one) for one in self.rows)
        return (
            '<table class="results"><caption>The paper&#x27;s claims, and what was found '
            f"here.</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def _row(self, one: Judged) -> str:
        cells = (
            html.escape(one.says),
            html.escape(one.where),
            f"{SIGNS[one.judgement.verdict]}&nbsp;{html.escape(one.judgement.words)}",
            html.escape(measured_in_words(one)),
            f'<a href="{html.escape(one.chapter)}.html">{html.escape(one.chapter[:2])}</a>',
        )
        return "<tr>" + "".join(f'<td style="{_PADDING}">{cell}</td>' for cell in cells) + "</tr>"

    def __str__(self) -> str:
        return "\n".join(
            f"{SIGNS[one.judgement.verdict]} {one.says} {one.judgement.words}: "
            f"{measured_in_words(one)}"
            for one in self.rows
        )


def claims_table(judged: Sequence[Judged]) -> ClaimsTable:
    """All claims as one table: claim, place in the paper, verdict, first effect, chapter.

    Parameters
    ----------
    judged : sequence of Judged

    Returns
    -------
    ClaimsTable
        Displays itself in a notebook; `str` gives it as text.
    """
    return ClaimsTable(tuple(judged))


def measured_in_words(one: Judged) -> str:
    """A claim's first effect that was measured, with its interval, and how many tests passed."""
    known = [test for test in one.tests if test.measure is not None]
    if not known:
        return ""
    first = next((test for test in known if test.kind == "effect"), known[0])
    passed = sum(test.passes for test in known)
    return f"{number_in_words(first)}; {passed} of {len(one.tests)} tests pass"


def number_in_words(test: Test) -> str:
    """A test's number with its interval, unit and count."""
    found = test.measure
    if found is None:
        return "not measured yet"
    mean = f"{found.mean + 0.0:+.3g} {test.unit}"
    return f"{mean} [{found.low:.3g}, {found.high:.3g}], n = {found.clips}"


def claim_figure(one: Judged) -> Picture:
    """A claim's tests, each a point with its interval, beside zero.

    Parameters
    ----------
    one : Judged
        With one test at least that was measured.

    Returns
    -------
    Picture
        A panel for each unit. A filled circle is an effect, a square a control; blue passes, grey
        is open, vermillion shows the opposite.

    Raises
    ------
    ValueError
        If nothing was measured.
    """
    known = [test for test in one.tests if test.measure is not None]
    if not known:
        raise ValueError(f"Nothing was measured of {one.name!r} yet: there is nothing to draw.")
    units = list(dict.fromkeys(test.unit for test in known))
    groups = [[test for test in known if test.unit == unit] for unit in units]
    with look():
        figure = new_figure(8.4, 0.55 * len(units) + 0.27 * len(known) + 0.25)
        panels = figure.subplots(
            len(units), 1, squeeze=False, height_ratios=[1.5 + len(own) for own in groups]
        )[:, 0]
        for axes, unit, own in zip(panels, units, groups, strict=True):
            axes.axvline(0.0, color=GREY, linewidth=0.8)
            for place, test in enumerate(own):
                _draw(axes, test, float(-place))
            axes.set_yticks([-place for place in range(len(own))], [test.says for test in own])
            axes.tick_params(axis="y", labelsize=7.5, length=0)
            axes.set_ylim(0.6 - len(own), 0.6)
            axes.set_xlabel(unit, fontsize=8)
    words = "; ".join(f"{test.says}: {number_in_words(test)}" for test in known)
    alt = f"{one.says} {one.judgement.words}. Each test with its 95 % interval. {words}."
    return picture(figure, alt=alt.replace("<", "below"))


def _draw(axes: Axes, test: Test, height: float) -> None:
    found = test.measure
    if found is None:
        return
    colour = BLUE if test.passes else VERMILLION if test.reversed else GREY
    marker = "o" if test.kind == "effect" else "s"
    axes.plot([found.low, found.high], [height] * 2, color=colour, linewidth=1.6)
    axes.plot([found.mean], [height], color=colour, marker=marker, markersize=5)
