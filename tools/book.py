"""Build the book's pages from executed chapters, as `make book` does.

The pages are built in a folder of their own: the book's furniture is copied there, the executed
chapters are put in place of the stripped ones, and a page of reference is written for every
module of the library. Any warning fails the build.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from sonibook.analysis.listening import listening_report

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
LIBRARY = ROOT / "src" / "sonibook"


def assemble(executed: Path, target: Path) -> None:
    """Put everything the build needs into `target`, and take out what has gone.

    Parameters
    ----------
    executed : Path
        The folder of executed chapters.
    target : Path
        The folder to build in; files that did not change are left alone, so that only pages
        that changed are built again.

    Raises
    ------
    SystemExit
        If a chapter was not executed.
    """
    wanted: dict[Path, bytes] = {}
    for path in sorted(BOOK.rglob("*")):
        name = path.relative_to(BOOK)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        if not path.is_file() or hidden or name.parts[0] == "metrics":
            continue
        if path.suffix == ".ipynb":
            path = executed / name
            if not path.is_file():
                raise SystemExit(f"{path}: the chapter was not executed: run `make chapters`.")
        wanted[name] = path.read_bytes()
    wanted[Path("_config.yml")] = configuration(wanted[Path("_config.yml")].decode()).encode()
    heard = listening_report(ROOT / "data" / "results").encode()
    page = Path("listening_test.md")
    wanted[page] = wanted[page].replace(b"% what people heard", heard)
    wanted[Path("changelog.md")] = (ROOT / "CHANGELOG.md").read_bytes()
    for module in modules():
        wanted[Path("reference") / f"{module}.md"] = reference_page(module).encode()
    for name, content in wanted.items():
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target)
        if path.is_file() and name.parts[0] != "_build" and name not in wanted:
            path.unlink()


def configuration(text: str) -> str:
    """The book's configuration, with launch buttons where the repository has an address.

    Parameters
    ----------
    text : str
        ``_config.yml``.

    Returns
    -------
    str
        The same, with the theme told of the repository: our settings of the theme replace those
        that jupyter-book would make of it.
    """
    settings = yaml.safe_load(text)
    repository = settings["repository"]
    settings["sphinx"]["config"]["html_theme_options"] |= {
        "repository_url": repository["url"],
        "repository_branch": repository["branch"],
        "path_to_docs": repository["path_to_book"] if repository["url"] else "",
        "launch_buttons": settings["launch_buttons"] if repository["url"] else {},
    }
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def modules() -> list[str]:
    """The library's public modules and packages, by dotted name, in order."""
    names = []
    for path in LIBRARY.rglob("*.py"):
        parts = ["sonibook", *path.relative_to(LIBRARY).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        if not any(part.startswith("_") for part in parts):
            names.append(".".join(parts))
    return sorted(names)


def reference_page(module: str) -> str:
    """The page that documents `module`: what its docstrings say."""
    return f"# {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"


#: The page at the book's own address. jupyter-book's has no title for who cannot see that it leads
#: on at once, and no icon: a browser then asks for one that is not there. An empty one, since the
#: request for a real one would break off when the page leads on.
FRONT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=intro.html">
<title>sonibook</title>
<link rel="icon" href="data:,">
</head>
<body><a href="intro.html">sonibook</a></body>
</html>
"""


def build(target: Path, *, builder: str = "html", strict: bool = True) -> int:
    """Run jupyter-book in `target`; its exit code, 0 if `strict` only without any warning."""
    start = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
    options = ["--builder", builder, "--quiet"]
    if strict:
        options += ["--warningiserror", "--nitpick", "--keep-going"]
    command = [sys.executable, "-c", start, "build", str(target), *options]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Assemble and build what the command line names."""
    parser = argparse.ArgumentParser(description="Build the book's pages.")
    parser.add_argument("executed", type=Path, help="the folder of executed chapters")
    parser.add_argument("target", type=Path, help="the folder to build in")
    options = parser.parse_args()
    assemble(options.executed, options.target)
    # A page whose chapter was taken out of the book must not live on.
    pages = options.target / "_build" / "html"
    shutil.rmtree(pages, ignore_errors=True)
    code = build(options.target)
    if code == 0:
        (pages / "index.html").write_text(FRONT, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
