"""Packed data sets: the same clips, whole or not at all, however often packing is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonibook.audio import dequantise, quantise, write_wav
from sonibook.datasets import Clip, Dataset, open_dataset
from sonibook.datasets.packed import BAD_IN_A_ROW, pack
from sonibook.errors import AudioError, DatasetError
from sonibook.training.data import CropBatches

#: Half a step of 16 bits, and what float32 adds to it.
ROUNDING = 0.5 / 32_767 + 1e-7


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch):
    monkeypatch.delenv("SONIBOOK_DATA", raising=False)


class Noises(Dataset):
    """Noise of many lengths, with any number of labels; some clips cannot be read."""

    name, split, task = "noises", "train", "multi-label"
    classes = ("one", "two", "Crème brûlée 鳥")
    licence = "CC0, by nobody"

    def __init__(self, size=40, *, bad=(), length=None, stop_at=None):
        self.size, self.bad, self.length, self.stop_at = size, frozenset(bad), length, stop_at

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if not -self.size <= index < self.size:
            raise IndexError(index)
        index %= self.size
        if index == self.stop_at:
            raise KeyboardInterrupt
        if index in self.bad:
            raise AudioError(f"/sounds/{index}.wav: cannot be read as sound.")
        rng = np.random.default_rng(index)
        x = rng.standard_normal(self.length or 500 + 37 * index).astype(np.float32)
        labels = tuple(n for n in range(3) if index >> n & 1)
        return Clip(x / np.abs(x).max(), labels, f"-clip/{index}é")


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a pack but the one that says when and where it was made."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }


def assert_same_clips(packed: Dataset, data: Dataset) -> float:
    """And how far the samples are off, at most."""
    assert len(packed) == len(data)
    for name in ("classes", "task", "split", "licence", "sample_rate"):
        assert getattr(packed, name) == getattr(data, name)
    off = 0.0
    for index in range(len(data)):
        ours, theirs = packed[index], data[index]
        assert (ours.clip_id, ours.labels) == (theirs.clip_id, theirs.labels)
        assert packed.labels(index) == theirs.labels
        assert ours.waveform.dtype == np.float32
        assert ours.waveform.shape == theirs.waveform.shape
        off = max(off, float(np.abs(ours.waveform - theirs.waveform).max()))
    return off


# The same clips.


@pytest.mark.parametrize("shard_bytes", [1 << 30, 20_000, 1])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_packed_set_holds_the_same_clips(tmp_path, shard_bytes, workers):
    data = Noises()
    packed = pack(data, tmp_path, shard_bytes=shard_bytes, workers=workers)
    assert 0 < assert_same_clips(packed, data) <= ROUNDING
    again = open_dataset("packed", root=tmp_path, split="train")
    assert (again.name, again.source, again.bad) == ("packed", "noises", ())
    assert_same_clips(again, data)
    sizes = [path.stat().st_size - 128 for path in sorted(tmp_path.glob("train/*.npy"))]
    assert sum(sizes) == 2 * sum(500 + 37 * n for n in range(40))
    if shard_bytes > 1:
        assert max(sizes) <= shard_bytes
    assert len(sizes) == {1 << 30: 1, 1: 40}.get(shard_bytes, len(sizes))
    assert again[-1].clip_id == again[39].clip_id
    assert again.labels(-1) == again.labels(39)
    for index in (40, -41):
        with pytest.raises(IndexError):
            again[index]
        with pytest.raises(IndexError):
            again.labels(index)


def test_what_is_packed_does_not_depend_on_the_number_of_threads(tmp_path):
    for workers in (1, 4):
        pack(Noises(), tmp_path / str(workers), shard_bytes=9000, workers=workers)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "4")


def test_a_shard_is_an_array_that_numpy_opens(tmp_path):
    pack(Noises(3), tmp_path)
    shard = np.load(tmp_path / "train" / "shard-00000.npy", mmap_mode="r")
    assert (shard.dtype, shard.shape) == (np.dtype("<i2"), (500 + 537 + 574,))
    np.testing.assert_allclose(shard[:500] / 32767, Noises()[0].waveform, atol=ROUNDING)


def test_rounding_is_half_a_step_at_most_and_keeps_the_peak():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1, 1, 100_000), [1.0, -1.0, 0.0]]).astype(np.float32)
    back = dequantise(quantise(x))
    assert 0.9 * ROUNDING < np.abs(back - x).max() <= ROUNDING < 2**-15
    np.testing.assert_array_equal(back[-3:], [1.0, -1.0, 0.0])


@pytest.mark.parametrize("value", [1.01, -2.0, np.nan, np.inf])
def test_samples_that_16_bits_cannot_hold(value):
    with pytest.raises(AudioError, match=r"must lie in \[-1, 1\]"):
        quantise(np.array([0.1, value, 0.2], np.float32))


def test_batches_of_a_packed_set_are_the_same(tmp_path):
    data = Noises(24, length=6000)
    packed = pack(data, tmp_path, shard_bytes=50_000)
    options = {"seed": 3, "batch_size": 5, "crop_seconds": 0.25}
    for epoch in (0, 1):
        ours, theirs = (list(CropBatches(d, **options).epoch(epoch)) for d in (packed, data))
        assert len(ours) == len(theirs) == 4
        for batch, before in zip(ours, theirs, strict=True):
            assert batch.x.shape == (5, 1, 2000)
            np.testing.assert_array_equal(batch.targets, before.targets)
            np.testing.assert_allclose(batch.x, before.x, rtol=0, atol=ROUNDING)


def test_a_pack_keeps_the_rate_of_its_clips(tmp_path):
    sounds = tmp_path / "sounds"
    for n in range(3):
        sounds.mkdir(exist_ok=True)
        soundfile.write(sounds / f"{n}.wav", np.sin(np.arange(1600) * (n + 1) / 9), 16000)
    data = open_dataset("folder", root=sounds, sample_rate=16000)
    packed = pack(data, tmp_path / "pack")
    assert assert_same_clips(packed, data) <= ROUNDING
    assert open_dataset("packed", root=tmp_path / "pack").sample_rate == 16000
    assert (
        len(open_dataset("packed", root=tmp_path / "pack", sample_rate=16000)[0].waveform) == 1600
    )
    with pytest.raises(DatasetError, match="packed has the rate 16,000 Hz, and cannot be read at"):
        open_dataset("packed", root=tmp_path / "pack", sample_rate=8000)
    with pytest.raises(DatasetError, match="holds a pack with another sample rate"):
        pack(open_dataset("folder", root=sounds), tmp_path / "pack")


@pytest.mark.parametrize("rate", [0, "8000", None])
def test_a_pack_of_an_impossible_rate(tmp_path, rate):
    pack(Noises(3), tmp_path)
    path = tmp_path / "train" / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample_rate": rate}))
    with pytest.raises(DatasetError, match=r"index\.json: is damaged"):
        open_dataset("packed", root=tmp_path, split="train")


def test_real_recordings(data_root, tmp_path):
    """Those recorded with 16 bits at 8 kHz, and spoken digits, come back within the rounding."""
    for name, split in (("esc10", "test"), ("fsdd", "test")):
        data = open_dataset(name, root=data_root, split=split)
        packed = pack(data, tmp_path / name)
        assert assert_same_clips(packed, data) <= ROUNDING


# Clips that cannot be read.


def test_bad_clips_are_left_out_and_named(tmp_path):
    bad = (0, 7, 8, 39)
    packed = pack(Noises(bad=bad), tmp_path, shard_bytes=9000)
    assert len(packed) == 36
    assert [clip.clip_id for clip in packed] == [f"-clip/{n}é" for n in range(40) if n not in bad]
    assert [reason.split(":")[0] for reason in packed.bad] == [f"clip {n}" for n in bad]
    assert "/sounds/7.wav: cannot be read" in packed.bad[1]


def test_no_clip_that_can_be_read(tmp_path):
    with pytest.raises(DatasetError, match="None of the 5 clips can be read, the first because: c"):
        pack(Noises(5, bad=range(5)), tmp_path)
    # Mended, all of it is packed: nothing was kept of the failure.
    assert len(pack(Noises(5), tmp_path)) == 5


def test_a_disk_that_goes_away_ends_packing(tmp_path):
    size = BAD_IN_A_ROW + 50
    gone = Noises(size, bad=range(30, size), length=100)
    with pytest.raises(DatasetError, match=r"clips in a row cannot be read.*Is the disk there"):
        pack(gone, tmp_path, shard_bytes=2000)
    packed = pack(Noises(size, length=100), tmp_path, shard_bytes=2000)
    pack(Noises(size, length=100), tmp_path / "fresh", shard_bytes=2000)
    assert packed.bad == ()
    assert files_of(tmp_path / "train") == files_of(tmp_path / "fresh" / "train")


# Interruptions.


@pytest.mark.parametrize("stop_at", [0, 1, 13, 39])
def test_interrupted_and_resumed_the_bytes_are_the_same(tmp_path, stop_at):
    bad = (3, 14, 20)
    pack(Noises(bad=bad), tmp_path / "whole", shard_bytes=9000)
    with pytest.raises(KeyboardInterrupt):
        pack(Noises(bad=bad, stop_at=stop_at), tmp_path / "part", shard_bytes=9000)
    with pytest.raises(DatasetError, match=r"not packed to the end.*goes on where it stopped"):
        open_dataset("packed", root=tmp_path / "part", split="train")
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "part").rglob("*.np?")}
    pack(Noises(bad=bad), tmp_path / "part", shard_bytes=9000)
    assert files_of(tmp_path / "part") == files_of(tmp_path / "whole")
    # What was whole was not written again.
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert len(done) >= stop_at // 7


def write_folder(root: Path, count: int) -> None:
    for n in range(count):
        rng = np.random.default_rng(n)
        x = rng.uniform(-1, 1, 60_000 + n)
        path = root / ("cat", "dog")[n % 2] / f"{n:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, x, 44100)


def test_killed_and_resumed_the_bytes_are_the_same(tmp_path):
    """``kill -9`` of the real command, again and again, at whatever it is doing."""
    sounds = tmp_path / "sounds"
    write_folder(sounds, 240)
    (sounds / "dog" / "101.wav").write_text("I am a letter.")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    pack_options = {"shard_bytes": 1 << 20, "workers": 1}
    pack(open_dataset("folder", root=sounds), tmp_path / "whole", **pack_options)

    def start() -> subprocess.Popen:
        command = ["data", "pack", "folder", "--data-root", str(sounds), "--shard-mib", "1"]
        out = ["--out", str(tmp_path / "killed"), "--workers", "1"]
        return subprocess.Popen(
            [sys.executable, "-m", "sonibook", *command, *out],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    target = tmp_path / "killed" / "all"
    whole_shards = len(list((tmp_path / "whole").rglob("*.npz")))
    assert whole_shards >= 4
    killed = 0
    for shards in (1, 2, 3):
        process = start()
        while process.poll() is None and len(list(target.glob("*.npz"))) < shards:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 1
    process = start()
    out, err = process.communicate()
    # One clip is bad: it is named, and the exit code says so.
    assert process.returncode == 2
    assert out == f"folder (all): 239 clips in {target}\n"
    assert "1 clips cannot be read" in err
    assert str(sounds / "dog" / "101.wav") in err
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert not list(target.glob(".*"))


def test_killed_in_its_last_moment_it_ends_the_same(tmp_path):
    pack(Noises(), tmp_path)
    whole = files_of(tmp_path)
    (tmp_path / "train" / "plan.json").write_bytes(whole["train/index.json"])
    pack(Noises(), tmp_path)
    assert files_of(tmp_path) == whole


def test_packing_again_does_nothing(tmp_path):
    pack(Noises(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    pack(Noises(stop_at=0), tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_with_another_pack(tmp_path, finished):
    if finished:
        pack(Noises(), tmp_path)
    else:
        with pytest.raises(KeyboardInterrupt):
            pack(Noises(stop_at=5), tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(DatasetError, match="holds a pack with another source clips: pack into an"):
        pack(Noises(41), tmp_path)
    with pytest.raises(DatasetError, match="another shard bytes"):
        pack(Noises(), tmp_path, shard_bytes=7)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("split", ["../up", "a/b", ".hidden", ".."])
def test_splits_that_are_no_folder_names(tmp_path, split):
    with pytest.raises(DatasetError, match="A split cannot be named"):
        pack(Noises(3), tmp_path / "out", split=split)
    assert not list(tmp_path.iterdir())


# Damage.


def test_where_no_pack_is(tmp_path):
    with pytest.raises(DatasetError, match="no packed data set here"):
        open_dataset("packed", root=tmp_path)
    pack(Noises(3), tmp_path, split="val")
    pack(Noises(3), tmp_path, split="train")
    with pytest.raises(DatasetError, match="has no split 'all': choose train, val"):
        open_dataset("packed", root=tmp_path)
    with pytest.raises(DatasetError, match="packed has no option 'folds'"):
        open_dataset("packed", root=tmp_path, folds=(1,))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("index.json", r"index\.json: is damaged"),
        ("shard-00000.npy", r"shard-00000\.npy: is not as its table says"),
        ("shard-00000.npz", r"shard-00000\.npz: cannot be read"),
    ],
)
@pytest.mark.parametrize("damage", ["short", "empty", "gone"])
def test_a_damaged_pack(tmp_path, name, sentence, damage):
    pack(Noises(), tmp_path)
    path = tmp_path / "train" / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "short" else b"")
    if damage == "gone":
        path.unlink()
        if name == "index.json":
            sentence = "no packed data set here"
    with pytest.raises(DatasetError, match=sentence):
        open_dataset("packed", root=tmp_path, split="train")


def test_a_shard_that_vanishes_while_it_is_read(tmp_path):
    packed = pack(Noises(), tmp_path)
    path = tmp_path / "train" / "shard-00000.npy"
    with path.open("r+b") as file:
        file.truncate(1128)
    assert len(packed[0].waveform) == 500
    with pytest.raises(AudioError, match="is cut short"):
        packed[1]
    path.unlink()
    with pytest.raises(AudioError, match="cannot be read"):
        packed[0]


def test_a_pack_of_a_later_version(tmp_path):
    pack(Noises(), tmp_path)
    path = tmp_path / "train" / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(DatasetError, match="is of format sonibook-pack 99, and this reads"):
        open_dataset("packed", root=tmp_path, split="train")


def test_provenance_says_what_was_packed(tmp_path):
    pack(Noises(), tmp_path)
    said = json.loads((tmp_path / "train" / "provenance.json").read_text())
    assert {"command", "created", "versions"} <= said.keys()
    index = json.loads((tmp_path / "train" / "index.json").read_text())
    assert (index["source"], index["clips"], index["sample_rate"]) == ("noises", 40, 8000)


# Memory.


def test_memory_does_not_grow_with_the_clips(tmp_path):
    def peak(size: int) -> int:
        tracemalloc.start()
        try:
            pack(Noises(size, length=8000), tmp_path / str(size), shard_bytes=1 << 18, workers=1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is imported and cached once
    few, many = peak(100), peak(800)
    # 700 clips more are 11 MB more on disk.
    assert many - few < 400_000


# The command.


def test_the_command(tmp_path, capfd):
    from sonibook.cli import main

    for digit in range(10):
        for index in range(7):
            path = tmp_path / "FSDD" / "recordings" / f"{digit}_ada_{index}.wav"
            write_wav(path, 0.5 * np.sin(0.1 * digit * np.arange(800) + 0.1))
    arguments = ["data", "pack", "fsdd", "--data-root", str(tmp_path), "--out", str(tmp_path / "p")]
    assert main([*arguments, "--split", "train", "--split", "test"]) == 0
    assert capfd.readouterr().out == (
        f"fsdd (train): 20 clips in {tmp_path / 'p' / 'train'}\n"
        f"fsdd (test): 50 clips in {tmp_path / 'p' / 'test'}\n"
    )
    show = ["data", "show", "packed", "--data-root", str(tmp_path / "p"), "--split", "test"]
    assert main(show) == 0
    assert "packed (test): 50 clips, single-label" in capfd.readouterr().out
    assert main([*arguments, "--split", "holdout"]) == 2
    assert "no split 'holdout'" in capfd.readouterr().err
