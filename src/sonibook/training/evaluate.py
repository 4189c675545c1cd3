"""Whole clips: what a network says of each, and a classifier's training on what it says.

What a network says of a clip does not depend on what it is batched with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from tqdm.auto import tqdm

from sonibook.audio import pad
from sonibook.datasets.base import Clip, ClipReader, Dataset
from sonibook.model.encoder import CNN12, Classifier
from sonibook.training.data import Batch, Shares
from sonibook.training.distributed import Runtime


@torch.no_grad()  # XLA takes no views of parameters in inference_mode
def predict(
    network: nn.Module | Callable[[Tensor], Tensor],
    data: Dataset,
    *,
    least_length: int,
    batch_size: int = 16,
    progress: bool = False,
    read: Callable[[int], Clip | None] | None = None,
) -> tuple[Float[ndarray, "clips outputs"], Float[ndarray, "clips classes"]]:
    """The network's output for every clip of a data set, and the clip's targets.

    Clips are batched only with clips of the same length: a clip is never padded to its
    neighbours' length, so that its result depends on it alone.

    Parameters
    ----------
    network : callable
        Maps waveforms (batch, 1, time) to (batch, outputs); modules should be in `eval` mode.
    data : Dataset
    least_length : int, in samples
        Shorter clips are padded with zeros to it.
    batch_size : int >= 1
    progress : bool
        Show a progress bar.
    read : callable or None
        Gives clip `index` in place of ``data[index]``, such as a `ClipReader`; a clip that is None
        is left out.

    Returns
    -------
    outputs : ndarray, shape (clips, outputs)
    targets : ndarray, shape (clips, classes)
    """
    outputs: list[ndarray | None] = [None] * len(data)
    targets = np.zeros((len(data), len(data.classes)), np.float32)
    waiting: dict[int, list[tuple[int, ndarray]]] = {}

    def run(group: list[tuple[int, ndarray]]) -> None:
        x = torch.from_numpy(np.stack([waveform for _, waveform in group])).unsqueeze(1)
        for (index, _), row in zip(group, network(x).numpy(), strict=True):
            outputs[index] = row

    for index in tqdm(range(len(data)), desc="evaluate", disable=not progress, leave=False):
        clip = data[index] if read is None else read(index)
        if clip is None:
            continue
        targets[index, list(clip.labels)] = 1.0
        waveform = pad(clip.waveform, least_length)
        group = waiting.setdefault(len(waveform), [])
        group.append((index, waveform))
        if len(group) == batch_size:
            run(waiting.pop(len(waveform)))
        elif sum(map(len, waiting.values())) > 8 * batch_size:
            # Bound what waits: clips of many different lengths are run in smaller groups.
            run(waiting.pop(max(waiting, key=lambda length: len(waiting[length]))))
    for group in waiting.values():
        run(group)
    there = [row is not None for row in outputs]
    return np.stack([row for row in outputs if row is not None]), targets[there]


class FeatureBatches:
    """Batches of a frozen encoder's representations of whole clips, each computed once.

    Parameters
    ----------
    encoder : CNN12
        In `eval` mode.
    data : Dataset
    seed : int >= 0
    batch_size : int >= 1
        Of the whole batch; all processes together.
    shuffle_labels : bool
        Deal the labels out among the clips at random, once.
    runtime : Runtime

    Attributes
    ----------
    reader : ClipReader
        The next clip stands in for one that cannot be read, which is counted.
    mean, scale : Tensor, shape (dim,)
        Of the features: they are standardised, and `folded` undoes it.

    Raises
    ------
    ConfigError
        If the batch cannot be divided among the processes.
    """

    views = 1

    def __init__(
        self,
        encoder: CNN12,
        data: Dataset,
        *,
        seed: int,
        batch_size: int,
        shuffle_labels: bool,
        runtime: Runtime,
    ) -> None:
        self._shares = Shares(
            data,
            seed=seed,
            batch_size=batch_size,
            shuffle_labels=shuffle_labels,
            rank=runtime.rank,
            processes=runtime.processes,
        )
        self._encoder, self._runtime, self.reader = encoder, runtime, ClipReader(data)
        self.mean, self.scale = torch.zeros(encoder.dim), torch.ones(encoder.dim)
        features, targets = self.features_of(data, read=self.reader.nearest)
        self.mean, spread = features.mean(dim=0), features.std(dim=0)
        # A feature that never changes, such as a dead filter's, is not blown up where it does.
        changes = spread > 1e-5 * features.abs().amax(dim=0)
        self.scale = torch.where(changes, spread, 1.0)
        self._features = (features - self.mean) / self.scale
        self._targets = targets[torch.from_numpy(self._shares.label_of)]

    def features_of(
        self, data: Dataset, *, read: Callable[[int], Clip | None] | None = None
    ) -> tuple[Float[Tensor, "clips dim"], Float[Tensor, "clips classes"]]:
        """The standardised representation of every clip of a data set, and its targets."""
        features, targets = predict(
            lambda x: self._encoder(self._runtime.put(x)).float().cpu(),
            data,
            least_length=self._encoder.least_length,
            progress=self._runtime.is_main,
            read=read,
        )
        return (torch.from_numpy(features) - self.mean) / self.scale, torch.from_numpy(targets)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._shares)

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, in order; see `CropBatches.epoch`."""
        for indices in self._shares.epoch(epoch)[first:]:
            rows = torch.from_numpy(indices)
            yield Batch(self._features[rows], self._targets[rows], self._shares.own)

    def folded(self, encoder: CNN12, head: nn.Linear, classes: tuple[str, ...]) -> Classifier:
        """The classifier of waveforms that `head`, a classifier of these features, makes.

        Parameters
        ----------
        encoder : CNN12
        head : torch.nn.Linear
            Trained on the standardised features.
        classes : tuple of str

        Returns
        -------
        Classifier
        """
        whole = Classifier(encoder, classes)
        weight: Float[Tensor, "classes dim"] = head.weight.detach().cpu() / self.scale
        with torch.no_grad():
            whole.head.weight.copy_(weight)
            whole.head.bias.copy_(head.bias.detach().cpu() - weight @ self.mean)
        return whole.eval()
