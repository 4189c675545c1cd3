"""How chapters are kept, and pages put together: folded code, launch buttons, what paper lacks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))
CONFIGURATION = (ROOT / "book" / "_config.yml").read_text(encoding="utf-8")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


def launchers(text: str) -> dict[str, Any]:
    """What jupyter-book makes of a configuration: the theme's settings."""
    from jupyter_book.config import get_final_config

    config, _ = get_final_config(
        user_yaml=yaml.safe_load(text), cli_config={"latex_individualpages": False}
    )
    options: dict[str, Any] = config["html_theme_options"]
    return options


@pytest.mark.usefixtures("tools")
def test_without_an_address_there_are_no_launch_buttons() -> None:
    from tools.book import configuration

    assert yaml.safe_load(CONFIGURATION)["repository"]["url"] == ""
    options = launchers(configuration(CONFIGURATION))
    assert options["repository_url"] == ""
    assert options["launch_buttons"] == {}


@pytest.mark.usefixtures("tools")
def test_with_an_address_chapters_offer_binder_and_colab() -> None:
    from sphinx_book_theme.header_buttons.launch import add_launch_buttons

    from tools.book import configuration

    address = "https://github.com/someone/sonibook"
    text = CONFIGURATION.replace('url: ""', f"url: {address}", 1)
    options = launchers(configuration(text))
    assert options["repository_url"] == address

    class App:
        """As much of Sphinx as the theme asks here; a whole build takes half a minute."""

        class config:  # noqa: N801
            html_theme_options = options

            def __class_getitem__(cls, name: str) -> Any:
                return getattr(cls, name)

        class env:  # noqa: N801
            metadata = {"06_sonification": {"kernelspec": "python3"}}  # noqa: RUF012

            @staticmethod
            def doc2path(name: str) -> str:
                return f"book/{name}.ipynb"

    context: dict[str, Any] = {
        "header_buttons": [], "pagename": "06_sonification", "sourcename": "06_sonification.ipynb",
        "github_url": "https://github.com", "github_user": "someone", "github_repo": "sonibook",
    }  # fmt: skip
    add_launch_buttons(App, "06_sonification", "", context, None)
    links = [button["url"] for button in context["header_buttons"][0]["buttons"]]
    chapter = "book/06_sonification.ipynb"
    assert links == [
        f"https://mybinder.org/v2/gh/someone/sonibook/main?urlpath=lab/tree/{chapter}",
        f"https://colab.research.google.com/github/someone/sonibook/blob/main/{chapter}",
    ]
    assert (ROOT / chapter).is_file()


@pytest.mark.usefixtures("tools")
def test_the_page_of_the_listening_test_says_what_was_heard(tmp_path: Path) -> None:
    from sonibook.plots.claims import listening_report
    from tools.book import assemble

    assemble(ROOT / "book", tmp_path)
    page = (tmp_path / "listening_test.md").read_text(encoding="utf-8")
    assert f"\n\n{listening_report(ROOT / 'data' / 'results')}\n\n" in page


@pytest.mark.usefixtures("tools")
def test_paper_has_the_chapters_and_no_lab() -> None:
    from tools.book import on_paper

    contents = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    kept = [one for part in on_paper(contents)["parts"] for one in part["chapters"]]
    assert {"glob": "[0-9]*"} in kept
    assert {"file": "glossary"} in kept
    assert not {"lab", "reference/index"} & {one.get("file") for one in kept}


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_jupyterlab_folds_what_the_page_folds(chapter: Path) -> None:
    from tools.chapters import formatted

    text = chapter.read_text(encoding="utf-8")
    assert formatted(text) == text, "run `make format`"
    prose = "".join(cell.source for cell in nbformat.reads(text, 4).cells if "outputs" not in cell)
    assert not re.search(r"\{[a-z:]+\}`", prose), "make a link of a role: CONTRIBUTING.md, Chapters"
    assert not re.search(r"^:::|^```\{", prose, re.M), "make a box a quotation: CONTRIBUTING.md"
    for cell in nbformat.reads(text, as_version=4).cells:
        tags = set(cell.metadata.get("tags", []))
        folded = cell.metadata.get("jupyter", {})
        assert folded.get("source_hidden", False) == bool(tags & {"hide-input", "hide-cell"})
        assert folded.get("outputs_hidden", False) == ("hide-cell" in tags)
        if tags & {"parameters"} or cell.source.startswith(("import ", "from ")):
            assert "hide-input" in tags


def visible(cell: Any) -> int:
    """How many lines of code of a cell the page shows unasked."""
    hidden = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
    if cell.cell_type != "code" or hidden & set(cell.metadata.get("tags", [])):
        return 0
    return sum(bool(line.strip()) for line in cell.source.splitlines())


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_begins_with_a_sound_or_a_picture_and_little_code(chapter: Path) -> None:
    code = [cell for cell in nbformat.read(chapter, as_version=4).cells if "outputs" in cell]
    long = [cell.id for cell in code if visible(cell) > 10]
    lessons = [cell.id for cell in code if "lesson" in cell.metadata.get("tags", [])]
    assert long == lessons
    assert len(lessons) <= 2
    shown = next(n for n, cell in enumerate(code) if re.search(r"\b(show|plots)\.\w", cell.source))
    assert sum(map(visible, code[: shown + 1])) <= 10


def test_the_book_shows_less_code_than_text() -> None:
    cells = [cell for path in CHAPTERS for cell in nbformat.read(path, as_version=4).cells]
    text = sum(len(cell.source.splitlines()) for cell in cells if cell.cell_type == "markdown")
    assert sum(map(visible, cells)) < min(1800, text)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_asks_three_questions_and_answers_each_choice(chapter: Path) -> None:
    cells = nbformat.read(chapter, as_version=4).cells
    (quiz,) = (cell.source for cell in cells if cell.source.startswith("## Test yourself"))
    asked = re.findall(
        r"\*\*\d\. .*\n\n((?:\d\. .*\n)+)\n<details>\n<summary>Answers</summary>\n\n"
        r"((?:\d\. .*\n)+)\n</details>",
        quiz,
    )
    assert len(asked) == 3
    for choices, answers in asked:
        assert choices.count("\n") == answers.count("\n") == 3
        assert answers.count(". Right. ") == 1
        assert len(set(choices.splitlines())) == 3


def test_the_script_of_questions_is_small() -> None:
    files = (ROOT / "book" / "_static").glob("questions.*")
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < 120
