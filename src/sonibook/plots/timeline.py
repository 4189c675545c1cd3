"""A scene as a picture: what is heard, and under it when each of its sources is.

Chapter: Sound and data.
"""

from __future__ import annotations

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets.soundscapes import Scene
from sonibook.plots.picture import Picture, picture
from sonibook.plots.plots import decibels, draw_levels, power_spectrogram
from sonibook.plots.style import CYCLE, FLOOR_DB, look, new_figure


def timeline(scene: Scene, *, caption: str = "") -> Picture:
    """Draw the mixture's log spectrogram, and a bar from onset to offset for every event.

    Parameters
    ----------
    scene : Scene
    caption : str

    Returns
    -------
    Picture
    """
    power = power_spectrogram(scene.mixture)
    levels = decibels(power, reference=float(power.max()))
    with look():
        count = len(scene.events)
        figure = new_figure(8.0, 2.7 + 0.28 * count)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[7, max(count, 1)])
        draw_levels(above, levels, sample_rate=SAMPLE_RATE, floor_db=FLOOR_DB)
        above.set(ylabel="frequency / kHz")
        for row, event in enumerate(scene.events):
            colour = CYCLE[row % len(CYCLE)]
            below.barh(row, event.offset - event.onset, left=event.onset, color=colour)
        below.set(xlabel="time / s", xlim=(0, len(scene.mixture) / SAMPLE_RATE))
        names = [event.name.replace("_", " ") for event in scene.events]
        below.set(yticks=range(count), yticklabels=names)
        below.invert_yaxis()
        below.tick_params(axis="y", length=0)
    words = "; ".join(
        f"{name} from {event.onset:.2f} to {event.offset:.2f} s at {event.gain:.0f} dB"
        for name, event in zip(names, scene.events, strict=True)
    )
    alt = f"The log spectrogram of a scene, and under it a bar for each event: {words}."
    return picture(figure, alt=alt, caption=caption)
