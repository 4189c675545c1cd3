"""A table in miniature, beside the paper's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sonibook.metrics.intervals import wilson_interval
from sonibook.plots.style import Grid, Value, grid
from sonibook.replication.paper import Reported
from sonibook.replication.tables import Difference, Metric, Row

#: Metrics in the order of the columns, with their headings.
_METRICS = {"accuracy": "accuracy", "mAP": "mAP", "mAUC": "mAUC", "d_prime": "d′"}


def paper_table(content: Mapping[str, Any]) -> Grid:
    """The rows of a table's results file, each beside the paper's row of the same name.

    Parameters
    ----------
    content : mapping
        What ``table-a4.json`` or another holds.

    Returns
    -------
    Grid
        Means with half their 95 % intervals and over what these are, over how many seeds and
        parts (folds, speakers), and the first number of the paper's row; rows that were not
        measured yet say so. The paper's data are others: what compares is the order. Figures of
        other publications follow, each with its source.
    """
    rows = [Row.model_validate(one) for one in content["rows"]]
    reported = [Reported.model_validate(one) for one in content["reported"]]
    names = [name for name in _METRICS if any(name in row.metrics for row in rows)]
    lines: list[dict[str, Value]] = [
        {
            "tested on": row.question,
            "start": row.row,
            "training": row.training,
            **{
                _METRICS[name]: _said(row.metrics[name]) if name in row.metrics else ""
                for name in names
            },
            "± over": next(iter(row.metrics.values())).over,
            "seeds": str(len(row.seeds)),
            "parts": str(row.parts),
            "paper": _of_paper(row.row, row.training, reported),
        }
        for row in rows
    ]
    lines += [
        {
            "tested on": question,
            "start": start,
            "training": training,
            **{_METRICS[name]: "not measured yet" if name == names[0] else "" for name in names},
            "± over": "",
            "seeds": "0",
            "parts": "0",
            "paper": _of_paper(start, training, reported),
        }
        for question, start, training in content["not_measured_yet"]
    ]
    lines += [
        {
            "tested on": lines[0]["tested on"] if lines else "",
            "start": one.row,
            "training": one.training,
            **{_METRICS[name]: _written(one.metrics.get(name)) for name in names},
            "± over": "",
            "seeds": "",
            "parts": "",
            "paper": one.source,
        }
        for one in reported
        if one.source
    ]
    if len({line["tested on"] for line in lines}) == 1:
        lines = [{k: value for k, value in line.items() if k != "tested on"} for line in lines]
    caption = f"Table {content['table']} in miniature: {content['title']}. {content['data']}"
    return grid(lines, caption=caption)


def differences_table(content: Mapping[str, Any]) -> Grid | None:
    """The paired differences of a table's results file; None where there are none.

    Parameters
    ----------
    content : mapping
        As for `paper_table`.

    Returns
    -------
    Grid or None
    """
    found = [Difference.model_validate(one) for one in content["differences"]]
    if not found:
        return None
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


def search_table(content: Mapping[str, Any]) -> Grid:
    """Short pretrainings that change the settings of the long ones, one at a time.

    Parameters
    ----------
    content : mapping
        What ``search.json`` holds.

    Returns
    -------
    Grid
        Scores with half of Wilson's 95 % interval, beside the configuration's own.
    """
    rows = content["rows"]
    usual = {row["regime"]: row["value"] for row in rows if not row["changes"]}
    lines: list[dict[str, Value]] = [
        {
            "pretraining": row["regime"],
            "changed": row["changed"],
            "scored by": row["score"],
            "on fold 4": _counted(row["value"], row["clips"]),
            "beside the configuration": f"{row['value'] - usual[row['regime']]:+.3f}"
            if row["changes"] and row["regime"] in usual
            else "",
        }
        for row in rows
    ]
    lines += [
        {
            "pretraining": "none",
            "changed": f"random weights, seed {row['seed']}",
            "scored by": "linear probe",
            "on fold 4": _counted(row["value"], row["clips"]),
            "beside the configuration": "",
        }
        for row in content["random"]
    ]
    return grid(lines, caption=f"{content['data']}; {content['epochs']} epochs each, one seed.")


def _counted(share: float, clips: int) -> str:
    low, high = wilson_interval(round(share * clips), clips)
    return f"{share:.3f} ± {(high - low) / 2:.3f}"


def _said(one: Metric) -> str:
    if one.low is None or one.high is None:
        return f"{one.mean:.3f}"
    return f"{one.mean:.3f} ± {(one.high - one.low) / 2:.3f}"


def _of_paper(start: str, training: str, reported: list[Reported]) -> str:
    """The paper's first number for a row; its fc-only stands beside our linear probe, too."""
    kind = "fc-only" if training == "linear probe" else training
    for one in reported:
        if (one.row, one.training) == (start, kind):
            name, value = next(iter(one.metrics.items()))
            return f"{_METRICS[name]} {_written(value)}"
    return ""


def _written(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return ""
    mean, half = value
    return f"{mean:.3f}" + ("" if half is None else f" ± {half:.3f}")
