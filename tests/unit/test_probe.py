"""The linear probe: what it sees, and what it must not see; what a network says of whole clips."""

import numpy as np
import pytest
import soundfile
import torch
from clips import Held, noise
from sklearn.linear_model import LogisticRegression

from sonibook.analysis.ablation import ablate
from sonibook.datasets import Soundscapes
from sonibook.datasets.base import Clip, ClipReader, Entry, FileDataset
from sonibook.errors import DatasetError, LayerError, SonibookWarning
from sonibook.model.encoder import CNN12
from sonibook.training.data import predict
from sonibook.training.probe import (
    groups_of,
    linear_probe,
    probe_features,
    probed,
)


def blobs(count: int, *, seed: int, shift: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Three Gaussian classes; one feature is a million times larger and says nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = rng.standard_normal((count, 6)) + shift * np.eye(6)[labels]
    features[:, 5] = 1e6 * rng.standard_normal(count)
    return features.astype(np.float32), labels


def test_probe_names_separable_classes_and_only_those():
    features, labels = blobs(90, seed=0, shift=6.0)
    tested, truth = blobs(60, seed=1, shift=6.0)
    assert (linear_probe(features, labels, tested).predicted == truth).mean() > 0.95
    shuffled = np.random.default_rng(2).permutation(labels)
    chance = (linear_probe(features, shuffled, tested).predicted == truth).mean()
    assert chance < 0.7


def test_probe_chooses_its_strength_without_the_test_part():
    features, labels = blobs(60, seed=0)
    first = linear_probe(features, labels, blobs(30, seed=1)[0])
    second = linear_probe(features, labels, 100 * blobs(30, seed=2)[0])
    assert first.strength == second.strength
    again = linear_probe(features, labels, blobs(30, seed=1)[0])
    np.testing.assert_array_equal(first.predicted, again.predicted)


def test_probe_answers_do_not_depend_on_the_scale_of_features():
    features, labels = blobs(60, seed=0)
    tested, _ = blobs(30, seed=1)
    scale = np.array([1, 10, 0.1, 5, 1000, 1e-3], np.float32)
    first = linear_probe(features, labels, tested)
    second = linear_probe(features * scale + 1, labels, tested * scale + 1)
    assert (first.predicted == second.predicted).mean() > 0.95


def test_probe_keeps_groups_together():
    features, labels = blobs(60, seed=0)
    groups = [f"fold{index // 15}" for index in range(60)]
    assert linear_probe(features, labels, features, groups=groups).folds == 4
    assert linear_probe(features, labels, features).folds == 5


def test_probe_refuses_what_cannot_be_cross_validated():
    features, labels = blobs(9, seed=0)
    with pytest.raises(DatasetError, match="at least two classes"):
        linear_probe(features, np.zeros(9, int), features)
    with pytest.raises(DatasetError, match="one training clip"):
        linear_probe(features[:4], labels[:4], features)


def test_features_are_the_maps_of_each_clip_alone():
    data = Held([noise(n, n) for n in (2500, 3000, 2500, 60)], [0, 1, 2, 0])
    encoder = CNN12(width=1 / 16, seed=1).eval()
    features, labels = probe_features(encoder, data, layer=3, batch_size=2)
    np.testing.assert_array_equal(labels, [0, 1, 2, 0])
    with torch.no_grad():
        for row, x in zip(features, data.waveforms, strict=True):
            maps = encoder.features[:9](torch.from_numpy(x)[None, None])
            np.testing.assert_allclose(row, maps[0].mean(1), rtol=1e-4, atol=1e-6)
    assert groups_of(data) is None
    data.task = "multi-label"
    _, targets = probe_features(encoder, data, layer=3)
    np.testing.assert_array_equal(targets, np.eye(3)[[0, 1, 2, 0]])


def test_log_features_are_of_means_and_of_maxima_and_any_stack_has_them():
    data = Held([noise(n, n) for n in (900, 700, 900)], [0, 1, 0])
    network = torch.nn.Sequential(
        torch.nn.Conv1d(1, 3, 9, stride=4), torch.nn.ReLU(), torch.nn.BatchNorm1d(3),
        torch.nn.MaxPool1d(3), torch.nn.Conv1d(3, 2, 5), torch.nn.ReLU(),
    ).eval()  # fmt: skip
    network[2].running_mean.fill_(2.0)  # so that some maps are below zero, and below -1
    features, _ = probe_features(network, data, layer=1, kind="log", batch_size=2)
    with torch.no_grad():
        for row, x in zip(features, data.waveforms, strict=True):
            maps = network[:4](torch.from_numpy(x)[None, None])[0].numpy()
            both = np.append(maps.mean(axis=1), maps.max(axis=1))
            expected = np.sign(both) * np.log(1 + np.abs(both))
            np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-6)
            assert expected.min() < np.log(0.5)
    with pytest.raises(LayerError):
        probe_features(network, data, layer=3)


