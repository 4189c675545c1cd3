"""What a reader sees and hears: figures, players, the explorer.

Everything here draws or plays what it is handed and runs no experiment (the explorer, which is an
instrument, is the one exception). `import sonibook` does not import this package, and the widgets
are loaded when `Explorer` is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sonibook.show.excerpts import excerpt
from sonibook.show.filters import centre_frequencies, frequency_responses
from sonibook.show.grid import Grid, grid
from sonibook.show.network import feature_maps, receptive_fields, signal_levels
from sonibook.show.picture import Picture, picture
from sonibook.show.players import Player, Table, pair, player, table
from sonibook.show.plots import compare, lines, log_spectrogram, side_by_side, waveform
from sonibook.show.steps import Stage, held, steps
from sonibook.show.words import describe

if TYPE_CHECKING:
    from sonibook.show.explorer import Explorer

__all__ = [
    "Explorer",
    "Grid",
    "Picture",
    "Player",
    "Stage",
    "Table",
    "centre_frequencies",
    "compare",
    "describe",
    "excerpt",
    "feature_maps",
    "frequency_responses",
    "grid",
    "held",
    "lines",
    "log_spectrogram",
    "pair",
    "picture",
    "player",
    "receptive_fields",
    "side_by_side",
    "signal_levels",
    "steps",
    "table",
    "waveform",
]


def __getattr__(name: str) -> Any:
    """Import `Explorer`, and ipywidgets with it, when it is first asked for."""
    if name == "Explorer":
        from sonibook.show.explorer import Explorer

        return Explorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
