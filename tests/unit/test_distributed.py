"""Two processes train as one does: the same losses, gradients, and weights after a kill."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import warnings
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from steps import TORCHRUN, disagreement, environment, run_forked, settings
from torch import Tensor

from sonibook.cli import main
from sonibook.datasets import open_dataset
from sonibook.errors import ConfigError, SonibookWarning
from sonibook.model.checkpoint import load_encoder, read_card
from sonibook.model.encoder import DROPOUT
from sonibook.training import distributed
from sonibook.training.config import AugmentConfig
from sonibook.training.data import DROPPING, CropBatches
from sonibook.training.distributed import find_runtime
from sonibook.training.sampling import PARTNERS, RandomStreams

# --- the division of a batch ---------------------------------------------------------------------


def batches(views: int, processes: int, rank: int, size: int = 64) -> CropBatches:
    mixup = {"mixup_alpha": 0.4} if views == 1 else {}
    return CropBatches(
        open_dataset("soundscapes", split="train", size=size, duration=0.6),
        seed=5,
        batch_size=64,
        crop_seconds=0.2,
        augment=AugmentConfig(mix_back_min_snr_db=0.0, **mixup),
        views=views,
        rank=rank,
        processes=processes,
    )


@pytest.mark.parametrize("views", [1, 2])
def test_crops_and_augmentations_are_the_same_however_a_batch_is_divided(views):
    (whole,) = batches(views, 1, 0).epoch(3)
    assert whole.x.std() > 0.01
    for processes in (2, 4):
        x, targets = torch.full_like(whole.x, torch.nan), []
        for rank in range(processes):
            (part,) = batches(views, processes, rank).epoch(3)
            x[torch.from_numpy(part.rows)] = part.x
            targets.append(part.targets)
        # Equal up to how a row's sums and powers are rounded, which hangs on the rows beside it.
        torch.testing.assert_close(x, whole.x, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(torch.cat(targets), whole.targets)


def test_dropout_keeps_the_same_channels_however_a_batch_is_divided():
    whole = RandomStreams(5, 7, range(64), purpose=DROPPING).kept(1 - DROPOUT, 200)
    assert float(whole.mean()) == pytest.approx(1 - DROPOUT, abs=0.02)
    for cuts in ([32], [16, 32, 48], [1, 63]):
        parts = [rows.tolist() for rows in np.split(np.arange(64), cuts)]
        kept = [
            RandomStreams(5, 7, rows, purpose=DROPPING).kept(1 - DROPOUT, 200) for rows in parts
        ]
        assert torch.equal(torch.cat(kept), whole)


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ConfigError, match=rf"64 clips .* 3 processes: choose a multiple of {48}"):
        batches(1, 3, 0)
    assert PARTNERS == 16


# --- losses and gradients ------------------------------------------------------------------------

TOLERANCE = 1e-4
COMPARED = [
    ("nt_xent", "none"),
    ("nt_xent", "weight"),
    ("nt_xent", "batch"),
    ("cross_entropy", "batch"),
    ("binary_cross_entropy", "weight"),
]
#: Gathers that let no gradient through: to any row, or to those of other processes.
CUT = ["plain", "plain-but-own"]


@pytest.fixture(scope="module")
def recorded(
    quick_context: BaseContext, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Tensor], ...]:
    """Five steps of each objective, by one process and by two."""
    double = [{"config": settings(*kind), "double": True} for kind in COMPARED]
    single = {"config": settings(name="float32")}
    brief = {"epochs": 1, "batch_size": 32, "precision": "float32"}
    cut = [{"config": settings(name=name, optimiser=brief), "double": True} for name in CUT]
    gathered = [{**one, "gather": name} for one, name in zip(cut, CUT, strict=True)]
    steps = []
    for processes, gathers in ((1, cut), (2, gathered)):
        path = tmp_path_factory.mktemp("recorded") / "steps.safetensors"
        plan = {"runs": [*double, single, *gathers], "record": str(path)}
        code, said = run_forked(quick_context, path.parent, processes, plan)
        assert code == 0, said
        steps.append(load_file(path))
    return tuple(steps)


@pytest.mark.parametrize("kind", COMPARED, ids="-".join)
def test_two_processes_take_the_steps_that_one_takes(recorded, kind):
    alone, together = recorded
    name = "-".join(kind)
    losses = [float(alone[f"{name}/{step}/loss"]) for step in range(5)]
    assert len(set(losses)) == 5
    assert disagreement(alone, together, name) < TOLERANCE


def test_in_float32_losses_agree_and_gradients_as_long_as_no_switch_flips(recorded):
    alone, together = recorded
    for step in range(5):
        key = f"float32/{step}/loss"
        torch.testing.assert_close(together[key], alone[key], rtol=TOLERANCE, atol=0)
    assert disagreement(alone, together, "float32/0") < TOLERANCE


@pytest.mark.parametrize("name", CUT)
def test_a_gather_without_gradients_would_be_found_out(recorded, name):
    alone, together = recorded
    # The loss alone does not tell: every row is seen, but not every row is pushed.
    key = f"{name}/0/loss"
    torch.testing.assert_close(together[key], alone[key], rtol=TOLERANCE, atol=0)
    assert disagreement(alone, together, name) > 1000 * TOLERANCE


# --- kills ---------------------------------------------------------------------------------------

BATCHES, SAVE_EVERY = 4, 3


def long_run(**changes: Any) -> dict[str, Any]:
    """Twelve steps in three epochs."""
    config = settings(name="long", **changes)
    config["data"]["train"]["size"] = 32 * BATCHES
    config["optimiser"] |= {"epochs": 3, "warmup_epochs": 1}
    return {**config, "evaluate_every": 2, "keep_every": 2}


@pytest.fixture(scope="module")
def straight(quick_context: BaseContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two processes that nobody disturbed; each has one of its own."""
    folder = tmp_path_factory.mktemp("straight")
    plan = {"runs": [{"config": long_run()}], "out": str(folder / "{rank}")}
    code, said = run_forked(quick_context, folder, 2, {**plan, "save_every": SAVE_EVERY})
    assert code == 0, said
    return folder / "0" / "long"