def test_a_clip_that_cannot_be_read_is_left_out_of_features_labels_and_groups(tmp_path):
    entries = [Entry(tmp_path / f"{n}.wav", (n % 2,), str(n), f"fold{n % 3}") for n in range(12)]
    for n, entry in enumerate(entries):
        soundfile.write(entry.path, noise(2500, n), 8000)
    entries[4].path.write_bytes(b"no sound")
    data = FileDataset(entries, name="own", classes=("a", "b"), split="all")
    encoder = CNN12(width=1 / 16, seed=1).eval()
    with pytest.warns(SonibookWarning, match="1 of the 12 clips"):
        features, labels = probe_features(encoder, data, layer=2)
    assert features.shape == (11, 4)
    np.testing.assert_array_equal(labels, [n % 2 for n in range(12) if n != 4])
    reader = ClipReader(data)
    again, _ = probe_features(encoder, reader, layer=2)
    np.testing.assert_array_equal(again, features)
    assert list(reader.bad) == [4]
    assert groups_of(reader) == [f"fold{n % 3}" for n in range(12) if n != 4]


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
@pytest.mark.parametrize("classes", [2, 3])
def test_probes_weights_give_its_answers(classes, kind):
    features, labels = blobs(90, seed=0)
    tested, _ = blobs(60, seed=1)
    within = labels < classes
    probe = linear_probe(features[within], labels[within], tested, kind=kind)
    logits = tested.astype(np.float64) @ probe.weight.T + probe.bias
    assert probe.classes.tolist() == list(range(classes))
    np.testing.assert_array_equal(probe.classes[logits.argmax(1)], probe.predicted)


def test_a_ridge_probe_solves_the_normal_equations():
    features, labels = blobs(90, seed=0, shift=0.5)
    probe = linear_probe(features, labels, features, kind="ridge")
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    y = 2.0 * np.eye(3)[labels] - 1
    solved = np.linalg.solve(x.T @ x + np.eye(x.shape[1]) / probe.strength, x.T @ (y - y.mean(0)))
    np.testing.assert_allclose(probe.weight * features.std(axis=0), solved.T, atol=1e-6)
    np.testing.assert_array_equal(probe.predicted, (x @ solved + y.mean(0)).argmax(axis=1))


