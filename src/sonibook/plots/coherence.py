"""Coherence with depth as a figure (paper, figure 7)."""

from __future__ import annotations

from sonibook.analysis.coherence import CoherenceResult
from sonibook.plots.curves import Panel, figure_over_layers
from sonibook.plots.style import Picture


def coherence_figure(result: CoherenceResult) -> Picture:
    """Mean top-k coherence against depth, beside another clip's sonification and white noise."""
    label = f"mean top-{result.settings['k']} coherence"
    limits = {"ylim": (0.0, 1.02)}
    references = ("another clip", "white noise")
    panel = Panel("coherence", label, references=references, options=limits)
    return figure_over_layers(result, [panel], what="Coherence of clips with their sonifications")
