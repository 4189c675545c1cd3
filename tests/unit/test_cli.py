"""The command line: what it writes, what it says, and how it refuses."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file, save_file
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from sonibook.audio import read_audio, write_wav
from sonibook.cli import main
from sonibook.cli.common import explain, parse_numbers, parse_options, shown, table
from sonibook.datasets import open_dataset
from sonibook.deconvnet.backward import ForwardPass, sonify
from sonibook.errors import SonibookWarning
from sonibook.model.checkpoint import load_classifier, load_encoder, save_checkpoint
from sonibook.model.encoder import CNN12, Classifier
from sonibook.model.stack_file import weights_digest
from sonibook.sonify_files import find_sounds
from sonibook.training.data import predict
from sonibook.training.probe import probed

REPOSITORY = Path(__file__).parents[2]
#: A 16-bit sample is half a step off where the writer rounds, a whole one where it cuts off.
STEP = 1 / 32768 + 1e-6
DEAD = 2


def noise(seconds: float = 0.5, seed: int = 0, rate: int = 8000) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(round(seconds * rate)).astype(np.float32)
    return x / np.abs(x).max()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network; filter DEAD of layer 2 never responds."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    network = Classifier(CNN12(width=1 / 16, seed=0), ("high", "low"), seed=0)
    with torch.no_grad():
        network.encoder.features.conv2.bias[DEAD] = -1000.0
    save_checkpoint(path, network, {"name": "tiny", "data": "nothing yet"})
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    write_wav(path, 0.5 * noise())
    return path


class Ran:
    """What one call of the command line came to."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def fine(self) -> Ran:
        assert self.code == 0, (self.code, self.out, self.err)
        return self

    def refused(self) -> str:
        """The one sentence of a refusal."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert "Traceback" not in self.err + self.out
        lines = [line for line in self.err.splitlines() if not line.startswith("Note: ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("Error: ")
        assert lines[0].endswith((".", ").")), self.err
        return lines[0]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture
def sonified(run: Any, checkpoint: Path, tmp_path: Path) -> Any:
    """Sonifies a sound, and gives what was said and the table's rows."""

    def call(path: Path, *how: object) -> tuple[Ran, list[dict[str, str]]]:
        told = run("sonify", path, *how, "-c", checkpoint, "--out", tmp_path / "o").fine()
        return told, rows_of(tmp_path / "o")

    return call


@pytest.fixture
def evaluated(run: Any, tmp_path: Path) -> Any:
    """Evaluates networks, and gives what was said and the results file."""

    def call(*arguments: object) -> tuple[Ran, dict[str, Any]]:
        told = run("evaluate", *arguments, "--out", tmp_path / "r.json").fine()
        return told, json.loads((tmp_path / "r.json").read_text())

    return call


def started(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "sonibook", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"},
        **options,
    )


def rows_of(out: Path, name: str = "sonifications") -> list[dict[str, str]]:
    with (out / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def samples_of(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float64")
    assert rate == 8000
    assert soundfile.info(path).subtype == "PCM_16"
    return samples


# --- help ----------------------------------------------------------------------------------------

COMMANDS = (
    ["sonify"],
    ["train"],
    ["evaluate"],
    ["info"],
    ["data"],
    ["data", "list"],
    ["data", "show"],
    ["data", "export"],
)


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_every_command_explains_itself_by_examples(run, command):
    told = run(*command, "--help").fine()
    assert told.err == ""
    examples = told.out.split("Examples:\n")[1].splitlines()
    assert sum(line.strip().startswith("sonibook ") for line in examples) >= 2
    for line in examples:
        if line.strip():
            assert line.startswith(("    sonibook ", "    torchrun ", "  Exit codes"))


def test_no_command_shows_the_commands(run):
    told = run()
    for (name,) in (command for command in COMMANDS if len(command) == 1):
        assert f"  {name} " in told.out + told.err


def test_version(run):
    told = run("--version")
    assert (told.code, told.out) == (0, f"sonibook {version('sonibook')}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        "nonesuch",
        "sonify",
        "sonify clip.wav",
        "sonify clip.wav --layer two --top 1",
        "sonify clip.wav --layer 2",
        "sonify clip.wav --layer 2 --top 0",
        "sonify clip.wav --layer 2 --filter 1.7",
        "sonify clip.wav --layer 1.5 --top 1",
        "sonify clip.wav --layer 2 --top 1 --filter 1",
        "train",
        "evaluate random",
        "data show",
        "data export soundscapes --count 0",
        "data show soundscapes --option size",
        "evaluate random -d esc50 --folds a,b",
        "evaluate random -d esc50 --folds 1 --split test",
    ],
)
def test_misuse_is_said_and_ends_with_2(run, arguments):
    told = run(*arguments.split())
    assert told.code == 2
    assert "Error: " in told.err
    assert "Traceback" not in told.err


# --- sonify: what it writes ----------------------------------------------------------------------


@pytest.mark.parametrize("layer", [1, 4, 8, 11])
def test_what_is_written_is_what_sonify_gives(sonified, checkpoint, clip, tmp_path, layer):
    encoder, x = load_encoder(checkpoint), read_audio(clip)
    live = ForwardPass(encoder, x).most_active(layer, 2)
    out = tmp_path / "o"
    _, rows = sonified(clip, "-l", layer, *(part for index in live for part in ("-f", index)))
    expected = sonify(encoder, x, layer=layer, filters=live).double().numpy()
    np.testing.assert_allclose(samples_of(out / "clip" / "input.wav"), x, atol=STEP)
    assert [int(row["filter"]) for row in rows] == live
    for row, s in zip(rows, expected, strict=True):
        written = samples_of(out / row["sonification"])
        assert len(written) == len(x)
        np.testing.assert_allclose(written, s, atol=STEP)
        assert (out / row["picture"]).read_bytes().startswith(b"\x89PNG")
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {
        "sonifications.csv",
        "provenance.json",
        *(row[name] for row in rows for name in ("input", "sonification", "picture")),
    }


def test_the_table_is_true(sonified, checkpoint, clip):
    layer = 5
    _, rows = sonified(clip, "-l", layer, "-k", 4)
    encoder, x = load_encoder(checkpoint), read_audio(clip)
    with torch.no_grad():
        maps = encoder.truncate(layer).features(torch.from_numpy(x)[None, None])[0].double().numpy()
    energy = (maps**2).mean(axis=1)
    loudest = np.argsort(-energy)[:4]
    assert [int(row["filter"]) for row in rows] == loudest.tolist()
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4]
    raw = sonify(encoder, x, layer=layer, filters=loudest.tolist(), rescale=False).double().numpy()
    for row, index, s in zip(rows, loudest, raw, strict=True):
        peak = np.abs(s).max()
        assert row["file"] == str(clip)
        assert float(row["seconds"]) == len(x) / 8000
        assert int(row["layer"]) == layer
        assert float(row["energy_share"]) == pytest.approx(energy[index] / energy.sum(), rel=1e-4)
        assert float(row["live_share"]) == pytest.approx((maps[index] > 0).mean(), abs=1e-3)
        assert float(row["peak_scale"]) == pytest.approx(1 / peak, rel=1e-4)
        rms = np.sqrt((s / peak) @ (s / peak) / (x.astype(float) @ x))
        assert float(row["rms_ratio"]) == pytest.approx(rms, rel=1e-4)
        assert (row["padded"], row["silent"]) == ("False", "False")


