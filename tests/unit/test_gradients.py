"""The derivatives of our own against PyTorch's, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sonibook.layers import Conv1d, MaxPool1d


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
