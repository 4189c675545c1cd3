"""On a GPU the library computes what it computes on a CPU.

Without a GPU everything runs on a device that is made up (`elsewhere`): it finds what would be left
behind on the CPU, but cannot tell how a GPU rounds. ``make cuda`` runs this on a real one.
"""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsewhere import elsewhere
from networks import Generator
from safetensors.torch import load_file
from steps import environment, settings
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sonibook import CNN12, open_dataset
from sonibook.analysis.ablation import ablate
from sonibook.analysis.activations import top_clip_agreement
from sonibook.analysis.alternatives import compare_explanations, compare_unpoolings
from sonibook.analysis.coherence import coherence_by_layer, selectivity_by_layer
from sonibook.analysis.controls import stimulation
from sonibook.analysis.evolution import feature_evolution
from sonibook.analysis.sanity import sanity
from sonibook.analysis.separation import separation
from sonibook.analysis.shifts import shift_law
from sonibook.datasets.soundscapes import SceneDataset
from sonibook.deconvnet import ForwardPass, backward
from sonibook.errors import StackError
from sonibook.model.encoder import Classifier
from sonibook.training.config import TrainConfig
from sonibook.training.distributed import Runtime
from sonibook.training.experiment import Contrastive, Supervised
from sonibook.training.loop import train

REAL = torch.cuda.is_available()
pytestmark = pytest.mark.filterwarnings("ignore::sonibook.errors.SonibookWarning")


@contextmanager
def _full_float32() -> Iterator[None]:
    """No TF32; not by pytest's `MonkeyPatch`, which cannot give these attributes back."""
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


@contextmanager
def _gpu() -> Iterator[torch.device]:
    """The GPU, computing in full float32."""
    with _full_float32():
        yield torch.device("cuda")


@pytest.fixture
def device() -> Iterator[torch.device]:
    with _gpu() if REAL else elsewhere() as one:
        yield one


@pytest.fixture(scope="module", autouse=True)
def _scenes_made_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SceneDataset, "__getitem__", cache(SceneDataset.__getitem__))
        yield


def sounds(count: int = 3, samples: int = 9000) -> Tensor:
    return torch.randn(count, 1, samples, generator=torch.Generator().manual_seed(0))


def error(expected: Tensor, found: Tensor) -> float:
    return float((found.cpu() - expected).abs().max() / expected.abs().max())


@pytest.mark.skipif(REAL, reason="a GPU refuses by itself")
def test_what_lies_elsewhere_meets_nothing_of_the_cpu(device):
    x = torch.ones(2, 3)
    away = x.to(device)
    assert torch.equal((2 * away + away[:, [0]] - away.new_tensor([1.0])).cpu(), 2 * x)
    for forbidden in (
        lambda: away + x,
        lambda: torch.cat([away, x]),
        lambda: nn.functional.linear(x, away),
        lambda: x[away[0].long()],
    ):
        with pytest.raises(RuntimeError, match="lie on the CPU"):
            forbidden()
    for array in (away.numpy, lambda: np.asarray(away)):
        with pytest.raises((RuntimeError, TypeError)):
            array()


def test_the_benchmark_runs_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    monkeypatch.delenv("SONIBOOK_DATA", raising=False)
    bench_cuda = importlib.import_module("bench_cuda")
    out = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", ["bench_cuda.py", "--device", "cpu", "--out", str(out)])
    with _full_float32():
        bench_cuda.main()
    result = json.loads(out.read_text())
    (network,) = result["networks"].values()
    assert [row["layer"] for row in network["layers"]] == [1, 8, 11]
    assert max(row["median_error"] for row in network["layers"]) < 1e-6
    assert [row["filters"] for row in network["by_filters"]] == [1, 4, 16, 32]
    # The arithmetic that a rate is made of, by a count of its own.
    encoder, counted = CNN12(width=1 / 16, seed=0), []
    for module in encoder.modules():
        if isinstance(module, nn.Conv1d):
            module.register_forward_hook(
                lambda one, _, y: counted.append(2 * one.weight.numel() * y.shape[2])
            )
    encoder.eval()(torch.randn(1, 1, bench_cuda.CROP))
    assert bench_cuda.training_flops(encoder, bench_cuda.CROP) == 3 * sum(counted) - counted[0]
    rows = network["training"]["float32"]
    rate = rows["crops"] * (3 * sum(counted) - counted[0]) / rows["seconds"] / 1e9
    assert rows["gflops"] == pytest.approx(rate)


