"""Sonification against Captum and a naive chain, its properties, and bad input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from oracles import captum_sonification, force_switches, naive_sonification, plain_stack
from torch import nn

from sonibook import CNN12, ForwardPass, load_encoder, sonify
from sonibook.errors import AudioError, LayerError, SonibookWarning, StackError
from sonibook.model.layers import max_pool
from sonibook.model.operations import max_unpool, transposed_convolution

LAYERS = (1, 3, 8, 9, 11)
PADDED_SILENCE = "ignore::sonibook.errors.SonibookWarning"


def clip(length: int, *, seed: int = 0) -> torch.Tensor:
    """A second of noise and a falling chirp, then quiet: some maps are silent for a while."""
    time = torch.arange(length) / 8000
    noise = torch.randn(length, generator=torch.Generator().manual_seed(seed))
    chirp = torch.sin(2 * torch.pi * (2000 * time - 250 * time**2))
    x = 0.1 * noise * (time < 1) + chirp * torch.exp(-2 * time)
    return x / x.abs().max()


@pytest.fixture(scope="module", params=["random", "supervised"])
def encoder(request):
    if request.param == "random":
        return CNN12(width=0.25, seed=0).eval()
    return load_encoder("supervised")


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("padded", [False, True], ids=["unpadded", "padded"])
@pytest.mark.parametrize("length", [20_000, 19_999, 40_000])
def test_equals_captum_and_the_naive_chain(encoder, length, padded):
    stack = plain_stack(encoder, padded=padded)
    x = clip(length)
    passed = ForwardPass(stack, x)
    force_switches(passed, stack)
    for layer in LAYERS:
        (loudest,) = passed.most_active(layer)
        ours = passed.sonify(layer, [loudest], rescale=False)[0]
        captum = captum_sonification(stack, x[None, None], layer=layer, filter=loudest)[0]
        naive = naive_sonification(stack, x[None, None], layer=layer, filter=loudest)[0]
        assert relative_error(ours, captum) < 1e-5
        assert relative_error(ours, naive) < 1e-5


def test_equals_captum_in_float64_with_its_own_switches(encoder):
    double = CNN12(width=encoder.width).double()
    double.load_state_dict(encoder.state_dict())
    x = clip(19_999).double()
    for layer in LAYERS:
        (loudest,) = ForwardPass(double, x).most_active(layer)
        ours = sonify(double, x, layer=layer, filters=[loudest], rescale=False)
        captum = captum_sonification(
            plain_stack(double), x[None, None], layer=layer, filter=loudest
        )
        assert relative_error(ours, captum) < 1e-11


def test_a_network_of_another_build_equals_captum():
    torch.manual_seed(0)
    stack = nn.Sequential(
        nn.Conv1d(1, 6, 9, padding=4, dilation=2),
        nn.ReLU(),
        nn.MaxPool1d(4),
        nn.Conv1d(6, 8, 4),
        nn.ReLU(),
        nn.Conv1d(8, 5, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool1d(3),
    ).double()
    x = clip(5003).double()
    for layer in (1, 2, 3):
        (loudest,) = ForwardPass(stack, x).most_active(layer)
        ours = sonify(stack, x, layer=layer, filters=[loudest], rescale=False)
        captum = captum_sonification(stack, x[None, None], layer=layer, filter=loudest)
        assert relative_error(ours, captum) < 1e-11


@pytest.mark.parametrize("pool", [2, 3, 5])
def test_pool_and_unpool_equal_pytorchs(pool):
    x = torch.randint(0, 4, (2, 3, 31)).float()  # many ties
    pooled, switches = max_pool(x, pool)
    expected, indices = nn.functional.max_pool1d(x, pool, return_indices=True)
    assert torch.equal(pooled, expected)
    unpooled = max_unpool(pooled, switches, pool=pool, length=31)
    theirs = nn.functional.max_unpool1d(expected, indices, pool, output_size=x.shape)
    assert torch.equal(unpooled, theirs)


def test_transposed_convolution_is_the_adjoint_of_the_convolution():
    """<conv(x), y> = <x, conv^T(y)> for every x and y."""
    conv = nn.Conv1d(3, 5, 4, padding=2, dilation=3, bias=False).double()
    x = torch.randn(2, 3, 50, dtype=torch.float64)
    y = torch.randn(conv(x).shape, dtype=torch.float64)
    forward, back = (conv(x) * y).sum(), (x * transposed_convolution(y, conv)).sum()
    torch.testing.assert_close(forward, back)


def shifted_pair(encoder, layer: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """The sonification of a shifted clip, and the shifted sonification; silence on both sides."""
    x = torch.zeros(24_000, dtype=torch.float64)
    x[8_000:16_000] = clip(8_000).double()
    moved = torch.roll(x, shift)
    (loudest,) = ForwardPass(encoder, x).most_active(layer)
    first = sonify(encoder, x, layer=layer, filters=[loudest], rescale=False)[0]
    second = sonify(encoder, moved, layer=layer, filters=[loudest], rescale=False)[0]
    inside = slice(4_000, 20_000)  # away from the ends, where zeros meet the border
    return torch.roll(first, shift)[inside].numpy(), second[inside].numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("layer", [1, 3, 8, 11])
def test_shift_law(encoder, layer):
    """Exact for multiples of the pooling stride, and for no other shift (paper, figure B.3)."""
    double = CNN12(width=encoder.width).double()
    double.load_state_dict(encoder.state_dict())
    step = 2 ** min(layer, 8)
    for shift in (step, 3 * step, -2 * step):
        np.testing.assert_allclose(*shifted_pair(double, layer, shift), atol=1e-10, rtol=1e-9)
    assert cosine(*shifted_pair(double, layer, 1)) < 0.999
    if layer == 8:
        assert 0.3 < cosine(*shifted_pair(double, layer, 1)) < 0.95


def test_post_processing_gives_the_input_its_peak(encoder):
    x = 0.5 * clip(20_000)
    s = sonify(encoder, x, layer=4, filters=[0, 1, 2, 3])
    loud = s.abs().amax(1)
    torch.testing.assert_close(loud[loud > 0], torch.full_like(loud[loud > 0], 0.5))
    raw = sonify(encoder, x, layer=4, filters=[0, 1, 2, 3], rescale=False)
    for scaled, unscaled in zip(s, raw, strict=True):
        assert not scaled.any() or cosine(scaled.numpy(), unscaled.numpy()) > 0.99999


@pytest.mark.filterwarnings(PADDED_SILENCE)
def test_batches_filters_and_order_do_not_matter(encoder):
    x = torch.stack([clip(9_000, seed=seed) for seed in range(3)])[:, None]
    together = sonify(encoder, x, layer=5, filters=[7, 0, 7])
    assert together.shape == (3, 3, 9_000)
    assert torch.equal(together[:, 0], together[:, 2])
    alone = sonify(encoder, x[1, 0], layer=5, filters=[0])
    torch.testing.assert_close(together[1, 1], alone[0], rtol=0, atol=2e-3)  # a switch may flip
    assert sonify(encoder, x[0, 0], layer=5).shape == (64, 9_000)


def test_silence_stays_silence_and_is_said(encoder):
    bare = CNN12(width=1 / 16, seed=0).eval()  # no biases: nothing but the input excites it
    with pytest.warns(SonibookWarning, match="2 of 2 sonifications are silent"):
        s = sonify(bare, torch.zeros(8_000), layer=6, filters=[0, 5])
    assert torch.equal(s, torch.zeros(2, 8_000))


def test_short_clips_are_padded_and_it_is_said(encoder):
    with pytest.warns(SonibookWarning, match=r"800 samples; it was padded .* 2370"):
        passed = ForwardPass(encoder, clip(800))
    s = passed.sonify(11, passed.most_active(11))
    assert s.shape == (1, 800)
    assert s.abs().max() == pytest.approx(1.0)


def test_numpy_and_tensor_give_the_same(encoder):
    x = clip(8_000)
    ours = sonify(encoder, x.numpy(), layer=2, filters=[1])
    assert torch.equal(ours, sonify(encoder, x, layer=2, filters=[1]))


def test_energy_orders_the_filters(encoder):
    passed = ForwardPass(encoder, clip(8_000))
    energy = passed.energy(7)[0]
    order = passed.most_active(7, 5)
    assert energy[order].tolist() == sorted(energy.tolist(), reverse=True)[:5]


@pytest.mark.parametrize("padded", [False, True], ids=["engine", "plain"])
def test_most_active_filters_are_those_of_single_calls(padded):
    network = plain_stack(CNN12(width=1 / 16, seed=0), padded=padded).double()
    x = torch.stack([clip(9_000, seed=seed) for seed in range(3)])[:, None].double()
    sounds, filters = ForwardPass(network, x).sonify_most_active()
    assert sounds.shape == (3, 11, 9_000)
    assert filters.shape == (3, 11)
    for row, waveform in enumerate(x):
        alone = ForwardPass(network, waveform[0])
        for layer in (1, 5, 11):
            (loudest,) = alone.most_active(layer)
            assert filters[row, layer - 1] == loudest
            torch.testing.assert_close(sounds[row, layer - 1], alone.sonify(layer, [loudest])[0])
    few, names = ForwardPass(network, x[0, 0]).sonify_most_active([8, 2])
    assert names.tolist() == filters[0, [7, 1]].tolist()
    torch.testing.assert_close(few, sounds[0, [7, 1]])


@pytest.mark.parametrize(
    ("x", "error", "word"),
    [
        (torch.zeros(0), AudioError, "no samples"),
        (torch.full((9_000,), float("nan")), AudioError, "NaN or infinite"),
        (torch.tensor([0.0, float("inf")] * 4000), AudioError, "NaN or infinite"),
        (torch.zeros(2, 9_000), AudioError, r"got \(2, 9000\)"),
        (torch.zeros(1, 2, 9_000), AudioError, r"got \(1, 2, 9000\)"),
    ],
)
def test_bad_sounds(encoder, x, error, word):
    with pytest.raises(error, match=word):
        sonify(encoder, x, layer=3, filters=[0])


def test_bad_layers_filters_and_networks(encoder):
    x = clip(8_000)
    with pytest.raises(LayerError, match="Layer 12 does not exist: choose 1 to 11"):
        sonify(encoder, x, layer=12, filters=[0])
    with pytest.raises(LayerError, match=r"Filter 16 of layer 1 .* choose 0 to 15"):
        sonify(encoder, x, layer=1, filters=[16])
    with pytest.raises(StackError, match="LSTM"):
        sonify(nn.Sequential(nn.LSTM(1, 2)), x, layer=1, filters=[0])


def test_batches_of_filters_are_what_all_of_them_are():
    passed = ForwardPass(CNN12(width=1 / 8, seed=0), clip(6_000))
    one, two, *others = passed.most_active(6, 4)
    filters = [one, two, *others, one]
    together = passed.sonify(6, filters)
    batches = list(passed.sonify_in_batches(6, filters, at_once=2))
    assert [some for some, _ in batches] == [[one, two], others, [one]]
    torch.testing.assert_close(torch.cat([sounds for _, sounds in batches]), together)
    ((every, sounds),) = passed.sonify_in_batches(1)
    assert every == list(range(8))
    assert sounds.shape == (8, 6_000)
    with pytest.raises(ValueError, match="at_once must be at least 1"):
        passed.sonify_in_batches(6, at_once=0)
    with pytest.raises(LayerError, match="Filter 99"):
        passed.sonify_in_batches(6, [99])


def test_batches_take_memory_for_a_few_sounds_and_not_for_all():
    """A minute by 512 filters is 983 MB of sound; a quarter of it is never there at once."""
    code = """
