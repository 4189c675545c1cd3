"""Objectives against naive loops in float64, formulas and limits."""

import math

import numpy as np
import pytest
import torch

from sonibook.training.distributed import Runtime
from sonibook.training.objectives import LOSSES, cross_entropy, nt_xent


def naive_nt_xent(z: np.ndarray, temperature: float) -> float:
    """Chen et al. 2020, equation 1, one pair of rows after another."""
    rows = len(z)
    cosine = [
        [np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)) / temperature for b in z] for a in z
    ]
    losses = []
    for i in range(rows):
        partner = (i + rows // 2) % rows
        others = [math.exp(cosine[i][k]) for k in range(rows) if k != i]
        losses.append(-math.log(math.exp(cosine[i][partner]) / sum(others)))
    return sum(losses) / rows


def vectors(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5, 2.0])
@pytest.mark.parametrize(("pairs", "dim"), [(1, 3), (2, 1), (3, 8), (16, 128), (33, 5)])
def test_nt_xent_equals_a_naive_double_loop(pairs, dim, temperature):
    z = vectors(2 * pairs, dim, seed=pairs)
    expected = naive_nt_xent(z.double().numpy(), temperature)
    assert float(nt_xent(z, temperature=temperature)) == pytest.approx(expected, rel=2e-5, abs=2e-6)
    alone = nt_xent(z, temperature=temperature, runtime=Runtime())
    assert float(alone) == pytest.approx(expected, rel=2e-5, abs=2e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_gradient_of_nt_xent_is_that_of_finite_differences(temperature):
    z = vectors(8, 5)
    leaf = z.clone().requires_grad_(True)
    nt_xent(leaf, temperature=temperature).backward()
    step, exact = 1e-5, z.double().numpy()
    expected = np.zeros_like(exact)
    for place in np.ndindex(*exact.shape):
        up, down = exact.copy(), exact.copy()
        up[place] += step
        down[place] -= step
        difference = naive_nt_xent(up, temperature) - naive_nt_xent(down, temperature)
        expected[place] = difference / (2 * step)
    np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_nt_xent_of_vectors_all_at_right_angles():
    # Every other row is as near: a guess among 2N - 1.
    for pairs in (1, 2, 5, 8):
        loss = nt_xent(torch.eye(2 * pairs), temperature=0.1)
        assert float(loss) == pytest.approx(math.log(max(2 * pairs - 1, 1)), abs=1e-6)


def test_nt_xent_of_equal_pairs_at_right_angles_to_all_others():
    pairs, temperature = 6, 0.5
    z = torch.eye(pairs).repeat(2, 1)
    expected = math.log(1 + (2 * pairs - 2) * math.exp(-1 / temperature))
    assert float(nt_xent(z, temperature=temperature)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.01, 0.001])
@pytest.mark.parametrize("rows", ["equal", "opposed", "at random", "zero"])
def test_nt_xent_is_finite_at_the_lowest_temperatures(rows, temperature):
    z = {
        "equal": torch.ones(8, 4),
        "opposed": torch.cat([torch.ones(4, 4), -torch.ones(4, 4)]),
        "at random": vectors(8, 4),
        "zero": torch.zeros(8, 4),
    }[rows].requires_grad_(True)
    loss = nt_xent(z, temperature=temperature)
    loss.backward()
    assert torch.isfinite(z.grad).all()
    if rows == "at random":
        assert math.isfinite(loss.item())
    if rows in ("equal", "zero"):
        assert loss.item() == pytest.approx(math.log(7), rel=1e-5)
    if rows == "opposed":  # three equal rows on one's own side, the partner on the other
        assert loss.item() == pytest.approx(2 / temperature + math.log(3), rel=1e-5)


def test_nt_xent_knows_directions_alone():
    z = vectors(12, 7)
    scales = torch.logspace(-3, 3, 12)[:, None]
    expected = float(nt_xent(z))
    assert float(nt_xent(scales * z)) == pytest.approx(expected, rel=1e-5)
    turn = torch.linalg.qr(vectors(7, 7, seed=1)).Q
    assert float(nt_xent(z @ turn)) == pytest.approx(expected, rel=1e-4)
    swapped = torch.cat([z[6:], z[:6]])
    assert float(nt_xent(swapped)) == pytest.approx(expected, rel=1e-5)


def test_a_row_alone_with_its_partner_has_nothing_to_choose():
    assert float(nt_xent(vectors(2, 4))) == pytest.approx(0, abs=1e-6)


def test_half_precision_is_not_added_up_in_half_precision():
    z = vectors(64, 16).bfloat16()
    assert nt_xent(z).dtype == torch.float32
    assert float(nt_xent(z)) == pytest.approx(float(nt_xent(z.float())))


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_odd_rows_are_no_pairs(rows):
    with pytest.raises(ValueError, match=f"^{rows} rows are not pairs"):
        nt_xent(vectors(rows, 4))


def test_cross_entropy_is_the_mean_negative_log_probability():
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((5, 4)), rng.dirichlet(np.ones(4), 5)
    expected = -(targets * np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))).sum(1)
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))
    assert float(loss) == pytest.approx(expected.mean())


def test_binary_cross_entropy_judges_every_class_by_itself():
    rng = np.random.default_rng(1)
    logits, targets = 3 * rng.standard_normal((6, 5)), rng.uniform(size=(6, 5))
    probability = 1 / (1 + np.exp(-logits))
    expected = -(targets * np.log(probability) + (1 - targets) * np.log(1 - probability))
    loss = LOSSES["binary_cross_entropy"](torch.from_numpy(logits), torch.from_numpy(targets))
    assert float(loss) == pytest.approx(expected.mean())


def test_losses_of_sure_networks_stay_finite():
    logits, targets = torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]])
    assert float(cross_entropy(logits, targets)) == pytest.approx(2e4)
    assert float(LOSSES["binary_cross_entropy"](logits, targets)) == pytest.approx(1e4)
