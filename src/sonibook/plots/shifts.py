"""The shift law as a figure (paper, figure B.3)."""

from __future__ import annotations

from sonibook.analysis.shifts import ShiftResult
from sonibook.plots.curves import draw_estimates, over_layers
from sonibook.plots.style import Picture, look, new_figure, picture


def shifts_figure(result: ShiftResult) -> Picture:
    """Draw how alike shifted sonifications are, layer by layer, a curve for each shift.

    Parameters
    ----------
    result : ShiftResult

    Returns
    -------
    Picture
        A panel for each network; multiples of the deepest stride are dashed and grey.
    """
    with look():
        figure = new_figure(1.2 + 3.1 * len(result.shifts), 3.2)
        panels = figure.subplots(1, len(result.shifts), sharey=True, squeeze=False)[0]
        for axes, one in zip(panels, result.shifts, strict=True):
            deepest = max(row.stride for row in one.rows)
            shifts = sorted({row.shift for row in one.rows}, key=lambda k: (k % deepest == 0, k))
            for number, shift in enumerate(shifts):
                rows = [row for row in one.rows if row.shift == shift]
                draw_estimates(
                    axes,
                    [row.layer for row in rows],
                    [row.cosine for row in rows],
                    label=f"{shift:,} sample" + "s" * (shift > 1),
                    number=number,
                    baseline=shift % deepest == 0,
                )
            layers = sorted({row.layer for row in one.rows})
            over_layers(axes, layers, title=one.network, ylim=(0.0, 1.05))
        panels[0].set_ylabel("cosine")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    known = [row for one in result.shifts for row in one.rows if row.cosine.mean is not None]
    exact = [row.cosine.mean or 0.0 for row in known if row.exact]
    loose = [row.cosine.mean or 0.0 for row in known if not row.exact]
    alt = (
        "Cosine of a shifted clip's sonification with the shifted sonification, over "
        f"{result.data.clips} clips. Shifts by multiples of a layer's pooling stride: at least "
        f"{min(exact):.4f}. Other shifts: {min(loose):.2f} to {max(loose):.2f}."
    )
    return picture(figure, alt=alt)
