"""The way back on a CPU, at the speed of its matrix multiplication."""

from sonibook.deconvnet.cpu.way_back import Engine, supports

__all__ = ["Engine", "supports"]
