"""Run one chapter from start to end with papermill, as `make chapters` does; or bring chapters into
the house's format, as `make format` does.

The executed notebook appears under its name only when every cell ran. What the cells print goes
to a log as it comes; a chapter that fails is kept, outputs and all, for a look. In format, outputs
are stripped, and what a page folds JupyterLab folds too: it knows the tags of no page.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbstripout import strip_output

from sonibook.files import atomic

#: Chapters whose argument is about real sounds, with what else they take where recordings lie.
RECORDED: dict[str, dict[str, object]] = {
    "01_why_listen": {"clip": 24},
    "06_sonification": {"clip": 74},
    "07_tour": {},
    "08_growth": {},
    "10_ablation": {"clip": 74},
    "13_separation": {},
    "19_listeners": {"clip": 29},
}
#: What a page says of its sounds, by data set.
_SOUNDS = {
    "soundscapes": "The sounds on this page are synthesised: `sonibook data fetch esc10 "
    "--data-root DATA` downloads recordings, and `make book DATA_ROOT=DATA` plays those instead.",
    "esc10": "The recordings on this page are of ESC-10 [(Piczak, 2015)](#piczak2015esc), under "
    "CC BY, mostly cut to their loudest seconds.",
}
_SOUNDS |= dict.fromkeys(
    ("esc40", "esc50"),
    "The recordings on this page are of ESC-50 [(Piczak, 2015)](#piczak2015esc), mostly cut to "
    "their loudest seconds, and for non-commercial use alone (CC BY-NC).",
)
#: What JupyterLab is told of a cell with a tag of the pages.
_FOLDED = {
    "hide-input": {"source_hidden": True},
    "hide-output": {"outputs_hidden": True},
    "hide-cell": {"source_hidden": True, "outputs_hidden": True},
}


def formatted(text: str) -> str:
    """A notebook, as JSON, without outputs and with its cells folded by their tags."""
    notebook: Any = nbformat.reads(text, as_version=4)
    notebook = strip_output(notebook, keep_output=False, keep_count=False, keep_id=True)
    for cell in notebook.cells:
        folded: dict[str, bool] = {}
        for tag in cell.metadata.get("tags", []):
            folded |= _FOLDED.get(tag, {})
        cell.metadata.pop("jupyter", None)
        if folded:
            cell.metadata["jupyter"] = folded
    return nbformat.writes(notebook) + "\n"


def format_chapters(paths: list[str]) -> int:
    """Format notebooks; those in format are left alone."""
    for path in map(Path, paths):
        text = path.read_text(encoding="utf-8")
        if (new := formatted(text)) != text:
            path.write_text(new, encoding="utf-8")
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description="Run one chapter with papermill.")
    parser.add_argument("chapter", type=Path, help="the stripped notebook, book/NN_name.ipynb")
    parser.add_argument("target", type=Path, help="where the executed notebook goes")
    parser.add_argument("--metrics", type=Path, help="where the chapter writes its metrics JSON")
    parser.add_argument(
        "--profile", choices=["smoke", "full"], help="minutes, or as long as it takes"
    )
    parser.add_argument("--dataset", help="a name that sonibook.open_dataset knows")
    parser.add_argument("--recordings", help="the same, for chapters about real sounds alone")
    parser.add_argument("--data-root", help="the folder that holds the data sets")
    parser.add_argument("--seed", help="a whole number")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="another parameter of the chapter, such as -p layer 8",
    )
    # An empty option means "the chapter's own default": make passes all of them, always.
    raw = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(_without_empty(raw))
    if options.seed is not None and not options.seed.lstrip("-").isdigit():
        parser.error(f"seed {options.seed!r} is not a whole number.")
    return options


def _without_empty(arguments: list[str]) -> list[str]:
    kept: list[str] = []
    for argument in arguments:
        if argument == "" and kept and kept[-1].startswith("--"):
            kept.pop()
        else:
            kept.append(argument)
    return kept


def parameters_of(options: argparse.Namespace) -> dict[str, object]:
    """The parameters to hand to the chapter; what was not asked for stays the chapter's own."""
    given: dict[str, object] = {}
    if options.recordings and not options.dataset and options.chapter.stem in RECORDED:
        given |= {"dataset": options.recordings, **RECORDED[options.chapter.stem]}
    if options.profile:
        given["profile"] = options.profile
    if options.dataset:
        given["dataset"] = options.dataset
    if options.data_root:
        given["data_root"] = str(Path(options.data_root).expanduser().resolve())
    if options.seed is not None:
        given["seed"] = int(options.seed)
    for name, value in options.parameter:
        given[name] = _number(value)
    return given


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def run(chapter: Path, target: Path, parameters: dict[str, object]) -> None:
    """Execute `chapter` with `parameters` and write it to `target`, whole or not at all.

    If a cell fails, the program ends with one sentence; a chapter's first refuses what it cannot
    use.
    """
    log = target.parent / f"{target.stem}.log"
    failed = target.parent / f"{target.stem}.failed"
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic(target) as temporary, _Logged(log):
        try:
            papermill.execute_notebook(
                chapter,
                temporary,
                parameters=parameters,
                cwd=chapter.parent,
                kernel_name="python3",
                log_output=True,
                progress_bar=sys.stderr.isatty(),
                autosave_cell_every=0,
                # What the kernel says of itself (its transport, its end) is not the chapter's.
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
        except papermill.PapermillExecutionError as error:
            shutil.copyfile(temporary, failed)
            print(error, file=sys.stderr)
            raise SystemExit(
                f"{chapter}: cell {error.exec_count} failed with {error.ename}: {error.evalue}\n"
                f"See {failed} (a notebook) and {log}."
            ) from None
        _tidy(temporary)
        if chapter.stem in RECORDED:
            _tell(temporary, str(parameters.get("dataset", "soundscapes")))
    failed.unlink(missing_ok=True)


class _Logged:
    """What papermill reports, and what the cells print, into a file as it comes."""

    def __init__(self, path: Path) -> None:
        self.handler = logging.FileHandler(path, mode="w", encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        self.logger = logging.getLogger("papermill")

    def __enter__(self) -> None:
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self.handler)

    def __exit__(self, *exception: object) -> None:
        self.logger.removeHandler(self.handler)
        self.handler.close()


def _tidy(path: Path) -> None:
    """Leave out what a page without a kernel has no use for.

    Widgets are shown in their static form: their state can go, and progress bars, which have none;
    a script that stands there several times is kept once, and the cell of injected parameters is
    hidden.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    seen: set[str] = set()

    def once(script: re.Match[str]) -> str:
        known = script[0] in seen
        seen.add(script[0])
        return "" if known else script[0]

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_progress_bar(output)]
            for data in (output.get("data", {}) for output in cell.outputs):
                if page := data.get("text/html"):
                    data["text/html"] = re.sub(r"<script>.*?</script>", once, page, flags=re.S)
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, "remove-cell"]
    nbformat.write(notebook, path)


def _tell(path: Path, dataset: str) -> None:
    """Say below a chapter's introduction what its sounds are."""
    notebook = nbformat.read(path, as_version=4)
    if dataset in _SOUNDS:
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(_SOUNDS[dataset], id="sounds"))
    nbformat.write(notebook, path)


