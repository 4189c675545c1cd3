"""Reading and writing sound, against analytic sines and an independent resampler."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.signal import resample_poly

from sonibook.audio import (
    SAMPLE_RATE,
    as_waveform,
    cut,
    pad,
    read_audio,
    scale_to_peak,
    sounding_starts,
    write_wav,
)
from sonibook.errors import AudioError, SonibookWarning
from sonibook.files import atomic, remove_leftovers

INNER = slice(400, -400)  # away from the ends, where a resampler has less to go by


def sine(frequency: float, rate: int, *, seconds: float = 1.0, amplitude: float = 0.5):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def tune(rate: int = SAMPLE_RATE, *, seconds: float = 1.0) -> np.ndarray:
    """Something with a shape of its own: a sum of sines that do not repeat together."""
    return sum(sine(f, rate, seconds=seconds, amplitude=0.2) for f in (211.0, 503.0, 1297.0))


# How far a format may be off: half a quantisation step, or what a lossy codec costs.
FORMATS = {
    "WAV PCM_U8": 1 / 128,
    "WAV PCM_16": 2**-15,
    "WAV PCM_24": 2**-23 + 1e-7,
    "WAV PCM_32": 1e-7,
    "WAV FLOAT": 1e-7,
    "WAV DOUBLE": 1e-7,
    "AIFF PCM_16": 2**-15,
    "CAF PCM_16": 2**-15,
    "W64 PCM_16": 2**-15,
    "FLAC PCM_16": 2**-15,
    "FLAC PCM_24": 2**-23 + 1e-7,
    "OGG VORBIS": 0.05,
    "MP3 MPEG_LAYER_III": 0.05,
}


@pytest.mark.parametrize("kind", FORMATS)
def test_reads_what_was_written_in_every_format(tmp_path, kind):
    container, subtype = kind.split()
    path = tmp_path / f"tune.{container.lower()}"
    soundfile.write(path, tune(), SAMPLE_RATE, subtype, format=container)
    x = read_audio(path, unit_peak=False)
    assert x.dtype == np.float32
    assert x.ndim == 1
    expected = tune()
    assert abs(len(x) - len(expected)) <= (0 if container != "MP3" else 2304)
    shared = slice(400, min(len(x), len(expected)) - 400)
    lag = 0
    if container == "MP3":  # A codec may delay by its frame; find by how much.
        lags = range(-1300, 1300)
        lag = max(lags, key=lambda k: float(np.roll(x, -k)[2000:6000] @ expected[2000:6000]))
        shared = slice(2000, 6000)
    np.testing.assert_allclose(np.roll(x, -lag)[shared], expected[shared], atol=FORMATS[kind])


def test_mixes_channels_to_their_mean(tmp_path):
    path = tmp_path / "stereo.wav"
    left, right = tune(), sine(700.0, SAMPLE_RATE)
    soundfile.write(path, np.stack([left, right], axis=1), SAMPLE_RATE, "FLOAT")
    np.testing.assert_allclose(read_audio(path, unit_peak=False), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("kind", ["WAV PCM_16", "FLAC PCM_16", "MP3 MPEG_LAYER_III"])
def test_opposite_channels_that_leave_rounding_noise_are_noticed(tmp_path, kind):
    container, subtype = kind.split()
    path = tmp_path / f"opposite.{container.lower()}"
    channels = np.stack([tune(), -tune() + 1e-5 * np.sin(np.arange(SAMPLE_RATE))], axis=1)
    soundfile.write(path, channels, SAMPLE_RATE, subtype, format=container)
    with pytest.warns(SonibookWarning, match="its channels cancel each other: .*rounding noise"):
        read_audio(path)
    quiet = np.stack([tune(), -0.98 * tune()], axis=1)
    soundfile.write(path, quiet, SAMPLE_RATE, subtype, format=container)
    assert np.abs(read_audio(path)).max() == 1.0  # -40 dB is a sound


def test_reads_six_channels_at_96_khz(tmp_path):
    path = tmp_path / "surround.wav"
    pitches = (150.0, 410.0, 730.0, 1310.0, 2090.0, 3070.0)
    channels = np.stack([sine(f, 96000) for f in pitches], axis=1)
    soundfile.write(path, channels, 96000, "PCM_24")
    expected = np.mean([sine(f, SAMPLE_RATE) for f in pitches], axis=0)
    x = read_audio(path, unit_peak=False)
    assert len(x) == SAMPLE_RATE
    np.testing.assert_allclose(x[INNER], expected[INNER], atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([4000, 11025, 16000, 22050, 32000, 44100, 48000, 96000]),
    share=st.floats(0.02, 0.85),
)
def test_resampling_keeps_a_sine_in_amplitude_and_phase(tmp_path_factory, rate, share):
    frequency = share * min(rate, SAMPLE_RATE) / 2
    path = tmp_path_factory.mktemp("sine") / "sine.wav"
    soundfile.write(path, sine(frequency, rate), rate, "FLOAT")
    x = read_audio(path, unit_peak=False)
    assert abs(len(x) - SAMPLE_RATE) <= 1
    expected = sine(frequency, SAMPLE_RATE)[: len(x)]
    np.testing.assert_allclose(x[INNER], expected[INNER], atol=5e-4)


@pytest.mark.parametrize("rate", [11025, 16000, 44100, 48000, 96000])
@pytest.mark.parametrize("frequency", [4300.0, 5000.0])
def test_nothing_above_half_the_rate_comes_back_as_an_alias(tmp_path, rate, frequency):
    path = tmp_path / "high.wav"
    soundfile.write(path, sine(frequency, rate, amplitude=1.0), rate, "FLOAT")
    x = read_audio(path, unit_peak=False)
    assert np.abs(x[INNER]).max() < 10 ** (-80 / 20)


def test_resampling_agrees_with_another_resampler(tmp_path):
    rng = np.random.default_rng(0)
    rate = 44100
    # Noise below 3 kHz, so that the two filters' transition bands do not matter.
    spectrum = np.fft.rfft(rng.standard_normal(2 * rate))
    spectrum[np.fft.rfftfreq(2 * rate, 1 / rate) > 3000] = 0
    noise = np.fft.irfft(spectrum) * 0.5
    path = tmp_path / "noise.wav"
    soundfile.write(path, noise, rate, "FLOAT")
    expected = resample_poly(noise, 80, 441, window=("kaiser", 12.0))
    error = read_audio(path, unit_peak=False)[INNER] - expected[INNER]
    assert error.std() < 2e-3 * expected.std()


@pytest.mark.parametrize("rate", [8000, 44100])
def test_reading_in_blocks_equals_reading_at_once(tmp_path, monkeypatch, rate):
    path = tmp_path / "long.wav"
    soundfile.write(path, tune(rate, seconds=23.0), rate, "FLOAT")  # three blocks
    in_blocks = read_audio(path)
    monkeypatch.setattr("sonibook.audio._BLOCK_SECONDS", 100.0)
    at_once = read_audio(path)
    assert len(in_blocks) == len(at_once) == 23 * SAMPLE_RATE
    np.testing.assert_allclose(in_blocks, at_once, atol=1e-6)


def test_reads_at_another_rate_when_asked(tmp_path):
    path = tmp_path / "tune.wav"
    soundfile.write(path, tune(16000), 16000, "FLOAT")
    x = read_audio(path, sample_rate=16000, unit_peak=False)
    np.testing.assert_allclose(x, tune(16000), atol=1e-6)


@pytest.mark.parametrize("gain", [1e-4, 0.1, 1.0])
def test_scales_to_unit_peak(tmp_path, gain):
    path = tmp_path / "tune.wav"
    soundfile.write(path, gain * tune(), SAMPLE_RATE, "FLOAT")
    x = read_audio(path)
    assert np.abs(x).max() == 1.0
    np.testing.assert_allclose(x, tune() / np.abs(tune()).max(), atol=1e-5)


def test_one_sample_is_a_sound(tmp_path):
    path = tmp_path / "one.wav"
    soundfile.write(path, np.array([0.25]), SAMPLE_RATE, "FLOAT")
    np.testing.assert_array_equal(read_audio(path), [1.0])


@pytest.mark.parametrize("rate", [44100, 96000])
def test_a_sample_that_resampling_leaves_nothing_of(tmp_path, rate):
    path = tmp_path / "one.wav"
    soundfile.write(path, np.array([0.25]), rate, "FLOAT")
    with pytest.raises(AudioError, match=r"one\.wav: is too short: its 1 samples make none"):
        read_audio(path)


def test_a_header_that_promises_too_much(data_root):
    """An MP3 whose header counts more frames than can be decoded (soundfile's blocks() lies)."""
    path = data_root / "formats" / "cello_A2_15_forte_arco-normal.mp3"
    if not path.is_file():
        pytest.skip(f"no {path.name} below formats/")
    decoded, rate = soundfile.read(path)
    assert len(decoded) < soundfile.info(path).frames
    assert abs(len(read_audio(path)) - len(decoded) * SAMPLE_RATE / rate) <= 1


def test_reads_names_in_any_script(tmp_path):
    path = tmp_path / "Glocke—鐘 ✓.flac"
    soundfile.write(path, tune(), SAMPLE_RATE)
    assert len(read_audio(path)) == SAMPLE_RATE


@pytest.mark.parametrize("kind", ["*.ogg", "*.mp3"])
def test_reads_real_recordings(data_root, kind):
    paths = sorted((data_root / "formats").glob(kind))
    if not paths:
        pytest.skip(f"no {kind} below formats/")
    for path in paths:
        x = read_audio(path)
        assert np.abs(x).max() == 1.0
        # The independent way: decode whole, mix, resample with another filter.
        samples, rate = soundfile.read(path, always_2d=True)
        other = resample_poly(samples.mean(axis=1), SAMPLE_RATE // 100, rate // 100)
        # The header of an MP3 may promise more than there is: what is decoded counts.
        assert abs(len(x) - len(other)) <= 1
        n = min(len(x), len(other))
        assert np.corrcoef(x[:n], other[:n])[0, 1] > 0.98


# Bad input: one sentence that names the file.


def holding(bad) -> np.ndarray:
    x = np.stack([tune(), tune()], axis=1)
    x[1234] = bad
    return x


LETTER = b"Dear reader, this is not a sound at all. " * 40
DAMAGED = (bytes(3000), b"ID3" + bytes(range(100)), b"\xff\xfb" * 400)
NOT_FINITE = (np.nan, np.inf, -np.inf, (np.inf, -np.inf))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.wav", None, "there is no such file"),
        ("", None, "there is no such file"),  # the folder
        *(
            (f"letter.{ending}", LETTER, "cannot be read as sound.*give a WAV")
            for ending in ("wav", "flac", "ogg", "mp3", "raw", "txt", "")
        ),
        *((f"nothing.{ending}", b"", "nothing") for ending in ("wav", "flac", "ogg", "mp3")),
        *(
            ("there.mp3", content, r"cannot be read as sound \(it is damaged")
            for content in DAMAGED
        ),
        ("header.wav", np.zeros(0), "holds no samples"),
        ("silence.wav", np.zeros(800), "the sound is silent"),
        ("opposite.wav", np.stack([tune(), -tune()], axis=1), "its channels cancel .* give one of"),
        *(("broken.wav", holding(bad), "holds samples that are NaN or") for bad in NOT_FINITE),
    ],
)
def test_what_is_no_sound_is_named_in_one_sentence(tmp_path, name, content, reason):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        soundfile.write(path, content, SAMPLE_RATE, "FLOAT")
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.filterwarnings("ignore:.*was cut short")
@pytest.mark.parametrize("share", [0.002, 0.5, 0.9])
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_cut_short(tmp_path, ending, share):
    """A file cut short is either refused by name, or read up to where it ends."""
    path = tmp_path / f"cut.{ending}"
    soundfile.write(path, tune(seconds=5.0), SAMPLE_RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(len(whole) * share)])
    try:
        x = read_audio(path, unit_peak=False)
    except AudioError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert 0 < len(x) < 5 * SAMPLE_RATE
        np.testing.assert_allclose(x[:1000], tune()[: min(len(x), 1000)], atol=0.05)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "MP3"])
