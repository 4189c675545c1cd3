"""Every chapter runs from start to end, also with other parameters than its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import NoReturn

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))
RUNNER = ROOT / "tools" / "chapters.py"
Run = Callable[..., subprocess.CompletedProcess[str]]
#: Chapters that train on all of a data set, or fit many probes: ten of ESC-50's classes will do.
LEARNING = ("04_supervised", "05_contrastive", "09_layers", "19_listeners")
#: What chapters that have such parameters are run with: another layer, and less to learn.
OTHERS = {"layer": "8", "width": "0.03125", "epochs": "2", "size": "60", "clips": "6", "beside": ""}


class ForkedKernel:
    """A chapter's kernel, forked off before anything runs: it need not import PyTorch anew."""

    stdin = stdout = stderr = None

    def __init__(self) -> None:
        here, there = Pipe()
        self.told, self.code = there, None
        self.pid = os.fork()
        if self.pid == 0:
            there.close()
            self.serve(here)
        here.close()
        self.told.recv()

    @staticmethod
    def serve(told: Connection) -> NoReturn:
        """Become the kernel that is asked for, in a session of its own."""
        os.setsid()
        told.send("ready")
        try:
            command, folder, environment = told.recv()
            from ipykernel.kernelapp import launch_new_instance

            os.chdir(folder)
            os.environ.update(environment)
            launch_new_instance(argv=command[command.index("-f") :])
        except EOFError:
            pass  # no kernel was asked for
        finally:
            os._exit(0)

    def launch(self, command: list[str], *, env: dict[str, str], **_: object) -> ForkedKernel:
        """What Jupyter starts a kernel with, in the folder that is this process's by now."""
        self.told.send((command, str(Path.cwd()), env))
        return self

    def poll(self) -> int | None:
        if self.code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if ended else None
        return self.code

    wait = poll


def run_here(arguments: list[str], said: Path) -> None:
    """What the runner's process does, in this one; its words go to a file."""
    sys.path.insert(0, str(ROOT))
    if hasattr(os, "fork"):
        from jupyter_client.provisioning import local_provisioner

        local_provisioner.launch_kernel = ForkedKernel().launch
    from tools import chapters

    sys.stdout = sys.stderr = said.open("w", encoding="utf-8")
    sys.exit(chapters.main(arguments))


@pytest.fixture
def run(quick_context: BaseContext, tmp_path: Path) -> Run:
    """Runs a chapter as make does, in a process that need not import the runner first."""

    def call(chapter: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
        arguments, said = [str(chapter), str(target), *options], tmp_path / "said.txt"
        process = quick_context.Process(target=run_here, args=(arguments, said))
        process.start()
        process.join(900)
        process.kill()
        process.join()
        words = said.read_text("utf-8")
        return subprocess.CompletedProcess(arguments, process.exitcode, stderr=words)

    return call


def check_run(run: Run, chapter: Path, folder: Path, *options: str) -> nbformat.NotebookNode:
    """The executed chapter, if no cell failed and its metrics are there."""
    metrics = ("--metrics", str(folder / "metrics.json"))
    finished = run(chapter, folder / chapter.name, *metrics, "--profile", "smoke", *options)
    assert finished.returncode == 0, finished.stderr[-3000:]
    executed = nbformat.read(folder / chapter.name, as_version=4)
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in code)
    assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert isinstance(metrics, dict)
    assert metrics
    return executed


