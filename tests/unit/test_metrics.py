"""Metrics against scikit-learn, scipy and definitions, intervals against their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats
from sklearn.metrics import average_precision_score, roc_auc_score

from sonibook.errors import AudioError, MetricError
from sonibook.metrics import (
    accuracy,
    average_precision,
    bootstrap_interval,
    bootstrap_means,
    d_prime,
    mean_auc,
    mean_average_precision,
    multilabel_intervals,
    multilabel_metrics,
    roc_auc,
    runs_interval,
    single_label_metrics,
    wilson_interval,
)
from sonibook.metrics.similarity import coherence, mean_top_coherence


def problem(clips=200, classes=12, *, levels=None, seed=0):
    """Scores and targets of every sort: ties, a class that no clip has and one that all have."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((clips, classes)) < 0.2).astype(np.float32)
    scores = (targets + generator.normal(0, 1.5, (clips, classes))).astype(np.float32)
    if levels is not None:
        scores = np.round(scores * levels) / levels
    targets[:, 3], targets[:, 5] = 0, 1
    return scores, targets


# --- ranking -------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, 4, 1])
@pytest.mark.parametrize("seed", range(3))
def test_every_class_as_scikit_learn_has_it(levels, seed):
    scores, targets = problem(levels=levels, seed=seed)
    precision, area = average_precision(scores, targets), roc_auc(scores, targets)
    assert np.flatnonzero(np.isnan(precision)).tolist() == [3]
    assert np.flatnonzero(np.isnan(area)).tolist() == [3, 5]
    for label in set(range(12)) - {3}:
        expected = average_precision_score(targets[:, label], scores[:, label])
        assert precision[label] == pytest.approx(expected, abs=1e-12)
    for label in set(range(12)) - {3, 5}:
        expected = roc_auc_score(targets[:, label], scores[:, label])
        assert area[label] == pytest.approx(expected, abs=1e-12)


def test_means_leave_out_what_cannot_be_judged_and_weigh_the_rest_alike():
    scores, targets = problem()
    judged = [label for label in range(12) if label != 3]
    both = [label for label in judged if label != 5]
    assert mean_average_precision(scores, targets) == pytest.approx(
        average_precision_score(targets[:, judged], scores[:, judged], average="macro")
    )
    assert mean_auc(scores, targets) == pytest.approx(
        roc_auc_score(targets[:, both], scores[:, both], average="macro")
    )


@given(seed=st.integers(0, 10_000), clips=st.integers(2, 30), levels=st.sampled_from([None, 1, 3]))
@settings(max_examples=50, deadline=None)
def test_area_is_the_share_of_pairs_in_the_right_order(seed, clips, levels):
    scores, targets = problem(clips, 7, levels=levels, seed=seed)
    area = roc_auc(scores, targets)
    for label in range(7):
        with_it = scores[targets[:, label] == 1, label]
        without = scores[targets[:, label] == 0, label]
        if not len(with_it) or not len(without):
            assert np.isnan(area[label])
            continue
        right = with_it[:, None] > without[None]
        tied = with_it[:, None] == without[None]
        assert area[label] == pytest.approx(np.mean(right + tied / 2), abs=1e-12)


@pytest.mark.parametrize("metric", [mean_average_precision, mean_auc])
def test_only_the_order_of_scores_matters(metric):
    scores, targets = problem(levels=8)
    expected = metric(scores, targets)
    wide = scores.astype(float)
    for same in (1 / (1 + np.exp(-wide)), 1e6 * wide - 3, wide**3):
        assert metric(same, targets) == pytest.approx(expected, abs=1e-12)
    shuffled = np.random.default_rng(0).permutation(len(scores))
    assert metric(scores[shuffled], targets[shuffled]) == pytest.approx(expected, abs=1e-12)
    assert metric(scores, targets.astype(bool)) == expected
    assert metric(scores, targets.astype(int)) == expected


def test_infinite_scores_have_a_rank():
    scores = np.array([[np.inf], [1.0], [-np.inf]])
    assert mean_auc(scores, np.array([[1], [0], [0]])) == 1
    assert mean_auc(scores, np.array([[0], [0], [1]])) == 0


