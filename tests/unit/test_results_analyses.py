"""Shifts, top clips and stimulation, against definitions written out."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from sonibook import sonify
from sonibook.analysis.activations import (
    TopClipsResult,
    chosen_filter,
    top_activations,
    top_clip_agreement,
)
from sonibook.analysis.coherence import coherence_by_layer
from sonibook.analysis.controls import STIMULI, TAKEN, matched, partners, random_phase, stimulation
from sonibook.analysis.result import MeasuredOn, ResultTable, Row
from sonibook.analysis.shifts import downsampling, is_exact, shift_law, spectral_lines
from sonibook.analysis.sources import SOURCE_SCORES, SceneClips, source_scores
from sonibook.analysis.stream import seeded
from sonibook.datasets import Dataset, open_dataset
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.model.encoder import CNN12
from sonibook.plots.features import top_clips_figure
from sonibook.plots.interventions import downsampling_figure, shifts_figure, stimulation_figure


@pytest.fixture(scope="module")
def network() -> CNN12:
    return CNN12(width=1 / 16, seed=1).eval()


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    return open_dataset("soundscapes", size=6, duration=1.5, seed=4, task="single-label")


@pytest.fixture(scope="module")
def law(network: CNN12, scenes: Dataset) -> ResultTable:
    return shift_law({"tiny": network}, scenes, shifts=(1, 16, 256, 1024), limit=3)


def test_shifts_by_multiples_of_the_stride_are_exact_and_others_are_not(law: ResultTable) -> None:
    for row in law.select(quantity="cosine"):
        stride = law.row("stride", network="tiny", layer=row.layer).mean
        assert stride == 2 ** min(row.layer, 8)
        assert is_exact(law, row) == (int(row.condition) % stride == 0)
        assert row.mean is not None
        if is_exact(law, row):
            assert row.mean > 0.9999
        elif row.condition == "1":
            assert row.mean < 0.95


def test_a_shifts_cosine_is_that_of_the_definition(
    law: ResultTable, network: CNN12, scenes: Dataset
) -> None:
    cosines = []
    for index in (0, 2, 4):  # three of six, evenly spaced
        x = scenes[index].waveform
        chosen = FeatureMaps(network, x).most_active(4)[0]
        first, later = (
            sonify(network, sound, layer=4, filters=[chosen], rescale=False)[0].numpy()
            for sound in (x, x[1:])
        )
        margin = 1 + 6 + 2 * 6 + 4 * 4 + 8 * 4 + (1 + 2 + 4 + 8)  # kernels 7 7 5 5, pools of 2
        a, b = later[margin:].astype(float), first[1 + margin :].astype(float)
        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    row = law.row("cosine", network="tiny", layer=4, condition="1")
    assert row.mean == pytest.approx(np.mean(cosines), abs=1e-6)


def test_lines_are_those_of_a_grid_and_of_nothing_else():
    time = np.arange(16000)
    draw = np.random.default_rng(0)
    noise = draw.standard_normal((300, 16000))
    assert spectral_lines(torch.from_numpy(noise), 16).mean().abs() < 1
    # Values of mean zero at every 16th sample repeat their spectrum and have no lines; positive
    # ones, as after ReLU, have.
    held = torch.from_numpy(np.where(time % 16 == 0, noise, 0.0))
    assert spectral_lines(held, 16).mean().abs() < 3
    assert spectral_lines(held.abs(), 16).min() > 15
    pattern = np.tile(draw.standard_normal(16), 1000)[None]
    assert spectral_lines(torch.from_numpy(pattern + 0.1 * noise[:3]), 16).min() > 20
    # A tone between the lines lowers what it is compared with, at one of eight places alone.
    tone = np.sin(2 * np.pi * 750 / 8000 * time)[None]
    lines = [
        float(spectral_lines(gain * torch.from_numpy(tone + 0.1 * noise[:1]), 16))
        for gain in (1, 5)
    ]
    assert lines[0] < 0
    assert lines[0] == pytest.approx(lines[1])
    assert spectral_lines(torch.zeros(1, 16000), 16).isnan().all()
    assert spectral_lines(torch.ones(1, 100), 16).isnan().all()  # too short to tell lines apart


def test_a_grid_is_measured_by_the_definitions_of_the_other_analyses(network: CNN12) -> None:
    data = open_dataset("soundscapes", size=2, duration=1.5, seed=4)
    strided = CNN12(width=1 / 16, downsample="stride", seed=1).eval()
    result = downsampling({"pooled": network, "strided": strided}, data)
    coherences = coherence_by_layer({"pooled": network, "strided": strided}, SceneClips(data))
    alt = downsampling_figure(result).alt
    assert "by max-pools and by strides, layer by layer, over 2 clips" in alt
    assert "lines of the grid" in alt
    for name, module in (("pooled", network), ("strided", strided)):
        law = shift_law({name: module}, data, shifts=(1, 256))
        for layer in (1, 5, 11):
            own = {"network": name, "layer": layer}
            assert result.row("coherence", **own).mean == pytest.approx(
                coherences.row("coherence", condition="", **own).mean
            )
            for shift in ("1", "256"):
                assert result.row("cosine", condition=shift, **own).mean == pytest.approx(
                    law.row("cosine", condition=shift, **own).mean
                )
            ratios, lines = [], []
            for clip in map(SceneClips(data).__getitem__, range(2)):
                x = torch.from_numpy(clip.waveform)
                chosen = FeatureMaps(module, x).most_active(layer)[0]
                s = sonify(module, x, layer=layer, filters=[chosen], rescale=False)
                if len(clip.stems) > 1:
                    scores = source_scores(s, x, clip.stems)
                    ratios.append(float(scores[0, SOURCE_SCORES.index("SI-SDR")]))
                step = 2 ** min(layer, 8)
                lines.append(float(spectral_lines(s, step) - spectral_lines(x[None], step)))
            assert result.row("SI-SDR", **own).mean == pytest.approx(np.mean(ratios))
            if layer == 1:  # a grid of two samples has its line at half the sampling rate
                assert np.isfinite(lines).all()
            if np.isfinite(lines).all():
                assert result.row("lines", **own).mean == pytest.approx(np.mean(lines))


def test_a_shift_longer_than_the_clip_is_counted_as_not_measured(
    network: CNN12, scenes: Dataset
) -> None:
    found = shift_law({"tiny": network}, scenes, shifts=(99_999,), limit=2)
    assert {row.clips for row in found.select(quantity="cosine")} == {0}
    with pytest.raises(AnalysisError, match="one sample or more"):
        shift_law({"tiny": network}, scenes, shifts=(0,))


@pytest.fixture(scope="module")
def liked(network: CNN12, scenes: Dataset) -> TopClipsResult:
    return top_clip_agreement({"tiny": network}, scenes)


def test_agreement_is_the_share_of_pairs_that_share_a_class(
    liked: TopClipsResult, network: CNN12, scenes: Dataset
) -> None:
    tops = top_activations({"tiny": network}, scenes, k=3)
    assert {row.network for row in liked.select(baseline=True)} == {"random weights"}
    assert {pair.network for pair in liked.pairs} == {"tiny"}
    for layer in range(1, 12):
        place, shares = {"network": "tiny", "layer": layer}, []
        for one in tops.of_layer(**place):
            labels = [scenes.labels(top.index)[0] for top in one.top]
            if len(labels) == 3:
                shares.append(np.mean([a == b for a, b in combinations(labels, 2)]))
        found = liked.row("agreement", **place)
        assert found.mean == pytest.approx(np.mean(shares))
        assert found.clips == len(shares)
        assert liked.row("dead filters", **place) == tops.row("dead filters", **place)
    labels = [scenes.labels(index)[0] for index in range(len(scenes))]
    chance = liked.row("agreement", condition="chance").mean
    assert chance == pytest.approx(np.mean([a == b for a, b in combinations(labels, 2)]))


def test_the_rule_chooses_the_pair(liked: TopClipsResult, network: CNN12, scenes: Dataset) -> None:
    tops = top_activations({"tiny": network}, scenes, k=3)
    for layer, pair in zip(range(1, 12), liked.pairs, strict=True):
        filters = tops.of_layer("tiny", layer)
        chosen = chosen_filter(filters, scenes)
        assert chosen is not None
        assert (pair.filter, pair.clip) == (chosen.filter, chosen.top[0])
        for one in filters:
            labels = {scenes.labels(top.index)[0] for top in one.top}
            assert not (len(one.top) == 3 and len(labels) == 1) or pair.agreement == 1
        assert pair.label == scenes.classes[scenes.labels(pair.clip.index)[0]]
        assert 0 < pair.coherence <= 1


def test_agreement_of_clips_with_any_number_of_labels_is_their_classes_in_common(
    network: CNN12,
) -> None:
    many = open_dataset("soundscapes", size=12, duration=0.6, seed=4)
    assert many.task == "multi-label"
    found = top_clip_agreement({"tiny": network}, many)
    tops = top_activations({"tiny": network}, many, k=3)

    def shared(*places: int) -> float:
        sets = [set(many.labels(place)) for place in places]
        return float(np.mean([len(a & b) / len(a | b) for a, b in combinations(sets, 2)]))

    filters = [one for one in tops.of_layer("tiny", 5) if len(one.top) == 3]
    shares = [shared(*(top.index for top in one.top)) for one in filters]
    assert 0 < min(shares) + max(shares) < 2
    assert found.row("agreement", network="tiny", layer=5).mean == pytest.approx(np.mean(shares))
    chance = found.row("agreement", condition="chance").mean
    assert chance == pytest.approx(shared(*range(len(many))))
    pair = found.pairs[4]
    labels = [many.classes[label] for label in many.labels(pair.clip.index)]
    assert pair.label == ", ".join(labels)


@pytest.fixture(scope="module")
def stimulated(network: CNN12, scenes: Dataset) -> ResultTable:
    return stimulation({"tiny": network}, scenes, limit=3)


def test_levels_are_those_of_the_definition(
    stimulated: ResultTable, network: CNN12, scenes: Dataset
) -> None:
    clips = [scenes[index] for index in (0, 2, 4)]
    layer, heard, left = 5, [], []
    for clip in clips:
        x = torch.from_numpy(clip.waveform)
        before = FeatureMaps(network, x).energy(layer)[0]
        chosen = int(before.argmax())
        s = sonify(network, x, layer=layer, filters=[chosen])[0]
        turned = random_phase(s, generator=seeded(0, "stimulation", clip.clip_id, str(layer)))
        levels = []
        gain = float((x - s).square().mean().sqrt() / x.square().mean().sqrt())
        for sound in (matched(s, x), matched(turned, x), x - s, gain * x):
            energy = FeatureMaps(network, sound).energy(layer)[0, chosen]
            levels.append(10 * float(torch.log10(energy / before[chosen])))
        heard.append(levels[:2])
        left.append(levels[2:])
    without, quieter = np.mean(left, axis=0)
    for quantity, condition, expected in (
        ("heard", "sonification", np.mean(heard, axis=0)[0]),
        ("above", "random phase", -np.mean(np.diff(heard, axis=1))),
        ("left", "sonification", without),
        ("below", "the clip itself", quieter - without),
    ):
        row = stimulated.row(quantity, network="tiny", layer=layer, condition=condition)
        assert row.mean == pytest.approx(expected, abs=1e-3)
    for quantity, conditions in (("heard", STIMULI), ("left", TAKEN)):
        rows = stimulated.select(quantity=quantity, network="tiny", layer=layer)
        assert {row.condition for row in rows} == set(conditions)
    assert partners(clips) != [None] * 3


def test_results_come_back_from_json_and_are_drawn(
    tmp_path, law: ResultTable, liked: TopClipsResult, stimulated: ResultTable
) -> None:
    for result in (law, liked, stimulated):
        result.write(tmp_path / "result.json")
        assert type(result).read(tmp_path / "result.json") == result
    assert "3 clips" in shifts_figure(law).alt
    assert "layer 8, filter" in top_clips_figure(liked, "tiny", layers=(8, 11)).alt
    with pytest.raises(ValueError, match="has no pair"):
        top_clips_figure(liked, "random weights", layers=(8,))
    assert "Sonification: tiny, heard:" in stimulation_figure(stimulated).alt


def test_a_mean_over_seeds_is_students_and_pairs_networks_of_one_seed() -> None:
    rows = [
        Row(network=f"{regime} {seed}", regime=regime, seed=seed, quantity="q", mean=mean, clips=9)
        for regime, means in (("own", (0.5, 0.9, 0.4)), ("start", (0.1, 0.2, 0.3)), ("one", (1.0,)))
        for seed, mean in enumerate(means)
    ]
    data = MeasuredOn(dataset="d", split="all", size=9, clips=9, skipped={})
    table = ResultTable(analysis="a", data=data, networks={}, settings={}, rows=tuple(rows))
    for less, values in (("", [0.5, 0.9, 0.4]), ("start", [0.4, 0.7, 0.1])):
        found = table.over_seeds("q", "own", less)
        expected = stats.ttest_1samp(values, 0.0).confidence_interval()
        assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), *expected))
        assert found.clips == 3
    alone, none = table.over_seeds("q", "own", "one"), table.over_seeds("q", "nobody")
    assert (alone.mean, alone.low, alone.clips) == (-0.5, None, 1)
    assert (none.mean, none.clips) == (None, 0)
