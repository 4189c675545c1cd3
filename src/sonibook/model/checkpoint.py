"""Networks by name: published ones in half precision, others' stacks, and one's own code.

A published weight is rounded to float16 once and that value is used everywhere
(``w.half().float()``): rounding flips max-pool switches, so two precisions of "the same" network
do not sonify alike. The card (what made the network, its classes, its accuracy) is JSON in the
file's header, so that the two cannot be separated. No pickle is ever read.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import torch
from torch import Tensor, nn

from sonibook.errors import CheckpointError
from sonibook.files import folds_in_words, shipped_files
from sonibook.model.encoder import CHANNELS, CNN12, Classifier, Downsample
from sonibook.model.stack_file import (
    build_stack,
    check_tensors,
    read_tensors,
    sample_rate_of,
    write_tensors,
)

_AnyNetwork = TypeVar("_AnyNetwork", bound=CNN12 | Classifier)


def shipped() -> dict[str, Path]:
    """The checkpoints that come with sonibook, by name."""
    return shipped_files("checkpoints/*.safetensors")


def networks_folder() -> Path:
    """Where imported networks lie: as ``SONIBOOK_NETWORKS`` says, else in a checkout or at home."""
    named = os.environ.get("SONIBOOK_NETWORKS")
    if named:
        return Path(named)
    checkout = Path(__file__).parents[3]
    at_home = Path.home() / ".sonibook"
    return (checkout / "build" if (checkout / "pyproject.toml").is_file() else at_home) / "networks"


def imported() -> dict[str, Path]:
    """The networks that were imported (`sonibook import`), by name; see `networks_folder`."""
    return {path.stem: path for path in sorted(networks_folder().glob("*.safetensors"))}


def kept_checkpoints(name: str | Path) -> dict[int, Path]:
    """The checkpoints that were kept of one training run, to watch its features grow.

    Parameters
    ----------
    name : str or Path
        Of a shipped run, such as ``"contrastive"``; or the folder of a run of your own that was
        trained with ``keep_every``.

    Returns
    -------
    dict from int to Path
        By epoch, first epoch first; 0 is the network before its first step. Give a path to
        `load_encoder`.

    Raises
    ------
    CheckpointError
        If nothing was kept there.
    """
    runs = shipped_files("checkpoints/kept/*")
    ours = runs.get(str(name))
    for folder in (ours, Path(name) / "kept", Path(name)):
        if folder is not None and (found := _epochs_in(folder)):
            if folder is ours and (last := shipped().get(str(name))):
                found[int(read_card(last)["epochs"])] = last
            return found
    known = ", ".join(run for run in runs if _epochs_in(runs[run])) or "none"
    raise CheckpointError(
        f"{name}: no checkpoints were kept there (epoch-0000.safetensors and so on), nor is it a "
        f"shipped run ({known})."
    )


def _epochs_in(folder: Path) -> dict[int, Path]:
    paths = {path.stem[6:]: path for path in folder.glob("epoch-*.safetensors")}
    return dict(sorted((int(epoch), path) for epoch, path in paths.items() if epoch.isdecimal()))


def save_checkpoint(path: str | Path, network: CNN12 | Classifier, card: dict[str, Any]) -> None:
    """Publish a network as `canonical` makes it, with its card in the header.

    The card must be JSON. ``width``, ``depth`` and ``classes`` are added, and ``downsample`` where
    it is not ``"max"``. CheckpointError if a weight is not finite in float16.
    """
    encoder = network.encoder if isinstance(network, Classifier) else network
    card = {**card, "width": encoder.width, "depth": encoder.depth}
    if encoder.downsample != "max":
        card["downsample"] = encoder.downsample
    if isinstance(network, Classifier):
        card["classes"] = list(network.classes)
    half = {
        name.removeprefix("encoder."): value.detach().cpu().half().contiguous()
        for name, value in canonical(network).state_dict().items()
    }
    write_tensors(path, half, card)


def canonical(network: _AnyNetwork) -> _AnyNetwork:
    """A copy of a network as it is published: folded, rounded to float16, in `eval` mode."""
    copy: CNN12 | Classifier
    if isinstance(network, Classifier):
        copy = Classifier(network.encoder.fold(), network.classes)
        copy.head.load_state_dict(network.head.state_dict())
    else:
        copy = network.fold()
    copy.load_state_dict({key: value.half().float() for key, value in copy.state_dict().items()})
    return cast(_AnyNetwork, copy.eval())


def read_card(name: str | Path) -> dict[str, Any]:
    """The card of a checkpoint; see `load_encoder` for what is raised.

    Parameters
    ----------
    name : str or Path
        A shipped or imported name (`shipped`, `imported`) or a path to a ``.safetensors`` file.
    """
    return _read(name)[0]


def load_encoder(name: str | Path) -> CNN12:
    """A trained encoder, in evaluation mode.

    Parameters
    ----------
    name : str or Path
        A shipped name (`shipped`), such as ``"supervised"``, or a path to a ``.safetensors`` file.

    Returns
    -------
    CNN12
        Plain (``norm="none"``), float32 weights with float16 values.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, it is damaged, or of another network.
    """
    return _build(name, *_read(name))


def open_network(name: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Any network by its name, with its card.

    Parameters
    ----------
    name : str or Path
        As for `load_encoder`; or of a network from elsewhere: its name, if it was imported
        (`imported`), or the path of a file that `sonibook.model.stack_file.save_network` wrote; or
        ``"module:function"``: the module is imported, from the working folder as well, and the
        function called without arguments. That runs its code.

    Returns
    -------
    network : torch.nn.Module
        In evaluation mode. The sampling rate that it takes, in Hz, is its attribute
        ``sample_rate``, 8000 where it has none.
    card : dict

    Raises
    ------
    CheckpointError
        As `load_encoder`, and if the module cannot be imported or makes no network.
    """
    home, colon, maker = str(name).partition(":")
    dotted = all(part.isidentifier() for part in (*home.split("."), maker))
    if not colon or not dotted or Path(name).exists():
        card, tensors = _read(name)
        if "layers" in card:
            return build_stack(str(name), card, tensors), card
        encoder = _build(name, card, tensors)
        return encoder, {**card, "width": encoder.width}
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        network = getattr(import_module(home), maker)()
    except Exception as error:  # whatever somebody's code raises
        raise CheckpointError(f"{name}: {type(error).__name__}: {error}") from None
    finally:
        sys.path.remove(here)
    if not isinstance(network, nn.Module):
        raise CheckpointError(f"{name} makes a {type(network).__name__}, not a torch.nn.Module.")
    return network.eval(), {"name": str(name), "sample_rate": sample_rate_of(network)}


