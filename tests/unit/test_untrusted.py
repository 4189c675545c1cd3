"""Files that somebody sent: each is refused in one sentence, and opens nothing."""

import csv
import io
import json
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from readers import tiny_network
from safetensors.torch import load_file, save_file

from sonibook.analysis.activations import ActivationsResult
from sonibook.audio import read_audio
from sonibook.cli import main
from sonibook.datasets import Clip, archives, open_dataset
from sonibook.datasets.packed import pack
from sonibook.datasets.recordings import open_esc50
from sonibook.errors import (
    AnalysisError,
    AudioError,
    CheckpointError,
    ConfigError,
    DatasetError,
    MissingAudioError,
)
from sonibook.files import parse_json, parse_yaml, read_arrays, read_csv, write_result
from sonibook.model.checkpoint import load_encoder, read_card, save_checkpoint
from sonibook.training.config import load_config
from sonibook.training.folder import load_state, save_state

# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a: 2001-99-99",
        "a: 0b_",
        'a: !!int ""',
        "a: !!bool x",
        "a: !!timestamp x",
        "a: " + "9" * 5000,
        "a: !!python/object/apply:os.getcwd []",
    ],
)
def test_yaml_whose_values_are_none(text):
    with pytest.raises(ValueError, match=r"."):
        parse_yaml(text)


def test_yaml_that_refers_to_itself_unfolds_to_nothing():
    for text in ("a: &a [1]\nb: [*a, *a]", "a: &a {b: *a}"):
        with pytest.raises(ValueError, match="refers to another of its parts"):
            parse_yaml(text)


def test_yaml_is_what_pyyaml_reads():
    for path in sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml")):
        text = path.read_text("utf-8")
        assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize("parse", [parse_yaml, parse_json])