# --- sonification --------------------------------------------------------------------------------


def both_passes(device: torch.device, x: Tensor, **options: Any) -> tuple[ForwardPass, ForwardPass]:
    """A pass on the CPU and one on the device, which has its maps and switches from the other."""
    network = CNN12(width=1 / 16, seed=0).eval()
    here, there = ForwardPass(network, x), ForwardPass(deepcopy(network).to(device), x)
    for layer, (expected, found) in enumerate(zip(here.maps, there.maps, strict=True), start=1):
        assert found.device.type == device.type
        assert error(expected, found) < 1e-4, f"layer {layer}"
    there.maps = [maps.to(device) for maps in here.maps]
    there.switches = [None if one is None else one.to(device) for one in here.switches]
    return here, there


@pytest.mark.parametrize("floats", [2**26, 2**18])
def test_all_filters_of_every_layer(device, monkeypatch, floats):
    # Of the fewer at once, clips and filters are done in several parts.
    monkeypatch.setattr(backward, "_ELSEWHERE", floats)
    here, there = both_passes(device, sounds())
    for layer in range(1, 12) if REAL or floats > 2**20 else (2, 11):
        found = there.sonify(layer)
        assert found.device.type == device.type
        assert error(here.sonify(layer), found) < 1e-4, f"layer {layer}"
    expected, filters = here.sonify_most_active()
    found, same = there.sonify_most_active()
    np.testing.assert_array_equal(same, filters)
    assert error(expected, found) < 1e-4
    some = {"filters": [5, 0, 2], "weights": [1.0, 0.5, -2.0]}
    assert error(here.sonify_together(5, **some), there.sonify_together(5, **some)) < 1e-4


def test_networks_of_any_kind(device):
    taken = 0
    for seed in range(40):
        sample = Generator(seed).sample()
        try:
            here = ForwardPass(sample.network, sample.x)
        except StackError:
            continue
        there = ForwardPass(deepcopy(sample.network).to(device), sample.x)
        layer, taken = len(here.blocks), taken + 1
        expected = here.sonify(layer, rescale=False)
        assert error(expected, there.sonify(layer, rescale=False)) < 1e-9 or not expected.any()
    assert taken > 20


# --- analyses ------------------------------------------------------------------------------------


def scenes(**changes: Any) -> Any:
    part = {"split": "test", "size": 4, "duration": 1.2, "task": "single-label", **changes}
    return open_dataset("soundscapes", **part)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for before, after in ((1, 6), (6, 8), (8, 8)):
        modules += [nn.Conv1d(before, after, 9), nn.ReLU(), nn.MaxPool1d(4)]
    return nn.Sequential(*modules).eval()


class Named(Classifier):
    """A classifier by a few blocks."""

    def __init__(self) -> None:
        super().__init__(CNN12(width=1 / 16, depth=4, seed=0), scenes().classes, seed=0)
        self.features = self.encoder.features
        self.eval()


#: Analyses by name: of a network, given on which device it is.
ANALYSES: dict[str, Callable[[Callable[[nn.Module], nn.Module]], Any]] = {
    "coherence": lambda put: coherence_by_layer({"mine": put(small())}, scenes()),
    "stimulation": lambda put: stimulation({"mine": put(small())}, scenes()),
    "selectivity": lambda put: selectivity_by_layer({"mine": put(small())}, scenes()),
    "shifts": lambda put: shift_law({"mine": put(small())}, scenes(), shifts=(16, 100)),
    "sanity": lambda put: sanity(put(small()), scenes(size=2), others={"b": put(small())}),
    "ablation": lambda put: ablate({"mine": put(Named())}, scenes()),
    # Of two clips, a difference that is zero but for rounding would decide a p-value.
    "explanations": lambda put: compare_explanations(put(Named()), scenes(size=3), steps=2),
    "top clips": lambda put: top_clip_agreement({"mine": put(small())}, scenes()),
    "evolution": lambda put: feature_evolution({0: put(small()), 1: put(small())}, scenes()),
    "separation": lambda put: separation({"mine": put(small())}, scenes(task="multi-label")),
    "unpoolings": lambda put: compare_unpoolings(
        {"mine": put(small())}, scenes(size=2, task="multi-label")
    ),
}


