"""sonibook runs wherever it is put: without extras, home, or leave to write where it lies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
import soundfile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = ("lab", "book", "explain", "tensorboard", "trackio", "wandb", "tpu", "xla")
#: From here on, Python finds none of the packages that are named.
HIDE = """
import sys
from importlib.machinery import PathFinder

hidden, find = set({hidden!r}), PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None:
        None if name.partition(".")[0] in hidden else find(name, path, target)
)
"""


def optional_modules() -> list[str]:
    """What Python calls the packages that the extras bring and the library does without."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def named(lines: list[str]) -> set[str]:
        return {canonicalize_name(Requirement(line).name) for line in lines}

    extras = set().union(*(named(project["optional-dependencies"][name]) for name in EXTRAS))
    optional = extras - named(project["dependencies"]) - {"sonibook"}
    found = {name.replace("-", "_") for name in optional} | {"IPython"}
    for module, homes in packages_distributions().items():
        if optional & {canonicalize_name(home) for home in homes}:
            found.add(module)
    return sorted(found)


def run(
    *arguments: str, env: dict[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run this Python, away from the tests' folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"} if env is None else env,
        check=False,
        capture_output=True,
        text=True,
        **options,
    )


def clip(folder: Path, name: str = "clip.wav") -> Path:
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 6000)
    soundfile.write(folder / name, x, 8000)
    return folder / name


SONIFY = ("-m", "sonibook", "sonify", "--layer", "3", "--top", "1")


def assert_sonified(done: subprocess.CompletedProcess[str], out: Path) -> None:
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert {path.suffix for path in out.rglob("*.*")} >= {".wav", ".png", ".csv"}


def test_without_any_extra_the_library_works_and_says_what_it_lacks(tmp_path: Path) -> None:
    hidden = optional_modules()
    assert {"ipywidgets", "captum", "tensorboard", "papermill", "torch_xla"} <= set(hidden)
    script = HIDE.format(hidden=hidden) + textwrap.dedent(
        """
        import pkgutil
        from importlib import import_module

        import torch

        import sonibook
        from sonibook.cli import main

        for module in pkgutil.walk_packages(sonibook.__path__, "sonibook."):
            if module.name.endswith("__main__"):
                continue
            try:
                import_module(module.name)
            except ImportError as error:
                assert module.name.startswith("sonibook.widgets."), module.name
                assert "pip install 'sonibook[lab]'" in str(error), module.name
        assert main(["sonify", "clip.wav", "--layer", "3", "--top", "1", "--out", "out"]) == 0

        def refused(act):
            try:
                act()
            except Exception as error:
                print(f"{type(error).__name__}: {error}")
            else:
                raise SystemExit("was not refused")

        from sonibook.deconvnet.alternatives import explain
        from sonibook.training.folder import check_loggers
        from sonibook.training.distributed import Xla

        x = torch.linspace(-1, 1, 6000)
        encoder = sonibook.load_encoder("supervised")
        refused(lambda: import_module("sonibook.show").Explorer)
        refused(lambda: import_module("sonibook.widgets.view"))
        refused(lambda: explain("integrated gradients", encoder, x, layer=3, filter=0))
        for name in ("tensorboard", "wandb", "trackio"):
            refused(lambda: check_loggers([name]))
        refused(Xla)
        assert not [name for name in sys.modules if name.partition(".")[0] in hidden]
        """
    )
    clip(tmp_path)
    done = run("-c", script, cwd=tmp_path)
    assert_sonified(done, tmp_path / "out")
    sentences = [line for line in done.stdout.splitlines() if re.match(r"\w+Error: ", line)]
    assert len(sentences) == 7, done.stdout
    extras = ("lab", "lab", "explain", "tensorboard", "wandb", "trackio", "xla")
    for sentence, extra in zip(sentences, extras, strict=True):
        assert f"sonibook[{extra}]" in sentence


def test_it_runs_from_a_path_with_spaces_and_other_letters(tmp_path: Path) -> None:
    home = tmp_path / "Öğrenci dosyaları" / "音 ♪"
    shutil.copytree(ROOT / "src", home / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "data" / "checkpoints").mkdir(parents=True)
    shutil.copy(ROOT / "data" / "checkpoints" / "supervised.safetensors", home / "data/checkpoints")
    sound = clip(home, "köpek havlıyor.wav")
    env = {**os.environ, "PYTHONPATH": str(home / "src"), "OMP_NUM_THREADS": "1"}
    where = run("-c", "import sonibook; print(ascii(sonibook.__file__))", env=env, cwd=home)
    assert where.stdout.strip() == ascii(str(home / "src" / "sonibook" / "__init__.py"))
    out = home / "çıktı 1"
    assert_sonified(run(*SONIFY, str(sound), "--out", str(out), env=env, cwd=home), out)


def test_it_runs_without_a_home_from_where_nothing_can_be_written(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (Linux), to mount the project read-only")
    sound, out = clip(tmp_path), tmp_path / "out"
    script = textwrap.dedent(
        """
        set -e
        mount --bind "$1" "$1"
        mount -o remount,bind,ro "$1"
        cd "$2"
        ! touch "$1/src/sonibook/written" 2> touched || exit 90
        shift 2
        exec "$@"
        """
    )
    # Only root may mount; who is not becomes root in a namespace of their own.
    alone = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    # No home, nor a folder for any library's cache or configuration; none can be made there.
    for home in ({}, {"HOME": "/proc/none"}):
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), **home}
        command = [sys.executable, *SONIFY, str(sound), "--out", str(out)]
        done = subprocess.run(
            [*alone, "sh", "-c", script, "sh", str(ROOT), str(tmp_path), *command],
            env={**env, "OMP_NUM_THREADS": "1"},
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode == 1 and "unshare" in done.stderr:
            pytest.skip(f"may not mount here: {done.stderr.strip()}")
        assert "Read-only file system" in (tmp_path / "touched").read_text()
        assert_sonified(done, out)
        shutil.rmtree(out)