def test_indifferent_scores_are_chance():
    targets = problem()[1]
    flat = np.zeros(targets.shape)
    assert mean_auc(flat, targets) == pytest.approx(0.5)
    shares = targets.mean(axis=0)
    assert mean_average_precision(flat, targets) == pytest.approx(shares[shares > 0].mean())


def test_many_clips_and_classes():
    """As many pairs of a positive and a negative as overflow 32 bits."""
    generator = np.random.default_rng(0)
    targets = generator.random((200_000, 2)) < 0.5
    scores = (targets + generator.normal(0, 2, targets.shape)).astype(np.float32)
    assert mean_auc(scores, targets) == pytest.approx(roc_auc_score(targets, scores), abs=1e-12)


# --- d' ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("auc", "expected"), [(0.909, 1.889), (0.954, 2.378)])
def test_d_prime_as_in_the_paper(auc, expected):
    """Within what rounding the area to three digits leaves open."""
    low, high = d_prime(auc - 0.0005), d_prime(auc + 0.0005)
    assert low <= expected <= high


@given(st.floats(0.001, 0.999))
def test_d_prime_is_the_separation_of_two_normal_distributions(auc):
    # The difference of two independent unit normals has a standard deviation of sqrt(2).
    assert stats.norm.cdf(d_prime(auc), scale=math.sqrt(2)) == pytest.approx(auc)
    assert d_prime(1 - auc) == pytest.approx(-d_prime(auc), abs=1e-9)


def test_d_prime_at_its_limits():
    assert d_prime(0.5) == 0
    assert d_prime(1.0) == math.inf
    assert d_prime(0.0) == -math.inf
    for impossible in (-0.01, 1.01, math.nan):
        with pytest.raises(MetricError, match="0 to 1"):
            d_prime(impossible)


# --- summaries -----------------------------------------------------------------------------------


def test_summary_of_many_labels():
    scores, targets = problem()
    summary = multilabel_metrics(scores, targets)
    assert summary == {
        "mAP": mean_average_precision(scores, targets),
        "mAUC": mean_auc(scores, targets),
        "d_prime": d_prime(mean_auc(scores, targets)),
        "mAP_classes": 11,
        "mAUC_classes": 10,
    }


def test_intervals_of_the_summary_are_those_of_its_figures():
    scores, targets = problem(80, 6)
    found = multilabel_intervals(scores, targets, seed=2)
    for name, metric in (("mAP", mean_average_precision), ("mAUC", mean_auc)):
        expected = bootstrap_interval(scores, targets, statistic=metric, seed=2)
        assert found[name] == pytest.approx(list(expected))
    assert found["d_prime"] == [d_prime(end) for end in found["mAUC"]]
    assert multilabel_intervals(targets[:1], targets[:1]) == {}
    assert "d_prime" not in multilabel_intervals(np.eye(9), np.eye(9))


def test_summary_without_what_json_cannot_hold():
    targets = np.eye(4)
    assert multilabel_metrics(targets, targets) == {
        "mAP": 1, "mAUC": 1, "mAP_classes": 4, "mAUC_classes": 4,
    }  # fmt: skip


def test_summary_of_one_label():
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    targets = np.array([[0, 1], [1, 0], [0, 1], [0, 1]])
    assert accuracy(scores, targets) == 0.75
    assert single_label_metrics(scores, targets) == {"accuracy": 0.75, "clips": 4}


SCORES = np.array([[0.2, 0.5], [0.7, 0.1]])


