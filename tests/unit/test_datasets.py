"""The data sets that lie in files: on small replicas of their layouts, and on the real ones."""

import csv
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from sonibook.audio import read_audio, write_wav
from sonibook.datasets import DATASETS, Dataset, open_dataset
from sonibook.errors import AudioError, DatasetError

#: The small sets; the large ones and packs have tests of their own.
IN_FILES = ("esc10", "esc40", "esc50", "folder", "fsdd")
ESC10_TARGETS = (0, 1, 10, 11, 12, 20, 21, 38, 40, 41)


def blip(frequency: float = 440.0, *, seconds: float = 0.1) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * 8000)) / 8000)


def write_esc50(root: Path, *, takes: int = 1) -> Path:
    """ESC-50's layout: every class in every fold, each clip a sine of its own pitch."""
    rows = []
    for fold in range(1, 6):
        for target in range(50):
            for take in range(takes):
                name = f"{fold}-{1000 * fold + target}-{'ABC'[take]}-{target}.wav"
                write_wav(root / "ESC-50" / "audio" / name, blip(100.0 + 50 * target))
                rows.append((name, fold, target, f"class{target:02d}", target in ESC10_TARGETS))
    meta = root / "ESC-50" / "meta" / "esc50.csv"
    meta.parent.mkdir(parents=True)
    with meta.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
        # Not in order: the loader's order must be its own.
        writer.writerows([(*row, 0, "A") for row in reversed(rows)])
    return root


def write_fsdd(root: Path, *, folder: str = "FSDD", speakers=("ada", "bo"), takes: int = 7) -> Path:
    for digit in range(10):
        for speaker in speakers:
            for index in range(takes):
                name = f"{digit}_{speaker}_{index}.wav"
                write_wav(root / folder / "recordings" / name, blip(200.0 + 100 * digit))
    return root


@pytest.fixture(scope="module")
def replicas(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("replicas")
    return write_fsdd(write_esc50(root))


def files_of(data: Dataset) -> set[str]:
    return {data[n].clip_id for n in range(len(data))}


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch):
    """What these tests find must not depend on the machine; `data_root` is read before."""
    monkeypatch.delenv("SONIBOOK_DATA", raising=False)


# What all have in common.


