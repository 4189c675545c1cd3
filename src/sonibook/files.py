"""Files that appear whole or not at all, and their names as any terminal can show them."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Control characters, but for tab and new line, and those that reverse the direction of writing.
_CONTROLS = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for codes in ((0, 9), (11, 32), (127, 160), (0x202A, 0x202F), (0x2066, 0x2068))
    for code in range(*codes)
}


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well.

    It is on the disk before it takes the name, and the name before this returns: a power cut
    neither halves a file nor takes back one that was written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        _reach_disk(name, os.O_RDWR)  # Windows flushes only what is open for writing
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        with suppress(OSError):  # some file systems flush no folders: the file is there, and whole
            _reach_disk(path.parent, os.O_RDONLY)


def remove_leftovers(path: str | Path) -> None:
    """Remove what `atomic` left where it was killed; nobody else may be writing `path` now."""
    path = Path(path)
    name = re.compile(rf"\.{re.escape(path.stem)}-[a-z0-9_]{{8}}{re.escape(path.suffix)}")
    for beside in path.parent.iterdir():
        if name.fullmatch(beside.name):
            beside.unlink(missing_ok=True)


def shown(text: object) -> str:
    """`text` with what is not Unicode (a file name may hold any bytes) written as escapes.

    So are control characters, which a card or a name could command the terminal with.
    """
    printable = str(text).translate(_CONTROLS)
    return printable.encode("utf-8", "backslashreplace").decode("utf-8")


def _reach_disk(path: str | Path, mode: int) -> None:
    """Wait until the disk holds a file, or the names in a folder."""
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
