"""What a reader sees and hears, in one place: `show.player`, `show.compare`, `show.Explorer`.

Everything here draws or plays what it is handed and runs no experiment (the explorer, which is an
instrument, is the one exception). `import sonibook` does not import this module, and the widgets
are loaded when `Explorer` or `AliasSlider` is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sonibook import _names_of
from sonibook.audio import excerpt
from sonibook.plots.basics import centre_frequencies, frequency_responses, receptive_fields
from sonibook.plots.sonification import Stage, feature_maps, held, steps
from sonibook.plots.sound import compare, describe, log_spectrogram, side_by_side, waveform
from sonibook.plots.style import Grid, Picture, folded, grid, layers, lines, picture
from sonibook.widgets.animation import (
    Animation,
    TemperatureSlider,
    Walks,
    backward_animation,
    encoder_diagram,
)
from sonibook.widgets.players import Player, pair, player, table

if TYPE_CHECKING:
    from sonibook.widgets.explorer import Explorer
    from sonibook.widgets.sliders import AliasSlider

__all__ = [
    "AliasSlider",
    "Animation",
    "Explorer",
    "Grid",
    "Picture",
    "Player",
    "Stage",
    "TemperatureSlider",
    "Walks",
    "backward_animation",
    "centre_frequencies",
    "compare",
    "describe",
    "encoder_diagram",
    "excerpt",
    "feature_maps",
    "folded",
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

__getattr__ = _names_of("sonibook.widgets", explorer="Explorer", sliders="AliasSlider")
