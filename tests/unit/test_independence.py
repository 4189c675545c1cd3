"""What a result does not depend on: the table of book/reliability.md, row by row."""

import numpy as np
import pytest
import torch
from clips import Held, noise
from torch import Tensor

from sonibook import CNN12, ForwardPass, load_encoder
from sonibook.analysis.activations import top_activations
from sonibook.analysis.coherence import coherence_by_layer
from sonibook.training.data import predict

COUNT = 6


class Permuted(Held):
    """The same clips in another order, each with its own name."""

    def __init__(self, order: list[int]) -> None:
        super().__init__([noise(4000, index) for index in order], [index % 3 for index in order])
        self.order = order

    def __getitem__(self, index: int):
        clip = super().__getitem__(index)
        return type(clip)(clip.waveform, clip.labels, f"clip{self.order[index]}")


@pytest.fixture(scope="module")
def network() -> CNN12:
    return CNN12(width=1 / 16, seed=0).eval()


def outputs(network: CNN12, data: Held, batch_size: int) -> np.ndarray:
    def on_clips(x: Tensor) -> Tensor:
        with torch.no_grad():
            return network(x)

    found, _ = predict(on_clips, data, least_length=4000, batch_size=batch_size)
    return found


def largest_share(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_scores_hardly_depend_on_the_size_of_batches(network):
    data = Permuted(list(range(COUNT)))
    one = outputs(network, data, 1)
    for size in (2, 4, 16):
        assert largest_share(outputs(network, data, size), one) < 1e-5


def test_scores_of_a_clip_do_not_depend_on_the_order_of_files(network):
    order = [3, 0, 5, 1, 4, 2]
    straight, other = Permuted(list(range(COUNT))), Permuted(order)
    assert (outputs(network, other, 1) == outputs(network, straight, 1)[order]).all()


def test_top_clips_do_not_depend_on_the_order_of_files(network):
    def named(data: Held) -> list:
        filters = top_activations({"n": network}, data, k=2).filters
        return [[(top.clip_id, top.energy) for top in one.top] for one in filters]

    assert named(Permuted([5, 3, 1, 0, 2, 4])) == named(Permuted(list(range(COUNT))))


def test_coherence_depends_on_chunks_by_the_other_clip_alone(network):
    data = Permuted(list(range(COUNT)))
    large, small = (coherence_by_layer({"n": network}, data, chunk=chunk) for chunk in (6, 2))
    assert large.select(condition="") == small.select(condition="")
    assert large.select(condition="another clip") != small.select(condition="another clip")


def test_a_sonification_hardly_depends_on_the_number_of_threads():
    encoder, x = load_encoder("supervised"), torch.from_numpy(noise(8000, 1))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            passed = ForwardPass(encoder, x)
            found.append(passed.sonify(8, passed.most_active(8, count=8)).numpy())
    finally:
        torch.set_num_threads(before)
    difference = np.abs(found[0] - found[1])
    # Another order of adding up may flip a switch of a pool where two samples tie: a few samples
    # then differ by more, which the quantile leaves out.
    assert np.quantile(difference, 0.99) < 1e-5 * np.abs(found[0]).max()
