"""Whole clips: what a network says of each, and a classifier's training on what it says.

What a network says of a clip does not depend on what it is batched with.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from tqdm.auto import tqdm

from sonibook.audio import pad
from sonibook.datasets.base import Clip, Dataset


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
