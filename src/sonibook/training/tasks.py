"""What is trained: a classifier, a classifier on frozen features, or a contrastive encoder.

A task says what a step's loss is, how the network stands on the test part, and what is published.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.datasets.base import ClipReader, Dataset
from sonibook.metrics import multilabel_metrics, single_label_metrics
from sonibook.model.encoder import CNN12, DROPOUT, Classifier
from sonibook.model.layers import he_normal
from sonibook.training.config import TrainConfig
from sonibook.training.data import DROPPING, Batch, CropBatches
from sonibook.training.distributed import Runtime
from sonibook.training.evaluate import FeatureBatches, predict
from sonibook.training.objectives import binary_cross_entropy, cross_entropy, nt_xent
from sonibook.training.random_streams import RandomStreams

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)

_LOSSES = {"cross_entropy": cross_entropy, "binary_cross_entropy": binary_cross_entropy}


class Task(ABC):
    """Something to train.

    Attributes
    ----------
    network : torch.nn.Module
        Whose parameters are trained.
    batches : CropBatches or FeatureBatches
    test_reader : ClipReader
        Of the test part: knows which of its clips cannot be read.
    measures : tuple of str
        What `evaluate` gives that a log should have.
    """

    network: nn.Module
    batches: CropBatches | FeatureBatches
    test_reader: ClipReader
    measures: tuple[str, ...]

    @abstractmethod
    def loss(self, batch: Batch, step: int, runtime: Runtime) -> Float[Tensor, ""]:
        """The mean loss of this process's part of a batch."""

    @abstractmethod
    def evaluate(
        self, runtime: Runtime, published: CNN12 | Classifier | None = None
    ) -> dict[str, float]:
        """How the network, or what was published of it, stands on the test part."""

    @abstractmethod
    def published(self) -> CNN12 | Classifier:
        """What is saved, as it is now: on the CPU, in evaluation mode."""


def _kept(config: TrainConfig, batch: Batch, step: int, encoder: CNN12) -> Tensor | None:
    """What dropout keeps of this step: the same however the batch is divided among processes."""
    if not encoder.fc1:
        return None
    streams = RandomStreams(config.seed, step, batch.rows.tolist(), purpose=DROPPING)
    return streams.kept(1 - DROPOUT, encoder.channels)


def _measured(scores: ndarray, targets: ndarray, data: Dataset) -> dict[str, float]:
    measure = single_label_metrics if data.task == "single-label" else multilabel_metrics
    return measure(scores, targets)


def _scored(
    network: nn.Module, reader: ClipReader, runtime: Runtime, least_length: int
) -> dict[str, float]:
    """Metrics of a classifier, in evaluation mode, on whole clips."""
    scores, targets = predict(
        lambda x: network(runtime.put(x)).float().cpu(),
        reader.data,
        least_length=least_length,
        read=reader,
    )
    return _measured(scores, targets, reader.data)


def measures_of(data: Dataset) -> tuple[str, ...]:
    """The metrics that are logged of a classifier of this data."""
    return ("accuracy",) if data.task == "single-label" else ("mAP", "mAUC", "d_prime")


class Supervised(Task):
    """A classifier, trained whole (the paper's "full")."""

    network: Classifier

    def __init__(
        self, config: TrainConfig, network: Classifier, batches: CropBatches, test_data: Dataset
    ) -> None:
        self.config, self.network, self.batches = config, network, batches
        self.test_reader, self.measures = ClipReader(test_data), measures_of(test_data)

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> Float[Tensor, ""]:
        kept = _kept(self.config, batch, step, self.network.encoder)
        logits = self.network(
            runtime.put(batch.x), kept=None if kept is None else runtime.put(kept)
        )
        return _LOSSES[self.config.objective](logits.float(), runtime.put(batch.targets))

    def evaluate(
        self, runtime: Runtime, published: CNN12 | Classifier | None = None
    ) -> dict[str, float]:
        network = self.network.eval() if published is None else published.to(runtime.device)
        return _scored(network, self.test_reader, runtime, self.network.encoder.least_length)

    def published(self) -> Classifier:
        return _copy(self.network)


