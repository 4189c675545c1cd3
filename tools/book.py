"""Build the book's pages from executed chapters, as `make book` does, or print them (`make pdf`).

The pages are built in a folder of their own: the book's furniture is copied there, the executed
chapters are put in place of the stripped ones, and a page of reference is written for every
module of the library. Any warning fails the build. For the PDF file all pages but the lab and the
reference become one page of HTML, which Chromium prints.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from sonibook.plots.claims import listening_report

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
LIBRARY = ROOT / "src" / "sonibook"


def assemble(executed: Path, target: Path) -> None:
    """Put everything the build needs into `target`, and take out what has gone.

    `executed` is the folder of executed chapters. Files that did not change are left alone, so that
    only pages that changed are built again.
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
    """The text of ``_config.yml``, with launch buttons where the repository has an address.

    The theme is told of the repository: our settings replace those that jupyter-book would make.
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


#: What is of no use on paper.
LEFT_OUT = ("lab", "reference/index")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def on_paper(contents: dict) -> dict:
    """A table of contents, as ``_toc.yml`` has it, without what is of no use on paper."""
    parts = []
    for part in contents["parts"]:
        chapters = [one for one in part["chapters"] if one.get("file") not in LEFT_OUT]
        if chapters:
            parts.append({**part, "chapters": chapters})
    return {**contents, "parts": parts}


def single_page(executed: Path, target: Path) -> Path:
    """Build the book as one page of HTML in `target`."""
    assemble(executed, target)
    contents = target / "_toc.yml"
    text = yaml.safe_dump(on_paper(yaml.safe_load(contents.read_text(encoding="utf-8"))))
    contents.write_text(text, encoding="utf-8")
    (target / "lab.md").unlink()
    shutil.rmtree(target / "reference")
    # Links into what was left out lead nowhere: no reason to fail.
    code = build(target, builder="singlehtml", strict=False)
    page = target / "_build" / "singlehtml" / "intro.html"
    if code or not page.is_file():
        raise SystemExit("The book did not become one page: see above.")
    return page


def printed(page: Path, file: Path) -> None:
    """Print a page to a PDF file with Chromium, if there is one."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(
            "Printing needs Chromium or Chrome on PATH: install it (Debian: apt-get install "
            f"chromium), or open {page} in a browser and print it."
        )
    temporary = file.with_suffix(".part.pdf")
    command = [browser, "--headless", "--disable-gpu", "--no-pdf-header-footer",
               "--generate-pdf-document-outline", f"--print-to-pdf={temporary}",
               page.resolve().as_uri()]  # fmt: skip
    if os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # Chromium refuses to run as root with it
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if result.returncode or not temporary.is_file():
        raise SystemExit(f"Chromium did not print the book:\n{result.stderr[-2000:]}")
    temporary.replace(file)


def main() -> int:
    """Assemble and build what the command line names."""
    parser = argparse.ArgumentParser(description="Build the book's pages, or print them.")
    parser.add_argument("executed", type=Path, help="the folder of executed chapters")
    parser.add_argument("target", type=Path, help="the folder to build in")
    parser.add_argument("--pdf", type=Path, help="print the book to this file instead")
    options = parser.parse_args()
    if options.pdf is not None:
        printed(single_page(options.executed, options.target), options.pdf)
        print(f"The book is printed: {options.pdf}")
        return 0
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
