"""What stimulates filters, and what silences them, as a figure."""

from __future__ import annotations

from sonibook.analysis.stimulation import STIMULI, TAKEN, StimulationResult
from sonibook.plots.curves import course, draw_estimates, over_layers
from sonibook.plots.style import Picture, look, new_figure, picture

#: The title of each panel and its curves; of what is heard, the clip itself would be 0 dB.
_PANELS = {
    "heard": ("heard instead of the clip", STIMULI),
    "left": ("subtracted from the clip", TAKEN),
}


def stimulation_figure(result: StimulationResult) -> Picture:
    """Draw the level of filters' maps on stimuli, and on what is left without them.

    Parameters
    ----------
    result : StimulationResult

    Returns
    -------
    Picture
        A column for each network; above the stimuli are heard, below subtracted.
    """
    networks = result.stimulation
    with look():
        figure = new_figure(1.6 + 2.9 * len(networks), 5.0)
        grid = figure.subplots(2, len(networks), sharey="row", squeeze=False)
        for line, (field, (title, stimuli)) in zip(grid, _PANELS.items(), strict=True):
            for axes, one in zip(line, networks, strict=True):
                layers = [row.layer for row in one.layers]
                for number, stimulus in enumerate(stimuli):
                    values = [getattr(row, field)[stimulus] for row in one.layers]
                    draw_estimates(axes, layers, values, label=stimulus, number=number)
                over_layers(axes, layers, title=one.network)
            line[0].set_ylabel(f"map's energy / dB re the clip,\n{title}")
        grid[1, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    words = "; ".join(
        course(f"{one.network}, {field}", [row.layer for row in one.layers],
               [getattr(row, field)["sonification"] for row in one.layers])
        for one in networks
        for field in _PANELS
    )  # fmt: skip
    return picture(
        figure,
        alt="Energy of the most active filter's map when it hears its sonification or a control "
        "instead of the clip, and when these are subtracted from the clip, in dB re the clip, "
        f"over {result.data.clips} clips. Sonification: {words}.",
    )
