"""Other explanations beside sonification as a figure."""

from __future__ import annotations

from sonibook.analysis.explanation_comparison import ExplanationResult
from sonibook.plots.curves import course, draw_estimates, over_layers
from sonibook.plots.style import GREY, Picture, look, new_figure, picture


def explanations_figure(result: ExplanationResult) -> Picture:
    """Draw the coherence of each method's explanations, and the drop that their removal makes."""
    with look():
        figure = new_figure(10.0, 3.8)
        left, right = figure.subplots(1, 2)
        for number, one in enumerate(result.methods):
            draw_estimates(
                left,
                list(one.coherence),
                list(one.coherence.values()),
                label=one.method,
                number=number,
            )
            own = [
                row
                for row in one.ablation
                if (row.quantity, row.condition) == ("drop", "sonification")
            ]
            draw_estimates(
                right,
                [row.layer or 0 for row in own],
                own,
                label=one.method,
                number=number,
            )
        right.axhline(0.0, color=GREY, linewidth=0.8)
        layers = list(result.methods[0].coherence)
        over_layers(left, layers, ylabel="mean top-5 coherence with the clip", ylim=(0.0, 1.02))
        over_layers(right, layers, ylabel="drop when subtracted / nat")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    curves = "; ".join(
        course(one.method, list(one.coherence), list(one.coherence.values()))
        for one in result.methods
    )
    sure = [one for one in result.against_sonification if one.p_holm < 0.05]
    alt = (
        f"{len(result.methods)} explanations of the most active filters over {result.data.clips} "
        f"clips of {result.data.dataset}. Coherence with the clip: {curves}. By "
        f"Holm's p below 0.05, {len(sure)} of {len(result.against_sonification)} comparisons with "
        "sonification differ."
    )
    return picture(figure, alt=alt)
