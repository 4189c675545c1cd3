"""Augmentations: what each adds or takes away, measured."""

import numpy as np
import pytest
import torch
from clips import batch
from scipy import signal, stats

from sonibook.training.augment import (
    EQUALISED_HZ,
    augmented,
    background,
    change_speed,
    equalisation,
    filter_frequencies,
    filtered,
    gaussian_noise,
    high_pass,
    low_pass,
    mix_back,
    mixup,
    random_gain,
    random_level,
    reverberation,
    source_samples,
    time_mask,
)
from sonibook.training.config import AugmentConfig
from sonibook.training.sampling import RandomStreams

AUGMENTATIONS = {
    "gain": random_gain,
    "noise": gaussian_noise,
    "mask": time_mask,
    "mix back": mix_back,
    "mixup": lambda x, streams: mixup(x, torch.eye(len(x)), alpha=0.4, streams=streams)[0],
    "background": lambda x, streams: background(x, x.flip(2) * 0.3, streams=streams),
    "speed": lambda x, streams: change_speed(x, samples=x.shape[2], streams=streams),
    "equalisation": lambda x, streams: filtered(
        x, equalisation(frequencies_of(x), streams=streams)
    ),
    "low-pass": lambda x, streams: filtered(x, low_pass(frequencies_of(x), streams=streams)),
    "high-pass": lambda x, streams: filtered(x, high_pass(frequencies_of(x), streams=streams)),
    "reverberation": lambda x, streams: filtered(x, room_response(x, streams)),
    "level": random_level,
}
EVERYTHING = AugmentConfig(mix_back_min_snr_db=0.0, mixup_alpha=0.4)
NOTHING = AugmentConfig(gain_db=None, noise_min_snr_db=None, time_mask_share=None)
#: All that is ours, on every crop and on some.
OURS = AugmentConfig(
    gain_db=None,
    noise_min_snr_db=10.0,
    time_mask_share=0.3,
    speed=0.25,
    equalise_db=12.0,
    low_pass_hz=800.0,
    high_pass_hz=800.0,
    reverberation_seconds=0.5,
    background_min_snr_db=0.0,
    polarity=True,
    level_db=12.0,
)
ALWAYS = dict.fromkeys(type(OURS.shares).model_fields, 1.0)


def frequencies_of(x: torch.Tensor) -> torch.Tensor:
    return filter_frequencies(x.shape[2])


def room_response(x: torch.Tensor, streams: RandomStreams) -> torch.Tensor:
    return torch.fft.rfft(reverberation(streams=streams), x.shape[2] + 4000)


def drawn(count: int, seed: int = 0) -> RandomStreams:
    return RandomStreams(seed, 0, range(count))


def decibels(amplitude: torch.Tensor) -> np.ndarray:
    return 20 * np.log10(amplitude.double().numpy())


