"""Archives unpacked into one folder, and never beside it; split zips without joining the files.

The parts of a split zip (``X.z01``, ``X.z02``, …, ``X.zip``), one after the other, are nearly a zip
archive: only the central directory, at the end, still counts every offset from the start of the
part that it lies in. Here the parts are shown as one long file whose central directory is replaced
by one that counts from the very start. That is what ``zip -s 0`` writes, but it needs no second
copy of the data on disk.

The format: PKWARE, ".ZIP File Format Specification", sections 4.3.12 to 4.3.16, 4.5.3 and 8.
"""

from __future__ import annotations

import io
import shutil
import stat
import struct
import tarfile
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

from sonibook.errors import DatasetError

_BLOCK = 1 << 20
#: Sound is packed to a third at best, tables to a tenth. What grows more, beyond a gibibyte, is
#: meant to fill the disk.
_EXPANSION = 20
_HARMLESS = 1 << 30
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LONGEST_COMMENT = 0xFFFF
#: Of an archive's members their names, kinds (`stat.S_IFREG` …), and what opens them.
_Members = Generator[tuple[str, int, Callable[[], Any]], None, None]
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64_EXTRA = 1
_ZIP64_VERSION = 45


def unpack(parts: Sequence[Path], folder: Path, *, strip: bool = False) -> None:
    """Unpack a zip, a split zip's parts in order, or a tar into a folder, which is made if missing.

    `strip` leaves out the first folder of every path. DatasetError where the archive is damaged,
    would grow more than `_EXPANSION` times, or holds a link, a device, or a path that leads out of
    the folder. Files unpacked before stay: unpack into a folder that can be thrown away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = parts[-1]
    members_of = _zip_members if archive.suffix.lower() == ".zip" else _tar_members
    try:
        with closing(members_of(parts)) as members:
            for name, kind, opened in members:
                path = PurePosixPath(name)
                if kind not in (stat.S_IFREG, stat.S_IFDIR):
                    raise _refusal(archive, name, "is a link or a device")
                # Windows would take backslashes and drives for what they are to it.
                strange = "\\" in name or ":" in name.split("/")[0]
                if strange or path.is_absolute() or ".." in path.parts:
                    raise _refusal(archive, name, "leads out of the folder")
                target = folder.joinpath(*path.parts[strip:])
                if kind == stat.S_IFREG and target != folder:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with opened() as source, target.open("wb") as file:
                        shutil.copyfileobj(source, file, _BLOCK)
    except (DatasetError, OSError):
        raise
    except Exception as error:
        # What damaged archives raise is not documented: encrypted members, methods of packing that
        # are not known, numbers out of range.
        raise DatasetError(f"{archive}: is damaged ({error}): fetch it again.") from None


def _zip_members(parts: Sequence[Path]) -> _Members:
    with closing(open_split_zip(parts)) as joined, zipfile.ZipFile(joined) as archive:
        _check_size(parts, sum(member.file_size for member in archive.infolist()))
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16) or stat.S_IFREG
            if kind == stat.S_IFREG and member.is_dir():
                kind = stat.S_IFDIR
            yield member.filename, kind, partial(archive.open, member)


def _tar_members(parts: Sequence[Path]) -> _Members:
    # As a stream: looking at all names first would unpack gigabytes twice.
    with tarfile.open(parts[-1], "r|*") as archive:
        size = 0
        for member in archive:
            _check_size(parts[-1:], size := size + member.size)
            kind = stat.S_IFREG if member.isreg() else stat.S_IFDIR if member.isdir() else 0
            yield member.name, kind, partial(archive.extractfile, member)


def _check_size(parts: Sequence[Path], size: int) -> None:
    """See that an archive does not unpack to so much; no member yields more than it says."""
    if size > max(_EXPANSION * sum(part.stat().st_size for part in parts), _HARMLESS):
        raise DatasetError(
            f"{parts[-1]}: unpacks to more than {_EXPANSION} times its size, which no data set "
            "does: nothing of it was kept."
        )


def _refusal(archive: Path, name: str, reason: str) -> DatasetError:
    return DatasetError(f"{archive}: its member {name!r} {reason}: nothing of it was kept.")


def open_split_zip(parts: Sequence[Path]) -> io.BufferedReader:
    """A split zip's parts, in order, or one whole zip, as one readable archive."""
    joined = _Joined(parts)
    try:
        joined.tail, joined.tail_start = _new_directory(joined, parts[-1])
    except (struct.error, ValueError) as error:
        joined.close()
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{parts[-1]}: is not a whole zip archive ({error}).") from None
    joined.seek(0)
    return io.BufferedReader(joined, 1 << 20)