def test_the_printed_table_has_a_line_a_sonification(sonified, clip, tmp_path):
    told, rows = sonified(clip, "-l", 2, "-k", 2, "--no-pictures")
    header, *lines, last = told.out.splitlines()
    assert header.split()[:4] == ["file", "seconds", "layer", "filter"]
    assert len(lines) == 2
    assert str(tmp_path / "o" / "sonifications.csv") in last
    assert not list((tmp_path / "o").rglob("*.png"))
    assert rows[0]["picture"] == ""
    content = json.loads((tmp_path / "o" / "provenance.json").read_text("utf-8"))
    assert content["versions"]["torch"] == version("torch")
    assert content["checkpoint"]["card"]["name"] == "tiny"
    assert (content["layer"], content["top"], content["clips"]) == (2, 2, 1)
    assert content["failed"] == {}


def test_two_runs_write_the_same_bytes(run, checkpoint, clip, tmp_path):
    for name in ("a", "b"):
        run("sonify", clip, "-l", 3, "-k", 1, "-c", checkpoint, "--out", tmp_path / name)
    for first in (tmp_path / "a").rglob("*.[wcp]*"):
        again = tmp_path / "b" / first.relative_to(tmp_path / "a")
        assert first.read_bytes() == again.read_bytes()


def test_surround_sound_at_96_khz_is_fine(sonified, tmp_path):
    path = tmp_path / "surround.wav"
    time_axis = np.arange(48000) / 96000
    channels = [0.3 * np.sin(2 * np.pi * pitch * time_axis) for pitch in range(300, 900, 100)]
    soundfile.write(path, np.stack(channels, axis=1), 96000, "PCM_24")
    _, (row,) = sonified(path, "-l", 4, "-k", 1)
    assert len(samples_of(tmp_path / "o" / row["sonification"])) == 4000


def test_a_short_clip_is_padded_and_the_listener_told(sonified, tmp_path):
    path = tmp_path / "short.wav"
    write_wav(path, noise(0.05))
    told, (row,) = sonified(path, "-l", 11, "-k", 1)
    (notice,) = [line for line in told.err.splitlines() if "padded" in line]
    assert notice.startswith(f"Note: {path}: The clip has 400 samples")
    assert row["padded"] == "True"
    assert len(samples_of(tmp_path / "o" / row["sonification"])) == 400


def test_a_silent_map_gives_silence_and_the_listener_is_told(sonified, clip, tmp_path):
    # What is asked for twice comes once.
    told, (silent, sounding) = sonified(clip, "-l", 2, "-f", DEAD, "-f", 0, "-f", DEAD)
    assert "1 of 2 sonifications are silent" in told.err
    assert [row["filter"] for row in (silent, sounding)] == [str(DEAD), "0"]
    assert (sounding["silent"], silent["silent"]) == ("False", "True")
    assert silent["peak_scale"] == ""
    assert float(silent["live_share"]) == float(silent["energy_share"]) == 0
    assert not samples_of(tmp_path / "o" / silent["sonification"]).any()


def test_a_long_file_is_cut_and_the_listener_told(sonified, tmp_path):
    path = tmp_path / "long.wav"
    x = np.concatenate([0.1 * noise(0.5), noise(0.5)])
    write_wav(path, x)
    told, _ = sonified(path, "-l", 3, "-k", 1, "--seconds", 0.5)
    assert "only the first 0.5 s" in told.err
    cut = samples_of(tmp_path / "o" / "long" / "input.wav")
    assert len(cut) == 4000
    assert np.abs(cut).max() == pytest.approx(1, abs=STEP)


# --- sonify: many files --------------------------------------------------------------------------


def quickly(checkpoint: Path, out: Path) -> tuple[object, ...]:
    return ("-l", 1, "-k", 1, "-c", checkpoint, "--out", out, "--no-pictures")


