"""The atlas holds what a plain loop finds and `sonify` gives, and appears whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heard import decoded, received
from oracles import DEAD, plain_stack, with_dead_filter
from torch import nn

from sonibook import sonify
from sonibook.analysis.networks import Network, with_random_weights
from sonibook.audio import write_wav
from sonibook.cli import main
from sonibook.datasets import Dataset, open_dataset
from sonibook.model.checkpoint import save_checkpoint
from sonibook.model.encoder import CNN12
from sonibook.model.stack import blocks_of, receptive_field, stride
from sonibook.widgets import atlas
from sonibook.widgets.atlas import make_atlas

LAYERS = (1, 2, 5, 11)


@pytest.fixture(scope="module")
def network() -> CNN12:
    return with_dead_filter()


@pytest.fixture
def small() -> nn.Module:
    """Two layers, of 6 and 8 filters."""
    torch.manual_seed(1)
    first = nn.Conv1d(1, 6, 8), nn.ReLU(), nn.MaxPool1d(2)
    return nn.Sequential(*first, nn.Conv1d(6, 8, 8), nn.ReLU(), nn.MaxPool1d(4))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return open_dataset("soundscapes", split="test", size=7, duration=0.9, seed=4)


def make(network: nn.Module, data: Dataset, out: Path, **options: Any) -> dict[str, Any]:
    both = with_random_weights([Network("tiny", network)], seed=0)
    return make_atlas(both, data, out, **({"seconds": 0.3} | options))


@pytest.fixture(scope="module")
def folder(network: CNN12, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("atlas") / "out"
    make(network, data, out)
    return out


def naive_maps(network: nn.Module, x: np.ndarray) -> list[torch.Tensor]:
    """After each block, by PyTorch's own modules, in double precision."""
    y, maps, seen = torch.from_numpy(x).double()[None, None], [], False
    modules = list(plain_stack(network).double())
    for place, module in enumerate(modules):
        y = module(y)
        after = modules[place + 1] if place + 1 < len(modules) else None
        seen = seen or isinstance(module, nn.ReLU)
        if seen and (after is None or isinstance(after, nn.Conv1d)):
            maps.append(y[0])
            seen = False
    return maps


@pytest.mark.parametrize("name", ["tiny", "random-weights"])
def test_top_clips_are_those_of_a_plain_loop(
    name: str, network: CNN12, data: Dataset, folder: Path
) -> None:
    module = network if name == "tiny" else CNN12(width=1 / 16, seed=0)
    maps = [naive_maps(module, clip.waveform) for clip in data]
    manifest = received(folder, "manifest")
    (entry,) = [one for one in manifest["networks"] if one["folder"] == name]
    for layer in LAYERS:
        energies = np.array([(of[layer - 1] ** 2).mean(dim=1).numpy() for of in maps])
        rows = received(folder, f"{name}/{layer:02d}")
        assert len(rows) == entry["layers"][layer - 1]["filters"] == energies.shape[1]
        for number, (live, agreement, centroid, bandwidth, top) in enumerate(rows):
            own = energies[:, number]
            expected = [int(n) for n in np.argsort(-own, kind="stable")[:3] if own[n] > 0]
            assert live == (own > 0).sum()
            assert [one[0] for one in top] == expected
            energy = own[expected]
            rounding = 1e-6 * energy.max(initial=0.0)  # of sums in single precision
            np.testing.assert_allclose([one[1] for one in top], energy, rtol=1e-3, atol=rounding)
            assert (agreement is None) == (len(expected) < 3)
            assert (centroid is None) == (bandwidth is None) == (not expected)
            if expected:
                labels = [set(data.labels(n)) for n in expected]
                shares = [
                    len(labels[a] & labels[b]) / len(labels[a] | labels[b])
                    for a in range(len(labels))
                    for b in range(a)
                ]
                assert len(expected) < 3 or agreement == pytest.approx(np.mean(shares), rel=1e-3)
    dead = received(folder, "tiny/02")[DEAD]
    assert dead == [0, None, None, None, []]
    assert not (folder / f"tiny/02-{DEAD:04d}.js").exists()


@pytest.mark.parametrize("layer", LAYERS)
def test_sounds_are_sonifications_where_the_map_is_largest(
    layer: int, network: CNN12, data: Dataset, folder: Path
) -> None:
    blocks = blocks_of(network)
    field, step = receptive_field(blocks, layer), stride(blocks, layer)
    for number, row in enumerate(received(folder, f"tiny/{layer:02d}")[:16]):
        if not row[4]:
            continue
        pieces = received(folder, f"tiny/{layer:02d}-{number:04d}")
        for flac, (index, _, start, samples) in zip(pieces, row[4], strict=True):
            x = data[index].waveform
            whole = sonify(network, x, layer=layer, filters=[number])[0].numpy()
            expected = whole[start : start + samples]
            found, rate = decoded(flac)
            assert (rate, len(found), samples) == (8000, 2400, 2400)
            noise = np.sqrt(np.mean((found - expected) ** 2))
            assert noise <= 0.01 * np.sqrt(np.mean(expected**2)) + 1 / 65536
            place = int(naive_maps(network, x)[layer - 1][number].argmax()) * step
            assert start <= place + field // 2 <= start + samples


