"""Does a sonification depend on what the network has learned, and does it hold what is to learn?

The first is asked by random weights (J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS
2018): `sanity`. The second by fitting probes anew to clips without their sonifications (S. Hooker
et al., "A benchmark for interpretability methods in deep neural networks", NeurIPS 2019):
`remove_and_retrain`. A network that merely trips over what subtraction leaves behind learns to live
with it; what it needed it cannot learn back.

An explanation of what a network has learned must change when the network forgets it. Each clip's
most active filter of a layer is chosen on the trained network and kept; then layers are given
fresh He weights, and the filter is sonified again:

- *cascading*: from the filter's own layer down to another (what lies above takes no part in a
  sonification, and forgetting it changes nothing);
- *independent*: one layer alone.

How alike the two sonifications are is read against what cannot tell of learning: the clip itself,
the next most active filter of the same layer, and two random networks. Every clip meets random
weights of its own, so that the intervals over clips hold for other weights, too. Networks trained
differently, such as on shuffled labels, are compared by the filters that they themselves are most
active in, since no filter of one is the counterpart of another's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Unpack

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sonibook.analysis.ablation import Subtraction
from sonibook.analysis.controls import REMOVED
from sonibook.analysis.layers import Probes, check_fitting
from sonibook.analysis.networks import Network, Networks, as_networks, layers_of, mixed, untrained
from sonibook.analysis.result import ResultTable, Row
from sonibook.analysis.stream import Measured, Streaming, by_clip, measure_clips, seeded, table_rows
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.metrics import similarity
from sonibook.model.stack import blocks_of
from sonibook.training.probe import over_time

#: How alike two sounds are: the higher the more alike, but for the distance.
MEASURES = {
    "rank correlation": similarity.rank_correlation,
    "structural similarity": similarity.structural_similarity,
    "spectrogram correlation": similarity.spectrogram_correlation,
    "log-spectral distance": similarity.log_spectral_distance,
}

#: What every network is read against.
BASELINES = ("input", "runner-up filter", "random network", "two random networks")
#: The difference of two of them, clip by clip.
RUNNER_UP_LESS_RANDOM = "runner-up filter less all random"


def randomised(layer: int, *, alone: bool = False) -> str:
    """The condition under which random layers go down to one, from the filter's own, or it alone.

    Examples
    --------
    >>> randomised(3), randomised(3, alone=True)
    ('random down to layer 3', 'layer 3 random')
    """
    return f"layer {layer} random" if alone else f"random down to layer {layer}"


def similarities(
    layers: Sequence[int],
    others: Mapping[str, nn.Module],
    seed: int,
    network: nn.Module,
    clip: Clip,
) -> Measured:
    """The measure of `sanity` on one clip; NaN where a sound is silent, or there is none."""
    x, blocks = torch.from_numpy(clip.waveform), blocks_of(network)[: max(layers)]
    passed = ForwardPass(network, x, depth=len(blocks))
    sounds, filters = passed.sonify_most_active(layers)
    trained = sounds.cpu()
    nothing = torch.full_like(trained, torch.nan)
    seeds = seeded(seed, clip.clip_id).integers(2**31, size=2)
    first, second = (untrained(blocks, seed=int(one)) for one in seeds)
    every = range(1, len(blocks) + 1)

    def most_active(network: nn.Module) -> Tensor:
        passed = ForwardPass(network, x, depth=len(blocks))
        return passed.sonify_most_active(layers)[0].cpu()

    def forgetful(random: Collection[int]) -> Tensor:
        """The fixed filters; those of layers below all random ones are not changed."""
        again = ForwardPass(mixed(blocks, first, random, heard=[clip]), x)
        sounds = nothing.clone()
        for row, layer in enumerate(layers):
            if layer >= min(random):
                sounds[row] = again.sonify(layer, [int(filters[row])])[0]
        return sounds

    runners_up = nothing.clone()
    for row, layer in enumerate(layers):
        if runner_up := passed.most_active(layer, 2)[1:]:
            runners_up[row] = passed.sonify(layer, runner_up)[0]
    random, another = (
        most_active(mixed(blocks, one, every, heard=[clip])) for one in (first, second)
    )
    pairs = {
        "input": (trained, x.expand_as(trained)),
        "runner-up filter": (trained, runners_up),
        "random network": (trained, random),
        "two random networks": (random, another),
    }
    pairs |= {name: (trained, most_active(other)) for name, other in others.items()}
    for layer in every:
        pairs[randomised(layer)] = (trained, forgetful(range(layer, len(blocks) + 1)))
        pairs[randomised(layer, alone=True)] = (trained, forgetful([layer]))
    found: Measured = {}
    for condition, (one, other) in pairs.items():
        there = ~other.isnan().any(dim=1)
        for name, measure in MEASURES.items():
            values = np.full(len(layers), np.nan)
            if there.any():
                values[there.numpy()] = measure(one[there], other[there]).double()
            found[name, condition] = values
    for name in MEASURES:
        more = found[name, "runner-up filter"] - found[name, randomised(1)]
        found[name, RUNNER_UP_LESS_RANDOM] = more
    return found


def sanity(
    network: nn.Module,
    data: Dataset,
    *,
    name: str = "network",
    others: Mapping[str, nn.Module] | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """How much sonifications change when layers are given random weights.

    Parameters
    ----------
    network : torch.nn.Module
        As `sonibook.sonify` takes it; trained.
    data, layers, seed, streaming
        As for every analysis: see `sonibook.analysis`. Clips of fewer than 1,024 samples are
        skipped.
    name : str
        Of the network, in the result.
    others : mapping from str to torch.nn.Module, or None
        Networks to set beside it, with as many layers: one trained on shuffled labels, say.
        `AnalysisError` if one has a baseline's name.

    Returns
    -------
    ResultTable
        The quantities are `MEASURES`, of the trained network's sonification of a layer's filter
        with what the condition says: one of `randomised`, of `BASELINES`, or another network by
        name; of two random networks, with each other. `RUNNER_UP_LESS_RANDOM` is how much more
        alike the runner-up filter is than the filter with all layers random. Where a row is over
        fewer clips than were measured, one sound of the other pairs was silent, because its map
        was.
    """
    others = dict(others or {})
    taken = {name, *BASELINES, RUNNER_UP_LESS_RANDOM} & others.keys()
    if taken:
        raise AnalysisError(f"{taken.pop()!r} names two things here: give the network another.")
    chosen = layers_of(blocks_of(network), layers)
    for other in others.values():
        layers_of(blocks_of(other), chosen)
    streaming.setdefault("chunk", 2)  # a clip takes seconds
    subject = Network(name, network)
    found = measure_clips(
        "sanity",
        partial(by_clip, partial(similarities, chosen, others, seed)),
        [subject],
        data,
        settings={"layers": chosen, "seed": seed},
        beside=others,
        least_samples=1024,  # frames enough for a window of structural similarity
        **streaming,
    )
    both = product(range(1, max(chosen) + 1), (False, True))
    lowest = {randomised(layer, alone=alone): layer for layer, alone in both}
    rows = table_rows([subject], found.arrays, layers=chosen)
    # What lies below all random layers is not changed.
    kept = tuple(row for row in rows if (row.layer or 0) >= lowest.get(row.condition, 0))
    return ResultTable(rows=kept, **found.fields)


@torch.no_grad()
def _features(work: Subtraction, network: nn.Module, clips: Sequence[Clip]) -> Measured:
    """What a probe sees of clips, and then of what each control leaves of them, layer by layer."""
    rows = []
    for clip, _, taken in work.explained(network, clips):
        x = torch.from_numpy(clip.waveform)
        heard = torch.cat([x[None], (x - taken).flatten(0, 1)]).unsqueeze(1).split(8)
        parts = [over_time(FeatureMaps(network, some).maps[-1]) for some in heard]
        rows.append(torch.cat(parts).cpu().numpy())
    return {"features": np.stack(rows)}


def remove_and_retrain(
    networks: Networks,
    data: Dataset,
    *,
    layers: Sequence[int] | None = None,
    level: str = "peak",
    seed: int = 0,
    **streaming: Unpack[Streaming],
) -> ResultTable:
    """Fit linear probes anew to clips without their sonifications, or as much of something else.

    Parameters
    ----------
    networks, data, layers, seed, streaming
        As for every analysis: see `sonibook.analysis`. Of each clip the sonification of a layer's
        most active filter is taken away. Each group of the data (of ESC-50 the fold, of FSDD the
        speaker) is left out in turn, and its clips named by a probe that was fitted to what is
        left of the others, on the mean over time of the deepest feature maps. `AnalysisError` if
        there are no groups.
    level : {"peak", "least squares"}
        Of the sonification; see `sonibook.analysis.controls.scale`.

    Returns
    -------
    ResultTable
        ``accuracy``, in [0, 1] (``mAP`` of clips with any number of labels), when what the
        condition says was taken away, one of `REMOVED`, all at equal energy; of no layer
        ``untouched``. ``lead``: by how much it is higher without a control than without the
        sonification, clip by clip: above 0, the sonification held more of what there is to learn.
    """
    work = Subtraction(REMOVED, layers, level=level, seed=seed)
    check_fitting(data)
    every = as_networks(networks)
    chosen = {one.name: work.layers_of(one.module) for one in every}
    streaming.setdefault("chunk", 4)  # a clip takes seconds
    measure, settings = partial(_features, work), work.settings()
    found = measure_clips("roar", measure, every, data, settings=settings, **streaming)
    probes = Probes(data, found, seed=seed, parts=streaming.get("parts"))
    rows: list[Row] = []
    for network in every:
        columns = np.moveaxis(found.arrays[network.name, "features", ""], 1, 0)
        whole, *answers = [
            probes.answers("logistic", seen)
            for seen in tqdm(columns, desc=f"probes {network.name}", disable=None, leave=False)
        ]
        rows.append(probes.row(network, whole, condition="untouched"))
        cells = product(REMOVED, chosen[network.name])
        own = dict(zip(chosen[network.name], answers, strict=False))
        for (control, layer), one in zip(cells, answers, strict=True):
            rows.append(probes.row(network, one, layer=layer, condition=control))
            if control != REMOVED[0]:
                lead = probes.gain(one, own[layer])
                rows.append(network.row("lead", lead, layer=layer, condition=control))
    return ResultTable(rows=tuple(rows), **found.fields)
