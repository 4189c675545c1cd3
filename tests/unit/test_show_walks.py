"""Coherence as a walk: it ends where scipy's coherence says, and the picture says so."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from sonibook.plots.sound import coherence_walk, coherence_walks

RNG = np.random.default_rng(0)
X, NOISE = RNG.standard_normal((2, 4000)).astype(np.float32)


@pytest.mark.parametrize("nperseg", [128, 256])
@pytest.mark.parametrize("number", [3, 20, 50])
def test_walk_ends_at_scipys_coherence(nperseg: int, number: int) -> None:
    frequency, expected = signal.coherence(X, X + NOISE, 8000, nperseg=nperseg)
    walk = coherence_walk(X, X + NOISE, frequency=float(frequency[number]), nperseg=nperseg)
    assert abs(walk[-1]) ** 2 == pytest.approx(expected[number], rel=1e-4)
    assert len(walk) == 1 + (len(X) - nperseg) // (nperseg // 2) + 1


def test_walk_of_a_copy_is_straight_whatever_its_gain_and_sign() -> None:
    walk = coherence_walk(X, -0.1 * X, frequency=1000.0)
    assert abs(walk[-1]) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(walk.imag, 0, atol=1e-6)


def test_walk_of_silence_goes_nowhere_and_says_so() -> None:
    walk = coherence_walk(X, np.zeros_like(X), frequency=1000.0)
    assert np.isnan(walk[1:]).all()


def test_picture_says_each_pairs_coherence() -> None:
    drawn = coherence_walks({"copy": (X, 0.5 * X), "noise": (X, NOISE)}, frequency=1000.0)
    expected = abs(coherence_walk(X, NOISE, frequency=1000.0)[-1]) ** 2
    assert "copy ends 1.00 from the start: 1.00" in drawn.alt
    assert f"noise ends {expected**0.5:.2f} from the start: {expected:.2f}" in drawn.alt
