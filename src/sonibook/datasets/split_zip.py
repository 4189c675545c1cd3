"""Split zip archives (``X.z01``, ``X.z02``, …, ``X.zip``) read as one, without joining the files.

The parts, one after the other, are nearly a zip archive: only the central directory, at the end,
still counts every offset from the start of the part that it lies in. Here the parts are shown as
one long file whose central directory is replaced by one that counts from the very start. That is
what ``zip -s 0`` writes, but it needs no second copy of the data on disk.

The format: PKWARE, ".ZIP File Format Specification", sections 4.3.12 to 4.3.16, 4.5.3 and 8.
"""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from sonibook.errors import DatasetError

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LONGEST_COMMENT = 0xFFFF
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64_EXTRA = 1
_ZIP64_VERSION = 45


def open_split_zip(parts: Sequence[Path]) -> io.BufferedReader:
    """The parts of a split zip archive as one readable archive.

    Parameters
    ----------
    parts : sequence of Path
        In order: ``X.z01``, ``X.z02``, …, ``X.zip``. One part alone is a plain archive.

    Returns
    -------
    file object
        For `zipfile.ZipFile`, or to be copied into a file that any program unpacks.

    Raises
    ------
    DatasetError
        If parts are missing or damaged.
    """
    joined = _Joined(parts)
    try:
        joined.tail, joined.tail_start = _new_directory(joined, parts[-1])
    except (struct.error, ValueError) as error:
        joined.close()
        raise DatasetError(f"{parts[-1]}: is no whole zip archive ({error}).") from None
    except DatasetError:
        joined.close()
        raise
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
        place = joined.read_at(end_at - _LOCATOR64.size, _LOCATOR64.size)
        signature, end64_disk, end64_offset, disks = _LOCATOR64.unpack(place)
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
    # Without the comment, which readers that look for the end record from behind trip over.
    return entries + _end_records(count, len(entries), start), start


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
        offset += starts[disk]
        fields[8], wide_usize = _narrow(usize)
        fields[7], wide_csize = _narrow(csize)
        fields[15], wide_offset = _narrow(offset)
        wide, extra = wide_usize + wide_csize + wide_offset, others
        if wide:
            extra = struct.pack("<2H", _ZIP64_EXTRA, len(wide)) + wide + others
            fields[1] = max(fields[1], _ZIP64_VERSION)
        fields[10], fields[12] = len(extra), 0
        rewritten += [
            _ENTRY.pack(signature, *fields),
            directory[name_at:extra_at],
            extra,
            directory[comment_at:at],
        ]
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
        found = stream.read(struct.calcsize(form))
        return struct.unpack(form, found)[0] if found else narrow

    usize = value(fields[8], _FULL32, "<Q")
    csize = value(fields[7], _FULL32, "<Q")
    offset = value(fields[15], _FULL32, "<Q")
    return usize, csize, offset, value(fields[12], _FULL16, "<L")


def _narrow(value: int) -> tuple[int, bytes]:
    """A number for a field of 32 bits, and what of it goes into the zip64 field."""
    return (value, b"") if value < _FULL32 else (_FULL32, struct.pack("<Q", value))


def _end_records(count: int, size: int, start: int) -> bytes:
    """What follows the entries of a central directory."""
    records = b""
    if count >= _FULL16 or size >= _FULL32 or start >= _FULL32:
        version = _ZIP64_VERSION
        records += _END64.pack(
            b"PK\6\6", _END64.size - 12, version, version, 0, 0, count, count, size, start
        )
        records += _LOCATOR64.pack(b"PK\6\7", 0, start + size, 1)
    count, size, start = min(count, _FULL16), min(size, _FULL32), min(start, _FULL32)
    return records + _END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0)
