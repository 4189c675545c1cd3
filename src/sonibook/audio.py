"""Sound files in, mono float32 waveforms at 8 kHz out; the only place that opens sound files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int16
from numpy import ndarray

from sonibook.errors import AudioError, MissingAudioError, SonibookWarning
from sonibook.files import atomic

if TYPE_CHECKING:
    import soundfile

SAMPLE_RATE = 8000
#: Of 16-bit integers, in a pack and on a dashboard.
_FULL_SCALE = 32767
#: Endings of the files that `read_audio` reads.
EXTENSIONS = (
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64",
    ".w64", ".wav",
)  # fmt: skip
#: Rates, in Hz, that a sound may have: at 1 Hz, a megabyte would become hours.
RATES = 100, 10_000_000
#: A longer sound is not read: a kilobyte of FLAC can hold hours of silence.
_LONGEST_HOURS = 24.0
_BLOCK_SECONDS = 10.0
#: Samples of a block, over all channels: a header may claim a thousand channels.
_BLOCK_SAMPLES = 1 << 24
#: A mean this far below its channels is what their rounding leaves.
_CANCELLED = 10.0 ** (-50.0 / 20.0)
#: What libsndfile notes of a header that promises more bytes than there are.
_CUT_SHORT = re.compile(
    r"^ *(?:data|riff|data size|riff size|ssnd) *: (\d+) \(should be (\d+)\)$", re.I
)
#: What writers that cannot go back to the header put there: near 2**31 or 2**32.
_UNKNOWN_SIZES = (range(0x7FFF_0000, 0x8001_0000), range(0xFFFF_0000, 0x1_0000_0000))
#: Of frames, where a header does not count them.
_UNKNOWN_COUNT = 1 << 40
#: Whole MP3s hold some frames less than libsndfile counts in them.
_MP3_SLACK = 16 * 1152
#: Bytes of the largest page of Ogg, and the flag of the last one.
_OGG_PAGE, _OGG_LAST = 65_307, 4


def read_audio(
    path: str | Path, *, sample_rate: int = SAMPLE_RATE, unit_peak: bool = True
) -> Float[ndarray, " time"]:
    """Read a sound file as the network wants it.

    Channels are averaged, the sound is resampled by soxr at its high quality, and its peak is
    scaled to 1 (paper, section 3.1). The file is read in blocks of ten seconds, so that an hour
    of 96 kHz surround sound needs no more memory than its 8 kHz mono result.

    Parameters
    ----------
    path : str or Path
        WAV (8 to 32 bit, or float), FLAC, OGG, MP3, AIFF, CAF or W64, of any rate and number of
        channels.
    sample_rate : int from 100 to 10,000,000, in Hz
    unit_peak : bool
        Whether to scale the largest magnitude to 1.

    Returns
    -------
    ndarray, shape (time,), float32

    Raises
    ------
    AudioError
        If the file is missing, damaged, empty or silent (silence only with `unit_peak`), lasts
        more than 24 hours, or holds samples that are not finite.

    Warns
    -----
    SonibookWarning
        If the file is cut short, or its channels cancel each other.
    """
    import soundfile
    import soxr

    path = Path(path)
    if not path.is_file():
        raise MissingAudioError(f"{path}: there is no such file.")
    pieces: list[ndarray] = []
    count, loudest, loudest_channel = 0, 0.0, 0.0
    with _reading(path), soundfile.SoundFile(path) as file:
        rate = file.samplerate
        if not RATES[0] <= rate <= RATES[1]:
            raise AudioError(f"{path}: claims a rate of {rate:,} Hz, which no sound has.")
        resampler = soxr.ResampleStream(rate, sample_rate, 1, quality="HQ")
        size = max(min(int(_BLOCK_SECONDS * rate), _BLOCK_SAMPLES // file.channels), 1)
        # Not file.blocks(): where a header promises more than there is, as an MP3's may, its
        # last block ends in whatever the memory held.
        while len(block := file.read(size, dtype="float32", always_2d=True)):
            count += len(block)
            if count > _LONGEST_HOURS * 3600 * rate:
                raise AudioError(
                    f"{path}: lasts more than {_LONGEST_HOURS:g} hours: cut it into pieces."
                )
            with np.errstate(over="ignore", invalid="ignore"):
                mono = block.mean(axis=1, dtype=np.float32)
            if file.channels > 1:
                loudest = max(loudest, float(np.abs(mono).max()))
                loudest_channel = max(loudest_channel, float(np.abs(block).max()))
            pieces.append(resampler.resample_chunk(mono))
        pieces.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        share = _share_there(file, count)
    x = np.concatenate(pieces).astype(np.float32, copy=False)
    if count == 0:
        raise AudioError(f"{path}: holds no samples: it is empty, or was cut short.")
    if x.size == 0:
        raise AudioError(
            f"{path}: is too short: its {count} samples make none at {sample_rate} Hz."
        )
    if not np.isfinite(x).all():
        raise AudioError(f"{path}: holds samples that are NaN or infinite.")
    if share < 1:
        _warn(f"{path}: was cut short: it holds {share:.1%} of what its header promises.")
    elif _is_ogg_without_end(path):
        _warn(f"{path}: was cut short: its last page is missing.")
    if loudest < _CANCELLED * loudest_channel:
        problem = f"{path}: its channels cancel each other: their mean is "
        if loudest == 0 and unit_peak:
            raise AudioError(f"{problem}silent: give one of them.")
        _warn(f"{problem}next to nothing, and may be rounding noise: give one of them.")
    if not unit_peak:
        return x
    try:
        return scale_to_peak(x)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What the sound library cannot read, in sentences."""
    import soundfile

    try:
        yield
    except UnicodeEncodeError:
        raise AudioError(
            f"{path}: the sound library cannot open a name that is not Unicode text: rename it."
        ) from None
    except (soundfile.LibsndfileError, TypeError) as error:
        # TypeError: the ending .raw, which soundfile takes to mean that there is no header.
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        if reason.startswith("File does not exist"):  # of an MP3 without one whole frame
            reason = "it is damaged, or something else"
        raise AudioError(
            f"{path}: cannot be read as sound ({reason}): give a WAV, FLAC, OGG or MP3 file."
        ) from None