def has_parameter(chapter: Path, name: str) -> bool:
    cells = nbformat.read(chapter, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    return any(line.split("=")[0].split(":")[0].strip() == name
               for cell in tagged for line in cell.source.splitlines())  # fmt: skip


def others(chapter: Path) -> list[str]:
    """Options that no chapter has by itself, on real recordings where there are any."""
    root = os.environ.get("SONIBOOK_DATA", "")
    real = bool(root) and (Path(root) / "ESC-50").is_dir()
    name = "esc10" if chapter.stem in LEARNING else "esc50"
    options = ["--dataset", name, "--data-root", root] if real else ["--dataset", "soundscapes"]
    return [
        *(*options, "--seed", "3"),
        *(
            word
            for name, value in OTHERS.items()
            if has_parameter(chapter, name)
            for word in ("-p", name, value)
        ),
    ]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_runs_with_other_parameters_on_real_recordings(run, chapter, tmp_path) -> None:
    cells = check_run(run, chapter, tmp_path, *others(chapter)).cells
    injected = [c for c in cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert len(injected) == 1
    assert "seed = 3" in injected[0].source


def small_chapter(folder: Path, code: str, **parameters: object) -> Path:
    """A chapter of two cells, to see how the runner takes what can go wrong."""
    lines = [f"{name} = {value!r}" for name, value in (parameters or {"layer": 3}).items()]
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    notebook.cells = [
        nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    path = folder / "99_small.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_failing_cell_fails_the_run_which_keeps_the_last_good_result(
    run: Run, tmp_path: Path
) -> None:
    chapter = small_chapter(tmp_path, "print('well')")
    target = tmp_path / "out" / chapter.name
    assert run(chapter, target).returncode == 0
    good = target.read_bytes()
    small_chapter(tmp_path, "raise RuntimeError(f'layer {layer} broke')")
    finished = run(chapter, target, "-p", "layer", "7")
    assert finished.returncode == 1
    assert "layer 7 broke" in finished.stderr
    assert target.read_bytes() == good
    kept = nbformat.read(target.with_suffix(".failed"), as_version=4)
    assert any(out.output_type == "error" for cell in kept.cells for out in cell.get("outputs", []))


def test_an_unknown_parameter_stops_a_chapter_with_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, RUNNER, CHAPTERS[0], tmp_path / "out.ipynb", "-p", "layr", "8"]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.returncode == 1
    assert "layr: no such parameter; this chapter has seed, " in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        # As make gives them: empty ones leave the chapter's own.
        (("--dataset", "", "--seed", "", "--data-root", ""), "`make book DATA_ROOT=DATA` plays"),
        (("--recordings", "esc10"), "of ESC-10 [(Piczak, 2015)](#piczak2015esc), under CC BY"),
    ],
)
def test_a_chapter_about_real_sounds_takes_recordings_and_says_what_it_plays(
    run: Run, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    chapter = small_chapter(
        tmp_path, "print(dataset, layer)", layer=3, dataset="soundscapes", clip=9
    )
    chapter = chapter.rename(tmp_path / "01_why_listen.ipynb")
    assert run(chapter, tmp_path / "out.ipynb", *options).returncode == 0
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    played = "esc10" if "esc10" in options else "soundscapes"
    assert cells[-1].outputs[0].text == f"{played} 3\n"
    assert [told in cell.source for cell in cells].count(True) == 1


def test_recordings_go_to_chapters_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RUNNER.parent))
    from chapters import RECORDED, parameters_of, parse

    assert set(RECORDED) <= {path.stem for path in CHAPTERS}
    for path in CHAPTERS:
        given = parameters_of(parse([str(path), "out.ipynb", "--recordings", "esc10"]))
        assert ("dataset" in given) == (path.stem in RECORDED)
        assert all(has_parameter(path, name) for name in given)
        asked = [str(path), "out.ipynb", "--recordings", "esc10", "--dataset", "soundscapes"]
        assert parameters_of(parse(asked)) == {"dataset": "soundscapes"}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("table", ["ESC-50/meta/esc50.csv", "meta/esc50.csv", "ESC-50/esc50.csv"])
def test_make_takes_recordings_where_they_lie(tmp_path: Path, table: str) -> None:
    (tmp_path / table).parent.mkdir(parents=True)
    (tmp_path / table).touch()
    there = "esc10" if "meta" in table else ""

    def planned(*options: str) -> str:
        command = ["make", "--dry-run", "--always-make", "book", f"BUILD={tmp_path}/b", *options]
        environment = {**os.environ, "SONIBOOK_DATA": str(tmp_path)}
        finished = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment
        )
        return finished.stdout

    plan = planned()
    assert plan.count(f"--recordings '{there}'") == len(CHAPTERS)
    assert f"|{there}|{tmp_path}|" in plan, "chapters are made anew where recordings come or go"
    assert ("atlas supervised --dataset 'esc10'" in plan) == bool(there)
    assert (f"lab --data-root '{tmp_path}'" in plan) == bool(there)
    assert planned("DATASET=soundscapes").count("--recordings ''") == len(CHAPTERS)
