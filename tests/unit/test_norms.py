"""Normalisation against PyTorch's own, and what is left of it after folding: nothing."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from sonibook.deconvnet.backward import sonify
from sonibook.errors import SonibookWarning
from sonibook.model.checkpoint import canonical
from sonibook.model.encoder import (
    CNN12,
    BatchNormConv1d,
    Classifier,
    FoldableConv1d,
    StandardisedConv1d,
)
from sonibook.model.layers import Conv1d

NORMS = ["none", "weight", "batch"]


def clips(count: int, samples: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(count, 1, samples, generator=torch.Generator().manual_seed(seed))
    return x / x.abs().amax(dim=2, keepdim=True)


def trained(norm: str, *, depth: int = 11, steps: int = 4) -> CNN12:
    """An encoder after some real steps: weights, gains, biases and statistics have all moved."""
    encoder = CNN12(width=1 / 16, norm=norm, depth=depth, seed=0)
    network = Classifier(encoder, ("a", "b"), seed=0)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    for step in range(steps):
        # Two classes of different level, so that there is something to learn.
        x = clips(6, 2600, seed=step) * (0.3 + 0.7 * labels)[:, None, None]
        loss = nn.functional.cross_entropy(network(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return encoder.eval()


def largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Relative to the largest value."""
    return float((first - second).abs().max() / second.abs().max())


# --- folding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [11, 6])
@pytest.mark.parametrize("norm", NORMS)
def test_the_folded_network_equals_the_trained_one(norm, depth):
    network = trained(norm, depth=depth)
    plain = network.fold()
    assert (plain.norm, plain.depth, plain.training) == ("none", depth, False)
    assert not any(isinstance(module, FoldableConv1d) for module in plain.modules())
    x = clips(3, 4001, seed=9)
    with torch.no_grad():
        assert largest_difference(plain(x), network(x)) < 1e-5
        for layer in range(1, depth + 1):
            maps = [net.truncate(layer).features(x) for net in (plain, network)]
            assert largest_difference(*maps) < 1e-5, layer


@pytest.mark.parametrize("depth", [11, 6])
@pytest.mark.parametrize("norm", ["weight", "batch"])
def test_the_folded_network_sonifies_as_the_trained_one(norm, depth):
    # In float64: in float32 a rounding flips one switch among 100,000.
    network = trained(norm, depth=depth).double()
    plain = network.fold().double()
    x = clips(2, 3000, seed=9).double()
    for layer in {1, 4, 6, 8, 11} & set(range(1, depth + 1)):
        filters = range(4)
        with warnings.catch_warnings(action="ignore", category=SonibookWarning):
            heard, expected = (
                sonify(net, x, layer=layer, filters=list(filters), rescale=False)
                for net in (plain, network)
            )
        # `fold` makes float32 weights: the same to their rounding.
        assert float(expected.abs().max()) > 0
        assert largest_difference(heard, expected) < 1e-5, layer


@pytest.mark.parametrize("norm", NORMS)
def test_truncating_and_folding_may_change_places(norm):
    network = trained(norm)
    x = clips(2, 2600, seed=3)
    with torch.no_grad():
        first, second = network.truncate(5).fold()(x), network.fold().truncate(5)(x)
    assert torch.equal(first, second)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_published_is_folded_and_rounded_once(norm):
    network = trained(norm)
    published = canonical(network)
    for name, tensor in published.state_dict().items():
        assert torch.equal(tensor, network.fold().state_dict()[name].half().float()), name


@pytest.mark.parametrize("norm", ["weight", "batch"])
def test_folding_shares_nothing(norm):
    network = trained(norm)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plain = network.fold()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


# --- batch normalisation -------------------------------------------------------------------------


def with_torchs_own(channels: int = 3, filters: int = 5) -> tuple[BatchNormConv1d, nn.Sequential]:
    """Ours, and PyTorch's convolution and normalisation with the same weights; float64."""
    ours = BatchNormConv1d(channels, filters, 4).double()
    conv = nn.Conv1d(channels, filters, 4, bias=False).double()
    norm = nn.BatchNorm1d(filters).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        ours.gain.copy_(1 + 0.3 * torch.randn(filters, generator=generator))
        ours.bias.copy_(torch.randn(filters, generator=generator))
        conv.weight.copy_(ours.weight)
        norm.weight.copy_(ours.gain)
        norm.bias.copy_(ours.bias)
    return ours, nn.Sequential(conv, norm)


def inputs(count: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 + 3 * torch.randn(count, 3, 50, generator=generator, dtype=torch.float64)


def test_batch_normalisation_equals_pytorchs():
    ours, theirs = with_torchs_own()
    for step in range(3):
        first, second = (inputs(seed=step).requires_grad_(True) for _ in range(2))
        one, two = ours(first), theirs(second)
        torch.testing.assert_close(one, two)
        torch.testing.assert_close(ours.running_mean, theirs[1].running_mean)
        torch.testing.assert_close(ours.running_var, theirs[1].running_var)
        for y in (one, two):
            y.pow(3).mean().backward()
        torch.testing.assert_close(first.grad, second.grad)
    torch.testing.assert_close(ours.weight.grad, theirs[0].weight.grad)
    torch.testing.assert_close(ours.gain.grad, theirs[1].weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs[1].bias.grad)
    before = ours.running_mean.clone()
    ours.eval()
    theirs.eval()
    x = inputs(2, seed=7)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.fold().double()(x), theirs(x), rtol=1e-6, atol=1e-6)
    assert torch.equal(ours.running_mean, before)  # evaluation looks, and does not learn


def test_a_clip_is_judged_alone_in_evaluation_and_beside_others_in_training():
    ours, _ = with_torchs_own()
    x = inputs(4)
    beside, others = ours(x)[0], ours(torch.cat([x[:1], 5 * x[1:]]))[0]
    assert not torch.allclose(beside, others)
    ours.eval()
    torch.testing.assert_close(ours(x)[0], ours(x[:1])[0])


def test_a_silent_map_does_not_divide_by_zero():
    ours = BatchNormConv1d(1, 2, 3)
    y = ours(torch.zeros(2, 1, 10))
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(ours.weight.grad).all()
    assert torch.isfinite(ours.eval().fold().weight).all()


# --- standardised weights ------------------------------------------------------------------------


def test_standardised_weights_do_not_depend_on_scale_or_offset():
    conv = StandardisedConv1d(4, 6, 5)
    before = conv.effective_weight().detach().clone()
    with torch.no_grad():
        conv.weight.mul_(7.0).add_(0.5)
    torch.testing.assert_close(conv.effective_weight(), before, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        conv.gain.mul_(2.0)
    torch.testing.assert_close(conv.effective_weight(), 2 * before, rtol=1e-4, atol=1e-5)


def test_standardised_weights_keep_the_level_of_white_signals():
    # Unit variance in, unit variance after ReLU: what the gain is for (Brock et al. 2021).
    conv = StandardisedConv1d(64, 64, 5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        nn.init.kaiming_normal_(conv.weight, generator=generator)
        conv.bias.zero_()
        y = torch.relu(conv(torch.randn(4, 64, 2000, generator=generator)))
    assert float(y.var()) == pytest.approx(1.0, rel=0.05)


def test_a_filter_of_equal_weights_folds_to_silence_not_to_nan():
    conv = StandardisedConv1d(2, 3, 4)
    with torch.no_grad():
        conv.weight.fill_(0.25)
    assert not conv.effective_weight().any()
    assert isinstance(conv.fold(), Conv1d)
