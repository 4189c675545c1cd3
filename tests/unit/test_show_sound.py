"""Pictures of sampling, scenes, growth and coherence: what they draw is what was measured."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from sonibook.analysis.result import Estimate
from sonibook.datasets import open_dataset
from sonibook.errors import AudioError
from sonibook.plots.basics import alias_figure, alias_of, resolutions, sample_stems, timeline
from sonibook.plots.sound import coherence_walk, coherence_walks
from sonibook.plots.training import growth_figure
from sonibook.widgets.view import AliasSlider

RNG = np.random.default_rng(0)
X, NOISE = RNG.standard_normal((2, 4000)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11025])
def test_an_alias_has_the_very_samples_of_its_tone_and_no_lower_tone_does(rate):
    n = np.arange(400)
    for frequency in (0, 100, rate // 2, rate // 2 + 1, 5000, rate - 100, rate, 3 * rate + 123):
        alias = alias_of(frequency, sample_rate=rate)
        assert 0 <= alias <= rate / 2
        tones = [np.cos(2 * np.pi * f * n / rate) for f in (frequency, alias)]
        np.testing.assert_allclose(*tones, atol=1e-8)


def test_alias_figure_draws_the_samples_on_both_tones():
    axes = alias_figure(5000, sample_rate=8000).axes[0]
    tone, back, samples = axes.lines
    for curve in (tone, back):
        at = np.interp(samples.get_xdata(), curve.get_xdata(), curve.get_ydata())
        np.testing.assert_allclose(at, samples.get_ydata(), atol=2e-3)
    assert len(alias_figure(3000, sample_rate=8000).axes[0].lines) == 2


def test_stems_stand_at_their_times():
    x = np.linspace(-1, 1, 100, dtype=np.float32)
    line = sample_stems(x, start=40, count=8, sample_rate=1000).axes[0].lines[-1]
    np.testing.assert_allclose(line.get_xdata(), np.arange(40, 48), atol=1e-9)
    np.testing.assert_allclose(line.get_ydata(), x[40:48])
    with pytest.raises(AudioError):
        sample_stems(x, start=100)


def test_longer_frames_tell_frequencies_apart_and_shorter_ones_times():
    time = np.arange(8000) / 8000
    two = np.cos(2 * np.pi * 1000 * time) + np.cos(2 * np.pi * 1100 * time)
    clicks = np.zeros(8000)
    clicks[[4000, 4160]] = 1.0
    peaks = {}
    for name, x in (("tones", two), ("clicks", clicks)):
        images = [ax.images[0].get_array() for ax in resolutions(x).axes if ax.images][:3]
        for frame, image in zip((64, 256, 1024), images, strict=True):
            # Power where and when: far from the sound's ends, over bins or over frames.
            row = image[:, image.shape[1] // 2] if name == "tones" else image.max(axis=0)
            inner = np.asarray(row[1:-1])
            high = inner > row.max() - 20
            peaks[name, frame] = int(((inner > row[:-2]) & (inner >= row[2:]) & high).sum())
    assert peaks["tones", 1024] == 2
    assert peaks["tones", 64] == 1
    assert peaks["clicks", 64] == 2
    assert peaks["clicks", 1024] == 1


def test_slider_shows_what_comes_back_live_and_on_a_page():
    slider = AliasSlider(sample_rate=8000)
    before = slider.listening.sonification
    slider.frequency.value = 6900
    assert "comes back as one of 1100 Hz" in slider.words.value
    assert slider.listening.sonification != before
    assert "6900 Hz" in slider.listening.titles["sonification"]
    static = slider._repr_mimebundle_()["text/html"]
    assert static.count("<details") == 4
    assert static.count("<audio") == static.count("<img") == 4
    assert static.count(" open>") == 1
    assert static.count("<sonibook-player") == 1
    assert "is a slider" not in static


def test_timeline_has_a_bar_from_onset_to_offset_for_every_event():
    scene = open_dataset("soundscapes", size=3, seed=2, duration=2.0, events=(3, 3)).scene(1)
    drawn = timeline(scene)
    bars = drawn.figure.axes[1].patches
    assert len(bars) == 3
    for bar, event in zip(bars, scene.events, strict=True):
        assert bar.get_x() == pytest.approx(event.onset)
        assert bar.get_x() + bar.get_width() == pytest.approx(event.offset)
        assert event.name.replace("_", " ") in drawn.alt


def test_growth_has_a_panel_a_title_and_leaves_gaps_where_nothing_was_measured():
    def one(mean: float | None) -> Estimate:
        low, high = (None, None) if mean is None else (mean - 0.1, mean + 0.1)
        return Estimate(mean=mean, low=low, high=high, clips=4 if mean is not None else 0)

    curves = {"layer 1": [one(0.5), one(0.7), one(1.0)], "layer 2": [one(None), one(0.2), one(1.0)]}
    drawn = growth_figure(
        curves, [0, 5, 20], references={"layer 1": {"runner-up": one(0.6)}}, ylabel="similarity"
    )
    first, second = drawn.figure.axes
    np.testing.assert_allclose(first.lines[0].get_ydata(), [0.5, 0.7, 1.0])
    assert np.isnan(second.lines[0].get_ydata()[0])
    assert len(first.lines) == 2
    assert len(second.lines) == 1
    assert "layer 2: 0.20 at 5, 1.00 at 20." in drawn.alt
    assert "runner-up 0.60" in drawn.alt
    with pytest.raises(ValueError, match="3 estimates were given for 2 epochs"):
        growth_figure(curves, [0, 5], references={}, ylabel="similarity")


@pytest.mark.parametrize("nperseg", [128, 256])
@pytest.mark.parametrize("number", [3, 20, 50])
def test_walk_ends_at_scipys_coherence(nperseg: int, number: int) -> None:
    frequency, expected = signal.coherence(X, X + NOISE, 8000, nperseg=nperseg)
    walk = coherence_walk(X, X + NOISE, frequency=float(frequency[number]), nperseg=nperseg)
    assert abs(walk[-1]) ** 2 == pytest.approx(expected[number], rel=1e-4)
    assert len(walk) == 1 + (len(X) - nperseg) // (nperseg // 2) + 1


def test_walk_of_a_copy_is_straight_whatever_its_gain_and_sign() -> None:
    walk = coherence_walk(X, -0.1 * X, frequency=1000.0)
    assert abs(walk[-1]) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(walk.imag, 0, atol=1e-6)


def test_walk_of_silence_goes_nowhere_and_says_so() -> None:
    walk = coherence_walk(X, np.zeros_like(X), frequency=1000.0)
    assert np.isnan(walk[1:]).all()


def test_picture_says_each_pairs_coherence() -> None:
    sounds = {"copy": 0.5 * X, "noise": NOISE}
    drawn = coherence_walks({n: coherence_walk(X, y, frequency=1000.0) for n, y in sounds.items()})
    expected = abs(coherence_walk(X, NOISE, frequency=1000.0)[-1]) ** 2
    assert "copy ends 1.00 from the start: 1.00" in drawn.alt
    assert f"noise ends {expected**0.5:.2f} from the start: {expected:.2f}" in drawn.alt
