"""The project keeps its word: versions, requirements, map and chapters agree with each other."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import sonibook
from sonibook.model.checkpoint import read_card

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "src" / "sonibook"
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))
PARAMETERS = {"seed", "profile", "dataset", "data_root", "metrics"}
#: Conda's names for what pip calls otherwise.
CONDA_NAMES = {
    "matplotlib-base": "matplotlib",
    "pysoundfile": "soundfile",
    "pytorch": "torch",
    "soxr-python": "soxr",
}
_MADE = {
    "build", "dist", "metrics", "runs", "node_modules", "__pycache__", "htmlcov",
}  # fmt: skip


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(*groups: str) -> dict[str, Requirement]:
    """The direct requirements of the library and of some of its extras, by canonical name."""
    lines = list(project()["dependencies"])
    for group in groups:
        lines += project()["optional-dependencies"][group]
    found = (Requirement(line) for line in lines)
    return {canonicalize_name(one.name): one for one in found if one.name != "sonibook"}


def all_requirements() -> dict[str, Requirement]:
    # XLA goes with a PyTorch of its own, and what a TPU needs with TPUs.
    return requirements(*(project()["optional-dependencies"].keys() - {"tpu", "xla"}))


def constraints(name: str = "constraints.txt") -> dict[str, dict[str, Version]]:
    """The versions that are pinned, by package and by the Pythons they are for ("" for all)."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pins: dict[str, dict[str, Version]] = {}
    for one in (Requirement(line) for line in lines if line and not line.startswith("#")):
        (pin,) = one.specifier
        assert pin.operator == "=="
        own = pins.setdefault(canonicalize_name(one.name), {})
        own[str(one.marker or "")] = Version(pin.version)
    return pins


def texts() -> list[Path]:
    """Every text file of the project."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name for name in folders
            if name not in _MADE and (not name.startswith(".") or name in (".ci", ".github"))
        ]  # fmt: skip
        for name in names:
            path = Path(folder, name)
            if name == ".git":  # of a second work tree: it names the first
                continue
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            found.append(path)
    return found


def test_constraints_cover_every_direct_requirement() -> None:
    pins = constraints()
    for name, requirement in all_requirements().items():
        assert name in pins, f"constraints.txt does not pin {name}"
        for pin in pins[name].values():
            assert requirement.specifier.contains(pin), f"{requirement}, pinned at {pin}"


def test_constraints_of_xla_cover_its_direct_requirements() -> None:
    pins = constraints("constraints-xla.txt")
    for name, requirement in requirements("xla").items():
        (pin,) = pins[name].values()
        assert requirement.specifier.contains(pin), f"{requirement}, pinned at {pin}"


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-xla.txt"])
def test_constraints_fit_any_build_of_a_release(file: str) -> None:
    for name, pins in constraints(file).items():
        for version in pins.values():
            assert version.local is None, f"{name}=={version} accepts one build only"


def test_the_lock_file_holds_the_constraints_and_everybody_can_use_it() -> None:
    lock = tomllib.loads((ROOT / "pylock.toml").read_text(encoding="utf-8"))
    locked: dict[str, dict[str, Version]] = {}
    for package in lock["packages"]:
        marker = package.get("marker", "")
        locked.setdefault(package["name"], {})[marker] = Version(package["version"])
        files = [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
        assert files, f"{package['name']} can be had from nowhere"
        for file in files:
            assert file["hashes"]["sha256"]
            assert urlsplit(file["url"]).hostname == "files.pythonhosted.org"
    extras = requirements("fuzz", "pesq", "trackio", "wandb").keys()  # `make setup` installs none
    optional = extras - requirements("dev", "test", "book", "lab", "listeners").keys()
    for name, pins in constraints().items():
        if name not in optional:
            assert {*locked[name].values()} == {*pins.values()}, name
    assert [*locked["torch"]] == [
        marker.replace("python_version", "python_full_version").replace('"', "'")
        for marker in constraints()["torch"]
    ]


def test_conda_environment_is_in_step_with_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    lines = [line for line in environment["dependencies"] if isinstance(line, str)]
    listed = {}
    for line in lines:
        requirement = Requirement(line)
        listed[canonicalize_name(CONDA_NAMES.get(requirement.name, requirement.name))] = (
            requirement.specifier
        )
    python = listed.pop("python")
    listed.pop("pip")
    assert python == Requirement(f"python{project()['requires-python']}").specifier
    expected = {name: one.specifier for name, one in requirements("lab", "book", "explain").items()}
    assert listed == expected


def imported(path: Path) -> set[str]:
    """The packages from elsewhere that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"sonibook"}


