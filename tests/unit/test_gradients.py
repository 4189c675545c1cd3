"""The derivatives of our own against PyTorch's, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sonibook.model.encoder import CNN12, BatchNormConv1d, StandardisedConv1d
from sonibook.model.layers import Blocks, Conv1d, MaxPool1d


def gradients_of(module: nn.Module, x: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """Output, and gradients of a random projection of it by input and parameters."""
    x = x.clone().requires_grad_(True)
    y = module(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=y.dtype)
    (y * weights).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize(("channels", "filters", "taps"), [(64, 8, 5), (64, 16, 1), (70, 3, 4)])
def test_a_long_convolution_has_pytorchs_gradients(channels, filters, taps) -> None:
    generator = torch.Generator().manual_seed(taps)
    ours = Conv1d(channels, filters, taps).double()
    plain = nn.Conv1d(channels, filters, taps).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, channels, 8 * channels + 9, generator=generator, dtype=torch.float64)
    found = gradients_of(ours, x, 1)
    assert found[0].grad_fn is None
    assert "LongConvolution" in type(ours(x).grad_fn).__name__
    for mine, theirs in zip(found, gradients_of(plain, x, 1), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_only_the_gradients_that_are_asked_for_are_computed() -> None:
    conv = Conv1d(64, 4, 3)
    conv.weight.requires_grad_(False)
    x = torch.randn(1, 64, 600, generator=torch.Generator().manual_seed(0))
    conv(x).sum().backward()
    assert conv.weight.grad is None
    assert conv.bias.grad is not None


@pytest.mark.parametrize("length", [2, 3, 10, 11])
def test_a_pool_of_two_has_pytorchs_gradients_also_where_steps_are_equal(length) -> None:
    generator = torch.Generator().manual_seed(length)
    # Few different values, and ReLU's zeros: ties.
    x = torch.randint(-2, 3, (3, 5, length), generator=generator).double().relu()
    ours, plain = gradients_of(MaxPool1d(2), x, 2), gradients_of(nn.MaxPool1d(2), x, 2)
    for mine, theirs in zip(ours, plain, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", [Conv1d, StandardisedConv1d])
@pytest.mark.parametrize(
    ("clips", "channels", "length"), [(1, 1, 9), (5, 3, 30), (3, 64, 700), (3, 2, 200_001)]
)
def test_a_pooled_block_in_one_step_has_pytorchs_gradients(kind, clips, channels, length) -> None:
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(clips, channels, length, generator=generator, dtype=torch.float64)
    blocks = Blocks(kind(channels, 4, 5), nn.ReLU(), MaxPool1d(2)).double()
    assert "PooledBlock" in type(blocks(x).grad_fn).__name__
    ours = gradients_of(blocks, x, 1)
    blocks.zero_grad()
    plain = nn.Sequential(*blocks)
    for mine, theirs in zip(ours, gradients_of(plain, x, 1), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_of_equal_steps_in_a_block_the_first_passes_its_gradient_on_and_silence_none() -> None:
    x = torch.tensor([[[2.0, 2.0, 0.0, 0.0, -1.0, -2.0, -1.0, 3.0, -0.0, 0.0]]], requires_grad=True)
    conv = Conv1d(1, 1, 1)
    nn.init.ones_(conv.weight)
    nn.init.zeros_(conv.bias)
    y = Blocks(conv, nn.ReLU(), MaxPool1d(2))(x)
    y.sum().backward()
    assert y.tolist() == [[[2.0, 0.0, 0.0, 3.0, 0.0]]]
    assert x.grad.tolist() == [[[1.0, 0, 0, 0, 0, 0, 0, 1.0, 0, 0]]]


def test_a_network_trains_as_its_modules_one_by_one_do() -> None:
    x = torch.randn(4, 1, 8000, generator=torch.Generator().manual_seed(0))
    network = CNN12(width=0.25, norm="weight", seed=0)
    ours = gradients_of(network.features, x, 3)
    network.zero_grad()
    plain = nn.Sequential(*network.features)
    for mine, theirs in zip(ours, gradients_of(plain, x, 3), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_blocks_that_see_the_batch_or_pool_otherwise_go_module_by_module() -> None:
    x = torch.randn(2, 1, 50, generator=torch.Generator().manual_seed(0))
    for blocks in (
        Blocks(BatchNormConv1d(1, 3, 5), nn.ReLU(), MaxPool1d(2)),
        Blocks(Conv1d(1, 3, 5), nn.ReLU(), MaxPool1d(3)),
        Blocks(Conv1d(1, 3, 5, padding=2), nn.ReLU(), MaxPool1d(2)),
        Blocks(Conv1d(1, 3, 5), nn.ReLU()),
    ):
        assert "PooledBlock" not in type(blocks(x).grad_fn).__name__
        torch.testing.assert_close(blocks(x), nn.Sequential(*blocks)(x))


def test_hooks_are_called_where_nothing_is_trained() -> None:
    blocks = Blocks(Conv1d(1, 3, 5), nn.ReLU(), MaxPool1d(2)).eval()
    called: list[str] = []
    blocks[1].register_forward_hook(lambda *_: called.append("relu"))
    blocks(torch.ones(1, 1, 20)).sum().backward()
    assert called == ["relu"]


def test_bfloat16_gives_float32_gradients_near_those_of_float32() -> None:
    x = torch.randn(4, 1, 8000, generator=torch.Generator().manual_seed(0))
    features = CNN12(width=0.25, norm="weight", seed=0).features
    exact = features(x)
    exact.square().mean().backward()
    wanted = [p.grad for p in features.parameters()]
    features.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rough = features(x)
    rough.float().square().mean().backward()
    assert rough.dtype == torch.bfloat16
    for parameter, gradient in zip(features.parameters(), wanted, strict=True):
        assert parameter.grad.dtype == torch.float32
        near = torch.cosine_similarity(parameter.grad.flatten(), gradient.flatten(), dim=0)
        assert 0.95 < near < 1
