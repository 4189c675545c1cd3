"""Sanity checks: likeness against oracles, random weights, curves by hand, and a stranger's CNN."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from clips import Held
from oracles import noise, own_network
from scipy import stats
from torch import nn

from sonibook import CNN12, open_dataset, sonify
from sonibook.analysis.networks import mixed, untrained
from sonibook.analysis.result import ResultTable
from sonibook.analysis.sanity import (
    BASELINES,
    MEASURES,
    RUNNER_UP_LESS_RANDOM,
    randomised,
    sanity,
    similarities,
)
from sonibook.analysis.stream import by_clip, seeded
from sonibook.cli import main
from sonibook.errors import AnalysisError, LayerError
from sonibook.metrics.similarity import (
    log_spectral_distance,
    mel_levels,
    rank_correlation,
    spectrogram_correlation,
    structural_similarity,
)
from sonibook.model.encoder import StandardisedConv1d
from sonibook.model.stack import blocks_of

#: Random weights make dead maps, of which a caller of `similarities` is told.
pytestmark = pytest.mark.filterwarnings("ignore::sonibook.errors.SonibookWarning")


def stranger(seed=0):
    return own_network(6, 8, 8, 5, seed=seed)


def clips(size=5, samples=3000):
    """A few clips of noise with bursts, one of them silent."""
    bursts = 1 + torch.sin(torch.arange(samples) / 700)
    sounds = [noise(samples, seed=seed) * bursts * (seed != 3) for seed in range(size)]
    scaled = [(x / x.abs().max().clamp_min(1e-9)).float().numpy() for x in sounds]
    return Held(scaled, [0] * size, ("any",))


# How alike two sounds are


def test_rank_correlation_equals_scipy_with_ties():
    x, y = noise(2, 4000), noise(2, 4000, seed=1)
    y[0] += x[0]
    y[:, 1000:3000] = 0.0  # as a sonification is, where its map is
    ours = rank_correlation(x, y)
    theirs = [stats.spearmanr(a.abs(), b.abs()).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-12)


def test_structural_similarity_equals_a_naive_loop():
    x, y = noise(5000), noise(5000, seed=1) + noise(5000)
    a, b = mel_levels(x).numpy(), mel_levels(y).numpy()
    c1, c2 = 0.6**2, 1.8**2
    values = []
    for band in range(a.shape[0] - 6):
        for frame in range(a.shape[1] - 6):
            p, q = (image[band : band + 7, frame : frame + 7] for image in (a, b))
            covariance = ((p - p.mean()) * (q - q.mean())).mean()
            values.append(
                (2 * p.mean() * q.mean() + c1)
                / (p.mean() ** 2 + q.mean() ** 2 + c1)
                * (2 * covariance + c2)
                / (p.var() + q.var() + c2)
            )
    assert float(structural_similarity(x, y)) == pytest.approx(np.mean(values), abs=1e-10)


def test_spectrogram_correlation_equals_numpy():
    x, y = noise(5000), noise(5000, seed=1) + noise(5000)
    expected = np.corrcoef(mel_levels(x).flatten(), mel_levels(y).flatten())[0, 1]
    assert float(spectrogram_correlation(x, y)) == pytest.approx(expected, abs=1e-12)


def test_mel_levels_are_decibels_and_what_is_60_below_the_mean_is_not_heard():
    time = torch.arange(8192, dtype=torch.float64) / 8000
    loud, soft = torch.sin(2 * np.pi * 500 * time), torch.sin(2 * np.pi * 3000 * time)
    one, more, inaudible = (mel_levels(loud + gain * soft) for gain in (0.1, 0.2, 1e-6))
    band = 20 + int(one[20:, 30].argmax())
    rise = float((more - one)[band, 30])
    assert rise == pytest.approx(20 * np.log10(2), abs=0.2)  # the mean rises a little, too
    assert float(one[:, 30].argmax()) < 16
    assert float(inaudible[band, 30]) == 0.0


def test_log_spectral_distance_equals_a_naive_loop():
    x, y = noise(5000), noise(5000, seed=1).cumsum(0)
    a, b = mel_levels(x).numpy(), mel_levels(y).numpy()
    frames = [np.sqrt(np.mean((a[:, t] - b[:, t]) ** 2)) for t in range(a.shape[1])]
    assert float(log_spectral_distance(x, y)) == pytest.approx(np.mean(frames), abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=list(MEASURES))
def test_likeness_sees_neither_gain_nor_sign_and_no_likeness_to_silence(measure):
    x, y = noise(3, 3000), noise(3, 3000, seed=1)
    torch.testing.assert_close(measure(x, -0.01 * y), measure(x, y))
    best = 0.0 if measure is log_spectral_distance else 1.0
    torch.testing.assert_close(measure(x, x), torch.full((3,), best, dtype=torch.float64))
    y[1] = 0.0
    assert measure(x, y).isnan().tolist() == [False, True, False]
    assert abs(float(measure(x, y)[0]) - best) > 0.3
    torch.testing.assert_close(measure(x[0], y)[2], measure(x[0], y[2]))  # one against many


def test_white_noises_are_not_alike_for_being_white():
    values = spectrogram_correlation(noise(20, 20_000), noise(20, 20_000, seed=1))
    assert abs(float(values.mean())) < 0.1


# Random weights


def test_untrained_blocks_are_he_and_seeded():
    network = CNN12(width=1.0, depth=5, norm="weight", seed=0)
    blocks = blocks_of(network)
    fresh = untrained(blocks, seed=3)
    for block, one in zip(blocks, fresh, strict=True):
        fan_in = block.conv.in_channels * block.extent
        assert one.pool == block.pool
        assert float(one.conv.weight.detach().std()) == pytest.approx(np.sqrt(2 / fan_in), rel=0.15)
        assert not one.conv.bias.any()
        assert not isinstance(one.conv, StandardisedConv1d)
        assert not torch.equal(one.conv.weight, block.conv.weight)
    again = untrained(blocks, seed=3)
    assert all(torch.equal(a.conv.weight, b.conv.weight) for a, b in zip(fresh, again, strict=True))
    other = untrained(blocks, seed=4)
    assert not torch.equal(other[0].conv.weight, fresh[0].conv.weight)


def test_mixed_takes_the_named_layers_and_no_other():
    network = stranger()
    blocks, fresh = blocks_of(network), untrained(blocks_of(network), seed=0)
    made = blocks_of(mixed(blocks, fresh, [2, 4]))
    sources = [blocks, fresh, blocks, fresh]
    for place, (block, source) in enumerate(zip(made, sources, strict=True)):
        assert block.conv is source[place].conv
        assert block.pool == 4
    x = noise(1, 1, 4000).float()
    assert torch.equal(mixed(blocks, fresh, [])(x), network(x))


# The curves


def test_a_strangers_network_in_a_few_lines():
    result = sanity(stranger(), open_dataset("soundscapes", size=3, duration=1.0), layers=[1, 4])
    assert result.data.clips == 3
    found = {(row.condition, row.layer) for row in result.select(quantity="rank correlation")}
    assert found == {
        (randomised(lowest, alone=alone), layer)
        for alone in (True, False)
        for layer, lowest in ((1, 1), (4, 1), (4, 2), (4, 3), (4, 4))
    } | {(name, layer) for name in (*BASELINES, RUNNER_UP_LESS_RANDOM) for layer in (1, 4)}
    assert len(result.rows) == len(found) * len(MEASURES)


def test_the_paired_difference_is_that_of_two_means():
    result = sanity(stranger(), clips(), layers=[2], seed=1)
    for measure in MEASURES:
        runner_up, random, difference = (
            result.row(measure, network="network", layer=2, condition=condition)
            for condition in ("runner-up filter", randomised(1), RUNNER_UP_LESS_RANDOM)
        )
        assert runner_up.clips == random.clips == difference.clips
        assert difference.mean == pytest.approx(runner_up.mean - random.mean)


def test_a_point_is_what_its_words_say():
    network, data, clip = stranger(), clips(1), clips(1)[0]
    found = similarities((2, 4), {}, 5, network, clip)
    blocks = blocks_of(network)
    drawn = seeded(5, clip.clip_id).integers(2**31, size=2)
    fresh = untrained(blocks, seed=int(drawn[0]))
    x = torch.from_numpy(data[0].waveform)
    energy = nn.Sequential(*list(network)[:12])(x[None, None])[0].square().sum(dim=1)
    chosen = int(energy.argmax())
    before = sonify(network, x, layer=4, filters=[chosen])[0]
    for alone, layers in ((False, (2, 3, 4)), (True, (2,))):
        after = sonify(mixed(blocks, fresh, layers), x, layer=4, filters=[chosen])[0]
        expected = [float(measure(before, after)) for measure in MEASURES.values()]
        values = [found[name, randomised(2, alone=alone)][1] for name in MEASURES]
        np.testing.assert_allclose(values, expected, atol=1e-4)
    expected = [float(measure(before, x)) for measure in MEASURES.values()]
    np.testing.assert_allclose([found[name, "input"][1] for name in MEASURES], expected, atol=1e-4)
    shallow = similarities((2,), {}, 5, CutAt(network, 2), clip)
    for name in MEASURES:
        # What lies above a filter takes no part in its sonification.
        for layer in (3, 4):
            for alone in (False, True):
                assert np.isnan(found[name, randomised(layer, alone=alone)][0])
        # From the filter's own layer down to itself is that layer alone.
        assert shallow[name, randomised(2)][0] == shallow[name, randomised(2, alone=True)][0]


def CutAt(network, depth):  # noqa: N802
    return nn.Sequential(*list(network)[: 3 * depth])


def test_the_same_network_beside_itself_is_alike():
    result = sanity(stranger(), clips(), others={"twin": stranger(), "other": stranger(1)})
    for quantity, condition, least, most in (
        ("rank correlation", "twin", 1 - 1e-6, 1 + 1e-6),
        ("log-spectral distance", "twin", -1e-6, 1e-6),
        ("rank correlation", "other", -1, 0.9),
    ):
        rows = result.select(quantity=quantity, condition=condition)
        assert [row.layer for row in rows] == [1, 2, 3, 4]
        assert all(least <= row.mean <= most for row in rows)
    assert result.data.skipped == {"silent": 1}


def test_curves_are_the_same_again_and_in_a_file_and_others_with_another_seed(tmp_path):
    first, second = (sanity(stranger(), clips(), layers=[4], seed=1) for _ in range(2))
    assert first == second
    assert first.rows != sanity(stranger(), clips(), layers=[4], seed=2).rows
    first.write(tmp_path / "sanity.json")
    assert ResultTable.read(tmp_path / "sanity.json") == first


def test_dead_maps_are_counted_and_never_nan():
    network = stranger()
    with torch.no_grad():
        network[3].bias.fill_(-1e6)  # the second layer hears nothing
    result = sanity(network, clips(), layers=[1, 2])
    dead = result.select(quantity="rank correlation", layer=2, condition=randomised(1))
    assert [(row.clips, row.mean) for row in dead] == [(0, None)]
    live = result.select(quantity="rank correlation", layer=1, condition=randomised(1))
    assert [row.clips for row in live] == [4]


def test_what_is_refused():
    with pytest.raises(AnalysisError, match="'input' names two things"):
        sanity(stranger(), clips(), others={"input": stranger()})
    with pytest.raises(LayerError, match="Layer 9 does not exist: choose 1 to 4"):
        sanity(stranger(), clips(), layers=[9])
    with pytest.raises(LayerError, match="Layer 4 does not exist"):
        sanity(stranger(), clips(), others={"short": CutAt(stranger(), 3)})


def test_command(tmp_path, capsys):
    out, figure = tmp_path / "sanity.json", tmp_path / "sanity.png"
    asked = "analyse sanity random:1 random:2 -d soundscapes -o size=2 -o duration=1.5 --layers 1,3"
    rest = ["--width", "0.03125", "--processes", "1", "--out", str(out), "--figure", str(figure)]
    assert main([*asked.split(), *rest]) == 0
    assert "two random networks" in capsys.readouterr().out
    assert set(json.loads(out.read_text())["networks"]) == {"random:1", "random:2"}
    assert figure.stat().st_size > 10_000
    assert main([*asked.replace("1,3", "x").split(), *rest]) == 2


def test_clips_keep_their_random_weights_in_any_order():
    two = list(clips(2))
    network, work = stranger(), partial(by_clip, partial(similarities, (3,), {}, 0))
    forth, back = work(network, two), work(network, two[::-1])
    renamed = work(network, [replace(two[0], clip_id="another")])
    for name in MEASURES:
        cascading = name, randomised(1)
        assert np.array_equal(forth[cascading], back[cascading][::-1])
        assert renamed[cascading][0] != forth[cascading][0]
