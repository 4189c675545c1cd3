"""Training: what is drawn, what is learned, what is evaluated, and what survives a kill."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy import stats

from sonibook.audio import sounding_starts, write_wav
from sonibook.checkpoint import load_classifier, read_card
from sonibook.datasets.base import Clip, Dataset
from sonibook.encoder import CNN12
from sonibook.errors import CheckpointError, ConfigError, DatasetError, SonibookError
from sonibook.metrics import wilson_interval
from sonibook.training import augment
from sonibook.training.batches import CropBatches
from sonibook.training.config import TrainConfig, load_config
from sonibook.training.evaluate import accuracy, predict
from sonibook.training.experiment import prepare
from sonibook.training.loop import train
from sonibook.training.objectives import cross_entropy
from sonibook.training.probe import groups_of, linear_probe, mean_features
from sonibook.training.run_state import load_run, save_run
from sonibook.training.schedule import warmup_cosine

REPOSITORY = Path(__file__).parents[2]


class Held(Dataset):
    """Clips that are held in memory."""

    name, split, task = "held", "all", "single-label"

    def __init__(self, waveforms: list[np.ndarray], labels: list[int], classes: int = 3) -> None:
        self.waveforms, self._labels = waveforms, labels
        self.classes = tuple(f"class{number}" for number in range(classes))

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Clip(self.waveforms[index], (self._labels[index],), f"clip{index}")


def noise(samples: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(samples).astype(np.float32)
    return x / np.abs(x).max()


def batch(count: int = 8, samples: int = 4000) -> torch.Tensor:
    return torch.stack([torch.from_numpy(noise(samples, seed)) for seed in range(count)])[:, None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- schedule ------------------------------------------------------------------------------------


@given(warmup=st.integers(0, 50), rest=st.integers(1, 500))
def test_schedule_rises_linearly_then_falls_along_a_cosine(warmup, rest):
    total = warmup + rest
    factors = [warmup_cosine(step, warmup=warmup, total=total) for step in range(total + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == 1
    np.testing.assert_allclose(factors[:warmup], np.arange(1, warmup + 1) / max(warmup, 1))
    assert all(first >= second for first, second in pairwise(factors[warmup:]))
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    # A cosine from 1 to 0 is symmetric about its middle, where it is 1/2.
    falling = np.array(factors[warmup:])
    np.testing.assert_allclose(falling + falling[::-1], 1, atol=1e-12)
    angle = np.arccos(2 * falling - 1)
    np.testing.assert_allclose(np.diff(angle), math.pi / rest, rtol=1e-4)


# --- augmentations -------------------------------------------------------------------------------

AUGMENTATIONS = {
    "gain": lambda x, g: augment.random_gain(x, generator=g),
    "noise": lambda x, g: augment.gaussian_noise(x, generator=g),
    "mask": lambda x, g: augment.time_mask(x, generator=g),
    "mixup": lambda x, g: augment.mixup(x, torch.eye(len(x)), alpha=0.4, generator=g)[0],
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_follow_from_their_generator_and_spare_their_input(name):
    change, x = AUGMENTATIONS[name], batch()
    before = x.clone()
    first, second, other = change(x, generator(1)), change(x, generator(1)), change(x, generator(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert not torch.equal(first, x)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_leave_silence_silent(name):
    silence = torch.zeros(4, 1, 500)
    assert torch.equal(AUGMENTATIONS[name](silence, generator()), silence)


def test_gain_is_uniform_in_decibels_and_one_number_a_clip():
    x = batch(1, 50).expand(2000, 1, 50)
    ratio = augment.random_gain(x, max_db=6.0, generator=generator()) / x
    assert torch.allclose(ratio, ratio[:, :, :1].expand_as(ratio), rtol=1e-5)
    levels = 20 * np.log10(ratio[:, 0, 0].numpy())
    assert np.abs(levels).max() <= 6 + 1e-4
    assert stats.kstest(levels, stats.uniform(-6, 12).cdf).pvalue > 1e-3


@pytest.mark.parametrize("snr", [0.0, 15.0, 40.0])
def test_noise_has_the_level_that_is_asked_for(snr):
    x = batch(16, 20000) * torch.logspace(-3, 0, 16)[:, None, None]
    noisy = augment.gaussian_noise(x, min_snr_db=snr, max_snr_db=snr, generator=generator())
    added = (noisy - x).double()
    measured = 10 * torch.log10(x.double().square().mean(2) / added.square().mean(2))
    # 20,000 samples tell a variance to 1 %, 0.04 dB; the float32 sum adds a little at 40 dB.
    torch.testing.assert_close(measured, torch.full_like(measured, snr), rtol=0, atol=0.25)
    normalised = (added / added.std(dim=2, keepdim=True)).flatten().numpy()
    assert stats.kstest(normalised[::16], stats.norm.cdf).pvalue > 1e-3


def test_noise_levels_spread_over_the_range():
    x = batch(1, 4000).expand(600, 1, 4000)
    noisy = augment.gaussian_noise(x, min_snr_db=15.0, max_snr_db=50.0, generator=generator())
    measured = (
        10 * np.log10(x.square().mean(2).numpy() / (noisy - x).square().mean(2).numpy()).ravel()
    )
    assert stats.kstest(measured, stats.uniform(15, 35).cdf).pvalue > 1e-3


def test_mask_is_one_stretch_of_zeros_and_nothing_else():
    samples = 2000
    x = torch.ones(500, 1, samples)
    masked = augment.time_mask(x, max_share=0.2, generator=generator())
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    zeros = masked[:, 0] == 0
    edges = (zeros[:, 1:] != zeros[:, :-1]).sum(1) + zeros[:, 0] + zeros[:, -1]
    assert edges.max() <= 2  # one stretch has two ends
    shares = zeros.double().mean(1).numpy()
    assert shares.max() <= 0.2 + 1 / samples
    assert stats.kstest(shares, stats.uniform(0, 0.2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("share", "kept"), [(0.0, True), (1.0, False)])
def test_mask_at_its_limits(share, kept):
    x = batch(64, 1000)
    masked = augment.time_mask(x, max_share=share, generator=generator())
    assert torch.equal(masked, x) == kept


def test_mixup_mixes_sound_and_targets_by_the_same_share():
    # Clip i is the i-th unit vector, as is its target: the mixture then shows its shares.
    count = 12
    x = torch.eye(count)[:, None]
    mixed, targets = augment.mixup(x, torch.eye(count), alpha=0.4, generator=generator(3))
    torch.testing.assert_close(mixed[:, 0], targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(count))
    assert ((targets > 0).sum(1) <= 2).all()
    assert (targets.diagonal() > 0).all()


def test_mixup_is_linear_and_its_shares_are_beta_distributed():
    x, y = batch(6, 300), batch(6, 300).flip(0) * 0.3
    mix = [
        augment.mixup(z, torch.eye(6), alpha=0.4, generator=generator(5))[0]
        for z in (x, y, 2 * x - y)
    ]
    torch.testing.assert_close(mix[2], 2 * mix[0] - mix[1], rtol=1e-4, atol=1e-6)
    count = 1500
    _, targets = augment.mixup(
        torch.zeros(count, 1, 1), torch.eye(count), alpha=0.4, generator=generator()
    )
    shares = targets.diagonal().numpy()
    shares = shares[shares < 1]  # a clip mixed with itself shows no share
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


# --- batches -------------------------------------------------------------------------------------


def ramps(count: int, samples: int = 3000) -> Held:
    """Clips whose every sample tells clip and time: value = index + time / samples, scaled."""
    waveforms = [
        ((index + 1 + np.arange(samples) / (2 * samples)) / count).astype(np.float32)
        for index in range(count)
    ]
    return Held(waveforms, [index % 3 for index in range(count)])


def test_batches_do_not_depend_on_what_was_drawn_before():
    def batches() -> CropBatches:
        return CropBatches(ramps(11), seed=4, batch_size=3, crop_seconds=0.1)

    straight = batches()
    epochs = [list(straight.epoch(epoch)) for epoch in range(3)]
    late = list(batches().epoch(2))
    for (x, targets), (y, others) in zip(epochs[2], late, strict=True):
        assert torch.equal(x, y)
        assert torch.equal(targets, others)
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])
    other_seed = CropBatches(ramps(11), seed=5, batch_size=3, crop_seconds=0.1)
    assert not torch.equal(next(iter(other_seed.epoch(0)))[0], epochs[0][0][0])


def test_an_epoch_has_each_clip_once_whole_batches_and_its_own_label():
    data = ramps(11)
    batches = CropBatches(data, seed=0, batch_size=3, crop_seconds=0.1)
    assert len(batches) == 3
    seen = []
    for x, targets in batches.epoch(0):
        assert x.shape == (3, 1, 800)
        assert targets.shape == (3, 3)
        clips = torch.floor(x[:, 0, 0] * len(data) + 1e-3).int() - 1
        assert torch.equal(targets.argmax(1).int(), clips % 3)
        assert torch.equal(targets.sum(1), torch.ones(3))
        for row, clip in zip(x[:, 0].numpy(), clips.tolist(), strict=True):
            start = round((float(row[0]) * len(data) - clip - 1) * 2 * 3000)
            assert 0 <= start <= 3000 - 800
            np.testing.assert_array_equal(row, data.waveforms[clip][start : start + 800])
        seen += clips.tolist()
    assert len(seen) == len(set(seen)) == 9


def test_crops_reach_every_place():
    batches = CropBatches(ramps(1), seed=0, batch_size=1, crop_seconds=0.1)
    starts = [
        (float(x[0, 0, 0]) - 1) * 6000 for epoch in range(400) for x, _ in batches.epoch(epoch)
    ]
    assert stats.kstest(starts, stats.uniform(-0.5, 2201).cdf).pvalue > 1e-3


@settings(max_examples=50, deadline=None)
@given(
    first=st.integers(0, 3999),
    length=st.integers(1, 2000),
    crop=st.integers(50, 6000),
    share=st.floats(0.05, 1.0),
)
def test_crops_hold_sound(first, length, crop, share):
    x = np.zeros(4000, np.float32)
    x[first : first + length] = 0.5
    sounding = min(length, 4000 - first)
    low, high = sounding_starts(x, crop, share=share)
    assert 0 <= low <= high <= max(len(x) - crop, 0)
    for start in (low, high):
        held = np.count_nonzero(x[start : start + crop])
        assert held >= min(int(share * crop), sounding)


def test_short_clips_are_padded_with_zeros():
    data = Held([noise(500, 1)], [0])
    ((x, _),) = CropBatches(data, seed=0, batch_size=1, crop_seconds=0.1).epoch(0)
    np.testing.assert_array_equal(x[0, 0, :500], data.waveforms[0])
    assert not x[0, 0, 500:].any()


def test_a_data_set_smaller_than_a_batch_is_refused():
    with pytest.raises(DatasetError, match=r"has 2 clips, fewer than one batch of 3"):
        CropBatches(ramps(2), seed=0, batch_size=3, crop_seconds=0.1)


def test_a_clip_that_cannot_be_read_ends_the_epoch_with_its_own_error():
    class Broken(Held):
        def __getitem__(self, index: int) -> Clip:
            if index == 3:
                raise SonibookError("clip3.wav: cannot be read.")
            return super().__getitem__(index)

    data = Broken([noise(900, seed) for seed in range(6)], [0] * 6)
    with pytest.raises(SonibookError, match=r"clip3\.wav"):
        list(CropBatches(data, seed=0, batch_size=2, crop_seconds=0.1).epoch(0))


# --- evaluation ----------------------------------------------------------------------------------


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


def test_accuracy_counts_the_highest_score():
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]], np.float32)
    targets = np.eye(2, dtype=np.float32)[[1, 0, 0, 0]]
    assert accuracy(scores, targets) == 0.75


def test_wilson_interval_solves_its_own_equation():
    # Its ends are where the score statistic |p - p0| / sqrt(p0 (1 - p0) / n) equals z.
    z = stats.norm.ppf(0.975)
    for correct, total in [(1, 10), (37, 80), (399, 400), (5, 7)]:
        for end in wilson_interval(correct, total):
            score = abs(correct / total - end) / math.sqrt(end * (1 - end) / total)
            assert score == pytest.approx(z, rel=1e-6)
    assert wilson_interval(0, 10)[0] == pytest.approx(0, abs=1e-12)
    assert wilson_interval(10, 10)[1] == pytest.approx(1, abs=1e-12)


def test_cross_entropy_is_the_mean_negative_log_probability():
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((5, 4)), rng.dirichlet(np.ones(4), 5)
    expected = -(targets * np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))).sum(1)
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))
    assert float(loss) == pytest.approx(expected.mean())


# --- the linear probe ----------------------------------------------------------------------------


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


def test_mean_features_are_the_maps_of_each_clip_alone():
    data = Held([noise(n, n) for n in (2500, 3000, 2500, 60)], [0, 1, 2, 0])
    encoder = CNN12(width=1 / 16, seed=1).eval()
    features, labels = mean_features(encoder, data, layer=3, batch_size=2)
    np.testing.assert_array_equal(labels, [0, 1, 2, 0])
    with torch.no_grad():
        for row, x in zip(features, data.waveforms, strict=True):
            maps = encoder.features[:9](torch.from_numpy(x)[None, None])
            np.testing.assert_allclose(row, maps[0].mean(1), rtol=1e-4, atol=1e-6)
    assert groups_of(data) is None
    data.task = "multi-label"
    with pytest.raises(DatasetError, match="multi-label"):
        mean_features(encoder, data)


# --- configurations ------------------------------------------------------------------------------


def settings_of(**changes: Any) -> dict[str, Any]:
    """A tiny experiment on a folder of sounds."""
    return {
        "name": "tiny",
        "seed": 3,
        "data": {"name": "folder", "crop_seconds": 0.3},
        "encoder": {"width": 0.0625, "norm": "weight"},
        "augment": {"mixup_alpha": 0.4},
        "optimiser": {
            "epochs": 10,
            "warmup_epochs": 1,
            "batch_size": 4,
            "learning_rate": 2e-3,
        },
        "evaluate_every": 4,
        "threads": 1,
        **changes,
    }


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (settings_of(epochs=3), "epochs is not a known key"),
        (settings_of(data={"name": "folder", "crop": 2}), r"data\.crop is not a known key"),
        (settings_of(optimiser={"batch": 2}), r"optimiser\.batch is not a known key"),
        (settings_of(seed="three"), "seed: input should be a valid integer"),
        (settings_of(seed=-1), "seed: input should be greater than or equal to 0"),
        (settings_of(optimiser={"epochs": 1.5}), r"optimiser\.epochs: input should be a valid"),
        (settings_of(optimiser={"learning_rate": 0}), "greater than 0"),
        (settings_of(optimiser={"learning_rate": math.inf}), r"learning_rate: .*finite"),
        (settings_of(encoder={"width": 0.001}), r"encoder\.width: input should be greater"),
        (settings_of(encoder={"width": math.nan}), r"encoder\.width"),
        (settings_of(encoder={"norm": "batch"}), r"encoder\.norm: .*'none' or 'weight'"),
        (settings_of(objective="guess"), "objective: "),
        (settings_of(name="../up"), "name: "),
        (settings_of(threads=0), "threads: "),
        (settings_of(augment={"time_mask_share": 1.5}), r"augment\.time_mask_share"),
        (settings_of(data=None), "data: "),
        ({"name": "only"}, "data is missing"),
        ([1, 2], "expected keys and values"),
        ("", "expected keys and values"),
        ("name: [", "is not YAML"),
    ],
)
def test_impossible_configurations_name_the_key(tmp_path, content, sentence):
    path = written(tmp_path / "config.yaml", content)
    with pytest.raises(ConfigError, match=sentence) as refusal:
        load_config(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"seed: .*; nonsense is not"):
        load_config(written(tmp_path / "c.yaml", settings_of(seed="x", nonsense=1)))


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "nonesuch.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(binary)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=str)
def test_every_configuration_of_the_project_is_one(path):
    assert load_config(path).name


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"name": "nonesuch"}, "no data set 'nonesuch'"),
        ({"name": "esc50", "train": {"fold": [1]}}, "fold"),
        ({"name": "esc50", "train": {"root": "x"}}, r"data\.train: name and root"),
        ({"name": "esc50", "test": {"folds": 5}}, r"data\.test: esc50 cannot take it"),
        ({"name": "soundscapes"}, "multi-label"),
        (
            {
                "name": "soundscapes",
                "train": {"task": "single-label", "size": 8},
                "test": {"task": "single-label", "size": 8},
                "crop_seconds": 0.1,
            },
            "crop_seconds: 800 samples are fewer",
        ),
    ],
)
def test_data_that_cannot_be_trained_on_writes_nothing(tmp_path, data, sentence):
    config = TrainConfig.model_validate(settings_of(data=data))
    with pytest.raises((ConfigError, DatasetError), match=sentence):
        train(config, out=tmp_path / "run", data_root=replica(tmp_path / "data"))
    assert not (tmp_path / "run").exists()


def replica(root: Path) -> Path:
    """ESC-50's layout with five clips, one a fold."""
    (root / "ESC-50" / "meta").mkdir(parents=True)
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        write_wav(root / "ESC-50" / "audio" / f"{fold}-1-A-0.wav", noise(3000, fold))
        rows.append(f"{fold}-1-A-0.wav,{fold},0,dog,True,1,A")
    (root / "ESC-50" / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return root


# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that a network can tell apart: low and high tones, and noise."""
    root = tmp_path_factory.mktemp("sounds")
    time_axis = np.arange(4000) / 8000
    for index in range(8):
        rng = np.random.default_rng(index)
        for name, pitch in (("low", 200), ("high", 1500)):
            phase = 2 * np.pi * (pitch * rng.uniform(0.9, 1.1) * time_axis + rng.uniform())
            write_wav(root / name / f"{index}.wav", 0.9 * np.sin(phase))
        write_wav(root / "noise" / f"{index}.wav", noise(4000, 100 + index))
    return root


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "encoder.safetensors")


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def straight(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed, in a process of its own, as the killed one."""
    out = tmp_path_factory.mktemp("straight") / "run"
    assert start(out, sounds).wait() == 0
    return out


def start(out: Path, sounds: Path) -> subprocess.Popen:
    """A real process that trains."""
    out.parent.mkdir(exist_ok=True)
    config = written(out.parent / "tiny.yaml", settings_of())
    return subprocess.Popen(
        [sys.executable, "-m", "sonibook", "train", config, "--out", out, "--data-root", sounds],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_run_leaves_all_that_belongs_to_it(straight):
    names = {path.name for path in straight.iterdir()}
    assert names == {"config.yaml", "log.csv", "state.safetensors", "encoder.safetensors"}
    rows = rows_of(straight)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 11))
    evaluated = [int(row["epoch"]) for row in rows if row["test_accuracy"]]
    assert evaluated == [4, 8, 10]
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)
    card = read_card(straight / "encoder.safetensors")
    assert card["classes"] == ["high", "low", "noise"]
    assert card["epochs"] == 10
    assert card["test_clips"] == 24
    assert card["chance"] == pytest.approx(1 / 3)
    config = yaml.safe_load((straight / "config.yaml").read_text())
    assert TrainConfig.model_validate(config) == TrainConfig.model_validate(settings_of())
    assert card["config"] == config


def test_the_card_has_the_accuracy_of_the_published_weights(straight, sounds):
    network = load_classifier(straight / "encoder.safetensors")
    data = prepare(TrainConfig.model_validate(settings_of()), data_root=sounds).test_data
    scores, truth = predict(network, data, least_length=network.encoder.least_length)
    card = read_card(straight / "encoder.safetensors")
    assert accuracy(scores, truth) == card["test_accuracy"]


@pytest.mark.parametrize("moment", ["mid-epoch", "early"])
def test_a_killed_run_ends_in_the_same_weights(straight, sounds, tmp_path, moment):
    out = tmp_path / "run"
    process = start(out, sounds)
    try:
        waited_for = out / ("log.csv" if moment == "mid-epoch" else "config.yaml")
        deadline = time.monotonic() + 60
        while not waited_for.exists() and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        time.sleep(float(np.random.default_rng(len(moment)).uniform(0, 0.1)))
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "encoder.safetensors").exists()
    done = len(rows_of(out)) if (out / "log.csv").exists() else 0
    assert done < 10
    if moment == "mid-epoch":
        assert done > 0
    assert start(out, sounds).wait() == 0
    expected, resumed = weights(straight), weights(out)
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, resumed[name]), name
    # The half-precision weights might hide a difference: the run's own state must agree, too.
    first, second = (load_file(folder / "state.safetensors") for folder in (straight, out))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    columns = ("epoch", "learning_rate", "train_loss", "test_accuracy")
    logs = [[[row[c] for c in columns] for row in rows_of(folder)] for folder in (straight, out)]
    assert logs[0] == logs[1]


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(sounds, tmp_path):
    brief = {"optimiser": {"epochs": 1, "warmup_epochs": 0, "batch_size": 8}}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = TrainConfig.model_validate(settings_of(seed=seed, **brief))
        train(config, out=tmp_path / name, data_root=sounds)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["features.conv6.weight"], c["features.conv6.weight"])


def test_the_loss_falls_and_the_classes_are_learned(sounds, tmp_path):
    config = TrainConfig.model_validate(
        settings_of(
            augment={"mixup_alpha": None},
            optimiser={
                "epochs": 20,
                "warmup_epochs": 1,
                "batch_size": 8,
                "learning_rate": 3e-3,
            },
            evaluate_every=20,
        )
    )
    card = train(config, out=tmp_path / "run", data_root=sounds)
    losses = [float(row["train_loss"]) for row in rows_of(tmp_path / "run")]
    assert losses[0] == pytest.approx(math.log(3), rel=0.2)
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    assert card["test_accuracy"] > 0.8


def test_a_finished_run_is_published_again_and_its_log_completed(straight, sounds, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    for name in ("config.yaml", "state.safetensors"):
        (out / name).write_bytes((straight / name).read_bytes())
    train(TrainConfig.model_validate(settings_of()), out=out, data_root=sounds)
    assert (out / "log.csv").read_bytes() == (straight / "log.csv").read_bytes()
    assert all(torch.equal(t, weights(out)[name]) for name, t in weights(straight).items())


def test_another_runs_folder_is_left_alone(straight, sounds):
    before = {path.name: path.read_bytes() for path in straight.iterdir()}
    config = TrainConfig.model_validate(settings_of(seed=4))
    with pytest.raises(ConfigError, match="another configuration"):
        train(config, out=straight, data_root=sounds)
    assert {path.name: path.read_bytes() for path in straight.iterdir()} == before


def test_a_damaged_state_is_refused(straight, sounds, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_bytes((straight / "config.yaml").read_bytes())
    (out / "state.safetensors").write_bytes((straight / "state.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="no checkpoint of this run"):
        train(TrainConfig.model_validate(settings_of()), out=out, data_root=sounds)
    assert not (out / "encoder.safetensors").exists()


def test_a_run_that_diverges_stops_at_once_and_says_what_to_do(sounds, tmp_path):
    wild = {"epochs": 3, "warmup_epochs": 0, "batch_size": 8, "learning_rate": 1e20}
    config = TrainConfig.model_validate(settings_of(optimiser=wild))
    with pytest.raises(ConfigError, match=r"loss is .* at step \d+: lower optimiser"):
        train(config, out=tmp_path / "run", data_root=sounds)
    assert not (tmp_path / "run" / "encoder.safetensors").exists()


def test_state_holds_weights_moments_and_position(tmp_path):
    def made(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        network = CNN12(width=1 / 16, norm="weight", seed=seed)
        return network, torch.optim.AdamW(network.parameters(), lr=1e-2)

    def step(network: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        network.eval()(batch(2, 2500)).square().sum().backward()
        optimiser.step()

    network, optimiser = made(0)
    step(network, optimiser)
    path = tmp_path / "state.safetensors"
    save_run(path, network, optimiser, {"log": [1, "двa"]})
    other, other_optimiser = made(1)
    assert load_run(path, other, other_optimiser) == {"log": [1, "двa"]}
    step(network, optimiser)
    step(other, other_optimiser)
    for (name, first), second in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second), name
    wider = CNN12(width=1 / 8, norm="weight")
    with pytest.raises(CheckpointError, match="no checkpoint of this run"):
        load_run(path, wider, torch.optim.AdamW(wider.parameters()))
