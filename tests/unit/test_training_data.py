"""Batches: seeded crops, the same however an epoch is begun or divided."""

import numpy as np
import pytest
import torch
from clips import Held, noise, ramps
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sonibook.audio import sounding_starts
from sonibook.datasets.base import Clip
from sonibook.errors import (
    AudioError,
    ConfigError,
    DatasetError,
    MissingAudioError,
    SonibookError,
    SonibookWarning,
)
from sonibook.training.config import AugmentConfig
from sonibook.training.data import Batch, CropBatches, two_crops

AUGMENT = AugmentConfig(mix_back_min_snr_db=0.0, mixup_alpha=0.4)


def same(first: Batch, second: Batch) -> bool:
    return (
        torch.equal(first.x, second.x)
        and torch.equal(first.targets, second.targets)
        and np.array_equal(first.rows, second.rows)
    )


def batches_of(data: Held, **changes: object) -> CropBatches:
    options = {"seed": 4, "batch_size": 3, "crop_seconds": 0.1} | changes
    return CropBatches(data, **options)


# --- an epoch ------------------------------------------------------------------------------------


def test_batches_do_not_depend_on_what_was_drawn_before():
    straight = batches_of(ramps(11), augment=AUGMENT)
    epochs = [list(straight.epoch(epoch)) for epoch in range(3)]
    late = list(batches_of(ramps(11), augment=AUGMENT).epoch(2))
    assert all(same(*pair) for pair in zip(epochs[2], late, strict=True))
    assert not torch.equal(epochs[0][0].x, epochs[1][0].x)
    other_seed = batches_of(ramps(11), seed=5, augment=AUGMENT)
    assert not torch.equal(next(iter(other_seed.epoch(0))).x, epochs[0][0].x)


def test_crops_are_drawn_as_they_always_were():
    """By seed, epoch and clip: a published network can be made again from its card alone."""
    data, length = ramps(11), 800
    batches = batches_of(data, seed=4)
    for group, batch in zip(batches.whole_epoch(2), batches.epoch(2), strict=True):
        for index, crop in zip(map(int, group), batch.x, strict=True):
            random = np.random.default_rng(np.random.SeedSequence((4, 2, 1, index)))
            first, last = sounding_starts(data.waveforms[index], length)
            start = int(random.integers(first, last + 1))
            np.testing.assert_array_equal(crop[0], data.waveforms[index][start : start + length])


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("first", [0, 1, 2, 4, 5])
def test_an_epoch_is_taken_up_in_its_middle(first, views):
    augment = AUGMENT.model_copy(update={"mixup_alpha": None if views == 2 else 0.4})
    batches = batches_of(ramps(11), batch_size=2, augment=augment, views=views)
    assert len(batches) == 5
    rest = list(batches.epoch(3, first=first))
    assert len(rest) == 5 - first
    assert all(same(*pair) for pair in zip(list(batches.epoch(3))[first:], rest, strict=True))


