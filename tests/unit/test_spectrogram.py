"""The way back through a spectrogram CNN against autograd, and the clip itself where all passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonibook.deconvnet.spectrogram import (
    FRAME,
    SpectrogramCNN,
    SpectrogramPass,
    load_spectrogram_cnn,
)
from sonibook.errors import AudioError, CheckpointError, LayerError


@pytest.fixture(scope="module")
def x() -> Tensor:
    time = torch.arange(12_000) / 8000
    noise = torch.randn(12_000, generator=torch.Generator().manual_seed(0))
    sound = torch.sin(2 * torch.pi * (300 + 400 * time) * time) + 0.1 * noise
    return sound / sound.abs().max()


class _Deconvnet(torch.autograd.Function):
    """ReLU whose gradient is rectified, whatever the forward pass did (Zeiler and Fergus)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clamp_min(0)


@pytest.mark.parametrize("layer", [1, 3, 6])
def test_the_way_back_is_autograds_with_rectified_gradients(x: Tensor, layer: int) -> None:
    network = SpectrogramCNN(seed=0).eval()
    passed = SpectrogramPass(network, x)
    chosen = passed.most_active(layer)
    picture = passed.picture.clone().requires_grad_()
    y = picture
    for conv, pool in zip(network.convs[:layer], network.pools, strict=False):
        y = F.max_pool2d(_Deconvnet.apply(conv(y)), pool)
    energy = 0.5 * y[:, chosen].square().sum()
    (expected,) = torch.autograd.grad(energy, picture)
    start = torch.zeros_like(passed.maps[layer - 1])
    start[:, chosen] = passed.maps[layer - 1][:, chosen]
    torch.testing.assert_close(passed.backward(layer, start), expected, rtol=1e-4, atol=1e-5)


def test_where_all_passes_the_clip_comes_back(x: Tensor) -> None:
    network = SpectrogramCNN(depth=1).eval()
    network.triangles, network.pools = torch.eye(FRAME // 2 + 1), [1]
    with torch.no_grad():
        network.convs[0].get_parameter("weight").zero_()[0, 0, 1, 1] = 1.0
    passed = SpectrogramPass(network, x)
    torch.testing.assert_close(passed.sonify(1, [0])[0], x, rtol=0, atol=1e-5)
    assert not passed.sonify(1, [1]).any()  # no other filter hears anything


def test_a_band_gives_each_frequency_its_level() -> None:
    triangles = SpectrogramCNN(depth=1).triangles
    torch.testing.assert_close(triangles.sum(dim=0), torch.ones(FRAME // 2 + 1))
    assert (triangles > 0).any(dim=1).all()
    assert ((triangles > 0).sum(dim=0) <= 2).all()


def test_a_sine_of_full_scale_has_magnitude_one() -> None:
    sine = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 8000)
    magnitudes = SpectrogramCNN(depth=1).spectrum(sine[None]).abs()[0, :, 2:-2]
    assert float(magnitudes.amax(dim=0).mean()) == pytest.approx(1.0, abs=1e-3)


def test_batch_normalisation_folds_away(x: Tensor) -> None:
    network = SpectrogramCNN(norm=True, seed=1)
    clips = torch.stack([x, x.flip(0)])[:, None]
    for _ in range(3):
        network.train()(clips)
    folded = network.eval().fold()
    assert not any(isinstance(one, nn.BatchNorm2d) for one in folded.modules())
    torch.testing.assert_close(folded(clips), network(clips), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_is_refused(x: Tensor, tmp_path: Path) -> None:
    passed = SpectrogramPass(SpectrogramCNN(depth=2, seed=0), x)
    for layer, filters in ((3, [0]), (0, [0]), (1, [16])):
        with pytest.raises(LayerError):
            passed.sonify(layer, filters)
    for bad in (x[:500], x[:0]):
        with pytest.raises(AudioError):
            SpectrogramPass(passed.network, bad)
    assert len(load_spectrogram_cnn().convs) == 4
    with pytest.raises(CheckpointError, match=r"is not a safetensors file \(No such file"):
        load_spectrogram_cnn(tmp_path / "none.safetensors")