def test_a_folder_with_one_bad_file_among_many(run, checkpoint, tmp_path):
    folder, out = tmp_path / "many", tmp_path / "out"
    for index in range(30):
        write_wav(folder / f"{index:02d}.wav", noise(0.1, index))
    (folder / "13.wav").write_bytes(b"RIFF no wave")
    (folder / "notes.txt").write_text("not a sound")
    told = run("sonify", folder, *quickly(checkpoint, out))
    assert told.code == 2
    assert "Error: 1 of 30 files could not be sonified." in told.err
    assert told.err.count(str(folder / "13.wav")) == 1
    assert "Traceback" not in told.err
    rows = rows_of(out)
    assert [Path(row["file"]).stem for row in rows] == [f"{i:02d}" for i in range(30) if i != 13]
    assert all((out / row["sonification"]).is_file() for row in rows)
    assert not (out / "13").exists()
    failed = json.loads((out / "provenance.json").read_text("utf-8"))["failed"]
    assert list(failed) == [str(folder / "13.wav")]
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_equal_names_do_not_collide_and_odd_names_are_safe(run, checkpoint, tmp_path):
    out = tmp_path / "out"
    files = [
        tmp_path / "a" / "clip.wav",
        tmp_path / "b" / "clip.wav",
        tmp_path / "b" / "Clip.flac",
        tmp_path / "птица поёт 鳥.wav",
        tmp_path / "a$b{c}%d.e.wav",
    ]
    for index, path in enumerate(files):
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, noise(0.2, index), 8000)
    run("sonify", *files, *quickly(checkpoint, out)[:-1]).fine()
    rows = rows_of(out)
    assert [row["file"] for row in rows] == [str(path) for path in files]
    assert len({row["sonification"].casefold() for row in rows}) == len(files)
    for row, path in zip(rows, files, strict=True):
        np.testing.assert_allclose(samples_of(out / row["input"]), read_audio(path), atol=STEP)
    assert (out / "птица поёт 鳥" / "input.wav").is_file()


def test_labels_do_not_depend_on_order_or_on_other_names(tmp_path):
    files = [tmp_path / name / "clip.wav" for name in "abc"] + [tmp_path / "other.wav"]

    def labels(chosen: list[Path]) -> dict[Path, Path]:
        return find_sounds(chosen, leave_out=tmp_path / "out")

    assert labels(files) == labels(files[::-1])
    assert labels(files)[files[0]] == labels(files[:2])[files[0]]
    assert labels(files)[files[3]] == Path("other")


