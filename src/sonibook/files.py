"""Files: whole or not at all, read with care, and results that say what made them.

YAML, JSON, CSV and arrays may have been written by anybody. The parsers below `parse_yaml` and its
neighbours let through whatever their insides raise, and a few lines of nested brackets or
references to references cost them the stack or the memory. Here a text is read, or refused with a
ValueError that says why.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy import ndarray

from sonibook.errors import SonibookError

#: Where shipped data lies: in an installed package, and in a checkout.
_DATA_FOLDERS = (Path(__file__).parent / "data", Path(__file__).parents[2] / "data")
_PACKAGES = ("sonibook", "torch", "numpy", "scipy", "scikit-learn", "soxr", "soundfile")
#: Control characters, but for tab and new line, and those that reverse the direction of writing.
_CONTROLS = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for codes in ((0, 9), (11, 32), (127, 160), (0x202A, 0x202F), (0x2066, 0x2068))
    for code in range(*codes)
}
#: Characters of the longest YAML that is read: PyYAML takes seconds for each hundred thousand.
_LONGEST_YAML = 100_000
#: Bytes of the longest JSON that is read. Python needs up to ten for each.
_LONGEST_JSON = 50_000_000
#: Lists and objects in one JSON, of 64 bytes even where they are empty, and how deep they may nest.
_MOST_IN_JSON, _DEEPEST_JSON = 1_000_000, 100
#: Characters of a row of a table, and of all of its rows.
_LONGEST_ROW, _LONGEST_CSV = 100_000, 1_000_000_000
_JSON_STRUCTURE = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


def shipped_files(pattern: str) -> dict[str, Path]:
    """What comes with sonibook and fits a pattern, by its name without the suffix."""
    return {path.stem: path for folder in _DATA_FOLDERS for path in sorted(folder.glob(pattern))}


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well.

    It is on the disk before it takes the name, and the name before this returns: a power cut
    neither halves a file nor takes back one that was written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        _reach_disk(name, os.O_RDWR)  # Windows flushes only what is open for writing
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        with suppress(OSError):  # some file systems flush no folders: the file is there, and whole
            _reach_disk(path.parent, os.O_RDONLY)


def write_text(path: str | Path, text: str) -> None:
    """Write a text, whole or not at all."""
    with atomic(path) as temporary:
        # A file's name may not be Unicode: what it holds becomes an escape, which JSON reads back.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def remove_leftovers(path: str | Path) -> None:
    """Remove what `atomic` left where it was killed; nobody else may be writing `path` now."""
    path = Path(path)
    name = re.compile(rf"\.{re.escape(path.stem)}-[a-z0-9_]{{8}}{re.escape(path.suffix)}")
    for beside in path.parent.iterdir():
        if name.fullmatch(beside.name):
            beside.unlink(missing_ok=True)


def shown(text: object) -> str:
    """`text` with what is not Unicode (a file name may hold any bytes) written as escapes.

    So are control characters, which a card or a name could command the terminal with.
    """
    printable = str(text).translate(_CONTROLS)
    return printable.encode("utf-8", "backslashreplace").decode("utf-8")


def _reach_disk(path: str | Path, mode: int) -> None:
    """Wait until the disk holds a file, or the names in a folder."""
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    """The rows of a comma-separated UTF-8 table, with the number of the line each ends in."""
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


def folds_in_words(text: str) -> str:
    """Call folds as a person would.

    Examples
    --------
    >>> folds_in_words("esc50 (folds 1,2,3,4), tested on (folds 5)")
    'esc50 (folds 1 to 4), tested on fold 5'
    """

    def said(found: re.Match[str]) -> str:
        numbers = [int(number) for number in found[1].split(",")]
        if len(numbers) == 1:
            return f"fold {numbers[0]}"
        if len(numbers) > 2 and numbers == [*range(numbers[0], numbers[-1] + 1)]:
            return f"folds {numbers[0]} to {numbers[-1]}"
        return f"folds {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"

    called = re.sub(r"\bfolds (\d+(?:,\d+)*)(?![\d,]| to | and )", said, text)
    return re.sub(r"tested on \((fold\b[^()]*)\)", r"tested on \1", called)


def write_result(path: str | Path, content: dict[str, Any], *, command: str | None = None) -> None:
    """Write a result and its provenance, whole or not at all."""
    whole = {**content, "provenance": content.get("provenance") or provenance(command)}
    rows = [] if isinstance(whole.get("rows"), dict) else whole.get("rows") or []
    first = whole | {"rows": []} if rows else whole
    text = json.dumps(first, indent=2, ensure_ascii=False, allow_nan=False)
    if rows:  # a line each
        lines = ",\n    ".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
        text = text.replace('\n  "rows": []', f'\n  "rows": [\n    {lines}\n  ]')
    write_text(path, text + "\n")


def read_result(name: str) -> dict[str, Any]:
    """A result that comes with sonibook, such as ``"bench-sonify"``.

    Parameters
    ----------
    name : str
        File name in ``data/results``, without ``.json``; SonibookError if there is none.
    """
    known = shipped_files("results/*.json")
    if name not in known:
        raise SonibookError(
            f"There is no result {name!r}: choose one of {', '.join(known) or 'none'}."
        )
    return read_json(known[name])


def has_result(name: str) -> bool:
    """Whether a result of that name comes with sonibook."""
    return name in shipped_files("results/*.json")


def provenance(command: str | None = None) -> dict[str, object]:
    """What a result must say of how it came about."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    name = Path(sys.argv[0]).name.replace("__main__.py", "sonibook")
    return {
        "command": command or shlex.join([name, *map(_last_name, sys.argv[1:])]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _last_name(argument: str) -> str:
    """An argument; if it is an absolute path, or ``--option=`` one, with the last name of it."""
    option, equals, value = argument.rpartition("=") if argument.startswith("--") else ("", "", "")
    path = Path(value if equals else argument)
    return option + equals + path.name if path.is_absolute() and path.name else argument


def _commit() -> str | None:
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        run = ["git", "-C", str(here), *arguments]
        done = subprocess.run(run, check=True, capture_output=True, text=True)  # noqa: S603
        return done.stdout.strip()

    try:
        # An environment may lie inside somebody else's checkout: ask only about tracked files.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changed else "")