def promised_samples(path: Path, *, sample_rate: int = SAMPLE_RATE) -> int:
    """How long a file is by its header alone, once resampled; AudioError if it has none."""
    import soundfile

    with _reading(path):
        header = soundfile.info(path)
    longest = int(_LONGEST_HOURS * 3600 * header.samplerate)
    return round(min(header.frames, longest) * sample_rate / header.samplerate)


def _share_there(file: soundfile.SoundFile, count: int) -> float:
    """Which share there is of what a file's header promises, when `count` samples were read."""
    slack = _MP3_SLACK if file.format == "MP3" else 0
    shares = [count / file.frames] if count + slack < file.frames < _UNKNOWN_COUNT else []
    for line in file.extra_info.splitlines():
        match = _CUT_SHORT.match(line)
        if match and not any(int(match[1]) in sizes for sizes in _UNKNOWN_SIZES):
            shares.append(int(match[2]) / max(int(match[1]), 1))
    return min(shares, default=1.0)


def _is_ogg_without_end(path: Path) -> bool:
    """Whether a file is Ogg whose last page is cut or not marked as such (RFC 3533, section 6)."""
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return False
        size = file.seek(0, 2)
        file.seek(max(size - _OGG_PAGE, 0))
        tail = file.read()
    page = tail[tail.rfind(b"OggS\0") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    whole = len(page) > 26 and len(segments) == page[26]
    return not whole or len(page) < 27 + len(segments) + sum(segments) or not page[5] & _OGG_LAST


def _warn(sentence: str) -> None:
    warnings.warn(sentence, SonibookWarning, stacklevel=3)


def scale_to_peak(x: Float[ndarray, " time"], *, peak: float = 1.0) -> Float[ndarray, " time"]:
    """Scale a waveform so that its largest magnitude is `peak`.

    Parameters
    ----------
    x : ndarray, shape (time,)
        AudioError if it is empty, silent, or holds samples that are not finite.
    peak : float > 0

    Returns
    -------
    ndarray, shape (time,), float32
    """
    x = as_waveform(x)
    loudest = float(np.abs(x).max())
    if loudest == 0.0:
        raise AudioError("the sound is silent: every sample is zero, so there is nothing to scale.")
    # Divide first: a subnormal peak would overflow `peak / loudest`.
    return (x / np.float32(loudest)) * np.float32(peak)


def as_waveform(x: object) -> Float[ndarray, " time"]:
    """`x`, an array or Tensor on any device, as one float32 waveform; AudioError if it is none."""
    array = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
    if np.iscomplexobj(array):
        raise AudioError("a waveform is real, this is complex: take its real part.")
    array = array.astype(np.float32, copy=False)
    if array.ndim != 1:
        raise AudioError(f"a waveform has shape (time,), this has {array.shape}.")
    if array.size == 0:
        raise AudioError("the sound holds no samples.")
    if not np.isfinite(array).all():
        first = int(np.flatnonzero(~np.isfinite(array))[0])
        raise AudioError(f"sample {first} is NaN or infinite.")
    return array


def quantise(x: Float[ndarray, " time"]) -> Int16[ndarray, " time"]:
    """A waveform as little-endian 16-bit integers; AudioError where it leaves [-1, 1]."""
    loudest = float(np.abs(x).max(initial=0.0))
    if not loudest <= 1.0 + 1e-6:
        raise AudioError(f"its samples reach {loudest:.3g}, and must lie in [-1, 1].")
    return np.rint(np.clip(x, -1.0, 1.0) * _FULL_SCALE).astype("<i2")


def dequantise(samples: Int16[ndarray, " time"]) -> Float[ndarray, " time"]:
    """The waveform, float32, that `quantise` made integers of."""
    return samples.astype(np.float32) / np.float32(_FULL_SCALE)


def excerpt(
    x: object,
    *,
    seconds: float = 2.0,
    sample_rate: int = SAMPLE_RATE,
    least_length: int = 0,
    unit_peak: bool = False,
) -> Float[ndarray, " excerpt"]:
    """The loudest `seconds` of a clip, so that a player is small and not mostly silence.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
    seconds : float > 0
    sample_rate : int > 0, in Hz
    least_length : int, in samples
        Zeros follow if there are fewer: such as a network's least input.
    unit_peak : bool
        Whether to scale the largest magnitude to 1; AudioError then if `x` is silent.

    Returns
    -------
    ndarray, shape (excerpt,)
        The stretch with the most energy; of equal ones the first. All of `x` if it is shorter.
    """
    array = as_waveform(x)
    length = max(round(seconds * sample_rate), 1)
    if len(array) > length:
        total = np.concatenate([[0.0], np.cumsum(np.square(array, dtype=np.float64))])
        start = int(np.argmax(total[length:] - total[:-length]))
        array = array[start : start + length]
    array = pad(array, least_length)
    return scale_to_peak(array) if unit_peak else array


def rms(x: object) -> float:
    """The root mean square of a waveform.

    Parameters
    ----------
    x : ndarray or Tensor, shape (time,)
        AudioError if it is not a waveform.
    """
    return float(np.sqrt(np.square(as_waveform(x)).mean()))


def pad(x: Float[ndarray, " time"], length: int) -> Float[ndarray, " length"]:
    """Zeros after `x` until it has at least `length` samples; longer sounds stay as they are."""
    return x if len(x) >= length else np.pad(x, (0, length - len(x)))


def cut(x: Float[ndarray, " time"], start: int, length: int) -> Float[ndarray, " length"]:
    """`length` samples of `x` from `start` on, with zeros where `x` ends before."""
    return pad(x[start : start + length], length)


def sounding_starts(x: Float[ndarray, " time"], length: int, *, share: float = 0.25) -> ndarray:
    """Where a crop of `length` samples may start so that it holds sound.

    A fifth of ESC-50's clips end in a second or more of digital silence; a crop of silence teaches
    nothing.

    Parameters
    ----------
    x : ndarray, shape (time,)
    length : int > 0, in samples
    share : float in (0, 1]
        Least share of the crop that must lie between the first and last sounding sample; what is
        60 dB below the peak of `x` counts as silence.

    Returns
    -------
    ndarray of int, shape (2,)
        First and last possible start; both 0 where the clip is no longer than the crop.
    """
    last = max(len(x) - length, 0)
    loud = np.flatnonzero(np.abs(x) > np.abs(x).max() * 10 ** (-60 / 20))
    if last == 0 or loud.size == 0:
        return np.array([0, last])
    need = int(min(share * length, loud[-1] - loud[0] + 1))
    first_start = np.clip(loud[0] + need - length, 0, last)
    last_start = np.clip(loud[-1] + 1 - need, first_start, last)
    return np.array([first_start, last_start])


def write_wav(
    path: str | Path, x: Float[ndarray, " time"], *, sample_rate: int = SAMPLE_RATE
) -> None:
    """Write a waveform as 16-bit WAV, whole or not at all; AudioError if it would be clipped."""
    import soundfile

    x = as_waveform(x)
    loudest = float(np.abs(x).max())
    if loudest > 1.0 + 1e-6:
        raise AudioError(f"the sound peaks at {loudest:.3g} and would clip: scale it to 1 at most.")
    with atomic(path) as temporary:
        # libsndfile cuts fractions off; rounding halves the error.
        samples = np.clip(np.rint(x * 32768), -32768, 32767).astype(np.int16)
        soundfile.write(temporary, samples, sample_rate, "PCM_16", format="WAV")
