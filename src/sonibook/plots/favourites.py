"""Pairs of input and sonification that a rule chose, as spectrograms (paper, figures 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence

from sonibook.analysis.evolution import BANDS, RANGE_DB, unpacked
from sonibook.analysis.favourites import NetworkFavourites
from sonibook.plots.style import LEVELS, Picture, look, new_figure, picture


def favourites_figure(found: NetworkFavourites, *, layers: Sequence[int]) -> Picture:
    """Draw the pairs of some layers: above the clip, below its sonification.

    Parameters
    ----------
    found : NetworkFavourites
    layers : sequence of int

    Returns
    -------
    Picture

    Raises
    ------
    ValueError
        If there is no pair of these layers.
    """
    pairs = [one for one in found.pairs if one.layer in layers]
    if not pairs:
        raise ValueError(f"{found.network} has no pair of the layers {list(layers)}.")
    with look():
        figure = new_figure(1.0 + 1.85 * len(pairs), 3.4)
        grid = figure.subplots(2, len(pairs), squeeze=False)
        for column, one in enumerate(pairs):
            for axes, text in zip(grid[:, column], (one.input, one.sonification), strict=True):
                axes.imshow(unpacked(text), cmap=LEVELS, vmin=0, vmax=RANGE_DB)
                axes.set(xticks=[], yticks=[])
            title = f"layer {one.layer}, filter {one.filter}\n{one.label.replace('_', ' ')}"
            grid[0, column].set_title(title, fontsize=8.5, fontweight="normal")
        for axes, title in zip(grid[:, 0], ("clip", "sonification"), strict=True):
            axes.set_yticks([0, BANDS - 1], ["0", "4 kHz"])
            axes.set_ylabel(title)
    words = "; ".join(
        f"layer {one.layer}, filter {one.filter}: {one.label.replace('_', ' ')}, coherence "
        f"{one.coherence:.2f}"
        for one in pairs
    )
    return picture(figure, alt=f"{found.network}: spectrograms of clips and, below each, of the "
                   f"sonification of the filter that likes it most. {words}.")  # fmt: skip
