"""The learning rate, step by step."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonibook.training.loop import warmup_cosine


@given(warmup=st.integers(0, 50), rest=st.integers(1, 500))
def test_schedule_rises_linearly_then_falls_along_a_cosine(warmup, rest):
    total = warmup + rest
    factors = [warmup_cosine(step, warmup=warmup, total=total) for step in range(total + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == 1
    np.testing.assert_allclose(factors[:warmup], np.arange(1, warmup + 1) / max(warmup, 1))
    assert all(first >= second for first, second in pairwise(factors[warmup:]))
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    # A cosine from 1 to 0 is symmetric about its middle, where it is 1/2.
    falling = np.array(factors[warmup:])
    np.testing.assert_allclose(falling + falling[::-1], 1, atol=1e-12)
    angle = np.arccos(2 * falling - 1)
    np.testing.assert_allclose(np.diff(angle), math.pi / rest, rtol=1e-4)
