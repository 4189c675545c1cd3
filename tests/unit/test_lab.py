"""The lab's pieces hold what they were made of, and its engine is what its source says."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heard import received

from sonibook.cli import main
from sonibook.cli.networks import main_networks
from sonibook.errors import AudioError, CheckpointError
from sonibook.model.checkpoint import load_encoder, read_card, save_checkpoint, shipped
from sonibook.model.encoder import CNN12, Classifier
from sonibook.model.stack import blocks_of, receptive_field
from sonibook.widgets.lab import LabClip, LabNetwork, export_lab, facts

LAB = Path(__file__).parents[2] / "book" / "lab"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``tools/lab.py``, which is not part of the library."""
    monkeypatch.syspath_prepend(str(LAB.parents[1] / "tools"))
    import lab

    return lab


def content(folder: Path, entry: dict[str, Any]) -> bytes:
    """The bytes of a piece that the manifest lists, held against what the manifest says of it."""
    found = base64.b64decode(received(folder, entry["piece"]), validate=True)
    assert len(found) == entry["bytes"]
    assert hashlib.sha256(found).hexdigest() == entry["sha256"]
    return found


def network(name: str = "small", **options: Any) -> LabNetwork:
    return LabNetwork(name, CNN12(width=1 / 16, seed=0, **options).eval(), {"task": "none"})


def clip(name: str = "noise", samples: int = 3000) -> LabClip:
    x = np.random.default_rng(0).uniform(-1, 1, samples).astype(np.float32)
    return LabClip(name, "A noise", x)


# What is exported


@pytest.mark.parametrize("norm", ["none", "weight"])
def test_pieces_hold_the_weights_and_the_clip(tmp_path: Path, norm: str) -> None:
    made, heard = network(norm=norm), clip()
    manifest = export_lab([made], [heard], tmp_path)
    assert received(tmp_path, "manifest") == manifest
    plain = made.encoder.fold().state_dict()
    blocks = blocks_of(made.encoder)
    (entry,) = manifest["networks"]
    assert len(entry["layers"]) == len(blocks) == 11
    for number, (layer, block) in enumerate(zip(entry["layers"], blocks, strict=True), start=1):
        half = torch.frombuffer(bytearray(content(tmp_path, layer)), dtype=torch.float16)
        bias = plain[f"features.conv{number}.bias"]
        weight = plain[f"features.conv{number}.weight"]
        assert torch.equal(half[: len(bias)], bias.half())
        assert torch.equal(half[len(bias) :].reshape(weight.shape), weight.half())
        assert (layer["channels"], layer["taps"]) == (len(bias), weight.shape[2])
        assert layer["pool"] == block.pool
        assert layer["receptiveField"] == receptive_field(blocks, number)
    assert entry["leastLength"] == made.encoder.least_length
    samples = np.frombuffer(content(tmp_path, manifest["clips"][0]), "<i2") / 32768
    np.testing.assert_allclose(samples, heard.waveform, atol=1 / 32768)


def test_a_head_makes_the_logits_of_its_classifier(tmp_path: Path) -> None:
    classifier = Classifier(CNN12(width=1 / 16, seed=0), ("dog", "church_bells", "rain"), seed=1)
    made = LabNetwork("c", classifier.eval(), {"config": {"objective": "binary_cross_entropy"}})
    manifest = export_lab([made, network()], [clip()], tmp_path)
    head = manifest["networks"][0]["head"]
    assert (head["classes"], head["several"]) == (["dog", "church bells", "rain"], True)
    bias, weight = np.split(np.frombuffer(content(tmp_path, head), "<f4"), [3])
    x = torch.randn(2, 1, 9000, generator=torch.Generator().manual_seed(0))
    pooled = classifier.encoder.pooled(x).detach().numpy()
    logits = bias + pooled @ weight.reshape(3, -1).T
    np.testing.assert_allclose(logits, classifier(x).detach().numpy(), rtol=1e-4, atol=1e-6)
    assert manifest["networks"][1]["head"] is None


def test_an_export_is_the_same_every_time_and_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    for folder in ("a", "b"):
        export_lab([network()], [clip()], tmp_path / folder)
    first = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    second = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert second.pop("notes.txt") == b"mine"
    assert first == second


