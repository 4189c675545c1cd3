"""The fast way back gives the numbers of the plain one, whatever is asked of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sonibook import CNN12, ForwardPass
from sonibook.deconvnet.cpu import Engine, supports
from sonibook.deconvnet.cpu.batched import Segment, block
from sonibook.deconvnet.cpu.tiled import Clip, Window, pack
from sonibook.deconvnet.cpu.weights import Weights


def sparse_clip(length: int, *, seed: int, bursts: int) -> torch.Tensor:
    """Silence with a few bursts of noise, in float64: maps with long exact zeros."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(length, dtype=torch.float64)
    for _ in range(bursts):
        start = int(torch.randint(length, (1,), generator=generator))
        burst = torch.randn(min(400, length - start), generator=generator, dtype=torch.float64)
        x[start : start + len(burst)] += burst
    return x


def assert_same(passed: ForwardPass, layer: int, filters: list[int], *, memory: int = 2**30):
    fast = Engine(passed, memory=memory).sonify(layer, filters)
    plain = passed._plain(layer, filters)
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-12 * float(plain.abs().max() + 1))


@settings(max_examples=15, deadline=None)
@given(
    length=st.integers(2_400, 30_000),
    seed=st.integers(0, 1000),
    bursts=st.integers(0, 4),
    layer=st.integers(1, 11),
)
def test_windows_leave_nothing_out(length, seed, bursts, layer):
    network = CNN12(width=1 / 16, seed=1).double().eval()
    passed = ForwardPass(network, sparse_clip(length, seed=seed, bursts=bursts), depth=layer)
    filters = list(range(0, passed.maps[-1].shape[1], 3))
    assert_same(passed, layer, filters)


@pytest.mark.parametrize("layer", [2, 5, 8, 11])
def test_many_filters_are_right_in_single_precision(layer):
    passed = ForwardPass(CNN12(width=1 / 4, seed=0), sparse_clip(12_000, seed=0, bursts=12))
    filters = passed.most_active(layer, 24)
    fast = Engine(passed).sonify(layer, filters)[0, ::6]
    plain = passed._plain(layer, filters[::6])[0]
    assert float(((fast - plain).abs().amax(1) / plain.abs().amax(1)).max()) < 1e-5


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_memory_change_nothing(threads):
    network = CNN12(width=1 / 8, seed=0).double().eval()
    x = torch.stack([sparse_clip(20_000, seed=seed, bursts=3) for seed in range(3)])[:, None]
    passed = ForwardPass(network, x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for memory in (1, 2**30):
            assert_same(passed, 9, [0, 1, 2, 50], memory=memory)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("filters", [1, 24])
def test_long_sounds_are_cut_where_they_outgrow_the_cache(filters, monkeypatch):
    """In time, for a few sounds, and between two cores, for many: nothing is missing at a seam."""
    monkeypatch.setattr("sonibook.deconvnet.cpu.batched._PART", 2**12)
    network = CNN12(width=1 / 8, seed=0).double().eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40_000, generator=generator, dtype=torch.float64)
    passed = ForwardPass(network, x)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fast = Engine(passed).sonify(8, range(filters))[0, ::13]
    finally:
        torch.set_num_threads(before)
    plain = passed._plain(8, range(0, filters, 13))[0]
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-12 * float(plain.abs().max() + 1))


