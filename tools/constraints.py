"""Write constraints.txt: the exact version of every package in this environment."""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: All that the project is developed with.
EVERYTHING = Requirement("sonibook[dev]")
HEADER = """\
# The exact versions that are tested, direct and transitive. `make setup` installs with
# `-c constraints.txt`. To renew: `make constraints`, then `make test`.
"""


def constraints(before: dict[str, str]) -> str:
    """The text of constraints.txt: what the project needs, as it is installed here.

    Parameters
    ----------
    before : dict of str to str
        The versions that were pinned until now.

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
            pins[name] = found.version.split("+")[0]
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in found.requires or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    for line in distribution(EVERYTHING.name).requires or []:
        missing = Requirement(line).name
        # An extra that is not installed here keeps the pin it has.
        if missing in before and missing not in pins:
            pins[missing] = before[missing]
    lines = [f"{name}=={pins[name]}\n" for name in sorted(pins, key=str.lower)]
    return HEADER + "".join(lines)


def main() -> int:
    """Write the file beside pyproject.toml."""
    if sys.prefix == sys.base_prefix:
        print("Run this in the project's environment: make constraints", file=sys.stderr)
        return 2
    path = Path(__file__).parents[1] / "constraints.txt"
    pinned = [line.split("==") for line in path.read_text(encoding="utf-8").split() if "==" in line]
    text = constraints(dict(pinned))
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {text.count('==')} packages.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