@pytest.mark.parametrize(
    "names", [("twice", "twice"), ("../up", "fine"), ("", "fine"), ("a b", "c")]
)
def test_impossible_names_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(CheckpointError, match="cannot be a name in the lab"):
        export_lab([network(name) for name in names], [clip()], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_leaves_no_manifest(tmp_path: Path) -> None:
    loud = network("loud")
    with torch.no_grad():
        loud.encoder.features.conv5.bias[0] = 1e6
    with pytest.raises(CheckpointError, match="loud: layer 5 has weights"):
        export_lab([network(), loud], [clip()], tmp_path)
    bad = clip()
    bad.waveform[7] = np.nan
    with pytest.raises(AudioError, match="sample 7"):
        export_lab([network()], [bad], tmp_path)
    with pytest.raises(ValueError, match="at least"):
        export_lab([network()], [], tmp_path)
    assert not (tmp_path / "manifest.js").exists()


def told(card: dict[str, Any]) -> str:
    return " ".join(facts(LabNetwork("x", CNN12(width=1 / 16, seed=0), card)))


def test_facts_tell_the_card_in_plain_sentences() -> None:
    card = {"task": "supervised classification", "data": "d", "chance": 0.5, "classes": ["a", "b"]}
    card |= {"config": {"objective": "cross_entropy"}, "test": {"accuracy": 0.6475}}
    weights = sum(p.numel() for p in CNN12(width=1 / 16, seed=0).parameters())
    assert told({**card, "licence_of_data": "CC BY"}) == (
        "Trained with labels: to name the class of a recording (2 classes). Its data: d. "
        "It names 64.8 % of unseen clips right (chance: 50 %). "
        f"CNN12 at width 0.0625, {weights:,} weights. Licence of the data: CC BY."
    )
    # A card without settings tells its objective as its task; one without both tells nothing.
    assert told({"task": "nt xent"}).startswith("Trained without labels: to tell which two")
    assert told({"task": "trained to hum."}).startswith("Trained to hum. CNN12")
    assert told({}).startswith("Its card does not tell how it was trained.")


@pytest.mark.parametrize("name", main_networks(shipped()))
def test_every_shipped_network_says_what_it_was_trained_for(name: str) -> None:
    sentences = facts(LabNetwork(name, load_encoder(name), read_card(name)))
    assert sentences[0].startswith("Trained with"), "its card names no objective that facts knows"
    assert sentences[1].startswith("Its data:")


# The command


def test_command_exports_all_that_is_shipped_and_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export-lab", "--out", str(tmp_path)]) == 0
    manifest = received(tmp_path, "manifest")
    assert {entry["name"] for entry in manifest["networks"]} == {
        *main_networks(shipped()),
        "random",
    }
    assert [one["name"] for one in manifest["networks"] if not one["trained"]] == ["random"]
    for entry in manifest["networks"]:
        named = entry["name"] != "random" and "classes" in read_card(entry["name"])
        assert (entry["head"] is not None) == named
    assert len(manifest["clips"]) >= 5
    for entry in manifest["clips"]:
        samples = np.frombuffer(content(tmp_path, entry), "<i2")
        assert len(samples) == 40000
        assert np.abs(samples.astype(int)).max() >= 32767
    assert "supervised" in capsys.readouterr().out


def test_command_adds_recordings_that_name_their_source(tmp_path: Path, data_root: Path) -> None:
    asked = ["export-lab", "random", "--out", str(tmp_path), "--data-root", str(data_root)]
    assert main(asked) == 0
    manifest = received(tmp_path, "manifest")
    recorded = [one for one in manifest["clips"] if one["credit"]]
    assert manifest["clips"][:10] == recorded
    assert len({one["title"] for one in recorded}) == 10
    for one in recorded:
        _, number, *_ = one["name"].split("-")
        assert one["credit"] == f"Freesound {number}, CC BY"
        assert len(content(tmp_path, one)) == 2 * 40000
    assert main([*asked[:-1], str(tmp_path)]) == 2


def test_command_takes_a_checkpoint_and_refuses_what_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.safetensors"
    save_checkpoint(path, Classifier(CNN12(width=1 / 16, seed=3), ("a", "b")), {"name": "tiny"})
    assert main(["export-lab", str(path), "--out", str(tmp_path / "out")]) == 0
    manifest = received(tmp_path / "out", "manifest")
    assert [entry["name"] for entry in manifest["networks"]] == [read_card(path)["name"]]
    assert main(["export-lab", "nowhere", "--out", str(tmp_path / "none")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


# The engine and the script


def sections(wasm: bytes) -> Iterator[tuple[int, bytes]]:
    """The sections of a WebAssembly module: number and content (core specification, 5.5)."""
    assert wasm[:8] == b"\0asm\1\0\0\0"
    place = 8
    while place < len(wasm):
        kind, (size, start) = wasm[place], leb128(wasm, place + 1)
        yield kind, wasm[start : start + size]
        place = start + size


def leb128(data: bytes, place: int) -> tuple[int, int]:
    """An unsigned number of any length, and where it ends."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def exported(section: bytes) -> set[str]:
    count, place = leb128(section, 0)
    names = set()
    for _ in range(count):
        length, place = leb128(section, place)
        names.add(section[place : place + length].decode())
        _, place = leb128(section, place + length + 1)
    return names


def test_engine_imports_nothing_and_is_small() -> None:
    wasm = (LAB / "engine.wasm").read_bytes()
    found = dict(sections(wasm))
    assert 2 not in found, "section 2 holds imports"
    functions = {"widen", "arrange", "gather", "convolve", "rectify", "energy"}
    assert exported(found[7]) == functions | {"memory", "__heap_base"}
    assert len(wasm) < 30_000


def test_engine_is_what_its_source_compiles_to(lab: Any) -> None:
    assert lab.compile_engine() == (LAB / "engine.wasm").read_bytes(), "run `make engine`"


def test_script_is_whole_and_plain(lab: Any) -> None:
    shared = {"recorder.js", "sound.js"}
    assert {*lab.PAGE, *lab.WORKER} == {path.name for path in LAB.glob("*.js")} | shared
    script = lab.page_script()
    assert not re.search(r"^\s*(import|export)\b", script, flags=re.MULTILINE)
    assert script == lab.page_script()
    for modules in (lab.PAGE, lab.WORKER):
        known: set[str] = set()
        for name in modules:
            imported = set(re.findall(r'from "\..*/(.+)";', lab.source_of(name)))
            assert imported <= known, f"{name} comes before what it imports from"
            known.add(name)


@pytest.mark.parametrize("path", sorted(LAB.iterdir()), ids=lambda path: path.name)
def test_sources_are_short(path: Path) -> None:
    if path.suffix != ".wasm":
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 330