@pytest.mark.parametrize("name", IN_FILES)
def test_every_set_keeps_the_interface(replicas, name):
    data = open_dataset(name, root=replicas)
    assert data.name == name
    assert isinstance(data, Dataset)
    assert len(data) == len(list(data)) > 0
    for n in (0, len(data) // 2, -1):
        clip = data[n]
        assert clip.waveform.dtype == np.float32
        assert clip.waveform.ndim == 1
        assert np.abs(clip.waveform).max() == pytest.approx(1.0)
        assert clip.labels == data.labels(n)
        assert all(0 <= label < len(data.classes) for label in clip.labels)
    ids = [clip.clip_id for clip in data]
    assert len(set(ids)) == len(ids)
    assert ids == [clip.clip_id for clip in open_dataset(name, root=replicas)]
    with pytest.raises(IndexError):
        data[len(data)]


@pytest.mark.parametrize("name", IN_FILES)
def test_files_are_found_by_the_environment_variable(replicas, monkeypatch, name):
    with pytest.raises(DatasetError, match=r"root=.*--data-root.*SONIBOOK_DATA"):
        open_dataset(name)
    monkeypatch.setenv("SONIBOOK_DATA", str(replicas))
    assert files_of(open_dataset(name)) == files_of(open_dataset(name, root=replicas))


@pytest.mark.parametrize("name", IN_FILES)
def test_a_rate_of_ones_own(replicas, name):
    low, high = (open_dataset(name, root=replicas, sample_rate=rate) for rate in (None, 16000))
    assert (low.sample_rate, high.sample_rate) == (8000, 16000)
    assert low[3].clip_id == high[3].clip_id == high.clip_id(3)
    assert len(high[3].waveform) == 2 * len(low[3].waveform)
    for rate in (0, -8000, 99, 10_000_001, True):
        with pytest.raises(DatasetError, match=r"sample_rate .* is impossible: choose 100 to 10,"):
            open_dataset(name, root=replicas, sample_rate=rate)


def test_scenes_at_another_rate_are_the_same_scenes():
    slow, fast = (open_dataset("soundscapes", size=2, sample_rate=rate) for rate in (None, 22_050))
    one, other = slow.scene(1), fast.scene(1)
    assert (fast.sample_rate, len(other.mixture)) == (22_050, 5 * 22_050)
    assert fast.samples(1) == 5 * 22_050
    assert np.array_equal(other.stems.sum(axis=0), other.mixture)
    assert np.abs(other.mixture).max() == pytest.approx(1.0, abs=1e-5)
    assert [(a.name, a.onset, a.gain) for a in one.events] == [
        (b.name, b.onset, b.gain) for b in other.events
    ]
    back = scipy.signal.resample(other.mixture, len(one.mixture))
    middle = slice(400, -400)
    assert np.corrcoef(back[middle], one.mixture[middle])[0, 1] > 0.99


def pitch_of(x, place):
    """The strongest frequency near a place of a clip, from 0 to 1 of it."""
    start = round(place * len(x)) - 256
    spectrum = np.abs(np.fft.rfft(x[start : start + 512] * np.hanning(512)))
    return spectrum.argmax()


def test_calls_go_the_way_that_their_class_says():
    calls = open_dataset("calls", size=40, split="train", seed=2)
    ways = {"rises": "+", "falls": "-", "rises and falls": "+-", "falls and rises": "-+"}
    right = []
    for clip in calls:
        x = clip.waveform
        loud = np.flatnonzero(np.convolve(x**2, np.ones(400), "same") > 8 * np.median(x**2) * 400)
        if len(loud) < 2000:
            continue  # too much noise for so simple a listener
        call = x[loud[0] : loud[-1] + 1]
        begin, middle, end = (pitch_of(call, place) for place in (0.2, 0.5, 0.8))
        steps = (middle - begin, end - middle)
        way = ways[calls.classes[clip.labels[0]]]
        signs = [int(f"{sign}1") for sign in (way * 2)[:2]]
        right.append(all(step * sign > 0 for step, sign in zip(steps, signs, strict=True)))
    assert len(right) > 20
    assert np.mean(right) > 0.9  # harmonics mislead it now and then
    others = (("train", 2), ("test", 2), ("train", 3))
    parts = [open_dataset("calls", split=split, seed=seed) for split, seed in others]
    assert np.array_equal(parts[0][7].waveform, calls[7].waveform)
    assert not any(np.array_equal(one[7].waveform, calls[7].waveform) for one in parts[1:])
    assert len(open_dataset("calls", repeats=2)[0].waveform) == 16_000


def test_sets_that_keep_their_rate(replicas):
    assert open_dataset("soundscapes", sample_rate=8000, size=1).sample_rate == 8000
    fast = open_dataset("folder", root=replicas, sample_rate=16000)
    with pytest.raises(DatasetError, match="folder was opened at 16,000 Hz: scenes are composed"):
        open_dataset("soundscapes", mixture_of=fast)


def test_esc50_counts_a_row_that_is_there_twice_once(tmp_path):
    write_esc50(tmp_path)
    meta = tmp_path / "ESC-50" / "meta" / "esc50.csv"
    rows = meta.read_text().splitlines(keepends=True)
    meta.write_text("".join([*rows, rows[5]]))
    assert len(open_dataset("esc50", root=tmp_path)) == 250
    meta.write_text("".join([*rows, rows[5].replace("class", "glass")]))
    with pytest.raises(
        DatasetError, match=r"esc50\.csv, line 252: says of .* what an earlier line"
    ):
        open_dataset("esc50", root=tmp_path)


def test_an_unknown_set_is_told_the_known_ones():
    with pytest.raises(DatasetError) as caught:
        open_dataset("esc51")
    assert all(name in str(caught.value) for name in DATASETS)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("esc50", {"fold": 1}, "no option 'fold': it takes .*folds"),
        ("esc10", {"subset": 1}, "no option 'subset': it takes .*folds"),
        ("fsdd", {"speaker": 1}, "no option 'speaker': it takes .*speakers"),
        ("folder", {"folds": 1}, "no option 'folds': it takes .*root and split only"),
        ("soundscapes", {"sizes": 1}, "no option 'sizes': it takes .*size, duration, events"),
        ("calls", {"sizes": 1}, "no option 'sizes': it takes .*seed, size, repeats"),
        *(
            (name, {"split": "validation"}, "no split 'validation'")
            for name in (*IN_FILES, "calls", "soundscapes")
        ),
        *(
            ("esc50", {"folds": folds}, "has the folds 1 to 5")
            for folds in ((0,), (6,), (), (1, 2, 9))
        ),
        *(
            ("fsdd", {"speakers": speakers}, "no speaker .*choose of ada, bo")
            for speakers in (("ada", "eve"), ())
        ),
        ("calls", {"seed": -1}, r"seed -1 is impossible: choose 0 to 2\*\*32 - 1"),
        ("calls", {"size": 0}, "size 0 leaves no clip: choose at least 1"),
        ("calls", {"repeats": 0}, "repeats 0 leaves no call: choose at least 1"),
    ],
)
def test_what_a_set_does_not_have_is_told_with_what_it_has(replicas, name, options, sentence):
    with pytest.raises(DatasetError, match=sentence):
        open_dataset(name, root=replicas, **options)


