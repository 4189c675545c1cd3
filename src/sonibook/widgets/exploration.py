"""What the explorer knows: one clip's forward pass, its filters by energy, their sonifications."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.analysis.coherence import mean_top_coherence
from sonibook.analysis.stems import si_sdr
from sonibook.audio import as_waveform, excerpt
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import SonibookWarning
from sonibook.plots.sound import Sound

#: Longer clips are cut to their loudest stretch of this length: maps take memory.
MOST_SECONDS = 30.0

#: Below two segments coherence is 1 whatever the sounds.
_LEAST = 384

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Heard:
    """What is heard of one filter on one clip, and how much of the clip is in it.

    Attributes
    ----------
    layer, filter : int
    sonification : ndarray, shape (time,)
        Scaled to the clip's peak.
    residual : ndarray, shape (time,)
        The clip less the sonification.
    coherence : float in [0, 1], or NaN
        With the clip: mean of the five most coherent frequencies. NaN where one is silent or
        shorter than two segments.
    si_sdr : float, in dB, or NaN
        Of the sonification, with the clip as the reference.
    notices : tuple of str
        What a listener should know.
    """

    layer: int
    filter: int
    sonification: Float[ndarray, " time"]
    residual: Float[ndarray, " time"]
    coherence: float
    si_sdr: float
    notices: tuple[str, ...]

    @property
    def measures(self) -> str:
        """How much of the clip is in the sonification, in words; empty for silence."""
        if math.isnan(self.coherence) or math.isnan(self.si_sdr):
            return ""
        return f"Coherence with the input {self.coherence:.2f}, SI-SDR {self.si_sdr:.1f} dB."


@dataclass(frozen=True)
class Ranked:
    """A filter of a layer, and its share of the layer's energy along the clip, from 0 to 1."""

    filter: int
    share: float


class Exploration:
    """One clip, passed forward once, and any of its sonifications.

    Parameters
    ----------
    network : torch.nn.Module
        As `sonibook.model.stack.blocks_of` takes it.
    x : ndarray or Tensor, shape (time,)
    sample_rate : int > 0, in Hz

    Attributes
    ----------
    x : ndarray, shape (time,)
        The clip, cut to its loudest 30 s if it is longer.
    notices : tuple of str
        What a listener should know of the clip: that it was cut or padded.

    Raises
    ------
    StackError
        If the network cannot be inverted.
    AudioError
        If `x` is no waveform.
    """

    def __init__(self, network: nn.Module, x: Sound, *, sample_rate: int) -> None:
        whole = as_waveform(x)
        self.x = excerpt(whole, seconds=MOST_SECONDS, sample_rate=sample_rate)
        self.sample_rate = sample_rate
        self._passed, notices = _overheard(lambda: ForwardPass(network, self.x))
        if len(self.x) < len(whole):
            cut = f"The clip is longer than {MOST_SECONDS:g} s: its loudest stretch is taken."
            notices = (cut, *notices)
        self.notices = notices
        self._ranking: dict[int, tuple[Ranked, ...]] = {}

    @property
    def layers(self) -> int:
        """How many layers the network has."""
        return len(self._passed.blocks)

    def ranking(self, layer: int) -> tuple[Ranked, ...]:
        """All filters of a layer, most energy first; silent ones are last.

        Raises
        ------
        LayerError
            If there is no such layer.
        """
        if layer not in self._ranking:
            energy = self._passed.energy(layer)[0].double()
            total = float(energy.sum())
            shares = (energy / total if total > 0 else energy).tolist()
            order = energy.argsort(descending=True, stable=True).tolist()
            self._ranking[layer] = tuple(Ranked(index, shares[index]) for index in order)
        return self._ranking[layer]

    def hear(self, layer: int, index: int) -> Heard:
        """The sonification of one filter, what it leaves of the clip, and how alike they are.

        Raises
        ------
        LayerError
            If there is no such layer or filter.
        """
        result, notices = _overheard(lambda: self._passed.sonify(layer, [index]))
        sound = result[0].float().cpu()
        x = torch.from_numpy(self.x)
        return Heard(
            layer,
            index,
            sonification=sound.numpy(),
            residual=(x - sound).numpy(),
            coherence=float(mean_top_coherence(x, sound)) if len(x) >= _LEAST else math.nan,
            si_sdr=float(si_sdr(sound, x)),
            notices=notices,
        )

    def rank_of(self, layer: int, index: int) -> int:
        """The rank of a filter in its layer, from 1."""
        return [each.filter for each in self.ranking(layer)].index(index) + 1

    def rank_text(self, layer: int, rank: int) -> str:
        """Which filter has this rank (from 1) in its layer, in words."""
        ranking = self.ranking(layer)
        found = ranking[rank - 1]
        text = f"Layer {layer}, rank {rank} of {len(ranking)}: filter {found.filter}"
        if found.share > 0:
            return f"{text}, {found.share:.1%} of the layer's energy."
        silent = sum(each.share == 0 for each in ranking)
        return f"{text}, silent on this clip (as {silent} of the layer's filters are)."


def _overheard(action: Callable[[], _Result]) -> tuple[_Result, tuple[str, ...]]:
    """What `action` returns, and what sonibook warned of; other warnings go their way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    for warning in caught:
        if not issubclass(warning.category, SonibookWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    ours = [each for each in caught if issubclass(each.category, SonibookWarning)]
    return result, tuple(str(each.message) for each in ours)
