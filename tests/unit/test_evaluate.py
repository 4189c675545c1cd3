"""What a network says of whole clips."""

import numpy as np
import torch
from clips import Held, noise

from sonibook.datasets.base import Clip
from sonibook.model.encoder import CNN12
from sonibook.training.data import predict


def test_what_a_network_says_of_a_clip_depends_on_that_clip_alone():
    lengths = [2500, 4000, 2500, 3001, 4000, 100, 2500, 4000, 3001, 5000]
    data = Held([noise(n, seed) for seed, n in enumerate(lengths)], [n % 3 for n in lengths])
    encoder = CNN12(width=1 / 16, seed=0).eval()
    least = encoder.least_length
    with torch.no_grad():
        alone = np.stack(
            [
                encoder(torch.from_numpy(np.pad(x, (0, max(0, least - len(x)))))[None, None])[0]
                for x in data.waveforms
            ]
        )
    for batch_size in (1, 2, 3, 16):
        outputs, targets = predict(encoder, data, least_length=least, batch_size=batch_size)
        np.testing.assert_allclose(outputs, alone, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(targets.argmax(1), [n % 3 for n in lengths])
    order = np.random.default_rng(0).permutation(len(lengths))
    shuffled = Held([data.waveforms[i] for i in order], [lengths[i] % 3 for i in order])
    outputs, _ = predict(encoder, shuffled, least_length=least, batch_size=3)
    np.testing.assert_allclose(outputs, alone[order], rtol=1e-4, atol=1e-5)


def test_evaluation_keeps_few_clips_in_memory():
    # Every length differs, so that no group is ever full.
    held = [0, 0]

    def network(x: torch.Tensor) -> torch.Tensor:
        held[0] += len(x)
        return x.mean(dim=2)

    class Watched(Held):
        def __getitem__(self, index: int) -> Clip:
            clip = super().__getitem__(index)
            held[1] = max(held[1], index + 1 - held[0])
            return clip

    data = Watched([noise(100 + n, n) for n in range(60)], [0] * 60)
    outputs, _ = predict(network, data, least_length=1, batch_size=2)
    expected = [[float(x.mean())] for x in data.waveforms]
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    assert held[1] <= 8 * 2 + 2