import resource, torch
from torch import nn
from sonibook import ForwardPass
network = nn.Sequential(
    nn.Conv1d(1, 8, 16, stride=8), nn.ReLU(), nn.Conv1d(8, 512, 4, stride=8), nn.ReLU()
)
x = torch.randn(480_000, generator=torch.Generator().manual_seed(0))
passed = ForwardPass(network, x)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
next(passed.sonify_in_batches(2, range(2)))
before = peak()
for filters, sounds in passed.sonify_in_batches(2, at_once=16):
    assert sounds.shape == (len(filters), 480_000)
print(1024 * (peak() - before))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 512 * 480_000 * 4 / 4


def test_half_precision_on_the_way_up_gives_the_switches_of_what_was_computed():
    network = CNN12(width=1 / 8, seed=0).eval()
    exact, half = (
        ForwardPass(network, clip(6_000), precision=precision)
        for precision in (None, torch.bfloat16)
    )
    with torch.autocast("cpu", torch.bfloat16):
        first = network.features[:2](half.x).float()
    pairs = first[:, :, : first.shape[2] // 2 * 2].unflatten(2, (-1, 2))
    assert torch.equal(half.maps[0], pairs.amax(dim=3))
    assert torch.equal(half.switches[0], pairs[..., 1] > pairs[..., 0])
    for layer in (1, 5, 11):
        assert half.maps[layer - 1].dtype == torch.float32
        assert 0 < relative_error(half.maps[layer - 1], exact.maps[layer - 1]) < 0.05
        ours, theirs = half.sonify(layer, [0])[0], exact.sonify(layer, [0])[0]
        assert ours.dtype == torch.float32
        assert float(torch.cosine_similarity(ours, theirs, dim=0)) > 0.95
