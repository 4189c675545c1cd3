"""Claims with their verdicts, the paper's tables in miniature, and what people heard."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sonibook.analysis.listening import GROUPS, TASKS, ListeningResult
from sonibook.analysis.result import ResultTable
from sonibook.plots.style import BLUE, GREY, VERMILLION, Html, Link, Picture, drawing, grid
from sonibook.replication.paper import Reported
from sonibook.replication.results import MISSING, Test
from sonibook.replication.tables import Difference, Row
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


def claims_table(judged: Sequence[Judged]) -> Html:
    """All claims as one table: claim, place in the paper, verdict, first effect, chapter."""
    return grid(
        [
            {
                "Claim": one.says,
                "Where": one.where,
                "Verdict": f"{SIGNS[one.judgement.verdict]}\N{NO-BREAK SPACE}{one.judgement.words}",
                "Measured": _measured(one),
                "Chapter": Link(str(int(one.chapter[:2])), f"{one.chapter}.html"),
            }
            for one in judged
        ],
        caption="The paper's claims, and what was found here.",
    )


def _measured(one: Judged) -> str:
    """A claim's first effect that was measured, and how many tests passed, also corrected."""
    known = [test for test in one.tests if test.measure is not None]
    if not known:
        return ""
    first = next((test for test in known if test.kind == "effect"), known[0])
    passed, of = sum(test.passes for test in known), len(one.tests)
    still = sum(test.significant("p_claim") for test in known)
    counted = f"{passed} of {of} {'test passes' if of == 1 else 'tests pass'}"
    corrected = f", {still} after correction" if passed else ""
    return f"{_number_in_words(first)}; {counted}{corrected}"


def _number_in_words(test: Test) -> str:
    """A test's number with its interval, unit and count, and p as far as its digits mean much."""
    found, p = test.measure or MISSING, test.p_claim
    mean = f"{found.mean + 0.0:+.3g} {test.unit}"
    sure = "" if p is None else f", corrected p {f'= {p:.2g}' if p >= 1e-4 else '< 0.0001'}"
    return f"{mean} [{found.low:.3g}, {found.high:.3g}], n = {found.clips}{sure}"


def claim_figure(one: Judged) -> Picture:
    """A claim's tests, each a point with its interval, beside zero; a panel for each unit.

    A filled circle is an effect, a square a control; blue passes, grey is open, vermillion shows
    the opposite. `ValueError` if nothing was measured.
    """
    known = [(test, test.measure) for test in one.tests if test.measure is not None]
    if not known:
        raise ValueError(f"Nothing was measured of {one.name!r} yet: there is nothing to draw.")
    units = list(dict.fromkeys(test.unit for test, _ in known))
    # Narrow enough for a phone: what a test says stands above its point. Heights are in lines.
    said = {test.says: textwrap.fill(test.says, 74) for test, _ in known}
    heights = {test.says: said[test.says].count("\n") + 2.4 for test, _ in known}
    lines = [sum(heights[test.says] for test, _ in known if test.unit == unit) for unit in units]
    size = (4.3, 0.55 * len(units) + 0.14 * sum(lines) + 0.1)
    shared: Any = {"squeeze": False, "height_ratios": lines}
    with drawing(*size, len(units), **shared) as (figure, panels):
        for axes, unit, top in zip(panels[:, 0], units, lines, strict=True):
            axes.axvline(0.0, color=GREY, linewidth=0.8)
            axes.set(yticks=[], ylim=(0.0, top))
            axes.spines["left"].set_visible(False)
            axes.set_xlabel(unit, fontsize=8)
            for test, found in known:
                if test.unit != unit:
                    continue
                axes.annotate(
                    said[test.says], (0, top), xycoords=("axes fraction", "data"),
                    fontsize=7.5, va="top", linespacing=1.1, zorder=3,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                )  # fmt: skip
                top -= heights[test.says]
                colour = BLUE if test.passes else VERMILLION if test.reversed else GREY
                marker = "o" if test.kind == "effect" else "s"
                at = [top + 0.8] * 2
                axes.plot([found.low, found.high], at, color=colour, linewidth=1.6)
                axes.plot([found.mean], at[:1], color=colour, marker=marker, markersize=5)
    words = "; ".join(f"{test.says}: {_number_in_words(test)}" for test, _ in known)
    alt = f"{one.says} {one.judgement.words}. Each test with its 95 % interval. {words}."
    return Picture(figure, alt=alt.replace("<", "below"))


#: Metrics in the order of the columns, with their headings.
_METRICS = {"accuracy": "accuracy", "mAP": "mAP", "mAUC": "mAUC", "d_prime": "d′"}


