"""CNN12 against the paper's listing, PyTorch's own modules, and itself."""

from __future__ import annotations

import pytest
import torch
from oracles import plain_stack
from torch import nn

from sonibook.errors import LayerError
from sonibook.model.encoder import CNN12, Classifier, StandardisedConv1d
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