def test_the_most_active_filters_of_several_clips_are_each_what_they_are_alone():
    network = CNN12(width=1 / 16, seed=0).double().eval()
    x = torch.stack([sparse_clip(12_000, seed=seed, bursts=3) for seed in range(5)])[:, None]
    passed = ForwardPass(network, x)
    sounds, filters = passed.sonify_most_active([2, 9, 11], rescale=False)
    for clip in range(5):
        for row, layer in enumerate((2, 9, 11)):
            plain = passed._plain(layer, [int(filters[clip, row])])[clip, 0]
            torch.testing.assert_close(sounds[clip, row], plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("filters", [1, 24])
def test_masks_that_find_no_room_are_made_once_a_filter_and_a_stretch_at_a_time(
    filters, monkeypatch
):
    """Of an hour, they would else be made anew, from end to end, for every stretch."""
    passed = ForwardPass(CNN12(width=1 / 16, seed=0), sparse_clip(400_000, seed=0, bursts=200))
    made = []
    make = Engine._make_mask

    def counted(*arguments):
        mask = make(*arguments)
        made.append(mask.numel())
        return mask

    monkeypatch.setattr(Engine, "_make_mask", counted)
    ample = Engine(passed).sonify(8, range(filters))
    at_once = sum(made)
    made.clear()
    scarce = Engine(passed, memory=2**20).sonify(8, range(filters))
    torch.testing.assert_close(scarce, ample, rtol=1e-5, atol=1e-5)
    assert 0 < sum(made) <= filters * at_once


@pytest.mark.parametrize("filters", [4, 64])
def test_what_is_kept_beside_the_result_stays_within_what_was_allowed(filters):
    """Gates stay in bounds, and columns come in groups of as many as there is room for."""
    passed = ForwardPass(CNN12(width=1 / 8, seed=0), sparse_clip(40_000, seed=0, bursts=20))
    memory = 8 * 2**20
    engine = Engine(passed, memory=memory)
    engine.sonify(9, range(filters))
    largest = max((mask.numel() for mask in engine._masks.values()), default=0)
    assert sum(4 * mask.numel() for mask in engine._masks.values()) <= max(memory, 4 * largest)
    (columns,) = [max(engine.columns(9, 0, range(64)), key=len)]
    jobs = engine._tiled(9, engine._clips()[0], columns, torch.zeros(64, 40_000))
    assert all(len(job.args[2]) * 16 * 40_000 * torch.get_num_threads() <= memory for job in jobs)


@pytest.mark.parametrize("pools", [(4, 1, 3), (1, 1, 1), (2, 5, 1)])
@pytest.mark.parametrize("kernels", [(9, 9, 4), (2, 1, 6)])
def test_stacks_of_any_pool_and_kernel(pools, kernels):
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    channels = 1
    for pool, kernel in zip(pools, kernels, strict=True):
        modules += [nn.Conv1d(channels, 6, kernel), nn.ReLU()]
        modules += [nn.MaxPool1d(pool)] if pool > 1 else []
        channels = 6
    passed = ForwardPass(nn.Sequential(*modules).double(), torch.randn(5003).double())
    for layer in (1, 2, 3):
        assert_same(passed, layer, list(range(6)))


def test_dead_maps_cost_nothing_and_give_silence():
    network = CNN12(width=1 / 8, seed=0).double().eval()
    with torch.no_grad():
        network.features.conv6.bias[3] = -1e6
    passed = ForwardPass(network, sparse_clip(9_000, seed=0, bursts=2))
    engine = Engine(passed)
    assert engine.columns(6, 0, [3]) == []
    assert not engine.sonify(6, [3]).any()


def test_only_sounding_stretches_are_computed():
    """A click in a long silence gives windows of a few receptive fields, not of the clip."""
    network = CNN12(width=1 / 8, seed=0).double().eval()
    x = torch.zeros(80_000, dtype=torch.float64)
    x[40_000] = 1.0
    (columns,) = Engine(ForwardPass(network, x)).columns(8, 0, list(range(64)))
    assert len(columns) > 1
    windows = [window for column in columns for window in column]
    assert (max(w.last for w in windows) - min(w.first for w in windows)) * 256 < 3_000


def test_changed_weights_are_noticed():
    network = CNN12(width=1 / 16, seed=0).double().eval()
    x = sparse_clip(6_000, seed=0, bursts=2)
    assert_same(ForwardPass(network, x), 5, [0, 1])
    with torch.no_grad():
        network.features.conv3.weight.mul_(0.5)
    assert_same(ForwardPass(network, x), 5, [0, 1])
    network.load_state_dict(CNN12(width=1 / 16, seed=9).state_dict())
    assert_same(ForwardPass(network, x), 5, [0, 1])


def test_standardised_networks_are_heard_as_they_are():
    network = CNN12(width=1 / 16, norm="weight", seed=0).double().eval()
    passed = ForwardPass(network, sparse_clip(6_000, seed=0, bursts=2))
    assert_same(passed, 6, [0, 1])
    with torch.no_grad():
        network.features.conv2.gain.mul_(2)
    assert_same(ForwardPass(network, passed.x), 6, [0, 1])


CONVOLUTIONS = {
    "padded": {"padding": 4},
    "padded beyond the kernel": {"padding": 9},
    "same": {"padding": "same"},
    "dilated": {"dilation": 3},
    "dilated and padded": {"dilation": 4, "padding": 5},
    "strided": {"stride": 2, "padding": 2},
    "strided beyond the kernel": {"stride": 7},
    "strided, dilated and padded": {"stride": 3, "dilation": 2, "padding": 3},
}
POOLS = {
    "none": nn.Identity(),
    "2": nn.MaxPool1d(2),
    "3, partial": nn.MaxPool1d(3, ceil_mode=True),
    "4, padded": nn.MaxPool1d(4, padding=2),
    "with gaps": nn.MaxPool1d(2, stride=3, padding=1),
    "dilated": nn.MaxPool1d(2, stride=3, dilation=2),
    "20": nn.MaxPool1d(20),
}


@pytest.mark.filterwarnings("ignore::sonibook.errors.SonibookWarning")
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_any_padding_dilation_stride_and_pool(convolution, pool):
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for channels in ((1, 6), (6, 1), (1, 20)):
        conv = nn.Conv1d(*channels, 5, **CONVOLUTIONS[convolution])
        modules += [conv, nn.ReLU(), POOLS[pool]]
    network = nn.Sequential(*modules).double()
    with torch.no_grad():
        network[3].bias.add_(0.2)
    passed = ForwardPass(network, sparse_clip(9_001, seed=1, bursts=4).add_(0.01))
    assert supports(passed)
    most = 20 if passed.x.shape[-1] < 50_000 else 2  # large strides and pools ask for a long sound
    for layer, filters in ((1, range(6)), (2, [0]), (3, range(most)), (3, [1, 3])):
        assert_same(passed, layer, list(filters))


@pytest.mark.parametrize("threads", [1, 2])
def test_batch_norm_and_activations_that_are_not_relu(threads):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8)
    norm.running_mean.normal_()
    with torch.no_grad():
        norm.weight.normal_()
    network = nn.Sequential(
        nn.ConstantPad1d((3, 1), 0.5), nn.Conv1d(1, 8, 6), nn.GELU(), norm, nn.MaxPool1d(2),
        nn.Conv1d(8, 24, 4, padding=1), nn.BatchNorm1d(24), nn.LeakyReLU(), nn.MaxPool1d(3),
        nn.Conv1d(24, 24, 3, padding=2), nn.ELU(),
    ).double().eval()  # fmt: skip
    x = torch.stack([sparse_clip(9_000, seed=seed, bursts=4) for seed in range(2)])[:, None]
    passed = ForwardPass(network, x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert supports(passed)
        for layer, count in ((1, 8), (2, 24), (3, 24), (3, 2)):
            assert_same(passed, layer, list(range(count)), memory=2**22)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "modules",
    [
        [nn.Conv1d(1, 4, 5), nn.ReLU(), nn.MaxPool1d(3, stride=2)],
        [nn.Conv1d(1, 4, 5), nn.ReLU(), nn.AvgPool1d(2)],
        [nn.Conv1d(1, 4, 5), nn.GroupNorm(2, 4), nn.ReLU()],
        [nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Conv1d(4, 4, 3, groups=4), nn.ReLU()],
        [nn.ConstantPad1d((-2, 0), 0.0), nn.Conv1d(1, 4, 5), nn.ReLU()],
    ],
)
def test_other_stacks_take_the_plain_path(modules):
    assert not supports(ForwardPass(nn.Sequential(*modules), torch.randn(1000)))


