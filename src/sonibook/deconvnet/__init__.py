"""Sonification: the forward pass with its switches, and the way back to sound."""

from sonibook._rooms import names_of
from sonibook.deconvnet.backward import ForwardPass, sonify

__all__ = ["ForwardPass", "sonify"]

__getattr__ = names_of(
    __name__,
    attributions="METHODS MapEnergy explain",
    cpu="Engine",
    forward="FeatureMaps",
    unpooling="UNPOOLING insert_zeros repeat",
)
