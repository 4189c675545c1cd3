"""Scenes whose sources are known, and how much of each source a sound holds.

A sonification is a filtered, partial copy of its input, so that no single figure says what it
holds. `si_sdr` asks for the very waveform of a stem, and takes whatever else there is as
distortion; `projected_shares` asks the same of all stems at once; `spectral_shares` asks only where
the energy lies, so that a filtered stem counts in full. `source_scores` sums them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sonibook.analysis.stream import Measured
from sonibook.datasets.base import Clip, Dataset, Subset
from sonibook.datasets.soundscapes import Event, SceneDataset
from sonibook.errors import AnalysisError
from sonibook.metrics.similarity import short_time_spectra

#: Of a sound beside the sources of a scene, by `source_scores`.
SOURCE_SCORES = ("explained share", "main stem's share", "gain in share", "SI-SDR", "SI-SDR gain")


@dataclass(frozen=True)
class SceneClip(Clip):
    """A clip and its events, in the order of their onsets."""

    events: tuple[Event, ...]

    @property
    def stems(self) -> Float[Tensor, "events time"]:
        """The stems of the events that sound."""
        return torch.stack([torch.from_numpy(one.stem) for one in self.events if one.stem.any()])


class SceneClips(Subset):
    """The scenes of a data set as clips that know their events; `AnalysisError` if it has none."""

    def __init__(self, scenes: Dataset) -> None:
        if not isinstance(scenes, SceneDataset):
            raise AnalysisError(
                f"The stems of {scenes.name} are not known: take scenes, such as soundscapes, or "
                f"soundscapes with mixture_of={scenes.name}."
            )
        super().__init__(scenes)
        self.scenes = scenes

    def __getitem__(self, index: int) -> SceneClip:
        scene = self.scenes.scene(index)
        return SceneClip(scene.mixture, scene.labels, scene.clip_id, scene.events)


def count_sources(clips: Sequence[Clip]) -> Measured:
    """How many sources each clip has, where it is a scene of several; else NaN."""
    counts = [len(clip.stems) if isinstance(clip, SceneClip) else 0 for clip in clips]
    return {"sources": np.array([count if count > 1 else np.nan for count in counts], float)}


def si_sdr(
    s: Float[Tensor, "*batch time"], stem: Float[Tensor, "*references time"]
) -> Float[Tensor, "*pairs"]:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, "SDR: half-baked or well
    done?", equation 5).

    Parameters
    ----------
    s, stem : Tensor, shapes (..., time)
        Estimates and what they are to be like; their shapes are broadcast. No mean is taken away.

    Returns
    -------
    Tensor, shape (...), float64, in dB
        Infinite for the stem itself, -inf for what has nothing of it, NaN where one is silent.

    Examples
    --------
    >>> stem = torch.tensor([1.0, 0.0, -1.0, 0.0])
    >>> float(si_sdr(torch.tensor([3.0, 3.0, -3.0, 3.0]), stem))
    0.0
    """
    s, stem = s.double(), stem.double()
    cross, energy = (s * stem).sum(dim=-1), stem.square().sum(dim=-1)
    scale = cross / energy
    rest = (s - scale.unsqueeze(-1) * stem).square().sum(dim=-1)
    ratio = 10 * (scale.square() * energy / rest).log10()
    return ratio.masked_fill(s.square().sum(dim=-1) == 0, torch.nan)


def projected_shares(
    s: Float[Tensor, "sounds time"], stems: Float[Tensor, "events time"]
) -> Float[Tensor, "sounds events"]:
    """Share of each sound's energy that is one of the stems, times a number (least squares).

    What could be told of several, where stems are correlated, is dealt out by Löwdin's symmetric
    orthogonalisation: the stems are replaced by the nearest signals that are orthogonal, which
    favours none (R. Gibson 1962; J. Johnson 2000, "relative weights").
    """
    s, stems = s.double(), stems.double()
    norms = stems.norm(dim=1, keepdim=True)
    unit = stems / norms.where(norms > 0, 1.0)
    values, vectors = torch.linalg.eigh(unit @ unit.T)
    # Stems that are copies of each other leave directions without energy: nothing lies there.
    alive = values > 1e-10 * values.amax()
    inverse = torch.where(alive, values, 1.0).rsqrt() * alive
    orthonormal = (vectors * inverse) @ vectors.T @ unit
    return (s @ orthonormal.T).square() / s.square().sum(dim=1, keepdim=True)


def spectral_shares(
    s: Float[Tensor, "sounds time"], stems: Float[Tensor, "events time"]
) -> Float[Tensor, "sounds events"]:
    """Share of each sound's energy that lies where a stem does, in time and frequency.

    Power in frames of 32 ms is dealt out in proportion to the stems' power (an ideal ratio mask).
    """
    powers, power = (short_time_spectra(x.double()).abs().square() for x in (stems, s))
    total = powers.sum(dim=0)
    masks = powers / total.where(total > 0, 1.0)
    return torch.einsum("sft,eft->se", power, masks) / power.sum(dim=(1, 2))[:, None]


def source_scores(
    sounds: Float[Tensor, "sounds time"],
    mixture: Float[Tensor, " time"],
    stems: Float[Tensor, "events time"],
) -> Float[Tensor, "sounds measures"]:
    """What sounds hold of a scene: any sounds, sonifications or other explanations.

    Each is judged by the stem it holds most of, by `spectral_shares`. To pick the best of several
    flatters every sound alike: read it against those of an untrained network.

    Parameters
    ----------
    sounds, mixture : Tensor, shapes (sounds, time) and (time,)
    stems : Tensor, shape (events, time)
        Two at least.

    Returns
    -------
    Tensor, shape (sounds, 5), float64
        In the order of `SOURCE_SCORES`: the share of the sound's energy that is the stems' own
        waveforms (`projected_shares`), the main stem's share in the sound (`spectral_shares`), the
        same less its share in the mixture, the sound's SI-SDR to the main stem in dB (no less
        than -60), and the same less the mixture's. NaN for a silent sound.
    """
    shares, whole = spectral_shares(sounds, stems), spectral_shares(mixture[None], stems)[0]
    main = shares.nan_to_num().argmax(dim=1)
    rows = torch.arange(len(sounds))
    ratio = si_sdr(sounds, stems[main]).clamp_min(-60.0)
    before = si_sdr(mixture, stems)[main]
    share = shares[rows, main]
    explained = projected_shares(sounds, stems).sum(dim=1)
    return torch.stack([explained, share, share - whole[main], ratio, ratio - before], dim=1)


def scores_in_scene(
    sounds: Float[Tensor, "sounds time"], clip: Clip
) -> Float[Tensor, "sounds measures"]:
    """`source_scores` of sounds of a clip; NaN where that is not a scene of several sources."""
    if isinstance(clip, SceneClip) and len(clip.stems) > 1:
        return source_scores(sounds, torch.from_numpy(clip.waveform), clip.stems)
    return torch.full((len(sounds), len(SOURCE_SCORES)), torch.nan, dtype=torch.float64)
