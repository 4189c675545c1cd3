"""Networks of the literature, sonified at every layer and held against an independent way back.

``python tests/literature.py`` does it at the channels of the papers, with random weights, and
writes ``data/results/literature.json``; the tests take an eighth or less of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from oracles import captum_chain, naive_chain
from torch import Tensor, nn
from tqdm import tqdm

from sonibook import ForwardPass
from sonibook.files import write_result

RESULT = Path(__file__).parents[1] / "data" / "results" / "literature.json"


def convs(*layers: tuple[int, int, int, int], share: int, norm: bool = False) -> list[nn.Module]:
    """Blocks of (channels, kernel, stride, pool), perhaps with batch normalisation before ReLU."""
    chain: list[nn.Module] = []
    before = 1
    for all_channels, kernel, step, pool in layers:
        channels = max(all_channels // share, 4)
        chain.append(nn.Conv1d(before, channels, kernel, step))
        chain += [nn.BatchNorm1d(channels)] * norm + [nn.ReLU()]
        chain += [nn.MaxPool1d(pool)] * (pool > 1)
        before = channels
    return chain


def m5(share: int) -> list[nn.Module]:
    layers = ((128, 80, 4, 4), (128, 3, 1, 4), (256, 3, 1, 4), (512, 3, 1, 4))
    return convs(*layers, share=share, norm=True)


def sample_cnn(share: int) -> list[nn.Module]:
    """The model 3^9: of its "same" padding, zeros on both sides."""
    chain: list[nn.Module] = []
    before = 1
    pooled = [(128, 3)] * 2 + [(256, 3)] * 6 + [(512, 3)]
    for all_channels, kernel, step, pool in [
        (128, 3, 3, 1), *((channels, kernel, 1, 3) for channels, kernel in pooled), (512, 1, 1, 1)
    ]:  # fmt: skip
        channels = all_channels // share
        padding = kernel // 2 if step == 1 else 0
        chain += [nn.Conv1d(before, channels, kernel, step, padding), nn.BatchNorm1d(channels)]
        chain += [nn.ReLU()] + [nn.MaxPool1d(pool)] * (pool > 1)
        before = channels
    return chain


def envnet(share: int) -> list[nn.Module]:
    return convs((40, 8, 1, 1), (40, 8, 1, 160), share=share, norm=True)


def wav2letter(share: int) -> list[nn.Module]:
    """All but the last convolution, which gives letters and is not rectified."""
    seven = [(250, 7, 1, 1)] * 7
    ends = (2000, 32, 1, 1), (2000, 1, 1, 1)
    return convs((250, 250, 160, 1), (250, 48, 2, 1), *seven, *ends, share=share)


def soundnet(share: int) -> list[nn.Module]:
    kernels, pools = (64, 32, 16, 8, 4, 4, 4), (8, 8, 1, 1, 4, 1, 1)
    chain: list[nn.Module] = []
    before = 1
    for number, (kernel, pool) in enumerate(zip(kernels, pools, strict=True)):
        channels = 16 // share * 2**number
        chain += [nn.Conv1d(before, channels, kernel, 2, kernel // 2), nn.BatchNorm1d(channels)]
        chain += [nn.ReLU()] + [nn.MaxPool1d(pool)] * (pool > 1)
        before = channels
    return chain


def crepe(share: int) -> list[nn.Module]:
    """Batch normalisation stands after ReLU."""
    chain: list[nn.Module] = []
    before = 1
    for number, all_channels in enumerate((1024, 128, 128, 128, 256, 512)):
        channels = all_channels // share
        kernel, step, sides = (512, 4, (254, 254)) if number == 0 else (64, 1, (31, 32))
        chain += [nn.ConstantPad1d(sides, 0.0), nn.Conv1d(before, channels, kernel, step)]
        chain += [nn.ReLU(), nn.BatchNorm1d(channels), nn.MaxPool1d(2), nn.Dropout(0.25)]
        before = channels
    return chain


def wav2vec(share: int) -> list[nn.Module]:
    """The convolutional encoder of the base configuration."""
    chain: list[nn.Module] = []
    before, channels = 1, 512 // share
    for number, (kernel, step) in enumerate([(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]):
        chain.append(nn.Conv1d(before, channels, kernel, step, bias=False))
        chain += [nn.GroupNorm(channels, channels)] * (number == 0) + [nn.GELU()]
        before = channels
    return chain


class Published(NamedTuple):
    """A network of a paper, how long a clip it is tried on, and what the tests take of it."""

    paper: str
    chain: Callable[[int], list[nn.Module]]
    sample_rate: int
    samples: int
    share: int


LITERATURE = {
    "M5": Published("Dai et al. 2017", m5, 8000, 8000, 8),
    "SampleCNN": Published("Lee et al. 2017", sample_cnn, 22_050, 59_049, 32),
    "EnvNet, its one-dimensional part": Published(
        "Tokozume and Harada 2017", envnet, 16_000, 24_014, 8
    ),
    "wav2letter": Published("Collobert et al. 2016", wav2letter, 16_000, 40_000, 16),
    "SoundNet": Published("Aytar et al. 2016", soundnet, 22_050, 33_075, 8),
    "CREPE": Published("Kim et al. 2018", crepe, 16_000, 1024, 32),
    "wav2vec 2.0, its encoder": Published("Baevski et al. 2020", wav2vec, 16_000, 8000, 32),
}


def made(chain: list[nn.Module]) -> list[nn.Module]:
    """A chain in float64, in which rounding flips no switch, with random weights that carry."""
    for module in chain:
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return [module.double().eval() for module in chain]


def errors(name: str, *, share: int, seed: int = 0) -> tuple[list[float], list[nn.Module]]:
    """How far each layer's most active filter is from the oracle, as a share of its peak."""
    published = LITERATURE[name]
    torch.manual_seed(seed)
    chain = made(published.chain(share))
    x = torch.randn(published.samples, dtype=torch.float64)
    passed = ForwardPass(nn.Sequential(*chain), x / x.abs().max())
    starts = [n for n, module in enumerate(chain) if isinstance(module, nn.Conv1d)]
    if any(isinstance(module, nn.ConstantPad1d) for module in chain):
        starts = [n - 1 for n in starts]  # a block begins with its padding
    found = []
    for layer, end in enumerate([*starts[1:], len(chain)], start=1):
        (loudest,) = passed.most_active(layer)
        ours = passed.sonify(layer, [loudest], rescale=False)[0]
        theirs: Tensor = oracle(name)(chain[:end], passed.x, filter=loudest)
        theirs = theirs[0, : published.samples]
        found.append(float((ours - theirs).abs().max() / theirs.abs().max()))
    return found, chain


def oracle(name: str) -> Callable[..., Tensor]:
    """Captum's deconvolution, or, where it inverts another activation than ReLU, the naive way."""
    return naive_chain if name.startswith("wav2vec") else captum_chain


def main() -> None:
    """Sonify all of them, and write how far that is from the oracles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="with as few channels as the tests")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, published in tqdm(LITERATURE.items()):
        found, chain = errors(name, share=published.share if chosen.small else 1)
        parameters = sum(p.numel() for module in chain for p in module.parameters())
        method = "naive loop" if oracle(name) is naive_chain else "Captum"
        rows.append(
            {
                "network": name, "paper": published.paper, "layers": len(found),
                "parameters": parameters, "sample_rate": published.sample_rate,
                "samples": published.samples, "against": method, "errors": found,
            }
        )  # fmt: skip
    write_result(chosen.out, {"rows": rows}, command="python tests/literature.py")


if __name__ == "__main__":
    main()
