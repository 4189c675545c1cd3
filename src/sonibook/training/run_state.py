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
from safetensors.torch import save
from torch import nn

from sonibook.errors import CheckpointError
from sonibook.files import atomic

#: What a position says at least.
POSITION = ("step", "seconds", "losses", "log")


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
        Where the run stands: `POSITION`, as JSON.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    tensors = {f"model/{name}": value for name, value in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": value for name, value in state.items()}
    with atomic(path) as temporary:
        # Not save_file, whose errors do not say that a disk is full.
        content = save(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            metadata={"position": json.dumps(position)},
        )
        temporary.write_bytes(content)


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
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser/"):
                _, index, field = name.split("/")
                state.setdefault(int(index), {})[field] = tensor
        _check_moments(state, optimiser)
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})
        return {name: position[name] for name in POSITION}
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: is no checkpoint of this run ({reason}).") from None


def _check_moments(
    state: dict[int, dict[str, torch.Tensor]], optimiser: torch.optim.Optimizer
) -> None:
    """See that Adam's state is there for all parameters or, where none is trained, for none."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    if state and state.keys() != set(range(len(parameters))):
        raise ValueError("the optimiser's state is of other parameters")
    for index, moments in state.items():
        shape = parameters[index].shape
        found = {name: moments[name].shape for name in ("exp_avg", "exp_avg_sq", "step")}
        if found != {"exp_avg": shape, "exp_avg_sq": shape, "step": torch.Size([])}:
            raise ValueError(f"the optimiser's state of parameter {index} has other shapes")