def test_every_import_of_the_library_is_declared() -> None:
    homes = packages_distributions()
    declared = set(requirements("lab", "explain", "listeners", "pesq", "wandb", "trackio", "xla"))
    for path in sorted(LIBRARY.rglob("*.py")):
        for name in imported(path):
            distributions = {canonicalize_name(home) for home in homes.get(name, [name])}
            assert distributions & declared, f"{path.relative_to(ROOT)} imports {name}"


def test_readme_maps_every_folder_and_module() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    mapped = set(re.findall(r"^\| `([^`]+)`", readme, flags=re.MULTILINE))
    folders = {
        f"{path.name}/" for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name not in _MADE | {"src"}
    }  # fmt: skip
    rooms = {
        f"src/sonibook/{path.name}" + ("/" if path.is_dir() else "")
        for path in LIBRARY.iterdir()
        if not path.name.startswith(("_", "."))
    }
    assert folders | rooms <= mapped, sorted((folders | rooms) - mapped)
    gone = sorted(entry for entry in mapped if not (ROOT / entry).exists())
    assert not gone, f"the map shows what is not there: {gone}"


def test_one_version_everywhere() -> None:
    version = project()["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d+\.\d+\.\d+)", changelog, flags=re.MULTILINE)
    assert str(citation["version"]) == version
    assert newest is not None
    assert sonibook.__version__ == version
    assert newest.group(1) == version


def test_files_hold_one_idea() -> None:
    for path in sorted(LIBRARY.rglob("*.py")):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_is_stripped_and_has_parameters(chapter: Path) -> None:
    notebook = json.loads(chapter.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    assert "widgets" not in notebook["metadata"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assigned = set()
    for node in ast.parse("".join(tagged[0]["source"])).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        assigned |= {target.id for target in targets if isinstance(target, ast.Name)}
    assert assigned >= PARAMETERS, sorted(PARAMETERS - assigned)


def code_of(chapter: Path) -> list[ast.Module]:
    """The code cells of a chapter."""
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    return [ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_imports_little(chapter: Path) -> None:
    imports = [
        node
        for cell in code_of(chapter)
        for node in ast.walk(cell)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    lines = sum(1 + (node.end_lineno or node.lineno) - node.lineno for node in imports)
    assert lines <= 8, [ast.unparse(node) for node in imports]


def test_no_two_chapters_define_a_function_of_one_name_nor_the_librarys() -> None:
    homes: dict[str, set[str]] = {}
    for path in LIBRARY.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                homes[node.name] = {"the library"}
    for chapter in CHAPTERS:
        for cell in code_of(chapter):
            for node in cell.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    homes.setdefault(node.name, set()).add(chapter.stem)
    assert not {name: chapters for name, chapters in homes.items() if len(chapters) > 1}


#: A machine's own folders, addresses of package indexes, and notes to self, have no place here.
UNWANTED = re.compile(
    r"(?<![\w.:/~-])/(?:home|root|work|opt|mnt|Users)/\w"
    r"|https?://[^\s\"')]*(?:pypi|pythonhosted|npmjs|anaconda)\."
    r"|\b(?:TO" r"DO|FIX" r"ME)\b"
)  # fmt: skip


def test_texts_speak_of_the_project_alone() -> None:
    found = []  # a lock file has to say where each file of its versions lies
    for path in texts():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if UNWANTED.search(line) and path not in (Path(__file__), ROOT / "pylock.toml"):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_cards_speak_of_the_project_alone() -> None:
    for path in (ROOT / "data" / "checkpoints").rglob("*.safetensors"):
        assert not UNWANTED.search(json.dumps(read_card(path))), path


def test_unwanted_lines_are_found_and_others_left() -> None:
    unwanted = ("see /home/ann/x", "open('/root/x')", "https://pypi.org/simple", "TO" + "DO: later")
    assert all(map(UNWANTED.search, unwanted))
    assert not any(
        map(UNWANTED.search, ("a/root/x", "https://example.org/work/x", "/path/to/data"))
    )
