"""What a reader sees and hears, in one place: `show.player`, `show.side_by_side`, `show.Explorer`.

Everything here draws or plays what it is handed and runs no experiment (the explorer, which is an
instrument, is the one exception). Each name is imported when it is first asked for.
"""

from __future__ import annotations

from sonibook import _names_of

_NAMES = {
    "audio": "excerpt",
    "plots.basics": "centre_frequencies frequency_responses receptive_fields",
    "plots.sound": "Stage describe feature_maps held log_spectrogram side_by_side steps waveform",
    "plots.style": "Picture folded grid layers lines",
    "widgets.view": "AliasSlider",
    "widgets.animation": "TemperatureSlider Walks backward_animation encoder_diagram",
    "widgets.explorer": "Explorer",
    "widgets.players": "pair player table",
}

__all__ = sorted(" ".join(_NAMES.values()).split())
__getattr__ = _names_of("sonibook", **_NAMES)


def __dir__() -> list[str]:
    return __all__
