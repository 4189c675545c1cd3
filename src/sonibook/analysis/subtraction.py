"""What a network says of clips from which something was taken away: the measure of `ablate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy import ndarray
from scipy.special import log_expit, log_softmax
from torch import Tensor, nn

from sonibook.analysis.controls import (
    Control,
    Level,
    Material,
    Residual,
    finished,
    levelled,
    partners,
    removals,
)
from sonibook.analysis.networks import mixed, untrained
from sonibook.analysis.stream import seeded
from sonibook.datasets.base import Clip, Dataset, Task
from sonibook.deconvnet.attributions import Method, most_active_sounds
from sonibook.errors import AnalysisError
from sonibook.model.stack import blocks_of, check_layer, least_length

#: Samples that the network hears at once, residuals times their length.
_AT_ONCE = 2**19


def listened_to(classifier: nn.Module) -> nn.Module:
    """The stack that is sonified: the classifier's ``encoder``, or itself where it has none."""
    encoder: nn.Module = getattr(classifier, "encoder", classifier)
    return encoder


def layers_of(classifier: nn.Module, layers: Sequence[int] | None) -> tuple[int, ...]:
    """`layers`, each once and in order, or all, if what is sonified has them.

    Raises
    ------
    LayerError, StackError
        If there is no such layer, or the network cannot be sonified.
    """
    blocks = blocks_of(listened_to(classifier))
    wanted = range(1, len(blocks) + 1) if layers is None else layers
    return tuple(sorted({check_layer(blocks, layer) for layer in wanted}))


@dataclass(frozen=True)
class Subtraction:
    """The measure of `ablate`, for `stream`.

    Attributes
    ----------
    classifier : torch.nn.Module
        From waveforms (batch, 1, time) to logits (batch, classes), in `eval` mode. Its
        ``encoder``, or it itself, is what `sonibook.sonify` takes.
    layers : tuple of int
    controls : tuple of str
        ``"sonification"`` among them.
    method : str
        What stands for the sonification; see `explain`.
    level, residual : str
        See `levelled` and `finished`.
    seed : int
    """

    classifier: nn.Module
    layers: tuple[int, ...]
    controls: tuple[Control, ...]
    method: Method = "sonification"
    level: Level = "peak"
    residual: Residual = "as is"
    seed: int = 0

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        """The logits of each clip, and of what is left of it.

        Returns
        -------
        dict
            ``clip``, shape (clips, classes), and ``residual``, shape (clips, layers, controls,
            classes): NaN where there was nothing to take away. Among two clips or more, each has
            another of them for the control ``"another clip"``. ``targets``, shape (clips,
            classes), is 1 for what a clip is labelled with, else 0.
        """
        sounds = [self._sounds(listened_to(self.classifier), clip) for clip in clips]
        rows = [
            self.logits(clip, s, None if partner is None else sounds[partner])
            for clip, s, partner in zip(clips, sounds, partners(clips), strict=True)
        ]
        targets = np.zeros((len(clips), len(rows[0][0])), np.float32)
        for row, clip in enumerate(clips):
            targets[row, list(clip.labels)] = 1.0
        whole, left = zip(*rows, strict=True)
        return {"clip": np.stack(whole), "residual": np.stack(left), "targets": targets}

    def logits(
        self,
        clip: Clip,
        s: Float[Tensor, "layers time"],
        of_another: Float[Tensor, "layers samples"] | None = None,
    ) -> tuple[Float[ndarray, " classes"], Float[ndarray, "layers controls classes"]]:
        """The logits of one clip, and of what is left of it.

        Parameters
        ----------
        clip : Clip
        s : Tensor, shape (layers, time)
            What is taken away, at the clip's peak.
        of_another : Tensor, shape (layers, samples), or None
            Another clip's.

        Returns
        -------
        clip : ndarray, shape (classes,)
        residual : ndarray, shape (layers, controls, classes)
            NaN where there was nothing to take away.
        """
        x = torch.from_numpy(clip.waveform)
        s = levelled(s, x, self.level)
        by_random = self._by_random(clip) if "random weights" in self.controls else None
        of_another = torch.zeros_like(s) if of_another is None else of_another
        material = Material(x, s, by_random, of_another, clip.clip_id, self.seed)
        taken = removals(material, self.controls).transpose(0, 1)
        # Nothing is compared where the filter's map is silent: no control has a level to match.
        measured = (taken != 0).any(dim=2) & (s != 0).any(dim=1, keepdim=True)
        residuals = finished(x - taken[measured], self.residual)
        heard = self._heard(torch.cat([x[None], residuals]))
        left = np.full((*measured.shape, heard.shape[1]), np.nan, np.float32)
        left[measured.numpy()] = heard[1:]
        return heard[0], left

    def check(self, data: Dataset, *, name: str) -> None:
        """See that the classifier, called `name`, gives a logit for each class of the data.

        Raises
        ------
        AnalysisError
            If it gives more or fewer.
        """
        outputs = self._heard(torch.zeros(1, 1)).shape[1]
        if outputs != len(data.classes):
            raise AnalysisError(
                f"{name} names {outputs} classes and {data.name} has {len(data.classes)}: take "
                "the data set it was trained for."
            )

    def _sounds(self, network: nn.Module, clip: Clip) -> Float[Tensor, "layers time"]:
        x = torch.from_numpy(clip.waveform)
        return most_active_sounds(self.method, network, x, self.layers)[0]

    def _by_random(self, clip: Clip) -> Float[Tensor, "layers time"]:
        """By weights of the clip's own, so that intervals over clips hold for other weights."""
        blocks = blocks_of(listened_to(self.classifier))[: max(self.layers)]
        seed = int(seeded(self.seed, "random weights", clip.clip_id).integers(2**31))
        fresh = untrained(blocks, seed=seed)
        return self._sounds(mixed(fresh, fresh, ()), clip)

    @torch.no_grad()
    def _heard(self, x: Float[Tensor, "sounds time"]) -> Float[ndarray, "sounds classes"]:
        least = least_length(blocks_of(listened_to(self.classifier)))
        waveforms = F.pad(x, (0, max(least - x.shape[1], 0))).unsqueeze(1)
        at_once = max(_AT_ONCE // waveforms.shape[2], 1)
        return torch.cat([self.classifier(some) for some in waveforms.split(at_once)]).numpy()


def log_probability(
    logits: Float[ndarray, "clips *treatments classes"],
    targets: Float[ndarray, "clips classes"],
    task: Task,
) -> Float[ndarray, "clips ..."]:
    """The log-probability of each clip's true labels.

    Parameters
    ----------
    logits : ndarray, shape (clips, ..., classes)
    targets : ndarray of 0 and 1, shape (clips, classes)
    task : {"single-label", "multi-label"}
        Classes exclude each other (softmax), or do not (sigmoid).

    Returns
    -------
    ndarray, shape (clips, ...), in nats
        The mean over a clip's labels; NaN for a clip that has none, or whose logits are NaN.
    """
    wide = logits.astype(np.float64)
    logs = log_softmax(wide, axis=-1) if task == "single-label" else log_expit(wide)
    share = targets / np.where(targets.any(axis=1), targets.sum(axis=1), np.nan)[:, None]
    return (logs * share.reshape(len(share), *[1] * (logits.ndim - 2), -1)).sum(axis=-1)
