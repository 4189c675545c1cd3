"""Where a training runs: the one place that knows of devices, processes and compilers.

The loop asks a `Runtime` for everything that differs between a laptop, a GPU, several processes
and a TPU. A machine that compiles is another class here: `put` to divide a batch, `step` to end a
graph.
"""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from importlib.util import find_spec
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.errors import ConfigError, SonibookWarning
from sonibook.model.encoder import process_count, sum_of_all

_AnyNetwork = TypeVar("_AnyNetwork", bound=nn.Module)
#: Of torch-tpu.
_TPU = "tpu"


class Runtime:
    """One process on one device, a CPU or a GPU, alone or one of those that ``torchrun`` started.

    Parameters
    ----------
    device : torch.device or None
        None takes the first GPU if there is one, else the CPU.
    precision : {"float32", "bfloat16"}
        Of convolutions and matrix products. bfloat16 pays on a GPU, and on a CPU that has
        instructions for it (``avx512_bf16`` or AMX); other CPUs are slower with it.
    """

    def __init__(self, device: torch.device | None = None, *, precision: str = "float32") -> None:
        default = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(default) if device is None else device
        self.precision = precision
        self._alone = not (dist.is_available() and dist.is_initialized())
        #: Which process this is,
        self.rank = 0 if self._alone else dist.get_rank()
        #: of how many.
        self.processes = process_count()

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    def place(self, network: _AnyNetwork) -> _AnyNetwork:
        """Put a network where it is to be trained; every process starts from the same weights."""
        network = network.to(self.device)
        if not self._alone:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, 0)
        return network

    def put(self, x: Tensor) -> Tensor:
        """Put this process's part of a batch onto the device."""
        return x.to(self.device, non_blocking=True)

    def autocast(self) -> AbstractContextManager:
        """The context to compute a loss in."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def gather(self, z: Float[Tensor, "rows dim"]) -> Float[Tensor, "all dim"]:
        """The rows of all processes, in order of rank; gradients flow back to each."""
        return z if self._alone else rows_of_all(z)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make every process's gradients their mean."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients and not self._alone:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            means = (flat / self.processes).split([g.numel() for g in gradients])
            for gradient, mean in zip(gradients, means, strict=True):
                gradient.copy_(mean.view(gradient.shape))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a number over processes."""
        return value if self._alone else sum_of_all(value.detach()) / self.processes

    def largest(self, values: Tensor) -> Tensor:
        """Each of some numbers as it is largest over processes."""
        if not self._alone:
            values = values.to(self.device)
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        """Take a step, and let a compiler know that the graph ends here."""
        optimiser.step()

    def wait(self) -> None:
        """Wait until every process is here."""
        if not self._alone:
            dist.barrier()