def test_a_folder_keeps_its_shape_and_gives_each_file_once(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "in" / "out"
    for name in ("x.wav", "deep/er/x.ogg", ".hidden/x.wav", "deep/.x.wav", "out/old.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    sounds = find_sounds([folder, folder / "x.wav", folder / "deep"], leave_out=out)
    found = {path.relative_to(folder).as_posix(): label for path, label in sounds.items()}
    assert found == {"x.wav": Path("x"), "deep/er/x.ogg": Path("deep/er/x")}


def test_a_second_run_does_not_take_the_results_of_the_first(
    run, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_wav("clip.wav", noise(0.1))
    for _ in range(2):
        assert run("sonify", ".", *quickly(checkpoint, Path("out"))).code == 0
        assert len(rows_of(Path("out"))) == 1


def described(out: Path) -> list[dict[str, str]]:
    """The table's rows; every sound and picture in the folder is in it, and each is there once."""
    rows = rows_of(out)
    names = [row[name] for row in rows for name in ("sonification", "picture") if row[name]]
    assert len(names) == len(set(names))
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    told = {*names, *(row["input"] for row in rows), "sonifications.csv", "provenance.json"}
    assert written == told
    return rows


def test_what_stands_in_the_output_folder_stays_and_stays_described(
    run, checkpoint, clip, tmp_path
):
    out = tmp_path / "out"
    asked = ("--out", out, "-c", checkpoint)
    run("sonify", clip, "-l", 2, "-f", 0, *asked).fine()
    (first,) = described(out)
    sound = (out / first["sonification"]).read_bytes()
    assert first["checkpoint"] == str(checkpoint)
    # Another layer of the same clip and network joins; what is made again stands once.
    run("sonify", clip, "-l", 3, "-f", 1, "-f", 0, *asked).fine()
    told = run("sonify", clip, "-l", 2, "-f", 1, "-f", 0, *asked, "--no-pictures")
    assert [(row["layer"], row["filter"]) for row in described(out)] == [
        ("3", "1"), ("3", "0"), ("2", "1"), ("2", "0"),
    ]  # fmt: skip
    assert "taken" not in told.err
    assert len(told.out.splitlines()) == 4  # this run's rows only
    assert (out / first["sonification"]).read_bytes() == sound
    content = json.loads((out / "provenance.json").read_text("utf-8"))
    assert [content["layer"], *(run["layer"] for run in content["earlier"])] == [2, 3, 2]


def test_another_sound_or_network_does_not_take_a_folder(run, checkpoint, clip, tmp_path):
    out = tmp_path / "out"
    other_clip = tmp_path / "elsewhere" / "clip.wav"
    write_wav(other_clip, 0.5 * noise(seed=1))
    retrained = tmp_path / "tiny.safetensors"
    save_checkpoint(retrained, Classifier(CNN12(width=1 / 16, seed=5), ("high", "low"), seed=0), {})
    runs = [
        (clip, checkpoint, "clip"),
        (other_clip, checkpoint, "clip-2"),
        (clip, retrained, "clip-3"),
        (other_clip, checkpoint, "clip-2"),
        (clip, retrained, "clip-3"),
    ]
    for path, network, folder in runs:
        told = run("sonify", path, *quickly(network, out)).fine()
        assert (f"it goes to {folder}." in told.err) == (folder != "clip")
        rows = described(out)
        assert rows[-1]["sonification"].startswith(f"{folder}/")
        np.testing.assert_allclose(samples_of(out / rows[-1]["input"]), read_audio(path), atol=STEP)
    assert len(rows) == 3
    assert len({row["weights"] for row in rows}) == 2
    # A folder of the user's own is nobody else's either.
    (out / "mine").mkdir()
    write_wav(out / "mine" / "input.wav", noise())
    mine = tmp_path / "elsewhere" / "mine.wav"
    write_wav(mine, noise())
    assert "it goes to mine-2." in run("sonify", mine, *quickly(checkpoint, out)).err


def test_weights_of_any_type_can_be_told_apart():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.BatchNorm1d(2)).bfloat16()
    before = weights_digest(network.state_dict())
    assert before == weights_digest(network.state_dict())
    network[0].weight.data[0, 0, 0] += 1
    assert before != weights_digest(network.state_dict())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sonifications.csv", b"a,b\n1,2\n"),
        ("sonifications.csv", b"\xff\xfe\x00"),
        ("provenance.json", b"[1]"),
        ("provenance.json", b"{"),
    ],
)
def test_a_table_that_is_not_ours_is_left_alone(run, checkpoint, clip, tmp_path, name, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(content)
    refusal = run("sonify", clip, *quickly(checkpoint, out)).refused()
    assert f"{out / name} is not what sonify writes" in refusal
    assert "choose another folder" in refusal
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_bytes() == content


def test_a_name_that_is_no_unicode_is_read_or_named(run, checkpoint, clip, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    try:
        path.write_bytes(clip.read_bytes())
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    told = run("sonify", path, clip, *quickly(checkpoint, tmp_path / "o"))
    assert "Traceback" not in told.err
    files = [row["file"] for row in rows_of(tmp_path / "o")]
    assert str(clip) in files
    if told.code == 0:
        assert files[0].endswith("caf\\udce9.wav")
    else:
        assert "caf\\udce9.wav: the sound library cannot open" in told.err


def test_real_recordings_of_every_format(run, checkpoint, data_root, tmp_path):
    run("sonify", data_root / "formats", *quickly(checkpoint, tmp_path / "o")).fine()
    rows = rows_of(tmp_path / "o")
    assert {Path(row["file"]).suffix for row in rows} == {".ogg", ".mp3"}
    for row in rows:
        x = read_audio(row["file"])
        np.testing.assert_allclose(samples_of(tmp_path / "o" / row["input"]), x, atol=STEP)


# --- sonify: what it refuses ---------------------------------------------------------------------


def raw_wav(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, 8000, "FLOAT")
    return path


BAD_SOUNDS = {
    "missing": (lambda path: path, "there is no such file"),
    "folder without sounds": (lambda path: path.mkdir(), "the folder holds no sound"),
    "text": (lambda path: path.write_text("I am no sound"), "cannot be read as sound"),
    "cut short": (lambda path: path.write_bytes(b"RIFF\x24\0\0\0WAVEfmt "), "cannot be read"),
    "one sample": (lambda path: raw_wav(path, np.ones(1)), "single sample"),
    "silent": (lambda path: raw_wav(path, np.zeros(4000)), "silent"),
}


@pytest.mark.parametrize("kind", BAD_SOUNDS)
def test_a_bad_sound_is_named_and_nothing_written(run, checkpoint, tmp_path, kind):
    make, sentence = BAD_SOUNDS[kind]
    path = tmp_path / "bad.wav"
    make(path)
    refusal = run("sonify", path, *quickly(checkpoint, tmp_path / "o")).refused()
    assert str(path) in refusal
    assert sentence in refusal
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-l", "12", "-k", "1"], "Layer 12 does not exist: choose 1 to 11."),
        (["-l", "0", "-k", "1"], "Layer 0 does not exist: choose 1 to 11."),
        (["-l", "2", "-f", "4"], "Filter 4 of layer 2 does not exist: choose 0 to 3."),
        (["-l", "2", "-f", "-1"], "Filter -1 of layer 2 does not exist: choose 0 to 3."),
        (["-l", "2", "-k", "5"], "Layer 2 has 4 filters: --top can be 4 at most."),
    ],
)
def test_a_layer_or_filter_out_of_range(run, checkpoint, clip, tmp_path, arguments, sentence):
    told = run("sonify", clip, *arguments, "-c", checkpoint, "--out", tmp_path / "o")
    assert told.refused() == f"Error: {sentence}"
    assert not (tmp_path / "o").exists()


def other_shape(path: Path, checkpoint: Path) -> None:
    tensors = load_file(checkpoint)
    tensors["features.conv7.weight"] = tensors["features.conv7.weight"][:, :, :2].contiguous()
    save_file(tensors, path)


BAD_CHECKPOINTS = {
    "missing": ("net.safetensors", lambda path, _: None, "there is no such file"),
    "text": ("net.safetensors", lambda path, _: path.write_text("hi"), "not a safetensors file"),
    "other shape": ("net.safetensors", other_shape, "features.conv7.weight has the shape"),
    "pickle": (
        "net.pt",
        lambda path, _: path.write_bytes(pickle.dumps([1])),
        "only .safetensors files are read (a pickle could run any code)",
    ),
}


@pytest.mark.parametrize("kind", BAD_CHECKPOINTS)
@pytest.mark.parametrize("command", ["sonify", "info", "evaluate"])
def test_a_bad_checkpoint_is_named(run, checkpoint, clip, tmp_path, kind, command):
    name, make, sentence = BAD_CHECKPOINTS[kind]
    path = tmp_path / name
    make(path, checkpoint)
    arguments = {
        "sonify": ("sonify", clip, *quickly(path, tmp_path / "o")),
        "info": ("info", path),
        "evaluate": ("evaluate", path, "-d", "soundscapes", "-o", "task=single-label", "--probe"),
    }[command]
    refusal = run(*arguments).refused()
    assert str(path) in refusal
    assert sentence in refusal
    assert not (tmp_path / "o").exists()


