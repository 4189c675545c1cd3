"""What halving the rate leaves on sonifications (paper, section 3.2 and figure B.3).

The paper says that a sonification follows any shift of its clip. A max-pool looks at fixed pairs
of steps, so that the law can hold for multiples of a layer's pooling stride alone: see `shift_law`.

The switches of a max-pool say where in each pair a value was; a stride has none, so that a
transposed convolution puts each value at the same place of its pair. What that costs is measured by
`downsampling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.analysis.networks import Networks, as_networks
from sonibook.analysis.result import Estimate, ResultTable, Row
from sonibook.analysis.sources import SOURCE_SCORES, SceneClips, scores_in_scene
from sonibook.analysis.stream import Measured, Streaming, by_clip, measure_networks
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError
from sonibook.metrics.similarity import mean_top_coherence
from sonibook.model.stack import Block, blocks_of, receptive_field, stride

#: One sample, multiples of the deepest stride, others, and the paper's 8645.
SHIFTS = (1, 2, 16, 128, 256, 1000, 1024, 8645, 8704)
#: Of `downsampling`: by one sample, and by one that is a multiple of CNN12's deepest stride.
_TWO_SHIFTS = (1, 256)
#: Bins of the transform to either side of a line.
_WIDTH = 2


def is_exact(law: ResultTable, row: Row) -> bool:
    """Whether the shift of a row of `shift_law` is a multiple of its layer's stride."""
    step = law.row("stride", network=row.network, layer=row.layer).mean or 1
    return int(row.condition) % step == 0


def _strides(blocks: Sequence[Block]) -> list[int]:
    return [stride(blocks, layer) for layer in range(1, len(blocks) + 1)]


def _cosines(shifts: Sequence[int], network: nn.Module, clip: Clip) -> Measured:
    """How far the most active filter's sonification follows each shift of a clip; else NaN."""
    x = clip.waveform
    straight = ForwardPass(network, x)
    whole, chosen = straight.sonify_most_active(rescale=False)
    found = np.full((len(chosen), len(shifts)), np.nan)
    for column, shift in enumerate(shifts):
        if shift >= len(x):
            continue
        later = ForwardPass(network, x[shift:])
        for layer, index in enumerate(chosen, start=1):
            # Within a receptive field of its start the shifted clip lacks what was cut off.
            margin = receptive_field(straight.blocks, layer)
            a = later.sonify(layer, [int(index)], rescale=False)[0][margin:].double()
            b = whole[layer - 1][shift + margin :].double()
            found[layer - 1, column] = a @ b / (a.norm() * b.norm())
    return {("cosine", str(shift)): own for shift, own in zip(shifts, found.T, strict=True)}


def shift_law(
    networks: Networks,
    data: Dataset,
    *,
    shifts: Sequence[int] = SHIFTS,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """Sonify clips that start later, and compare with sonifications that are shifted.

    Parameters
    ----------
    networks, data, seed, streaming : as for every analysis, see `sonibook.analysis`
    shifts : sequence of int >= 1, in samples

    Returns
    -------
    ResultTable
        Of each layer's most active filter on each clip: ``cosine``, in [-1, 1], by the shift in
        samples as condition, of the shifted clip's sonification with the shifted sonification; and
        ``stride``, in samples between two steps of a layer's pooled maps.
    """
    if not shifts or min(shifts) < 1:
        raise AnalysisError("A shift law needs shifts of one sample or more.")
    given = as_networks(networks)
    settings = {"shifts": list(shifts), "seed": seed}
    measure = partial(by_clip, partial(_cosines, shifts))
    result = measure_networks("shifts", measure, given, data, settings=settings, **streaming)
    strides = [
        network.row("stride", Estimate(mean=step, clips=result.data.clips), layer=layer)
        for network in given
        for layer, step in enumerate(_strides(blocks_of(network.module)), start=1)
    ]
    return result.model_copy(update={"rows": (*result.rows, *strides)})


def spectral_lines(x: Float[Tensor, "rows time"], step: int) -> Float[Tensor, " rows"]:
    """How far a spectrum stands out, in dB, at multiples of one `step`-th of the sampling rate.

    The mean over the multiples of the level there, less that half-way between them, in two bins of
    the Hann-windowed transform to either side. NaN for a silent row, and for one too short.
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


def _downsampled(network: nn.Module, clip: Clip) -> Measured:
    """The quantities of `downsampling` on a scene."""
    x = torch.from_numpy(clip.waveform)
    passed = ForwardPass(network, clip.waveform)
    sounds = passed.sonify_most_active()[0].cpu()
    lines = [
        spectral_lines(s[None], step) - spectral_lines(x[None], step)
        for s, step in zip(sounds, _strides(passed.blocks), strict=True)
    ]
    return {
        "coherence": mean_top_coherence(x.double().expand_as(sounds), sounds.double()).numpy(),
        "SI-SDR": scores_in_scene(sounds, clip)[:, SOURCE_SCORES.index("SI-SDR")].numpy(),
        "lines": torch.cat(lines).numpy(),
        **_cosines(_TWO_SHIFTS, network, clip),
    }


def downsampling(
    networks: Networks, data: Dataset, *, seed: int = 0, **streaming: Unpack[Streaming]
) -> ResultTable:
    """What halving the rate leaves on sonifications of scenes: of each clip's most active filters.

    ``coherence``, in [0, 1], with the clip; ``SI-SDR``, in dB, to the stem that they hold most of;
    ``cosine``, as of `shift_law`; and ``lines``, in dB, beyond the clip's own (`spectral_lines`).
    """
    streaming.setdefault("chunk", 4)  # a clip takes seconds
    return measure_networks(
        "grid",  # as measured results call it
        partial(by_clip, _downsampled),
        as_networks(networks),
        SceneClips(data),
        settings={"shifts": _TWO_SHIFTS, "seed": seed},
        **streaming,
    )