def test_what_is_read_of_a_file_cut_short_is_said(tmp_path, kind):
    path = tmp_path / f"cut.{'wav' if kind == 'WAVEX' else kind.lower()}"
    soundfile.write(path, tune(seconds=5.0), SAMPLE_RATE, format=kind)
    read_audio(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(SonibookWarning, match=r"cut\..*: was cut short: it holds (4|5)\d\.\d% of"):
        read_audio(path)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_an_ogg_cut_short_is_said_to_be(tmp_path, subtype, share):
    path = tmp_path / "cut.ogg"
    soundfile.write(path, tune(seconds=20.0), SAMPLE_RATE, subtype, format="OGG")
    whole = len(read_audio(path))
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    with pytest.warns(SonibookWarning, match=r"cut\.ogg: was cut short: (it holds|its last page)"):
        assert len(read_audio(path)) < whole
    # Cut between two pages, it ends well but for the flag of the last.
    path.write_bytes(content[: content.rfind(b"OggS")])
    with pytest.warns(SonibookWarning, match=r"cut\.ogg: was cut short: (it holds|its last page)"):
        read_audio(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_header_written_before_the_length_was_known(tmp_path, size):
    """As ffmpeg and sox write into a pipe: nothing is missing."""
    path = tmp_path / "piped.wav"
    soundfile.write(path, tune(), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    for at in (4, content.find(b"data") + 4):
        content[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert len(read_audio(path)) == SAMPLE_RATE


def test_silence_may_be_read(tmp_path):
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(800), SAMPLE_RATE)
    np.testing.assert_array_equal(read_audio(path, unit_peak=False), np.zeros(800))


# Waveforms.

waveforms = hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32))


@given(x=waveforms, peak=st.floats(0.01, 1.0))
def test_peak_scaling_changes_size_and_nothing_else(x, peak):
    if not x.any():
        with pytest.raises(AudioError, match="silent"):
            scale_to_peak(x)
        return
    y = scale_to_peak(x, peak=peak)
    assert y.dtype == np.float32
    assert np.abs(y).max() == pytest.approx(peak, rel=1e-6)
    expected = x.astype(float) / np.abs(x.astype(float)).max() * peak
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.zeros((2, 3)), r"shape \(time,\), this has \(2, 3\)"),
        (np.zeros(0), "no samples"),
        ([0.0, 1.0, np.nan], "sample 2 is NaN"),
        ([np.inf, 1.0], "sample 0 is NaN or infinite"),
        (np.ones(4, complex), "real"),
    ],
)
def test_what_is_no_waveform(x, reason):
    with pytest.raises(AudioError, match=reason):
        as_waveform(x)


