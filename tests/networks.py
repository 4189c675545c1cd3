"""Random 1-D networks, and whether sonification computes on each what it should, or refuses it.

As a script it tries many and writes the counts:
``python tests/networks.py --count 20000 --seed 0 --out data/results/networks.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from oracles import captum_chain, naive_chain
from torch import Tensor, nn
from tqdm import tqdm

from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AudioError, SonibookError, StackError
from sonibook.files import atomic, provenance

TOLERANCE = 1e-9
#: The peak of a map below which it is silent but for rounding, as a norm of a silent map is.
SILENT = 1e-13


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., :1] + super().forward(x)


class Normalising(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / x.std())


class StandardisingConv(nn.Conv1d):
    """Computes other weights than `weight`, and does not tell."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2), keepdim=True)
        return self._conv_forward(x, 2 * weight, self.bias)


class TellingConv(nn.Conv1d):
    """Computes other weights than `weight`, and tells."""

    def effective_weight(self) -> Tensor:
        return self.weight - 0.5 * self.weight.mean(dim=(1, 2), keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.effective_weight(), self.bias)


class LyingConv(TellingConv):
    """Tells other weights than it computes."""

    def effective_weight(self) -> Tensor:
        return self.weight * 0.5

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight, self.bias)


class Threshold(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return F.threshold(x, 0.05, 0.0)


class BlurPool(nn.MaxPool1d):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool1d(super().forward(x), 3, 1, 1)


class Wrapped(nn.Module):
    """A network that runs its features, after a change to the sound or not."""

    def __init__(self, features: nn.Sequential, gain: float) -> None:
        super().__init__()
        self.features, self.gain = features, gain
        self.head = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.gain * x).mean(dim=2))


@dataclass
class Sample:
    """A network, the modules that it runs in order, and what there is to expect."""

    network: nn.Module
    chain: list[nn.Module]
    x: Tensor
    trick: str = ""
    refused: bool = False
    has_relu_only: bool = True
    is_frozen: bool = False
    ends: list[int] = field(default_factory=list)


