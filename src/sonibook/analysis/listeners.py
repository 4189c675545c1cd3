"""What an independent listener still hears in sonifications, layer by layer.

The paper's authors listened themselves, and call sonifications *acoustically discernible*. Here
`sonibook.analysis.machine_listeners` are asked what can be right or wrong. Their score on the clips
themselves says what they can hear at all; the *share* of it which survives is the measure. All is
heard at the level (RMS) of the clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis import stream
from sonibook.analysis.controls import as_long_as, matched, random_phase, white_noise, with_partners
from sonibook.analysis.machine_listeners import Listener, open_listeners
from sonibook.analysis.networks import Networks, with_random_weights, with_starts
from sonibook.analysis.result import Estimate, ResultTable, Row
from sonibook.analysis.sources import SceneClips
from sonibook.analysis.stream import Measured, Streaming, seeded, stacked
from sonibook.datasets.base import Clip, Dataset
from sonibook.datasets.soundscapes import SceneDataset
from sonibook.deconvnet import ForwardPass
from sonibook.errors import AnalysisError
from sonibook.metrics.intervals import bootstrap_ratio

#: What is heard beside the sonification, of each network and layer, and of no network.
CONTROLS, OF_CLIPS = ("another clip", "random phase"), ("the clip itself", "white noise")


def _of_sonifications(
    listeners: Sequence[Listener], seed: int, network: nn.Module, clips: Sequence[Clip]
) -> Measured:
    """The scores on sonifications of clips, and on their controls."""
    sounds = [ForwardPass(network, x.waveform).sonify_most_active()[0].cpu() for x in clips]
    rows = []
    for clip, own, of_another in with_partners(clips, sounds):
        s = own[:, : len(clip.waveform)]
        other = as_long_as(of_another, s.shape[1])
        turned = random_phase(s, generator=seeded(seed, "random phase", clip.clip_id))
        live = (s != 0).any(dim=1, keepdim=True)
        kinds = torch.stack([s, other, turned]) * live
        rows.append(_scores(listeners, clip, kinds, ("", *CONTROLS)))
    return stacked(rows)


def _of_clips(listeners: Sequence[Listener], seed: int, clips: Sequence[Clip]) -> Measured:
    """The scores on the clips themselves, and on white noise."""
    rows = []
    for clip in clips:
        x = torch.from_numpy(clip.waveform)[None]
        noise = white_noise(x, generator=seeded(seed, "white noise", clip.clip_id))
        rows.append(_scores(listeners, clip, torch.stack([x, noise]), OF_CLIPS))
    return {name: scores[:, 0] for name, scores in stacked(rows).items()}


def _scores(
    listeners: Sequence[Listener],
    clip: Clip,
    sounds: Float[Tensor, "kinds layers time"],
    conditions: Sequence[str],
) -> Measured:
    """By listener and condition, layer by layer; NaN for silence, which nobody is asked about."""
    flat, found = sounds.flatten(0, 1), Measured()
    there = (flat != 0).any(dim=1)
    loud = matched(flat[there], torch.from_numpy(clip.waveform).expand(int(there.sum()), -1))
    for listener in listeners:
        scores = np.full(len(flat), np.nan)
        if there.any():
            scores[there.numpy()] = listener.hear(clip, loud)
        kinds = scores.reshape(sounds.shape[:2])
        found |= {(listener.name, one): own for one, own in zip(conditions, kinds, strict=True)}
    return found


def listen(
    networks: Networks,
    data: Dataset,
    *,
    training: Dataset | None = None,
    listeners: Sequence[str] | None = None,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """Let listeners hear each clip's most active filter of each layer, and controls.

    Beside each network stands the same with random weights, and with the weights that it started
    from where that is known.

    Parameters
    ----------
    networks, data, seed, streaming
        As for every analysis: see `sonibook.analysis`. Listeners are fitted to all clips, whatever
        the limit.
    training : Dataset or None
        What listeners that name events are fitted to. None leaves out each group of `data` in turn
        (of ESC-50 the fold, of FSDD the speaker): who hears its clips was fitted to the others.
    listeners : sequence of str, or None
        Of `sonibook.analysis.machine_listeners.LISTENERS`; None for all that are installed and
        have something to say of these clips.

    Returns
    -------
    ResultTable
        Its quantities are the scores of `sonibook.analysis.machine_listeners.LISTENERS`, of each
        clip's most active filter's sonification, clips left out on which no filter of the layer is
        live; under `CONTROLS` as conditions, of what else there is; and of no network, under
        `OF_CLIPS`. ``share of``, followed by the listener's name, is the mean score in per one of
        the mean score of the same clips themselves. A listener that is asked about certain clips
        alone, such as those in which it hears speech, counts these; the others are left out. The
        setting ``listeners`` says who each is, and what it was fitted to.

    Raises
    ------
    AnalysisError
        As every analysis, and if there is no such listener, it is not installed or cannot be
        fitted.
    """
    every = with_random_weights(with_starts(networks), seed=seed)
    clips = SceneClips(data) if isinstance(data, SceneDataset) else data
    opened = open_listeners(listeners, clips, training, seed=seed, streaming=streaming)
    if not opened:
        raise AnalysisError("There is nobody to listen: name a listener that is installed.")
    who = {listener.name: listener.who for listener in opened}
    found = stream.measure_clips(
        "listeners",
        partial(_of_sonifications, opened, seed),
        every,
        clips,
        settings={"listeners": who, "seed": seed},
        of_clips=partial(_of_clips, opened, seed),
        **streaming,
    )
    arrays = {name: array.copy() for name, array in found.arrays.items()}
    where_heard = {listener.name for listener in opened if listener.where_heard}
    for (network, quantity, _), array in arrays.items():
        if network:
            clean = arrays["", quantity, OF_CLIPS[0]]
            array[~(clean > 0) if quantity in where_heard else np.isnan(clean)] = np.nan
    identity = {network.name: network.identity for network in every}
    shared = [listener.name for listener in opened if listener.has_share]
    means = stream.table_rows(every, arrays, seed=seed)
    rows = [*means, *_shares(arrays, identity, shared, seed=seed)]
    return ResultTable(rows=tuple(rows), **found.fields)


def _shares(
    arrays: Mapping[tuple[str, str, str], Float[ndarray, "clips ..."]],
    identity: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    *,
    seed: int,
) -> Iterator[Row]:
    """Mean scores over those of the same clips themselves."""
    for (network, quantity, condition), array in arrays.items():
        if quantity not in names or condition == OF_CLIPS[0]:
            continue
        clean, columns = arrays["", quantity, OF_CLIPS[0]], array.reshape(len(array), -1)
        for layer, scores in enumerate(columns.T, start=1):
            kept = ~np.isnan(scores) & ~np.isnan(clean)
            share = _ratio(scores[kept], clean[kept], seed=seed).model_dump()
            of = {"quantity": f"share of {quantity}", "condition": condition}
            own = {**identity[network], "layer": layer} if network else {}
            yield Row(**own, **of, **share)


def _ratio(
    scores: Float[ndarray, " clips"], clean: Float[ndarray, " clips"], *, seed: int
) -> Estimate:
    """Not measured where the listener hears nothing in the clips themselves."""
    if not len(clean) or clean.mean() <= 0:
        return Estimate(mean=None, clips=0)
    mean, clips = float(scores.mean() / clean.mean()), len(clean)
    low, high = bootstrap_ratio(scores, clean, seed=seed) if clips > 1 else (None, None)
    return Estimate(mean=mean, low=low, high=high, clips=clips)