@pytest.mark.parametrize("name", ["esc50", "esc10", "esc40", "fsdd"])
def test_a_root_without_the_set(tmp_path, name):
    with pytest.raises(DatasetError, match=rf"{tmp_path}: no (ESC-50|FSDD) here .*SONIBOOK_DATA"):
        open_dataset(name, root=tmp_path)


# ESC-50.


def test_esc50_folds_splits_and_subsets(replicas):
    everything = open_dataset("esc50", root=replicas)
    assert (len(everything), len(everything.classes)) == (250, 50)
    train = open_dataset("esc50", root=replicas, split="train")
    test = open_dataset("esc50", root=replicas, split="test")
    assert {entry.group for entry in test.entries} == {"5"}
    assert files_of(train) | files_of(test) == files_of(everything)
    assert not files_of(train) & files_of(test)
    picked = open_dataset("esc50", root=replicas, split="train", folds=(1, 3))
    assert {entry.group for entry in picked.entries} == {"1", "3"}
    assert picked.split == "folds 1,3"
    ten, forty = (open_dataset(name, root=replicas) for name in ("esc10", "esc40"))
    assert files_of(ten) | files_of(forty) == files_of(everything)
    assert not set(ten.classes) & set(forty.classes)
    assert ten.classes == tuple(f"class{target:02d}" for target in ESC10_TARGETS)


def test_esc50_takes_the_folder_itself_too(replicas):
    assert len(open_dataset("esc50", root=replicas / "ESC-50")) == 250


@pytest.mark.parametrize("name", ["esc50", "esc10", "esc40"])
def test_esc50_gives_each_sound_its_own_label(replicas, name):
    """The pitch of a clip tells its class: labels, classes and files must belong together."""
    data = open_dataset(name, root=replicas, folds=(2,))
    for clip in data:
        spectrum = np.abs(np.fft.rfft(clip.waveform))
        pitch = np.fft.rfftfreq(len(clip.waveform), 1 / 8000)[spectrum.argmax()]
        (label,) = clip.labels
        assert data.classes[label] == f"class{round((pitch - 100) / 50):02d}"


def test_esc50_with_files_missing(tmp_path):
    write_esc50(tmp_path)
    (tmp_path / "ESC-50" / "audio" / "3-3007-A-7.wav").unlink()
    with pytest.raises(DatasetError, match=r"1 of 250 listed files are missing, 3-3007-A-7\.wav"):
        open_dataset("esc50", root=tmp_path)
    assert len(open_dataset("esc50", root=tmp_path, split="test")) == 50


