"""What filters pick out of scenes, as a figure."""

from __future__ import annotations

from matplotlib.axes import Axes

from sonibook.analysis.result import Estimate
from sonibook.analysis.separation_result import LayerSeparation, SeparationResult
from sonibook.plots.curves import course, draw_estimates, over_layers
from sonibook.plots.style import Picture, look, new_figure, picture


def separation_figure(result: SeparationResult) -> Picture:
    """Draw separation, detection and timing, layer by layer, a curve for each network."""
    networks = {
        name: [row for row in result.layers if row.network == name] for name in result.networks
    }
    layers = sorted({row.layer for row in result.layers})
    with look():
        figure = new_figure(9.5, 5.6)
        (share, ratio), (area, timing) = figure.subplots(2, 2)
        for number, (name, rows) in enumerate(networks.items()):
            _draw(share, name, number, rows, [row.held["gain in share"] for row in rows])
            _draw(ratio, name, number, rows, [row.held["SI-SDR gain"] for row in rows])
            known = [row for row in rows if row.detection is not None]
            _draw(area, name, number, known, [_area(row) for row in known])
            _draw(timing, name, number, rows, [row.lag["sound"] for row in rows])
        for axes in (share, ratio):
            axes.axhline(0.0, color="#374151", linewidth=0.8)
        area.axhline(0.5, color="#374151", linewidth=0.8)
        own = [result.input_lag] * len(layers)
        number = len(networks)
        draw_estimates(timing, layers, own, label="the input", number=number, baseline=True)
        over_layers(share, layers, ylabel="gain in main stem's share", title="Separation: where")
        over_layers(ratio, layers, ylabel="SI-SDR gain / dB", title="Separation: waveform")
        over_layers(area, layers, ylabel="area under the ROC curve", title="Detection")
        over_layers(timing, layers, ylabel="lag / s", title="Onset")
        timing.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    curves = "; ".join(
        course(name, [row.layer for row in rows], [row.held["gain in share"] for row in rows])
        for name, rows in networks.items()
    )
    alt = (
        f"What the most active filters of each layer hold of {result.several} scenes of several "
        f"sources. Gain of the main stem's share over the mixture: {curves}. Further panels: "
        "SI-SDR gain, detection of events, lag of the onset."
    )
    return picture(figure, alt=alt)


def _draw(
    axes: Axes, name: str, number: int, rows: list[LayerSeparation], values: list[Estimate]
) -> None:
    layers, baseline = [row.layer for row in rows], any(row.baseline for row in rows)
    draw_estimates(axes, layers, values, label=name, number=number, baseline=baseline)


def _area(row: LayerSeparation) -> Estimate:
    found = row.detection
    assert found is not None  # noqa: S101 - rows without are left out
    return Estimate(mean=found.area, low=found.low, high=found.high, clips=found.classes)
