"""``sonibook analyse``: what the commands write and say, and how they refuse."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from sonibook.analysis.activations import ActivationsResult, TopClipsResult, top_activations
from sonibook.analysis.evolution import EvolutionResult
from sonibook.analysis.result import ResultTable
from sonibook.analysis.separation import SeparationResult
from sonibook.cli import analyse, compare
from sonibook.cli.analysis import open_networks
from sonibook.datasets import Soundscapes, open_dataset
from sonibook.model.checkpoint import load_encoder, save_checkpoint
from sonibook.model.encoder import CNN12

SOURCE = Path(__file__).parents[2] / "src"
#: Five short scenes, an untrained network of four channels, one process.
SCENES = ("-d", "soundscapes", "-o", "size=5", "-o", "duration=0.6", "--processes", "1")
TINY = ("random", "--width", "0.0625")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints of a run."""
    folder = tmp_path_factory.mktemp("kept")
    paths = []
    for epoch in (0, 10):
        paths.append(folder / f"epoch-{epoch:04d}.safetensors")
        save_checkpoint(paths[-1], CNN12(width=1 / 16, seed=epoch), {"epoch": epoch})
    return paths


@pytest.mark.parametrize("command", ["activations", "coherence", "evolution", "selectivity"])
def test_every_command_explains_itself_by_examples(run, command):
    code, told, _ = run("analyse", command, "--help")
    assert code == 0
    assert f"sonibook analyse {command} " in told


@pytest.mark.parametrize(
    ("command", "kind", "said"),
    [
        ("activations", ActivationsResult, "dead filters"),
        ("coherence", ResultTable, "white noise"),
        ("top-clips", TopClipsResult, "chance"),
        ("selectivity", ResultTable, "the clips themselves"),
        ("separation --filters 1", SeparationResult, "scenes of several sources"),
        ("ways --layers 1,3", ResultTable, "gain in share"),
        ("stimulation", ResultTable, "random phase"),
        ("shifts --shift 2 --shift 16", ResultTable, "16"),
    ],
)
def test_it_writes_a_result_and_its_figure_and_cleans_up(run, tmp_path, command, kind, said):
    out, figure = tmp_path / "result.json", tmp_path / "figure.png"
    code, told, err = run(
        "analyse", *command.split(), *TINY, *SCENES, "--limit", 3, "--out", out, "--figure", figure
    )
    assert (code, err) == (0, "")
    assert said in told
    assert "soundscapes (test), 3 of 5 clips" in told
    result = kind.read(out)
    assert next(iter(result.networks)) == "random"
    assert result.data.clips == 3
    with Image.open(figure) as image:
        assert "over 3 clips" in image.text["Description"]
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "figure.png"}


def test_evolution_of_kept_checkpoints_with_sounds(run, tmp_path, kept):
    code, told, _ = run(
        "analyse", "evolution", *reversed(kept), *SCENES, "--filter", "8:5", "--filter", "2:0",
        "--sounds", tmp_path / "heard", "--out", tmp_path / "e.json",
        "--figure", tmp_path / "e.svg",
    )  # fmt: skip
    assert code == 0
    assert "correlation" in told
    rows = EvolutionResult.read(tmp_path / "e.json").filters
    assert [(row.layer, row.filter) for row in rows] == [(2, 0), (8, 5)]
    assert [step.epoch for step in rows[0].steps] == [0, 10]
    names = ["epoch-0000.wav", "epoch-0010.wav", "input.wav"]
    for row in rows:
        folder = tmp_path / "heard" / f"layer{row.layer:02d}-filter{row.filter:04d}"
        assert sorted(path.name for path in folder.iterdir()) == names
        assert soundfile.info(folder / "epoch-0010.wav").frames == 4800
    assert "filters' sonifications at 2 checkpoints" in (tmp_path / "e.svg").read_text()


