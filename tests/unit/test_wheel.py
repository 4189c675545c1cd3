"""What an installed wheel is like: light, and enough for the README's tour outside a checkout."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a new environment with the wheel, and nothing of the checkout beside it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    (new,) = {folder / "Scripts", folder / "bin"} & {*folder.iterdir()}
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    # Dependencies are not downloaded again: it has those of this environment.
    known = f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n"
    Path(paths["purelib"], "known.pth").write_text(known, encoding="utf-8")
    install = [sys.executable, "-m", "pip", "--python", str(new / "python"), "install", "--quiet"]
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--ignore-installed"]
    subprocess.run([*install, *options, str(wheel)], check=True, capture_output=True)
    return new


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    hidden = {"SONIBOOK_DATA", "PYTHONPATH"}
    clean = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        command, env=clean | environment, cwd=cwd, capture_output=True, text=True, check=False
    )


def sonibook(
    installed: Path, *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return run(installed / "sonibook", *arguments, cwd=cwd, **environment)


def tour(language: str) -> list[str]:
    """What stands in the README's tour in blocks of a language, with less data."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## A tour.*?(?=^## )", readme, flags=re.MULTILINE | re.DOTALL)
    assert section is not None
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^\1```", section[0], re.MULTILINE | re.DOTALL)
    return [
        textwrap.dedent(block).replace("--limit 40", "--limit 2").replace("size=20", "size=6")
        for _, block in blocks
    ]


def test_the_wheel_is_light_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for part, home in (("src/sonibook", "sonibook"), ("configs", "sonibook/configs")):
        for path in (ROOT / part).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{home}/{path.relative_to(ROOT / part).as_posix()}" in names
    networks = {name for name in names if name.endswith(".safetensors")}
    assert {Path(name).stem for name in networks} == {
        "supervised",
        "supervised-esc40",
        "contrastive",
        "spectrogram-esc40",
    }


def test_the_readmes_tour_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(0, 0.1, 8000).clip(-1, 1)
    for name in ("clip.wav", "clip.ogg"):
        soundfile.write(tmp_path / name, x, 8000)
    lines = "".join(tour("bash")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("sonibook ")]
    assert [command[0] for command in commands] == ["sonify", "analyse"]
    for command in commands:
        done = sonibook(installed, *command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "sonified").rglob("*.wav"))) >= 3
    examples = tour("python")
    assert len(examples) == 2
    where = "import sonibook\nassert 'site-packages' in sonibook.__file__, sonibook.__file__\n"
    done = run(installed / "python", "-c", where + "".join(examples), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {path.name for path in tmp_path.glob("*.*")}
    made = {"activations.json", "ablation.json", "coherence.json", "coherence.png", "sanity.json"}
    assert written == {"clip.wav", "clip.ogg"} | made


def test_the_wheel_trains_by_the_configurations_it_carries(installed: Path, tmp_path: Path) -> None:
    command = ("train", "configs/supervised-esc40.yaml", "--dry-run")
    done = sonibook(installed, *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "esc40 lies in files" in done.stdout + done.stderr  # what is missing is the recordings


def test_a_network_of_the_repository_is_had_by_its_folder(installed: Path, tmp_path: Path) -> None:
    done = sonibook(installed, "info", "contrastive-32", cwd=tmp_path)
    assert done.returncode == 2
    assert "SONIBOOK_NETWORKS" in done.stderr
    folder = str(ROOT / "data" / "checkpoints")
    done = sonibook(installed, "info", "contrastive-32", cwd=tmp_path, SONIBOOK_NETWORKS=folder)
    assert done.returncode == 0, done.stderr
