"""Write constraints.txt, the exact version of every package in this environment, and lock them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
#: All that the project is developed with.
EVERYTHING = Requirement("sonibook[dev]")
HEADER = """\
# The exact versions that are tested, direct and transitive. `make setup` installs with
# `-c constraints.txt`. To renew: `make constraints`, then `make test`.
"""
#: What uv is told: for every system, and the oldest Python that all of these versions take.
LOCK = (
    "pip", "compile", "pyproject.toml", "--extra", "dev", "--constraint", "constraints.txt",
    "--universal", "--python-version", "3.11.5", "--format", "pylock.toml", "--quiet",
    "--custom-compile-command", "make constraints", "--output-file", "pylock.toml",
)  # fmt: skip
#: A line of the lock file with one of several wheels, and which are kept: for our Pythons, and for
#: systems that PyTorch is built for.
_WHEEL = re.compile(r"\n    \{ url = [^\n]*")
_OURS = re.compile(
    r"-(?:[^-]*py3[^-]*-none|cp3\d+-abi3|(cp31[1-4])-\1)"
    r"-(?:any|\S*manylinux\S*_(?:x86_64|aarch64)\S*|macosx\S*_(?:arm64|universal2)|win_(?:amd|arm)64)"
    r'\.whl"'
)
_DETAILS = re.compile(r" (?:upload-time|size) = [^,]*,")


def constraints(before: list[Requirement]) -> str:
    """The text of constraints.txt: what the project needs, as it is installed here.

    Parameters
    ----------
    before : list of Requirement
        What was pinned until now. The pins of other Pythons stay.

    Local version labels are dropped (``2.13.0+cpu`` becomes ``2.13.0``), so that the same file
    accepts every build of a release.
    """
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [EVERYTHING]
    while waiting:
        requirement = waiting.pop()
        found = distribution(requirement.name)
        name = found.metadata["Name"]
        if canonicalize_name(name) != EVERYTHING.name:
            pins[name] = f"=={found.version.split('+')[0]}"
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in found.requires or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    extras = {Requirement(line).name for line in distribution(EVERYTHING.name).requires or []}
    lines = []
    for one in before:
        here = one.marker is None or one.marker.evaluate()
        # An extra that is not installed here keeps the pin it has.
        if not here or (one.name in extras and one.name not in pins):
            lines.append(f"{one}\n")
        elif one.marker is not None and one.name in pins:
            lines.append(f"{one.name}{pins.pop(one.name)}; {one.marker}\n")
    lines += [f"{name}{pin}\n" for name, pin in pins.items()]
    return HEADER + "".join(sorted(lines, key=lambda line: line.partition("==")[0].lower()))


def lighter(lock: str) -> str:
    """A lock file without wheels that nobody with PyTorch can install, and without dates."""
    ours = _WHEEL.sub(lambda found: found[0] if _OURS.search(found[0]) else "", lock)
    return _DETAILS.sub("", ours)


def main() -> int:
    """Write the files beside pyproject.toml."""
    if sys.prefix == sys.base_prefix:
        print("Run this in the project's environment: make constraints", file=sys.stderr)
        return 2
    path = ROOT / "constraints.txt"
    pinned = [line for line in path.read_text(encoding="utf-8").splitlines() if "==" in line]
    text = constraints([Requirement(line) for line in pinned])
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {text.count('==')} packages.")
    uv = shutil.which("uv")
    if uv is None:
        print("pylock.toml stays as it is: only uv can write it, and there is none.")
        return 0
    subprocess.run([uv, *LOCK], cwd=ROOT, check=True)
    lock = ROOT / "pylock.toml"
    lock.write_text(lighter(lock.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
