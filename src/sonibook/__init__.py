"""sonibook: listen to the filters of networks that hear raw waveforms."""

from sonibook.audio import read_audio
from sonibook.checkpoint import load_encoder
from sonibook.datasets import open_dataset
from sonibook.deconvnet import ForwardPass, sonify
from sonibook.encoder import CNN12

__version__ = "0.1.0"

__all__ = ["CNN12", "ForwardPass", "load_encoder", "open_dataset", "read_audio", "sonify"]
