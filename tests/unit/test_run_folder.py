"""Where a run stands: all of it comes back, or it is refused."""

import pytest
import torch
from clips import batch

from sonibook.errors import CheckpointError
from sonibook.model.encoder import CNN12
from sonibook.training.folder import load_state, save_state


def test_state_holds_weights_moments_and_position(tmp_path):
    def made(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        network = CNN12(width=1 / 16, norm="weight", seed=seed)
        return network, torch.optim.AdamW(network.parameters(), lr=1e-2)

    def step(network: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        network.eval()(batch(2, 2500)).square().sum().backward()
        optimiser.step()

    network, optimiser = made(0)
    step(network, optimiser)
    path = tmp_path / "state.safetensors"
    position = {"step": 1, "seconds": 0.5, "losses": [2.0], "log": [1, "двa"], "epochs": 9}
    position |= {"extended": [3], "unreadable": [[4, "why"]]}
    save_state(path, network, optimiser, position)
    other, other_optimiser = made(1)
    assert load_state(path, other, other_optimiser) == position
    step(network, optimiser)
    step(other, other_optimiser)
    for (name, first), second in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second), name
    wider = CNN12(width=1 / 8, norm="weight")
    with pytest.raises(CheckpointError, match="not a checkpoint of this run"):
        load_state(path, wider, torch.optim.AdamW(wider.parameters()))
