"""sonibook: listen to the filters of networks that hear raw waveforms."""

from __future__ import annotations

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

_HOME = {
    "CNN12": "sonibook.model.encoder",
    "ForwardPass": "sonibook.deconvnet.backward",
    "load_encoder": "sonibook.model.checkpoint",
    "open_dataset": "sonibook.datasets",
    "read_audio": "sonibook.audio",
    "sonify": "sonibook.deconvnet.backward",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `sonibook --help` needs no PyTorch."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