def test_the_main_process_alone_writes(straight):
    assert not (straight.parents[1] / "1").exists()
    kept = {"epoch-0000.safetensors", "epoch-0002.safetensors", "epoch-0003.safetensors"}
    assert {path.name for path in (straight / "kept").iterdir()} == kept
    names = {path.name for path in straight.iterdir() if path.is_file()}
    assert names == {
        "config.yaml", "log.csv", "state.safetensors", "encoder.safetensors", "metrics.json",
    }  # fmt: skip
    with (straight / "log.csv").open(newline="") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3]
    metrics = json.loads((straight / "metrics.json").read_text())
    assert metrics["processes"] == 2
    assert metrics["test"] == read_card(straight / "encoder.safetensors")["test"]


def position(out: Path) -> dict[str, Any]:
    with safe_open(out / "state.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["position"])


def test_killed_processes_go_on_to_the_same_weights(straight, quick_context, tmp_path):
    random = np.random.default_rng(1)
    plan = {"runs": [{"config": long_run()}], "save_every": SAVE_EVERY}
    out = tmp_path / "runs" / "long"
    # The state is saved after steps 3, 4, 6, 8 and 9. Both processes die in step 7 or 8 ...
    first = int(random.integers(7, 9))
    dying = {**plan, "die_at": {"0": first, "1": first}}
    assert run_forked(quick_context, tmp_path, 2, dying)[0] != 0
    assert position(out)["step"] == 6
    # ... and, taken up after step 6, one alone in step 10 or 11: the other must not hang.
    second = int(random.integers(10, 12))
    dying = {**plan, "die_at": {"1": second - 6}}
    assert run_forked(quick_context, tmp_path, 2, dying)[0] != 0
    assert position(out)["step"] == 9
    assert not (out / "encoder.safetensors").exists()
    code, said = run_forked(quick_context, tmp_path, 2, plan)
    assert code == 0, said
    for name in ("state.safetensors", "encoder.safetensors", "kept/epoch-0002.safetensors"):
        expected, resumed = load_file(straight / name), load_file(out / name)
        assert expected.keys() == resumed.keys()
        for key, tensor in expected.items():
            assert torch.equal(tensor, resumed[key]), f"{name}: {key}"
    columns = ("epoch", "train_loss", "test_loss", "test_retrieval")
    logs = []
    for folder in (straight, out):
        with (folder / "log.csv").open(newline="") as file:
            logs.append([[row[column] for column in columns] for row in csv.DictReader(file)])
    assert logs[0] == logs[1]


# --- the command ---------------------------------------------------------------------------------


def command(folder: Path, config: dict[str, Any], *options: str) -> tuple[int, str, list[str]]:
    """``torchrun -m sonibook train``: its exit code, its words, and those of each process."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    logs = folder / "logs"
    done = subprocess.run(
        [*TORCHRUN, "--redirects", "3", "--log-dir", logs, "-m", "sonibook", "train",
         "config.yaml", "--out", "run", *options],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    printed = [
        "".join(path.read_text() for path in sorted(logs.glob(f"**/{rank}/std*.log")))
        for rank in range(2)
    ]
    return done.returncode, done.stderr, printed


def test_the_command_trains_seed_after_seed_and_one_process_speaks(tmp_path):
    code, said, (main, other) = command(tmp_path, settings(name="tiny"), "--seeds", "0,1")
    assert code == 0, said
    assert "5/5" in main
    assert re.search(r"^loss +\S+ +\S+ to \S+$", main, flags=re.MULTILINE)
    assert other == ""
    paths = [tmp_path / "run" / f"seed-{seed}" / "encoder.safetensors" for seed in (0, 1)]
    assert [load_encoder(path).width for path in paths] == [1 / 16, 1 / 16]
    first, second = (load_file(path)["features.conv5.weight"] for path in paths)
    assert not torch.equal(first, second)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["seeds"] == [0, 1]


def test_the_command_refuses_a_batch_that_cannot_be_divided(tmp_path):
    code, said, printed = command(tmp_path, settings(), "--set", "optimiser.batch_size=24")
    assert code != 0
    assert re.findall(r"exitcode *: (-?\d+)", said)[0] == "2"
    sentence = (
        "Error: optimiser.batch_size: 24 clips cannot be divided among 2 processes: choose a "
        "multiple of 32.\n"
    )
    assert sentence in printed
    assert set(printed) <= {sentence, ""}
    assert not (tmp_path / "run").exists()


def test_xla_is_asked_for_in_one_sentence_where_it_is_not_installed(tmp_path, monkeypatch, capfd):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings()))
    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    assert main(["train", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "sonibook[xla]" in said


# --- where a training runs -----------------------------------------------------------------------


def processor(monkeypatch: pytest.MonkeyPatch, **able: bool) -> None:
    """Make this look like a machine with one processor that is able to do so much, and no GPU."""
    known = {"architecture": "x86_64", "cpu_name": "Some CPU", "avx2": True, **able}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("PJRT_DEVICE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_bfloat16_without_instructions_for_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, avx512_bf16=False, amx_bf16=False)
    with pytest.warns(
        SonibookWarning, match=r"\(Some CPU\) has no instructions for bfloat16.*float32"
    ):
        runtime = find_runtime(precision="bfloat16")
    assert runtime.precision == "bfloat16"  # slow, but what was asked for


@pytest.mark.parametrize(
    ("precision", "able"),
    [("float32", {}), ("bfloat16", {"avx512_bf16": True}), ("bfloat16", {"amx_bf16": True}),
     ("bfloat16", {"bf16": True})],
)  # fmt: skip
def test_nothing_is_said_of_a_precision_that_suits(
    monkeypatch: pytest.MonkeyPatch, precision: str, able: dict[str, bool]
) -> None:
    processor(monkeypatch, **able)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_runtime(precision=precision).precision == precision


def test_a_tpu_is_asked_for_by_torch_tpu_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PJRT_DEVICE", "TPU")
    monkeypatch.setattr(distributed, "find_spec", {"torch_tpu": "found"}.get)
    with pytest.raises(ConfigError, match="torch-tpu finds none on this machine"):
        find_runtime()
    monkeypatch.setattr(distributed, "_TPU", "meta")  # a device that every machine has
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert find_runtime(precision="bfloat16").device.type == "meta"
        assert torch.get_float32_matmul_precision() == "medium"
        find_runtime()
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)
    monkeypatch.setattr(distributed, "find_spec", {}.get)
    with pytest.raises(ConfigError, match=r"sonibook\[tpu\]"):
        find_runtime()