def test_interrupted_it_goes_on_when_run_again(run, tmp_path, monkeypatch):
    out = tmp_path / "result.json"
    arguments = (
        "analyse", "activations", *TINY, "-d", "soundscapes", "-o", "size=20",
        "-o", "duration=0.6", "--processes", "1", "--out", out,
    )  # fmt: skip
    read = Soundscapes.__getitem__
    asked: list[int] = []

    def broken(self: Soundscapes, index: int) -> Any:
        asked.append(index)
        if index == 17:
            raise KeyboardInterrupt
        return read(self, index)

    monkeypatch.setattr(Soundscapes, "__getitem__", broken)
    code, _, err = run(*arguments)
    assert code == 130
    assert "What was measured is kept: run the same again to go on." in err
    assert not out.exists()
    monkeypatch.setattr(
        Soundscapes, "__getitem__", lambda self, index: asked.append(index) or read(self, index)
    )
    asked.clear()
    assert run(*arguments)[0] == 0
    # The ends are read to know the data set by; of the clips only those that were missing.
    assert asked == [0, 19, 16, 17, 18, 19]
    data = open_dataset("soundscapes", split="test", size=20, duration=0.6)
    networks = {"random": CNN12(width=1 / 16, seed=0).eval()}
    assert ActivationsResult.read(out) == top_activations(networks, data)
    assert list(tmp_path.iterdir()) == [out]


def test_ctrl_c_leaves_what_was_measured_and_no_process(tmp_path):
    arguments = ["analyse", "activations", "random", "--width", "0.03", "-d", "soundscapes"]
    # Far more clips than can be measured before the interrupt comes, on however busy a machine.
    settings = ["-o", "size=20000", "-o", "duration=1.0", "--processes", "2"]
    out = tmp_path / "result.json"
    started = subprocess.Popen(
        [sys.executable, "-m", "sonibook", *arguments, *settings, "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while started.poll() is None and not list(tmp_path.rglob("0*.npz")):
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGINT)
    # Its error output ends when the last of its processes has closed it.
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert err.splitlines()[-2:] == [
        "What was measured is kept: run the same again to go on.",
        "Interrupted.",
    ]
    assert "Traceback" not in err
    assert not out.exists()
    assert 1 <= len(list(tmp_path.rglob("0*.npz"))) < 20000 / 16


def test_networks_by_name_file_and_seed(kept):
    found = open_networks([str(kept[0]), "random", "random:7"], width=1 / 16, seed=3)
    assert [network.name for network in found] == ["epoch-0000", "random", "random:7"]
    assert [network.regime for network in found] == ["epoch-0000", "random", "random"]
    for network, seed in zip(found[1:], (3, 7), strict=True):
        expected = CNN12(width=1 / 16, seed=seed).features.conv1.weight
        assert (network.module.features.conv1.weight == expected).all()
        assert network.seed == seed
    expected = load_encoder(kept[0]).features.conv1.weight
    assert (found[0].module.features.conv1.weight == expected).all()
    assert not any(network.module.training for network in found)


def test_files_of_one_name_are_called_by_their_paths(kept, tmp_path):
    other = tmp_path / kept[0].name
    other.write_bytes(kept[0].read_bytes())
    found = open_networks([str(kept[0]), str(other)], width=1.0, seed=0)
    assert [network.name for network in found] == [str(kept[0]), str(other)]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("coherence", *TINY, "--figure", "figure.gif"), "ends in .png, .svg, .pdf"),
        (("coherence", "random:x"), "'x' is not a seed"),
        (("coherence", "random", "random"), "random is named twice"),
        (("coherence", "missing"), "no such file"),
        (("coherence", *TINY, "-k", "500"), "k 500 is impossible"),
        (("coherence", *TINY, "--folds", "1", "--split", "all"), "either --folds or --split"),
        (("activations", *TINY, "--split", "some"), "no split"),
        (("evolution", "supervised", "supervised"), "names no epoch"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(run, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("analyse", *arguments, *SCENES)
    assert code == 2
    assert reason in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "regime", "seed"),
    [
        ("contrastive", "contrastive", 31),
        ("supervised-esc40-32", "supervised", 32),
        ("supervised", "supervised, esc50", 0),
        ("contrastive-paper", "contrastive, the paper's recipe", 31),
        ("contrastive-plain", "contrastive, not normalised", 10),
    ],
)
def test_what_a_network_is_is_said_by_its_card(name, regime, seed):
    (found,) = open_networks([name], width=1.0, seed=9)
    assert (found.name, found.regime, found.seed) == (name, regime, seed)