class Generator:
    """Draws networks from one seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)

    def conv(self, channels: int) -> nn.Conv1d:
        draw = self.draw
        out = draw.choice((1, 2, 3, 4, 6))
        kernel, dilation = draw.randint(1, 7), draw.choice((1, 1, 1, 2, 3))
        stride = draw.choice((1, 1, 1, 2, 3, 4))
        padding: int | str = draw.choice((0, 0, 0, 1, 2, dilation * (kernel - 1) // 2))
        if stride == 1 and draw.random() < 0.2:
            padding = "same"
        groups = draw.choice([g for g in (1, 1, 1, 2, 3) if out % g == channels % g == 0])
        kind = draw.choice((nn.Conv1d,) * 6 + (TellingConv,))
        conv = kind(
            channels, out, kernel, stride=stride, padding=padding, dilation=dilation,
            groups=groups, bias=draw.random() < 0.8,
        )  # fmt: skip
        with torch.no_grad():
            conv.weight.normal_(generator=self.torch).mul_((2 / conv.weight[0].numel()) ** 0.5)
            if conv.bias is not None:
                conv.bias.normal_(generator=self.torch).mul_(0.1)
        return conv

    def batch_norm(self, channels: int) -> nn.BatchNorm1d:
        norm = nn.BatchNorm1d(channels, affine=self.draw.random() < 0.8)
        with torch.no_grad():
            norm.running_mean.normal_(generator=self.torch).mul_(0.1)
            norm.running_var.uniform_(0.5, 2.0, generator=self.torch)
            if norm.affine:
                norm.weight.normal_(generator=self.torch).add_(0.5)
                norm.bias.normal_(generator=self.torch).mul_(0.1)
        return norm

    def activation(self) -> nn.Module:
        kinds = (nn.ReLU,) * 12 + (nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.ReLU6, nn.PReLU)
        return self.draw.choice(kinds)()

    def pool(self) -> nn.Module:
        draw, size = self.draw, self.draw.randint(1, 6)
        if draw.random() < 0.5:
            return nn.MaxPool1d(draw.choice((2, 2, 3, 4, 300)))
        stride = draw.choice((None, 1, 2, 3, 5))
        padding = draw.randint(0, size // 2)
        ceil = draw.random() < 0.3
        if draw.random() < 0.3:
            included = draw.random() < 0.5
            return nn.AvgPool1d(size, stride, padding, ceil, included)
        return nn.MaxPool1d(size, stride, padding, draw.choice((1, 1, 2)), ceil_mode=ceil)

    def padding(self) -> nn.Module:
        sides = (self.draw.randint(-1, 3), self.draw.randint(0, 3))
        return nn.ConstantPad1d(sides, self.draw.choice((0.0, 0.0, 0.3)))

    def chain(self, channels: int) -> list[nn.Module]:
        """Modules in the order in which they run, some of them more than once."""
        draw, modules = self.draw, []
        shared_pool = self.pool() if draw.random() < 0.2 else None
        shared_relu = nn.ReLU() if draw.random() < 0.3 else None
        with_norm = draw.random() < 0.4
        for number in range(draw.randint(1, 4)):
            if draw.random() < 0.15:
                modules.append(self.padding())
            conv = self.conv(channels)
            modules.append(conv)
            channels = conv.out_channels
            if with_norm and draw.random() < 0.6:
                modules.append(self.batch_norm(channels))
            if with_norm and draw.random() < 0.1:
                groups = draw.choice([g for g in (1, 2, channels) if channels % g == 0])
                modules.append(nn.GroupNorm(groups, channels))
            modules.append(shared_relu or self.activation())
            if with_norm and draw.random() < 0.2:
                modules.append(self.batch_norm(channels))
            if draw.random() < 0.6:
                if draw.random() < 0.1:
                    modules.append(self.padding())
                modules.append(shared_pool or self.pool())
                if with_norm and draw.random() < 0.2:
                    modules.append(self.batch_norm(channels))
            if number == 1 and draw.random() < 0.1 and conv.in_channels == channels:
                modules += [conv, nn.ReLU()]  # the same convolution once more
            if draw.random() < 0.2:
                modules.append(draw.choice((nn.Dropout(), nn.Identity(), nn.Dropout1d())))
        return modules

    def sample(self) -> Sample:
        draw = self.draw
        channels = draw.choice((1, 1, 1, 1, 2))
        chain = self.chain(channels)
        while _reach(chain) > 10_000:
            chain = self.chain(channels)
        trick = draw.choice(("",) * 12 + TRICKS) if draw.random() < 0.6 else ""
        refused = False
        place = draw.randrange(len(chain))
        if trick == "unknown module":
            chain.insert(place, draw.choice((nn.Tanh(), nn.Upsample(scale_factor=2), nn.Flatten())))
            refused = True
        elif trick == "ReLU first":
            chain.insert(0, nn.ReLU())
            refused = True
        elif trick in SUBCLASSES:
            refused = _substitute(trick, chain)
        network: nn.Module = self.nested(chain)
        if trick == "residual":
            network, refused = Residual(*chain), True
        elif trick == "normalising":
            network, refused = Normalising(*chain), True
        network = network.double()
        if trick == "hook":
            convs = [module for module in chain if isinstance(module, nn.Conv1d)]
            convs[0].register_forward_hook(lambda m, i, o: 0.5 * o - 0.1)
            refused = True
        elif trick == "hook that only looks":
            chain[place].register_forward_hook(lambda m, i, o: None)
        elif trick in ("wrapped", "wrapped, louder"):
            refused = trick != "wrapped"
            network = Wrapped(network, 2.0 if refused else 1.0).double()  # type: ignore[arg-type]
        x = torch.randn(1, channels, draw.randint(50, 1500), generator=self.torch).double()
        convs = [n for n, module in enumerate(chain) if isinstance(module, nn.Conv1d)]
        ends = [*(_before_padding(chain, n) for n in convs[1:]), len(chain)]
        kinds = {type(module) for module in chain}
        return Sample(
            network=network.eval() if draw.random() < 0.7 else network,
            chain=chain, x=x / x.abs().max(), trick=trick, refused=refused, ends=ends,
            has_relu_only=not kinds & {nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.ReLU6, nn.PReLU},
            is_frozen=nn.GroupNorm in kinds,
        )  # fmt: skip

    def nested(self, chain: list[nn.Module]) -> nn.Sequential:
        if len(chain) < 3 or self.draw.random() < 0.5:
            return nn.Sequential(*chain)
        cut = self.draw.randrange(1, len(chain))
        return nn.Sequential(nn.Sequential(*chain[:cut]), nn.Sequential(*chain[cut:]))


SUBCLASSES = {
    "standardising": (nn.Conv1d, StandardisingConv),
    "lying": (nn.Conv1d, LyingConv),
    "threshold": (nn.ReLU, Threshold),
    "blur": (nn.MaxPool1d, BlurPool),
}
TRICKS = (
    "unknown module", "ReLU first", "residual", "normalising", "hook", "hook that only looks",
    "wrapped", "wrapped, louder", *SUBCLASSES,
)  # fmt: skip


def _reach(chain: list[nn.Module]) -> int:
    """Samples that one step of the last map depends on."""
    reach, step = 1, 1
    for module in chain:
        if isinstance(module, nn.Conv1d):
            reach += module.dilation[0] * (module.kernel_size[0] - 1) * step
            step *= module.stride[0]
        elif isinstance(module, nn.MaxPool1d | nn.AvgPool1d):
            size, stride = (
                value[0] if isinstance(value, tuple) else value
                for value in (module.kernel_size, module.stride)
            )
            reach += getattr(module, "dilation", 1) * (size - 1) * step
            step *= stride
    return reach


def _substitute(trick: str, chain: list[nn.Module]) -> bool:
    """Make one module of a chain what computes something else; whether there was one."""
    base, kind = SUBCLASSES[trick]
    for module in chain:
        if type(module) is base:
            module.__class__ = kind
            return True
    return False


def _before_padding(chain: list[nn.Module], end: int) -> int:
    transparent = (nn.ConstantPad1d, nn.Dropout, nn.Dropout1d, nn.Identity)
    last = end
    while isinstance(chain[end - 1], transparent):
        end -= 1
        if isinstance(chain[end], nn.ConstantPad1d):
            last = end
    return last


def try_one(seed: int) -> tuple[str, float]:
    """What came of the network of this seed: with its error, or "refused".

    It is "taken" by the plain path, or "taken by the engine", which is compared with that, too.
    """
    warnings.simplefilter("ignore")  # padded clips and silent maps are part of it
    generator = Generator(seed)
    sample = generator.sample()
    modes = [module.training for module in sample.network.modules()]
    try:
        passed = ForwardPass(sample.network, sample.x)
    except AudioError as error:
        if "too short" not in str(error):
            raise
        return "refused", 0.0
    except StackError as error:
        two_pools = "no other max-pool" in str(error)
        if not (sample.refused or two_pools):
            raise AssertionError(f"{sample.trick}: was refused: {error}") from error
        return "refused", 0.0
    if [module.training for module in sample.network.modules()] != modes:
        raise AssertionError("the network is in another mode than before")
    layer = generator.draw.randint(1, len(passed.blocks))
    maps = passed.maps[layer - 1]
    if sample.refused and all(bool(one.any()) for one in passed.maps):
        raise AssertionError(f"{sample.trick}: was not noticed")
    if sample.refused:
        return "dead", 0.0
    for module in sample.network.modules():
        module.eval()
    chain = sample.chain[: sample.ends[layer - 1]]
    chosen = generator.draw.sample(range(maps.shape[1]), min(3, maps.shape[1]))
    ours = passed.sonify(layer, chosen, rescale=False)[0].reshape(
        len(chosen), passed.x.shape[1], -1
    )
    worst, again = 0.0, [passed._plain(layer, chosen)[0]]
    if passed._engine is not None:  # by its way for many filters, too
        with mock.patch("sonibook.deconvnet.cpu._TILED_FROM", 1):
            again.append(passed._engine.sonify(layer, chosen)[0])
    again = [sounds.reshape(len(chosen), passed.x.shape[1], -1) for sounds in again]
    for row, index in enumerate(chosen):
        if float(maps[:, index].abs().max()) < SILENT:
            worst = max(worst, float(ours[row].abs().max()))
            continue
        others = [sounds[row] for sounds in again]
        others.append(naive_chain(chain, passed.x, filter=index))
        if sample.has_relu_only and not sample.is_frozen and len(set(map(id, chain))) == len(chain):
            others.append(captum_chain(chain, passed.x, filter=index))
        for other in others:
            apart = float((ours[row] - other[:, : sample.x.shape[2]]).abs().max())
            worst = max(worst, apart / (float(other.abs().max()) or 1.0))
    return "taken" if passed._engine is None else "taken by the engine", worst


def main() -> None:
    """Try many networks and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data/results/networks.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    worst, wrong = 0.0, []
    for seed in tqdm(range(options.seed, options.seed + options.count)):
        try:
            came, error = try_one(seed)
        except (AssertionError, SonibookError, RuntimeError, IndexError, ValueError) as error_:
            wrong.append(f"{seed}: {error_}")
            continue
        counts[came] += 1
        worst = max(worst, error)
        if error > TOLERANCE:
            wrong.append(f"{seed}: {error:.2g}")
    result = {
        "seed": options.seed, "networks": options.count,
        "taken": counts["taken"] + counts["taken by the engine"],
        "taken_by_the_engine": counts["taken by the engine"],
        "refused": counts["refused"], "without_a_live_map": counts["dead"],
        "wrong": wrong, "worst_difference": worst, "provenance": provenance(),
    }  # fmt: skip
    with atomic(options.out) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1)[:3000])


if __name__ == "__main__":
    main()
