"""A frozen encoder's features, computed once: what the paper's fc-only trains on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.datasets.base import Dataset
from sonibook.model.encoder import CNN12, Classifier
from sonibook.training.batches import Batch, Shares
from sonibook.training.distributed import Runtime
from sonibook.training.evaluate import predict


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
        self._encoder, self._runtime = encoder, runtime
        self.mean, self.scale = torch.zeros(encoder.dim), torch.ones(encoder.dim)
        features, targets = self.features_of(data)
        self.mean, spread = features.mean(dim=0), features.std(dim=0)
        # A feature that never changes, such as a dead filter's, is not blown up where it does.
        changes = spread > 1e-5 * features.abs().amax(dim=0)
        self.scale = torch.where(changes, spread, 1.0)
        self._features = (features - self.mean) / self.scale
        self._targets = targets[torch.from_numpy(self._shares.label_of)]

    def features_of(
        self, data: Dataset
    ) -> tuple[Float[Tensor, "clips dim"], Float[Tensor, "clips classes"]]:
        """The standardised representation of every clip of a data set, and its targets."""
        features, targets = predict(
            lambda x: self._encoder(self._runtime.put(x)).float().cpu(),
            data,
            least_length=self._encoder.least_length,
            progress=self._runtime.is_main,
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
