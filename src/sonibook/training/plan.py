"""What a configuration would run, and for how long, before it is run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from sonibook.audio import SAMPLE_RATE
from sonibook.model.encoder import CNN12, Classifier
from sonibook.training.config import TrainConfig
from sonibook.training.distributed import Runtime

#: Seconds of sound that the trial step takes in: enough to fill a laptop's cores.
_TRIAL_SECONDS = 20.0


@dataclass(frozen=True)
class Plan:
    """The size of a run.

    Attributes
    ----------
    parameters : int
        Of the published encoder.
    batches : int
        An epoch.
    steps : int
        In all.
    hours : float
        Estimated for this machine, from a few steps on noise; reading and evaluation apart. For a
        frozen encoder: one pass over the training clips.
    """

    parameters: int
    batches: int
    steps: int
    hours: float


def plan(
    config: TrainConfig, encoder: CNN12, *, clips: int, classes: int, runtime: Runtime
) -> Plan:
    """Count a run's steps and time a few like them.

    Parameters
    ----------
    config : TrainConfig
    encoder : CNN12
        As it is before the first step.
    clips, classes : int
        Of the training part.
    runtime : Runtime
        Where the run would be; one process.

    Returns
    -------
    Plan
    """
    batches = clips // config.optimiser.batch_size
    steps = config.optimiser.epochs * batches
    views = 2 if config.objective == "nt_xent" else 1
    frozen = config.encoder.fc_only
    crops = clips if frozen else steps * config.optimiser.batch_size * views
    hours = crops * _seconds_a_crop(config, encoder, classes, runtime) / 3600
    return Plan(sum(p.numel() for p in encoder.fold().parameters()), batches, steps, hours)


def _seconds_a_crop(config: TrainConfig, encoder: CNN12, classes: int, runtime: Runtime) -> float:
    """Time of a crop's way through a step, forward and back."""
    crops = max(1, round(_TRIAL_SECONDS / config.data.crop_seconds))
    network = Classifier(encoder, tuple(map(str, range(classes))), seed=0)
    network = runtime.place(network).train(not config.encoder.fc_only)
    samples = round(config.data.crop_seconds * SAMPLE_RATE)
    x = runtime.put(torch.randn(crops, 1, samples, generator=torch.Generator().manual_seed(0)))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        with runtime.autocast(), torch.set_grad_enabled(not config.encoder.fc_only):
            total = network(x).float().sum()
            if total.requires_grad:
                total.backward()
        total.detach().item()
        times.append(time.perf_counter() - started)
    return min(times) / crops
