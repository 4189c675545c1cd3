"""Filters through training: each step against what its network says alone, and its figure."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
import torch
from clips import AtRate
from scipy import signal, stats

from sonibook.analysis.evolution import (
    EvolutionResult,
    feature_evolution,
    packed,
    small_spectrogram,
    sonify_through_training,
    unpacked,
)
from sonibook.datasets import Dataset, open_dataset
from sonibook.deconvnet.backward import ForwardPass, sonify
from sonibook.errors import AnalysisError, LayerError
from sonibook.model.encoder import CNN12
from sonibook.plots.training import evolution_figure

#: (layer, filter) that is dead at epoch 0, and one that is dead in the end.
BORN, DIED = (3, 2), (2, 1)
pytestmark = pytest.mark.filterwarnings("ignore:.*silent")


@pytest.fixture(scope="module")
def run() -> dict[int, CNN12]:
    """Three checkpoints on the straight way from one network to another."""
    first, last = CNN12(width=1 / 16, seed=0), CNN12(width=1 / 16, seed=1)
    networks = {}
    for epoch, share in ((0, 0.0), (5, 0.5), (20, 1.0)):
        networks[epoch] = CNN12(width=1 / 16).eval()
        start, end = first.state_dict(), last.state_dict()
        networks[epoch].load_state_dict({k: torch.lerp(start[k], end[k], share) for k in start})
    with torch.no_grad():
        networks[0].features.conv3.bias[BORN[1]] = -1000.0
        networks[20].features.conv2.bias[DIED[1]] = -1000.0
    return networks


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    return open_dataset("soundscapes", size=5, duration=0.8, seed=6)


@pytest.fixture(scope="module")
def result(run: dict[int, CNN12], scenes: Dataset) -> EvolutionResult:
    return feature_evolution(run, scenes, filters=[(11, 7), BORN, (1, 0)])


def test_the_clip_is_what_activates_the_filter_most_in_the_end(run, scenes, result) -> None:
    assert [(row.layer, row.filter) for row in result.filters] == [(1, 0), BORN, (11, 7)]
    for row in result.filters:
        energies = [
            float(ForwardPass(run[20], clip.waveform).energy(row.layer)[0, row.filter])
            for clip in scenes
        ]
        assert row.clip.index == int(np.argmax(energies))
        assert row.clip.energy == pytest.approx(max(energies), rel=1e-5)
        assert row.clip.clip_id == scenes[row.clip.index].clip_id
        assert row.seconds == 0.8


def test_every_step_is_what_its_checkpoint_says(run, scenes, result) -> None:
    for row in result.filters:
        x = scenes[row.clip.index].waveform
        heard = {
            epoch: sonify(network, x, layer=row.layer, filters=[row.filter])[0].numpy()
            for epoch, network in run.items()
        }
        for step in row.steps:
            s, final = heard[step.epoch].astype(np.float64), heard[20].astype(np.float64)
            if not s.any():
                assert (row.layer, row.filter, step.epoch) == (*BORN, 0)
                assert (step.energy, step.correlation, step.cosine) == (0.0, None, None)
                assert not step.levels.any()
                continue
            cosine = s @ final / np.linalg.norm(s) / np.linalg.norm(final)
            assert step.cosine == pytest.approx(cosine, abs=1e-4)
            values = np.sort(signal.coherence(s, final)[1])[-5:]
            assert step.coherence == pytest.approx(values.mean(), abs=1e-4)
            maps = ForwardPass(run[step.epoch], x).maps[row.layer - 1][0, row.filter]
            assert step.energy == pytest.approx(float(maps.square().mean()), rel=1e-4)
            assert -1 <= step.correlation <= 1
            assert step.levels.shape == (64, 80)
            assert step.levels.max() == 80
        last = row.steps[-1]
        assert (last.correlation, last.coherence, last.cosine) == pytest.approx((1.0, 1.0, 1.0))


def test_each_checkpoints_own_top_clip_and_how_much_the_spectrograms_change(
    run, scenes, result
) -> None:
    for row in result.filters:
        own, fixed = [], []
        for step in row.steps:
            network = run[step.epoch]
            energies = [
                float(ForwardPass(network, clip.waveform).energy(row.layer)[0, row.filter])
                for clip in scenes
            ]
            if max(energies) == 0:
                assert step.top_clip is None
                own.append(None)
            else:
                assert step.top_clip.index == int(np.argmax(energies))
                x = scenes[step.top_clip.index].waveform
                s = sonify(network, x, layer=row.layer, filters=[row.filter])[0]
                own.append(small_spectrogram(s))
            fixed.append(step.levels if step.energy > 0 else None)
        for found, levels in (("steadiness", fixed), ("top_clip_steadiness", own)):
            for step, before, now in zip(row.steps, [None, *levels], levels, strict=False):
                value = getattr(step, found)
                if before is None or now is None:
                    assert value is None
                else:
                    correlation = stats.pearsonr(*(one.ravel() * 1.0 for one in (before, now)))
                    assert value == pytest.approx(correlation.statistic, abs=1e-3)
        assert row.steps[-1].top_clip == row.clip


def test_where_the_top_clip_stays_the_same_both_change_alike(run, scenes) -> None:
    found = feature_evolution(run, scenes, limit=1)
    for row in found.filters:
        for step in row.steps:
            if None not in (step.steadiness, step.top_clip_steadiness):
                assert step.steadiness == pytest.approx(step.top_clip_steadiness, abs=1e-3)


def test_a_small_spectrogram_has_its_energy_where_the_sound_has(run, scenes, result) -> None:
    row = result.filters[0]
    x = scenes[row.clip.index].waveform
    s = sonify(run[20], x, layer=1, filters=[row.filter])[0].numpy()
    frequency, _, power = signal.spectrogram(s, 8000, nperseg=256, detrend=False)
    loudest = frequency[power.mean(axis=1).argmax()]
    shown = 10 ** (row.steps[-1].levels.astype(float) / 10)
    assert (shown.mean(axis=1).argmax() + 0.5) * 4000 / 64 == pytest.approx(loudest, abs=100)


def test_small_spectrograms_come_back_from_results() -> None:
    levels = np.arange(64 * 80, dtype=np.uint8).reshape(64, 80) % 81
    assert (unpacked(packed(levels)) == levels).all()
    assert len(packed(levels)) < len(base64.b64encode(levels.tobytes())) / 4
    endless = base64.b64encode(zlib.compress(bytes(10_000_000))).decode()
    assert unpacked(endless).shape == (64, 80)


def test_filters_are_drawn_among_the_live_one_a_layer(run, scenes) -> None:
    first, again = (feature_evolution(run, scenes, seed=3, limit=2) for _ in range(2))
    assert [row.layer for row in first.filters] == list(range(1, 12))
    assert first == again
    assert all(row.clip.energy > 0 for row in first.filters)
    more = feature_evolution(run, scenes, seed=3, limit=2, per_layer=2)
    drawn = [(row.layer, row.filter) for row in more.filters]
    assert [layer for layer, _ in drawn] == sorted([*range(1, 12)] * 2)
    assert len(set(drawn)) == 22
    assert {(row.layer, row.filter) for row in first.filters} < set(drawn)
    other = feature_evolution(run, scenes, seed=4, limit=2)
    assert [row.filter for row in other.filters] != [row.filter for row in first.filters]


@pytest.mark.usefixtures("quick_processes")
def test_interrupted_and_in_two_processes_it_is_the_same(run, scenes, result, tmp_path) -> None:
    again = feature_evolution(
        run, scenes, filters=[(11, 7), BORN, (1, 0)], chunk=2, processes=2, parts=tmp_path
    )
    assert again == result
    assert list(tmp_path.rglob("*.npz"))


def test_seconds_and_hertz_are_those_of_the_data_sets_sampling_rate(run) -> None:
    clips = AtRate(open_dataset("soundscapes", size=2, duration=0.8, seed=6), 16_000)
    found = feature_evolution(run, clips, filters=[(1, 0)])
    assert found.filters[0].seconds == 0.4
    strip = evolution_figure(found).figure.axes[0]
    assert strip.images[0].get_extent() == [0.0, 0.4, 0.0, 8.0]
    assert [label.get_text() for label in strip.get_yticklabels()] == ["0", "8 kHz"]


def test_sounds_of_every_checkpoint(run, scenes) -> None:
    x = scenes[0].waveform
    sounds, energy = sonify_through_training(run, x, layer=BORN[0], filter=BORN[1])
    assert sounds.shape == (3, len(x))
    assert not sounds[0].any()
    assert float(energy[0]) == 0.0
    assert float(sounds[2].abs().max()) == pytest.approx(float(np.abs(x).max()))


def test_of_many_filters_each_layers_first_has_a_strip(run, scenes) -> None:
    many = feature_evolution(run, scenes, limit=2, per_layer=2)
    axes = evolution_figure(many).figure.axes
    assert len(axes) == 11 * 3 + 3
    titles = [one.get_ylabel() for one in axes[:33:3]]
    firsts = {row.layer: row.filter for row in reversed(many.filters)}
    assert titles == [f"layer {layer}\nfilter {firsts[layer]}" for layer in range(1, 12)]
    assert len(axes[33].lines) == 22 + 1


def test_what_is_refused(run, scenes) -> None:
    with pytest.raises(AnalysisError, match="per_layer 0 is impossible"):
        feature_evolution(run, scenes, per_layer=0)
    with pytest.raises(AnalysisError, match="two checkpoints"):
        feature_evolution({20: run[20]}, scenes)
    with pytest.raises(AnalysisError, match="Filter 1 of layer 2 is live on no clip at epoch 20"):
        feature_evolution(run, scenes, filters=[DIED])
    with pytest.raises(LayerError, match="Filter 99 of layer 1"):
        feature_evolution(run, scenes, filters=[(1, 99)])


def test_the_figure_shows_strips_and_curves(result, tmp_path) -> None:
    result.write(tmp_path / "result.json")
    picture = evolution_figure(EvolutionResult.read(tmp_path / "result.json"))
    axes = picture.figure.axes
    strips, curves = axes[:9], axes[9:]
    images = [one.images[0] for one in strips if one.images]
    # One of nine is dead: it has no spectrogram, and says so.
    assert len(images) == 8
    assert [text.get_text() for one in strips for text in one.texts] == ["dead"]
    assert (images[0].get_array() == result.filters[0].steps[0].levels).all()
    cosines = [step.cosine for step in result.filters[2].steps]
    np.testing.assert_allclose(curves[2].lines[2].get_ydata(), cosines)
    assert "layer 3, filter 2: dead" in picture.alt
