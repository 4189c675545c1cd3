"""What halving the rate leaves on sonifications: by max-pools or by strides (paper, section 3.2).

Both keep one step of two, and their sonifications know only every other place. The switches of a
max-pool say where in each pair a value was; a stride has none, so that a transposed convolution
puts each value at the same place of its pair. What that costs is measured here, layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.measure import Measured, measure_networks
from sonibook.analysis.networks import Networks, as_networks
from sonibook.analysis.result import ResultTable
from sonibook.analysis.shifts import shift_cosines
from sonibook.analysis.sources import SOURCE_SCORES, SceneClip, SceneClips, source_scores
from sonibook.analysis.stream import Streaming
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.metrics.coherence import mean_top_coherence
from sonibook.model.stack import stride

#: Shifts by one sample, and by one that is a multiple of CNN12's deepest stride.
_SHIFTS = (1, 256)
#: Bins of the transform to either side of a line.
_WIDTH = 2
_SI_SDR = SOURCE_SCORES.index("SI-SDR")


class DownsamplingResult(ResultTable):
    """Sonifications where the rate is halved in different ways; make it with `downsampling`.

    Its quantities, layer by layer, of the most active filter of each clip:

    - ``coherence``, in [0, 1]: with the clip, mean of the five most coherent frequencies;
    - ``SI-SDR``, in dB: to the stem that the sonification holds most of;
    - ``cosine``, in [-1, 1], by the shift in samples as condition: of the sonification of the
      shifted clip with the shifted sonification;
    - ``lines``, in dB: how far its spectrum stands out at multiples of the layer's rate, over the
      clip's own (`spectral_lines`).
    """

    analysis: Literal["grid"] = "grid"  # as measured results call it


def spectral_lines(x: Float[Tensor, "rows time"], step: int) -> Float[Tensor, " rows"]:
    """How far a spectrum stands out, in dB, at multiples of one `step`-th of the sampling rate.

    The mean over the multiples of the level there, less that of the level half-way between them, in
    two bins of the Hann-windowed transform to either side. NaN for a silent row, and for one
    too short to tell them apart.

    Examples
    --------
    >>> impulses = torch.zeros(1, 8000)
    >>> impulses[0, ::16] = 1.0
    >>> bool(spectral_lines(impulses, 16) > 60)
    True
    """
    time = x.shape[1]
    if step < 2 or time < 4 * (2 * _WIDTH + 1) * step:
        return torch.full((len(x),), torch.nan, dtype=torch.float64)
    window = torch.hann_window(time, dtype=torch.float64, device=x.device)
    power = torch.fft.rfft(x.double() * window).abs().square()
    multiples = torch.arange(1, step // 2 + 1, device=x.device, dtype=torch.float64)
    near = torch.arange(-_WIDTH, _WIDTH + 1, device=x.device)

    def levels(at: Float[Tensor, " lines"]) -> Float[Tensor, "rows lines"]:
        bins = (at * time / step).round().long()[:, None] + near
        inside = bins.clamp(max=power.shape[1] - 1)
        return 10 * power[:, inside].mean(dim=2).clamp_min(1e-30).log10()

    found = (levels(multiples) - levels(multiples - 0.5)).mean(dim=1)
    return found.masked_fill(power.sum(dim=1) == 0, torch.nan)


def _measure(network: nn.Module, clips: Sequence[Clip]) -> Measured:
    """The quantities of a `DownsamplingResult` of some scenes."""
    rows = [_scene(network, clip) for clip in clips if isinstance(clip, SceneClip)]
    coherence, ratio, lines, *cosines = (np.stack(arrays) for arrays in zip(*rows, strict=True))
    return {
        "coherence": coherence,
        "SI-SDR": ratio,
        "lines": lines,
        **{("cosine", str(n)): own for n, own in zip(_SHIFTS, cosines, strict=True)},
    }


def _scene(network: nn.Module, clip: SceneClip) -> list[Float[ndarray, " layers"]]:
    x = torch.from_numpy(clip.waveform)
    passed = ForwardPass(network, clip.waveform)
    sounds = passed.sonify_most_active()[0].cpu()
    silent = sounds.abs().amax(dim=1) == 0
    whole = x.double().expand(len(sounds), -1)
    coherence = mean_top_coherence(whole, sounds.double(), k=5, nperseg=256, noverlap=None)
    ratio = torch.full((len(sounds),), torch.nan, dtype=torch.float64)
    if len(clip.stems) > 1 and not silent.all():
        ratio[~silent] = source_scores(sounds[~silent], x, clip.stems)[:, _SI_SDR]
    steps = [stride(passed.blocks, layer) for layer in range(1, len(sounds) + 1)]
    lines = [
        float(spectral_lines(s[None], step) - spectral_lines(x[None], step))
        for s, step in zip(sounds, steps, strict=True)
    ]
    cosines = shift_cosines(network, clip.waveform, _SHIFTS)
    return [coherence.numpy(), ratio.numpy(), np.array(lines), *cosines.T]


def downsampling(
    networks: Networks, data: Dataset, *, seed: int = 0, **streaming: Unpack[Streaming]
) -> DownsamplingResult:
    """What halving the rate leaves on the sonifications of some networks, layer by layer.

    Parameters
    ----------
    networks, data, seed, streaming
        As for every analysis: see `sonibook.analysis`. Such as CNN12 with either `downsample`,
        trained alike, and each one's own start, on scenes with known stems.

    Returns
    -------
    DownsamplingResult
    """
    streaming.setdefault("chunk", 4)  # a clip takes seconds
    fields = measure_networks(
        "grid",
        _measure,
        as_networks(networks),
        SceneClips(data),
        settings={"shifts": list(_SHIFTS), "seed": seed},
        seed=seed,
        **streaming,
    )
    return DownsamplingResult(**fields)
