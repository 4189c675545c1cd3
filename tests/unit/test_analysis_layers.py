"""Coherence, selectivity and activity layer by layer, against scipy and naive loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clips import AtRate, Held, noise
from oracles import own_network, plain_stack
from scipy import signal
from torch import nn

from sonibook.analysis.coherence import coherence_by_layer, selectivity_by_layer, spectral_shape
from sonibook.analysis.controls import partners
from sonibook.analysis.networks import (
    Network,
    as_networks,
    random_twin,
    with_random_weights,
)
from sonibook.analysis.result import ResultTable, Row, fingerprint
from sonibook.datasets import Dataset, open_dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.model.encoder import CNN12
from sonibook.plots.features import coherence_figure, selectivity_figure


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    return open_dataset("soundscapes", size=6, duration=0.6, seed=4)


@pytest.fixture(scope="module")
def network() -> CNN12:
    """No filter of layer 10 ever responds, so that layer 11 is dead, too."""
    network = CNN12(width=1 / 16, seed=1).eval()
    with torch.no_grad():
        network.features.conv10.bias.fill_(-1000.0)
    return network


@pytest.fixture(scope="module")
def coherences(network: CNN12, scenes: Dataset) -> ResultTable:
    return coherence_by_layer({"tiny": network}, scenes, k=3, nperseg=128, noverlap=32)


@pytest.fixture(scope="module")
def selective(network: CNN12, scenes: Dataset) -> ResultTable:
    return selectivity_by_layer({"tiny": network}, scenes, filters=2)


def stranger() -> nn.Sequential:
    return own_network(4, 6, 8, 10, seed=1)


def top_coherence(x: np.ndarray, s: np.ndarray) -> float:
    _, values = signal.coherence(
        x.astype(np.float64), s.astype(np.float64), nperseg=128, noverlap=32
    )
    return float(np.sort(values)[-3:].mean())


@pytest.mark.filterwarnings("ignore:.*silent")
def test_coherence_is_the_mean_over_clips_of_scipys(network, scenes, coherences) -> None:
    rows = coherences.select(network="tiny", condition="")
    others_rows = coherences.select(network="tiny", condition="another clip")
    heard = [ForwardPass(network, clip.waveform).sonify_most_active()[0].numpy() for clip in scenes]
    for row, beside in zip(rows[:9], others_rows, strict=False):
        sounds = [s[row.layer - 1] for s in heard]
        own = [top_coherence(clip.waveform, s) for clip, s in zip(scenes, sounds, strict=True)]
        assert row.mean == pytest.approx(np.mean(own), abs=1e-10)
        assert row.low < row.mean < row.high
        assert row.clips == 6
        others = partners(list(scenes))
        strange = [
            top_coherence(clip.waveform, sounds[other])
            for clip, other in zip(scenes, others, strict=True)
        ]
        assert beside.mean == pytest.approx(np.mean(strange), abs=1e-10)
    for row in rows[9:]:
        assert row.mean is None
        assert row.clips == 0


def test_another_seed_of_random_weights_is_a_baseline_too(network, scenes) -> None:
    other = CNN12(width=1 / 16, seed=1).eval()
    networks = [Network("mine", network), Network("r", other, "random", seed=1, baseline=True)]
    found = coherence_by_layer(networks, scenes, limit=2).select(layer=1, condition="")
    assert [(row.network, row.regime, row.seed, row.baseline) for row in found] == [
        ("mine", "mine", 0, False),
        ("r", "random", 1, True),
        ("random weights", "random", 0, True),
    ]


def test_baselines_stand_beside_the_network(network, coherences) -> None:
    assert coherences.names() == ["tiny", "random weights"]
    assert {row.network for row in coherences.select(baseline=True)} == {"random weights"}
    assert coherences.networks["tiny"] == fingerprint(network)
    own, other = (
        coherences.row("coherence", network="tiny", layer=1, condition=condition)
        for condition in ("", "another clip")
    )
    noise = coherences.row("coherence", condition="white noise")
    assert noise.mean < 0.3 < own.mean
    assert other.mean < 0.6 * own.mean
    assert noise.clips == 6


def test_random_weights_are_one_for_each_shape_and_differ_by_seed(network) -> None:
    plain = plain_stack(network)
    same = {"a": network, "b": CNN12(width=1 / 16, seed=9).eval()}
    found = with_random_weights(same, seed=0)
    assert [one.name for one in found] == ["a", "b", "random weights"]
    mixed = with_random_weights({"a": network, "mine": stranger()}, seed=0)
    assert [one.name for one in mixed[2:]] == ["random weights (a)", "random weights (mine)"]
    fresh = [with_random_weights({"a": plain}, seed=seed)[-1].module for seed in (0, 0, 1)]
    prints = [fingerprint(one) for one in fresh]
    assert prints[0] == prints[1] != prints[2]
    weight = dict(fresh[0].named_parameters())["26.weight"]
    assert float(weight.detach().std()) == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.1)
    for name, value in fresh[0].named_parameters():
        if name.endswith("bias"):
            assert not value.any()
    with pytest.raises(AnalysisError, match="name yours otherwise"):
        with_random_weights({"random weights": network}, seed=0)
    with pytest.raises(AnalysisError, match="Two networks are called 'a'"):
        as_networks([Network("a", network), Network("a", plain)])


@pytest.mark.parametrize("after", [False, True])
def test_a_random_twin_normalises_by_a_few_clips_of_its_own_data(after) -> None:
    norm, relu = nn.BatchNorm1d(6), nn.ReLU()
    layers = [nn.Conv1d(1, 6, 9, stride=2), *((relu, norm) if after else (norm, relu))]
    network = nn.Sequential(*layers, nn.Conv1d(6, 4, 5), nn.BatchNorm1d(4), nn.ReLU()).eval()
    for one in (network[1 + after], network[4]):
        for values in (one.weight, one.bias, one.running_mean, one.running_var):
            values.data.uniform_(3.0, 9.0)
    data = Held([noise(n, n) for n in (2000, 3000, 2500)], [0, 1, 0])
    twin = random_twin(network, data, seed=1)
    x = torch.from_numpy(np.stack([one[:2000] for one in data.waveforms]))[:, None]
    convs = [one for one in twin if isinstance(one, nn.Conv1d)]
    with torch.no_grad():
        for conv in convs:  # by hand: one layer after the other, over clips and time
            y = F.conv1d(x, conv.weight, stride=conv.stride)
            y = y.relu() if after and conv is convs[0] else y
            mean, var = y.mean(dim=(0, 2)), y.var(dim=(0, 2))
            y = (y - mean[:, None]) / (var[:, None] + 1e-5).sqrt()
            x = y if after and conv is convs[0] else y.relu()
        passed = FeatureMaps(twin, np.stack([one[:2000] for one in data.waveforms])[:, None])
    torch.testing.assert_close(passed.maps[1], x, rtol=2e-3, atol=2e-3)
    assert not any(one.training for one in twin if isinstance(one, nn.BatchNorm1d))
    assert fingerprint(random_twin(network, data, seed=1)) == fingerprint(twin)
    assert fingerprint(random_twin(network, data, seed=2)) != fingerprint(twin)
    by_name = with_random_weights({"own": network}, data, seed=1)[-1]
    assert fingerprint(by_name.module) == fingerprint(twin)


def test_clips_of_one_segment_are_skipped_and_counted() -> None:
    short = Held([noise(383, 0), noise(384, 1)], [0, 0])  # too few for two by one, and just enough
    result = coherence_by_layer({"mine": stranger()[:3]}, short)
    assert result.data.skipped == {"short": 1}
    assert result.data.clips == 1
    row = result.row("coherence", network="mine", layer=1)
    assert row.clips == 1
    assert row.low is None
    # The one clip has no other beside it.
    alone = result.row("coherence", network="mine", layer=1, condition="another clip")
    assert alone.clips == 0


@pytest.mark.usefixtures("quick_processes")
def test_processes_give_the_same(network, scenes, coherences) -> None:
    again = coherence_by_layer(
        {"tiny": network}, scenes, k=3, nperseg=128, noverlap=32, processes=2, chunk=16
    )
    assert again == coherences


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"k": 130}, "k 130 is impossible: choose 1 to 129"),
        ({"noverlap": 256}, "do not make segments"),
    ],
)
def test_impossible_settings_are_refused(network, scenes, options, reason) -> None:
    with pytest.raises(AnalysisError, match=reason):
        coherence_by_layer({"tiny": network}, scenes, **options)
    with pytest.raises(AnalysisError, match="filters -1"):
        selectivity_by_layer({"tiny": network}, scenes, filters=-1)


def test_own_network_goes_through_both(scenes) -> None:
    mine = {"mine": stranger()}
    coherence = coherence_by_layer(mine, scenes, limit=3)
    selectivity = selectivity_by_layer(mine, scenes, limit=3, filters=1)
    own = coherence.select(network="mine", condition="")
    assert len(own) == len(selectivity.select(network="mine", quantity="live maps")) == 4
    assert own[0].mean > 0.5


def test_spectral_shape_of_known_sounds() -> None:
    time = np.arange(80_000) / 8000
    noise = np.random.default_rng(0).standard_normal(80_000)
    tone = np.sin(2 * np.pi * 1000 * time)
    two = tone + np.sin(2 * np.pi * 3000 * time)
    centroid, bandwidth, entropy = spectral_shape(np.stack([noise, tone, two])).T
    np.testing.assert_allclose(centroid, [2000, 1000, 2000], rtol=0.02)
    # A flat spectrum over 4000 Hz has a standard deviation of 4000 / sqrt(12).
    np.testing.assert_allclose(bandwidth[[0, 2]], [4000 / 12**0.5, 1000], rtol=0.02)
    assert bandwidth[1] < 25
    assert entropy[0] > 0.99
    assert entropy[1] < entropy[2] < 0.35


def test_spectral_shape_by_a_naive_sum_and_without_regard_to_gain() -> None:
    x = np.random.default_rng(1).standard_normal(2000).cumsum()
    frequency, _, frames = signal.stft(
        x, 8000, nperseg=256, boundary=None, padded=False, detrend="constant"
    )
    power = (np.abs(frames) ** 2).mean(axis=1)
    power[1:-1] *= 2
    p = power / power.sum()
    centroid = sum(p * frequency)
    expected = [
        centroid,
        sum(p * (frequency - centroid) ** 2) ** 0.5,
        -sum(p * np.log(p)) / np.log(129),
    ]
    np.testing.assert_allclose(spectral_shape(x), expected, rtol=1e-9)
    np.testing.assert_allclose(spectral_shape(-1e-3 * x), expected, rtol=1e-9)
    assert np.isnan(spectral_shape(np.zeros(500))).all()


@pytest.mark.filterwarnings("ignore:.*silent")
def test_selectivity_by_hand(network, scenes, selective) -> None:
    passes = [ForwardPass(network, clip.waveform) for clip in scenes]
    for layer in range(1, 12):
        maps = [one.maps[layer - 1][0].numpy() for one in passes]
        live = [(values > 0).any(axis=1).mean() for values in maps]
        steps = [(values > 0).mean() for values in maps]

        def row(quantity: str, condition: str = "", layer: int = layer) -> Row:
            return selective.row(quantity, network="tiny", layer=layer, condition=condition)

        assert row("live maps").mean == pytest.approx(np.mean(live), rel=1e-6)
        assert row("live steps").mean == pytest.approx(np.mean(steps), rel=1e-6)
        assert row("entropy").clips == sum(share > 0 for share in live)
        shapes = np.stack([
            spectral_shape(one.sonify_most_active([layer])[0][0].numpy()) for one in passes
        ])  # fmt: skip
        if layer < 10:
            assert row("centroid").mean == pytest.approx(shapes[:, 0].mean(), rel=1e-4)
            assert row("entropy").mean == pytest.approx(shapes[:, 2].mean(), rel=1e-4)
            assert row("centroid", "drawn").clips == 6
        else:
            assert row("centroid").clips == 0
            assert row("centroid").mean is None
    inputs = np.stack([spectral_shape(clip.waveform) for clip in scenes])
    own = selective.row("bandwidth", condition="the clips themselves")
    assert own.mean == pytest.approx(inputs[:, 1].mean(), rel=1e-12)


@pytest.mark.filterwarnings("ignore:.*silent")
def test_hertz_are_those_of_the_data_sets_sampling_rate(network) -> None:
    found = []
    for rate in (8000, 16_000):
        clips = AtRate(open_dataset("soundscapes", size=2, duration=0.8), rate)
        found.append(selectivity_by_layer({"tiny": network}, clips, filters=0))
    for quantity, factor in (("centroid", 2), ("bandwidth", 2), ("entropy", 1)):
        for place in ({"network": "tiny", "layer": 1}, {"condition": "the clips themselves"}):
            slow, fast = (one.row(quantity, **place).mean for one in found)
            assert fast == pytest.approx(factor * slow)


def test_all_filters_drawn_are_all_live_filters(scenes) -> None:
    mine, place = stranger()[:3], {"network": "mine", "layer": 1}
    every = selectivity_by_layer({"mine": mine}, scenes, filters=99)
    means = []
    for clip in scenes:
        passed = ForwardPass(mine, clip.waveform)
        live = torch.nonzero(passed.energy(1)[0])[:, 0].tolist()
        means.append(spectral_shape(passed.sonify(1, live).numpy()).mean(axis=0))
    drawn = every.row("centroid", condition="drawn", **place)
    assert drawn.mean == pytest.approx(np.mean(means, axis=0)[0], rel=1e-6)
    none = selectivity_by_layer({"mine": mine}, scenes, filters=0)
    assert not none.select(condition="drawn")
    assert none.row("centroid", **place) == every.row("centroid", **place)


def test_figures_show_what_the_results_say(coherences, selective, tmp_path) -> None:
    coherences.write(tmp_path / "c.json")
    selective.write(tmp_path / "s.json")
    picture = coherence_figure(ResultTable.read(tmp_path / "c.json"))
    (axes,) = picture.figure.axes
    shown = axes.lines[0].get_ydata()
    means = [row.mean for row in coherences.select(network="tiny", condition="")]
    np.testing.assert_allclose(shown[:9], means[:9])
    assert np.isnan(shown[9:]).all()
    labels = [text.get_text() for text in picture.figure.legends[0].get_texts()]
    assert labels == ["tiny", "random weights", "another clip", "white noise"]
    assert f"tiny: {means[0]:.2g} at layer 1" in picture.alt
    result = ResultTable.read(tmp_path / "s.json")
    for drawn in (False, True):
        picture = selectivity_figure(result, drawn=drawn)
        condition = "drawn" if drawn else ""
        rows = result.select(network="tiny", quantity="entropy", condition=condition)
        shown = picture.figure.axes[2].lines[0].get_ydata()
        np.testing.assert_allclose(shown[:9], [row.mean for row in rows[:9]])
    assert "filters drawn at random" in picture.alt
    none = result.model_copy(update={"settings": {"filters": 0, "seed": 0}})
    with pytest.raises(ValueError, match="measure again"):
        selectivity_figure(none, drawn=True)