@pytest.mark.parametrize(
    ("command", "home"),
    [
        ("activations", "activations:top_activations"),
        ("coherence", "coherence:coherence_by_layer"),
        ("selectivity", "coherence:selectivity_by_layer"),
        ("evolution", "evolution:feature_evolution"),
        ("ablation", "ablation:ablate"),
    ],
)
def test_defaults_are_those_of_the_library(command, home):
    module, name = home.split(":")
    function = getattr(import_module(f"sonibook.analysis.{module}"), name)
    own = inspect.signature(function).parameters
    asked = inspect.signature(
        getattr(compare if command == "evolution" else analyse, f"_{command}")
    ).parameters
    shared = [option for option in asked if option in own]
    assert all(asked[option].default == own[option].default for option in shared), shared
    assert shared


def test_filters_and_epochs_that_are_none_are_refused(run, kept):
    code, _, err = run("analyse", "evolution", *kept, *SCENES, "--filter", "8")
    assert code == 2
    assert "'8' is not LAYER:FILTER such as 8:17" in err
    code, _, err = run("analyse", "evolution", kept[0], kept[0], *SCENES)
    assert code == 2
    assert "another checkpoint of epoch 0" in err


def test_real_recordings(run, tmp_path, data_root):
    out = tmp_path / "c.json"
    code, _, _ = run(
        "analyse", "coherence", *TINY, "-d", "esc10", "--folds", "5", "--data-root", data_root,
        "--limit", 4, "--processes", 1, "--out", out,
    )  # fmt: skip
    assert code == 0
    content = json.loads(out.read_text())
    assert content["data"]["clips"] == 4
    trained, untrained = (
        row["mean"] for row in content["rows"] if (row["layer"], row["condition"]) == (1, "")
    )
    assert 0.5 < min(trained, untrained) <= 1.0
    (noise,) = (row["mean"] for row in content["rows"] if row["condition"] == "white noise")
    assert noise < 0.1


OWN = """
from torch import nn

def make():
    network = nn.Sequential(
        nn.Conv1d(1, 4, 9, stride=2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 6, 5), nn.ReLU()
    )
    network.sample_rate = 16_000
    return network

def broken():
    raise RuntimeError("no weights here")

def number():
    return 3
"""


def test_a_network_of_ones_own_code_at_its_own_rate(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_network.py").write_text(OWN)
    tone = np.sin(2 * np.pi * 700 * np.arange(16_000) / 16_000) / 2
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", tone * (1 - number / 2), 16_000)
    made = "own_network:make"
    code, _, err = run("sonify", folder / "0.wav", "-l", 2, "-k", 2, "-c", made, "--out", "s")
    assert code == 0, err
    info = soundfile.info(tmp_path / "s" / "0" / "input.wav")
    assert (info.samplerate, info.frames) == (16_000, 16_000)
    code, _, err = run("analyse", "coherence", made, "-d", "folder", "--data-root", folder,
                          "--split", "all", "--processes", 1, "--out", "c.json")  # fmt: skip
    assert code == 0, err
    rows = ResultTable.read(tmp_path / "c.json").select(network=made, condition="")
    assert [row.layer for row in rows] == [1, 2]
    assert (rows[0].clips, rows[0].regime) == (2, made)
    for wrong, reason in (
        ("own_network:broken", "own_network:broken: RuntimeError: no weights here"),
        ("own_network:number", "makes a int, not a torch.nn.Module"),
        ("no_such_module:make", "No module named 'no_such_module'"),
    ):
        code, _, err = run("sonify", folder / "0.wav", "-l", 1, "-f", 0, "-c", wrong, "--out", "w")
        assert code == 2
        assert reason in err
        assert "Traceback" not in err
    code, _, err = run("analyse", "coherence", made, "random", *SCENES)
    assert code == 2
    assert "analyse them one by one" in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize("content", ["precious", '{"precious": 1}', "[1]"])
def test_only_a_result_is_replaced(run, tmp_path, content) -> None:
    out = tmp_path / "mine.json"
    out.write_text(content)
    for command in (
        ("analyse", "coherence", *TINY, *SCENES),
        ("evaluate", "supervised", "-d", "soundscapes"),
    ):
        code, printed, refusal = run(*command, "--out", out)
        assert (code, printed) == (2, "")
        assert refusal == (
            f"Error: {out}: is there already and is not a result: choose another name.\n"
        )
        assert out.read_text() == content
    out.write_text("")  # what mktemp makes
    for _ in range(2):
        assert run("analyse", "coherence", *TINY, *SCENES, "--out", out)[0] == 0
        assert "provenance" in json.loads(out.read_text())
