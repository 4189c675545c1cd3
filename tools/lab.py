"""Build the lab in the page: its engine, as `make engine` does, and its files, as `make book` does;
and the book's listening test: its page, sounds and trials.

The page's script is one classic script, with the engine and the worker inside: a page that was
opened from disk may load nothing else. It is made of the modules in ``book/lab`` by leaving out
their imports and exports.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sonibook.analysis.networks import Network, load_network
from sonibook.datasets import Dataset, open_dataset
from sonibook.errors import SonibookError
from sonibook.widgets.listening_test import make_listening_test
from sonibook.widgets.players import joined, script

LAB = Path(__file__).resolve().parents[1] / "book" / "lab"
WASM = LAB / "engine.wasm"
WIDGETS = Path(__file__).resolve().parents[1] / "src" / "sonibook" / "widgets"

#: The modules of the worker and of the page, each after those it imports from.
WORKER = ("sound.js", "signal.js", "resample.js", "engine.js", "worker.js")
PAGE = (
    "pieces.js",
    "sound.js",
    "signal.js",
    "link.js",
    "drawing.js",
    "recordings.js",
    "recorder.js",
    "model.js",
    "view.js",
    "hearing.js",
    "classes.js",
    "round.js",
    "page.js",
)
#: No standard library, nothing imported, and only instructions that every browser since 2023 has.
_COMPILER = (
    *("-target", "wasm32-freestanding", "-mcpu=generic+simd128+bulk_memory", "-std=c11", "-O3"),
    *("-Wall", "-Wextra", "-Werror", "-nostdlib", "-Wl,--no-entry", "-Wl,--strip-all"),
    # Where the program's own data and stack end: the script may use the memory from there.
    "-Wl,--export=__heap_base",
)


def compile_engine() -> bytes:
    """``engine.c`` as WebAssembly; the same bytes each time, for one version of the compiler."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "engine.wasm"
        command = [sys.executable, "-m", "ziglang", "cc", *_COMPILER, "-o", str(target)]
        subprocess.run([*command, "engine.c"], check=True, cwd=LAB)
        return target.read_bytes()


def source_of(module: str) -> str:
    """The text of a module of the lab, or of one that the explorer shares with it."""
    return _path(module).read_text(encoding="utf-8")


def _path(module: str) -> Path:
    path = LAB / module
    return path if path.exists() else WIDGETS / module


def bundle(modules: Sequence[str], constants: dict[str, str] | None = None, end: str = "") -> str:
    """Modules, each after those it imports from, as one classic script.

    `constants` is text that they use, by name; `end` a last line, which sees what they define.
    """
    return joined((_path(name) for name in modules), constants, end)


def page_script() -> str:
    """The script of the page: the player, and the lab."""
    engine = base64.b64encode(WASM.read_bytes()).decode()
    return script() + bundle(PAGE, {"ENGINE": engine, "WORKER": bundle(WORKER)})


def publish(out: Path, data_root: str | None) -> int:
    """Write all that the page loads into `out`, recordings of `data_root` too; the exit code."""
    from sonibook.cli import main as sonibook

    out.mkdir(parents=True, exist_ok=True)
    (out / "lab.js").write_text(page_script(), encoding="utf-8")
    (out / "lab.css").write_bytes((LAB / "lab.css").read_bytes())
    recordings = [] if data_root is None else ["--data-root", data_root]
    return sonibook(["export-lab", "--out", str(out), *recordings])


def families() -> list[list[Network]]:
    """By seed: a supervised and a contrastive network, and the weights that both started from."""
    found = []
    for end in ("", "-32", "-33"):  # of names that differ in their seed alone
        pair = [
            load_network(name + end, name + end) for name in ("supervised-esc40", "contrastive")
        ]
        start = pair[1].start
        assert start is not None
        found.append([*pair, start])
    return found


def clips(dataset: str, data_root: str | None) -> Dataset:
    """Soundscapes of one event each, or recordings that the networks were not trained on."""
    if dataset in ("", "soundscapes"):
        return open_dataset(
            "soundscapes", split="test", task="single-label", size=160, duration=2.0
        )
    part = {"folds": [5]} if dataset.startswith("esc") else {"split": "test"}
    return open_dataset(dataset, root=data_root or None, **part)


def main() -> int:
    """Build what the command line names; the exit code."""
    parser = argparse.ArgumentParser(
        description="Build the lab in the page, or the listening test."
    )
    parser.add_argument("what", choices=["engine", "files", "listening-test"])
    parser.add_argument("out", type=Path, nargs="?", help="the folder for the files")
    parser.add_argument("--dataset", default="", help="of the listening test")
    parser.add_argument("--data-root", help="where recordings lie; for the lab, those of ESC-50")
    options = parser.parse_args()
    if options.what == "engine":
        WASM.write_bytes(compile_engine())
        return 0
    if options.out is None:
        parser.error("say which folder the files go to")
    if options.what == "files":
        return publish(options.out, options.data_root)
    try:
        make_listening_test(families(), clips(options.dataset, options.data_root), options.out)
    except SonibookError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
