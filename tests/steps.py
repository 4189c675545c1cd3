"""Trains what a plan says and writes down every step: a program for tests, and what starts it.

``python steps.py PLAN`` trains in one process, under torchrun in several, with ``PJRT_DEVICE`` on
XLA. PLAN is a JSON file:

- ``runs``: what to train, one after the other: each a ``config`` and, for some, ``double`` (in
  float64, in which rounding flips no switch of a pool) and ``gather`` (another than the true one);
- ``out``: the folder for the runs; ``{rank}`` in it stands for the process's rank;
- ``record``: where the main process writes losses and gradients (safetensors);
- ``save_every``: steps between two saved states within an epoch;
- ``die_at``: for a rank, the step of this process in which it is killed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from functools import cache
from itertools import count
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from sonibook.datasets.soundscapes import SceneDataset
from sonibook.training import loop
from sonibook.training.config import TrainConfig
from sonibook.training.distributed import Runtime, find_runtime
from sonibook.training.experiment import Contrastive, Supervised

REPOSITORY = Path(__file__).parents[1]
ALONE = (sys.executable,)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def settings(objective: str = "nt_xent", norm: str = "weight", **changes: Any) -> dict[str, Any]:
    """Five epochs of one step of a small network on 32 soundscapes, with all augmentations."""
    task = "single-label" if objective == "cross_entropy" else "multi-label"
    part = {"size": 32, "duration": 0.6, "task": task}
    mixup = {} if objective == "nt_xent" else {"mixup_alpha": 0.4}
    return {
        "name": f"{objective}-{norm}",
        "seed": 3,
        "objective": objective,
        "data": {
            "name": "soundscapes",
            "train": {**part, "split": "train"},
            "test": {**part, "split": "test"},
            "crop_seconds": 0.3,
        },
        "encoder": {"width": 1 / 16, "norm": norm},
        "augment": {"mix_back_min_snr_db": 0.0, **mixup},
        "optimiser": {"epochs": 5, "warmup_epochs": 2, "batch_size": 32, "precision": "float32"},
        "threads": 1,
        **changes,
    }


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that trains; on XLA only where that is asked for."""
    paths = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY / "tests")])
    inherited = {name: value for name, value in os.environ.items() if name != "PJRT_DEVICE"}
    return {**inherited, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def run(
    folder: Path, launcher: tuple[str, ...], plan: dict[str, Any], **more: str
) -> subprocess.CompletedProcess[str]:
    """Start this program in a folder of its own, with more environment, and wait for its end."""
    return subprocess.run(
        [*launcher, __file__, _written(folder, plan)],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _written(folder: Path, plan: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.json"
    path.write_text(json.dumps({"out": str(folder / "runs"), **plan}))
    return path


def run_forked(
    context: BaseContext, folder: Path, processes: int, plan: dict[str, Any]
) -> tuple[int, str]:
    """Run this program in processes that import nothing anew: the first code but 0, and its words.

    As under torchrun, where one fails the others are stopped.
    """
    path = _written(folder, plan)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = [context.Process(target=_become, args=(path, rank, processes, port))
             for rank in range(processes)]  # fmt: skip
    for process in group:
        process.start()
    running = {process.sentinel: process for process in group}
    failed = 0
    while running:
        for sentinel in wait(running, timeout=240) or list(running):
            process = running.pop(sentinel)
            process.kill()  # which has ended, or hangs
            process.join()
            failed = failed or process.exitcode
        for process in running.values() if failed else ():
            process.kill()
    return failed, "".join(file.read_text("utf-8") for file in folder.glob("said-*.txt"))


def _become(path: Path, rank: int, processes: int, port: int) -> None:
    """The process of a rank, as torchrun starts it."""
    os.chdir(path.parent)
    said = path.with_name(f"said-{rank}.txt")
    sys.stdout = sys.stderr = said.open("w", encoding="utf-8")
    if processes > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in (place | where).items()}
    main(path)


def record(
    folder: Path, launcher: tuple[str, ...], plan: dict[str, Any], **more: str
) -> dict[str, Tensor]:
    """Losses and gradients of such a run, by ``configuration/step/loss`` or number."""
    path = folder / "steps.safetensors"
    done = run(folder, launcher, {"record": str(path), **plan}, **more)
    assert done.returncode == 0, done.stderr
    return load_file(path)


def disagreement(expected: dict[str, Tensor], found: dict[str, Tensor], name: str) -> float:
    """The largest relative difference among a configuration's losses and gradients."""
    keys = [key for key in expected if key.startswith(f"{name}/")]
    assert keys
    assert keys == [key for key in found if key.startswith(f"{name}/")]
    return max(
        float((found[key] - expected[key]).norm() / expected[key].norm().clamp_min(1e-30))
        for key in keys
    )


def _record_steps(runtime: Runtime) -> list[dict[str, Tensor]]:
    """A list that grows by the loss and the gradients of each step that `runtime` takes."""
    steps: list[dict[str, Tensor]] = []
    step, mean = runtime.step, runtime.mean

    def recorded_step(optimiser: torch.optim.Optimizer) -> None:
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        if runtime.device.type == "xla":
            import torch_xla

            torch_xla.sync()  # all gradients at once: else each would be a program of its own
        steps.append({str(i): _copied(p.grad) for i, p in enumerate(parameters)})
        step(optimiser)

    def recorded_mean(value: Tensor) -> Tensor:
        value = mean(value)
        steps[-1]["loss"] = _copied(value)
        return value

    runtime.step, runtime.mean = recorded_step, recorded_mean
    return steps


def _copied(x: Tensor) -> Tensor:
    return x.detach().cpu().clone(memory_format=torch.contiguous_format)


def _double(runtime: Runtime) -> None:
    place, put = runtime.place, runtime.put
    runtime.place = lambda network: place(network.double())
    runtime.put = lambda x: put(x.double())


def _plain_gather(z: Tensor) -> Tensor:
    everything = [torch.empty_like(z) for _ in range(dist.get_world_size())]
    dist.all_gather(everything, z.detach().contiguous())
    return torch.cat(everything)


def _plain_gather_but_own(z: Tensor) -> Tensor:
    everything = list(_plain_gather(z).split(len(z)))
    everything[dist.get_rank()] = z
    return torch.cat(everything)


_GATHERS = {"plain": _plain_gather, "plain-but-own": _plain_gather_but_own}


def _die_at(runtime: Runtime, last: int) -> None:
    """Let this process be killed in its step number `last`, before gradients are averaged."""
    average, numbers = runtime.average_gradients, count(1)

    def average_or_die(parameters: Any) -> None:
        if next(numbers) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        average(parameters)

    runtime.average_gradients = average_or_die


def main(path: Path) -> None:
    plan = json.loads(path.read_text())
    runtime = find_runtime(precision=plan["runs"][0]["config"]["optimiser"]["precision"])
    SceneDataset.__getitem__ = cache(SceneDataset.__getitem__)  # synthesise a clip only once
    loop._SAVE_EVERY = plan.get("save_every", loop._SAVE_EVERY)
    if "record" in plan:
        Supervised.evaluate = Contrastive.evaluate = lambda *_: {}  # steps are all that is asked
    written: dict[str, Tensor] = {}
    for run in plan["runs"]:
        config = TrainConfig.model_validate(run["config"])
        steps = _record_steps(runtime)
        if run.get("double"):
            _double(runtime)
        if "gather" in run:
            runtime.gather = _GATHERS[run["gather"]]
        if str(runtime.rank) in plan.get("die_at", {}):
            _die_at(runtime, plan["die_at"][str(runtime.rank)])
        out = Path(plan["out"].format(rank=runtime.rank), config.name)
        loop.train(config, out=out, runtime=runtime)
        for number, values in enumerate(steps):
            written |= {f"{config.name}/{number}/{key}": value for key, value in values.items()}
        for name in ("step", "mean", "place", "put", "gather", "average_gradients"):
            vars(runtime).pop(name, None)  # the class's own again
    if runtime.is_main and "record" in plan:
        save_file(written, plan["record"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
