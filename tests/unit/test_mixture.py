"""Several data sets in one training: what counts as a clip, how often, and in which order."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from clips import Held, noise, settings_of
from safetensors.torch import load_file
from scipy import stats

from sonibook.audio import read_audio, write_wav
from sonibook.cli.training import train as plan_or_train
from sonibook.datasets import base, open_dataset
from sonibook.errors import ConfigError, DatasetError
from sonibook.training import loop
from sonibook.training.config import AugmentConfig, TrainConfig
from sonibook.training.data import CropBatches
from sonibook.training.distributed import Runtime
from sonibook.training.experiment import prepare
from sonibook.training.loop import train
from sonibook.training.sampling import Mixture, RandomStreams

SECOND = 8000


def held(*seconds: float, name: str = "held", first: int = 0) -> Held:
    data = Held(
        [noise(round(length * SECOND), first + n) for n, length in enumerate(seconds)],
        [n % 3 for n in range(len(seconds))],
    )
    data.name, data.licence = name, f"{name}'s licence"
    return data


def with_silence(*parts: tuple[float, float]) -> np.ndarray:
    """Noise of (seconds, amplitude), one after another."""
    return np.concatenate([amplitude * noise(round(s * SECOND), 1) for s, amplitude in parts])


def write_pool(root: Path, seconds: dict[str, float]) -> Path:
    rows = ["filename,source,original,seconds"]
    for seed, (name, length) in enumerate(seconds.items()):
        write_wav(root / "POOL" / name, noise(round(length * SECOND), seed))
        rows.append(f"{name},{name.split('/')[0]},original/{seed}.ogg,{length}")
    (root / "POOL" / "pool.csv").write_text("\n".join(rows) + "\n")
    return root


# --- clips ---------------------------------------------------------------------------------------


def test_a_long_recording_counts_for_what_it_holds():
    data = held(0.5, 1.9, 3.2)
    mixture = Mixture([data], weights=[1.0], stretch_seconds=1.0)
    assert len(mixture) == 1 + 1 + 3
    for clip, expected in zip(
        list(mixture)[2:], np.split(data.waveforms[2], [8533, 17066]), strict=True
    ):
        np.testing.assert_allclose(clip.waveform, expected / np.abs(expected).max(), rtol=1e-6)
    assert [clip.labels for clip in mixture] == [(0,), (1,), (2,), (2,), (2,)]
    assert len({clip.clip_id for clip in mixture}) == 5


@pytest.mark.parametrize("in_memory", [False, True])
def test_what_has_too_little_sound_is_left_out(in_memory):
    loud, quiet = 1.0, 3e-4  # -70 dB is silence
    sounds = [
        with_silence((0.4, loud), (1.0, quiet)),
        with_silence((0.3, quiet), (0.6, loud), (0.5, 0.0)),
        np.zeros(2 * SECOND, np.float32),
        with_silence((0.3, loud), (0.5, 0.0), (0.2, loud)),  # from first to last: a second
    ]
    data = Held(sounds, [0, 1, 2, 0])
    mixture = Mixture([data], weights=[1.0], least_sound=0.5, in_memory=in_memory)
    assert [clip.labels for clip in mixture] == [(1,), (0,)]
    with pytest.raises(DatasetError, match=r"no clip with 3 s of sound: lower data\.least_sound"):
        Mixture([data], weights=[1.0], least_sound=3.0)


def test_clips_in_memory_are_read_once_and_the_same_to_16_bits():
    data = held(0.7, 2.3)
    kept = Mixture([data], weights=[1.0], stretch_seconds=1.0, in_memory=True)
    reads = list(data.reads)
    streamed = Mixture([data], weights=[1.0], stretch_seconds=1.0)
    for _ in range(3):
        for one, other in zip(kept, streamed, strict=True):
            np.testing.assert_allclose(one.waveform, other.waveform, atol=5e-5)
    assert reads == [1, 1]


def test_the_first_part_has_the_labels_and_all_have_licences():
    mixture = Mixture(
        [held(0.5, 0.5, name="one"), held(0.5, name="two", first=9)], weights=[1.0, 1.0]
    )
    assert (mixture.name, mixture.licence) == ("one and two", "one's licence; two's licence")
    assert [mixture.labels(n) for n in range(3)] == [(0,), (1,), ()]
    assert mixture.classes == held(1.0).classes


# --- how often -----------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.5), (0.25, 1.7)])
def test_an_epoch_goes_through_each_part_as_often_as_asked(weights):
    parts = [held(*[0.4] * 20), held(*[0.4] * 40, first=50)]
    mixture = Mixture(parts, weights=list(weights))
    batches = CropBatches(mixture, seed=1, batch_size=5, crop_seconds=0.2)
    wanted = (round(weights[0] * 20), round(weights[1] * 40))
    assert mixture.quotas == wanted
    counts = np.zeros(60, int)
    orders = []
    for epoch in range(200):
        order = batches.whole_epoch(epoch).ravel()
        orders.append(tuple(order))
        assert len(order) == sum(wanted) // 5 * 5 == len(set(order))
        counts += np.bincount(order % 60, minlength=60)
    assert len(set(orders)) == 200
    for part, quota in zip(np.split(counts, [20]), wanted, strict=True):
        if sum(wanted) % 5 == 0:
            assert part.sum() == 200 * quota
        assert stats.chisquare(part).pvalue > 1e-3 or part.std() < 1e-9


def test_a_clip_that_an_epoch_has_twice_gives_other_crops():
    mixture = Mixture([held(*[2.0] * 4)], weights=[2.0])
    batches = CropBatches(mixture, seed=1, batch_size=8, crop_seconds=0.1)
    (batch,) = batches.epoch(0)
    assert len({tuple(row) for row in batch.x[:, 0, :4].tolist()}) == 8


def test_a_mixture_of_one_set_is_drawn_as_that_set():
    data = held(*[0.5] * 12)
    mixture = Mixture([data], weights=[1.0])
    alone, mixed = (
        CropBatches(each, seed=3, batch_size=4, crop_seconds=0.2) for each in (data, mixture)
    )
    clips = np.concatenate([alone.whole_epoch(2), mixed.whole_epoch(2)])
    assert sorted(clips[:3].ravel()) == sorted(clips[3:].ravel())


def test_a_mixtures_epoch_is_taken_up_in_its_middle_and_divided():
    parts = [held(*[0.4] * 48), held(*[0.4] * 80, first=50)]
    options = {"seed": 1, "batch_size": 32, "crop_seconds": 0.1, "views": 2}
    options["augment"] = AugmentConfig(background_min_snr_db=0.0, speed=0.25)
    mixture = Mixture(parts, weights=[1.5, 1.0])
    batches = CropBatches(mixture, **options)
    whole = list(batches.epoch(1))
    assert len(whole) == 4
    for expected, batch in zip(whole[2:], batches.epoch(1, first=2), strict=True):
        assert np.array_equal(expected.x, batch.x)
    halves = [
        list(CropBatches(mixture, **options, rank=rank, processes=2).epoch(1)) for rank in (0, 1)
    ]
    for number, batch in enumerate(whole):
        rows = np.concatenate([half[number].rows for half in halves])
        together = np.concatenate([half[number].x for half in halves])
        np.testing.assert_allclose(together, batch.x[rows], rtol=1e-4, atol=1e-5)


# --- backgrounds ---------------------------------------------------------------------------------


def test_backgrounds_are_crops_of_clips_outside_the_batch():
    # Clip n is the constant n + 1; its crop is silent but for the background.
    sounds = [np.full(400, n + 1, np.float32) for n in range(12)]
    data = Held(sounds, [0] * 12)
    batches = CropBatches(
        data,
        seed=2,
        batch_size=8,
        crop_seconds=0.025,
        augment=AugmentConfig(background_min_snr_db=0.0),
    )
    group = batches.whole_epoch(0)[0]
    outside = np.setdiff1d(np.arange(12), group)
    found = batches._backgrounds(outside, RandomStreams(0, 0, range(200)))
    values, counts = np.unique(found[:, 0, 0], return_counts=True)
    assert sorted(values - 1) == sorted(outside)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert (found == found[:, :, :1]).all()


def test_a_batch_of_everything_leaves_no_background():
    augment = AugmentConfig(background_min_snr_db=0.0)
    with pytest.raises(ConfigError, match=r"^augment\.background_min_snr_db: a batch of 4 leaves"):
        CropBatches(held(*[1.0] * 4), seed=0, batch_size=4, crop_seconds=0.5, augment=augment)


# --- from a configuration ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recordings")
    for number in range(8):
        write_wav(root / "FSDD" / "recordings" / f"{number}_ada_{number}.wav", noise(6000, number))
    return write_pool(root, {"rain/a.wav": 1.0, "rain/b.wav": 3.3, "door/c.wav": 0.2})


def joined(**changes: object) -> TrainConfig:
    data = {
        "name": "fsdd",
        "crop_seconds": 0.3,
        "joined": [{"name": "pool", "train": {"sources": ["rain"]}, "weight": 2.0}],
        "stretch_seconds": 1.0,
        "least_sound": 0.25,
        "in_memory": True,
    }
    wide = {"features": "mean", "hidden": [16, 8], "projection": 4, "pair_level_db": 15}
    augment = {"speed": 0.25, "equalise_db": 6, "background_min_snr_db": 5, "level_db": 12}
    return TrainConfig.model_validate(
        settings_of(objective="nt_xent", data=data, contrastive=wide, augment=augment) | changes
    )


@pytest.mark.filterwarnings("ignore:.*hold less sound than two crops")
def test_a_joined_training_is_one_command_and_is_taken_up_in_the_same_weights(
    recordings, tmp_path, monkeypatch
):
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    card = train(joined(), out=straight, data_root=recordings)
    assert card["data"] == "fsdd and pool (all; all), tested on (all)"
    assert "rain" in card["licence_of_data"]
    assert card["config"]["data"]["joined"][0]["weight"] == 2.0
    assert card["config"]["contrastive"]["hidden"] == [16, 8]
    assert set(card["test"]) == {"loss", "retrieval"}
    assert TrainConfig.model_validate(card["config"]) == joined()

    class Stop(BaseException):
        pass

    calls = []
    original = loop._Run._end_of_epoch

    def stop(self, *arguments):
        original(self, *arguments)
        calls.append(1)
        if len(calls) == 2:
            raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(loop._Run, "_end_of_epoch", stop)
        with pytest.raises(Stop):
            train(joined(), out=cut, data_root=recordings)
    train(joined(), out=cut, data_root=recordings)
    name = "encoder.safetensors"
    assert len(calls) == 2
    weights = [load_file(folder / name) for folder in (straight, cut)]
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_head_on_mean_features_leaves_the_last_layer_as_it_was(recordings):
    experiment = prepare(joined(), data_root=recordings)
    assert experiment.train_data.counts == (8, 4)
    assert experiment.train_data.quotas == (8, 8)
    task = experiment.task(Runtime())
    before = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
    widths = [layer.out_features for layer in task.network.projection if hasattr(layer, "weight")]
    assert widths == [16, 8, 4]
    assert task.network.projection[0].in_features == task.network.encoder.channels
    task.network.train()
    batch = next(iter(task.batches.epoch(0)))
    losses = [task.loss(batch, step) for step in (0, 1)]
    assert losses[0] == losses[1]  # no dropout
    losses[0].backward()
    without = {name for name, p in task.network.named_parameters() if p.grad is None}
    assert without == {"encoder.fc1.fc10.weight", "encoder.fc1.fc10.bias"}
    assert before.keys() == task.network.state_dict().keys()


def test_a_plan_counts_the_clips_and_reads_no_sound(recordings, tmp_path, monkeypatch, capsys):
    reads: list[str] = []

    def counted(path: Path, **options: object) -> np.ndarray:
        reads.append(path.name)
        return read_audio(path, **options)

    monkeypatch.setattr(base, "read_audio", counted)
    config = tmp_path / "joined.yaml"
    config.write_text(yaml.safe_dump(joined().described()), encoding="utf-8")
    plan_or_train(config, out=tmp_path / "run", data_root=recordings, dry_run=True)
    assert reads == []
    told = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines()[1:])
    assert told["training clips"].strip() == "at most 12 (all; all)"
    assert (
        told["batch"].strip() == "4 clips, 4 an epoch"
    )  # of eight digits and four stretches twice
    data = prepare(joined(), data_root=recordings).train_data
    assert (data.counts, data.quotas) == ((8, 4), (8, 8))
    assert sorted(reads) == sorted([*(f"{n}_ada_{n}.wav" for n in range(8)), "a.wav", "b.wav"])


def test_a_plan_leaves_out_what_is_too_short_or_no_sound(tmp_path):
    for name, seconds in {"short": 0.3, "long": 2.2}.items():
        write_wav(tmp_path / f"{name}.wav", noise(round(seconds * SECOND), 0), sample_rate=SECOND)
    (tmp_path / "text.wav").write_text("no sound")
    parts = [open_dataset("folder", root=tmp_path)]
    planned = Mixture(
        parts, weights=[1.0], stretch_seconds=1.0, least_sound=0.5, in_memory=True, read=False
    )
    assert planned.counts == (2,)
    assert not planned._held


def test_labels_are_for_one_data_set_alone():
    data = {"name": "fsdd", "joined": [{"name": "pool"}]}
    with pytest.raises(ValueError, match=r"data\.joined has no labels"):
        TrainConfig.model_validate(settings_of(data=data))


# --- the pool ------------------------------------------------------------------------------------


def test_a_pool_is_what_its_table_lists(recordings):
    data = open_dataset("pool", root=recordings)
    assert [data[n].clip_id for n in range(3)] == ["rain/a.wav", "rain/b.wav", "door/c.wav"]
    assert data.classes == ("door", "rain")
    assert [data.labels(n) for n in range(3)] == [(1,), (1,), (0,)]
    assert data.entries[1].group == "rain/original/1.ogg"
    assert len(data[1].waveform) == round(3.3 * SECOND)
    assert len(open_dataset("pool", root=recordings / "POOL", sources=["door"])) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "test"}, "a pool, which is for training alone, has no split 'test'"),
        ({"sources": ["snow"]}, "lists no source snow: choose of door, rain"),
        ({"sources": []}, "none asked for"),
    ],
)
def test_what_a_pool_has_not(recordings, options, sentence):
    with pytest.raises(DatasetError, match=sentence):
        open_dataset("pool", root=recordings, **options)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.wav"])
def test_a_pools_table_stays_below_its_folder(tmp_path, name):
    (tmp_path / "pool.csv").write_text(f"filename,source,original\n{name},x,y\n")
    with pytest.raises(DatasetError, match="does not lie below it"):
        open_dataset("pool", root=tmp_path)
