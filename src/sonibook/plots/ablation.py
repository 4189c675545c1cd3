"""Ablation by subtraction as a figure (paper, figure 6), beside its controls."""

from __future__ import annotations

from matplotlib.axes import Axes

from sonibook.analysis.ablation_result import AblationResult, NetworkAblation
from sonibook.analysis.controls import CONTROLS, Control
from sonibook.analysis.result import Estimate
from sonibook.plots.curves import course, over_layers
from sonibook.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SONIFICATION,
    Picture,
    look,
    new_figure,
    picture,
)

#: Colour and marker of each curve; noise, which no one mistakes for an explanation, is grey.
_LOOKS: dict[Control, tuple[str, str]] = {
    "sonification": (SONIFICATION, "o"),
    "random weights": (BLUE, "s"),
    "another clip": (GREEN, "^"),
    "random phase": (ORANGE, "D"),
    "white noise": (GREY, "P"),
    "addition": (PURPLE, "v"),
    "least squares": (SKY, "*"),
}


def ablation_figure(result: AblationResult) -> Picture:
    """Draw what is left of each network's score, and how sonifications differ from controls.

    Parameters
    ----------
    result : AblationResult

    Returns
    -------
    Picture
        A row for each network. Left, the score of residuals against layer, and of the untouched
        clips; right, the drop by the sonification less that by each control: above zero, the
        sonification is missed more. Filled points are those of Holm's p < 0.05.
    """
    with look():
        figure = new_figure(10.0, 0.6 + 3.0 * len(result.ablations))
        rows = figure.subplots(len(result.ablations), 2, squeeze=False)
        for ablation, (left, right) in zip(result.ablations, rows, strict=True):
            _draw_scores(left, ablation, ylabel=result.score)
            _draw_differences(right, ablation)
        handles, labels = rows[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    words = "; ".join(_words(ablation, result.score) for ablation in result.ablations)
    alt = (
        f"Residuals after subtracting each layer's sonification or a control of the same level, "
        f"over {result.data.clips} clips of {result.data.dataset}. {words}."
    )
    return picture(figure, alt=alt)


def _curve(ablation: NetworkAblation, control: Control) -> tuple[list[int], list[Estimate]]:
    rows = [one for one in ablation.remainders if one.control == control]
    return [one.layer for one in rows], [one.score for one in rows]


def _draw_scores(axes: Axes, ablation: NetworkAblation, *, ylabel: str) -> None:
    for control in CONTROLS:
        layers, scores = _curve(ablation, control)
        if not layers:
            continue
        colour, marker = _LOOKS[control]
        own = control == "sonification"
        means = [one.mean or 0.0 for one in scores]
        axes.plot(
            layers,
            means,
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=2.0 if own else 1.0,
            zorder=3 if own else 2,
            label=control,
        )
        if own:
            low, high = ([getattr(one, end) for one in scores] for end in ("low", "high"))
            axes.fill_between(layers, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(ablation.score.mean or 0.0, color=GREY, linestyle=":", label="untouched clips")
    over_layers(axes, _curve(ablation, "sonification")[0], ylabel=ylabel, title=ablation.network)


def _draw_differences(axes: Axes, ablation: NetworkAblation) -> None:
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    others = CONTROLS[1:]
    for place, control in enumerate(others):
        colour, marker = _LOOKS[control]
        # Side by side, since intervals on top of each other cannot be told apart.
        aside = 0.7 * (place / (len(others) - 1) - 0.5)
        for one in ablation.comparisons:
            mean, low, high = one.difference.mean, one.difference.low, one.difference.high
            if one.control != control or mean is None or low is None or high is None:
                continue
            axes.errorbar(
                one.layer + aside,
                mean,
                [[mean - low], [high - mean]],
                color=colour,
                marker=marker,
                markersize=4.0,
                markerfacecolor=colour if one.p_holm < 0.05 else "white",
                linewidth=1.0,
            )
    over_layers(
        axes,
        _curve(ablation, "sonification")[0],
        ylabel="drop by s − drop by control / nat",
        title="filled: Holm's p < 0.05",
    )


def _words(ablation: NetworkAblation, score: str) -> str:
    own = course(f"{score} without the sonification", *_curve(ablation, "sonification"))
    worse = sum(
        one.p_holm < 0.05 and (one.difference.mean or 0) > 0 for one in ablation.comparisons
    )
    better = sum(
        one.p_holm < 0.05 and (one.difference.mean or 0) < 0 for one in ablation.comparisons
    )
    return (
        f"{ablation.network}: {score} {ablation.score.mean or 0:.2g} untouched; {own}; removing "
        f"the sonification hurts more than the control in {worse} and less in {better} of "
        f"{len(ablation.comparisons)} comparisons"
    )
