"""What is installed with sonibook: why it is, under which licence, and that it calls nobody."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


# Why each is there


def required() -> dict[str, set[str]]:
    """Every direct requirement, and what brings it: the library (""), an extra, or the build."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = content["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    groups["build"] = content["build-system"]["requires"]
    found: dict[str, set[str]] = {}
    for group, lines in groups.items():
        for line in lines:
            name = canonicalize_name(Requirement(line).name)
            if name != "sonibook":
                found.setdefault(name, set()).add(group)
    return found


def reasons() -> dict[str, tuple[set[str], str]]:
    """The table of CONTRIBUTING.md: package, what brings it, why."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]*) \| ([^|]+) \|$", text, flags=re.MULTILINE)
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names)), "a package stands in the table twice"
    return {
        name: ({"" if one == "library" else one for one in groups.split(", ")}, why.strip())
        for name, groups, why in rows
    }


def test_every_requirement_has_a_reason_and_every_reason_a_requirement() -> None:
    given, needed = reasons(), required()
    assert needed.keys() - given.keys() == set(), "CONTRIBUTING.md does not say why"
    assert given.keys() - needed.keys() == set(), "pyproject.toml does not ask for them"
    for name, groups in needed.items():
        assert given[name][0] == groups, f"{name}: who needs it is told wrongly"
        assert len(given[name][1]) > 6, f"{name}: that is not a reason"


# Licences

#: Those under which a program with an MIT licence may be used and handed on together with theirs.
FREE = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Python-2.0", "Unlicense",
    "Zlib",
    # They bind who changes the package itself, not who uses it.
    "LGPL-2.1-or-later", "MPL-2.0",
}  # fmt: skip
#: What packages without an SPDX expression call them.
OTHERWISE = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Public Domain": "CC0-1.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
#: Packages with a part under another licence, and why that does not matter.
EXCEPTIONS = {
    "axe-playwright-python": "MIT, by its licence file; its metadata do not say so",
    "docutils": "of all its files one is under the GPL: a mode for the editor Emacs",
}

#: NVIDIA's, under a licence of its own: pip takes them with PyTorch's CUDA build, never for us.
OF_CUDA = ("cuda-", "nvidia-")


def licences(metadata: Mapping[str, str], classifiers: list[str]) -> list[str]:
    """The licences that all hold for a package; of several to choose from, one that is free."""
    named = [entry.split(" :: ")[-1] for entry in classifiers if entry.startswith("License :: ")]
    named = [name for name in named if name != "OSI Approved"]
    expression = metadata.get("License-Expression")
    if expression or not named:
        text = (expression or metadata.get("License", "")).strip()
        parts = text.replace("(", "").replace(")", "").split(" AND ")
        named = [next((one for one in part.split(" OR ") if one in FREE), part) for part in parts]
        named = [text] if text in OTHERWISE else named
    return [OTHERWISE.get(name, name) for name in named]


def unfree(package: Distribution) -> list[str]:
    """The licences of a package that are not among the free ones."""
    metadata = package.metadata
    given = {
        key: str(metadata[key]) for key in ("License", "License-Expression") if key in metadata
    }
    found = licences(given, metadata.get_all("Classifier") or [])
    return [one or "none told" for one in found if one not in FREE]


def test_every_package_that_is_installed_has_a_free_licence() -> None:
    offenders = []
    for package in distributions():
        name = canonicalize_name(package.metadata["Name"])
        if name not in EXCEPTIONS and name != "sonibook" and not name.startswith(OF_CUDA):
            offenders += [f"{name} {package.version}: {one}" for one in unfree(package)]
    assert not offenders, "\n".join(offenders)


def test_exceptions_are_still_needed() -> None:
    for package in distributions():
        if canonicalize_name(package.metadata["Name"]) in EXCEPTIONS:
            assert unfree(package), f"{package.metadata['Name']} needs no exception any more"


@pytest.mark.parametrize(
    ("metadata", "classifiers", "expected"),
    [
        ({"License-Expression": "MIT AND (GPL-3.0-only OR BSD-2-Clause)"}, [], []),
        ({"License-Expression": "MIT AND GPL-3.0-only"}, [], ["GPL-3.0-only"]),
        ({"License": "Proprietary"}, ["License :: OSI Approved :: MIT License"], []),
        ({"License": "Proprietary"}, ["License :: Other/Proprietary License"], None),
        ({"License": "Proprietary"}, [], ["Proprietary"]),
        ({}, [], [""]),
    ],
)
def test_other_licences_are_found(
    metadata: dict[str, str], classifiers: list[str], expected: list[str] | None
) -> None:
    found = [one for one in licences(metadata, classifiers) if one not in FREE]
    assert found == (["Other/Proprietary License"] if expected is None else expected)


# No calls


def test_nothing_calls_anybody_when_imported_or_used(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import pkgutil
        import sys
        from importlib import import_module

        def refuse(event, arguments):
            if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname",
                         "socket.sendto", "urllib.Request"}:
                raise AssertionError(f"{event} {arguments}")

        sys.addaudithook(refuse)
        import sonibook
        from sonibook.cli import main

        names = [module.name for module in pkgutil.walk_packages(sonibook.__path__, "sonibook.")]
        for name in names:
            if not name.endswith("__main__"):
                import_module(name)
        import captum, pocketsphinx, pystoi, torch.utils.tensorboard
        from silero_vad import load_silero_vad
        load_silero_vad()
        data = sonibook.open_dataset("soundscapes", split="test", size=1)
        encoder = sonibook.load_encoder("supervised")
        assert sonibook.sonify(encoder, data[0].waveform, layer=8, filters=[3]).any()
        assert main(["data", "list"]) == 0
        import socket
        try:
            socket.create_connection(("127.0.0.1", 9))
        except AssertionError:
            print(f"{len(names)} modules")
        """
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1].removesuffix(" modules")) > 100, done.stdout


def test_tests_cannot_reach_beyond_this_machine() -> None:
    import socket

    with pytest.raises(RuntimeError, match=r"asked for example\.org"):
        socket.getaddrinfo("example.org", 80)
    with pytest.raises(RuntimeError, match=r"asked for 192\.0\.2\.1"):  # RFC 5737: for examples
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)
