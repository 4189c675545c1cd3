"""Coherence against scipy, its properties, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from sonibook.analysis import coherence, mean_top_coherence
from sonibook.errors import AudioError


def pair(shape=(3, 20_000), *, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    fading = torch.linspace(0, 3, shape[-1], dtype=dtype)
    return x, x + fading * torch.randn(shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("nperseg", [64, 255, 256, 1000])
@pytest.mark.parametrize("noverlap", [None, 0, 60])
@pytest.mark.parametrize("length", [20_000, 20_011])
def test_equals_scipy_in_float64(nperseg, noverlap, length):
    x, y = pair((3, length))
    frequency, ours = coherence(x, y + 2.0, nperseg=nperseg, noverlap=noverlap)
    options = {"fs": 8000, "nperseg": nperseg, "noverlap": noverlap}
    expected_frequency, theirs = signal.coherence(x.numpy(), y.numpy() + 2.0, **options)
    np.testing.assert_allclose(frequency.numpy(), expected_frequency)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-10, rtol=0)


def test_float32_is_close_to_float64():
    x, y = pair()
    ours = coherence(x.float(), y.float())[1]
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), coherence(x, y)[1], atol=1e-4, rtol=0)


def test_any_batch_shape_gives_what_single_pairs_give():
    x, y = pair((2, 3, 5_000))
    together = coherence(x, y)[1]
    assert together.shape == (2, 3, 129)
    torch.testing.assert_close(together[1, 2], coherence(x[1, 2], y[1, 2])[1])
    assert mean_top_coherence(x, y).shape == (2, 3)


def test_it_sees_neither_gain_nor_sign():
    x, y = pair()
    torch.testing.assert_close(coherence(x, -0.01 * y)[1], coherence(x, y)[1])
    torch.testing.assert_close(mean_top_coherence(x, -3 * x), torch.ones(3, dtype=torch.float64))


def test_mean_of_the_most_coherent_frequencies():
    x, y = pair()
    theirs = signal.coherence(x.numpy(), y.numpy())[1]
    expected = np.sort(theirs, axis=1)[:, -5:].mean(axis=1)
    np.testing.assert_allclose(mean_top_coherence(x, y).numpy(), expected, atol=1e-10)


def test_unrelated_noise_has_the_coherence_of_chance():
    """Of n independent segments, a squared correlation of 1/n is expected."""
    first, second = pair((200, 10_240))[0], pair((200, 10_240), seed=1)[0]
    values = coherence(first, second, noverlap=0)[1]
    assert float(values[:, 2:-2].mean()) == pytest.approx(1 / 40, rel=0.05)


def test_silence_gives_nan_and_nothing_else_does():
    x, y = pair()
    y[1] = 0.0
    values = mean_top_coherence(x, y)
    assert values.isnan().tolist() == [False, True, False]
    assert coherence(x, y)[1][1].isnan().all()


def test_what_is_refused():
    x, y = pair()
    with pytest.raises(AudioError, match="256 samples hold one segment"):
        coherence(x[:, :256], y[:, :256])
    with pytest.raises(AudioError, match="no pairs"):
        coherence(x, y[:2])
    with pytest.raises(ValueError, match="do not make segments"):
        coherence(x, y, noverlap=256)
    with pytest.raises(ValueError, match="choose 1 to 129"):
        mean_top_coherence(x, y, k=0)