@pytest.mark.parametrize("name", ANALYSES)
def test_numbers_of_an_analysis(device, name):
    # In float64, in which rounding flips no switch.
    here = ANALYSES[name](lambda network: network.double()).model_dump()
    there = ANALYSES[name](lambda network: network.double().to(device)).model_dump()
    expected, found = (
        np.array([x for x in tree_leaves(one) if isinstance(x, float)]) for one in (here, there)
    )
    assert len(expected) > 3
    # Sanity compares ranks, and those of samples that are all but zero hang on rounding.
    tolerance = 2e-3 if name == "sanity" else 1e-7
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=tolerance)


# --- training ------------------------------------------------------------------------------------


class Double(Runtime):
    """In float64, in which rounding flips no switch; interrupted at the step `stop_at`."""

    stop_at = 0

    def place(self, network: Any) -> Any:
        return super().place(network.double())

    def put(self, x: Tensor) -> Tensor:
        return super().put(x.double())

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        self.stop_at -= 1
        if self.stop_at == 0:
            raise KeyboardInterrupt
        super().step(optimiser)


def config(objective: str, norm: str, **changes: Any) -> TrainConfig:
    """Two epochs of two steps."""
    optimiser = {"epochs": 2, "warmup_epochs": 1, "batch_size": 16, **changes}
    return TrainConfig.model_validate(settings(objective, norm, optimiser=optimiser))


@pytest.fixture
def _no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published is float32, which `Double` is not for."""
    for task in (Supervised, Contrastive):
        monkeypatch.setattr(task, "evaluate", lambda *_: {})


def assert_same_run(expected: Path, found: Path) -> None:
    """That two runs ended in the same weights and states of the optimiser."""
    states = [load_file(out / "state.safetensors") for out in (expected, found)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.filterwarnings("ignore:.*non-meta parameter in the checkpoint")  # it is copied
@pytest.mark.usefixtures("_no_evaluation")
@pytest.mark.parametrize(
    "kind", [("nt_xent", "weight"), ("nt_xent", "batch"), ("cross_entropy", "none")], ids="-".join
)
def test_training_and_its_resumption(device, tmp_path, kind):
    here, there, resumed = (tmp_path / name for name in ("here", "there", "resumed"))
    train(config(*kind), out=here, runtime=Double(torch.device("cpu")))
    train(config(*kind), out=there, runtime=Double(device))
    assert_same_run(here, there)
    interrupted = Double(device)
    interrupted.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        train(config(*kind), out=resumed, runtime=interrupted)
    train(config(*kind), out=resumed, runtime=Double(device))
    assert_same_run(there, resumed)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("objective", ["nt_xent", "cross_entropy"])
def test_losses_and_scores_in_every_precision(device, tmp_path, objective, precision):
    if precision == "bfloat16" and not REAL:
        device = torch.device("cpu")  # the one that is made up knows nothing of precision
    here, there = tmp_path / "here", tmp_path / "there"
    asked = config(objective, "weight")
    card = train(asked, out=here, runtime=Runtime(torch.device("cpu")))
    found = train(asked, out=there, runtime=Runtime(device, precision=precision))
    tolerance = 1e-3 if precision == "float32" else 0.05
    assert found["test"] == pytest.approx(card["test"], rel=tolerance, abs=0.15)
    losses = [
        [float(row["train_loss"]) for row in csv.DictReader((out / "log.csv").read_text().split())]
        for out in (here, there)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    assert losses[1] != losses[0] or precision == "float32"


DISTRIBUTED = """
import json, sys
from sonibook.training.config import TrainConfig
from sonibook.training.distributed import Runtime, _meet
from sonibook.training.loop import train
from sonibook.training.experiment import Contrastive
runtime = Runtime(_meet())
assert (runtime.rank, runtime.processes) == (0, 1)
place, put = runtime.place, runtime.put
Contrastive.evaluate = lambda *_: {}
runtime.place, runtime.put = lambda n: place(n.double()), lambda x: put(x.double())
train(TrainConfig.model_validate(json.loads(sys.argv[1])), out=sys.argv[2], runtime=runtime)
"""


@pytest.mark.usefixtures("_no_evaluation")
@pytest.mark.skipif(not REAL, reason="needs a GPU; test_distributed.py does this between CPUs")
def test_torchrun_with_one_process(tmp_path):
    asked = config("nt_xent", "batch")
    train(asked, out=tmp_path / "alone", runtime=Double(torch.device("cuda")))
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    done = subprocess.run(
        [sys.executable, *launcher, script, asked.model_dump_json(), tmp_path / "together"],
        env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "alone", tmp_path / "together")
