"""sonibook: listen to the filters of networks that hear raw waveforms."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sonibook.audio import read_audio
    from sonibook.datasets import open_dataset
    from sonibook.deconvnet.backward import ForwardPass, sonify
    from sonibook.model.checkpoint import load_encoder
    from sonibook.model.encoder import CNN12

__version__ = "0.1.0"

__all__ = ["CNN12", "ForwardPass", "load_encoder", "open_dataset", "read_audio", "sonify"]


def _names_of(package: str, **modules: str) -> Callable[[str], Any]:
    """A package's `__getattr__`: its modules, and of each the names that chapters ask it for.

    `sonibook --help` then needs no PyTorch, and a chapter one import a package.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def find(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        if name in modules:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


__getattr__ = _names_of(
    __name__,
    audio="read_audio",
    datasets="open_dataset",
    deconvnet="ForwardPass sonify",
    model="CNN12 load_encoder",
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