def _meet() -> torch.device:
    """Meet the other processes, by gloo between CPUs, NCCL between GPUs; gives the own device."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else None
    if device is not None:
        torch.cuda.set_device(device)
    # Joined once and left at the end: runs that follow each other cannot meet a second time.
    if not dist.is_initialized():
        # Long: the others wait while one evaluates.
        backend, patience = "nccl" if on_gpu else "gloo", timedelta(days=1)
        dist.init_process_group(backend, timeout=patience, device_id=device)
        atexit.register(dist.destroy_process_group)
    return device or torch.device("cpu")


def rows_of_all(x: Float[Tensor, "rows dim"]) -> Float[Tensor, "all dim"]:
    """The rows of all processes, as many in each, in order of rank; gradients flow back to each.

    The plain ``all_gather`` of `torch.distributed` would cut the graph.
    """
    # Zeros but for the own rows: the sum puts every process's rows in their place, exactly.
    rows, before = len(x), dist.get_rank() * len(x)
    return sum_of_all(F.pad(x, (0, 0, before, (process_count() - 1) * rows - before)))


class Xla(Runtime):
    """One process and all XLA devices of its machine, as ``PJRT_DEVICE`` names them.

    It works on whole batches, as on one CPU; rows are sharded over the devices, weights replicated,
    and the compiler adds what the devices have to tell each other. Tested with torch-xla 2.9 on its
    CPU backend, with one device and two virtual ones (``CPU_NUM_DEVICES=2``); meant for one TPU
    host and all of its chips. Several hosts, of which each would read a share, are refused.
    """

    def __init__(self, *, precision: str = "float32") -> None:
        # Else the compiler prints a line for each graph about a partitioner that is to come, and
        # torch-xla one whenever the precision of products is set.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        logging.getLogger("torch_xla.backends").setLevel(logging.ERROR)
        try:
            import torch_xla
            from torch_xla import runtime
            from torch_xla.backends import set_mat_mul_precision
            from torch_xla.distributed import spmd
        except ImportError:
            raise ConfigError(
                "PJRT_DEVICE asks for XLA, but torch-xla cannot be imported: make an environment "
                "with sonibook[xla] (for a TPU, sonibook[tpu]), or unset PJRT_DEVICE."
            ) from None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "On XLA one process drives all devices: start it without torchrun, or unset "
                "PJRT_DEVICE."
            )
        runtime.use_spmd()
        super().__init__(torch_xla.device(), precision=precision)
        if runtime.process_count() > 1:
            raise ConfigError("XLA on several hosts is not supported: use the devices of one.")
        if precision == "float32":
            set_mat_mul_precision("highest")
        devices = runtime.global_runtime_device_count()
        self._mesh = spmd.Mesh(np.arange(devices), (devices,), ("batch",))
        self._shard, self._sync = spmd.mark_sharding, torch_xla.sync

    def put(self, x: Tensor) -> Tensor:
        """Put a whole batch onto the devices, its rows divided among them."""
        x = x.to(self.device)
        self._shard(x, self._mesh, ("batch", *[None] * (x.ndim - 1)))
        return x

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        optimiser.step()
        self._sync()


def _tpu(precision: str) -> torch.device:
    """A TPU by torch-tpu, which computes each operation as a GPU does.

    It was never run: no TPU was at hand, only torch-tpu 0.2, which without one gives no device.
    """
    try:
        device = torch.device(_TPU)  # known since torch was imported, if there is one
    except RuntimeError:
        raise ConfigError(
            "PJRT_DEVICE asks for a TPU, but torch-tpu finds none on this machine: unset "
            "PJRT_DEVICE to train on what there is."
        ) from None
    if precision == "float32":
        torch.set_float32_matmul_precision("highest")  # else products are in bfloat16
    return device


def find_runtime(*, precision: str = "float32") -> Runtime:
    """The runtime of the machine and of the way this process was started.

    Several processes where ``torchrun`` started them; where ``PJRT_DEVICE`` is set, a TPU by
    torch-tpu if that is ``TPU`` and the package is installed, else XLA by torch-xla (ConfigError if
    that cannot be imported, or there is no TPU); else one process on a GPU or the CPU. A
    `SonibookWarning` tells when bfloat16 is asked of a CPU that has no instructions for it.
    """
    asked = os.environ.get("PJRT_DEVICE")
    if asked == "TPU" and find_spec("torch_tpu") is not None:
        return Runtime(_tpu(precision), precision=precision)
    if asked:
        return Xla(precision=precision)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    runtime = Runtime(_meet() if several else None, precision=precision)
    slow = runtime.device.type == "cpu" and precision == "bfloat16" and runtime.is_main
    if slow and hasattr(torch.cpu, "get_capabilities"):  # newer than the oldest torch allowed
        able = torch.cpu.get_capabilities()
        if not any(has for name, has in able.items() if "bf16" in name):
            warnings.warn(
                f"This processor ({able.get('cpu_name', able.get('architecture'))}) has no "
                "instructions for bfloat16: training takes several times as long as with "
                "optimiser.precision=float32.",
                SonibookWarning,
                stacklevel=2,
            )
    return runtime
