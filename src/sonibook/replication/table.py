"""From cells to rows: means with intervals over seeds or folds, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from sonibook.analysis.result import Record
from sonibook.metrics import runs_interval, wilson_interval
from sonibook.replication.cells import Cell
from sonibook.replication.reported import Training


class Figure(Record):
    """A metric of one row.

    Attributes
    ----------
    mean : float
    low, high : float or None
        Ends of the 95 % interval.
    over : {"seeds", "folds", "clips", "nothing"}
        What that interval is over: Student's t over seeds, where there are several; else over
        folds (or speakers); else, of an accuracy, Wilson's over clips.
    values : dict of str to float
        By seed.
    """

    mean: float
    low: float | None
    high: float | None
    over: Literal["seeds", "folds", "clips", "nothing"]
    values: dict[str, float]


class Row(Record):
    """A row of a table.

    Attributes
    ----------
    question, row, training : str
        As in `Cell`.
    seeds : tuple of int
        Those of which every part was measured.
    parts : int
        How many parts (folds, speakers) each was tested on.
    clips : int
        Clips that each seed was tested on.
    metrics : dict of str to Figure
    """

    question: str
    row: str
    training: Training
    seeds: tuple[int, ...]
    parts: int
    clips: int
    metrics: dict[str, Figure]


class Difference(Record):
    """How much more often one row is right than another, clip by clip.

    Attributes
    ----------
    question, row, training, minus, minus_training : str
    mean, low, high : float
        Of accuracies; the interval is over recordings (clips cut from one count together) and over
        seeds, which are paired where both rows have the same.
    clips, recordings : int
    seeds, minus_seeds : tuple of int
    """

    question: str
    row: str
    training: Training
    minus: str
    minus_training: Training
    mean: float
    low: float
    high: float
    clips: int
    recordings: int
    seeds: tuple[int, ...]
    minus_seeds: tuple[int, ...]


def table_rows(cells: Iterable[Cell]) -> list[Row]:
    """The rows that cells make, in the order of their first cells.

    Parameters
    ----------
    cells : iterable of Cell

    Returns
    -------
    list of Row
        Seeds that lack a part which another seed of the row has are left out.
    """
    groups: dict[tuple[str, str, Training], dict[int, list[Cell]]] = {}
    for cell in cells:
        group = groups.setdefault((cell.question, cell.row, cell.training), {})
        group.setdefault(cell.seed, []).append(cell)
    return [_row(*names, seeds) for names, seeds in groups.items()]


def _row(question: str, row: str, training: Training, seeds: Mapping[int, list[Cell]]) -> Row:
    most = max(len(own) for own in seeds.values())
    whole = {seed: own for seed, own in sorted(seeds.items()) if len(own) == most}
    first = next(iter(whole.values()))
    names = [
        name
        for name in first[0].metrics
        if all(name in cell.metrics for own in whole.values() for cell in own)
    ]
    return Row(
        question=question,
        row=row,
        training=training,
        seeds=tuple(whole),
        parts=most,
        clips=sum(cell.clips for cell in first),
        metrics={name: figure_of(name, whole) for name in names},
    )


def figure_of(name: str, seeds: Mapping[int, Sequence[Cell]]) -> Figure:
    """One metric of one row.

    Parameters
    ----------
    name : str
    seeds : mapping from int to sequence of Cell
        Each seed's cells, of the same parts.

    Returns
    -------
    Figure
        A seed's value is the mean over its parts, each as heavy as it has clips.
    """
    values = {seed: _over_parts(name, own) for seed, own in seeds.items()}
    mean = sum(values.values()) / len(values)
    by_seed = {str(seed): value for seed, value in values.items()}
    (own, *_) = seeds.values()
    if len(values) > 1:
        low, high = runs_interval(list(values.values()))
        return Figure(mean=mean, low=low, high=high, over="seeds", values=by_seed)
    if len(own) > 1:
        low, high = runs_interval([cell.metrics[name] for cell in own])
        return Figure(mean=mean, low=low, high=high, over="folds", values=by_seed)
    if name == "accuracy":
        low, high = wilson_interval(round(mean * own[0].clips), own[0].clips)
        return Figure(mean=mean, low=low, high=high, over="clips", values=by_seed)
    return Figure(mean=mean, low=None, high=None, over="nothing", values=by_seed)


def _over_parts(name: str, cells: Sequence[Cell]) -> float:
    clips = sum(cell.clips for cell in cells)
    return sum(cell.metrics[name] * cell.clips for cell in cells) / clips


def difference(
    cells: Sequence[Cell],
    row: tuple[str, Training],
    minus: tuple[str, Training],
    *,
    question: str,
    recordings: Mapping[str, Sequence[str]],
) -> Difference | None:
    """The paired difference of two rows' accuracies.

    Parameters
    ----------
    cells : sequence of Cell
    row, minus : (str, str)
        Row and training of either.
    question : str
        Of both.
    recordings : mapping from str to sequence of str
        For each tested part, the recording that each of its clips is cut from.

    Returns
    -------
    Difference or None
        None where either row has no cells, or the clips that they have in common are of fewer than
        two recordings, as while a table is being measured.
    """
    asked = [cell for cell in cells if cell.question == question]
    ours, theirs = _rights(asked, row), _rights(asked, minus)
    parts = sorted(
        set.intersection(*(set(own) for own in (*ours.values(), *theirs.values())))
        if ours and theirs
        else ()
    )
    names = [name for part in parts for name in recordings[part]]
    if len(set(names)) < 2:
        return None
    first, second = (
        np.stack([np.concatenate([own[part] for part in parts]) for own in seeds.values()])
        for seeds in (ours, theirs)
    )
    low, high = crossed_interval(first, second, names, paired=[*ours] == [*theirs])
    return Difference(
        question=question,
        row=row[0],
        training=row[1],
        minus=minus[0],
        minus_training=minus[1],
        mean=float(first.mean() - second.mean()),
        low=low,
        high=high,
        clips=first.shape[1],
        recordings=len(set(names)),
        seeds=tuple(ours),
        minus_seeds=tuple(theirs),
    )


def crossed_interval(
    first: Float[ndarray, "seeds clips"],
    second: Float[ndarray, "others clips"],
    recordings: Sequence[str],
    *,
    paired: bool,
) -> tuple[float, float]:
    """The 95 % interval of a difference of means, over recordings and over seeds.

    Other seeds would give another difference, and so would other recordings. Both variances are
    estimated, each from means over the other factor, and added: two-way clustering (Cameron,
    Gelbach and Miller 2011), cautious in that what depends on seed and recording at once is counted
    twice. The half-width is Student's t times the root, with Satterthwaite's degrees of freedom, so
    that three seeds, or six speakers, do not pass for many. With one seed on either side that
    side's share of the first variance is left out.

    Parameters
    ----------
    first, second : ndarray, shapes (seeds, clips) and (others, clips)
        Of the same clips.
    recordings : sequence of str
        Which recording each clip is cut from; two at least.
    paired : bool
        Whether each row of `first` belongs with the same row of `second`, as of one seed.

    Returns
    -------
    tuple of float
        Lower and upper end.

    References
    ----------
    A. C. Cameron, J. B. Gelbach and D. L. Miller, "Robust inference with multiway clustering",
    Journal of Business & Economic Statistics 29, 2011.

    F. E. Satterthwaite, "An approximate distribution of estimates of variance components",
    Biometrics Bulletin 2, 1946.
    """
    by_clip = first.mean(axis=0) - second.mean(axis=0)
    mean = float(by_clip.mean())
    names, cluster = np.unique(np.asarray(recordings), return_inverse=True)
    sums = np.bincount(cluster, weights=by_clip - mean)
    count = len(names)
    parts = [(count / (count - 1) * np.sum(sums**2) / len(by_clip) ** 2, count - 1)]
    for side in (first - second,) if paired else (first, second):
        if len(side) > 1:
            parts.append((np.var(side.mean(axis=1), ddof=1) / len(side), len(side) - 1))
    whole = sum(part for part, _ in parts)
    if whole == 0:
        return mean, mean
    freedom = whole**2 / sum(part**2 / own for part, own in parts)
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(whole))
    return mean - half, mean + half


def _rights(
    cells: Sequence[Cell], row: tuple[str, Training]
) -> dict[int, dict[str, Float[ndarray, " clips"]]]:
    """For each seed and part of a row, 1 where a clip was named rightly."""
    found: dict[int, dict[str, ndarray]] = {}
    for cell in cells:
        if (cell.row, cell.training) == row and cell.right is not None:
            right = np.array([float(one) for one in cell.right])
            found.setdefault(cell.seed, {})[cell.tested] = right
    most = max((len(own) for own in found.values()), default=0)
    return {seed: own for seed, own in sorted(found.items()) if len(own) == most}
