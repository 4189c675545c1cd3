"""The backward pass on a CPU, at the speed of its matrix multiplication."""

from sonibook.deconvnet.cpu.engine import Engine, supports

__all__ = ["Engine", "supports"]
