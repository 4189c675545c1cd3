"""CNN12 against the paper's listing, PyTorch's own modules, and itself; what folding leaves."""

from __future__ import annotations

import warnings

import pytest
import torch
from oracles import plain_stack
from torch import nn

from sonibook.deconvnet.backward import sonify
from sonibook.errors import LayerError, SonibookWarning
from sonibook.model.checkpoint import canonical
from sonibook.model.encoder import (
    CNN12,
    BatchNormConv1d,
    Classifier,
    FoldableConv1d,
    StandardisedConv1d,
)
from sonibook.model.layers import Conv1d, MaxPool1d


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_of_the_paper():
    assert count(CNN12()) == 13_757_248  # "14M"
    assert round(count(CNN12(width=2.0)) / 1e6) == 53  # "53M"


def test_modules_are_named_and_shaped_as_in_the_listing():
    encoder = CNN12()
    names = list(encoder.features._modules)
    assert names[:3] == ["conv1", "act1", "mp1"]
    assert names[-2:] == ["conv11", "act11"]
    assert [n for n in names if n.startswith("mp")] == [f"mp{i}" for i in range(1, 9)]
    convs = [m for m in encoder.features if isinstance(m, nn.Conv1d)]
    assert [c.kernel_size[0] for c in convs] == [7, 7, 5, 5, 5, 3, 3, 3, 3, 3, 3]
    assert [c.out_channels for c in convs][-3:] == [1024, 1024, 2048]
    assert all(c.stride == (1,) and c.padding == (0,) for c in convs)
    assert encoder.fc1.drop10.p == 0.4
    assert encoder.fc1.fc10.in_features == 2048


def test_strides_take_the_place_of_the_pools_and_leave_the_weights_alike():
    pooled, strided = CNN12(width=1 / 8, seed=3), CNN12(width=1 / 8, downsample="stride", seed=3)
    assert not any(isinstance(module, nn.MaxPool1d) for module in strided.modules())
    convs = [m for m in strided.features if isinstance(m, nn.Conv1d)]
    assert [c.stride[0] for c in convs] == [2] * 8 + [1] * 3
    for (name, ours), theirs in zip(
        strided.state_dict().items(), pooled.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("downsample", ["max", "stride"])
@pytest.mark.parametrize("norm", ["none", "weight"])
def test_forward_equals_pytorchs_own_modules(norm, downsample):
    encoder = CNN12(width=1 / 8, norm=norm, downsample=downsample, seed=1).double().eval()
    x = torch.randn(3, 1, 4001, dtype=torch.float64)
    maps = plain_stack(encoder)(x)
    torch.testing.assert_close(encoder.features(x), maps)
    torch.testing.assert_close(encoder(x), encoder.fc1.fc10(maps.mean(2)))


@pytest.mark.parametrize("downsample", ["max", "stride"])
@pytest.mark.parametrize("norm", ["none", "weight"])
def test_gradients_equal_those_of_pytorchs_own_modules(norm, downsample):
    encoder = CNN12(width=1 / 32, norm=norm, downsample=downsample, seed=1).double().eval()
    x = torch.randn(2, 1, 2500, dtype=torch.float64)
    stack = plain_stack(encoder).requires_grad_(True)
    encoder.features(x).square().sum().backward()
    stack(x).square().sum().backward()
    for ours, theirs in zip(encoder.features, stack, strict=True):
        if isinstance(theirs, nn.Conv1d):
            torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)
            if norm == "none":
                torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_layers_equal_pytorchs_with_padding_and_dilation():
    x = torch.randn(2, 3, 101, dtype=torch.float64)
    ours = Conv1d(3, 5, 4, padding=2, dilation=3).double()
    torch.testing.assert_close(ours(x), nn.Conv1d.forward(ours, x))
    torch.testing.assert_close(MaxPool1d(3)(x), nn.MaxPool1d(3)(x))


def test_seeds_make_the_weights():
    first, second = CNN12(width=1 / 16, seed=3), CNN12(width=1 / 16, seed=3)
    other = CNN12(width=1 / 16, seed=4)
    assert torch.equal(first.features.conv5.weight, second.features.conv5.weight)
    assert not torch.equal(first.features.conv5.weight, other.features.conv5.weight)


def test_he_initialisation_keeps_the_signal_alive():
    encoder = CNN12(width=1 / 4, seed=0).eval()
    for conv in (m for m in encoder.features if isinstance(m, nn.Conv1d)):
        fan_in = conv.in_channels * conv.kernel_size[0]
        assert float(conv.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.15)
        assert not conv.bias.any()
    with torch.no_grad():
        assert 0.1 < encoder.features(torch.randn(2, 1, 8000)).std() < 10


def test_standardised_filters_are_centred_with_unit_gain():
    conv = StandardisedConv1d(8, 16, 5)
    weight = conv.effective_weight()
    torch.testing.assert_close(weight.mean((1, 2)), torch.zeros(16), atol=1e-6, rtol=0)
    gain = (2 / (1 - 1 / torch.pi)) ** 0.5
    power = weight.square().sum((1, 2)).sqrt()
    torch.testing.assert_close(power, torch.full((16,), gain), rtol=1e-4, atol=0)


def test_folding_changes_nothing_but_the_parametrisation():
    encoder = CNN12(width=1 / 8, norm="weight", seed=2).eval()
    with torch.no_grad():
        encoder.features.conv3.gain.mul_(1.3)
        encoder.features.conv4.bias.add_(0.1)
    folded = encoder.fold()
    assert folded.norm == "none"
    assert not folded.training
    assert not any(isinstance(m, StandardisedConv1d) for m in folded.modules())
    x = torch.randn(2, 1, 5000)
    torch.testing.assert_close(folded(x), encoder(x), rtol=1e-5, atol=1e-6)
    folded.features.conv1.weight.data.zero_()
    assert encoder.features.conv1.weight.any()


@pytest.mark.parametrize("depth", [1, 5, 8, 11])
def test_truncation_gives_the_maps_of_that_block(depth):
    encoder = CNN12(width=1 / 16, seed=0).eval()
    x = torch.randn(2, 1, 4000)
    short = encoder.truncate(depth)
    expected = encoder(x) if depth == 11 else encoder.features[: 3 * min(depth, 8)](x).mean(2)
    torch.testing.assert_close(short(x), expected)
    assert short(x).shape[1] == short.dim
    assert short.features.conv1 is encoder.features.conv1


def test_bad_arguments():
    encoder = CNN12(width=1 / 16, seed=0)
    with pytest.raises(LayerError, match="choose 1 to 11"):
        encoder.truncate(12)
    with pytest.raises(ValueError, match=r"width 0\.001"):
        CNN12(width=0.001)
    with pytest.raises(ValueError, match="depth 12"):
        CNN12(depth=12)
    with pytest.raises(ValueError, match="2370"):
        encoder(torch.zeros(1, 1, 2369))
    with pytest.raises(ValueError, match=r"\(batch, 1, time\)"):
        encoder.pooled(torch.zeros(1, 2, 8000))


def test_classifier_gives_a_logit_for_each_class():
    classifier = Classifier(CNN12(width=1 / 16, seed=0), ("rain", "siren"), seed=0).eval()
    assert classifier(torch.zeros(3, 1, 2370)).shape == (3, 2)


# --- normalisation, and what is left of it after folding: nothing --------------------------------


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
