"""What the chapters share: numbers kept as cells run, clips, and commands beside the notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from sonibook import CNN12, chapter, open_dataset
from sonibook.errors import AudioError, DatasetError, ParameterError

CHAPTERS = sorted((Path(__file__).parents[2] / "book").glob("[0-9]*.ipynb"))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    yield shell
    torch.set_grad_enabled(True)  # some chapters turn gradients off


def test_numbers_are_written_after_each_cell(shell: Any, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    shell.user_ns["measured"] = measured = chapter.record(path, seed=3)
    assert measured == {"seed": 3}
    shell.run_cell("measured['loss'] = {'start': 2.5}", store_history=False)
    assert json.loads(path.read_text()) == {"seed": 3, "loss": {"start": 2.5}}
    shell.run_cell("measured['loss']['end'] = 1.5", store_history=False)
    assert json.loads(path.read_text())["loss"] == {"start": 2.5, "end": 1.5}


def cells_before_the_lesson(chapter_path: Path) -> tuple[str, str]:
    """A chapter's parameters, and the cell that checks them."""
    cells = json.loads(chapter_path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return code[0], code[1]


#: What a parameter cannot be, and what a chapter that has the parameter says to it.
NO_USE = {
    "profile = 'fast'": "profile 'fast': choose smoke or full.",
    "clip = 'minus'": "clip 'minus': give a whole number.",
    "layer = 8.5": "layer 8.5: give a whole number.",
    "layer = True": "layer True: give a whole number.",
    "width = 'wide'": "width 'wide': give a number.",
    "seed = -1": "seed -1: give a whole number, 0 or more.",
    "dataset = 50": "dataset 50: give text.",
    "data_root = 3": "data_root 3: give text or None.",
}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_parameters_of_no_use_stop_a_chapter_and_others_are_taken(shell: Any, path: Path) -> None:
    parameters, setup = cells_before_the_lesson(path)
    for given, sentence in {"layr = 8": "", **NO_USE}.items():
        name = given.split()[0]
        shell.run_cell(parameters, store_history=True)
        shell.run_cell(f"# Parameters\n{given}\n", store_history=True)
        problem = shell.run_cell(setup, store_history=True).error_in_exec
        assert isinstance(problem, ParameterError)
        has_none = f"\n{name} = " not in f"\n{parameters}"
        unknown = f"{name}: no such parameter; this chapter has seed, profile, "
        assert str(problem).startswith(unknown if has_none else sentence)
        assert problem._render_traceback_() == [str(problem)]
    use = {"profile": "full", "width": 1, "beside": None, "data_root": "here", "metrics": None}
    given = "\n".join(f"{name} = {use[name]!r}" for name in use if f"{name} =" in parameters)
    shell.run_cell("%pwd\n", store_history=True)
    shell.run_cell(parameters, store_history=True)
    shell.run_cell(f"# Parameters\n{given}\n", store_history=True)
    shell.run_cell(setup, store_history=True).raise_error()


def test_numbers_that_json_cannot_hold_leave_no_file(shell: Any, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    shell.user_ns["measured"] = chapter.record(path)
    shell.run_cell("measured['map'] = object()", store_history=False)
    assert not path.exists()


def test_without_a_file_or_a_notebook_numbers_are_only_kept(tmp_path: Path) -> None:
    assert chapter.record(None, clip=9) == {"clip": 9}
    assert chapter.record(tmp_path / "metrics.json", clip=9) == {"clip": 9}


@pytest.mark.parametrize("length", ["seconds", "duration"])
def test_only_soundscapes_take_their_options(length: str) -> None:
    asked = {"root": None, "split": "test", "seed": 3, length: 1.0}
    scenes = chapter.open_clips("soundscapes", **asked)
    same = open_dataset("soundscapes", split="test", seed=3, duration=1.0)
    assert np.array_equal(scenes[0].waveform, same[0].waveform)
    assert chapter.credits_of(scenes, [0, 1]) == ""
    with pytest.raises(DatasetError, match="esc50"):
        chapter.open_clips("esc50", **{**asked, "root": "nowhere"})


def test_of_recordings_the_loudest_seconds_are_taken_and_each_names_its_source(data_root) -> None:
    data = chapter.open_clips("esc10", root=data_root, split="test", seconds=1.5, size=9)
    whole = open_dataset("esc10", root=data_root, split="test")
    assert len(data) == len(whole) == 80
    for index in (0, 24, 79):
        x, clip = whole[index].waveform, data[index]
        energy = [float((x[n : n + 12_000] ** 2).sum()) for n in range(0, len(x) - 12_000, 50)]
        assert len(clip.waveform) == data.samples(index) == 12_000
        assert float((clip.waveform**2).sum()) >= max(energy) - 1e-3
        assert (clip.labels, clip.clip_id) == (whole.labels(index), whole.clip_id(index))
        number = clip.clip_id.split("-")[1]
        assert chapter.credits_of(data, [index, index + 80]) == f" (Freesound {number}, CC BY)"
    assert chapter.credits_of(data, [0, 24]).count("; ") == 1
    assert chapter.recordings("esc10", root=data_root) is not None


def test_two_seconds_are_loud_and_long_enough() -> None:
    data = open_dataset("soundscapes", seed=0, size=2, duration=3.0)
    encoder = CNN12(width=1 / 16)
    x = chapter.two_seconds(data, 3, encoder)
    assert len(x) == max(16_000, encoder.least_length)
    assert float(x.abs().max()) == pytest.approx(1.0)
    assert np.array_equal(x.numpy(), chapter.two_seconds(data, 1, encoder).numpy())


def test_logs_are_read_from_a_run_and_by_name(tmp_path: Path) -> None:
    assert chapter.recordings("esc10", root=tmp_path) is None
    folder, other = chapter.scratch(), chapter.scratch()
    assert folder != other
    (folder / "log.csv").write_text("epoch,train_loss\n1,2.5\n")
    assert chapter.read_log(folder) == [{"epoch": "1", "train_loss": "2.5"}]
    assert "test_accuracy" in chapter.read_log("supervised-training")[0]


def test_the_command_is_started_beside_the_notebook() -> None:
    told, _ = chapter.start("--version", output=True).communicate(timeout=60)
    assert "0.1.0" in told
    assert chapter.source(CNN12.fold).startswith("def fold")


def test_excerpts_are_padded_and_scaled() -> None:
    from sonibook.audio import excerpt, rms

    assert np.array_equal(excerpt([0.5, -0.25], least_length=4, unit_peak=True), [1, -0.5, 0, 0])
    with pytest.raises(AudioError, match="silent"):
        excerpt(np.zeros(4), unit_peak=True)
    assert rms([3.0, -4.0, 0.0]) == pytest.approx(np.sqrt(25 / 3))


def test_shares_compare_by_their_intervals() -> None:
    few, many, others = (
        chapter.share_of(*counts) for counts in ((11, 20), (550, 1000), (450, 1000))
    )
    assert chapter.versus(many, others) == "is clearly above"
    assert chapter.versus(others, many) == "is clearly below"
    assert chapter.versus(few, others) == chapter.versus(others, few)
    assert "cannot be told apart" in chapter.versus(few, others)
    assert chapter.shares_in_words({"one": many}) == "one: 55%, interval 52% to 58%"


def test_a_probe_tells_more_than_guessing_and_the_same_of_equal_encoders() -> None:
    encoder = CNN12(width=1 / 16, seed=0).eval()
    data = open_dataset("calls", size=48, seed=1)
    same = chapter.probe_shares({"one": encoder, "two": encoder}, data, data, seed=0)
    assert same["one"] == same["two"]
    value, low, high = same["one"]
    assert 0.25 < low < value < high <= 1
