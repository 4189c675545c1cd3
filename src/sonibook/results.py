"""Results files: JSON that says what made it, written by the code that measured it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sonibook.errors import SonibookError
from sonibook.files import atomic
from sonibook.provenance import provenance

#: Where shipped data lies: in an installed package, and in a checkout.
DATA_FOLDERS = (Path(__file__).parent / "data", Path(__file__).parents[2] / "data")


def write_result(path: str | Path, content: dict[str, Any], *, command: str | None = None) -> None:
    """Write a result and its provenance, whole or not at all.

    Parameters
    ----------
    path : str or Path
        Missing folders are made.
    content : dict
        Must be JSON; NaN is refused, since JSON has none. A ``provenance`` that it has is kept.
    command : str or None
        The command that made it; by default the one this process was started with.

    Raises
    ------
    ValueError
        If `content` holds NaN or an infinite number.
    OSError
        If the file cannot be written.
    """
    whole = {**content, "provenance": content.get("provenance") or provenance(command)}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        # A file's name may be no Unicode: what it holds becomes an escape, which JSON reads back.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read_result(name: str) -> dict[str, Any]:
    """A result that comes with sonibook, such as ``"bench-sonify"``.

    Parameters
    ----------
    name : str
        File name in ``data/results``, without ``.json``.

    Returns
    -------
    dict

    Raises
    ------
    SonibookError
        If there is none of that name; those that are there are listed.
    """
    known = {
        path.stem: path
        for folder in DATA_FOLDERS
        for path in sorted((folder / "results").glob("*.json"))
    }
    if name not in known:
        raise SonibookError(
            f"There is no result {name!r}: choose one of {', '.join(known) or 'none'}."
        )
    return json.loads(known[name].read_text(encoding="utf-8"))
