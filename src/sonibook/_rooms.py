"""Names of a package that are imported when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def names_of(package: str, **modules: str) -> Callable[[str], Any]:
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
