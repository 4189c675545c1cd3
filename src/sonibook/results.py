"""Results files: JSON that says what made it (command, versions, commit, time)."""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sonibook.errors import SonibookError
from sonibook.files import atomic
from sonibook.untrusted import read_json

#: Where shipped data lies: in an installed package, and in a checkout.
DATA_FOLDERS = (Path(__file__).parent / "data", Path(__file__).parents[2] / "data")
_PACKAGES = ("sonibook", "torch", "numpy", "scipy", "scikit-learn", "soxr", "soundfile")


def folds_in_words(text: str) -> str:
    """Call folds as a person would.

    Examples
    --------
    >>> folds_in_words("esc50 (folds 1,2,3,4), tested on (folds 5)")
    'esc50 (folds 1 to 4), tested on fold 5'
    >>> folds_in_words("esc50 (folds 1 to 4)")
    'esc50 (folds 1 to 4)'
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


def check_replaceable(path: str | Path) -> None:
    """Refuse a path at which something else than a result stands."""
    path = Path(path)
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return
    try:
        content = read_json(path)
    except (ValueError, OSError):
        content = None
    if not isinstance(content, dict) or "provenance" not in content:
        raise SonibookError(f"{path}: is there already and is not a result: choose another name.")


def write_result(path: str | Path, content: dict[str, Any], *, command: str | None = None) -> None:
    """Write a result and its provenance, whole or not at all."""
    whole = {**content, "provenance": content.get("provenance") or provenance(command)}
    rows = whole.get("rows") or []
    text = json.dumps(
        whole | {"rows": []} if rows else whole, indent=2, ensure_ascii=False, allow_nan=False
    )
    if rows:  # a line each
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
        text = text.replace(
            '\n  "rows": []', '\n  "rows": [\n    ' + ",\n    ".join(lines) + "\n  ]"
        )
    with atomic(path) as temporary:
        # A file's name may not be Unicode: what it holds becomes an escape, which JSON reads back.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read_result(name: str) -> dict[str, Any]:
    """A result that comes with sonibook, such as ``"bench-sonify"``.

    Parameters
    ----------
    name : str
        File name in ``data/results``, without ``.json``; SonibookError if there is none.
    """
    known = _known()
    if name not in known:
        raise SonibookError(
            f"There is no result {name!r}: choose one of {', '.join(known) or 'none'}."
        )
    return read_json(known[name])


def has_result(name: str) -> bool:
    """Whether a result of that name comes with sonibook."""
    return name in _known()


def _known() -> dict[str, Path]:
    return {
        path.stem: path
        for folder in DATA_FOLDERS
        for path in sorted((folder / "results").glob("*.json"))
    }


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