def _is_progress_bar(output: nbformat.NotebookNode) -> bool:
    data = output.get("data", {})
    widget = "application/vnd.jupyter.widget-view+json" in data
    return widget and re.search(r"\d+%\|", data.get("text/plain", "")) is not None


def main(arguments: list[str] | None = None) -> int:
    """Run the chapter that the command line names and say how long it took."""
    # A kernel of its own per chapter: papermill's and Jupyter's deprecations are not the reader's.
    warnings.simplefilter("ignore")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    # Two chapters run at a time: each with a core of its own, not both with threads for both.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))
    options = parse(arguments)
    if not options.chapter.is_file():
        raise SystemExit(f"{options.chapter}: there is no such chapter.")
    parameters = parameters_of(options)
    shown = ", ".join(f"{name} {value}" for name, value in parameters.items())
    print(f"{options.chapter.stem}: running ({shown or 'its own parameters'})", flush=True)
    start = time.perf_counter()
    if options.metrics is None:
        run(options.chapter, options.target, parameters)
    else:
        with atomic(options.metrics) as numbers:
            numbers.unlink()
            run(options.chapter, options.target, parameters | {"metrics": str(numbers.resolve())})
            if not numbers.exists():
                raise SystemExit(f"{options.chapter}: left no metrics that JSON can hold.")
    print(f"{options.chapter.stem}: done in {time.perf_counter() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(format_chapters(sys.argv[2:]) if sys.argv[1:2] == ["--format"] else main())