@pytest.mark.parametrize("text", ["", "filename,fold\n1-1-A-0.wav,1\n"])
def test_esc50_with_another_table(tmp_path, text):
    write_esc50(tmp_path)
    (tmp_path / "ESC-50" / "meta" / "esc50.csv").write_text(text)
    with pytest.raises(
        DatasetError, match=r"esc50\.csv: expected the columns filename, category, esc10"
    ):
        open_dataset("esc50", root=tmp_path)


def test_the_real_esc50(data_root):
    everything = open_dataset("esc50", root=data_root)
    assert (len(everything), len(everything.classes)) == (2000, 50)
    assert set(Counter(entry.labels for entry in everything.entries).values()) == {40}
    assert set(Counter(entry.group for entry in everything.entries).values()) == {400}
    assert len(open_dataset("esc10", root=data_root)) == 400
    assert len(open_dataset("esc40", root=data_root, split="train")) == 1280
    # Clips of one source recording lie on one side of the split, class by class. (Two recordings
    # hold sounds of two classes, and one of each lies in fold 4 and in fold 5.)
    train, test = (open_dataset("esc50", root=data_root, split=s) for s in ("train", "test"))
    sources = [{(e.clip_id.split("-")[1], e.labels) for e in d.entries} for d in (train, test)]
    assert not sources[0] & sources[1]
    assert everything.classes[0] == "dog"
    for n in (0, 777, 1999):
        clip = everything[n]
        assert len(clip.waveform) == 40000
        assert int(clip.clip_id.split("-")[-1]) == clip.labels[0]


# FSDD.


def test_fsdd_split_and_labels(replicas):
    everything = open_dataset("fsdd", root=replicas)
    assert len(everything) == 10 * 2 * 7
    assert everything.classes == tuple("0123456789")
    test = open_dataset("fsdd", root=replicas, split="test")
    assert {entry.clip_id.split("_")[2] for entry in test.entries} == set("01234")
    train = open_dataset("fsdd", root=replicas, split="train")
    assert {entry.clip_id.split("_")[2] for entry in train.entries} == set("56")
    for entry in everything.entries:
        digit, speaker, _ = entry.clip_id.split("_")
        assert entry.labels == (int(digit),)
        assert entry.group == speaker


def test_fsdd_holds_a_speaker_out(replicas):
    rest = open_dataset("fsdd", root=replicas, speakers=("ada",))
    assert {entry.group for entry in rest.entries} == {"ada"}
    assert len(rest) == 70
    assert files_of(open_dataset("fsdd", root=replicas, speakers="ada")) == files_of(rest)


def test_fsdd_numbers_are_ordered_as_numbers(tmp_path):
    write_fsdd(tmp_path, speakers=("ada",), takes=12)
    ids = [entry.clip_id for entry in open_dataset("fsdd", root=tmp_path).entries]
    assert ids[:12] == [f"0_ada_{n}" for n in range(12)]


@pytest.mark.parametrize("below", [".", "free-spoken-digit-dataset"])
def test_fsdd_under_its_published_name(tmp_path, below):
    write_fsdd(tmp_path, folder="free-spoken-digit-dataset", takes=1)
    assert len(open_dataset("fsdd", root=tmp_path / below)) == 20


def test_fsdd_without_recordings(tmp_path):
    (tmp_path / "FSDD" / "recordings").mkdir(parents=True)
    write_wav(tmp_path / "FSDD" / "recordings" / "seven.wav", blip())
    with pytest.raises(DatasetError, match="no recording named as FSDD names them"):
        open_dataset("fsdd", root=tmp_path)