def test_an_output_folder_that_cannot_be_made(run, checkpoint, clip, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refusal = run("sonify", clip, *quickly(checkpoint, tmp_path / "file" / "out")).refused()
    assert str(tmp_path / "file") in refusal
    assert "not a directory" in refusal
    assert (tmp_path / "file").read_text() == "in the way"


# --- processes -----------------------------------------------------------------------------------


def test_a_refusal_of_a_real_process(checkpoint, clip):
    arguments = ("sonify", clip, "-l", 99, "-k", 1, "-c", checkpoint)
    with started(*arguments, stdout=subprocess.PIPE) as process:
        said = process.communicate()
    assert (process.returncode, *said) == (
        2,
        "",
        "Error: Layer 99 does not exist: choose 1 to 11.\n",
    )


def test_a_reader_that_goes_away_is_no_error():
    arguments = ("data", "show", "soundscapes", "-o", "size=3")
    with started(*arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def interrupted(path: Path, *arguments: object) -> str:
    """What a command says that gets a Ctrl-C as soon as `path` is there."""
    with started(*arguments, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert process.poll() is None, "it ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(60) == 130
    assert "Traceback" not in told
    return told


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    config = write_config(tmp_path, epochs=2000)
    out = tmp_path / "run"
    told = interrupted(out / "log.csv", "train", config, "--out", out, "--data-root", tmp_path)
    last = told.splitlines()[-1]
    assert last == "Interrupted: give the same command again to go on."
    assert not (out / "encoder.safetensors").exists()


def test_interrupted_sonifying_keeps_what_was_done(checkpoint, tmp_path):
    folder, out = tmp_path / "many", tmp_path / "out"
    folder.mkdir()
    write_wav(folder / "0000.wav", noise(0.1))
    for index in range(1, 3000):
        (folder / f"{index:04d}.wav").write_bytes((folder / "0000.wav").read_bytes())
    told = interrupted(out / "0003", "sonify", folder, *quickly(checkpoint, out))
    rows = rows_of(out)
    assert 0 < len(rows) < 3000
    assert f"Interrupted: {len(rows)} of 3000 clips are done: {out}." in told
    assert all((out / row["sonification"]).is_file() for row in rows)
    assert not list(out.rglob(".*"))


# --- train ---------------------------------------------------------------------------------------


def write_config(folder: Path, *, epochs: int = 1, **changes: Any) -> Path:
    """A tiny experiment and, below `folder`, the two classes of sounds that it learns."""
    for index in range(4):
        for name, pitch in (("low", 200), ("high", 1500)):
            tone = 0.9 * np.sin(2 * np.pi * pitch * (1 + index / 50) * np.arange(3000) / 8000)
            write_wav(folder / name / f"{index}.wav", tone)
    path = folder / "tiny.yaml"
    content = {
        "name": "tiny",
        "data": {"name": "folder", "crop_seconds": 0.3},
        "encoder": {"width": 1 / 16},
        "optimiser": {"epochs": epochs, "warmup_epochs": 0, "batch_size": 4},
        "threads": 1,
        **changes,
    }
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_train_then_describe_and_evaluate_what_came_of_it(run, evaluated, tmp_path, monkeypatch):
    config = write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    told = run("train", config, "--data-root", tmp_path).fine()
    trained = Path("runs", "tiny", "encoder.safetensors")
    assert trained.is_file()
    assert re.search(r"^tiny: accuracy [\d.]+.*, after 1 epochs\.$", told.out, re.MULTILINE)
    assert told.out.splitlines()[-1] == f"Written to {trained}"
    assert "high, low" in run("info", trained).out
    described = json.loads(run("info", trained, "--json").out)
    assert described["card"]["classes"] == ["high", "low"]
    _, results = evaluated(trained, "-d", "folder", "--split", "all", "--data-root", tmp_path)
    (row,) = results["results"]
    assert results["clips"] == 8
    assert results["chance"] == 0.5
    assert row["accuracy"] == row["correct"] / 8 == described["card"]["test"]["accuracy"]
    assert row["interval"][0] < row["accuracy"] <= row["interval"][1] + 1e-9
    assert results["provenance"]["versions"]["torch"] == version("torch")


def test_a_dry_run_writes_nothing_and_counts_right(run, tmp_path, monkeypatch):
    config = write_config(tmp_path, epochs=7)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    told = run("train", config, "--data-root", tmp_path, "--dry-run").fine()
    assert sorted(tmp_path.rglob("*")) == before
    plan = dict(line.strip().split(maxsplit=1) for line in told.out.splitlines()[1:])
    assert int(plan["parameters"]) == sum(p.numel() for p in CNN12(width=1 / 16).parameters())
    assert plan["steps"] == "14 in 7 epochs"
    assert plan["folder"] == str(Path("runs", "tiny"))
    assert plan["encoder"].startswith("CNN12, width 0.0625, depth 11, norm weight")


def test_a_dry_run_of_the_papers_network_has_its_parameters(run, tmp_path):
    config = write_config(tmp_path)
    changes = ("--set", "encoder.width=1", "--set", "encoder.fc_only=true")  # quicker to time
    told = run("train", config, "--data-root", tmp_path, "--dry-run", *changes).fine()
    assert re.search(r"^parameters +13757248$", told.out, re.MULTILINE)


def test_a_row_that_waits_for_another_is_planned_by_its_size_and_then_runs_after_it(run, tmp_path):
    write_config(tmp_path)
    path = tmp_path / "second.yaml"
    content = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    encoder = {"norm": "none", "start": "tiny.yaml", "depth": 7, "fc_only": True}
    path.write_text(yaml.safe_dump({**content, "name": "second", "encoder": encoder}), "utf-8")
    arguments = ("train", path, "--data-root", tmp_path, "--out", tmp_path / "runs" / "second")
    told = run(*arguments, "--dry-run").fine()
    assert told.out.startswith("First tiny would run")
    parameters = sum(p.numel() for p in CNN12(width=1 / 16, depth=7).parameters())
    assert re.search(rf"^parameters +{parameters}$", told.out, re.MULTILINE)
    assert re.search(r"^starts from .*tiny\.yaml$", told.out, re.MULTILINE)
    assert not (tmp_path / "runs").exists()
    run(*arguments).fine()
    first = load_encoder(tmp_path / "runs" / "tiny" / "encoder.safetensors")
    second = load_encoder(tmp_path / "runs" / "second" / "encoder.safetensors")
    assert torch.equal(second.features.conv7.weight, first.features.conv7.weight)
    told = run(*arguments, "--dry-run")
    assert "would run, which" not in told.out
    assert "goes on from" in told.out


def test_seeds_are_run_one_after_another_and_their_interval_told(run, tmp_path):
    config, out = write_config(tmp_path), tmp_path / "runs"
    arguments = ("train", config, "--data-root", tmp_path, "--out", out)
    told = run(*arguments, "--seeds", "3,0", "--set", "augment.mixup_alpha=0.4").fine()
    assert {path.name for path in out.iterdir()} == {"seed-3", "seed-0", "metrics.json"}
    found = json.loads((out / "metrics.json").read_text())
    assert found["config"]["augment"]["mixup_alpha"] == 0.4
    mean = found["metrics"]["accuracy"]["mean"]
    assert re.search(rf"^accuracy +{mean:.4g} +\S+ to \S+$", told.out, re.MULTILINE)
    for wrong in ("a", "1,", "-1,2", ""):
        assert "list of seeds" in run(*arguments, "--seeds", wrong).err
    assert "give no interval" in run(*arguments, "--seeds", "5").refused()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_another_runs_folder_is_refused(run, tmp_path, dry):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text("name: other\n")
    config = write_config(tmp_path)
    refusal = run("train", config, "--out", out, "--data-root", tmp_path, *dry).refused()
    assert f"{out}: holds a run with another configuration" in refusal
    assert [path.name for path in out.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learning_rate": 1}, "learning_rate is not a known key"),
        ({"seed": "three"}, "seed: "),
        ({"optimiser": {"batch_size": 99}}, "fewer than one batch of 99"),
        ({"data": {"name": "nonesuch"}}, "no data set 'nonesuch'"),
        ({"data": {"name": "folder", "train": {"root": "/"}}}, "data.train: name and root"),
    ],
)
def test_a_config_that_cannot_be_run(run, tmp_path, changes, sentence):
    config = write_config(tmp_path, **changes)
    out = tmp_path / "run"
    refusal = run("train", config, "--out", out, "--data-root", tmp_path).refused()
    assert sentence in refusal
    assert not out.exists()


def test_a_run_folder_that_cannot_be_made(run, tmp_path):
    config = write_config(tmp_path)
    refusal = run("train", config, "--out", config / "run", "--data-root", tmp_path).refused()
    assert "not a directory" in refusal


# --- evaluate ------------------------------------------------------------------------------------

SCENES = ("-d", "soundscapes", "-o", "task=single-label", "-o", "duration=0.5", "-o", "size=160")


def test_a_probe_on_a_random_encoder_beats_chance(evaluated):
    asked = ("random", *SCENES, "--probe", "--width", 1 / 16, "--layer", 8)
    told, results = evaluated(*asked)
    (row,) = results["results"]
    assert (row["network"], row["method"], row["layer"]) == ("random", "probe", 8)
    assert row["interval"][0] > results["chance"]
    printed = told.out.splitlines()
    assert printed[2].split()[0] == "chance"
    assert f"{row['accuracy']:.1%}" in printed[3]
    assert results["results"] == evaluated(*asked)[1]["results"]


def test_classes_must_be_the_data_sets(run, checkpoint):
    refusal = run("evaluate", checkpoint, *SCENES).refused()
    assert "names 2 classes, which are not the" in refusal
    assert "'high' is not in it" in refusal
    assert "add --probe" in run("evaluate", "random", *SCENES).err  # it has none


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("evaluate random -d nonesuch", "no data set 'nonesuch'"),
        ("evaluate random -d soundscapes -o size=abc", "cannot take size='abc'"),
        ("evaluate random -d soundscapes -o colour=red", "no option 'colour'"),
        ("evaluate random -d soundscapes -o split=train", "split is not an --option"),
        (f"evaluate random {' '.join(SCENES)} --probe --layer 12", "choose 1 to 11"),
        ("data show nonesuch", "no data set 'nonesuch'"),
        ("data show soundscapes --split dev", "no split 'dev'"),
        ("data show folder --data-root /nonesuch", "no such folder"),
        ("data export soundscapes --count 9 -o size=3", "has 3 clips, not 9"),
    ],
)
def test_what_is_not_there_is_named(run, arguments, sentence):
    assert sentence in run(*arguments.split()).refused()


