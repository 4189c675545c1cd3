"""What a reader sees and hears, in one place: `show.player`, `show.compare`, `show.Explorer`.

Everything here draws or plays what it is handed and runs no experiment (the explorer, which is an
instrument, is the one exception). `import sonibook` does not import this module, and the widgets
are loaded when `Explorer` is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sonibook.audio import excerpt
from sonibook.plots.basics import (
    centre_frequencies,
    frequency_responses,
    receptive_fields,
)
from sonibook.plots.sonification import Stage, feature_maps, held, steps
from sonibook.plots.sound import compare, describe, log_spectrogram, side_by_side, waveform
from sonibook.plots.style import Grid, Picture, grid, layers, lines, picture
from sonibook.widgets.players import Player, Table, pair, player, table

if TYPE_CHECKING:
    from sonibook.widgets.explorer import Explorer

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
    "layers",
    "lines",
    "log_spectrogram",
    "pair",
    "picture",
    "player",
    "receptive_fields",
    "side_by_side",
    "steps",
    "table",
    "waveform",
]


def __getattr__(name: str) -> Any:
    """Import `Explorer`, and ipywidgets with it, when it is first asked for."""
    if name == "Explorer":
        from sonibook.widgets.explorer import Explorer

        return Explorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