def load_classifier(name: str | Path) -> Classifier:
    """A trained encoder with the linear layer that names classes, in evaluation mode.

    Parameters
    ----------
    name : str or Path
        As for `load_encoder`; CheckpointError also if the checkpoint has no classes.
    """
    card, tensors = _read(name)
    encoder = _build(name, card, tensors)
    if "head.weight" not in tensors or "classes" not in card:
        raise CheckpointError(f"{name}: holds an encoder without classes; use load_encoder.")
    classes = card["classes"]
    if not isinstance(classes, list) or not all(isinstance(entry, str) for entry in classes):
        raise CheckpointError(f"{name}: the classes in its card are not a list of names.")
    classifier = Classifier(encoder, tuple(classes))
    head = {key.removeprefix("head."): t for key, t in tensors.items() if key.startswith("head.")}
    check_tensors(name, head, classifier.head.state_dict(), "a CNN12")
    classifier.head.load_state_dict(head)
    return classifier.eval()


def _build(name: str | Path, card: dict[str, Any], tensors: dict[str, Tensor]) -> CNN12:
    if "layers" in card:
        raise CheckpointError(f"{name}: holds no CNN12 but a stack: open it with open_network.")
    first = tensors.get("features.conv1.weight")
    if first is None or first.ndim != 3:
        raise CheckpointError(f"{name}: holds no CNN12 (features.conv1.weight is missing).")
    ours = {key: tensor for key, tensor in tensors.items() if not key.startswith("head.")}
    width = max(first.shape[0], 1) / CHANNELS[0]
    depth = 1
    while depth < len(CHANNELS) and f"features.conv{depth + 1}.weight" in ours:
        depth += 1
    last, channels = ours[f"features.conv{depth}.weight"], round(CHANNELS[depth - 1] * width)
    if last.ndim == 3 and last.shape[0] != channels:
        raise CheckpointError(
            f"{name}: holds no CNN12 ({first.shape[0]} channels in features.conv1 ask for "
            f"{channels} in features.conv{depth}, not {last.shape[0]})."
        )
    downsample = card.get("downsample", "max")
    if downsample not in get_args(Downsample):
        raise CheckpointError(f"{name}: the card asks for the downsample {downsample!r}.")
    # Without memory: the CNN12 that a file of a megabyte asks for may be of terabytes.
    with torch.device("meta"):
        encoder = CNN12(width=width, downsample=downsample, depth=depth)
    check_tensors(name, ours, encoder.state_dict(), "a CNN12 of this width")
    encoder.to_empty(device="cpu").load_state_dict(ours)
    return encoder.eval()


def _read(name: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    names = {**imported(), **shipped()}
    path = names.get(str(name), Path(name))
    if not path.is_file():
        known = ", ".join(names) or "none"
        raise CheckpointError(
            f"{name}: there is no such file, nor a network of that name ({known}; others of "
            "sonibook's repository lie in its data/checkpoints: set SONIBOOK_NETWORKS to such a "
            "folder)."
        )
    card, tensors = read_tensors(path)
    if isinstance(card.get("data"), str):
        card["data"] = folds_in_words(card["data"])
    if "layers" not in card:
        # Rounding once more leaves canonical weights as they are, and makes any others canonical.
        tensors = {key: tensor.half().float() for key, tensor in tensors.items()}
    return card, tensors
