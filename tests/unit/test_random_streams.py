"""Random numbers that depend on seed, step, row and purpose, and on nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sonibook.training.sampling import PARTNERS, RandomStreams, seeded


def everything(streams: RandomStreams) -> list[torch.Tensor]:
    """One of each kind of draw, in a fixed order."""
    return [
        streams.uniform(-2.0, 3.0),
        streams.normal(7),
        streams.beta(0.4),
        streams.kept(0.6, 11),
        streams.uniform(),
    ]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 10**9),
    rows=st.lists(st.integers(0, 2**31), min_size=1, max_size=6),
    data=st.data(),
)
def test_a_row_draws_the_same_whatever_stands_beside_it(seed, step, rows, data):
    order = data.draw(st.permutations(range(len(rows))))
    whole = everything(RandomStreams(seed, step, rows))
    permuted = everything(RandomStreams(seed, step, [rows[place] for place in order]))
    for first, second in zip(whole, permuted, strict=True):
        assert torch.equal(first[list(order)], second)
    for place, row in enumerate(rows):
        for first, alone in zip(whole, everything(RandomStreams(seed, step, [row])), strict=True):
            assert torch.equal(first[place], alone[0])


def test_streams_of_other_seeds_steps_rows_and_purposes_are_others():
    origin = {"seed": 5, "step": 2, "rows": [7], "purpose": 0}
    changes = [{}, {"seed": 6}, {"step": 3}, {"rows": [8]}, {"purpose": 1}]
    # (seed, step) must not collide with (step, seed), nor row with purpose.
    changes += [{"seed": 2, "step": 5}, {"rows": [0], "purpose": 7}, {"rows": [7 + 2**32]}]
    drawn = [RandomStreams(**{**origin, **change}).normal(2000)[0, 0].numpy() for change in changes]
    correlation = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_numbers_drawn_one_after_another_are_new_ones():
    streams = RandomStreams(0, 0, range(500))
    first, second = streams.uniform().flatten().numpy(), streams.uniform().flatten().numpy()
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(500)


@pytest.mark.parametrize("step", [0, 1, 12345])
def test_draws_have_the_distributions_they_are_named_for(step):
    streams = RandomStreams(1, step, range(3000))
    assert (
        stats.kstest(streams.uniform(-6.0, 6.0).flatten(), stats.uniform(-6, 12).cdf).pvalue > 1e-3
    )
    for alpha in (0.4, 1.0, 5.0):
        shares = streams.beta(alpha).flatten()
        assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert stats.kstest(streams.normal(3).flatten(), stats.norm.cdf).pvalue > 1e-3
    kept = streams.kept(0.6, 50)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert stats.binomtest(int(kept.sum()), kept.numel(), 0.6).pvalue > 1e-3


def test_shapes():
    streams = RandomStreams(0, 0, [3, 4])
    assert len(streams) == 2
    assert streams.uniform().shape == streams.beta(1.0).shape == (2, 1, 1)
    assert streams.normal(5).shape == (2, 1, 5)
    assert streams.kept(0.5, 6).shape == (2, 6)
    assert streams.partners().shape == (2,)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 100), step=st.integers(0, 1000))
def test_partners_are_others_and_near(count, step):
    partners = RandomStreams(3, step, range(count)).partners().numpy()
    rows = np.arange(count)
    assert (partners != rows).all()
    assert (partners >= 0).all()
    assert (partners < count).all()
    last = max(count // PARTNERS, 1) - 1  # what is left over belongs to the last whole stretch
    np.testing.assert_array_equal(
        np.minimum(partners // PARTNERS, last), np.minimum(rows // PARTNERS, last)
    )


def test_a_row_alone_is_its_own_partner():
    assert RandomStreams(0, 0, [9]).partners().tolist() == [0]


def test_every_other_row_of_the_stretch_is_as_likely():
    counts = np.zeros((PARTNERS, PARTNERS))
    steps = 1500
    for step in range(steps):
        counts[range(PARTNERS), RandomStreams(2, step, range(PARTNERS)).partners()] += 1
    others = counts[~np.eye(PARTNERS, dtype=bool)]
    assert counts.trace() == 0
    assert stats.chisquare(others).pvalue > 1e-3


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_partners_of_a_part_lie_in_it_and_are_those_of_the_whole(processes):
    size = 128
    whole = RandomStreams(7, 11, range(size)).partners()
    share = size // processes
    for rank in range(processes):
        own = range(rank * share, (rank + 1) * share)
        part = RandomStreams(7, 11, own).partners()
        assert 0 <= int(part.min()) <= int(part.max()) < share
        assert torch.equal(part + rank * share, whole[own.start : own.stop])


def test_seeded_depends_on_its_keys_alone():
    first = seeded(1, 2, 3).random(4)
    np.testing.assert_array_equal(first, seeded(1, 2, 3).random(4))
    for other in [(1, 3, 2), (1, 2), (2, 2, 3), (1, 2, 3, 1)]:
        assert not np.array_equal(first, seeded(*other).random(4))