@pytest.mark.parametrize("pool", [1, 2, 3, 5])
@pytest.mark.parametrize("taps", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_way_down_a_block_is_unpooling_and_a_transposed_convolution(pool, taps, channels):
    generator = torch.Generator().manual_seed(0)
    columns, steps, filters = 4, 23, 6
    y = torch.randn(columns, steps, filters, generator=generator, dtype=torch.float64)
    switches = torch.randint(pool, (steps, filters), generator=generator)
    weight = torch.randn(filters, channels, taps, generator=generator, dtype=torch.float64)
    z = y.new_zeros(columns, filters, pool * steps)
    for row in range(steps):
        for index in range(filters):
            place = pool * row + int(switches[row, index])
            z[:, index, place] = y[:, row, index].relu()
    weights = Weights(weight, pool)
    early = weights.steps - 1
    whole = torch.nn.functional.conv_transpose1d(z, weight).transpose(1, 2)
    masks = y.new_zeros(pool - 1, steps, filters)
    for phase in range(1, pool):
        masks[phase - 1] = switches == phase

    out = torch.empty(columns, pool * (steps - early), channels, dtype=torch.float64)
    weights.down(y.relu(), masks, out)
    torch.testing.assert_close(out, whole[:, pool * early : pool * steps])

    padded = torch.nn.functional.pad(masks, (0, 0, early, early))
    clip = Clip([], [], lambda layer, stretch: padded[:, stretch], [(0, 1000)] * 2)
    segments = [Segment(clip, y[0, :, 0], 0, 0, row, sound[row:]) for row, sound in enumerate(y)]
    below = block(1, segments, weights)
    for row, segment in enumerate(below):
        assert segment.first == pool * row
        late = slice(pool * (row + early), None)  # the first steps lack those before
        expected = whole[row, late]
        torch.testing.assert_close(segment.y[pool * early :][: len(expected)], expected)


@settings(max_examples=50, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), max_size=30),
    gap=st.integers(0, 20),
)
def test_packed_windows_keep_apart_and_take_as_few_columns_as_can_be(spans, gap):
    windows = [Window(row, 0, first, first + size) for row, (first, size) in enumerate(spans)]
    stretches = list(pack(windows, gap))
    packed = [window for columns in stretches for column in columns for window in column]
    assert sorted(window.row for window in packed) == list(range(len(windows)))
    for columns in stretches:
        for column in columns:
            for before, after in zip(column, column[1:], strict=False):
                assert after.first >= before.last + gap
        inside = [window for column in columns for window in column]
        at_once = max(
            sum(w.first <= step < w.last + gap for w in inside)
            for step in {window.first for window in inside}
        )
        assert len(columns) == at_once
    for before, after in zip(stretches, stretches[1:], strict=False):
        end = max(window.last for column in before for window in column)
        assert min(window.first for column in after for window in column) >= end + gap
