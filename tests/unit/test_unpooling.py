"""Ways back beyond the paper: unpooling without switches, a whole layer at once, compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clips import Held
from oracles import noise, own_network

from sonibook import CNN12, ForwardPass
from sonibook.analysis import mean_top_coherence
from sonibook.analysis.alternatives import STARTS, compare_unpoolings
from sonibook.analysis.result import ResultTable
from sonibook.analysis.sources import SOURCE_SCORES
from sonibook.datasets.soundscapes import Soundscapes
from sonibook.deconvnet.alternatives import UNPOOLING, insert_zeros, interpolate, repeat
from sonibook.errors import AnalysisError, LayerError
from sonibook.metrics.similarity import spectrogram_correlation
from sonibook.model.layers import max_pool
from sonibook.model.operations import max_unpool

#: A map may be silent; the comparison counts it, and `sonify_together` says so.
pytestmark = pytest.mark.filterwarnings("ignore::sonibook.errors.SonibookWarning")


def stranger(pool=4):
    return own_network(6, 8, 8, 5, pool=pool).double()


def bursts():
    """Clips that are not scenes."""
    sounds = [noise(5000, seed=seed) * (torch.arange(5000) % 1500 < 500) for seed in range(3)]
    return Held([(x / x.abs().max()).float().numpy() for x in sounds], [0] * 3, ("any",))


# Unpooling without switches


@pytest.mark.parametrize("pool", [2, 3, 4])
def test_unpooling_equals_numpy(pool):
    x = noise(2, 3, 10)
    length = 10 * pool + pool - 1  # the pool had left something over

    def check(unpool, expected):
        result = unpool(x, torch.zeros_like(x, dtype=torch.bool), pool=pool, length=length)
        assert result.shape == (2, 3, length)
        assert not result[..., 10 * pool :].any()
        np.testing.assert_allclose(result[..., : 10 * pool].numpy(), expected, atol=1e-12)

    check(repeat, np.repeat(x.numpy(), pool, axis=2))
    zeros = np.zeros((2, 3, 10, pool))
    zeros[..., pool // 2] = x
    check(insert_zeros, zeros.reshape(2, 3, -1))
    centres = np.arange(10) * pool + (pool - 1) / 2
    rows = [np.interp(np.arange(10 * pool), centres, row) for row in x.reshape(6, 10).numpy()]
    check(interpolate, np.reshape(rows, (2, 3, -1)))


@pytest.mark.parametrize("unpool", UNPOOLING.values(), ids=list(UNPOOLING))
def test_unpooling_is_linear_and_keeps_zero(unpool):
    pool, length = 3, 32
    switches = max_pool(noise(1, 2, length), pool)[1]

    def up(x):
        return unpool(x, switches, pool=pool, length=length)

    x, y = noise(1, 2, 10, seed=1), noise(1, 2, 10, seed=2)
    torch.testing.assert_close(up(2 * x - 3 * y), 2 * up(x) - 3 * up(y))
    assert not up(0 * x).any()


def test_of_a_constant_repeat_and_lines_make_a_constant():
    x = torch.full((1, 1, 7), 2.5, dtype=torch.float64)
    for unpool in (repeat, interpolate):
        up = unpool(x, torch.zeros_like(x, dtype=torch.bool), pool=4, length=28)
        torch.testing.assert_close(up, torch.full((1, 1, 28), 2.5, dtype=torch.float64))


# The way back


@pytest.mark.parametrize("unpool", UNPOOLING.values(), ids=list(UNPOOLING))
def test_ways_back_equal_the_papers_where_nothing_is_pooled(unpool):
    passed = ForwardPass(stranger(pool=1), noise(900))
    for layer in (1, 4):
        expected = passed.backward(layer, passed.maps[layer - 1])
        assert expected.abs().max() > 0
        assert torch.equal(passed.backward(layer, passed.maps[layer - 1], unpool=unpool), expected)


def test_the_papers_way_is_the_default_and_others_differ():
    passed = ForwardPass(stranger(), noise(6000))
    start = passed.maps[2]
    paper = passed.backward(3, start)
    assert torch.equal(passed.backward(3, start, unpool=max_unpool), paper)
    for unpool in (repeat, interpolate, insert_zeros):
        other = passed.backward(3, start, unpool=unpool)
        assert other.shape == paper.shape
        assert not torch.allclose(other, paper)
        assert not passed.backward(3, 0 * start, unpool=unpool).any()
        torch.testing.assert_close(passed.backward(3, 4.0 * start, unpool=unpool), 4.0 * other)


# A whole layer at once


@pytest.mark.parametrize("unpool", UNPOOLING.values(), ids=list(UNPOOLING))
def test_a_subset_is_the_way_back_of_its_maps(unpool):
    x = torch.stack([noise(6001), noise(6001, seed=1)])[:, None]
    passed = ForwardPass(stranger(), x)
    only = torch.zeros_like(passed.maps[1])
    only[:, [2, 5]] = passed.maps[1][:, [2, 5]]
    ours = passed.sonify_together(2, [5, 2], unpool=unpool, rescale=False)
    assert torch.equal(ours, passed.backward(2, only, unpool=unpool)[:, 0, :6001])
    whole = passed.sonify_together(2, unpool=unpool, rescale=False)
    assert torch.equal(whole, passed.backward(2, passed.maps[1], unpool=unpool)[:, 0, :6001])


def test_one_filter_together_is_that_filter():
    passed = ForwardPass(stranger(), noise(6000))
    for layer in (1, 3):
        (loudest,) = passed.most_active(layer)
        together, alone = passed.sonify_together(layer, [loudest]), passed.sonify(layer, [loudest])
        torch.testing.assert_close(together, alone[0])
        assert float(together.abs().max()) == pytest.approx(float(passed.x.abs().max()))


def test_the_first_layer_together_is_the_sum_of_its_filters():
    """At the first layer no ReLU comes after the maps have met."""
    passed = ForwardPass(stranger(), noise(6000))
    together = passed.sonify_together(1, weights=[1.0, 2.0, 0.0, 0.5, 0.0, 1.0], rescale=False)
    alone = passed.sonify(1, rescale=False)
    expected = torch.tensor([1.0, 2.0, 0.0, 0.5, 0.0, 1.0], dtype=torch.float64) @ alone
    torch.testing.assert_close(together, expected)
    deep = passed.sonify_together(4, rescale=False)
    assert not torch.allclose(deep, passed.sonify(4, rescale=False).sum(dim=0))


def test_weights_weigh_maps():
    passed = ForwardPass(stranger(), noise(6000))
    twice = passed.sonify_together(3, [1, 4], weights=[2.0, 2.0], rescale=False)
    torch.testing.assert_close(twice, 2 * passed.sonify_together(3, [1, 4], rescale=False))
    chosen = passed.sonify_together(3, [1, 4], weights=[1.0, 0.0])
    torch.testing.assert_close(chosen, passed.sonify_together(3, [1]))


def test_what_is_refused():
    passed = ForwardPass(stranger(), noise(6000))
    with pytest.raises(ValueError, match="one weight a filter: 1 for 2"):
        passed.sonify_together(3, [0, 1], weights=[1.0])
    with pytest.raises(LayerError, match="Filter 8 of layer 3"):
        passed.sonify_together(3, [8])
    with pytest.raises(LayerError, match="Layer 5 does not exist: choose 1 to 4"):
        compare_unpoolings({"n": stranger()}, bursts(), layers=[5])
    with pytest.raises(AnalysisError, match="no network to analyse"):
        compare_unpoolings({}, bursts())


# Compared


def test_clips_are_measured_as_said(tmp_path):
    network = stranger().float()
    result = compare_unpoolings({"n": network}, bursts(), layers=[2])
    conditions = dict.fromkeys(row.condition for row in result.rows if row.network)
    assert list(conditions) == [f"{start}, {name}" for start in STARTS for name in UNPOOLING]
    rows = []
    for clip in bursts():
        x = torch.from_numpy(clip.waveform)
        passed = ForwardPass(network, x)
        paper = passed.sonify_together(2)
        other = passed.sonify_together(2, unpool=repeat)
        rows.append(
            (float(mean_top_coherence(x, other)), float(spectrogram_correlation(paper, other)),
             float(mean_top_coherence(x, paper)))
        )  # fmt: skip
    coherence, similarity, papers = np.mean(rows, axis=0)
    found = {
        row.quantity: row.mean for row in result.select(condition="whole layer, repeat", layer=2)
    }
    assert found == {
        "coherence": pytest.approx(coherence, abs=1e-4),
        "similarity": pytest.approx(similarity, abs=1e-4),
        "coherence beyond switches": pytest.approx(coherence - papers, abs=1e-4),
        "similarity beyond switches": pytest.approx(similarity - 1.0, abs=1e-4),
    }
    assert result.row("sources").clips == 0
    result.write(tmp_path / "unpooling.json")
    assert ResultTable.read(tmp_path / "unpooling.json") == result


def test_scenes_are_measured_by_separation_too():
    data = Soundscapes(size=5, duration=1.5, events=(1, 3), seed=2)
    networks = {"wide": stranger().float(), "flat": stranger(pool=1).float()}
    result = compare_unpoolings(networks, data, layers=[1, 3])
    several = [count for n in range(5) if (count := len(data.scene(n).events)) > 1]
    assert 0 < len(several) == result.row("sources").clips < 5
    assert result.row("sources").mean == pytest.approx(np.mean(several))
    assert {"coherence", "similarity", *SOURCE_SCORES} < {row.quantity for row in result.rows}
    assert all(row.clips <= len(several) for row in result.select(quantity="SI-SDR"))
    for row in result.select(quantity="similarity"):
        same = {
            name: result.row(
                f"{name} beyond switches",
                network=row.network, layer=row.layer, condition=row.condition,
            ).mean
            for name in ("coherence", "SI-SDR")
        }  # fmt: skip
        if row.condition.endswith("switches") or row.network == "flat":
            assert row.mean == pytest.approx(1.0)
            assert same["SI-SDR"] == 0.0
        else:
            assert same["coherence"] != 0.0


def test_silent_maps_are_counted_and_never_nan():
    network = stranger().float()
    with torch.no_grad():
        network[3].bias.fill_(-1e6)
    result = compare_unpoolings({"deaf": network}, bursts(), layers=[1, 2])
    rows = result.select(quantity={"coherence", "similarity"})
    assert {(row.layer, row.clips) for row in rows} == {(1, 3), (2, 0)}


def test_trained_and_untrained_encoders_of_any_depth_go_together():
    data = Soundscapes(size=1, duration=1.0, events=(2, 2))
    networks = {"deep": CNN12(width=1 / 32, seed=0).eval(), "mine": stranger()}  # in float64
    rows = compare_unpoolings(networks, data).select(quantity="coherence")
    assert {row.layer for row in rows} == {1, 2, 3, 4}
