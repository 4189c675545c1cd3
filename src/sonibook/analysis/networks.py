"""The networks of an analysis: what each is, and the untrained ones it is to be read against."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from sonibook.analysis.result import Estimate, Row
from sonibook.audio import pad
from sonibook.datasets.base import Clip, ClipReader, Dataset
from sonibook.errors import AnalysisError
from sonibook.model.checkpoint import canonical, open_network
from sonibook.model.encoder import CNN12, FoldableConv1d
from sonibook.model.layers import he_normal
from sonibook.model.operations import BatchNorm, Convolution, Operation
from sonibook.model.stack import Block, blocks_of, check_layer, least_length

#: The regime of networks with He weights, which were never trained, and the name of one.
RANDOM, RANDOM_WEIGHTS = "random", "random weights"
#: The regime of those with He weights that are centred and scaled, as training standardises them.
CENTRED = "centred random"
#: Clips, evenly spaced, that give a random network's batch normalisation its statistics.
_FEW = 8


@dataclass(frozen=True)
class Network:
    """A network to analyse, and what it is.

    Networks of one `regime`, the name if empty, differ in the `seed` of their first weights and
    training alone: figures give them one colour, claims take their mean. Others are to be read
    against a `baseline`. `start` is what training began with, where that is known.
    """

    name: str
    module: nn.Module = field(repr=False)
    regime: str = ""
    seed: int = 0
    baseline: bool = False
    start: Network | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regime", self.regime or self.name)

    @property
    def identity(self) -> dict[str, Any]:
        """The fields of a `Row` that say which network it is of."""
        own = {"network": self.name, "regime": self.regime, "seed": self.seed}
        return {**own, "baseline": self.baseline}

    def row(
        self, quantity: str, found: Estimate, *, layer: int | None = None, condition: str = ""
    ) -> Row:
        """An estimate as a row of a result."""
        of: dict[str, Any] = {"layer": layer, "quantity": quantity, "condition": condition}
        return Row(**self.identity, **of, **found.model_dump())


#: What analyses take: networks by name, or with all that is known of each.
Networks: TypeAlias = Mapping[str, nn.Module] | Sequence[Network]


def as_networks(networks: Networks) -> list[Network]:
    """Networks with what they are."""
    listed = (
        [Network(name, module) for name, module in networks.items()]
        if isinstance(networks, Mapping)
        else list(networks)
    )
    if not listed:
        raise AnalysisError("There is no network to analyse: give one at least.")
    names = [network.name for network in listed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AnalysisError(f"Two networks are called {twice!r}: give each its own name.")
    return listed


def with_random_weights(
    networks: Networks, data: Dataset | None = None, *, seed: int
) -> list[Network]:
    """Networks, and after them one with He weights for each shape that there is among them.

    The others are called ``random weights``, and by whose shape they have where shapes differ; as
    for `random_twin` for batch normalisation. `AnalysisError` if one has the name of a baseline.
    """
    given = as_networks(networks)
    shapes: dict[str, list[Network]] = {}
    for network in given:
        shape = repr([block.modules for block in blocks_of(network.module)])
        shapes.setdefault(shape, []).append(network)
    baselines = []
    for alike in shapes.values():
        theirs = ", ".join(network.name for network in alike if not network.baseline)
        alone = len(shapes) == 1
        name = RANDOM_WEIGHTS if alone else f"{RANDOM_WEIGHTS} ({theirs})"
        if any(network.name == name for network in given):
            raise AnalysisError(f"{name!r} is what the baseline is called: name yours otherwise.")
        twin = random_twin(alike[0].module, data, seed=seed)
        baselines.append(Network(name, twin, RANDOM if alone else name, seed, True))
    return given + baselines


def with_starts(networks: Networks) -> list[Network]:
    """Networks, and after them what they started from, once each, where that is known."""
    given = as_networks(networks)
    starts = {repr(one.start): one.start for one in reversed(given) if one.start is not None}
    for key, start in reversed(starts.items()):
        theirs = ", ".join(one.name for one in given if repr(one.start) == key)
        given.append(replace(start, name=f"start of {theirs}"))
    return given


def random_twin(network: nn.Module, data: Dataset | None = None, *, seed: int) -> nn.Sequential:
    """A network of the same shape that has learned nothing: a Sequential of its stack's modules
    alone.

    Its weights are He's and its biases zero. Batch normalisation scales by 1 and shifts by 0, and
    takes its statistics from eight clips of `data`, at the network's rate: those of other weights
    would mean nothing. Without data it does nothing.
    """
    fresh, heard = untrained(blocks_of(network), seed=seed), list[Clip]()
    normalised = any(isinstance(one, _FreshNorm) for block in fresh for one in block.modules)
    if data is not None and normalised:
        reader, count = ClipReader(data), min(_FEW, len(data))
        heard = [reader.nearest(place * len(data) // count) for place in range(count)]
    return mixed(fresh, fresh, (), heard=heard)


def untrained(blocks: Sequence[Block], *, seed: int) -> tuple[Block, ...]:
    """The same stack with fresh He (Kaiming) weights and zero biases.

    Convolutions whose weights were normalised are plain. Batch normalisation stands on its own and
    has no statistics: `mixed` gives it some.
    """
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        Block(tuple(new for one in block.operations for new in _untrained(one, generator)))
        for block in blocks
    )


def _untrained(operation: Operation, generator: torch.Generator) -> list[Operation]:
    if isinstance(operation, BatchNorm):
        return [BatchNorm(_FreshNorm.like(operation.module), operation.name)]
    if not isinstance(operation, Convolution):
        return [operation]
    conv, norm = operation.module, operation.norm
    copy = conv.fold() if isinstance(conv, FoldableConv1d) else deepcopy(conv)
    he_normal(copy, generator)
    plain: list[Operation] = [Convolution(copy, operation.name)]
    return plain if norm is None else [*plain, BatchNorm(_FreshNorm.like(norm), operation.name)]


class _FreshNorm(nn.BatchNorm1d):
    """Batch normalisation that has learned nothing; `mixed` gives it statistics."""

    @classmethod
    def like(cls, norm: nn.BatchNorm1d) -> _FreshNorm:
        fresh = cls(norm.num_features, eps=norm.eps, momentum=1.0).eval().requires_grad_(False)
        return fresh.to(norm.running_var)


def mixed(
    blocks: Sequence[Block],
    others: Sequence[Block],
    layers: Collection[int],
    *,
    heard: Sequence[Clip] = (),
) -> nn.Sequential:
    """A network whose `layers` are those of `others`, and all the rest those of `blocks`.

    It shares their weights. On the clips that are `heard`, batch normalisation that is fresh from
    `untrained` takes its statistics, cut to the shortest; without any it does nothing.
    """
    chosen = [
        other if layer in layers else block
        for layer, (block, other) in enumerate(zip(blocks, others, strict=True), start=1)
    ]
    # Statistics are those of this network alone.
    modules = [
        deepcopy(one) if isinstance(one, _FreshNorm) else one
        for block in chosen
        for one in block.modules
    ]
    network = nn.Sequential(*modules)
    fresh = [one for one in modules if isinstance(one, _FreshNorm)]
    if fresh and heard:
        shortest = max(min(len(clip.waveform) for clip in heard), least_length(chosen))
        x = np.stack([pad(clip.waveform, shortest)[:shortest] for clip in heard])
        with torch.no_grad():  # in training they take the statistics of what they hear
            for norm in fresh:
                norm.train()
            network(torch.from_numpy(x).to(chosen[0].conv.weight).unsqueeze(1))
            for norm in fresh:
                norm.eval()
    return network


def layers_of(blocks: Sequence[Block], layers: Sequence[int] | None) -> tuple[int, ...]:
    """Layers in their order, or all; raises a `LayerError` for one that the stack lacks."""
    wanted = range(1, len(blocks) + 1) if layers is None else sorted(set(layers))
    return tuple(check_layer(blocks, layer) for layer in wanted)


def load_network(file: str | None, name: str, *, width: float = 0.25, seed: int = 0) -> Network:
    """A published network with what its card says of it, or an untrained one."""
    if file is None:
        return Network(name, CNN12(width=width, seed=seed).eval(), RANDOM, seed)
    module, card = open_network(file)
    regime = trained_regime(card)
    if not regime:
        return Network(name, module)
    config = card["config"]
    seed = int(config.get("seed", 0))
    return Network(name, module, regime, seed, start=_start(card, config, seed))


def trained_regime(card: Mapping[str, Any]) -> str:
    """How a network was trained, with what tells it from the usual; empty if no card says so."""
    config = {} if "layers" in card else card.get("config") or {}
    kinds = {"cross_entropy": "supervised", "nt_xent": "contrastive"}
    kind = kinds.get(str(config.get("objective")))
    if kind is None:
        return ""
    # Empty where pairs and head are the paper's.
    hidden = config.get("contrastive", {}).get("hidden")
    data, width = config["data"], card["width"]
    apart = {
        str(data.get("name")): data.get("name") != "esc40",
        "the paper's recipe": kind == "contrastive" and "joined" in data and not hidden,
        "not normalised": config["encoder"].get("norm") == "none",
        "strided": card.get("downsample") == "stride",
        f"width {width:g}": width != 0.25,
    }
    return ", ".join([kind, *(what for what, holds in apart.items() if holds)])


def _start(card: Mapping[str, Any], config: Mapping[str, Any], seed: int) -> Network | None:
    """The weights before the first step, rounded as what is published."""
    encoder = config["encoder"]
    if encoder.get("start") is not None:
        return None
    width, depth, norm = float(card["width"]), card.get("depth", 11), encoder.get("norm")
    halving = card.get("downsample", "max")
    fresh = CNN12(width=width, depth=int(depth), norm=norm, downsample=halving, seed=seed)
    regime = RANDOM if norm == "none" else CENTRED
    regime += "" if halving == "max" else ", strided"
    regime += "" if width == 0.25 else f", width {width:g}"
    return Network(f"start {regime} {seed}", canonical(fresh), regime, seed, baseline=True)