class FcOnly(Task):
    """A linear classifier on a frozen encoder's features (the paper's "fc-only")."""

    network: nn.Linear
    batches: FeatureBatches

    def __init__(
        self, config: TrainConfig, encoder: CNN12, batches: FeatureBatches, test_data: Dataset
    ) -> None:
        self.config, self.encoder, self.batches = config, encoder, batches
        self.test_reader, self.measures = ClipReader(test_data), measures_of(test_data)
        self.network = Classifier(encoder, test_data.classes, seed=config.seed).head
        self._test = batches.features_of(test_data, read=self.test_reader)

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> Float[Tensor, ""]:
        logits = self.network(runtime.put(batch.x))
        return _LOSSES[self.config.objective](logits, runtime.put(batch.targets))

    def evaluate(
        self, runtime: Runtime, published: CNN12 | Classifier | None = None
    ) -> dict[str, float]:
        if published is not None:
            whole = published.to(runtime.device)
            return _scored(whole, self.test_reader, runtime, self.encoder.least_length)
        features, targets = self._test
        with torch.no_grad():
            scores = self.network(runtime.put(features)).cpu().numpy()
        return _measured(scores, targets.numpy(), self.test_reader.data)

    def published(self) -> Classifier:
        return self.batches.folded(_copy(self.encoder), self.network, self.test_reader.data.classes)


class ContrastiveNetwork(nn.Module):
    """An encoder and its projection head.

    Parameters
    ----------
    encoder : CNN12
        With `features` "mean", its last linear layer is frozen.
    projection : int
        Units of the output z.
    seed : int
        Of the head's initial weights (He, with zero biases).
    hidden : sequence of int, or None
        Units of the head's hidden layers, each with a ReLU. None is the paper's head (section 3.1):
        one layer, as wide as z.
    features : {"h", "mean"}
        What the head sees: h, the encoder's output, or the mean feature maps of its last block.
    """

    def __init__(
        self,
        encoder: CNN12,
        *,
        projection: int,
        seed: int,
        hidden: Sequence[int] | None = None,
        features: Literal["h", "mean"] = "h",
    ) -> None:
        super().__init__()
        self.encoder, self.features = encoder, features
        if features == "mean":
            encoder.fc1.requires_grad_(False)
        widths = [encoder.dim if features == "h" else encoder.channels]
        self.projection = nn.Sequential()
        for units in (projection,) if hidden is None else hidden:
            self.projection.extend([nn.Linear(widths[-1], units), nn.ReLU()])
            widths.append(units)
        self.projection.append(nn.Linear(widths[-1], projection))
        generator = torch.Generator().manual_seed(seed)
        for module in self.projection:
            if isinstance(module, nn.Linear):
                he_normal(module, generator)

    def forward(
        self, x: Float[Tensor, "batch 1 time"], *, kept: Tensor | None = None
    ) -> Float[Tensor, "batch projection"]:
        """z, shape (batch, projection), of waveforms, shape (batch, 1, time)."""
        return self.projected(self.encoder, x, kept=kept)

    def projected(
        self, encoder: CNN12, x: Float[Tensor, "batch 1 time"], *, kept: Tensor | None = None
    ) -> Float[Tensor, "batch projection"]:
        """The z that this head makes of another encoder of the same size."""
        pooled = self.features == "mean"
        return self.projection(encoder.pooled(x) if pooled else encoder(x, kept=kept))


class Contrastive(Task):
    """An encoder that learns to know two stretches of one clip among all others."""

    network: ContrastiveNetwork
    measures = ("loss", "retrieval")

    def __init__(
        self,
        config: TrainConfig,
        network: ContrastiveNetwork,
        batches: CropBatches,
        test_batches: CropBatches,
    ) -> None:
        self.config, self.network = config, network
        self.batches, self.test_batches = batches, test_batches
        self.test_reader = test_batches.reader

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> Float[Tensor, ""]:
        head_on_h = self.network.features == "h"
        kept = _kept(self.config, batch, step, self.network.encoder) if head_on_h else None
        z = self.network(runtime.put(batch.x), kept=None if kept is None else runtime.put(kept))
        return nt_xent(z, temperature=self.config.contrastive.temperature, runtime=runtime)

    @torch.no_grad()
    def evaluate(
        self, runtime: Runtime, published: CNN12 | Classifier | None = None
    ) -> dict[str, float]:
        """Loss, and the share of rows nearest to their partner, on batches of the test part.

        The batches are always the same, and not augmented.
        """
        self.network.eval()
        encoder = self.network.encoder
        if isinstance(published, CNN12):
            encoder = published.to(runtime.device)
        losses, found = [], []
        for batch in self.test_batches.epoch(0):
            z = self.network.projected(encoder, runtime.put(batch.x)).float().cpu()
            losses.append(float(nt_xent(z, temperature=self.config.contrastive.temperature)))
            unit = torch.nn.functional.normalize(z, dim=1)
            similarity = (unit @ unit.T).fill_diagonal_(-2.0)
            partner = torch.arange(len(z)).roll(len(z) // 2)
            found.append(float((similarity.argmax(dim=1) == partner).float().mean()))
        return {"loss": sum(losses) / len(losses), "retrieval": sum(found) / len(found)}

    def published(self) -> CNN12:
        return _copy(self.network.encoder)


def _copy(network: AnyNetwork) -> AnyNetwork:
    return deepcopy(network).to("cpu").eval()