@pytest.mark.parametrize(
    ("metric", "scores", "targets", "says"),
    [
        (mean_average_precision, np.array([[0.2, np.nan]]), np.ones((1, 2)), "clip 0 for class 1"),
        (mean_auc, SCORES, np.full((2, 2), 0.4), "neither 0 nor 1"),
        (mean_auc, SCORES, np.ones((3, 2)), "do not fit targets of shape"),
        (accuracy, SCORES, np.ones((2, 3)), "do not fit targets of shape"),
        (mean_average_precision, SCORES, np.zeros((2, 2)), "a clip that has it"),
        (mean_auc, SCORES, np.ones((2, 2)), "one that has not"),
        (mean_auc, np.zeros((0, 2)), np.zeros((0, 2)), "No class"),
        (multilabel_metrics, SCORES, np.zeros((2, 2)), "No class"),
        (accuracy, SCORES, np.ones((2, 2)), "exactly one label"),
        (accuracy, SCORES, np.array([[0, 1], [0, 0]]), "exactly one label"),
        (accuracy, np.zeros((0, 2)), np.zeros((0, 2)), "exactly one label"),
    ],
)
def test_what_cannot_be_judged_is_refused(metric, scores, targets, says):
    with pytest.raises(MetricError, match=says):
        metric(scores, targets)


# --- intervals -----------------------------------------------------------------------------------


def covered(interval, truth):
    return interval[0] <= truth <= interval[1]


def test_bootstrap_of_a_mean_covers_as_often_as_it_says():
    """95 % of the intervals of 300 samples hold the true mean, give or take three errors."""
    generator = np.random.default_rng(0)
    samples = generator.normal(2.0, size=(300, 100))
    hits = [
        covered(bootstrap_interval(sample, repeats=300, seed=seed), 2.0)
        for seed, sample in enumerate(samples)
    ]
    assert np.mean(hits) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 300))


def test_bootstrap_agrees_with_scipy():
    sample = np.random.default_rng(0).gamma(2.0, size=150)
    ours = bootstrap_interval(sample, statistic=np.median, repeats=4000)
    theirs = stats.bootstrap(
        (sample,), np.median, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=0.05 * np.ptp(theirs))


def test_rows_of_several_arrays_are_drawn_together():
    scores, targets = problem(60, 6)

    def paired(some_scores, some_targets):
        rows = {row.tobytes(): label.tobytes() for row, label in zip(scores, targets, strict=True)}
        for row, label in zip(some_scores, some_targets, strict=True):
            assert rows[row.tobytes()] == label.tobytes()
        return mean_average_precision(some_scores, some_targets)

    interval = bootstrap_interval(scores, targets, statistic=paired, repeats=200)
    assert covered(interval, mean_average_precision(scores, targets))
    assert interval == bootstrap_interval(
        scores, targets, statistic=mean_average_precision, repeats=200
    )
    assert interval != bootstrap_interval(
        scores, targets, statistic=mean_average_precision, repeats=200, seed=1
    )


def test_intervals_of_many_means_are_those_of_each():
    """Against the same statistic redrawn row by row, with gaps: a mean of what was measured."""
    generator = np.random.default_rng(0)
    values = generator.gamma(2.0, size=(90, 3))
    values[generator.random((90, 3)) < 0.2] = np.nan
    low, high = bootstrap_means(values, repeats=4000)
    for column in range(3):
        expected = bootstrap_interval(values[:, column], statistic=np.nanmean, repeats=4000, seed=1)
        np.testing.assert_allclose((low[column], high[column]), expected, atol=0.03)


def test_means_that_nothing_or_one_clip_tells_of_have_no_interval():
    values = np.full((6, 3), np.nan)
    values[2, 1], values[:, 2] = 0.5, 0.25
    low, high = bootstrap_means(values)
    np.testing.assert_array_equal(low, [np.nan, np.nan, 0.25])
    np.testing.assert_array_equal(high, [np.nan, np.nan, 0.25])
    assert bootstrap_means(np.zeros((0, 2)))[0].shape == (2,)


def test_interval_over_runs_is_that_of_the_t_test():
    runs = [0.42, 0.47, 0.44, 0.45]
    expected = stats.ttest_1samp(runs, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(runs_interval(runs), expected)
    assert runs_interval([0.3, 0.3]) == (0.3, 0.3)


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (lambda: runs_interval([0.5]), "two runs"),
        (lambda: runs_interval([0.5, math.nan]), "no number"),
        (lambda: bootstrap_interval(np.ones(5), repeats=0), "repeats 0"),
        (lambda: bootstrap_means(np.ones((5, 2)), repeats=0), "repeats 0"),
        (lambda: bootstrap_interval(np.ones(0)), "as many rows"),
        (lambda: bootstrap_interval(), "as many rows"),
        (lambda: bootstrap_interval(np.ones(1)), "two rows at least"),
    ],
)
def test_what_gives_no_interval_is_refused(compute, says):
    with pytest.raises(MetricError, match=says):
        compute()