class _Joined(io.RawIOBase):
    """Several files, one after the other, and then `tail` from `tail_start` on."""

    def __init__(self, parts: Sequence[Path]) -> None:
        sizes = [part.stat().st_size for part in parts]
        self.starts = [0, *accumulate(sizes)]
        self.tail, self.tail_start = b"", self.starts[-1]
        self._files = [part.open("rb") for part in parts]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self.tail_start + len(self.tail)
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}[whence]
        if base + offset < 0:
            raise ValueError("negative seek")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._position >= self.tail_start:
            first = self._position - self.tail_start
            piece = self.tail[first : first + len(buffer)]
        else:
            number = bisect_right(self.starts, self._position) - 1
            end = min(self.starts[number + 1], self.tail_start)
            self._files[number].seek(self._position - self.starts[number])
            piece = self._files[number].read(min(len(buffer), end - self._position))
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`, or ValueError."""
        self.seek(offset)
        pieces = []
        while size > 0:
            piece = self.read(size)
            if not piece:
                raise ValueError("it ends too early")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


def _new_directory(joined: _Joined, last: Path) -> tuple[bytes, int]:
    """The central directory with offsets from the very start, and where it begins."""
    end_at = _find_end(joined)
    record = _END.unpack(joined.read_at(end_at, _END.size))
    _, disk, first_disk, _, count, size, offset, _ = record
    if _FULL16 in (disk, first_disk, count) or _FULL32 in (size, offset):
        locator = joined.read_at(end_at - _LOCATOR64.size, _LOCATOR64.size)
        signature, end64_disk, end64_offset, disks = _LOCATOR64.unpack(locator)
        if signature != b"PK\6\7":
            raise ValueError("it has no zip64 locator")
        _check_parts(joined, last, disks)
        record64 = joined.read_at(joined.starts[end64_disk] + end64_offset, _END64.size)
        signature, _, _, _, disk, first_disk, _, count, size, offset = _END64.unpack(record64)
        if signature != b"PK\6\6":
            raise ValueError("it has no zip64 end record")
    _check_parts(joined, last, disk + 1)
    start = joined.starts[first_disk] + offset
    entries = _rewrite(joined.read_at(start, size), count, joined.starts)
    # All numbers wide, and without the comment, which readers that look for the end record from
    # behind trip over.
    version, size = _ZIP64_VERSION, len(entries)
    end = (
        _END64.pack(b"PK\6\6", _END64.size - 12, version, version, 0, 0, count, count, size, start)
        + _LOCATOR64.pack(b"PK\6\7", 0, start + size, 1)
        + _END.pack(b"PK\5\6", 0, 0, _FULL16, _FULL16, _FULL32, _FULL32, 0)
    )
    return entries + end, start


def _find_end(joined: _Joined) -> int:
    """Where the end-of-central-directory record is: the last whose comment ends the file."""
    total = joined.starts[-1]
    window = min(total, _END.size + _LONGEST_COMMENT)
    tail = joined.read_at(total - window, window)
    at = len(tail)
    while (at := tail.rfind(b"PK\5\6", 0, at)) >= 0:
        if len(tail) - at >= _END.size:
            comment_size = _END.unpack_from(tail, at)[-1]
            if at + _END.size + comment_size == len(tail):
                return total - window + at
    raise ValueError("it has no end record")


def _check_parts(joined: _Joined, last: Path, expected: int) -> None:
    given = len(joined.starts) - 1
    if given != expected:
        raise DatasetError(
            f"{last}: the archive has {expected} parts and {given} were given: fetch them all."
        )


def _rewrite(directory: bytes, count: int, starts: Sequence[int]) -> bytes:
    """The entries of a central directory, with offsets from the start of the first part."""
    rewritten, at = [], 0
    for _ in range(count):
        signature, *fields = _ENTRY.unpack_from(directory, at)
        if signature != b"PK\1\2":
            raise ValueError("its central directory is damaged")
        name_size, extra_size, comment_size = fields[9:12]
        name_at = at + _ENTRY.size
        extra_at = name_at + name_size
        comment_at = extra_at + extra_size
        at = comment_at + comment_size
        if at > len(directory):
            raise ValueError("its central directory is cut short")
        zip64, others = _split_extra(directory[extra_at:comment_at])
        usize, csize, offset, disk = _wide(fields, zip64)
        if disk >= len(starts) - 1:
            raise ValueError("its central directory names a part that does not exist")
        extra = struct.pack("<2H3Q", _ZIP64_EXTRA, 24, usize, csize, starts[disk] + offset) + others
        fields[1] = max(fields[1], _ZIP64_VERSION)
        fields[7] = fields[8] = fields[15] = _FULL32
        fields[10], fields[11], fields[12] = len(extra), 0, 0
        rewritten += [_ENTRY.pack(signature, *fields), directory[name_at:extra_at], extra]
    return b"".join(rewritten)


def _split_extra(extra: bytes) -> tuple[bytes, bytes]:
    """The payload of the zip64 field, and all other fields as they are."""
    zip64, others, at = b"", b"", 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64_EXTRA:
            zip64 = extra[at + 4 : at + 4 + size]
        else:
            others += extra[at : at + 4 + size]
        at += 4 + size
    return zip64, others


def _wide(fields: Sequence[int], zip64: bytes) -> tuple[int, int, int, int]:
    """Sizes, offset and part of an entry: those that are full stand in the zip64 field."""
    stream = io.BytesIO(zip64)

    def value(narrow: int, full: int, form: str) -> int:
        if narrow != full:
            return narrow
        # An old writer may fill a field without meaning it.
        wide = stream.read(struct.calcsize(form))
        return struct.unpack(form, wide)[0] if wide else narrow

    usize = value(fields[8], _FULL32, "<Q")
    csize = value(fields[7], _FULL32, "<Q")
    offset = value(fields[15], _FULL32, "<Q")
    return usize, csize, offset, value(fields[12], _FULL16, "<L")
