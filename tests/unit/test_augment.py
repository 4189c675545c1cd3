"""Augmentations: what each adds or takes away, measured."""

import numpy as np
import pytest
import torch
from clips import batch
from scipy import stats

from sonibook.training.augment import (
    augmented,
    gaussian_noise,
    mix_back,
    mixup,
    random_gain,
    time_mask,
)
from sonibook.training.config import AugmentConfig
from sonibook.training.draws import Draws

AUGMENTATIONS = {
    "gain": random_gain,
    "noise": gaussian_noise,
    "mask": time_mask,
    "mix back": mix_back,
    "mixup": lambda x, draws: mixup(x, torch.eye(len(x)), alpha=0.4, draws=draws)[0],
}
EVERYTHING = AugmentConfig(mix_back_min_snr_db=0.0, mixup_alpha=0.4)
NOTHING = AugmentConfig(gain_db=None, noise_min_snr_db=None, time_mask_share=None)


def drawn(count: int, seed: int = 0) -> Draws:
    return Draws(seed, 0, range(count))


def ratio_in_db(signal: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """Of mean powers, in float64."""
    powers = [x.double().square().mean(dim=2)[:, 0] for x in (signal, added)]
    return 10 * torch.log10(powers[0] / powers[1])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_follow_from_their_draws_and_spare_their_input(name):
    change, x = AUGMENTATIONS[name], batch()
    before = x.clone()
    first, second, other = (change(x, draws=drawn(8, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert not torch.equal(first, x)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_leave_silence_silent(name):
    silence = torch.zeros(4, 1, 500)
    assert torch.equal(AUGMENTATIONS[name](silence, draws=drawn(4)), silence)


@pytest.mark.parametrize("processes", [2, 4])
def test_parts_of_a_batch_are_augmented_as_the_whole(processes):
    size = 64
    x, targets = batch(size, 600), torch.eye(size)
    whole = augmented(x, targets, config=EVERYTHING, draws=Draws(5, 9, range(size)))
    share = size // processes
    parts = []
    for rank in range(processes):
        own = slice(rank * share, (rank + 1) * share)
        draws = Draws(5, 9, range(own.start, own.stop))
        parts.append(augmented(x[own], targets[own], config=EVERYTHING, draws=draws))
    for one, many in zip(whole, zip(*parts, strict=True), strict=True):
        # What is drawn is equal; a power of ten may round otherwise at another place in memory.
        torch.testing.assert_close(torch.cat(many), one, rtol=1e-6, atol=1e-7)


def test_a_configuration_names_what_is_done_and_in_which_order():
    x, targets = batch(), torch.eye(8)
    same, labels = augmented(x, targets, config=NOTHING, draws=drawn(8))
    assert torch.equal(same, x)
    assert torch.equal(labels, targets)
    got, labels = augmented(x, targets, config=EVERYTHING, draws=drawn(8))
    draws = drawn(8)
    expected, expected_labels = mixup(x, targets, alpha=0.4, draws=draws)
    for change in (mix_back, time_mask, gaussian_noise, random_gain):
        expected = change(expected, draws=draws)
    assert torch.equal(got, expected)
    assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize(
    ("only", "change"),
    [
        ({"gain_db": 3.0}, lambda x, d: random_gain(x, max_db=3.0, draws=d)),
        ({"noise_min_snr_db": 20.0}, lambda x, d: gaussian_noise(x, min_snr_db=20.0, draws=d)),
        ({"time_mask_share": 0.5}, lambda x, d: time_mask(x, max_share=0.5, draws=d)),
        ({"mix_back_min_snr_db": 5.0}, lambda x, d: mix_back(x, min_snr_db=5.0, draws=d)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_configurations_numbers_reach_the_augmentation(only, change):
    x, config = batch(), NOTHING.model_copy(update=only)
    got, _ = augmented(x, torch.eye(8), config=config, draws=drawn(8))
    assert torch.equal(got, change(x, drawn(8)))


# --- gain, noise, mask ---------------------------------------------------------------------------


def test_gain_is_uniform_in_decibels_and_one_number_a_clip():
    x = batch(1, 50).expand(2000, 1, 50)
    ratio = random_gain(x, max_db=6.0, draws=drawn(2000)) / x
    assert torch.allclose(ratio, ratio[:, :, :1].expand_as(ratio), rtol=1e-5)
    levels = 20 * np.log10(ratio[:, 0, 0].numpy())
    assert np.abs(levels).max() <= 6 + 1e-4
    assert stats.kstest(levels, stats.uniform(-6, 12).cdf).pvalue > 1e-3


@pytest.mark.parametrize("snr", [0.0, 15.0, 40.0])
def test_noise_has_the_level_that_is_asked_for(snr):
    x = batch(16, 20000) * torch.logspace(-3, 0, 16)[:, None, None]
    noisy = gaussian_noise(x, min_snr_db=snr, max_snr_db=snr, draws=drawn(16))
    added = (noisy - x).double()
    # 20,000 samples tell a variance to 1 %, 0.04 dB; the float32 sum adds a little at 40 dB.
    measured = ratio_in_db(x, added)
    torch.testing.assert_close(measured, torch.full_like(measured, snr), rtol=0, atol=0.25)
    normalised = (added / added.std(dim=2, keepdim=True)).flatten().numpy()
    assert stats.kstest(normalised[::16], stats.norm.cdf).pvalue > 1e-3


def test_noise_levels_spread_over_the_range():
    x = batch(1, 4000).expand(600, 1, 4000)
    noisy = gaussian_noise(x, min_snr_db=15.0, max_snr_db=50.0, draws=drawn(600))
    measured = ratio_in_db(x, noisy - x)
    assert stats.kstest(measured, stats.uniform(15, 35).cdf).pvalue > 1e-3


def test_mask_is_one_stretch_of_zeros_and_nothing_else():
    samples = 2000
    x = torch.ones(500, 1, samples)
    masked = time_mask(x, max_share=0.2, draws=drawn(500))
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
    assert torch.equal(time_mask(x, max_share=share, draws=drawn(64)), x) == kept


# --- mixing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [-3.0, 0.0, 12.0])
def test_mix_back_puts_one_other_clip_behind_at_the_ratio_asked_for(snr):
    levels = torch.logspace(-2, 0, 16)[torch.randperm(16, generator=torch.Generator())]
    x = batch(16, 4000) * levels[:, None, None]
    added = mix_back(x, min_snr_db=snr, max_snr_db=snr, draws=drawn(16)) - x
    measured = ratio_in_db(x, added)
    torch.testing.assert_close(measured, torch.full_like(measured, snr), rtol=0, atol=1e-3)
    unit = torch.nn.functional.normalize(x[:, 0].double(), dim=1)
    likeness = torch.nn.functional.normalize(added[:, 0].double(), dim=1) @ unit.T
    backgrounds = likeness.argmax(1)
    assert (likeness.amax(1) > 1 - 1e-6).all()  # a scaled copy of another clip, the right way up
    assert (backgrounds != torch.arange(16)).all()


def test_mix_back_levels_spread_over_the_range():
    x = batch(1, 500).expand(600, 1, 500)
    measured = ratio_in_db(x, mix_back(x, min_snr_db=0.0, max_snr_db=30.0, draws=drawn(600)) - x)
    assert stats.kstest(measured, stats.uniform(0, 30).cdf).pvalue > 1e-3


def test_a_silent_background_adds_nothing():
    x = torch.zeros(16, 1, 400)
    x[3] = batch(1, 400)
    mixed = mix_back(x, min_snr_db=0.0, max_snr_db=0.0, draws=drawn(16))
    assert torch.isfinite(mixed).all()
    assert torch.equal(mixed, x)  # a silent clip takes no background, the other only silent ones


def test_mixup_mixes_sound_and_targets_by_the_same_share():
    # Clip i is the i-th unit vector, as is its target: the mixture then shows its shares.
    count = 12
    mixed, targets = mixup(torch.eye(count)[:, None], torch.eye(count), alpha=0.4, draws=drawn(12))
    torch.testing.assert_close(mixed[:, 0], targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(count))
    assert ((targets > 0).sum(1) <= 2).all()


def test_mixup_is_linear_and_its_shares_are_beta_distributed():
    x, y = batch(6, 300), batch(6, 300).flip(0) * 0.3
    mix = [mixup(z, torch.eye(6), alpha=0.4, draws=drawn(6))[0] for z in (x, y, 2 * x - y)]
    torch.testing.assert_close(mix[2], 2 * mix[0] - mix[1], rtol=1e-4, atol=1e-6)
    count = 1500
    _, targets = mixup(torch.zeros(count, 1, 1), torch.eye(count), alpha=0.4, draws=drawn(count))
    shares = targets.diagonal().numpy()
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