def test_depth_length_and_keys_given_twice(parse):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse('{"a": ' * 20_000 if parse is parse_json else "[" * 2_000)
    with pytest.raises(ValueError, match="gives 'a' twice"):
        parse('{"a": 1, "b": {"a": 3}, "a": 2}')
    assert parse('{"a": 1, "b": {"a": 3}}') == {"a": 1, "b": {"a": 3}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 101 + "]" * 101, "nested too deeply"),
        ('{"a": ' * 101 + "1" + "}" * 101, "nested too deeply"),
        ("[" + "[]," * 1_000_000 + "[]]", "more than 1,000,000 lists and objects"),
        ("[" + "{}," * 1_000_000 + "1]", "more than 1,000,000 lists and objects"),
        (b" " * 50_000_001, "longer than 50,000,000 characters"),
    ],
    ids=["lists", "objects", "shallow lists", "empty objects", "spaces"],
)
def test_json_has_bounds(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_json_counts_no_brackets_in_its_strings():
    deep = "[" * 98 + "1" + "]" * 98
    for value in ("[" * 200, '\\"[{' * 200, "\\" * 201, json.loads(deep), "鳥"):
        text = json.dumps([value, {"a": value}])
        assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


def test_shallow_lists_by_the_million_cost_no_memory(tmp_path):
    """They took forty times what the file holds."""
    path = tmp_path / "result.json"
    path.write_text("[" + "[]," * 1_000_000 + "[]]")
    tracemalloc.start()
    try:
        with pytest.raises(AnalysisError, match=r"is not JSON .*more than 1,000,000 lists"):
            ActivationsResult.read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * path.stat().st_size
    with path.open("ab") as file:
        file.truncate(300_000_000)
    with pytest.raises(AnalysisError, match="longer than 50,000,000"):
        ActivationsResult.read(path)


@pytest.mark.parametrize("text", ["a," * 60_000, 'a,"' + "b\n" * 60_000, '"a\n",' * 30_000])
def test_a_row_of_a_table_has_a_longest_length(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text("first,row\n" + text)
    rows = read_csv(path)
    assert next(rows) == (1, ["first", "row"])
    with pytest.raises(ValueError, match="has a row longer than 100,000 characters"):
        next(rows)


def test_a_table_has_a_longest_length(tmp_path, monkeypatch):
    monkeypatch.setattr("sonibook.files._LONGEST_CSV", 10_000)
    path = tmp_path / "table.csv"
    path.write_text("a,b\n" * 3000)
    with pytest.raises(ValueError, match="is longer than 10,000 characters"):
        list(read_csv(path))
    path.write_text("a, b\n" * 2000)
    monkeypatch.undo()
    assert list(read_csv(path)) == [(n + 1, ["a", "b"]) for n in range(2000)]


def test_yaml_has_a_longest_length():
    with pytest.raises(ValueError, match="longer than 100,000 characters"):
        parse_yaml("a: " + "x" * 100_000)


def test_a_configuration_names_no_impossible_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text('name: a\ndata: {name: folder}\nencoder: {start: "\\0.yaml", norm: none}\n')
    with pytest.raises(ConfigError, match=r"encoder\.start is not the name of a file"):
        load_config(path)


# --- checkpoints ---------------------------------------------------------------------------------


def raw(header: str, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header.encode())) + header.encode() + data


def entry(shape: list[int], *, end: int = 0, dtype: str = "F16") -> str:
    tensor = {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}
    return json.dumps({"features.conv1.weight": tensor})


@pytest.mark.parametrize(
    "content",
    [
        raw(entry([2**40, 1, 7], end=14 * 2**40)),
        raw(entry([2**64 - 1, 2**64 - 1, 7], end=2), b"\0\0"),
        raw("[" * 50_000),
        struct.pack("<Q", 1 << 62) + b"{}",
        raw(entry([-1, 1, 7])),
    ],
    ids=["terabytes", "overflow", "nested", "long header", "negative"],
)
def test_a_header_that_lies(tmp_path, content):
    path = tmp_path / "liar.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        load_encoder(path)


@pytest.mark.parametrize("dtype", ["BF16", "F64", "I8", "BOOL", "F8_E4M3", "U64"])
def test_other_kinds_of_numbers(tmp_path, dtype):
    path = tmp_path / "kind.safetensors"
    path.write_bytes(raw(entry([0], dtype=dtype)))
    with pytest.raises(CheckpointError, match="not float16 or float32"):
        load_encoder(path)


def test_a_small_file_asks_for_no_huge_network(tmp_path):
    """Its first layer asks for three million channels in the last, which has them, and is empty."""
    path = tmp_path / "huge.safetensors"
    tensors = {f"features.conv{n}.weight": torch.zeros(0).half() for n in range(2, 11)}
    tensors["features.conv1.weight"] = torch.zeros(100_000, 1, 7).half()
    tensors["features.conv11.weight"] = torch.zeros(3_200_000, 0, 3).half()
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"the tensor fc1\.fc10\.bias is missing"):
        load_encoder(path)


def with_card(path: Path, card: str) -> Path:
    save_checkpoint(path, tiny_network(), {})
    save_file(load_file(path), path, metadata={"card": card})
    return path


@pytest.mark.parametrize(
    ("card", "reason"),
    [("[" * 100_000, "nested too deeply"), ('{"epoch": 1, "epoch": 2}', "gives 'epoch' twice")],
)
def test_a_card_that_is_a_trap(tmp_path, card, reason):
    path = with_card(tmp_path / "trap.safetensors", card)
    with pytest.raises(CheckpointError, match=reason):
        read_card(path)