def paper_tables(content: Mapping[str, Any]) -> list[Html]:
    """A table's results file, such as ``table-a4.json``: its rows, beside the paper's of those
    names, and its paired differences where there are any.

    Means with half their 95 % intervals and over what these are, over how many seeds and parts
    (folds, speakers), and the first number of the paper's row; rows that were not measured yet say
    so. The paper's data are others: what compares is the order. Figures of other publications
    follow, each with its source.
    """
    rows = [Row.model_validate(one) for one in content["rows"]]
    reported = [Reported.model_validate(one) for one in content["reported"]]
    known = [name for name in _METRICS if any(name in row.metrics for row in rows)]
    columns = ["tested on", "start", "training", *(_METRICS[name] for name in known)]
    columns += ["± over", "seeds", "parts", "paper"]

    def line(names: Sequence[str], said: Mapping[str, str], *rest: str) -> dict[str, str]:
        cells = (*names, *(said.get(name, "") for name in known), *rest)
        return dict(zip(columns, cells, strict=True))

    def paper(start: str, training: str) -> str:
        """The paper's first number for a row; its fc-only stands beside our linear probe, too."""
        kind = "fc-only" if training == "linear probe" else training
        for one in reported:
            if (one.row, one.training) == (start, kind):
                name, value = next(iter(one.metrics.items()))
                return f"{_METRICS[name]} {_written(*value)}"
        return ""

    lines = [
        line(
            (row.question, row.row, row.training),
            {name: _written(one.mean, one.half) for name, one in row.metrics.items()},
            next(iter(row.metrics.values())).over,
            str(len(row.seeds)),
            str(row.parts),
            paper(row.row, row.training),
        )
        for row in rows
    ]
    lines += [
        line(names, {known[0]: "not measured yet"}, "", "0", "0", paper(*names[1:]))
        for names in content["not_measured_yet"]
    ]
    first = lines[0]["tested on"] if lines else ""
    for one in reported:
        if one.source:
            said = {name: _written(*value) for name, value in one.metrics.items()}
            lines.append(line((first, one.row, one.training), said, "", "", "", one.source))
    if all(line["tested on"] == first for line in lines):
        lines = [{k: value for k, value in line.items() if k != "tested on"} for line in lines]
    caption = f"Table {content['table']} in miniature: {content['title']}. {content['data']}"
    found = [Difference.model_validate(one) for one in content["differences"]]
    return [grid(lines, caption=caption), *([_differences(found)] if found else [])]


def _differences(found: Sequence[Difference]) -> Html:
    """Paired differences of rows as a table."""
    return grid(
        [
            {
                "tested on": one.question,
                "row": f"{one.row}, {one.training}",
                "minus": f"{one.minus}, {one.minus_training}",
                "difference in accuracy": f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]",
                "excludes zero": "yes" if one.low > 0 or one.high < 0 else "no",
                "clips": one.clips,
                "seeds": f"{len(one.seeds)} and {len(one.minus_seeds)}",
            }
            for one in found
        ],
        caption="Clip by clip, with a 95 % interval over recordings and seeds.",
    )


def _written(mean: float, half: float | None) -> str:
    return f"{mean:.3f}" + ("" if half is None else f" ± {half:.3f}")


def listening_report(folder: str | Path) -> str:
    """What people heard, as a table in Markdown; or that nobody has listened yet.

    `folder` is of results files: ``listening.json`` is the one that ``sonibook analyse listening``
    writes. Of a simulation it says so first. Without it stands what machines heard, where
    ``listeners-esc10.json`` is there.
    """
    path = Path(folder) / "listening.json"
    if not path.exists():
        nobody = "Nobody has taken this test yet: so far there is only what machines hear."
        return "\n".join([nobody, *_machines(Path(folder) / "listeners-esc10.json")])
    result = ListeningResult.read(path)
    left = ", ".join(f"{count} {reason}" for reason, count in result.left_out.items())
    who = "simulated listeners" if result.simulation else "listeners"
    lines = ["**A simulation: no person listened.**", ""] if result.simulation else []
    lines += [
        f"Answers of {result.listeners} {who}{f' (files left out: {left})' if left else ''} to "
        f"sounds of {result.data.clips} clips of {result.data.dataset}. Shares of right answers "
        "(of two sounds, of those who chose the first named), with 95 % intervals over listeners.",
        "",
    ]
    shown: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in result.rows:
        own = shown.setdefault((row.quantity, row.regime, row.condition), {})
        own[row.layers] = f"{row:.2f}"
    table = []
    for (task, regime, condition), own in shown.items():
        joint = " rather than " if task == "closer" else ", "
        chance = 0 if " less " in condition else result.chance[task]
        found = (own.get(group, "") for group in (*GROUPS, ""))
        of = joint.join(filter(None, (regime, condition)))
        table.append([TASKS[task], of, *found, f"{chance:.2g}"])
    return "\n".join([*lines, *_table(["asked", "of"], ["all", "chance"], table)])


def _table(first: list[str], last: list[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown, with a column for each group of layers."""
    head = [*first, *(f"layers {group}" for group in GROUPS), *last]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _machines(path: Path) -> list[str]:
    """How much of what machines hear in clips they hear in sonifications, as a table."""
    if not path.exists():
        return []
    result = ResultTable.read(path)
    shares: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in result.select(condition=""):
        if row.network and row.quantity.startswith("share of event") and row.mean is not None:
            for group in (name for name, layers in GROUPS.items() if row.layer in layers):
                own = shares.setdefault((row.quantity, row.regime), {})
                own.setdefault(group, []).append(row.mean)
    table = []
    for (quantity, regime), own in shares.items():
        means = (f"{np.mean(own[group]):.2f}" if group in own else "" for group in GROUPS)
        table.append([quantity.removeprefix("share of "), regime, *means])
    return [
        "",
        f"Of what they hear in {result.data.clips} clips of {result.data.dataset}, the share that "
        "they still hear in the sonifications of the most active filters; means over networks.",
        "",
        *_table(["machine", "of"], [], table),
    ]