def test_an_epoch_has_each_clip_once_whole_batches_and_its_own_label():
    data = ramps(11)
    batches = batches_of(data, seed=0)
    assert len(batches) == 3
    seen = []
    for batch in batches.epoch(0):
        assert batch.x.shape == (3, 1, 800)
        assert batch.targets.shape == (3, 3)
        assert batch.rows.tolist() == [0, 1, 2]
        clips = torch.floor(batch.x[:, 0, 0] * len(data) + 1e-3).int() - 1
        assert torch.equal(batch.targets.argmax(1).int(), clips % 3)
        assert torch.equal(batch.targets.sum(1), torch.ones(3))
        for row, clip in zip(batch.x[:, 0].numpy(), clips.tolist(), strict=True):
            start = round((float(row[0]) * len(data) - clip - 1) * 2 * 3000)
            assert 0 <= start <= 3000 - 800
            np.testing.assert_array_equal(row, data.waveforms[clip][start : start + 800])
        seen += clips.tolist()
    assert len(seen) == len(set(seen)) == 9


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("views", [1, 2])
def test_shares_of_processes_put_together_are_the_batch_of_one(processes, views):
    augment = AUGMENT.model_copy(update={"mixup_alpha": None if views == 2 else 0.4})
    options = {"batch_size": 64, "crop_seconds": 0.05, "augment": augment, "views": views}
    data = Held([noise(1500, seed) for seed in range(140)], [n % 3 for n in range(140)])
    whole = list(batches_of(data, **options).epoch(1))
    shares = [
        list(batches_of(data, **options, rank=rank, processes=processes).epoch(1))
        for rank in range(processes)
    ]
    assert len(whole) == 2
    for number, one in enumerate(whole):
        parts = [share[number] for share in shares]
        assert [len(part.targets) for part in parts] == [64 // processes] * processes
        rows = np.concatenate([part.rows for part in parts])
        assert sorted(rows) == list(range(64 * views))
        together = torch.cat([part.x for part in parts])
        torch.testing.assert_close(together, one.x[rows], rtol=1e-6, atol=1e-7)
        targets = torch.cat([part.targets for part in parts])
        torch.testing.assert_close(targets, one.targets, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("size", "processes"), [(24, 2), (48, 2), (96, 4), (64, 3)])
def test_a_batch_that_cannot_be_divided_is_refused(size, processes):
    with pytest.raises(ConfigError, match=rf"{size} clips .* multiple of {16 * processes}\.$"):
        batches_of(ramps(100), batch_size=size, processes=processes)


def test_a_data_set_smaller_than_a_batch_is_refused():
    with pytest.raises(DatasetError, match=r"has 2 clips, fewer than one batch of 3"):
        batches_of(ramps(2))


def test_a_clip_that_cannot_be_read_ends_the_epoch_with_its_own_error():
    class Broken(Held):
        def __getitem__(self, index: int) -> Clip:
            if index == 3:
                raise SonibookError("clip3.wav: cannot be read.")
            return super().__getitem__(index)

    data = Broken([noise(900, seed) for seed in range(6)], [0] * 6)
    with pytest.raises(SonibookError, match=r"clip3\.wav"):
        list(batches_of(data, batch_size=2).epoch(0))


class Damaged(Held):
    """Some clips cannot be read."""

    damaged = frozenset({2, 3, 10})

    def __getitem__(self, index: int) -> Clip:
        if index in self.damaged:
            raise AudioError(f"clip{index}.wav: is damaged.")
        return super().__getitem__(index)


@pytest.mark.parametrize("views", [1, 2])
def test_the_next_clip_stands_in_for_one_that_cannot_be_read(views):
    whole, damaged = ramps(11), ramps(11)
    damaged.__class__ = Damaged
    expected, found = (batches_of(data, batch_size=11, views=views) for data in (whole, damaged))
    (whole_batch,), (batch,) = expected.epoch(1), found.epoch(1)
    order = expected.whole_epoch(1)[0]
    for row, index in enumerate(map(int, order)):
        stands_in = {2: 4, 3: 4, 10: 0}.get(index, index)
        value = float(batch.x[row, 0, 0])
        assert int(value * 11) == stands_in + 1  # a ramp tells its clip
        assert int(batch.targets[row].argmax()) == stands_in % 3
        if stands_in == index:
            assert torch.equal(batch.x[row], whole_batch.x[row])
    assert set(found.reader.bad) == {2, 3, 10}
    assert found.reader.bad[3] == "clip3.wav: is damaged."


@pytest.mark.parametrize(("clips", "most"), [(100, 5), (40, 4), (3, 2)])
def test_more_damaged_clips_than_a_few_stop_the_epoch_in_a_sentence(clips, most):
    data = ramps(clips)
    data.__class__ = type("Few", (Damaged,), {"damaged": frozenset(range(most))})
    list(batches_of(data).epoch(0))
    data.__class__ = type("Many", (Damaged,), {"damaged": frozenset(range(most + 1))})
    with pytest.raises(AudioError) as refusal:
        list(batches_of(data).epoch(0))
    assert str(refusal.value).startswith(f"{most + 1} of the {clips} clips of held (all) cannot be")
    assert "\n" not in str(refusal.value)


def test_a_vanished_file_stops_at_once():
    class Gone(Held):
        def __getitem__(self, index: int) -> Clip:
            raise MissingAudioError(f"clip{index}.wav: there is no such file.")

    with pytest.raises(MissingAudioError, match="no such file"):
        list(batches_of(Gone([noise(900, 0)] * 9, [0] * 9)).epoch(0))


def test_shuffled_labels_are_dealt_out_once():
    count = 60
    data = ramps(count)
    batches = batches_of(data, batch_size=4, shuffle_labels=True)
    dealt: list[dict[int, int]] = []
    for epoch in range(5):
        pairs = {}
        for batch in batches.epoch(epoch):
            clips = torch.floor(batch.x[:, 0, 0] * count + 1e-3).int() - 1
            pairs |= zip(clips.tolist(), batch.targets.argmax(1).tolist(), strict=True)
        dealt.append(pairs)
    assert all(pairs == dealt[0] for pairs in dealt)
    labels = [dealt[0][clip] for clip in range(count)]
    true = [clip % 3 for clip in range(count)]
    assert sorted(labels) == sorted(true)  # a permutation: every class as often as before
    kept = sum(map(int.__eq__, labels, true))
    assert 8 <= kept <= 34  # 20 are expected by chance
    other = batches_of(data, batch_size=60, seed=5, shuffle_labels=True)
    assert not torch.equal(
        next(other.epoch(0)).targets, next(batches_of(data, batch_size=60, seed=5).epoch(0)).targets
    )


def test_dealing_labels_is_no_epochs_order():
    # Neither the order of clips nor their crops may say which label was dealt.
    batches = batches_of(ramps(40), batch_size=40, shuffle_labels=True)
    dealt = batches.label_of
    for epoch in range(8):
        clips = torch.floor(next(batches.epoch(epoch)).x[:, 0, 0] * 40 + 1e-3).int() - 1
        assert not np.array_equal(clips.numpy(), dealt)


# --- crops ---------------------------------------------------------------------------------------


def test_crops_reach_every_place():
    batches = batches_of(ramps(1), batch_size=1)
    starts = [
        (float(batch.x[0, 0, 0]) - 1) * 6000
        for epoch in range(400)
        for batch in batches.epoch(epoch)
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
    (batch,) = batches_of(data, batch_size=1).epoch(0)
    np.testing.assert_array_equal(batch.x[0, 0, :500], data.waveforms[0])
    assert not batch.x[0, 0, 500:].any()


def test_two_views_are_two_stretches_of_the_same_clip():
    data = ramps(6)
    batches = batches_of(data, views=2)
    for batch in batches.epoch(0):
        assert batch.x.shape == (6, 1, 800)
        assert batch.targets.shape == (3, 3)
        assert batch.rows.tolist() == [0, 1, 2, 3, 4, 5]
        times = batch.x[:, 0, 0].double() * 6
        clips = torch.floor(times + 1e-4)
        assert torch.equal(clips[:3], clips[3:])
        starts = (times - clips) * 6000
        assert ((starts[:3] - starts[3:]).abs() >= 800 - 0.1).all()


def times_of(x: np.ndarray, crops: list[np.ndarray]) -> list[np.ndarray]:
    """Where the samples of crops of a clip with all different samples come from."""
    place = {float(value): time for time, value in enumerate(x) if value}
    return [np.array([place[float(value)] for value in crop if value]) for crop in crops]


@settings(max_examples=80, deadline=None)
@given(
    before=st.integers(0, 300),
    sounding=st.integers(2, 600),
    after=st.integers(0, 300),
    length=st.integers(1, 400),
    seed=st.integers(0, 2**32),
)
def test_two_crops_never_overlap_nor_waste_what_sounds(before, sounding, after, length, seed):
    loud = 0.5 + np.arange(1, sounding + 1) / (2 * sounding)
    x = np.concatenate([np.zeros(before), loud, np.zeros(after)]).astype(np.float32)
    crops = two_crops(x, length, np.random.default_rng(seed))
    assert [crop.shape for crop in crops] == [(length,)] * 2
    first, second = times_of(x, crops)
    taken = min(length, sounding // 2)
    assert len(first) == len(second) == taken
    assert not set(first) & set(second)
    for crop, times in zip(crops, (first, second), strict=True):
        np.testing.assert_array_equal(np.diff(times), 1)  # one stretch, from the crop's beginning
        np.testing.assert_array_equal(crop[:taken], x[times])
        assert not crop[taken:].any()


def test_every_pair_of_stretches_is_drawn_and_in_either_order():
    x, length = np.arange(1, 11, dtype=np.float32), 3
    random = np.random.default_rng(0)
    drawn = [tuple(int(crop[0]) for crop in two_crops(x, length, random)) for _ in range(3000)]
    possible = {
        (one, two) for one in range(1, 9) for two in range(1, 9) if abs(one - two) >= length
    }
    assert set(drawn) == possible
    forwards = sum(one < two for one, two in drawn)
    assert stats.binomtest(forwards, len(drawn)).pvalue > 1e-3


@pytest.mark.parametrize("samples", [1, 2, 7, 100])
def test_a_silent_clip_gives_two_silent_crops(samples):
    crops = two_crops(np.zeros(samples, np.float32), 5, np.random.default_rng(0))
    assert [crop.shape for crop in crops] == [(5,), (5,)]
    assert not np.any(crops)


# --- pairs of like levels ------------------------------------------------------------------------


def levels_of(crops: list[np.ndarray]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 10 * np.log10([np.mean(crop.astype(np.float64) ** 2) for crop in crops])


def test_a_pair_without_a_limit_is_drawn_as_ever():
    x = noise(5000, 3)
    for seed in range(20):
        free = two_crops(x, 800, np.random.default_rng(seed))
        limited = two_crops(x, 800, np.random.default_rng(seed), most_level_db=60.0)
        np.testing.assert_array_equal(free, limited)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(50, 1500), most=st.floats(1.0, 30.0))
def test_pairs_of_like_levels_do_not_overlap_and_are_the_best_of_six(seed, length, most):
    envelope = np.geomspace(1, 10**-2.5, 4000)  # 50 dB down from one end to the other
    x = ((0.5 + np.arange(1, 4001) / 8000) * envelope).astype(np.float32)
    x *= np.where(np.arange(4000) % 2, 1, -1)
    crops = two_crops(x, length, np.random.default_rng(seed), most_level_db=most)
    first, second = times_of(x, crops)
    assert len(first) == len(second) == min(length, len(x) // 2)
    assert not set(first) & set(second)
    random = np.random.default_rng(seed)
    differences = []
    for _ in range(6):
        begin, taken = 0, min(length, 2000)
        one, two = np.sort(random.integers(0, 4000 - 2 * taken + 1, size=2))
        starts = random.permutation([begin + one, begin + two + taken])
        differences.append(abs(np.subtract(*levels_of([x[s : s + taken] for s in starts]))))
        if differences[-1] <= most:
            break
    got = abs(np.subtract(*levels_of([crop[:taken] for crop in crops])))
    assert got == pytest.approx(min(differences), abs=1e-3)


def test_an_event_is_not_paired_with_room_tone_or_silence():
    sounds = {"room tone": 0.01, "silence": 0.0}
    for name, level in sounds.items():
        x = level * noise(16000, 1)
        x[:8000] += noise(8000, 2) * (1 - level)
        x[-1] = 0.5
        far, near = [], []
        for seed in range(300):
            for most, found in ((None, far), (15.0, near)):
                crops = two_crops(x, 1600, np.random.default_rng(seed), most_level_db=most)
                first, second = np.maximum(levels_of(crops), -120.0)
                found.append(abs(first - second) > 15 or max(first, second) <= -100)
        assert np.mean(near) < 0.6 * np.mean(far), name


# --- pairs that do not fit -----------------------------------------------------------------------


def test_pairs_cut_shorter_than_their_crops_are_told_of_once():
    data = Held([noise(1000, seed) for seed in range(9)], [0] * 9)
    batches = batches_of(data, views=2)  # crops of 800 samples
    with pytest.warns(SonibookWarning, match=r"3 of 3 clips hold less .* of 0\.1 s\.") as told:
        epochs = [list(batches.epoch(epoch)) for epoch in range(3)]
    assert len(epochs) == 3
    assert len(told) == 1
    list(batches_of(data, views=2, crop_seconds=0.0625).epoch(0))  # 500 fit twice
    list(batches_of(data, views=1, crop_seconds=0.5).epoch(0))
