"""Where a training runs, on XLA: TPUs, through torch-xla.

One process drives every device of its machine. It works on whole batches, as on one CPU; their
rows are sharded over the devices, weights are replicated, and the compiler adds what the devices
have to tell each other: the loss sees every row, and gradients are those of the whole batch.

Tested with torch-xla 2.9 on its CPU backend, with one device and with two virtual ones
(``CPU_NUM_DEVICES=2``). On TPUs it is meant for one host and all of its chips; that could not be
tried. Several hosts would need each to read its own share of a batch, and are refused.

All that knows of torch-xla is in this file. A successor such as torch-tpu would be another file
with another `Runtime`: a device, `put` to shard a batch, `step` to end a graph.
"""

from __future__ import annotations

import logging
import os

import numpy as np
import torch
from torch import Tensor

from sonibook.errors import ConfigError
from sonibook.training.runtime import Runtime


class Xla(Runtime):
    """One process and all XLA devices of its machine, as ``PJRT_DEVICE`` names them.

    Parameters
    ----------
    precision : {"float32", "bfloat16"}
        Of matrix products. For float32 a TPU is told not to round them to bfloat16, as it would
        by default.

    Raises
    ------
    ConfigError
        If torch-xla cannot be imported, or there are several processes.
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
                "with sonibook[xla], or unset PJRT_DEVICE."
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
