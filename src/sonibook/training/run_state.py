"""A run's checkpoint: all that is needed to go on as if nothing had happened.

One safetensors file: weights, optimiser state and position. Random numbers need no saving, since
every one of them is drawn from a seed and a step number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from sonibook.errors import CheckpointError
from sonibook.files import atomic


def save_run(
    path: str | Path, network: nn.Module, optimiser: torch.optim.Optimizer, position: dict[str, Any]
) -> None:
    """Write a run's checkpoint, whole or not at all.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``.
    network : torch.nn.Module
    optimiser : torch.optim.Optimizer
        Adam or AdamW over ``network.parameters()``, in that order.
    position : dict
        Whatever else says where the run stands; must be JSON.
    """
    tensors = {f"model/{name}": value for name, value in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": value for name, value in state.items()}
    with atomic(path) as temporary:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            temporary,
            metadata={"position": json.dumps(position)},
        )


def load_run(
    path: str | Path, network: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a run back where `save_run` left it.

    Returns
    -------
    dict
        The position.

    Raises
    ------
    CheckpointError
        If the file is damaged, or of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            position = json.loads(file.metadata()["position"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        prefix = "model/"
        network.load_state_dict(
            {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: is no checkpoint of this run ({reason}).") from None
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser/"):
            _, index, field = name.split("/")
            state.setdefault(int(index), {})[field] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return position
