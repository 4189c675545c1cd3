"""XLA trains as a CPU does: on one device, and on two virtual ones that share each batch.

``make test-xla`` runs this in an environment that has torch-xla. The reference is the same
training by plain PyTorch, in that environment.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from steps import ALONE, disagreement, environment, record, run, settings
from torch import Tensor

from sonibook.model.checkpoint import canonical, load_encoder
from sonibook.model.encoder import CNN12

# Not imported: that would set PJRT_DEVICE for every process that is started from here.
if find_spec("torch_xla") is None:
    pytest.skip("needs torch-xla: run make test-xla", allow_module_level=True)

#: Compile quickly; what is compiled is tiny.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
TOLERANCE = 1e-4


def xla(devices: int) -> dict[str, str]:
    return {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(devices), "XLA_FLAGS": QUICK}


# --- losses and gradients ------------------------------------------------------------------------

BRIEF = {"epochs": 1, "batch_size": 32, "precision": "float32"}
RUNS = [
    {"config": settings(), "double": True},
    {"config": settings(name="float32", optimiser=BRIEF)},
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return record(tmp_path_factory.mktemp("reference"), ALONE, {"runs": RUNS})


@pytest.mark.parametrize("devices", [1, 2])
def test_xla_takes_the_steps_that_a_cpu_takes(reference, tmp_path, devices):
    found = record(tmp_path, ALONE, {"runs": RUNS}, **xla(devices))
    assert len({float(reference[f"nt_xent-weight/{step}/loss"]) for step in range(5)}) == 5
    assert disagreement(reference, found, "nt_xent-weight") < TOLERANCE
    # In float32 the loss agrees, too; rounding flips a switch or two of the pools, and each flip
    # is a small jump of some gradients (3e-3 here).
    key = "float32/0/loss"
    torch.testing.assert_close(found[key], reference[key], rtol=TOLERANCE, atol=0)
    assert disagreement(reference, found, "float32") < 0.02


SHARDED = """
import torch, torch_xla
from sonibook.training.distributed import find_runtime
runtime = find_runtime(precision="bfloat16")
x = runtime.put(torch.arange(48.0).reshape(4, 1, 12))
print(torch_xla._XLAC._get_xla_sharding_spec(x))
with runtime.autocast():
    print((x[:, 0] @ x[:, 0].T).dtype)
print(float(x.sum()), float(runtime.put(torch.ones(3, 2)).sum()))
"""


def test_rows_are_divided_among_devices_and_products_are_as_precise_as_asked():
    printed = script(SHARDED, environment(**xla(2)))
    assert printed.splitlines() == ["{devices=[2,1,1]0,1}", "torch.bfloat16", "1128.0 6.0"]


def script(code: str, env: dict[str, str], python: str = sys.executable) -> str:
    done = subprocess.run(
        [python, "-c", code], env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- runs ----------------------------------------------------------------------------------------


def long_run() -> dict[str, Any]:
    """Eight steps in two epochs."""
    config = settings(name="long")
    config["data"]["train"]["size"] = 128
    config["optimiser"] |= {"epochs": 2, "warmup_epochs": 1}
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a run on two devices that nobody disturbed, and of one that was killed."""
    plan = {"runs": [{"config": long_run()}], "save_every": 3}
    straight, killed = (tmp_path_factory.mktemp(name) for name in ("straight", "killed"))
    assert run(straight, ALONE, plan, **xla(2)).returncode == 0
    assert run(killed, ALONE, {**plan, "die_at": {"0": 7}}, **xla(2)).returncode == -9
    out = killed / "runs" / "long"
    with safe_open(out / "state.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["position"])["step"] == 6
    assert not (out / "encoder.safetensors").exists()
    done = run(killed, ALONE, plan, **xla(2))
    assert done.returncode == 0, done.stderr
    return straight / "runs" / "long", out


def test_a_killed_run_goes_on_to_the_same_weights(runs):
    straight, killed = (load_file(out / "state.safetensors") for out in runs)
    assert straight.keys() == killed.keys()
    for name, tensor in straight.items():
        torch.testing.assert_close(killed[name], tensor, rtol=1e-5, atol=1e-6)


EMBED = """
import sys, torch
from sonibook.model.checkpoint import load_encoder
from sonibook.training.distributed import find_runtime
from safetensors.torch import save_file
runtime = find_runtime()
encoder = runtime.place(load_encoder(sys.argv[1])).eval()
x = torch.randn(4, 1, 4000, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    save_file({"h": encoder(runtime.put(x)).cpu()}, sys.argv[2])
"""


def test_what_xla_publishes_is_the_same_network_elsewhere(runs, tmp_path):
    path = runs[0] / "encoder.safetensors"
    state = load_file(runs[0] / "state.safetensors")
    trained = CNN12(width=1 / 16, norm="weight")
    prefix = "model/encoder."
    trained.load_state_dict(
        {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    )
    published = load_encoder(path).state_dict()
    for name, tensor in canonical(trained).state_dict().items():
        # Folding on another device may round a weight to the next half-precision number.
        torch.testing.assert_close(published[name], tensor, rtol=2e-3, atol=1e-6)
    # The ordinary environment has another PyTorch.
    ordinary = os.environ.get("ORDINARY_PYTHON", sys.executable)
    found = []
    for python, more in ((ordinary, {}), (sys.executable, xla(2))):
        out = tmp_path / f"{len(found)}.safetensors"
        code = f"import sys; sys.argv[1:] = {[str(path), str(out)]}\n{EMBED}"
        script(code, environment(**more), python)
        found.append(load_file(out)["h"])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert float(found[0].std()) > 1e-3
    measured = json.loads((runs[0] / "metrics.json").read_text())["test"]
    assert measured.keys() == {"loss", "retrieval"}
