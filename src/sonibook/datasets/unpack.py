"""Archives unpacked into one folder, and never beside it."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from sonibook.datasets.split_zip import open_split_zip
from sonibook.errors import DatasetError

_BLOCK = 1 << 20
#: Sound is packed to a third at best, tables to a tenth. What grows more, beyond a gibibyte, is
#: meant to fill the disk.
EXPANSION = 20
_HARMLESS = 1 << 30


def unpack(parts: Sequence[Path], folder: Path, *, strip: bool = False) -> None:
    """Unpack an archive into a folder.

    Parameters
    ----------
    parts : sequence of Path
        A tar file, packed or not, or a zip file; for a split zip its parts in order.
    folder : Path
        Made if missing.
    strip : bool
        Whether to leave out the first folder of every path.

    Raises
    ------
    DatasetError
        If the archive is damaged, would grow more than `EXPANSION` times, or holds a link, a
        device, or a path that leads out of the folder. Files unpacked before stay: unpack into a
        folder that can be thrown away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = parts[-1]
    try:
        if archive.suffix.lower() == ".zip":
            _unpack_zip(parts, folder, strip)
        else:
            _unpack_tar(archive, folder, strip)
    except (DatasetError, OSError):
        raise
    except Exception as error:
        # What damaged archives raise is not documented: encrypted members, methods of packing that
        # are not known, numbers out of range.
        raise DatasetError(f"{archive}: is damaged ({error}): fetch it again.") from None


def _unpack_zip(parts: Sequence[Path], folder: Path, strip: bool) -> None:
    with closing(open_split_zip(parts)) as joined, zipfile.ZipFile(joined) as archive:
        room = _Room(parts)
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(parts[-1], member.filename, "is a link or a device")
            target = _target(parts[-1], member.filename, folder, strip)
            if target is None or member.is_dir():
                continue
            room.take(member.file_size)
            with archive.open(member) as source:
                _write(source, target)


def _unpack_tar(path: Path, folder: Path, strip: bool) -> None:
    # As a stream: looking at all names first would unpack gigabytes twice.
    with tarfile.open(path, "r|*") as archive:
        room = _Room([path])
        for member in archive:
            room.take(member.size)
            if not (member.isreg() or member.isdir()):
                raise _refusal(path, member.name, "is a link or a device")
            target = _target(path, member.name, folder, strip)
            source = archive.extractfile(member)
            if target is not None and source is not None:
                with source:
                    _write(source, target)


class _Room:
    """How much an archive may still unpack to; no member yields more than it says."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self.archive = parts[-1]
        self.left = max(EXPANSION * sum(part.stat().st_size for part in parts), _HARMLESS)

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise DatasetError(
                f"{self.archive}: unpacks to more than {EXPANSION} times its size, which no data "
                "set does: nothing of it was kept."
            )


def _write(source: Any, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, _BLOCK)


def _target(archive: Path, name: str, folder: Path, strip: bool) -> Path | None:
    """Where a member goes; None if nothing of its path is left."""
    path = PurePosixPath(name)
    # Windows would take backslashes and drives for what they are to it.
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name.split("/")[0]:
        raise _refusal(archive, name, "leads out of the folder")
    parts = path.parts[1:] if strip else path.parts
    return folder.joinpath(*parts) if parts else None


def _refusal(archive: Path, name: str, reason: str) -> DatasetError:
    return DatasetError(f"{archive}: its member {name!r} {reason}: nothing of it was kept.")
