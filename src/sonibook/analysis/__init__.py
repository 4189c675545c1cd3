"""What one measures on sonifications; nothing here knows of a data set or a notebook."""

from sonibook.analysis.coherence import coherence, mean_top_coherence

__all__ = ["coherence", "mean_top_coherence"]
