"""Any stack as a safetensors file: its layers in the card, its weights beside them.

A card lists modules of PyTorch by the names of their classes and parameters. It is untrusted: only
the classes that a stack may hold are known, every number has bounds, and nothing is allocated
before the file is seen to hold all the weights that the card asks for.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sonibook.audio import RATES, SAMPLE_RATE
from sonibook.errors import CheckpointError, StackError
from sonibook.files import atomic, parse_json
from sonibook.model.layers import effective_bias, effective_weight
from sonibook.model.operations import KINDS
from sonibook.model.stack import blocks_of, leaves, receptive_field

_TYPES = {kind.__name__: kind for kind in KINDS}
#: Of one number, of the modules of a stack, and of the samples that it pads with or hears at once.
_LARGEST, _MOST_MODULES, _WIDEST = 2**16, 1000, 2**24
_Size = Annotated[int, Field(ge=1, le=_LARGEST)]
_Zeros = Annotated[int, Field(ge=0, le=_LARGEST)]
_Real = Annotated[float, Field(allow_inf_nan=False)]
#: The parameters that a card may give of a module, and the values that they can have.
_VALUES: dict[str, Any] = {
    **dict.fromkeys(("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups",
                     "num_features", "num_groups", "num_channels", "num_parameters"), _Size),
    **dict.fromkeys(("bias", "affine", "elementwise_affine", "ceil_mode", "count_include_pad"),
                    bool),
    **dict.fromkeys(("value", "negative_slope", "alpha"), _Real),
    "eps": Annotated[_Real, Field(gt=0)],
    "approximate": Literal["none", "tanh"],
    "normalized_shape": Annotated[list[_Size], Field(min_length=1, max_length=2)],
    "padding": _Zeros,
}  # fmt: skip
_PADDING: dict[type[nn.Module], Any] = {
    nn.Conv1d: _Zeros | Literal["same", "valid"],
    nn.ConstantPad1d: Annotated[
        list[Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]], Field(min_length=1, max_length=2)
    ],
}


def sample_rate_of(network: nn.Module) -> int:
    """The sampling rate that a network takes, in Hz: its attribute, or 8000."""
    return int(getattr(network, "sample_rate", SAMPLE_RATE))


def save_network(
    path: str | Path,
    network: nn.Module,
    card: dict[str, Any],
    *,
    modules: Sequence[nn.Module] | None = None,
    input_scale: float = 1.0,
) -> None:
    """Write any network that can be sonified to a file that is opened by its name.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors``; written whole or not at all.
    network : torch.nn.Module
        As `sonibook.model.stack.blocks_of` takes it. What comes after its stack is left out.
    card : dict
        Must be JSON. What others should know, such as ``name``, ``source``, ``licence`` and
        ``citation``; ``sample_rate``, in Hz, is the network's attribute unless it says.
    modules : sequence of torch.nn.Module, or None
        As for `blocks_of`.
    input_scale : float
        What sounds of unit peak are multiplied by before this network hears them: the weights that
        are written take sounds of unit peak, as everything here does.

    Raises
    ------
    StackError
        If the network cannot be inverted.
    CheckpointError
        If a weight is not finite, the rate impossible, or a stack that does not begin with a
        convolution has an `input_scale`.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from sonibook.model.checkpoint import open_network
    >>> network = nn.Sequential(nn.Conv1d(1, 4, 9, stride=2), nn.ReLU(), nn.MaxPool1d(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mine.safetensors"
    ...     save_network(path, network, {"sample_rate": 16000, "licence": "CC0"})
    ...     again, card = open_network(path)
    >>> again.sample_rate, card["layers"][2]["type"]
    (16000, 'MaxPool1d')
    """
    layers, tensors = _described(network, modules)
    if input_scale != 1.0:
        first = next(row for row in layers if row.get("value", 1) != 0)  # after padding with zeros
        if first["type"] != "Conv1d":
            raise CheckpointError(
                f"{path}: an input scale needs a convolution first, not {first['type']}."
            )
        tensors[f"{first['name']}.weight"] *= input_scale
        card = {**card, "input_scale": input_scale}
    card = {"sample_rate": sample_rate_of(network), **card, "layers": layers}
    build_stack(str(path), card, tensors)  # what cannot be opened is not written
    write_tensors(path, tensors, card)


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The card and the tensors, in float32, of a safetensors file."""
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: only .safetensors files are read (a pickle could run any code)."
        )
    try:
        with safe_open(path, framework="pt") as file:
            card = parse_json((file.metadata() or {}).get("card", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: is not a safetensors file ({reason}).") from None
    if not isinstance(card, dict):
        raise CheckpointError(f"{path}: its card is not a JSON object.")
    for key, tensor in tensors.items():
        if tensor.dtype not in (torch.float16, torch.float32):
            raise CheckpointError(f"{path}: {key} is {tensor.dtype}, not float16 or float32.")
    _check_finite(path, tensors)
    return card, {key: tensor.float() for key, tensor in tensors.items()}


def write_tensors(path: str | Path, tensors: dict[str, Tensor], card: dict[str, Any]) -> None:
    """Tensors and their card, which must be JSON, as one safetensors file, whole or not at all."""
    _check_finite(path, tensors)
    with atomic(path) as temporary:
        # Not save_file, whose errors do not say that a disk is full.
        metadata = {"card": json.dumps(card, ensure_ascii=False)}
        temporary.write_bytes(save(tensors, metadata=metadata))


def _check_finite(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            precision = str(value.dtype).removeprefix("torch.")
            raise CheckpointError(f"{path}: {name} holds NaN or infinite weights in {precision}.")


def weights_digest(tensors: Mapping[str, Tensor], *, before: str = "") -> str:
    """A digest of weights and their names, and what goes `before`, in hexadecimal digits."""
    digest = hashlib.sha256(before.encode())
    for name, values in tensors.items():
        digest.update(name.encode())
        digest.update(values.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_tensors(
    name: str | Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], asks: str
) -> None:
    """See that tensors are those that `asks` asks for, of the shapes of `expected`."""
    for key in sorted(expected.keys() | tensors.keys()):
        if key not in tensors:
            raise CheckpointError(f"{name}: the tensor {key} is missing.")
        if key not in expected:
            raise CheckpointError(f"{name}: the tensor {key} does not belong to {asks}.")
        shape, wanted = tuple(tensors[key].shape), tuple(expected[key].shape)
        if shape != wanted:
            raise CheckpointError(
                f"{name}: {key} has the shape {shape}, and {asks} asks for {wanted}."
            )


def _described(
    network: nn.Module, modules: Sequence[nn.Module] | None
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """A stack's modules as a card lists them, and their weights in float32."""
    layers: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    blocks_of(network, modules=modules)
    parts = modules or [getattr(network, "features", network)]
    own = len(parts) == 1
    for title, module in leaves([("" if own else f"m{n}", part) for n, part in enumerate(parts)]):
        kind = next(known for known in _TYPES.values() if isinstance(module, known))
        name = (title or kind.__name__.lower()).replace(".", "_")
        while any(row["name"] == name for row in layers):
            name += "_again"
        state = dict(module.state_dict())
        state.pop("num_batches_tracked", None)
        if isinstance(module, nn.Conv1d):
            weights = {"weight": effective_weight(module), "bias": effective_bias(module)}
            state = {key: value for key, value in weights.items() if value is not None}
        layers.append({"name": name, "type": kind.__name__, **_parameters(kind, module)})
        for key, value in state.items():
            plain = value.detach().cpu().float()
            tensors[f"{name}.{key}"] = plain.clone(memory_format=torch.contiguous_format)
    return layers, tensors


def _parameters(kind: type[nn.Module], module: nn.Module) -> dict[str, Any]:
    """What a module was made with."""
    found: dict[str, Any] = {}
    for name in inspect.signature(kind).parameters:
        if name in _VALUES and hasattr(module, name):
            value = getattr(module, name)
            if isinstance(value, tuple):
                value = value[0] if len(value) == 1 and name != "normalized_shape" else list(value)
            found[name] = value is not None if name == "bias" else value
    return found


def build_stack(name: str, card: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Sequential:
    """The network that a card describes, with these weights, in evaluation mode."""
    rate, layers = card.get("sample_rate"), card.get("layers")
    if not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]:
        raise CheckpointError(f"{name}: the sampling rate in its card is {rate!r}.")
    if not isinstance(layers, list) or not 0 < len(layers) <= _MOST_MODULES:
        raise CheckpointError(
            f"{name}: the layers in its card are not a list of 1 to {_MOST_MODULES} modules."
        )
    children: OrderedDict[str, nn.Module] = OrderedDict()
    for row in layers:
        title, module = _module(name, row)
        if title in children:
            raise CheckpointError(f"{name}: its card has two layers called {title!r}.")
        children[title] = module
    network = nn.Sequential(children)
    expected = network.state_dict()
    counters = [key for key in expected if key.endswith(".num_batches_tracked")]
    weights = {key: value for key, value in expected.items() if key not in counters}
    check_tensors(name, tensors, weights, "its card")
    for key in tensors:
        if key.endswith(".running_var") and bool((tensors[key] < 0).any()):
            raise CheckpointError(f"{name}: {key} holds variances below zero.")
    network.load_state_dict({**tensors, **{key: torch.tensor(0) for key in counters}}, assign=True)
    network.requires_grad_(False).eval()
    _check_geometry(name, network)
    setattr(network, "sample_rate", rate)  # noqa: B010 - modules take tensors alone, for mypy
    return network


def _module(name: str, row: Any) -> tuple[str, nn.Module]:
    """One module of a card's list, without memory for its weights."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or "." in row["name"]:
        raise CheckpointError(f"{name}: a layer in its card has no name without a dot.")
    title, kind = row["name"], _TYPES.get(str(row.get("type")))
    if not title or kind is None:
        raise CheckpointError(
            f"{name}: layer {title!r} of its card is of the type {row.get('type')!r}, and a stack "
            f"holds {', '.join(_TYPES)} alone."
        )
    known = inspect.signature(kind).parameters.keys() & _VALUES.keys()
    given = {key: value for key, value in row.items() if key not in ("name", "type")}
    for key, value in given.items():
        if key not in known or not _is_possible(kind, key, value):
            raise CheckpointError(
                f"{name}: layer {title!r} of its card has {key} {value!r}, which is impossible."
            )
    size = given.get("kernel_size")
    if kind in (nn.MaxPool1d, nn.AvgPool1d) and size and 2 * given.get("padding", 0) > size:
        raise CheckpointError(f"{name}: layer {title!r} pads more than half of its window.")
    try:
        with torch.device("meta"):
            return title, kind(**given)
    except Exception as error:  # whatever PyTorch raises for what does not go together
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{name}: layer {title!r} of its card: {reason}.") from None


def _is_possible(kind: type[nn.Module], key: str, value: Any) -> bool:
    """Whether a parameter of a module can have this value, and is not beyond all bounds."""
    values = _PADDING.get(kind, _Zeros) if key == "padding" else _VALUES[key]
    try:
        TypeAdapter(values).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _check_geometry(name: str, network: nn.Sequential) -> None:
    """See that the network can be inverted, and neither hears nor pads with minutes at once."""
    try:
        blocks = blocks_of(network)
    except StackError as error:
        raise StackError(f"{name}: {error}") from None
    padding = sum(sum(map(abs, one.padding)) for block in blocks for one in block.operations)
    field = receptive_field(blocks, len(blocks))
    if max(field, padding) > _WIDEST:
        raise CheckpointError(
            f"{name}: its last layer hears {field:,} samples at once and pads with {padding:,}, "
            f"and {_WIDEST:,} is the most."
        )
