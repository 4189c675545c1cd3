"""Sonification: the forward pass with its switches, and the way back to sound."""

from sonibook.deconvnet.backward import ForwardPass, sonify

__all__ = ["ForwardPass", "sonify"]
