"""The way back on a CPU, at the speed of its matrix multiplication."""

from sonibook.engine.way_back import CACHED_FLOATS, Engine, supports

__all__ = ["CACHED_FLOATS", "Engine", "supports"]