def test_clips_are_there_with_what_is_known_of_them(data: Dataset, folder: Path) -> None:
    clips = received(folder, "manifest")["clips"]
    for index, about in clips.items():
        clip, piece = data[int(index)], received(folder, f"clips/{index}")
        assert about["id"] == clip.clip_id
        assert about["classes"] == [data.classes[n].replace("_", " ") for n in clip.labels]
        found, _ = decoded(piece["flac"])
        noise = np.sqrt(np.mean((found - clip.waveform) ** 2))
        assert noise <= 1e-3 * np.sqrt(np.mean(clip.waveform**2)) + 1 / 65536


def test_of_many_clips_the_stretches_that_are_heard_are_kept(
    small: nn.Module, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atlas, "_MOST_OF_CLIPS", 0)
    make(small, data, tmp_path / "out", seconds=0.05)
    needed: dict[str, list[tuple[int, int]]] = {}
    for name in ("tiny", "random-weights"):
        for layer in (1, 2):
            for *_, top in received(tmp_path / "out", f"{name}/{layer:02d}"):
                for index, _, start, samples in top:
                    needed.setdefault(str(index), []).append((start, start + samples))
    for index, stretches in needed.items():
        piece = received(tmp_path / "out", f"clips/{index}")
        assert piece["start"] == min(start for start, _ in stretches)
        assert len(decoded(piece["flac"])[0]) == max(end for _, end in stretches) - piece["start"]


def test_large_networks_get_shorter_stretches(
    small: nn.Module, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atlas, "_MOST_SAMPLES", 3 * 14 * 800)
    summary = make(small, data, tmp_path / "out", seconds=None)
    assert summary["stretch_seconds"] == pytest.approx(0.1, rel=0.3)  # some filters may be dead


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "atlas.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_was_interrupted_goes_on_to_the_same_end(
    small: nn.Module, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, parts, add = tmp_path / "out", tmp_path / "parts", atlas._Writer.add
    calls = []

    def interrupted(self: Any, *arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        add(self, *arguments)

    monkeypatch.setattr(atlas._Writer, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(small, data, out, parts=parts)
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
    kept = len(list(parts.rglob("*.npz")))
    monkeypatch.setattr(atlas._Writer, "add", add)
    make(small, data, out, parts=parts)
    assert kept >= 3
    make(small, data, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_an_atlas_is_made_once_and_replaced_by_another(
    small: nn.Module, data: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = make(small, data, out, limit=3)
    (out / "atlas.js").unlink()
    stamp = (out / "manifest.js").stat().st_mtime_ns
    assert make(small, data, out, limit=3) == first
    assert (out / "manifest.js").stat().st_mtime_ns == stamp
    assert (out / "atlas.js").exists()
    assert make(small, data, out, limit=2)["data"]["clips"] == 2
    assert len(received(out, "manifest")["clips"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_atlas_outlives_what_fails_to_replace_it(
    small: nn.Module, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = make(small, data, out, limit=2)
    before = contents(out)
    out.rename(tmp_path / ".out.old")  # as a run leaves it that is killed at its end
    (tmp_path / ".out.new").mkdir()

    def full(*_: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(atlas._Writer, "manifest", full)
        with pytest.raises(OSError, match="no space left"):
            make(small, data, out, limit=3)
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert make(small, data, out, limit=2) == first


def test_networks_at_their_own_rate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv1d(1, 4, 9, stride=2), nn.ReLU(), nn.MaxPool1d(4))
    data = open_dataset("soundscapes", size=4, duration=0.5, sample_rate=16000)
    make(network, data, tmp_path / "out")
    manifest = received(tmp_path / "out", "manifest")
    assert manifest["rate"] == 16000
    assert [one["lab"] for one in manifest["networks"]] == [None, None]
    found, rate = decoded(received(tmp_path / "out", "tiny/01-0000")[0])
    assert (len(found), rate) == (4800, 16000)


def test_the_command(network: CNN12, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, sounds, out = tmp_path / "own.safetensors", tmp_path / "sounds", tmp_path / "out"
    save_checkpoint(checkpoint, network, {"name": "own"})
    generator = np.random.default_rng(0)
    for n in range(3):
        write_wav(sounds / f"a/{n}.wav", generator.uniform(-0.5, 0.5, 4000).astype("f4"))
    (sounds / "a/broken.wav").write_bytes(b"RIFF")
    options = ["-d", "folder", "--data-root", str(sounds), "--out", str(out), "--processes", "1"]
    options += ["--seconds", "0.1", "--loudest", "0.3"]
    assert main(["atlas", str(checkpoint), *options]) == 0
    said = capsys.readouterr()
    assert "3 of 4 clips; skipped: 1 unreadable" in said.out
    data = received(out, "manifest")["data"]
    assert (data["skipped"], data["split"]) == ({"unreadable": 1}, "all, the loudest 0.3 s")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    refused = [*options[:4], "--out", str(taken), *options[6:]]
    assert main(["atlas", str(checkpoint), *refused]) == 2
    assert "is not an atlas" in capsys.readouterr().err
    assert (taken / "thesis.txt").read_text() == "mine"
    assert main(["atlas", "nowhere", *options]) == 2
    assert "nowhere" in capsys.readouterr().err
