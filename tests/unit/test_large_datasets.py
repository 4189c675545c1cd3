"""AudioSet, FSD50K and Speech Commands: on small replicas of their layouts, to the letter."""

import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonibook.datasets import Dataset, open_dataset
from sonibook.errors import DatasetError, SonibookWarning

LARGE = ("audioset", "fsd50k", "speech_commands")


def write_sound(path: Path, *, frequency: float = 440.0, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sine = 0.5 * np.sin(2 * np.pi * frequency * np.arange(rate // 10) / rate)
    soundfile.write(path, sine, rate)


def pitch(x: np.ndarray) -> float:
    """In Hz, to the nearest 10."""
    return float(np.fft.rfftfreq(len(x), 1 / 8000)[np.abs(np.fft.rfft(x)).argmax()])


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch):
    monkeypatch.delenv("SONIBOOK_DATA", raising=False)


# AudioSet.

CLASSES = """index,mid,display_name
0,/m/09x0r,"Speech"
1,/m/05zppz,"Male speech, man speaking"
2,/t/dd00088,"Crème brûlée 鳥"
3,/m/01b_21,Cough
"""
BALANCED = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=4, num_segs=4, num_unique_labels=4, num_positive_labels=7
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
Yabcdefghij, 0.000, 10.000, "/m/05zppz"
-0RWZT-miFs, 420.000, 430.000, "/t/dd00088,/m/09x0r,/m/01b_21"
zzzzzzzzzzz, 5.000, 15.000, "/m/09x0r"
"""
#: What `BALANCED` says, worked out by hand, in the order of the ids' bytes.
BALANCED_CLIPS = [
    ("--PJHxphWEs", (0, 2)),
    ("-0RWZT-miFs", (0, 2, 3)),
    ("Yabcdefghij", (1,)),
    ("zzzzzzzzzzz", (0,)),
]


def write_audioset(root: Path, *, leave_out=(), part="balanced_train", text=BALANCED) -> Path:
    base = root / "AudioSet"
    write_text(base / "class_labels_indices.csv", CLASSES)
    write_text(base / f"{part}_segments.csv", text)
    for number, (clip_id, _) in enumerate(BALANCED_CLIPS):
        if clip_id not in leave_out:
            write_sound(base / part / f"Y{clip_id}.wav", frequency=200.0 + 100 * number)
    return base


def clips_of(data: Dataset) -> list[tuple[str, tuple[int, ...]]]:
    return [(clip.clip_id, clip.labels) for clip in data]


def test_audioset_as_published(tmp_path):
    write_audioset(tmp_path)
    data = open_dataset("audioset", root=tmp_path, split="balanced_train")
    assert clips_of(data) == BALANCED_CLIPS
    assert [data.labels(n) for n in range(4)] == [labels for _, labels in BALANCED_CLIPS]
    assert data.classes == ("Speech", "Male speech, man speaking", "Crème brûlée 鳥", "Cough")
    assert (data.name, data.task, data.split) == ("audioset", "multi-label", "balanced_train")
    assert data.missing == 0
    # Each clip's own sound, at 8 kHz and unit peak.
    for number, clip in enumerate(data):
        assert len(clip.waveform) == 800
        assert pitch(clip.waveform) == pytest.approx(200 + 100 * number)
        assert np.abs(clip.waveform).max() == pytest.approx(1.0)
    assert data[-1].clip_id == "zzzzzzzzzzz"
    assert data.labels(-1) == (0,)
    for call in (lambda: data[4], lambda: data.labels(4), lambda: data.labels(-5)):
        with pytest.raises(IndexError):
            call()


SAVED_AGAIN = {
    "no comments": lambda text: "\n".join(text.splitlines()[3:]),
    "no spaces": lambda text: text.replace(", ", ","),
    "unquoted": lambda text: text.replace('"', ""),
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "bom": lambda text: "\ufeff" + text,
    "header": lambda text: "YTID,start_seconds,end_seconds,positive_labels\n" + text,
    "blank": lambda text: text + "\n\n",
    "integers": lambda text: text.replace("30.000, 40.000", "30, 40"),
    "twice": lambda text: text + '--PJHxphWEs, 30.000, 40.000, "/m/09x0r"\n',
}


@pytest.mark.parametrize("change", SAVED_AGAIN.values(), ids=SAVED_AGAIN)
def test_audioset_tables_that_were_saved_again(tmp_path, change):
    write_audioset(tmp_path, text=change(BALANCED))
    data = open_dataset("audioset", root=tmp_path, split="balanced_train")
    assert clips_of(data) == BALANCED_CLIPS


@pytest.mark.parametrize(
    "place",
    [
        "balanced_train/{id}.wav",
        "balanced_train/Y{id}.flac",
        "balanced_train/{id}.FLAC",
        "balanced_train_segments/Y{id}.wav",
        "audio/balanced_train/Y{id}.wav",
        "audios/balanced_train_segments/part{n}/{id}.ogg",
        "bal_train/Y{id}.flac",
        "data/bal_train/{id}.wav",
        "bal_train/Y{id}_{start:.3f}_{end:.3f}.wav",
        "balanced_train/{id}_{start}_{end}.wav",
        "balanced_train/{id}_{start}-{end}.wav",
        "audio/bal_train/Y{id}_{start}000.mp3",
    ],
)
def test_audioset_wherever_its_clips_lie(tmp_path, place):
    base = write_audioset(tmp_path, leave_out=dict(BALANCED_CLIPS))
    starts = {"--PJHxphWEs": 30, "Yabcdefghij": 0, "-0RWZT-miFs": 420, "zzzzzzzzzzz": 5}

    def path(n: int) -> Path:
        clip_id = BALANCED_CLIPS[n][0]
        start = starts[clip_id]
        return base / place.format(id=clip_id, n=n, start=start, end=start + 10)

    for n in range(4):
        write_sound(path(n), frequency=200.0 + 100 * n)
    data = open_dataset("audioset", root=tmp_path / "AudioSet", split="balanced_train")
    assert clips_of(data) == BALANCED_CLIPS
    assert [data.entries[n].path for n in range(4)] == [path(n) for n in range(4)]


def test_audioset_takes_no_other_part_of_a_video(tmp_path):
    base = write_audioset(tmp_path, leave_out=["zzzzzzzzzzz"])
    write_sound(base / "balanced_train" / "Yzzzzzzzzzzz_15.000_25.000.wav")
    with pytest.warns(SonibookWarning, match="1 of the 4 clips"):
        data = open_dataset("audioset", root=tmp_path, split="balanced_train")
    assert clips_of(data) == BALANCED_CLIPS[:3]


@pytest.mark.parametrize("clip_id", ["ab_1_2_3_45", "_2.000_30.0", "Y_30.000_40"])
@pytest.mark.parametrize("name", ["{id}", "Y{id}", "{id}_30.000_40.000", "Y{id}_30", "{id}_30000"])
def test_audioset_ids_that_look_like_times(tmp_path, clip_id, name):
    base = write_audioset(tmp_path, text=f"{clip_id}, 30.000, 40.000, /m/09x0r\n")
    write_sound(base / "balanced_train" / f"{name.format(id=clip_id)}.wav")
    data = open_dataset("audioset", root=tmp_path, split="balanced_train")
    assert clips_of(data) == [(clip_id, (0,))]


def test_audioset_tables_by_a_mirrors_names(tmp_path):
    base = write_audioset(tmp_path)
    (base / "balanced_train_segments.csv").rename(base / "bal_train.csv")
    (base / "balanced_train").rename(base / "bal_train")
    assert clips_of(open_dataset("audioset", root=tmp_path)) == BALANCED_CLIPS


def test_audioset_takes_one_of_several_files_of_a_clip(tmp_path):
    base = write_audioset(tmp_path)
    write_sound(base / "balanced_train" / "Y--PJHxphWEs.flac")
    data = open_dataset("audioset", root=tmp_path, split="balanced_train")
    assert len(data) == 4
    assert data.entries[0].path.name == "Y--PJHxphWEs.flac"


def test_audioset_with_clips_missing(tmp_path):
    write_audioset(tmp_path, leave_out=("-0RWZT-miFs", "zzzzzzzzzzz"))
    with pytest.warns(SonibookWarning, match=r"2 of the 4 clips .* missing, -0RWZT-miFs") as found:
        data = open_dataset("audioset", root=tmp_path, split="balanced_train")
    assert len(found) == 1
    assert data.missing == 2
    assert clips_of(data) == [BALANCED_CLIPS[0], BALANCED_CLIPS[2]]


def test_audioset_with_no_clip_there(tmp_path):
    write_audioset(tmp_path, leave_out=dict(BALANCED_CLIPS))
    with pytest.raises(DatasetError, match=r"none of the 4 clips .* put them in balanced_train/"):
        open_dataset("audioset", root=tmp_path, split="balanced_train")


def test_audioset_splits(tmp_path):
    write_audioset(tmp_path)
    base = write_audioset(
        tmp_path, part="eval", text='abcdefghijk, 0.000, 10.000, "/m/01b_21"\n',
        leave_out=dict(BALANCED_CLIPS),
    )  # fmt: skip
    write_sound(base / "eval" / "Yabcdefghijk.wav")
    # A clip of one part in the folder of another is not taken for it.
    write_sound(base / "eval" / "Y-other-clip.wav")
    assert clips_of(open_dataset("audioset", root=tmp_path, split="eval")) == [
        ("abcdefghijk", (3,))
    ]
    assert open_dataset("audioset", root=tmp_path, split="test")[0].clip_id == "abcdefghijk"
    assert len(open_dataset("audioset", root=tmp_path)) == 5
    with pytest.raises(DatasetError, match=r"unbalanced_train_segments\.csv: there is no such"):
        open_dataset("audioset", root=tmp_path, split="train")
    write_text(base / "unbalanced_train_segments.csv", "unbalanced_, 0.0, 10.0, /m/09x0r\n")
    write_sound(base / "unbalanced_train_segments" / "part07" / "Yunbalanced_.wav")
    assert len(open_dataset("audioset", root=tmp_path, split="train")) == 5
    with pytest.raises(DatasetError, match="no split 'validation': choose all, train, test, bal"):
        open_dataset("audioset", root=tmp_path, split="validation")


@pytest.mark.parametrize("relative", [True, False])
def test_audioset_with_a_table_of_ones_own(tmp_path, relative):
    base = write_audioset(tmp_path)
    own = base / "own.csv" if relative else tmp_path / "elsewhere" / "own.csv"
    write_text(own, "Yabcdefghij,0,10,/m/01b_21\n")
    data = open_dataset(
        "audioset", root=tmp_path, split="balanced_train", segments="own.csv" if relative else own
    )
    assert clips_of(data) == [("Yabcdefghij", (3,))]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "lists no clip"),
        ("# only\n# comments\n", "lists no clip"),
        ("--PJHxphWEs, 30.000\n", r"segments\.csv, line 1: expected an id, start, end and labels"),
        ("--PJHxphWEs, x, 40.000, /m/09x0r\n", r"line 1: expected an id, start, end"),
        (BALANCED + "a, 0, 1, /m/none\n", r"line 8: class_labels_indices\.csv has no class '/m/n"),
    ],
)
def test_audioset_with_a_damaged_table(tmp_path, text, sentence):
    write_audioset(tmp_path, text=text)
    with pytest.raises(DatasetError, match=sentence):
        open_dataset("audioset", root=tmp_path, split="balanced_train")


@pytest.mark.parametrize("text", ["", "index,mid,display_name\n", "0,/m/1\n", "1,/m/1,One\n"])
def test_audioset_with_damaged_classes(tmp_path, text):
    base = write_audioset(tmp_path)
    write_text(base / "class_labels_indices.csv", text)
    with pytest.raises(DatasetError, match=r"class_labels_indices\.csv"):
        open_dataset("audioset", root=tmp_path, split="balanced_train")


def test_audioset_that_is_no_text(tmp_path):
    base = write_audioset(tmp_path)
    (base / "balanced_train_segments.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DatasetError, match=r"segments\.csv: is not comma-separated UTF-8 text"):
        open_dataset("audioset", root=tmp_path, split="balanced_train")


def test_audioset_needs_few_bytes_a_clip(tmp_path):
    """Two million clips must not need gigabytes: what stays is compact columns."""
    count = 4000
    base = write_audioset(tmp_path)
    rows = [f'{n:011d}, 0.000, 10.000, "/m/09x0r,/m/01b_21"\n' for n in range(count)]
    write_text(base / "unbalanced_train_segments.csv", "".join(rows))
    for n in range(count):
        path = base / "unbalanced_train" / f"part{n % 3}" / f"Y{n:011d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    tracemalloc.start()
    try:
        data = open_dataset("audioset", root=tmp_path, split="unbalanced_train")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data) == count
    assert kept < 100 * count
    assert data.labels(1234) == (0, 3)
    assert data.entries[1234].path.name == "Y00000001234.wav"


# FSD50K.

VOCABULARY = """0,Accelerating_and_revving_and_vroom,/m/07q2z82
1,Acoustic_guitar,/m/042v_gx
2,Crushing,/m/07plct2
3,Électrique_鳥,/m/02sgy
"""
DEV = """fname,labels,mids,split
64760,"Électrique_鳥,Acoustic_guitar","/m/02sgy,/m/042v_gx",train
16399,Crushing,/m/07plct2,train
22,"Acoustic_guitar","/m/042v_gx",val
"""
EVAL = """fname,labels,mids
37199,"Acoustic_guitar,Crushing","/m/042v_gx,/m/07plct2"
175151,Crushing,/m/07plct2
"""


def write_fsd50k(root: Path, *, dev=DEV, eval_=EVAL, leave_out=(), suffix=".wav") -> Path:
    base = root / "FSD50K"
    write_text(base / "FSD50K.ground_truth" / "vocabulary.csv", VOCABULARY)
    write_text(base / "FSD50K.ground_truth" / "dev.csv", dev)
    write_text(base / "FSD50K.ground_truth" / "eval.csv", eval_)
    for part, names in (("dev", ("64760", "16399", "22")), ("eval", ("37199", "175151"))):
        for name in names:
            if name not in leave_out:
                path = base / f"FSD50K.{part}_audio" / f"{name}{suffix}"
                write_sound(path, frequency=500.0 + 10 * (int(name) % 50), rate=44100)
    return base


FSD50K_SPLITS = {
    "train": [("64760", (1, 3)), ("16399", (2,))],
    "val": [("22", (1,))],
    "dev": [("64760", (1, 3)), ("16399", (2,)), ("22", (1,))],
    "eval": [("37199", (1, 2)), ("175151", (2,))],
}
FSD50K_SPLITS["test"] = FSD50K_SPLITS["eval"]
FSD50K_SPLITS["all"] = FSD50K_SPLITS["dev"] + FSD50K_SPLITS["eval"]


@pytest.mark.parametrize("split", FSD50K_SPLITS)
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_fsd50k_splits_and_labels(tmp_path, split, suffix):
    base = write_fsd50k(tmp_path, suffix=suffix)
    data = open_dataset("fsd50k", root=tmp_path, split=split)
    assert clips_of(data) == FSD50K_SPLITS[split]
    assert data.classes[3] == "Électrique_鳥"
    assert (data.name, data.task, data.split, data.missing) == ("fsd50k", "multi-label", split, 0)
    for clip in data:
        assert pitch(clip.waveform) == pytest.approx(500 + 10 * (int(clip.clip_id) % 50))
    assert len(open_dataset("fsd50k", root=base, split=split)) == len(data)


def test_fsd50k_with_clips_missing(tmp_path):
    write_fsd50k(tmp_path, leave_out=("16399", "37199", "175151"))
    with pytest.warns(SonibookWarning, match=r"3 of the 5 clips .*FSD50K\.dev_audio/16399\.wav"):
        data = open_dataset("fsd50k", root=tmp_path)
    assert (len(data), data.missing) == (2, 3)
    with pytest.raises(DatasetError, match=r"none of the 2 clips .* is there"):
        open_dataset("fsd50k", root=tmp_path, split="eval")


@pytest.mark.parametrize(
    ("dev", "split", "sentence"),
    [
        (DEV.replace(",val", ",train"), "val", r"FSD50K \(val\) lists no clip"),
        ("fname,labels,mids,split\n", "dev", r"FSD50K \(dev\) lists no clip"),
        ("", "dev", "expected the columns fname, labels"),
        ("fname,labels,mids\n1,Crushing,/m/07plct2\n", "train", "expected the columns .*split"),
        (DEV + "9,Crushing,Acoustic_guitar,/m/1,/m/2,train\n", "train", "line 5: .* quoted"),
        (DEV + "22,Crushing,/m/07plct2,val\n", "val", r"dev\.csv, line 5: says of 22 what an earl"),
        (DEV + "9,Whisper,/m/1,train\n", "train", r"line 5: vocabulary.csv has no class 'Whisper'"),
    ],
)
def test_fsd50k_with_another_table(tmp_path, dev, split, sentence):
    write_fsd50k(tmp_path, dev=dev)
    with pytest.raises(DatasetError, match=sentence):
        open_dataset("fsd50k", root=tmp_path, split=split)


def test_fsd50k_counts_a_row_that_is_there_twice_once(tmp_path):
    write_fsd50k(tmp_path, dev=DEV + DEV.split("\n", 1)[1], leave_out=("16399",))
    with pytest.warns(SonibookWarning, match="1 of the 3 clips"):
        data = open_dataset("fsd50k", root=tmp_path, split="dev")
    assert [clip_id for clip_id, _ in clips_of(data)] == ["64760", "22"]
    assert data.missing == 1


def test_fsd50k_without_a_table(tmp_path):
    base = write_fsd50k(tmp_path)
    (base / "FSD50K.ground_truth" / "eval.csv").unlink()
    assert len(open_dataset("fsd50k", root=tmp_path, split="dev")) == 3
    with pytest.raises(DatasetError, match=r"eval\.csv: there is no such table"):
        open_dataset("fsd50k", root=tmp_path, split="test")


# Speech Commands.


def write_speech_commands(root: Path, *, folder: str = "speech_commands_v0.02") -> Path:
    base = root / folder
    for number, word in enumerate(("backward", "naïve", "zero")):
        for speaker in ("0a7c2a8d", "b66f4f93", "ffd2ba2f"):
            for take in range(2):
                path = base / word / f"{speaker}_nohash_{take}.wav"
                write_sound(path, frequency=300.0 + 100 * number)
    write_sound(base / "_background_noise_" / "doing_the_dishes.wav")
    write_text(base / "_background_noise_" / "README.md", "noises")
    write_text(base / "LICENSE", "CC BY 4.0")
    words = ("backward", "naïve", "zero")
    for name, speaker in (("validation", "b66f4f93"), ("testing", "ffd2ba2f")):
        lines = [f"{word}/{speaker}_nohash_{take}.wav\n" for word in words for take in range(2)]
        write_text(base / f"{name}_list.txt", "".join(lines))
    return base


@pytest.mark.parametrize(
    ("split", "speakers"),
    [
        ("all", {"0a7c2a8d", "b66f4f93", "ffd2ba2f"}),
        ("train", {"0a7c2a8d"}),
        ("validation", {"b66f4f93"}),
        ("test", {"ffd2ba2f"}),
    ],
)
def test_speech_commands_splits(tmp_path, split, speakers):
    write_speech_commands(tmp_path)
    data = open_dataset("speech_commands", root=tmp_path, split=split)
    assert len(data) == 6 * len(speakers)
    assert {entry.group for entry in data.entries} == speakers
    assert data.classes == ("backward", "naïve", "zero")
    assert (data.task, data.missing) == ("single-label", 0)
    for clip in data:
        (label,) = clip.labels
        assert clip.clip_id.split("/")[0] == data.classes[label]
        assert pitch(clip.waveform) == pytest.approx(300 + 100 * label)
    assert [clip.clip_id for clip in data] == sorted(clip.clip_id for clip in data)


@pytest.mark.parametrize(
    ("folder", "below"),
    [
        ("speech_commands_v0.02", "speech_commands_v0.02"),
        ("SpeechCommands", "."),
        ("SpeechCommands/speech_commands_v0.02", "."),
    ],
)
def test_speech_commands_under_its_published_names(tmp_path, folder, below):
    write_speech_commands(tmp_path, folder=folder)
    assert len(open_dataset("speech_commands", root=tmp_path / below)) == 18


def test_speech_commands_with_clips_missing(tmp_path):
    base = write_speech_commands(tmp_path)
    (base / "zero" / "ffd2ba2f_nohash_1.wav").unlink()
    (base / "zero" / "0a7c2a8d_nohash_1.wav").unlink()
    with pytest.warns(SonibookWarning, match=r"1 of the 6 .*zero/ffd2ba2f_nohash_1\.wav"):
        data = open_dataset("speech_commands", root=tmp_path, split="test")
    assert (len(data), data.missing) == (5, 1)
    # No list says what train holds: what is there is train.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train = open_dataset("speech_commands", root=tmp_path, split="train")
    assert (len(train), train.missing) == (5, 0)


def test_speech_commands_with_damaged_lists(tmp_path):
    base = write_speech_commands(tmp_path)
    write_text(base / "testing_list.txt", "")
    with pytest.raises(DatasetError, match=r"Speech Commands \(test\) lists no clip"):
        open_dataset("speech_commands", root=tmp_path, split="test")
    write_text(base / "testing_list.txt", "zero\n")
    with pytest.raises(DatasetError, match=r"testing_list\.txt: expected lines such as"):
        open_dataset("speech_commands", root=tmp_path)
    write_text(base / "testing_list.txt", "zero/b66f4f93_nohash_0.wav\r\n")
    with pytest.raises(DatasetError, match=r"both lists name zero/b66f4f93_nohash_0\.wav"):
        open_dataset("speech_commands", root=tmp_path)
    (base / "testing_list.txt").unlink()
    with pytest.raises(DatasetError, match=r"testing_list\.txt: there is no such table"):
        open_dataset("speech_commands", root=tmp_path)


# What all have in common.


@pytest.mark.parametrize(
    ("name", "write"),
    list(zip(LARGE, (write_audioset, write_fsd50k, write_speech_commands), strict=True)),
)
def test_a_rate_of_ones_own(tmp_path, name, write):
    write(tmp_path)
    split = "balanced_train" if name == "audioset" else "all"
    half, full = (
        open_dataset(name, root=tmp_path, split=split, sample_rate=r) for r in (None, 16000)
    )
    assert (half.sample_rate, full.sample_rate) == (8000, 16000)
    for n in range(len(full)):
        assert len(full[n].waveform) == 2 * len(half[n].waveform) == 1600


@pytest.mark.parametrize("name", LARGE)
def test_a_root_without_the_set_and_an_unknown_split(tmp_path, name):
    with pytest.raises(DatasetError, match=rf"{tmp_path}: no .* here .*SONIBOOK_DATA"):
        open_dataset(name, root=tmp_path)
    with pytest.raises(DatasetError, match="has no split 'holdout': choose all, train"):
        open_dataset(name, root=tmp_path, split="holdout")