def test_a_card_commands_no_terminal_and_leads_nowhere(tmp_path, capsys):
    outside = tmp_path / "outside.txt"
    card = {"name": "\x1b]0;owned\x07", "config": {"path": f"../{outside.name}"}, "odd": "\udce9"}
    path = with_card(tmp_path / "card.safetensors", json.dumps(card))
    before = sorted(tmp_path.rglob("*"))
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert r"\x1b]0;owned\x07" in shown
    assert main(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"]["name"] == card["name"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_goes_on_from_no_other_optimiser(tmp_path):
    network = tiny_network()
    optimiser = torch.optim.AdamW(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    path = tmp_path / "state.safetensors"
    position = {name: [] for name in ("losses", "log", "extended", "unreadable")}
    position |= {"step": 1, "seconds": 0.0, "epochs": 1}
    save_state(path, network, optimiser, position)
    assert load_state(path, network, optimiser) == position
    whole = load_file(path)
    for change in (
        lambda t: t.pop("optimiser/0/exp_avg"),
        lambda t: t.update({"optimiser/0/exp_avg": torch.zeros(3)}),
        lambda t: t.update({"optimiser/x/exp_avg": torch.zeros(3)}),
        lambda t: [t.pop(f"optimiser/1/{name}") for name in ("exp_avg", "exp_avg_sq", "step")],
        lambda t: t.update({"optimiser/0/exp_avg_sq": -t["optimiser/0/exp_avg_sq"]}),
        lambda t: t.update({"optimiser/0/exp_avg": t["optimiser/0/exp_avg"] * float("nan")}),
        lambda t: t.update({"optimiser/0/step": torch.tensor(0.0)}),
    ):
        tensors = dict(whole)
        change(tensors)
        save_file(tensors, path, metadata={"position": json.dumps(position)})
        with pytest.raises(CheckpointError, match="is not a checkpoint of this run"):
            load_state(path, network, optimiser)
    save_file(whole, path, metadata={"position": json.dumps({"step": 1})})
    with pytest.raises(CheckpointError, match="is not a checkpoint of this run"):
        load_state(path, network, optimiser)


# --- arrays and packs ----------------------------------------------------------------------------


def npz(shape: tuple[int, ...], data: bytes, method: int) -> bytes:
    header, stream = io.BytesIO(), io.BytesIO()
    layout = {"descr": "<i8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, layout)
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("x.npy", header.getvalue() + data)
    return stream.getvalue()


def test_arrays_that_claim_more_than_there_is(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(npz((2**45,), b"", zipfile.ZIP_STORED))
    with pytest.raises(ValueError, match=r"allocate|end of|EOF"):
        read_arrays(path, ["x"])
    path.write_bytes(npz((10**6,), bytes(8 * 10**6), zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 10**5
    with pytest.raises(ValueError, match="is packed"):
        read_arrays(path, ["x"])
    np.savez(path, x=np.arange(3))
    assert read_arrays(path, ["x"])["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["ends", "label_ends", "labels", "id_ends"])
@pytest.mark.parametrize("value", [-1, 10**12])
def test_a_table_that_points_elsewhere(tmp_path, name, value):
    scenes = open_dataset("soundscapes", size=2, duration=0.5)
    pack(scenes, tmp_path, split="all", workers=1)
    path = tmp_path / "all" / "shard-00000.npz"
    with np.load(path) as file:
        table = {key: file[key] for key in file.files}
    table[name] = table[name].astype(np.int64)
    table[name][0] = value
    np.savez(path, **table)
    with pytest.raises(DatasetError, match="damaged"):
        open_dataset("packed", root=tmp_path)


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/secret.wav", "a\\b.wav", "", ".."])
def test_a_table_names_no_file_elsewhere(tmp_path, name):
    meta = tmp_path / "ESC-50" / "meta" / "esc50.csv"
    meta.parent.mkdir(parents=True)
    (tmp_path / "ESC-50" / "secret.wav").touch()
    with meta.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "fold", "target", "category", "esc10"])
        writer.writerow([name, "1", "0", "dog", "True"])
    with pytest.raises(DatasetError, match=r"does not name a file in audio/|missing"):
        open_esc50(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "filename,fold\n", "filename,fold,target,category,esc10\n", "\xff\xfe", "x" * 200_000],
)
def test_esc50_with_another_table(tmp_path, text):
    meta = tmp_path / "ESC-50" / "meta" / "esc50.csv"
    meta.parent.mkdir(parents=True)
    meta.write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match=r"esc50\.csv"):
        open_esc50(tmp_path)


# --- sound ---------------------------------------------------------------------------------------


def wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    soundfile.write(path, samples, rate, "FLOAT")
    return path


@pytest.mark.parametrize("rate", [1, 7, 99, 10_000_001, 2**31 - 1])
def test_rates_that_no_sound_has(tmp_path, rate):
    path = wav(tmp_path / "x.wav", np.ones(100, np.float32), 8000)
    content = bytearray(path.read_bytes())
    at = content.find(b"fmt ") + 12
    content[at : at + 4] = struct.pack("<I", rate)
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"claims a rate of .* which no sound has"):
        read_audio(path)


def test_hours_of_silence_in_a_small_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sonibook.audio._LONGEST_HOURS", 30 / 3600)
    path = tmp_path / "x.flac"
    soundfile.write(path, np.zeros(40 * 8000), 8000)
    with pytest.raises(AudioError, match=r"lasts more than .* hours: cut it into pieces"):
        read_audio(path, unit_peak=False)


@pytest.mark.parametrize("channels", [1, 2])
def test_finite_samples_that_overflow_on_the_way(tmp_path, channels):
    samples = np.full((2000, channels), 3.4e38, np.float32)
    samples[::7] *= -1
    path = wav(tmp_path / "x.wav", samples, 44100)
    with pytest.raises(AudioError, match=r"x\.wav: holds samples that are NaN or infinite"):
        read_audio(path)


def test_a_name_that_is_no_unicode(tmp_path):
    odd = tmp_path / "caf\udce9.wav"
    try:
        odd.touch()
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(AudioError, match="a name that is not Unicode text"):
        read_audio(odd)
    write_result(tmp_path / "x.json", {"clip": odd.name})
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["clip"] == odd.name


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_clip_names_itself_where_it_is_no_sound(bad):
    samples = np.zeros(10, np.float32)
    samples[3] = bad
    with pytest.raises(AudioError, match=r"^bark-7: sample 3 is NaN or infinite\.$"):
        Clip(samples, (0,), "bark-7")


def test_a_recording_that_vanishes_ends_packing_and_is_no_bad_clip(tmp_path):
    sounds = tmp_path / "sounds"
    for name in "abc":
        path = sounds / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        wav(path, np.ones(4000, np.float32), 8000)
    data = open_dataset("folder", root=sounds)
    (sounds / "b.wav").rename(tmp_path / "b.wav")
    with pytest.raises(MissingAudioError):
        data[1]
    with pytest.raises(DatasetError, match="is the disk still there"):
        pack(data, tmp_path / "out", workers=1)
    (tmp_path / "b.wav").rename(sounds / "b.wav")
    assert len(pack(data, tmp_path / "out", workers=1)) == 3


# --- archives ------------------------------------------------------------------------------------


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_HARMLESS", 1 << 20)
    content = bytes(3 << 20)
    bombs = [tmp_path / "bomb.zip", tmp_path / "bomb.tar.gz"]
    with zipfile.ZipFile(bombs[0], "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/zeros", content)
    with tarfile.open(bombs[1], "w:gz") as archive:
        info = tarfile.TarInfo("a/zeros")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    for bomb in bombs:
        out = tmp_path / f"{bomb.name}-out"
        with pytest.raises(DatasetError, match="unpacks to more than 20 times its size"):
            archives.unpack([bomb], out)
        assert not list(out.rglob("zeros"))


@pytest.mark.parametrize(
    ("at", "value"), [(6, b"\x01\x00"), (8, b"\x63\x00"), (4, b"\xff\x00")],
    ids=["encrypted", "unknown method", "later version"],
)  # fmt: skip
def test_members_that_zipfile_cannot_unpack(tmp_path, at, value):
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.txt", b"one")
    content = bytearray(path.read_bytes())
    entry_at = content.find(b"PK\1\2") + 2
    content[at : at + 2] = value
    content[entry_at + at : entry_at + at + 2] = value
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="is damaged"):
        archives.unpack([path], tmp_path / "out")


@pytest.mark.parametrize("rows", [[{"a": 1}, {"b": [2.5]}], [], {"width 1": {"ms": 2.5}}])
def test_rows_of_a_result_are_read_as_they_were_written(tmp_path, rows):
    write_result(tmp_path / "x.json", {"rows": rows, "clips": 3})
    assert parse_json((tmp_path / "x.json").read_bytes())["rows"] == rows