MANY = ("-d", "soundscapes", "-o", "duration=0.5", "-o", "size=60")


@pytest.fixture(scope="module")
def multilabel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on clips with any number of labels."""
    folder = tmp_path_factory.mktemp("multilabel")
    part = {"size": 60, "duration": 0.5}
    data = {"name": "soundscapes", "crop_seconds": 0.3}
    data |= {name: {**part, "split": name} for name in ("train", "test")}
    config = write_config(folder, data=data, objective="binary_cross_entropy")
    assert main(["train", str(config), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.parametrize("split", ["test", "train", "all"])
def test_a_network_of_many_labels_is_evaluated_on_any_split(evaluated, multilabel, split):
    network = multilabel / "encoder.safetensors"
    told, results = evaluated(network, *MANY, "--split", split)
    (row,) = results["results"]
    data = open_dataset("soundscapes", split=split, size=60, duration=0.5)
    classifier = load_classifier(network)
    scores, truth = predict(classifier, data, least_length=classifier.encoder.least_length)
    present = truth.any(axis=0) & ~truth.all(axis=0)
    assert row["mAP"] == pytest.approx(
        average_precision_score(truth[:, present], scores[:, present])
    )
    assert row["mAUC"] == pytest.approx(roc_auc_score(truth[:, present], scores[:, present]))
    assert row["d_prime"] == pytest.approx(2**0.5 * norm.ppf(row["mAUC"]))
    for name, (low, high) in row["intervals"].items():
        assert low < high, name
        assert low - 0.1 < row[name] < high
    assert row["intervals"].keys() == {"mAP", "mAUC", "d_prime"}
    assert results["chance"]["mAP"] == pytest.approx(truth.mean(axis=0)[truth.any(axis=0)].mean())
    if split == "test":
        measured = json.loads((multilabel / "metrics.json").read_text())["test"]
        assert {name: row[name] for name in measured} == pytest.approx(measured)
    assert re.search(rf"classifier +{row['mAP']:.3f} \[", told.out)


def test_probes_of_many_labels_are_evaluated_beside_chance(run, evaluated, multilabel, monkeypatch):
    monkeypatch.setattr("sonibook.training.probe.STRENGTHS", (1e-3, 1e-2))
    network = multilabel / "encoder.safetensors"
    how = ("--probe", "--layer", 4, "--width", 1 / 16)
    _, results = evaluated(network, "random:2", *MANY, *how)
    rows = {(row["network"], row["method"]): row for row in results["results"]}
    probe = rows["random:2", "probe"]
    assert rows.keys() == {
        (str(network), "classifier"), (str(network), "probe"), ("random:2", "probe")
    }  # fmt: skip
    assert probe["intervals"]["mAUC"][0] > 0.5
    assert probe["folds_of_cross_validation"] == 5
    refusal = run("evaluate", "random", *MANY, "--split", "train", *how)
    assert refusal.code == 2
    assert "probes are fitted to train" in " ".join(refusal.err.split())


def test_with_a_probe_a_networks_own_classes_do_not_matter(evaluated, checkpoint):
    _, results = evaluated(checkpoint, *SCENES, "--probe", "--layer", 2)
    assert [row["method"] for row in results["results"]] == ["probe"]


def test_clips_that_cannot_be_read_are_left_out_counted_and_limited(run, evaluated, tmp_path):
    recordings = tmp_path / "FSDD" / "recordings"
    for digit in range(2):
        for index in range(15):
            write_wav(recordings / f"{digit}_ada_{index}.wav", noise(seed=100 * digit + index))
    for name in ("0_ada_1", "0_ada_7", "1_ada_9"):  # one to test on, two to train on
        (recordings / f"{name}.wav").write_bytes(b"no sound")
    how = ("-d", "fsdd", "--probe", "--layer", 2, "--width", 1 / 16, "--data-root", tmp_path)
    told, content = evaluated("random", "random:1", *how)
    notes = " ".join(told.err.split())
    assert "1 of the 10 clips of fsdd (test) cannot be read, and are left out" in notes
    assert "2 of the 20 clips of fsdd (train) cannot be read" in notes
    assert (content["clips"], content["unreadable_clips"]) == (9, {"test": 1, "training": 2})
    assert all(row["accuracy"] == row["correct"] / 9 for row in content["results"])
    assert "9 clips" in told.out
    training = open_dataset("fsdd", root=tmp_path, split="train")
    training.classes = training.classes[:2]
    with pytest.warns(SonibookWarning, match="2 of the 20 clips of fsdd"):
        assert probed(CNN12(width=1 / 16), training, layer=2).classes == ("0", "1")
    for path in recordings.glob("1_*.wav"):
        path.write_bytes(b"no sound")
    told = run("evaluate", "random", *how)
    assert (told.code, told.out) == (2, "")
    assert re.search(r"Error: 5 of the 20 clips of fsdd \(train\) .* Is the disk there\?", told.err)


def test_probe_on_real_folds_trains_on_the_others(evaluated, data_root):
    how = ("--probe", "--width", 1 / 16, "--layer", 5)
    _, results = evaluated("random", "-d", "esc10", "--data-root", data_root, "--folds", "5", *how)
    assert results["tested_on"] == "folds 5"
    assert results["probe_trained_on"] == "folds 1,2,3,4"
    assert results["results"][0]["folds_of_cross_validation"] == 4
    assert results["results"][0]["interval"][0] > results["chance"]


# --- info ----------------------------------------------------------------------------------------


def test_info_tells_the_blocks_and_the_card(run, checkpoint):
    told = run("info", checkpoint).fine()
    assert "classes: high, low" in told.out
    described = json.loads(run("info", checkpoint, "--json").out)
    assert described["parameters"] == sum(
        tensor.numel() for name, tensor in load_file(checkpoint).items() if "head" not in name
    )
    blocks = described["blocks"]
    assert [block["layer"] for block in blocks] == list(range(1, 12))
    assert [block["stride"] for block in blocks] == [2, 4, 8, 16, 32, 64, 128] + 4 * [256]
    assert blocks[-1]["receptive_field"] == described["least_length"] == 2370
    assert sum(block["parameters"] for block in blocks) < described["parameters"]


def test_info_without_a_name_lists_what_is_shipped(run, monkeypatch, checkpoint):
    monkeypatch.setattr("sonibook.model.checkpoint.imported", dict)
    monkeypatch.setattr("sonibook.model.checkpoint.shipped", lambda: {"tiny": checkpoint})
    told = run("info").fine()
    assert told.out.splitlines()[1].split() == ["tiny", "0.0625", "nothing", "yet"]
    assert json.loads(run("info", "--json").out)["tiny"]["name"] == "tiny"
    assert json.loads(run("info", "tiny", "--json").out)["width"] == 1 / 16


# --- data ----------------------------------------------------------------------------------------


def test_data_list_says_what_can_be_opened(run, tmp_path, monkeypatch):
    monkeypatch.delenv("SONIBOOK_DATA", raising=False)
    told = run("data", "list").fine()
    states, reasons = listed(told.out)
    assert states["soundscapes"].split()[-1] == "ready"
    assert states["esc50"].endswith("not ready")
    assert "SONIBOOK_DATA" in reasons["esc50"]
    write_wav(tmp_path / "a.wav", noise(0.1))
    told = run("data", "list", "--data-root", tmp_path)
    states, reasons = listed(told.out)
    assert states["folder"].split()[1] == "1"
    assert "no ESC-50 here" in reasons["esc50"]
    assert "soundscapes" not in reasons


def listed(out: str) -> tuple[dict[str, str], dict[str, str]]:
    """The rows of `data list`, and why what is not ready is not, by name."""
    rows, _, reasons = out.partition("Not ready, because:\n")
    return (
        {line.split()[0]: line for line in rows.splitlines() if line},
        dict(line.strip().split(": ", 1) for line in reasons.splitlines()),
    )


def test_data_show_counts_clips_and_classes(run, tmp_path):
    write_wav(tmp_path / "dog" / "a.wav", noise(0.1))
    write_wav(tmp_path / "dog" / "b.wav", noise(0.3))
    write_wav(tmp_path / "cat" / "c.wav", noise(0.2))
    told = run("data", "show", "folder", "--data-root", tmp_path).fine()
    assert "3 clips, single-label" in told.out
    assert "0.10 to 0.30 s, median 0.20 s" in told.out
    assert "first ids: cat/c.wav, dog/a.wav, dog/b.wav" in told.out
    assert [line.split()[1:] for line in told.out.splitlines()[-2:]] == [["cat", "1"], ["dog", "2"]]
    (tmp_path / "dog" / "bad.wav").write_text("no sound")
    told = run("data", "show", "folder", "--data-root", tmp_path, "--read-all")
    assert told.code == 2
    assert "1 of 4 clips cannot be read" in told.err
    assert "4 clips, single-label" in told.out


def test_data_at_a_rate_of_ones_own(run, tmp_path):
    write_wav(tmp_path / "in" / "a.wav", noise(0.25))
    options = ("--data-root", tmp_path / "in", "-o", "sample_rate=16000")
    assert "0.25 to 0.25 s" in run("data", "show", "folder", *options).out
    out = tmp_path / "out"
    run("data", "export", "folder", *options, "--count", 1, "--out", out).fine()
    (path,) = out.rglob("*.wav")
    information = soundfile.info(path)
    assert (information.samplerate, information.frames) == (16000, 4000)


def test_a_sound_that_is_cut_short_is_named_once(run, tmp_path):
    path = tmp_path / "cut.wav"
    write_wav(path, noise(0.5))
    path.write_bytes(path.read_bytes()[:4044])
    for command in (
        ("data", "export", "soundscapes", "--count", 8, "--out", tmp_path / "out",
         "--data-root", tmp_path, "-o", "mixture_of=folder"),
        ("sonify", path, "--layer", 1, "--top", 1, "--out", tmp_path / "out"),
    ):  # fmt: skip
        told = run(*command).fine()
        note = f"Note: {path}: was cut short: it holds 50.0% of what its header promises."
        assert told.err.splitlines().count(note) == 1


def test_data_show_of_real_recordings(run, data_root):
    told = run("data", "show", "esc10", "--data-root", data_root, "--split", "test")
    assert "80 clips" in told.out
    assert "5.00 to 5.00 s" in told.out
    assert all(line.split()[-1] == "8" for line in told.out.splitlines()[-10:])


def test_data_export_writes_the_clips_themselves(run, tmp_path):
    out = tmp_path / "scenes"
    run(
        *("data", "export", "soundscapes", "--count", 3, "--out", out, "--split", "test"),
        *("-o", "seed=7", "-o", "duration=1.0"),
    ).fine()
    data = open_dataset("soundscapes", split="test", seed=7, duration=1.0)
    labels, events = rows_of(out, "labels"), rows_of(out, "events")
    assert [row["clip_id"] for row in labels] == [data[index].clip_id for index in range(3)]
    for index, row in enumerate(labels):
        np.testing.assert_allclose(samples_of(out / row["file"]), data[index].waveform, atol=STEP)
        assert row["labels"].split(";") == [data.classes[label] for label in data[index].labels]
    expected = [event for index in range(3) for event in data.scene(index).events]
    assert [row["class"] for row in events] == [event.name for event in expected]
    assert [float(row["onset"]) for row in events] == [event.onset for event in expected]


# --- small parts ---------------------------------------------------------------------------------


def test_tables_line_up():
    text = table(["name", "n", "ok"], [["a", 1.23456789, True], ["long name", None, False]])
    assert text.splitlines() == [
        "name           n  ok",
        "a          1.235  yes",
        "long name      -  no",
    ]


def test_options_and_folds_are_read_as_typed():
    expected = {"a": 1, "b": [1, 2], "c": "x=y", "d": None}
    assert parse_options(["a=1", "b=[1, 2]", "c=x=y", "d="]) == expected
    assert parse_options(None) == {}
    assert parse_numbers(None, "folds") is None
    assert parse_numbers("1,5", "folds") == (1, 5)


def test_system_errors_read_as_sentences():
    problem = OSError(28, "No space left on device", "out.wav")
    assert explain(problem) == "out.wav: no space left on device."
    assert shown("caf\udce9") == "caf\\udce9"
