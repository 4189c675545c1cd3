"""Ways back beyond the paper, by the measures that its own is judged by.

Two things are varied: what the way back starts from (the most active filter's map, or all maps of
the layer at once) and how a max-pool is undone (`sonibook.deconvnet.unpooling`). Each sound is
measured by its coherence with the clip, by its likeness to the paper's way from the same start,
and, where the clip is a scene with known stems, by what it holds of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack, get_args

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.result import Estimate, Measured, Record, Result, key_of, named_estimates
from sonibook.analysis.scenes import SceneClip, SceneClips
from sonibook.analysis.stems import HOLDINGS, holdings
from sonibook.analysis.stream import Streaming, gather, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.datasets.soundscapes import SceneDataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.unpooling import UNPOOLING
from sonibook.errors import AnalysisError
from sonibook.metrics.coherence import mean_top_coherence
from sonibook.metrics.similarity import spectrogram_correlation
from sonibook.model.stack import blocks_of, check_layer

Start = Literal["most active filter", "whole layer"]
STARTS: tuple[Start, ...] = get_args(Start)
#: What can be measured of every clip; of a scene, `HOLDINGS`, too.
MEASURES = ("coherence with the input", "likeness to the paper's way")
_LEAST_SAMPLES = 1024


class Way(Record):
    """One way back, from one layer of one network.

    Attributes
    ----------
    network : str
    layer : int
    start : {"most active filter", "whole layer"}
    unpooling : str
        By `sonibook.deconvnet.unpooling.UNPOOLING`; ``"switches"`` is the paper's.
    measures : dict of str to Estimate
    beyond_paper : dict of str to Estimate
        By how much each measure exceeds that of the paper's unpooling, clip by clip.
    """

    network: str
    layer: int
    start: Start
    unpooling: str
    measures: dict[str, Estimate]
    beyond_paper: dict[str, Estimate]


class WaysResult(Result):
    """How ways back compare; see `ways`.

    Attributes
    ----------
    several : int
        Clips that are scenes of two stems or more; what sounds hold is measured on these.
    ways : tuple of Way
    """

    analysis: Literal["ways"] = "ways"
    several: int
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class Ways:
    """The measure of `ways`, for `stream`.

    Attributes
    ----------
    networks : dict of str to torch.nn.Module
    layers : tuple of int
    """

    networks: dict[str, nn.Module]
    layers: tuple[int, ...]

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        """By network, an array (clip, layer, start, unpooling, measure); NaN for none."""
        result: dict[str, ndarray] = {
            name: np.stack([self._clip(network, clip) for clip in clips])
            for name, network in self.networks.items()
        }
        stems = [len(clip.stems) if isinstance(clip, SceneClip) else 0 for clip in clips]
        return {**result, "number of stems": np.array(stems)}

    def _clip(self, network: nn.Module, clip: Clip) -> ndarray:
        passed = ForwardPass(network, clip.waveform, depth=max(self.layers))
        x = passed.x[0, 0, : passed.samples]
        rows = []
        for layer in self.layers:
            for filters in (passed.most_active(layer), None):
                sounds = [
                    passed.sonify_together(layer, filters, unpool=unpool)
                    for unpool in UNPOOLING.values()
                ]
                rows.append(_measured(torch.stack(sounds), x, clip))
        return np.stack(rows).reshape(len(self.layers), len(STARTS), *rows[0].shape)


def _measured(sounds: Tensor, x: Tensor, clip: Clip) -> ndarray:
    """What is measured of sounds, the paper's first, (unpooling, measure)."""
    columns = [
        mean_top_coherence(x.expand_as(sounds), sounds)[:, None].double(),
        spectrogram_correlation(sounds[:1], sounds)[:, None].double(),
    ]
    if isinstance(clip, SceneClip):
        several = len(clip.stems) > 1
        columns.append(
            holdings(sounds, x, clip.stems)
            if several
            else torch.full((len(sounds), len(HOLDINGS)), torch.nan, dtype=torch.float64)
        )
    return torch.cat(columns, dim=1).numpy()


def ways(
    networks: Mapping[str, nn.Module],
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    **streaming: Unpack[Streaming],
) -> WaysResult:
    """Compare ways back by coherence, and where stems are known by separation.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
        As `sonibook.sonify` takes them.
    data : Dataset
        Clips of fewer than 1,024 samples are skipped.
    layers : sequence of int, or None
        None for all that every network has.
    **streaming
        `parts`, `chunk`, `processes` and `limit`, as for `stream`.

    Returns
    -------
    WaysResult

    Raises
    ------
    AnalysisError
        If there is nothing to measure, or no network.
    LayerError, StackError
        If a network has no such layer, or cannot be sonified.
    """
    if not networks:
        raise AnalysisError("There is no network to go back through: give one.")
    depth = min(len(blocks_of(network)) for network in networks.values())
    chosen = tuple(layers or range(1, depth + 1))
    for blocks in map(blocks_of, networks.values()):
        for layer in chosen:
            check_layer(blocks, layer)
    settings: dict[str, Any] = {"layers": list(chosen)}
    key = key_of("ways", networks, settings)
    known = SceneClips(data) if isinstance(data, SceneDataset) else data
    names = MEASURES + (HOLDINGS if known is not data else ())
    streaming.setdefault("chunk", 2)  # a clip takes seconds
    chunks = stream(
        Ways(dict(networks), chosen),
        known,
        key=key,
        least_samples=_LEAST_SAMPLES,
        description="ways back",
        **streaming,
    )
    whole = gather(chunks)
    found: list[Way] = []
    for name in networks:
        values = whole.arrays[name]
        for (row, layer), (column, start) in (
            (one, other) for one in enumerate(chosen) for other in enumerate(STARTS)
        ):
            paper = values[:, row, column, 0]
            found += [
                Way(
                    network=name,
                    layer=layer,
                    start=start,
                    unpooling=unpooling,
                    measures=named_estimates(names, values[:, row, column, place]),
                    beyond_paper=named_estimates(names, values[:, row, column, place] - paper),
                )
                for place, unpooling in enumerate(UNPOOLING)
            ]
    return WaysResult(
        data=Measured.of(known, clips=len(whole.clip_ids), skipped=whole.skipped),
        several=int((whole.arrays["number of stems"] > 1).sum()),
        ways=tuple(found),
        **key,
    )
