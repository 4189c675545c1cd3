"""A run's folder: whose it is, what it started from, and where the run stands.

Random numbers need no saving, since every one of them is drawn from a seed and a step number.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from sonibook.errors import CheckpointError, ConfigError, SonibookWarning
from sonibook.files import atomic, parse_json, parse_yaml, read_json, remove_leftovers
from sonibook.model.checkpoint import load_encoder, read_card
from sonibook.training.config import TrainConfig

#: What a run publishes.
PUBLISHED = "encoder.safetensors"
#: What is saved of where a run stands.
_POSITION = ("step", "seconds", "losses", "log", "epochs", "extended", "unreadable")


class RunFolder:
    """The folder of one run; making it sees that the folder is free, or holds this very run."""

    def __init__(
        self, path: str | Path, config: TrainConfig, *, start: str | Path | None = None
    ) -> None:
        self.path, self.config = Path(path), config
        self.extends = self._check_config()
        self.started_from = None if start is None else self._check_start(start)

    @property
    def published(self) -> Path:
        """Where the trained network lies when the run has ended."""
        return self.path / PUBLISHED

    @property
    def state(self) -> Path:
        """Where the run's state lies."""
        return self.path / "state.safetensors"

    def _check_config(self) -> int | None:
        path, asked = self.path / "config.yaml", _as_text(self.config)
        if not path.exists():
            return None
        try:
            if (text := path.read_text(encoding="utf-8")) == asked:
                return None
            made = TrainConfig.model_validate(parse_yaml(text))
            epochs, wanted = made.optimiser.epochs, self.config.optimiser.epochs
            longer = made.optimiser.model_copy(update={"epochs": wanted})
            extends = _as_text(made.model_copy(update={"optimiser": longer})) == asked
            extends = extends and wanted > epochs == read_card(self.published)["epochs"]
        except (ValueError, LookupError, ValidationError, CheckpointError):
            extends = False
        if not extends:
            raise ConfigError(
                f"{self.path}: holds a run with another configuration: choose another folder, or "
                "delete it."
            )
        warnings.warn(
            f"{self.path}: extends a finished run of {epochs} epochs, whose learning rate rises "
            f"again: this is not what {wanted} epochs at once would give.",
            SonibookWarning,
            stacklevel=4,
        )
        return epochs

    def _check_start(self, start: str | Path) -> dict[str, Any] | None:
        card = read_card(start)
        found = {"checkpoint": Path(start).name, "weights": weights_of(start)}
        found |= {key: card[key] for key in ("config", "start") if key in card}
        path = self.path / "start.json"
        if not path.exists():
            return None if self.state.exists() else found
        try:
            before = dict(read_json(path))
            same = before["weights"] == found["weights"]
        except (ValueError, LookupError, TypeError):
            raise ConfigError(f"{path}: is damaged: choose another folder, or delete it.") from None
        if not same:
            raise ConfigError(
                f"{self.path}: holds a run that started from other weights than {start} has now: "
                "choose another folder, or delete it."
            )
        return before

    def begin(self) -> None:
        """Write down what is asked for, and remove what a killed run left half written."""
        with atomic(self.path / "config.yaml") as temporary:
            temporary.write_text(_as_text(self.config), encoding="utf-8")
        if self.started_from is not None:
            with atomic(self.path / "start.json") as temporary:
                temporary.write_text(json.dumps(self.started_from, indent=1), encoding="utf-8")
        remove_leftovers(self.state)  # as large as three networks


def weights_of(checkpoint: str | Path) -> str:
    """A digest of a published encoder's weights: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in load_encoder(checkpoint).state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _as_text(config: TrainConfig) -> str:
    return yaml.safe_dump(config.described(), sort_keys=False, allow_unicode=True)


def save_state(
    path: str | Path, network: nn.Module, optimiser: torch.optim.Optimizer, position: dict[str, Any]
) -> None:
    """Write where a run stands, whole or not at all; `position` is JSON."""
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


def load_state(
    path: str | Path, network: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a run back where `save_state` left it; returns the position."""
    try:
        with safe_open(path, framework="pt") as file:
            position = parse_json(file.metadata()["position"])
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
        return {name: position[name] for name in _POSITION}
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: is not a checkpoint of this run ({reason}).") from None


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
        real = all(m.is_floating_point() and m.isfinite().all() for m in moments.values())
        if not real or moments["step"] < 1 or (moments["exp_avg_sq"] < 0).any():
            raise ValueError(f"the optimiser's state of parameter {index} holds impossible values")
