"""Coherence at one frequency as walks that are taken step by step.

Chapter: Coherence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sonibook.plots.sonification import coherence_walk, coherence_walks
from sonibook.plots.sound import Sound
from sonibook.widgets.animation import moving


@dataclass(frozen=True, eq=False)
class Walks:
    """The walks of several pairs of sounds beside each other, a step for each piece.

    Parameters
    ----------
    pairs : mapping from str to (x, y), ndarray or Tensor, shapes (time,)
        By title.
    frequency : float, in Hz
    nperseg : int > 0, in samples
        Of a piece; pieces overlap by half.
    """

    pairs: Mapping[str, tuple[Sound, Sound]] = field(repr=False)
    frequency: float
    nperseg: int = 256

    def _repr_html_(self) -> str:
        walks = []
        for name, (x, y) in self.pairs.items():
            walk = coherence_walk(x, y, frequency=self.frequency, nperseg=self.nperseg)
            x_of, y_of = ([round(float(v), 4) for v in part] for part in (walk.real, walk.imag))
            walks.append({"name": name, "x": x_of, "y": y_of})
        still = coherence_walks(self.pairs, frequency=self.frequency, nperseg=self.nperseg)
        return moving("walks", {"walks": walks}, still._repr_html_())