@pytest.mark.parametrize(("correct", "total"), [(0, 80), (37, 80), (80, 80)])
def test_wilson_interval_is_where_the_score_test_turns(correct, total):
    """At either end, the normal test of that share against what was counted just fails."""
    z = stats.norm.ppf(0.975)
    for end in wilson_interval(correct, total):
        assert 0 <= end <= 1
        if 0 < end < 1:
            error = math.sqrt(end * (1 - end) / total)
            assert abs(correct / total - end) / error == pytest.approx(z)


# --- coherence -----------------------------------------------------------------------------------


def pair(shape=(3, 20_000), *, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    fading = torch.linspace(0, 3, shape[-1], dtype=dtype)
    return x, x + fading * torch.randn(shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("nperseg", [64, 255, 256, 1000])
@pytest.mark.parametrize("noverlap", [None, 0, 60])
@pytest.mark.parametrize("length", [20_000, 20_011])
def test_coherence_equals_scipy_in_float64(nperseg, noverlap, length):
    x, y = pair((3, length))
    frequency, ours = coherence(x, y + 2.0, nperseg=nperseg, noverlap=noverlap)
    options = {"fs": 8000, "nperseg": nperseg, "noverlap": noverlap}
    expected_frequency, theirs = signal.coherence(x.numpy(), y.numpy() + 2.0, **options)
    np.testing.assert_allclose(frequency.numpy(), expected_frequency)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-10, rtol=0)


def test_float32_is_close_to_float64():
    x, y = pair()
    ours = coherence(x.float(), y.float())[1]
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), coherence(x, y)[1], atol=1e-4, rtol=0)


def test_any_batch_shape_gives_what_single_pairs_give():
    x, y = pair((2, 3, 5_000))
    together = coherence(x, y)[1]
    assert together.shape == (2, 3, 129)
    torch.testing.assert_close(together[1, 2], coherence(x[1, 2], y[1, 2])[1])
    assert mean_top_coherence(x, y).shape == (2, 3)


def test_coherence_sees_neither_gain_nor_sign():
    x, y = pair()
    torch.testing.assert_close(coherence(x, -0.01 * y)[1], coherence(x, y)[1])
    torch.testing.assert_close(mean_top_coherence(x, -3 * x), torch.ones(3, dtype=torch.float64))


def test_mean_of_the_most_coherent_frequencies():
    x, y = pair()
    theirs = signal.coherence(x.numpy(), y.numpy())[1]
    expected = np.sort(theirs, axis=1)[:, -5:].mean(axis=1)
    np.testing.assert_allclose(mean_top_coherence(x, y).numpy(), expected, atol=1e-10)


def test_unrelated_noise_has_the_coherence_of_chance():
    """Of n independent segments, a squared correlation of 1/n is expected."""
    first, second = pair((200, 10_240))[0], pair((200, 10_240), seed=1)[0]
    values = coherence(first, second, noverlap=0)[1]
    assert float(values[:, 2:-2].mean()) == pytest.approx(1 / 40, rel=0.05)


def test_silence_gives_nan_and_nothing_else_does():
    x, y = pair()
    y[1] = 0.0
    values = mean_top_coherence(x, y)
    assert values.isnan().tolist() == [False, True, False]
    assert coherence(x, y)[1][1].isnan().all()


def test_what_coherence_refuses():
    x, y = pair()
    with pytest.raises(AudioError, match="256 samples hold one segment"):
        coherence(x[:, :256], y[:, :256])
    with pytest.raises(AudioError, match="no pairs"):
        coherence(x, y[:2])
    with pytest.raises(ValueError, match="do not make segments"):
        coherence(x, y, noverlap=256)
    with pytest.raises(ValueError, match="choose 1 to 129"):
        mean_top_coherence(x, y, k=0)
