"""What made a result: command, versions, commit, time."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("sonibook", "torch", "numpy", "scipy", "scikit-learn", "soxr", "soundfile")


def provenance(command: str | None = None) -> dict[str, object]:
    """What a result must say of how it came about.

    Parameters
    ----------
    command : str or None
        The command that made the result; by default the one this process was started with.

    Returns
    -------
    dict
        ``command`` (of an absolute path its last name: what is published shall not tell how
        somebody's machine is laid out), ``created`` (UTC), ``commit`` (with ``+changes`` where the
        source tree differs from it; None outside a checkout), ``python`` and ``versions``.
    """
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
