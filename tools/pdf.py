"""Print the book to one PDF file, as `make pdf` does.

All pages but the lab and the function reference become one page of HTML, which Chromium prints.
What only moves or sounds is left out there; pictures, text and formulas stay.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tools.book import assemble, build

#: What is of no use on paper.
LEFT_OUT = ("lab", "reference/index")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def on_paper(contents: dict) -> dict:
    """A table of contents without what is of no use on paper.

    Parameters
    ----------
    contents : dict
        As ``_toc.yml`` has it.

    Returns
    -------
    dict
    """
    parts = []
    for part in contents["parts"]:
        chapters = [one for one in part["chapters"] if one.get("file") not in LEFT_OUT]
        if chapters:
            parts.append({**part, "chapters": chapters})
    return {**contents, "parts": parts}


def single_page(executed: Path, target: Path) -> Path:
    """Build the book as one page of HTML in `target`.

    Raises
    ------
    SystemExit
        If it cannot be built.
    """
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
    """Print a page to a PDF file with Chromium.

    Raises
    ------
    SystemExit
        If there is no Chromium, or it fails.
    """
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
    """Build and print what the command line names."""
    parser = argparse.ArgumentParser(description="Print the book to one PDF file.")
    parser.add_argument("executed", type=Path, help="the folder of executed chapters")
    parser.add_argument("target", type=Path, help="the folder to build in")
    parser.add_argument("file", type=Path, help="the PDF file")
    options = parser.parse_args()
    printed(single_page(options.executed, options.target), options.file)
    print(f"The book is printed: {options.file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