def ratio_in_db(signal: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    """Of mean powers, in float64."""
    powers = [x.double().square().mean(dim=2)[:, 0] for x in (signal, added)]
    return 10 * torch.log10(powers[0] / powers[1])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_follow_from_their_draws_and_spare_their_input(name):
    change, x = AUGMENTATIONS[name], batch()
    before = x.clone()
    first, second, other = (change(x, streams=drawn(8, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert not torch.equal(first, x)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_leave_silence_silent(name):
    silence = torch.zeros(4, 1, 500)
    assert torch.equal(AUGMENTATIONS[name](silence, streams=drawn(4)), silence)


def noises(streams: RandomStreams) -> torch.Tensor:
    return streams.normal(600)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("config", [EVERYTHING, OURS], ids=["paper's", "ours"])
def test_parts_of_a_batch_are_augmented_as_the_whole(processes, config):
    size = 64
    x, targets = batch(size, source_samples(config, 600)), torch.eye(size)
    options = {"config": config, "samples": 600, "backgrounds": noises}
    whole = augmented(x, targets, streams=RandomStreams(5, 9, range(size)), **options)
    share = size // processes
    parts = []
    for rank in range(processes):
        own = slice(rank * share, (rank + 1) * share)
        streams = RandomStreams(5, 9, range(own.start, own.stop))
        parts.append(augmented(x[own], targets[own], streams=streams, **options))
    for one, many in zip(whole, zip(*parts, strict=True), strict=True):
        # What is drawn is equal; a power of ten may round otherwise at another place in memory.
        torch.testing.assert_close(torch.cat(many), one, rtol=1e-5, atol=1e-5)


def test_ours_come_one_after_another_each_with_its_own_numbers():
    """Joined into one transform, the filters do what they do one after the other."""
    config = OURS.model_copy(update={"shares": OURS.shares.model_copy(update=ALWAYS)})
    x, targets = batch(8, 5000), torch.eye(8)
    got, _ = augmented(
        x,
        targets,
        config=config,
        streams=drawn(8),
        samples=4000,
        backgrounds=lambda d: d.normal(4000),
    )
    streams = drawn(8)
    expected = change_speed(x, samples=4000, streams=streams)
    frequencies = frequencies_of(expected)
    response = equalisation(frequencies, streams=streams) * low_pass(frequencies, streams=streams)
    response = response * high_pass(frequencies, streams=streams)
    expected = filtered(expected, response * room_response(expected, streams))
    expected = background(expected, streams.normal(4000), streams=streams)
    expected = time_mask(expected, max_share=0.3, streams=streams)
    expected = gaussian_noise(expected, min_snr_db=10.0, streams=streams)
    expected = expected * (1 - 2 * streams.kept(0.5, 1)[:, :, None])
    expected = random_level(expected, streams=streams)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert got.shape == (8, 1, 4000)


@pytest.mark.parametrize(
    ("only", "share"),
    [
        ({"speed": 0.25}, "speed"),
        ({"equalise_db": 12.0}, "equalise"),
        ({"low_pass_hz": 800.0}, "low_pass"),
        ({"high_pass_hz": 800.0}, "high_pass"),
        ({"reverberation_seconds": 0.5}, "reverberation"),
        ({"background_min_snr_db": 0.0}, "background"),
        ({"noise_min_snr_db": 10.0}, "noise"),
        ({"time_mask_share": 0.3}, "time_mask"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_share_of_the_crops_is_changed_and_the_others_not_touched(only, share):
    count = 400
    shares = NOTHING.shares.model_copy(update={share: 0.3})
    config = NOTHING.model_copy(update={**only, "shares": shares})
    x = batch(1, source_samples(config, 300)).expand(count, 1, -1)
    got, _ = augmented(
        x,
        torch.eye(count),
        config=config,
        streams=drawn(count),
        samples=300,
        backgrounds=lambda streams: streams.normal(300),
    )
    changed = int((got != x[:, :, :300]).any(dim=2).sum())
    assert stats.binomtest(changed, count, 0.3).pvalue > 1e-3


def test_a_configuration_names_what_is_done_and_in_which_order():
    x, targets = batch(), torch.eye(8)
    same, labels = augmented(x, targets, config=NOTHING, streams=drawn(8))
    assert torch.equal(same, x)
    assert torch.equal(labels, targets)
    got, labels = augmented(x, targets, config=EVERYTHING, streams=drawn(8))
    streams = drawn(8)
    expected, expected_labels = mixup(x, targets, alpha=0.4, streams=streams)
    for change in (mix_back, time_mask, gaussian_noise, random_gain):
        expected = change(expected, streams=streams)
    assert torch.equal(got, expected)
    assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize(
    ("only", "change"),
    [
        ({"gain_db": 3.0}, lambda x, d: random_gain(x, max_db=3.0, streams=d)),
        ({"noise_min_snr_db": 20.0}, lambda x, d: gaussian_noise(x, min_snr_db=20.0, streams=d)),
        ({"time_mask_share": 0.5}, lambda x, d: time_mask(x, max_share=0.5, streams=d)),
        ({"mix_back_min_snr_db": 5.0}, lambda x, d: mix_back(x, min_snr_db=5.0, streams=d)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_configurations_numbers_reach_the_augmentation(only, change):
    x, config = batch(), NOTHING.model_copy(update=only)
    got, _ = augmented(x, torch.eye(8), config=config, streams=drawn(8))
    assert torch.equal(got, change(x, drawn(8)))


# --- gain, noise, mask ---------------------------------------------------------------------------


def test_gain_is_uniform_in_decibels_and_one_number_a_clip():
    x = batch(1, 50).expand(2000, 1, 50)
    ratio = random_gain(x, max_db=6.0, streams=drawn(2000)) / x
    assert torch.allclose(ratio, ratio[:, :, :1].expand_as(ratio), rtol=1e-5)
    levels = 20 * np.log10(ratio[:, 0, 0].numpy())
    assert np.abs(levels).max() <= 6 + 1e-4
    assert stats.kstest(levels, stats.uniform(-6, 12).cdf).pvalue > 1e-3


@pytest.mark.parametrize("snr", [0.0, 15.0, 40.0])
def test_noise_has_the_level_that_is_asked_for(snr):
    x = batch(16, 20000) * torch.logspace(-3, 0, 16)[:, None, None]
    noisy = gaussian_noise(x, min_snr_db=snr, max_snr_db=snr, streams=drawn(16))
    added = (noisy - x).double()
    # 20,000 samples tell a variance to 1 %, 0.04 dB; the float32 sum adds a little at 40 dB.
    measured = ratio_in_db(x, added)
    torch.testing.assert_close(measured, torch.full_like(measured, snr), rtol=0, atol=0.25)
    normalised = (added / added.std(dim=2, keepdim=True)).flatten().numpy()
    assert stats.kstest(normalised[::16], stats.norm.cdf).pvalue > 1e-3


def test_noise_levels_spread_over_the_range():
    x = batch(1, 4000).expand(600, 1, 4000)
    noisy = gaussian_noise(x, min_snr_db=15.0, max_snr_db=50.0, streams=drawn(600))
    measured = ratio_in_db(x, noisy - x)
    assert stats.kstest(measured, stats.uniform(15, 35).cdf).pvalue > 1e-3


def test_mask_is_one_stretch_of_zeros_and_nothing_else():
    samples = 2000
    x = torch.ones(500, 1, samples)
    masked = time_mask(x, max_share=0.2, streams=drawn(500))
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
    assert torch.equal(time_mask(x, max_share=share, streams=drawn(64)), x) == kept


# --- mixing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [-3.0, 0.0, 12.0])
def test_mix_back_puts_one_other_clip_behind_at_the_ratio_asked_for(snr):
    levels = torch.logspace(-2, 0, 16)[torch.randperm(16, generator=torch.Generator())]
    x = batch(16, 4000) * levels[:, None, None]
    added = mix_back(x, min_snr_db=snr, max_snr_db=snr, streams=drawn(16)) - x
    measured = ratio_in_db(x, added)
    torch.testing.assert_close(measured, torch.full_like(measured, snr), rtol=0, atol=1e-3)
    unit = torch.nn.functional.normalize(x[:, 0].double(), dim=1)
    likeness = torch.nn.functional.normalize(added[:, 0].double(), dim=1) @ unit.T
    backgrounds = likeness.argmax(1)
    assert (likeness.amax(1) > 1 - 1e-6).all()  # a scaled copy of another clip, the right way up
    assert (backgrounds != torch.arange(16)).all()


def test_mix_back_levels_spread_over_the_range():
    x = batch(1, 500).expand(600, 1, 500)
    measured = ratio_in_db(x, mix_back(x, min_snr_db=0.0, max_snr_db=30.0, streams=drawn(600)) - x)
    assert stats.kstest(measured, stats.uniform(0, 30).cdf).pvalue > 1e-3


def test_a_silent_background_adds_nothing():
    x = torch.zeros(16, 1, 400)
    x[3] = batch(1, 400)
    mixed = mix_back(x, min_snr_db=0.0, max_snr_db=0.0, streams=drawn(16))
    assert torch.isfinite(mixed).all()
    assert torch.equal(mixed, x)  # a silent clip takes no background, the other only silent ones


def test_mixup_mixes_sound_and_targets_by_the_same_share():
    # Clip i is the i-th unit vector, as is its target: the mixture then shows its shares.
    count = 12
    mixed, targets = mixup(
        torch.eye(count)[:, None], torch.eye(count), alpha=0.4, streams=drawn(12)
    )
    torch.testing.assert_close(mixed[:, 0], targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(count))
    assert ((targets > 0).sum(1) <= 2).all()


def test_mixup_is_linear_and_its_shares_are_beta_distributed():
    x, y = batch(6, 300), batch(6, 300).flip(0) * 0.3
    mix = [mixup(z, torch.eye(6), alpha=0.4, streams=drawn(6))[0] for z in (x, y, 2 * x - y)]
    torch.testing.assert_close(mix[2], 2 * mix[0] - mix[1], rtol=1e-4, atol=1e-6)
    count = 1500
    _, targets = mixup(torch.zeros(count, 1, 1), torch.eye(count), alpha=0.4, streams=drawn(count))
    shares = targets.diagonal().numpy()
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


@pytest.mark.parametrize("snr", [-3.0, 0.0, 12.0])
def test_a_background_stands_behind_at_the_ratio_asked_for(snr):
    x, behind = (
        batch(16, 4000),
        batch(16, 4000).flip(0, 2) * torch.logspace(-2, 0, 16)[:, None, None],
    )
    added = background(x, behind, min_snr_db=snr, max_snr_db=snr, streams=drawn(16)) - x
    measured = ratio_in_db(x, added)
    torch.testing.assert_close(measured, torch.full_like(measured, snr), rtol=0, atol=1e-3)
    unit = [torch.nn.functional.normalize(each[:, 0].double(), dim=1) for each in (added, behind)]
    torch.testing.assert_close((unit[0] * unit[1]).sum(1), torch.ones(16).double())
    assert torch.equal(background(x, torch.zeros_like(x), streams=drawn(16)), x)


# --- speed and level -----------------------------------------------------------------------------


def factors_of(count: int, most: float) -> np.ndarray:
    """Of a ramp, whose slope the speed is."""
    ramp = torch.arange(2000.0).expand(count, 1, 2000)
    return change_speed(ramp, most=most, samples=1000, streams=drawn(count))[:, 0, 1].numpy()


def test_speeds_spread_evenly_in_octaves():
    octaves = np.log2(factors_of(2000, 0.25))
    edge = np.log2(1.25)
    assert stats.kstest(octaves, stats.uniform(-edge, 2 * edge).cdf).pvalue > 1e-3


def test_speed_interpolates_as_numpy_does_and_holds_the_last_sample():
    x = batch(6, 1100)
    fast = change_speed(x, most=0.25, samples=1000, streams=drawn(6))
    for row, (source, factor) in enumerate(zip(x[:, 0].double(), factors_of(6, 0.25), strict=True)):
        places = factor * np.arange(1000)
        expected = np.interp(places, np.arange(1100), source)
        np.testing.assert_allclose(fast[row, 0], expected, atol=1e-3)
        assert (fast[row, 0, places > 1099] == x[row, 0, -1]).all()


def test_the_speed_of_a_tone_is_its_pitch():
    time = np.arange(10000) / 8000
    tone = torch.from_numpy(np.sin(2 * np.pi * 440 * time)).float().expand(5, 1, 10000)
    played = change_speed(tone, samples=8000, streams=drawn(5))[:, 0].double().numpy()
    peaks = np.abs(np.fft.rfft(played * np.hanning(8000), axis=1)).argmax(axis=1)  # 1 Hz apart
    np.testing.assert_allclose(peaks, 440 * factors_of(5, 0.25), atol=1)


def test_a_level_is_a_peak_below_one_whatever_it_was():
    x = batch(1, 200).expand(1500, 1, 200) * torch.logspace(-4, 2, 1500)[:, None, None]
    peaks = decibels(random_level(x, most_db=12.0, streams=drawn(1500)).abs().amax(2)[:, 0])
    assert stats.kstest(peaks, stats.uniform(-12, 12).cdf).pvalue > 1e-3


def test_polarity_turns_half_of_the_crops():
    x = batch(1, 50).expand(500, 1, 50)
    turned, _ = augmented(
        x, torch.eye(500), config=NOTHING.model_copy(update={"polarity": True}), streams=drawn(500)
    )
    signs = (turned / x)[:, 0]
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert stats.binomtest(int((signs[:, 0] > 0).sum()), 500).pvalue > 1e-3


# --- filters -------------------------------------------------------------------------------------

HZ = torch.tensor([10.0, 63.0, 100.0, 333.0, 1000.0, 2500.0, 3999.0])


@pytest.mark.parametrize(
    ("change", "kind", "order", "range_hz"),
    [(low_pass, "low", 4, (800.0, 3500.0)), (high_pass, "high", 2, (80.0, 800.0))],
)
def test_passes_are_butterworths_with_corners_even_in_octaves(change, kind, order, range_hz):
    response = change(HZ, streams=drawn(1500)).double()[:, 0]
    # The corner from the response at 1 kHz: 1 / (1 + (f / corner) ** (2 n)), or upside down.
    squared = response[:, 4].numpy() ** 2
    ratio = (1 / squared - 1) ** (1 / (2 * order))
    corners = 1000 / ratio if kind == "low" else 1000 * ratio
    spread = stats.loguniform(*range_hz)
    assert stats.kstest(corners, spread.cdf).pvalue > 1e-3
    for row in range(5):
        _, expected = signal.freqs(
            *signal.butter(order, 2 * np.pi * corners[row], kind, analog=True),
            2 * np.pi * HZ.double().numpy(),
        )
        np.testing.assert_allclose(response[row], np.abs(expected), rtol=1e-3, atol=1e-6)


def test_the_equaliser_is_linear_in_decibels_between_its_knots():
    knots = torch.tensor(EQUALISED_HZ)
    gains = decibels(equalisation(knots, max_db=12.0, streams=drawn(400))[:, 0])
    assert stats.kstest(gains.flatten(), stats.uniform(-12, 24).cdf).pvalue > 1e-3
    between = decibels(equalisation(HZ, max_db=12.0, streams=drawn(400))[:, 0])
    for row in range(20):
        expected = np.interp(np.log(HZ.numpy()), np.log(EQUALISED_HZ), gains[row])
        np.testing.assert_allclose(between[row], expected, atol=1e-3)
    np.testing.assert_allclose(EQUALISED_HZ, np.geomspace(20, 4000, 7))


def test_a_room_is_the_sound_and_noise_that_dies_away():
    room = reverberation(longest_seconds=0.5, streams=drawn(300))[:, 0].double()
    assert room.shape == (300, 4000)
    assert (room[:, 0] == 1).all()
    below = -decibels(room[:, 1:].norm(dim=1))
    assert stats.kstest(below, stats.uniform(0, 12).cdf).pvalue > 1e-3
    # A straight line through the level in decibels: 60 dB in the decay time.
    blocks = room[:, 1:3997].square().reshape(300, 37, 108).mean(dim=2).log10().numpy() * 10
    slopes = np.array([np.polyfit(np.arange(12) * 108 / 8000, row[:12], 1)[0] for row in blocks])
    assert stats.kstest(-60 / slopes, stats.uniform(0.05, 0.45).cdf).pvalue > 1e-3


@pytest.mark.parametrize("samples", [800, 1601])
def test_filtering_with_a_room_is_convolution(samples):
    x, streams = batch(4, samples), drawn(4)
    room = reverberation(streams=streams)
    got = filtered(x, torch.fft.rfft(room, samples + 4000))
    for row in range(4):
        expected = signal.convolve(x[row, 0].double(), room[row, 0].double())[:samples]
        np.testing.assert_allclose(got[row, 0], expected, atol=1e-4)


def test_a_filter_changes_the_spectrum_as_its_response_says():
    # An impulse in the middle: its spectrum is the response.
    impulse = torch.zeros(3, 1, 4001)
    impulse[:, :, 2000] = 1.0
    heard = filtered(impulse, equalisation(frequencies_of(impulse), streams=drawn(3)))
    middle = np.arange(4001) - 2000
    for hertz in (100.0, 440.0, 2000.0):
        response = equalisation(torch.tensor([hertz]), streams=drawn(3))[:, 0, 0]
        measured = np.abs(
            heard[:, 0].double().numpy() @ np.exp(-2j * np.pi * hertz * middle / 8000)
        )
        np.testing.assert_allclose(measured, response, rtol=0.02)