@given(x=waveforms, start=st.integers(0, 400), length=st.integers(0, 400))
def test_cut_and_pad(x, start, length):
    piece = cut(x, start, length)
    assert len(piece) == length
    endless = np.concatenate([x, np.zeros(900, np.float32)])
    np.testing.assert_array_equal(piece, endless[start : start + length])
    padded = pad(x, length)
    assert len(padded) == max(len(x), length)
    np.testing.assert_array_equal(padded, endless[: len(padded)])


@given(
    before=st.integers(0, 500),
    sounding=st.integers(1, 500),
    after=st.integers(0, 500),
    length=st.integers(1, 1500),
)
def test_crops_start_where_they_hold_sound(before, sounding, after, length):
    x = np.concatenate([np.zeros(before), np.ones(sounding), np.zeros(after)]).astype(np.float32)
    first, last = sounding_starts(x, length)
    assert 0 <= first <= last <= max(len(x) - length, 0)
    need = min(int(0.25 * length), sounding)
    for start in {int(first), int(last)}:
        held = np.count_nonzero(cut(x, start, length))
        assert held >= min(need, len(x))
    if length >= len(x):
        assert last == 0


# Writing.


@given(x=hnp.arrays(np.float32, st.integers(1, 500), elements=st.floats(-1, 1, width=32)))
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory, x):
    path = tmp_path_factory.mktemp("wav") / "new" / "folder" / "x.wav"
    write_wav(path, x)
    information = soundfile.info(path)
    assert (information.format, information.subtype) == ("WAV", "PCM_16")
    assert (information.samplerate, information.channels) == (SAMPLE_RATE, 1)
    np.testing.assert_allclose(read_audio(path, unit_peak=False), x, atol=2**-15)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.array([0.0, 1.5]), "peaks at 1.5 and would clip"),
        (np.array([0.0, np.nan]), "sample 1 is NaN"),
        (np.zeros(0), "no samples"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, x, reason):
    path = tmp_path / "x.wav"
    write_wav(path, tune())
    before = path.read_bytes()
    with pytest.raises(AudioError, match=reason):
        write_wav(path, x.astype(np.float32))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_atomic_file_appears_whole_with_ordinary_rights(tmp_path):
    path = tmp_path / "deep" / "er" / "table.csv"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.suffix == path.suffix
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "state.safetensors"
    others = (
        path.name,
        ".state-new.safetensors",
        ".state-abcdefgh.yaml",
        "state-abcdefgh.safetensors",
    )
    for name in (".state-ab_d3fgh.safetensors", *others):
        (tmp_path / name).touch()
    remove_leftovers(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(others)


@pytest.mark.skipif(os.name != "posix", reason="flushes a folder")
def test_an_atomic_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    flushed = []

    def fsync(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else os.fstat(handle).st_size
        flushed.append((kind, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert flushed == [(3, False), ("folder", True)]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("I am a file.")
    with pytest.raises(OSError, match="taken"):
        write_wav(Path(tmp_path / "taken" / "x.wav"), tune())
