"""What filters pick out of scenes, as a figure."""

from __future__ import annotations

from sonibook.analysis.separation import SeparationResult
from sonibook.plots.curves import Panel, course, figure_over_layers
from sonibook.plots.style import Picture


def separation_figure(result: SeparationResult) -> Picture:
    """Draw separation, detection and timing, layer by layer, a curve for each network."""
    panels = [
        Panel("gain in share", "gain in main stem's share", title="Separation: where", line=0.0),
        Panel("SI-SDR gain", "SI-SDR gain / dB", title="Separation: waveform", line=0.0),
        Panel("detection", "area under the ROC curve", title="Detection", line=0.5),
        Panel("lag of sound", "lag / s", title="Onset", line=result.row("lag of input").mean),
    ]
    curves = "; ".join(
        course(name, [row.layer or 0 for row in rows], rows)
        for name in result.names()
        for rows in [result.select(network=name, quantity="gain in share")]
    )
    words = (
        f"Of {result.row('sources').clips} scenes of several sources, gain of the main stem's "
        f"share over the mixture: {curves}. Further panels: SI-SDR gain, detection of events, lag "
        "of the onset (the line: of the input itself)"
    )
    what = "What the most active filters hold of scenes"
    return figure_over_layers(result, panels, what=what, width=9.5, columns=2, words=words)
