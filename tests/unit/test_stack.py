"""Geometry of a stack, held against brute force; and what a stack may not be."""

from __future__ import annotations

import networks
import pytest
import torch
from torch import nn

from sonibook.errors import LayerError, StackError
from sonibook.model.encoder import CNN12
from sonibook.model.stack import (
    blocks_of,
    check_filters,
    least_length,
    out_length,
    receptive_field,
    stride,
)

#: PyTorch says, once, that it copies what it pads unevenly.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

STACKS = {
    "cnn12": CNN12(width=1 / 64, seed=0),
    "pools of 4": nn.Sequential(
        nn.Conv1d(1, 3, 9), nn.ReLU(), nn.MaxPool1d(4), nn.Conv1d(3, 2, 5), nn.ReLU()
    ),
    "dilated": nn.Sequential(
        nn.Conv1d(1, 3, 5, dilation=3), nn.ReLU(), nn.MaxPool1d(3), nn.Conv1d(3, 2, 4), nn.ReLU()
    ),
    "strided, padded unevenly": nn.Sequential(
        nn.ConstantPad1d((3, 1), 0.0),
        nn.Conv1d(1, 3, 8, stride=4),
        nn.BatchNorm1d(3),
        nn.ReLU(),
        nn.Conv1d(3, 2, 4, padding="same"),
        nn.GELU(),
        nn.AvgPool1d(3, 2, 1, ceil_mode=True),
    ),
    "pools that overlap": nn.Sequential(
        nn.Conv1d(1, 2, 5, stride=2), nn.ReLU(), nn.MaxPool1d(4, 3, 2, ceil_mode=True)
    ),
    "pools with gaps": nn.Sequential(
        nn.Conv1d(1, 2, 5), nn.MaxPool1d(2, 3, 1, dilation=2), nn.ReLU()
    ),
    "nested, padded": nn.Sequential(
        nn.Sequential(nn.Conv1d(1, 2, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2)),
        nn.Sequential(nn.Dropout(), nn.Conv1d(2, 2, 3, padding="same"), nn.ReLU(), nn.Identity()),
    ),
}


@pytest.fixture(params=STACKS)
def stack(request):
    return STACKS[request.param]


def test_lengths_are_those_of_the_network(stack):
    features = getattr(stack, "features", stack).eval()
    blocks = blocks_of(stack)
    for length in (least_length(blocks), 2500, 2501):
        steps = features(torch.zeros(1, 1, length)).shape[2]
        assert out_length(blocks, len(blocks), length) == steps


def test_one_sample_less_than_the_least_length_is_too_short(stack):
    blocks = blocks_of(stack)
    for layer in range(1, len(blocks) + 1):
        least = least_length(blocks, layer)
        assert out_length(blocks, layer, least) >= 1
        assert least == 1 or out_length(blocks, layer, least - 1) == 0


@pytest.mark.parametrize("name", ["cnn12", "pools of 4", "dilated"])
def test_receptive_field_is_what_one_step_depends_on(name):
    """Count the input samples whose gradient can be non-zero, with positive weights."""
    blocks = blocks_of(STACKS[name])
    x = torch.ones(1, 1, 3000, requires_grad=True)
    y = x
    for layer, block in enumerate(blocks, start=1):
        kernel = torch.ones(1, 1, block.conv.kernel_size[0])
        y = nn.functional.conv1d(y, kernel, dilation=block.conv.dilation)
        # A mean depends on every sample of its window, as a maximum may.
        y = nn.functional.avg_pool1d(y, block.pool)
        (gradient,) = torch.autograd.grad(y[0, 0, 0], x, retain_graph=True)
        field = int(gradient.nonzero()[:, 2].max()) + 1
        assert receptive_field(blocks, layer) == field == least_length(blocks, layer)
        (second,) = torch.autograd.grad(y[0, 0, 1], x, retain_graph=True)
        assert int(second.nonzero()[0, 2]) == stride(blocks, layer)


def test_cnn12_geometry_of_the_paper():
    blocks = blocks_of(CNN12(width=1 / 64))
    assert [stride(blocks, layer) for layer in (1, 8, 11)] == [2, 256, 256]
    assert least_length(blocks) == 2370


@pytest.mark.parametrize(
    ("stack", "word"),
    [
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.Conv1d(2, 2, 3), nn.ReLU()), "1: a convolution"),
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.Tanh()), "1: Tanh"),
        (nn.Sequential(nn.ReLU(), nn.Conv1d(1, 2, 3), nn.ReLU()), "0: ReLU before the first"),
        (nn.Sequential(nn.MaxPool1d(2), nn.Conv1d(1, 2, 3), nn.ReLU()), "0: a max-pool must"),
        (
            nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.MaxPool1d(2), nn.MaxPool1d(2)),
            "3: a max-pool must follow a convolution, and no other",
        ),
        (
            nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2, track_running_stats=False)),
            "1: BatchNorm1d has no running statistics",
        ),
        (
            nn.Sequential(
                nn.Conv1d(1, 2, 3), nn.ReLU(), networks.Residual(nn.Conv1d(2, 2, 1), nn.ReLU())
            ),
            "2: Residual computes something else .* Sequential does: the block before it can be",
        ),
        (
            nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.MultiheadAttention(2, 1)),
            "2: MultiheadAttention cannot .* one after the other: the block before it can be",
        ),
        (nn.Sequential(nn.Conv1d(1, 2, 3)), "Conv1d, then ReLU"),
        (nn.Sequential(), "one or more blocks"),
        (
            nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Conv1d(3, 2, 3), nn.ReLU()),
            "Block 1 gives 2 channels and block 2 takes 3",
        ),
        (nn.Conv1d(1, 2, 3), "not a torch.nn.Sequential"),
        (
            nn.Sequential(nn.Conv1d(1, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
            "padding_mode",
        ),
    ],
)
def test_what_cannot_be_inverted_is_named(stack, word):
    with pytest.raises(StackError, match=word):
        blocks_of(stack)


def test_layers_and_filters_out_of_range():
    blocks = blocks_of(STACKS["pools of 4"])
    for layer in (0, 3, -1):
        with pytest.raises(LayerError, match="choose 1 to 2"):
            stride(blocks, layer)
    for index in (-1, 2):
        with pytest.raises(LayerError, match=f"Filter {index} of layer 2 .* choose 0 to 1"):
            check_filters(blocks, 2, [0, index])
