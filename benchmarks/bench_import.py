"""What `import sonibook` costs beyond `import torch`, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from timing import interleaved, write

REPEATS = 9


def importing(module: str) -> None:
    """Start Python, import a module, and end."""
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)


def main() -> None:
    """Measure, print and write."""
    seconds = interleaved(
        {module: lambda module=module: importing(module) for module in ("torch", "sonibook")},
        repeats=REPEATS,
    )
    beyond = seconds["sonibook"]["median"] - seconds["torch"]["median"]
    print(f"import sonibook: {1e3 * beyond:.0f} ms beyond import torch")
    write("bench-import", {"seconds": seconds, "beyond_torch": beyond})


if __name__ == "__main__":
    main()
