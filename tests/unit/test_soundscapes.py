"""Synthesised and composed scenes: determinism, stems, band limits, and that classes differ."""

import math

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate
from sklearn.ensemble import RandomForestClassifier

from sonibook.audio import SAMPLE_RATE
from sonibook.datasets import Dataset, open_dataset
from sonibook.datasets.soundscapes import (
    EVENT_CLASSES,
    ComposedScenes,
    Scene,
    Soundscapes,
    render_event,
    synth,
)
from sonibook.datasets.soundscapes.scenes import loudest_rms
from sonibook.errors import AudioError, DatasetError

NAMES = list(EVENT_CLASSES)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def spectrum_db(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz, and power in dB re the strongest bin, by a window with low side lobes."""
    power = np.abs(np.fft.rfft(x * np.blackman(len(x)))) ** 2
    return np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE), 10 * np.log10(power / power.max() + 1e-30)


def check_scene(scene: Scene, *, length: int) -> None:
    """What every scene promises."""
    assert scene.mixture.shape == (length,)
    assert scene.mixture.dtype == np.float32
    assert np.abs(scene.mixture).max() == pytest.approx(1.0, abs=1e-6)
    # Exactly, and in any order: stems are multiples of one step.
    np.testing.assert_array_equal(scene.stems.sum(axis=0), scene.mixture)
    np.testing.assert_array_equal(scene.stems[::-1].sum(axis=0), scene.mixture)
    np.testing.assert_array_equal(scene.stems.astype(float).sum(axis=0), scene.mixture)
    assert [event.onset for event in scene.events] == sorted(e.onset for e in scene.events)
    for event in scene.events:
        first, last = round(event.onset * SAMPLE_RATE), round(event.offset * SAMPLE_RATE)
        assert 0 <= first < last <= length
        assert not event.stem[:first].any()
        assert not event.stem[last:].any()
        assert np.isfinite(event.stem).all()
        # True to the sample: it sounds from the onset on, and until the offset.
        assert event.stem[first] != 0
        assert event.stem[last - 1] != 0


def check_levels(scene: Scene) -> None:
    """The gains say how loud the events are beside each other."""
    loudness = [20 * math.log10(loudest_rms(event.stem)) for event in scene.events]
    offsets = np.subtract(loudness, [event.gain for event in scene.events])
    np.testing.assert_allclose(offsets, offsets[0], atol=0.05)


def same(one: Scene, other: Scene) -> bool:
    return one.clip_id == other.clip_id and np.array_equal(one.stems, other.stems)


# The primitives: nothing aliases, noise has the spectrum asked for.


def test_harmonics_are_where_they_belong_and_nowhere_else():
    x = synth.harmonics(np.full(SAMPLE_RATE, 700.0), lambda f, t: np.ones_like(f))
    frequency, level = spectrum_db(x)
    expected = np.arange(1, 6) * 700.0  # 4,200 Hz would fold to 3,800
    assert {round(f, -1) for f in frequency[level > -90]} == set(expected)


@settings(max_examples=30, deadline=None)
@given(start=st.floats(60.0, 3000.0), bend=st.floats(0.8, 1.25))
def test_gliding_harmonics_equal_a_sum_of_sines(start, bend):
    f0 = start * np.linspace(1.0, bend, 6000)
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    count = int(4000 / f0.min())
    expected = sum(synth.below_nyquist(k * f0) * np.cos(k * phase) for k in range(1, count + 1))
    found = synth.harmonics(f0, lambda f, t: np.ones_like(f))
    assert (found - expected).std() < 0.05 * expected.std()


@settings(max_examples=30, deadline=None)
@given(
    centre=st.floats(300.0, 1500.0),
    depth=st.floats(0.1, 0.9),
    speed=st.floats(1.0, 40.0),
    order=st.integers(1, 8),
)
def test_no_harmonic_ever_passes_half_the_rate(centre, depth, speed, order):
    """However fast the pitch swings: each harmonic alone is exactly zero up there."""
    f0 = centre * (1 + depth * np.sin(2 * np.pi * speed * np.arange(8000) / SAMPLE_RATE))
    x = synth.harmonics(f0, lambda f, t: (np.arange(1, len(f) + 1)[:, None] == order) * 1.0)
    assert not x[order * f0 > 3900].any()


@pytest.mark.parametrize("start", [100.0, 2000.0])
def test_a_glide_past_half_the_rate_falls_silent_there(start):
    """An alias would come back down where the true frequency climbs on."""
    f = np.linspace(start, 9000.0, 4 * SAMPLE_RATE)
    for x in (synth.tone(f), synth.harmonics(f, lambda f, t: np.ones_like(f))):
        assert np.abs(x[f > 4000]).max() < 1e-12


def test_modes_equal_their_formula():
    n = 5001
    t = np.arange(n) / SAMPLE_RATE
    frequencies, t60, gains = (
        [110.0, 1234.5, 3500.0, 4600.0],
        [0.5, 0.2, 1.0, 1.0],
        [1.0, 2.0, 0.5, 9.0],
    )
    expected = sum(
        g * np.exp(-math.log(1000) * t / d) * np.sin(2 * np.pi * f * t)
        for f, d, g in zip(frequencies[:3], t60[:3], gains[:3], strict=True)
    )
    np.testing.assert_allclose(synth.modes(n, frequencies, t60, gains), expected, atol=1e-9)


def test_noise_has_the_spectrum_asked_for():
    x = synth.noise(generator(), 200_000, lambda f, t: np.where(f < 1000, 1.0, 0.1))
    power = np.abs(np.fft.rfft(x)) ** 2
    frequency = np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)
    low = power[(frequency > 100) & (frequency < 900)].mean()
    high = power[(frequency > 1200) & (frequency < 3800)].mean()
    assert 10 * math.log10(low / high) == pytest.approx(20.0, abs=0.3)
    white = synth.noise(generator(), 200_000, lambda f, t: np.ones_like(f))
    assert white.std() == pytest.approx(1.0, abs=0.01)


def test_noise_follows_a_spectrum_that_changes():
    n = 4 * SAMPLE_RATE
    x = synth.noise(generator(), n, lambda f, t: np.where(t < 2.0, f < 1000, f > 3000) * 1.0)
    for part, inside in ((x[: n // 2 - 256], (0, 1200)), (x[n // 2 + 256 :], (2800, 4000))):
        power = np.abs(np.fft.rfft(part)) ** 2
        frequency = np.fft.rfftfreq(len(part), 1 / SAMPLE_RATE)
        held = power[(frequency >= inside[0]) & (frequency <= inside[1])].sum()
        assert held > 0.999 * power.sum()


@pytest.mark.parametrize("seed", range(4))
def test_a_place_adds_echoes_that_die_away_and_a_hum_far_below(seed):
    click = np.zeros(2 * SAMPLE_RATE)
    click[0] = 1.0
    x = synth.surroundings(generator(seed), click)
    early, late = x[1:1200], x[-1200:]
    assert 0.02 < np.linalg.norm(early) < 1.0  # weaker than what they are echoes of
    assert np.linalg.norm(early) > np.linalg.norm(late)
    assert np.abs(late).max() < 0.1
    # It is as loud as the sound in it is, and silent where there is none.
    np.testing.assert_allclose(synth.surroundings(generator(seed), 3 * click), 3 * x, atol=1e-12)
    assert not synth.surroundings(generator(seed), 0 * click).any()


@given(n=st.integers(1, 4000), values=st.lists(st.floats(-100, 100), min_size=2, max_size=8))
def test_a_contour_passes_through_its_values_and_stays_between(n, values):
    curve = synth.contour(n, values)
    assert len(curve) == n
    assert curve.min() >= min(values) - 1e-9
    assert curve.max() <= max(values) + 1e-9
    assert curve[0] == pytest.approx(values[0])
    if n > 1:
        assert curve[-1] == pytest.approx(values[-1])


@given(
    starts=st.lists(st.integers(-50, 400), min_size=1, max_size=20),
    length=st.sampled_from([1, 7, 300, 700]),
    n=st.integers(1, 350),
)
def test_grains_are_placed_as_one_would_by_hand(starts, length, n):
    rng = generator(length)
    grains, gains = rng.random((len(starts), length)), rng.random(len(starts))
    expected = np.zeros(n)
    for start, grain, gain in zip(starts, grains, gains, strict=True):
        for offset in range(length):
            if start >= 0 and start + offset < n:
                expected[start + offset] += gain * grain[offset]
    np.testing.assert_allclose(synth.overlap_add(n, np.array(starts), grains, gains), expected)


# The events.


def test_there_are_enough_classes_in_a_stable_order():
    assert len(NAMES) >= 20
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("duration", [0.05, 0.5, 3.0])
def test_every_event_is_a_sound_of_the_length_asked_for(name, duration):
    for seed in range(5):
        x = render_event(name, duration=duration, seed=seed)
        assert x.shape == (round(duration * SAMPLE_RATE),)
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert np.abs(x).max() == pytest.approx(1.0)
        assert abs(x.mean()) < 0.02
        assert abs(x[-1]) < 0.05  # no click where it ends


@pytest.mark.parametrize("name", NAMES)
def test_events_differ_by_seed_and_repeat_by_seed(name):
    one, again, other = (render_event(name, duration=1.0, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.9


def test_a_generator_goes_on():
    rng = generator()
    one, two = (render_event("siren", duration=1.0, seed=rng) for _ in range(2))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("name", ["alarm_beep", "car_horn", "siren", "whistle", "vowels"])
def test_tonal_events_leave_the_top_of_the_band_empty(name):
    """An alias of what lies above 4 kHz would show between 3.9 and 4 kHz."""
    for seed in range(8):
        frequency, level = spectrum_db(render_event(name, seed=seed))
        assert level[frequency > 3950].max() < -45


@pytest.mark.parametrize("duration", [0.0, -1.0, np.nan, np.inf])
def test_a_duration_that_is_none(duration):
    with pytest.raises(DatasetError, match="An event cannot last"):
        render_event("siren", duration=duration)


def test_an_event_that_is_none():
    with pytest.raises(DatasetError, match=r"no event class 'unicorn': choose one of alarm_beep,"):
        render_event("unicorn")


def features(x: np.ndarray) -> np.ndarray:
    """Level and movement in 16 bands: what a simple ear hears. Independent of the synthesiser."""
    frames = np.lib.stride_tricks.sliding_window_view(x, 256)[::128] * np.hanning(256)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = np.unique(np.geomspace(2, 129, 17).astype(int))
    bands = np.log10(np.add.reduceat(power, edges[:-1], axis=1) + 1e-7)
    loud = bands.mean(axis=1)
    rhythm = np.abs(np.fft.rfft(loud - loud.mean(), 256))[:64]
    parts = (bands.mean(axis=0), bands.std(axis=0), np.abs(np.diff(bands, axis=0)).mean(axis=0))
    return np.concatenate([*parts, np.percentile(loud, [5, 25, 50, 75, 95]), rhythm / len(loud)])


def test_classes_are_told_apart_on_seeds_never_heard():
    heard = [(features(render_event(n, seed=s)), n) for n in NAMES for s in range(16)]
    unheard = [(features(render_event(n, seed=s)), n) for n in NAMES for s in range(100, 106)]
    forest = RandomForestClassifier(200, random_state=0).fit(*map(list, zip(*heard, strict=True)))
    x, y = map(list, zip(*unheard, strict=True))
    right = forest.predict(x) == np.array(y)
    assert right.mean() > 0.9  # chance is 1 in 26
    for name in NAMES:
        assert right[np.array(y) == name].mean() >= 0.5, name


# The scenes.


@pytest.mark.parametrize("task", ["multi-label", "single-label"])
@pytest.mark.parametrize("duration", [0.5, 1.3, 5.0, 12.0])
def test_scenes_keep_their_promises(task, duration):
    data = Soundscapes(seed=5, size=12, duration=duration, task=task, events=(1, 5))
    for n in range(len(data)):
        scene = data.scene(n)
        check_scene(scene, length=round(duration * SAMPLE_RATE))
        check_levels(scene)
        assert 1 <= len(scene.events) <= 5
        assert len(scene.labels) == (1 if task == "single-label" else len(scene.events))
        assert all(event.name == data.classes[event.labels[0]] for event in scene.events)
        assert all(-12.0 <= event.gain <= 0.0 for event in scene.events)
        clip = data[n]
        np.testing.assert_array_equal(clip.waveform, scene.mixture)
        assert clip.labels == scene.labels == data.labels(n)
        assert clip.clip_id == scene.clip_id


def test_a_scene_made_alone_is_the_scene_made_in_order():
    in_order = [Soundscapes(seed=9, size=20).scene(n) for n in range(20)]
    data = Soundscapes(seed=9, size=20)
    for n in reversed(range(20)):
        np.random.default_rng(n).random(n)  # other randomness must not matter
        np.random.seed(n)  # noqa: NPY002
        assert same(data.scene(n), in_order[n])
    assert same(Soundscapes(seed=9, size=5000).scene(13), in_order[13])
    assert same(data.scene(-1), in_order[-1])


def test_the_random_draws_are_what_they_always_were():
    """Pinned: a change here changes every measurement ever made on these scenes."""
    for (seed, number), expected in PINNED.items():
        events = Soundscapes(seed=seed, size=200, split="train").scene(number).events
        assert [(e.name, round(e.onset, 2), round(e.gain, 3)) for e in events] == expected


PINNED = {
    (0, 0): [("rain", 0.37, -8.837), ("drum_hit", 0.81, -11.599), ("vowels", 2.69, -6.793)],
    (7, 123): [("helicopter", 0.22, -5.184), ("church_bell", 1.34, -6.774), ("wind", 2.12, -7.484)],
}


def test_seeds_splits_and_numbers_make_different_scenes():
    made = {
        (seed, split, n): Soundscapes(seed=seed, split=split).scene(n)
        for seed in (0, 1, 2**32 - 1)
        for split in ("all", "train", "test")
        for n in (0, 1, 999)
    }
    assert len({scene.mixture.tobytes() for scene in made.values()}) == len(made)
    assert len({scene.clip_id for scene in made.values()}) == len(made)
    assert made[1, "train", 999].clip_id == "soundscapes-1-train-999"


def test_every_class_and_every_count_is_drawn():
    data = Soundscapes(seed=0, size=400)
    counts = [len(data.labels(n)) for n in range(400)]
    assert set(counts) == {1, 2, 3, 4, 5}
    assert {label for n in range(400) for label in data.labels(n)} == set(range(len(NAMES)))
    assert len(Soundscapes(task="single-label").scene(0).events) == 1


def test_events_overlap_in_time():
    """Polyphony is the point: most scenes of several events have two at once."""
    data = Soundscapes(seed=1, events=(3, 5), size=20)
    overlapping = 0
    for n in range(20):
        events = data.scene(n).events
        ends = np.maximum.accumulate([event.offset for event in events])
        overlapping += any(b.onset < end for b, end in zip(events[1:], ends, strict=False))
    assert overlapping >= 15


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": 0}, "size 0 leaves no clip"),
        ({"seed": -1}, "seed -1 is impossible"),
        ({"seed": 2**32}, "is impossible: choose 0 to"),
        ({"duration": 0.1}, "cannot last 0.1 s"),
        ({"duration": math.nan}, "cannot last nan s"),
        ({"events": (0, 2)}, r"events \(0, 2\) is not a range"),
        ({"events": (3, 2)}, r"events \(3, 2\) is not a range"),
        ({"gains": (0.0, -6.0)}, r"gains \(0.0, -6.0\) is not a range"),
        ({"split": "dev"}, "soundscapes has no split 'dev': choose all, train, test"),
    ],
)
def test_parameters_out_of_range(options, reason):
    with pytest.raises(DatasetError, match=reason):
        open_dataset("soundscapes", **options)


def test_scenes_that_do_not_exist():
    data = Soundscapes(size=3)
    assert len(list(data)) == 3
    for n in (3, -4):
        with pytest.raises(IndexError, match=f"clip {n} of 3 does not exist"):
            data.scene(n)
        with pytest.raises(IndexError):
            data.labels(n)


# Scenes composed of another set's clips.


@pytest.fixture(scope="module")
def birds_and_bells(tmp_path_factory) -> Dataset:
    root = tmp_path_factory.mktemp("sounds")
    for name in ("bird_chirp", "church_bell"):
        (root / name).mkdir()
        for seed in range(4):
            x = render_event(name, duration=0.6 + seed, seed=seed)
            soundfile.write(root / name / f"{seed}.flac", 0.9 * x, SAMPLE_RATE)
    return open_dataset("folder", root=root)


@pytest.mark.parametrize("task", ["multi-label", "single-label"])
def test_composed_scenes_keep_the_same_promises(birds_and_bells, task):
    data = ComposedScenes(birds_and_bells, seed=3, size=20, events=(1, 4), task=task)
    ids = {clip.clip_id: clip for clip in birds_and_bells}
    for n in range(20):
        scene = data.scene(n)
        check_scene(scene, length=5 * SAMPLE_RATE)
        check_levels(scene)
        assert same(
            scene, ComposedScenes(birds_and_bells, seed=3, task=task, events=(1, 4)).scene(n)
        )
        assert scene.labels == data.labels(n) == data[n].labels
        assert task == "multi-label" or len(scene.labels) == 1
        assert len({event.source for event in scene.events}) == len(scene.events)
        for event in scene.events:
            clip = ids[event.source]
            assert event.labels == clip.labels
            assert event.name == birds_and_bells.classes[clip.labels[0]]
            # The stem is a piece of that very clip, but for a factor.
            first, last = (round(t * SAMPLE_RATE) for t in (event.onset, event.offset))
            assert best_match(clip.waveform, event.stem[first:last]) > 0.9999


def test_composed_scenes_name_the_sources_of_their_recordings(birds_and_bells, data_root):
    assert ComposedScenes(birds_and_bells, size=1, events=(2, 2)).credit(0) == ""
    data = open_dataset("soundscapes", root=data_root, mixture_of="esc10", size=3, events=(2, 2))
    for n in range(3):
        numbers = {event.source.split("-")[1] for event in data.scene(n).events}
        told = {f"Freesound {number}, CC BY" for number in numbers}
        assert set(data.credit(n).split("; ")) == told


def best_match(x: np.ndarray, piece: np.ndarray) -> float:
    """The largest cosine between `piece` and any part of `x` as long."""
    products = correlate(x.astype(float), piece.astype(float), mode="valid")
    energy = np.cumsum(np.concatenate([[0.0], x.astype(float) ** 2]))
    norms = np.sqrt(np.maximum(energy[len(piece) :] - energy[: -len(piece)], 1e-9))
    return float((products / norms).max() / np.linalg.norm(piece.astype(float)))


def test_composing_by_name_reads_the_split_it_is_asked_for(birds_and_bells, tmp_path):
    data = open_dataset("soundscapes", mixture_of=birds_and_bells, size=2, seed=4)
    assert data[1].clip_id == "scenes-of-folder-4-all-1"
    with pytest.raises(DatasetError, match="a folder has no split 'train'"):
        open_dataset("soundscapes", mixture_of="folder", root=tmp_path, split="train")


def test_composing_what_has_no_labels(tmp_path):
    for seed in range(3):
        soundfile.write(tmp_path / f"{seed}.wav", render_event("rain", seed=seed), SAMPLE_RATE)
    plain = open_dataset("folder", root=tmp_path)
    scene = ComposedScenes(plain, size=1, events=(2, 2)).scene(0)
    check_scene(scene, length=5 * SAMPLE_RATE)
    assert scene.labels == ()
    assert {event.name for event in scene.events} <= {"0.wav", "1.wav", "2.wav"}
    with pytest.raises(DatasetError, match="folder has no single labels"):
        ComposedScenes(plain, task="single-label")


def test_a_scene_of_silence_and_sound(tmp_path):
    """A silent clip makes a silent stem, and no NaN."""
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), SAMPLE_RATE)
    soundfile.write(tmp_path / "b.wav", render_event("rain"), SAMPLE_RATE)
    scene = ComposedScenes(open_dataset("folder", root=tmp_path), size=1, events=(2, 2)).scene(0)
    assert np.isfinite(scene.mixture).all()
    silent = next(event for event in scene.events if event.source == "a.wav")
    assert not silent.stem.any()
    assert silent.onset == silent.offset


def test_a_clip_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.wav").write_text("a letter")
    data = ComposedScenes(open_dataset("folder", root=tmp_path), size=1)
    with pytest.raises(AudioError, match=r"broken\.wav"):
        data[0]


@pytest.mark.parametrize("task", ["multi-label", "single-label"])
def test_composing_real_recordings(data_root, task):
    data = open_dataset(
        "soundscapes", mixture_of="esc10", root=data_root, split="train", size=6, task=task
    )
    assert data.name == "scenes-of-esc10"
    training = {e.clip_id for e in open_dataset("esc10", root=data_root, split="train").entries}
    for n in range(len(data)):
        scene = data.scene(n)
        check_scene(scene, length=5 * SAMPLE_RATE)
        check_levels(scene)
        assert {event.source for event in scene.events} <= training
        assert scene.labels == data.labels(n)
