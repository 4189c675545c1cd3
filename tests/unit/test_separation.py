"""Separation: measures against oracles, known mixtures, planted detectors, and scenes."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import Held
from oracles import noise, own_network
from sklearn.metrics import roc_auc_score
from torch import nn

from sonibook import CNN12, open_dataset
from sonibook.analysis.separation import (
    Separation,
    SeparationResult,
    areas,
    choose,
    map_onsets,
    onsets,
    separation,
)
from sonibook.analysis.sources import (
    SOURCE_SCORES,
    SceneClips,
    projected_shares,
    si_sdr,
    source_scores,
    spectral_shares,
)
from sonibook.cli import main
from sonibook.datasets.soundscapes import ComposedScenes, Soundscapes
from sonibook.deconvnet.alternatives import explain
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.model.stack import blocks_of, receptive_field


def tone(frequency, *, begin=0, end=8000, length=8000):
    time = torch.arange(length, dtype=torch.float64)
    return torch.sin(2 * np.pi * frequency / 8000 * time) * ((time >= begin) & (time < end))


def stranger():
    return own_network(6, 8, 8)


def tones():
    """Two sounds, a low and a high one."""
    sounds = [tone(hertz, length=12_000, end=12_000).float().numpy() for hertz in (400, 3000)]
    return Held(sounds, [0, 1], ("low", "high"), "tones")


# What a sound holds of its stems


def naive_si_sdr(s, stem):
    scale = sum(a * b for a, b in zip(s, stem, strict=True)) / sum(b * b for b in stem)
    target = [scale * b for b in stem]
    rest = sum((a - b) ** 2 for a, b in zip(s, target, strict=True))
    return 10 * np.log10(sum(a * a for a in target) / rest)


def test_si_sdr_equals_the_naive_formula_at_any_scale():
    s, stem = noise(500), noise(500, seed=1)
    s = s + 0.7 * stem
    expected = naive_si_sdr(s.tolist(), stem.tolist())
    for gain, other in ((1.0, 1.0), (-3.0, 1.0), (1e-4, 1e3)):
        assert float(si_sdr(gain * s, other * stem)) == pytest.approx(expected, abs=1e-9)


def test_si_sdr_of_a_known_mixture_and_at_its_limits():
    stem, other = tone(500), tone(1000)  # orthogonal, of one energy
    assert float(si_sdr(stem + 0.1 * other, stem)) == pytest.approx(20.0, abs=1e-6)
    assert float(si_sdr(tone(500, end=4000), tone(500, begin=4000))) == -np.inf
    assert float(si_sdr(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))) == np.inf
    silent = si_sdr(torch.stack([stem, 0 * stem]), torch.stack([0 * stem, stem]))
    assert silent.isnan().all()
    table = si_sdr(torch.stack([stem, other, stem + other])[:, None], torch.stack([stem, other]))
    assert table.shape == (3, 2)


def test_projected_shares_recover_a_known_mixture():
    stems = torch.stack([tone(500), tone(1000), tone(2000)])
    rest = 0.5 * tone(1500)
    s = 3 * stems[0] - 1 * stems[1] + rest
    shares = projected_shares(s[None], stems)[0]
    expected = np.array([9, 1, 0]) / 10.25
    np.testing.assert_allclose(shares.numpy(), expected, atol=1e-9)


def test_projected_shares_add_up_to_what_least_squares_explains():
    stems = noise(4, 300)
    stems[1] += 2 * stems[0]  # correlated
    s = noise(5, 300, seed=1) + noise(5, 4, seed=2) @ stems
    shares = projected_shares(s, stems).numpy()
    for sound, row in zip(s.numpy(), shares, strict=True):
        solution = np.linalg.lstsq(stems.numpy().T, sound, rcond=None)[0]
        explained = np.square(solution @ stems.numpy()).sum() / np.square(sound).sum()
        assert row.sum() == pytest.approx(explained, abs=1e-9)
        assert explained < 1
    assert (shares >= 0).all()
    order = [2, 0, 3, 1]
    again = projected_shares(s, torch.tensor([5.0, 1, 0.1, 2])[order, None] * stems[order])
    np.testing.assert_allclose(again.numpy(), shares[:, order], atol=1e-9)


def test_projected_shares_of_copies_and_silence():
    stem, other = tone(500), tone(1000)
    shares = projected_shares(torch.stack([stem, 0 * stem]), torch.stack([stem, -stem, other]))
    np.testing.assert_allclose(shares[0].numpy(), [0.5, 0.5, 0.0], atol=1e-6)
    assert shares[1].isnan().all()
    assert projected_shares(stem[None], torch.stack([stem, 0 * stem]))[0, 1] == 0


def test_spectral_shares_count_a_filtered_stem_in_full():
    stems = torch.stack([tone(500, end=3000) + tone(3000, end=3000), tone(1500, begin=4000)])
    low = tone(500, end=3000)  # half of the first stem's bands, shifted in phase
    s = torch.stack([torch.roll(low, 3), stems[1], stems.sum(dim=0), 0 * low])
    shares = spectral_shares(s, stems)
    np.testing.assert_allclose(shares[0].numpy(), [1, 0], atol=1e-3)
    np.testing.assert_allclose(shares[1].numpy(), [0, 1], atol=1e-3)
    np.testing.assert_allclose(shares[2].numpy(), [0.6, 0.4], atol=5e-3)  # as the energies
    assert shares[3].isnan().all()
    elsewhere = spectral_shares(noise(1, 8000), stems * 0)
    assert float(elsewhere.sum()) == 0.0


def test_shares_never_exceed_one():
    stems, s = noise(3, 4000), noise(6, 4000, seed=1) + noise(4000)
    for shares in (projected_shares(s, stems), spectral_shares(s, stems)):
        assert (shares >= 0).all()
        assert (shares.sum(dim=1) <= 1 + 1e-9).all()


def test_source_scores_are_read_against_the_mixture():
    stems = torch.stack([2 * tone(500), tone(1000)])
    mixture = stems.sum(dim=0)
    s = torch.stack([mixture, stems[1] + 0.1 * stems[0], torch.zeros(8000, dtype=torch.float64)])
    rows = source_scores(s, mixture, stems)
    assert rows.shape == (3, len(SOURCE_SCORES))
    whole, second = (dict(zip(SOURCE_SCORES, row.tolist(), strict=True)) for row in rows[:2])
    assert whole["main stem's share"] == pytest.approx(0.8, abs=2e-3)
    assert whole["gain in share"] == pytest.approx(0.0, abs=1e-9)
    assert whole["SI-SDR gain"] == pytest.approx(0.0, abs=1e-9)
    assert whole["explained share"] == pytest.approx(1.0)
    assert second["gain in share"] == pytest.approx(1 / 1.04 - 0.2, abs=2e-3)
    assert second["SI-SDR"] == pytest.approx(10 * np.log10(25), abs=1e-6)
    assert second["SI-SDR gain"] == pytest.approx(10 * np.log10(25 * 4), abs=1e-6)
    assert rows[2].isnan().all()


# Detectors


def test_areas_equal_scikit_learn_with_ties():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 6, (80, 5)).astype(float)
    present = generator.random((80, 3)) < 0.3
    present[:, 2] = True
    found = areas(scores, present)
    for filter_, row in enumerate(found):
        for label in range(2):
            expected = roc_auc_score(present[:, label], scores[:, filter_])
            assert row[label] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(found[:, 2]).all()


def test_a_planted_detector_is_found_and_chance_is_unmasked():
    generator = np.random.default_rng(1)
    present = generator.random((200, 3)) < 0.3
    present[:, 2] = False
    scores = generator.standard_normal((200, 2000))
    scores[:, 1234] += 3.0 * present[:, 0]
    found = choose(scores, present)
    assert found.classes.tolist() == [0, 1]
    assert found.filters[0] == 1234
    assert found.area[0] > 0.9
    assert found.p[0] < 1e-6
    # The best of 2,000 filters of noise looks good where it was chosen, and nowhere else.
    assert found.chosen_area[1] > 0.7
    assert abs(found.area[1] - 0.5) < 0.15
    assert found.p[1] > 0.05
    (low, high), mean = found.interval[1], found.area.mean()
    assert low < found.area[1] < high
    assert found.mean_interval[0] < mean < found.mean_interval[1]
    expected = roc_auc_score(present[1::2, 0], scores[1::2, 1234])
    assert found.area[0] == pytest.approx(expected)


def test_redrawn_areas_are_those_of_redrawn_clips():
    generator = np.random.default_rng(2)
    present = generator.random((60, 1)) < 0.4
    scores = generator.integers(0, 8, (60, 1)) + 2.0 * present
    found = choose(scores, present, seed=7)
    times = np.random.default_rng(7).multinomial(30, np.full(30, 1 / 30), size=2000)
    for draw in range(5):
        rows = np.repeat(np.arange(30), times[draw])
        expected = roc_auc_score(present[1::2][rows, 0], scores[1::2][rows, 0])
        assert found.redrawn[draw, 0] == pytest.approx(expected, abs=1e-12)


def test_too_few_clips_choose_no_detector():
    found = choose(np.zeros((4, 3)), np.array([[True], [False], [True], [False]]))
    assert found.filters.size == found.area.size == found.p.size == 0


# Onsets


def test_onsets_of_sounds():
    x = torch.stack([tone(440, begin=1600), 0.05 * tone(440), torch.zeros(8000).double()])
    x[1, 4000:] = 1.0
    found = onsets(x, sample_rate=8000)
    assert found[0] == pytest.approx(0.2, abs=1e-3)
    assert found[1] == 0.5
    assert found[2].isnan()


@pytest.mark.parametrize("padding", [0, 4])
def test_map_onsets_follow_the_sound_whatever_the_bias(padding):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(1, 1, 9, padding=padding), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(1, 1, 5),
        nn.ReLU(), nn.MaxPool1d(2),
    ).requires_grad_(False)  # fmt: skip
    for conv in (network[0], network[3]):
        conv.weight.abs_()
        conv.bias.fill_(3.0)
    blocks = blocks_of(network)
    for begin in (1000, 3333):
        click = torch.zeros(8000)
        click[begin] = 1.0
        maps, quiet = (FeatureMaps(network, x).maps[-1][0] for x in (click, torch.zeros(400)))
        middle = quiet[:, quiet.shape[1] // 2]
        found = float(map_onsets(maps[:, 20:-20], middle, blocks, sample_rate=8000)[0])
        # The click lies within what the first step hears, a few milliseconds wide.
        assert abs(found + 20 * 4 / 8000 - begin / 8000) < 12 / 8000
    assert map_onsets(quiet, quiet.amax(dim=1), blocks, sample_rate=8000).isnan().all()


# Over scenes


class TwiceAsFast(Soundscapes):
    """The same samples, said to be of twice the rate: all takes half as long."""

    sample_rate = 16_000

    def scene(self, index):
        slow = copy(self)
        slow.sample_rate = 8000
        scene = Soundscapes.scene(slow, index)
        events = (
            replace(event, onset=event.onset / 2, offset=event.offset / 2) for event in scene.events
        )
        return replace(scene, events=tuple(events))


def test_seconds_are_those_of_the_data_sets_sampling_rate():
    options = {"size": 8, "duration": 6.0, "events": (1, 1), "seed": 1}
    slow, fast = (
        separation({"n": stranger()}, data(**options), filters=1)
        for data in (Soundscapes, TwiceAsFast)
    )
    assert fast.row("lag of input").clips > 2
    for place in ({}, *({"network": "n", "layer": layer} for layer in (1, 2, 3))):
        for quantity in ("lag of map", "lag of sound") if place else ("lag of input",):
            lags = [result.row(quantity, **place).mean for result in (slow, fast)]
            assert lags[1] == pytest.approx(lags[0] / 2)


def test_only_scenes_are_taken():
    with pytest.raises(AnalysisError, match="stems of tones are not known"):
        separation({"n": stranger()}, tones())
    data = Soundscapes(size=2)
    clip = SceneClips(data)[1]
    assert np.array_equal(clip.waveform, data[1].waveform)
    assert torch.equal(clip.stems.sum(dim=0), torch.from_numpy(clip.waveform))


def test_a_strangers_network_over_scenes(tmp_path):
    data = Soundscapes(size=8, duration=1.5, events=(1, 3), seed=3)
    result = separation({"mine": stranger(), "twin": stranger()}, data, filters=2)
    several = sum(len(data.scene(n).events) > 1 for n in range(8))
    assert 0 < several < 8
    assert result.row("sources").clips == several

    def values(network):
        rows = result.select(network=network, layer=2, quantity=set(SOURCE_SCORES))
        return {row.quantity: (row.mean, row.low, row.high, row.clips) for row in rows}

    assert result.row("SI-SDR", network="mine", layer=2).clips == several
    assert not result.select(network="mine", quantity="lead of first")
    assert values("twin") == values("mine")
    assert result.row("lead of first", network="twin", layer=2).mean == 0.0
    assert {row.network for row in result.select(baseline=True)} == {"random weights"}
    assert values("random weights") != values("mine")
    assert result == separation({"mine": stranger(), "twin": stranger()}, data, filters=2)
    result.write(tmp_path / "separation.json")
    assert SeparationResult.read(tmp_path / "separation.json") == result


def test_a_scenes_row_is_what_its_words_say():
    data = Soundscapes(size=6, duration=4.0, events=(2, 2), seed=1)
    scenes, network = SceneClips(data), stranger()
    clips = [scenes[n] for n in range(6)]
    measure = Separation(1, receptive_field(blocks_of(network), 3), 8000)
    found, of_clips, timed = measure(network, clips), measure.of_clips(clips), 0
    for row, clip in enumerate(clips):
        maps = FeatureMaps(network, torch.from_numpy(clip.waveform))
        np.testing.assert_allclose(found["energy"][row, 6:14], maps.energy(2)[0].numpy(), rtol=1e-5)
        first, second = clip.events[0].onset, clip.events[1].onset
        alone = second - first >= 0.5 and first >= receptive_field(blocks_of(network), 3) / 8000
        assert np.isfinite(of_clips["lag of input"][row]) == alone
        if alone:
            x = np.abs(clip.waveform[: round(second * 8000)])
            expected = np.flatnonzero(x >= 0.1 * x.max())[0] / 8000 - first
            assert of_clips["lag of input"][row] == pytest.approx(expected)
            timed += 1
        lags = np.stack([found["lag of map"][row], found["lag of sound"][row]])
        assert np.isfinite(lags).any() == alone
    assert 0 < timed < 6


def test_filters_that_are_made_for_it_separate_and_detect():
    """Band-pass filters tell high events from low ones; a filter that passes all does not."""
    taps = torch.arange(33) - 16.0
    window = torch.hann_window(33, periodic=False)
    low, high = (torch.cos(2 * np.pi * f / 8000 * taps) * window for f in (400, 3000))
    network = nn.Sequential(nn.Conv1d(1, 2, 33), nn.ReLU(), nn.MaxPool1d(4))
    network.requires_grad_(False)
    network[0].weight.copy_(torch.stack([low, high])[:, None])
    network[0].bias.zero_()
    everything = nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.ReLU()).requires_grad_(False)
    everything[0].weight.fill_(1.0)
    data = ComposedScenes(tones(), size=60, duration=1.0, events=(1, 2), gains=(0.0, 0.0))
    result = separation({"bands": network, "all": everything}, data, filters=1)
    share = "main stem's share"
    assert result.row(share, network="bands", layer=1).mean > 0.97
    assert result.row(share, network="all", layer=1).mean < 0.85
    assert result.row("lead of first", network="all", layer=1).low > 0.1
    own = {one.event: one for one in result.detectors if one.network == "bands"}
    assert [own["low"].filter, own["high"].filter] == [0, 1]
    assert all(one.area > 0.9 and one.p < 0.01 for one in own.values())


@pytest.mark.parametrize("method", ["guided backpropagation", "gradient x input"])
def test_other_explanations_are_put_to_the_same_test(method):
    data = Soundscapes(size=2, duration=1.0, events=(2, 2), seed=4)
    network, clip = stranger(), SceneClips(data)[0]
    found = Separation(1, 0, 8000, method)(network, [clip])
    x = torch.from_numpy(clip.waveform)
    (loudest,) = FeatureMaps(network, x).most_active(2)
    sound = explain(method, network, x, layer=2, filter=loudest)
    expected = source_scores(sound[None], x, clip.stems)[0]
    own = [found[name][0, 1] for name in SOURCE_SCORES]
    np.testing.assert_allclose(own, expected.numpy(), atol=1e-3)
    result = separation({"n": network}, data, filters=1, method=method)
    assert result.settings["method"] == method


def test_what_is_refused(capsys):
    with pytest.raises(AnalysisError, match="no network to analyse"):
        separation({}, Soundscapes(size=2))
    assert main(["analyse", "separation", "random", "--method", "gradcam"]) == 2
    assert "gradient x input" in capsys.readouterr().err
    with pytest.raises(AnalysisError, match="filters 0 is impossible"):
        separation({"n": stranger()}, Soundscapes(size=2), filters=0)


@pytest.mark.filterwarnings("ignore::sonibook.errors.SonibookWarning")
def test_scenes_of_silence_alone_are_skipped(data_root):
    data = open_dataset("soundscapes", root=data_root, mixture_of="esc10", size=4, duration=2.0)
    result = separation({"tiny": CNN12(width=1 / 32, seed=0).eval()}, data, filters=1)
    assert result.data.clips + sum(result.data.skipped.values()) == 4
    assert result.data.dataset == "scenes-of-esc10"
