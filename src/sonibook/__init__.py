"""sonibook: listen to the filters of networks that hear raw waveforms."""

from typing import TYPE_CHECKING

from sonibook._rooms import names_of

if TYPE_CHECKING:
    from sonibook.audio import read_audio
    from sonibook.datasets import open_dataset
    from sonibook.deconvnet.backward import ForwardPass, sonify
    from sonibook.model.checkpoint import load_encoder
    from sonibook.model.encoder import CNN12

__version__ = "0.1.0"

__all__ = ["CNN12", "ForwardPass", "load_encoder", "open_dataset", "read_audio", "sonify"]

__getattr__ = names_of(
    __name__,
    audio="read_audio",
    datasets="open_dataset",
    deconvnet="ForwardPass sonify",
    model="CNN12 load_encoder",
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
