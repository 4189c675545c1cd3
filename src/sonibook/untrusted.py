"""YAML, JSON and arrays out of files that anybody may have written.

The parsers below these functions let through whatever their insides raise, and a few lines of
nested brackets or references to references cost them the stack or the memory. Here a text is read,
or refused with a ValueError that says why.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy import ndarray

#: Characters of the longest YAML that is read: PyYAML takes seconds for each hundred thousand.
LONGEST_YAML = 100_000


class _PlainLoader(yaml.SafeLoader):
    """Without references, which a page of text can unfold to terabytes, and with each key once."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it refers to another of its parts with *: write that part out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        _each_once(names)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str) -> Any:
    """The content of a YAML text.

    Parameters
    ----------
    text : str

    Returns
    -------
    object
        Made of dict, list, str, numbers, dates, bool and None.

    Raises
    ------
    ValueError
        If it is none, longer than `LONGEST_YAML`, nested too deeply, gives a key twice or refers
        to its own parts.
    """
    if len(text) > LONGEST_YAML:
        raise ValueError(f"it is longer than {LONGEST_YAML:,} characters")
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader with less
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:
        # Not YAMLError alone: a date 2001-99-99 raises ValueError, `!!bool x` KeyError.
        raise ValueError(" ".join(str(error).split())) from None


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text.

    Parameters
    ----------
    text : str or bytes

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If it is none, nested too deeply, or gives a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_as_dict)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, ndarray]:
    """Some arrays of an ``.npz`` file as `numpy.savez` writes it.

    Parameters
    ----------
    path : Path
    names : sequence of str

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, one is missing, or it is packed: a packed file of a megabyte can hold a
        gigabyte, one that is not holds what its size says.
    """
    try:
        # Opened here: numpy forgets to close a file that is damaged.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            archive: zipfile.ZipFile = file.zip
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is packed")
            return {name: file[name] for name in names}
    except OSError:
        raise
    except Exception as error:
        # Half of what zipfile and numpy raise for a damaged file is undocumented; a header that
        # claims terabytes is a MemoryError.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason) from None


def _as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _each_once([key for key, _ in pairs])
    return dict(pairs)


def _each_once(keys: Sequence[str]) -> None:
    if len(set(keys)) < len(keys):
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"it gives {twice!r} twice")