def test_what_hardly_varies_is_magnified_unless_a_probe_is_told_a_least_scale():
    features, labels = blobs(90, seed=0)
    features[:, 5] = 0
    features[0, 5] = 1e-9
    woken = features.copy()
    woken[:, 5] = 1

    def sway(**how: float) -> float:
        probe = linear_probe(features, labels, features, **how)
        return float(np.abs((woken - features) @ probe.weight.T).max())

    assert sway() > 1e6
    assert sway(least_scale=0.1) < 1
    # Of features that vary enough nothing changes ...
    enough, scaled = blobs(90, seed=0)[0][:, :5], blobs(60, seed=1)[0][:, :5]
    usual = linear_probe(enough, labels, scaled)
    floored = linear_probe(enough, labels, scaled, least_scale=0.1)
    np.testing.assert_array_equal(floored.weight, usual.weight)
    # ... and an infinite one standardises nothing: all are divided by the median deviation.
    uneven = enough * np.array([1, 2, 4, 8, 16])
    probe = linear_probe(uneven, labels, uneven, least_scale=np.inf)
    x = (uneven - uneven.mean(axis=0)) / np.median(uneven.std(axis=0))
    alone = LogisticRegression(C=probe.strength, max_iter=2000).fit(x, labels)
    np.testing.assert_allclose(
        probe.weight * np.median(uneven.std(axis=0)), alone.coef_, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("layer", [5, 11])
def test_a_probed_encoder_answers_as_its_probe(layer):
    rng = np.random.default_rng(0)
    data = Held(
        [noise(2500, seed) * rng.uniform(0.1, 1) for seed in range(30)],
        [seed % 3 for seed in range(30)],
    )
    encoder = CNN12(width=1 / 16, seed=1).eval()
    network = probed(encoder, data, layer=layer)
    features, labels = probe_features(encoder, data, layer=layer)
    expected = linear_probe(features, labels, features)
    with torch.no_grad():
        x = torch.from_numpy(np.stack(data.waveforms))[:, None]
        answers = network(x).argmax(1).numpy()
    assert (answers == expected.predicted).mean() > 0.95  # float32 may part a tie
    missing = Held(data.waveforms[:20], [seed % 2 for seed in range(20)])
    with pytest.raises(DatasetError, match="no clip of 'class2'"):
        probed(encoder, missing, layer=5)


def test_a_probe_of_many_labels_tells_them_apart_whatever_the_scale_and_what_is_missing():
    rng = np.random.default_rng(0)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        targets = (rng.random((count, 4)) < 0.3).astype(np.float32)
        targets[:, 3] = 0  # of a class that no clip has, nothing is learned
        features = rng.standard_normal((count, 6))
        features[:, :4] += 3 * targets
        return features.astype(np.float32), targets

    (features, targets), (tested, truth) = drawn(150), drawn(80)
    probe = linear_probe(features, targets, tested)
    scores = probe.predicted
    assert scores.shape == (80, 4)
    assert np.ptp(scores[:, 3]) == 0
    for label in range(3):
        present = truth[:, label] == 1
        apart = scores[present, label][:, None] > scores[~present, label][None]
        assert apart.mean() > 0.9
    assert probe.folds == 5
    scale = np.array([1, 10, 0.1, 5, 1000, 1e-3], np.float32)
    same = linear_probe(features * scale + 1, targets, tested * scale + 1)
    assert (same.strength, same.folds) == (probe.strength, probe.folds)
    np.testing.assert_allclose(same.predicted[:, :3], scores[:, :3], rtol=0.05, atol=0.05)
    groups = [f"fold{index % 3}" for index in range(150)]
    assert linear_probe(features, targets, tested, groups=groups).folds == 3
    with pytest.raises(DatasetError, match="two training clips or groups"):
        linear_probe(features[:1], targets[:1], tested)


def test_a_probed_encoder_of_several_labels_scores_as_its_probe():
    data = Soundscapes(size=14, duration=1.0, events=(1, 3), seed=2)
    encoder = CNN12(width=1 / 16, seed=1).eval()
    network = probed(encoder, data, layer=6)
    short = encoder.truncate(6)
    features, targets = predict(short.pooled, data, least_length=short.least_length)
    expected = linear_probe(features, targets, features).predicted
    with torch.no_grad():
        logits = network.head(torch.from_numpy(features))
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-3, atol=1e-3)
    ablated = ablate({"probed": network}, data, layers=[3], limit=4)
    assert ablated.score == "mAP"
    assert ablated.select(quantity="score", layer=3)


# --- what a network says of whole clips ----------------------------------------------------------


def test_what_a_network_says_of_a_clip_depends_on_that_clip_alone():
    lengths = [2500, 4000, 2500, 3001, 4000, 100, 2500, 4000, 3001, 5000]
    data = Held([noise(n, seed) for seed, n in enumerate(lengths)], [n % 3 for n in lengths])
    encoder = CNN12(width=1 / 16, seed=0).eval()
    least = encoder.least_length
    with torch.no_grad():
        alone = np.stack(
            [
                encoder(torch.from_numpy(np.pad(x, (0, max(0, least - len(x)))))[None, None])[0]
                for x in data.waveforms
            ]
        )
    for batch_size in (1, 2, 3, 16):
        outputs, targets = predict(encoder, data, least_length=least, batch_size=batch_size)
        np.testing.assert_allclose(outputs, alone, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(targets.argmax(1), [n % 3 for n in lengths])
    order = np.random.default_rng(0).permutation(len(lengths))
    shuffled = Held([data.waveforms[i] for i in order], [lengths[i] % 3 for i in order])
    outputs, _ = predict(encoder, shuffled, least_length=least, batch_size=3)
    np.testing.assert_allclose(outputs, alone[order], rtol=1e-4, atol=1e-5)


def test_evaluation_keeps_few_clips_in_memory():
    # Every length differs, so that no group is ever full.
    held = [0, 0]

    def network(x: torch.Tensor) -> torch.Tensor:
        held[0] += len(x)
        return x.mean(dim=2)

    class Watched(Held):
        def __getitem__(self, index: int) -> Clip:
            clip = super().__getitem__(index)
            held[1] = max(held[1], index + 1 - held[0])
            return clip

    data = Watched([noise(100 + n, n) for n in range(60)], [0] * 60)
    outputs, _ = predict(network, data, least_length=1, batch_size=2)
    expected = [[float(x.mean())] for x in data.waveforms]
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    assert held[1] <= 8 * 2 + 2
