"""YAML, JSON, CSV and arrays out of files that anybody may have written.

The parsers below these functions let through whatever their insides raise, and a few lines of
nested brackets or references to references cost them the stack or the memory. Here a text is read,
or refused with a ValueError that says why.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy import ndarray

#: Characters of the longest YAML that is read: PyYAML takes seconds for each hundred thousand.
_LONGEST_YAML = 100_000
#: Bytes of the longest JSON that is read. Python needs up to ten for each.
_LONGEST_JSON = 50_000_000
#: Lists and objects in one JSON, of 64 bytes even where they are empty, and how deep they may nest.
_MOST_IN_JSON, _DEEPEST_JSON = 1_000_000, 100
#: Characters of a row of a table, and of all of its rows.
_LONGEST_ROW, _LONGEST_CSV = 100_000, 1_000_000_000
_JSON_STRUCTURE = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


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
    """The content of a YAML text."""
    if len(text) > _LONGEST_YAML:
        raise ValueError(f"it is longer than {_LONGEST_YAML:,} characters")
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader with less
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:
        # Not YAMLError alone: a date 2001-99-99 raises ValueError, `!!bool x` KeyError.
        raise ValueError(" ".join(str(error).split())) from None


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text."""
    _check_length(len(text))
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if text.count("[") + text.count("{") > _DEEPEST_JSON:
        _check_structure(text)
    return json.loads(text, object_pairs_hook=_as_dict)


def read_json(path: str | Path) -> Any:
    """The content of a JSON file, as `parse_json`; OSError where it cannot be read."""
    _check_length(Path(path).stat().st_size)
    return parse_json(Path(path).read_bytes())


def _check_length(length: int) -> None:
    if length > _LONGEST_JSON:
        raise ValueError(f"it is longer than {_LONGEST_JSON:,} characters")


def _check_structure(text: str) -> None:
    """Count a JSON's lists and objects, and how deep they nest, without making any."""
    count = depth = 0
    for match in _JSON_STRUCTURE.finditer(text):
        match match[0]:
            case "[" | "{":
                count, depth = count + 1, depth + 1
            case "]" | "}":
                depth -= 1
        if depth > _DEEPEST_JSON:
            raise ValueError("it is nested too deeply")
        if count > _MOST_IN_JSON:
            raise ValueError(f"it holds more than {_MOST_IN_JSON:,} lists and objects")


def read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a comma-separated UTF-8 table, with the number of the line each ends in.

    Spaces after a comma are passed over. Raises OSError where the file cannot be read, and
    ValueError where it is not such a text, or a row or all of them are too long.
    """
    row_start = position = 0

    def lines() -> Iterator[str]:
        nonlocal position
        while line := file.readline(_LONGEST_ROW + 1):
            position += len(line)
            if position - row_start > _LONGEST_ROW:
                raise ValueError(f"it has a row longer than {_LONGEST_ROW:,} characters")
            if position > _LONGEST_CSV:
                raise ValueError(f"it is longer than {_LONGEST_CSV:,} characters")
            yield line

    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(lines(), skipinitialspace=True)
        try:
            for row in reader:
                row_start = position
                yield reader.line_num, row
        except csv.Error as error:
            raise ValueError(str(error)) from None


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, ndarray]:
    """Some arrays of an ``.npz`` file as `numpy.savez` writes it."""
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
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise ValueError(f"it gives {twice!r} twice")
