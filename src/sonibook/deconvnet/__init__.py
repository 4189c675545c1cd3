"""Sonification: the forward pass with its switches, and the way back to sound."""

from sonibook import _names_of
from sonibook.deconvnet.backward import ForwardPass, sonify

__all__ = ["ForwardPass", "sonify"]

__getattr__ = _names_of(
    __name__,
    alternatives="METHODS MapEnergy UNPOOLING explain insert_zeros repeat",
    cpu="Engine",
    forward="FeatureMaps",
    spectrogram="SpectrogramCNN SpectrogramPass load_spectrogram_cnn",
)