def test_the_real_fsdd(data_root):
    train, test = (open_dataset("fsdd", root=data_root, split=s) for s in ("train", "test"))
    assert (len(train), len(test)) == (2700, 300)
    speakers = {entry.group for entry in test.entries}
    assert len(speakers) == 6
    held_out = min(speakers)
    rest = open_dataset("fsdd", root=data_root, speakers=sorted(speakers - {held_out}))
    assert len(rest) == 2500
    lengths = [len(test[n].waveform) / 8000 for n in range(0, 300, 25)]
    assert 0.1 < min(lengths) <= max(lengths) < 2.4


# Any folder.


def test_folder_with_classes(tmp_path):
    dogs = [
        f"dog/{name}" for name in ("3.ogg", "4.WAV", "5.aiff", "6.AIF", "7.caf", "8.w64", "9.au")
    ]
    for name in ("cat/1.wav", "cat/deep/er/2.flac", *dogs):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"aif": "AIFF"}.get(path.suffix[1:].lower())
        soundfile.write(path, blip(), 8000, format=kind)
    (tmp_path / "cat" / "notes.txt").write_text("no sound")
    data = open_dataset("folder", root=tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.task == "single-label"
    assert [(clip.clip_id, clip.labels) for clip in data] == [
        ("cat/1.wav", (0,)),
        ("cat/deep/er/2.flac", (0,)),
        *((name, (1,)) for name in dogs),
    ]


def test_folder_without_classes(tmp_path):
    for name in ("b.wav", "a.wav"):
        write_wav(tmp_path / name, blip())
    data = open_dataset("folder", root=tmp_path)
    assert (data.classes, data.task) == ((), "multi-label")
    assert [(clip.clip_id, clip.labels) for clip in data] == [("a.wav", ()), ("b.wav", ())]


def test_folder_with_names_in_any_script(tmp_path):
    names = ["鳥/ウグイス.wav", "Птица/щегол ❤.wav", "oiseau/été.wav"]
    for name in names:
        write_wav(tmp_path / name, blip())
    data = open_dataset("folder", root=tmp_path)
    normal = {unicodedata.normalize("NFC", clip.clip_id) for clip in data}
    assert normal == set(names)


def test_folder_leaves_hidden_files_out(tmp_path):
    for name in ("heard.wav", ".hidden.wav", ".cache/old.wav", "._heard.wav", "a/.b/c.wav"):
        write_wav(tmp_path / name, blip())
    assert files_of(open_dataset("folder", root=tmp_path)) == {"heard.wav"}


def test_folder_inside_a_hidden_one(tmp_path):
    write_wav(tmp_path / ".sounds" / "a.wav", blip())
    assert files_of(open_dataset("folder", root=tmp_path / ".sounds")) == {"a.wav"}


def test_one_bad_file_keeps_no_other_from_being_read(tmp_path):
    for number in range(20):
        write_wav(tmp_path / f"{number:02d}.wav", blip(300.0 + number))
    (tmp_path / "07.wav").write_text("I am a letter.")
    data = open_dataset("folder", root=tmp_path)
    read, refused = [], []
    for n in range(len(data)):
        try:
            read.append(data[n].clip_id)
        except AudioError as error:
            refused.append(str(error))
    assert len(read) == 19
    assert len(refused) == 1
    assert str(tmp_path / "07.wav") in refused[0]


def test_a_silent_recording_stays_silent(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(800), 8000)
    (clip,) = open_dataset("folder", root=tmp_path)
    np.testing.assert_array_equal(clip.waveform, np.zeros(800))


@pytest.mark.parametrize(("below", "reason"), [("", "holds no sound"), ("gone", "no such folder")])
def test_folder_that_is_empty_or_absent(tmp_path, below, reason):
    (tmp_path / "letter.txt").write_text("no sound")
    with pytest.raises(DatasetError, match=reason):
        open_dataset("folder", root=tmp_path / below)


def test_folder_of_real_formats(data_root):
    data = open_dataset("folder", root=data_root / "formats")
    assert {Path(entry.clip_id).suffix for entry in data.entries} >= {".ogg", ".mp3"}
    clip = data[0]
    np.testing.assert_array_equal(clip.waveform, read_audio(data.entries[0].path))
