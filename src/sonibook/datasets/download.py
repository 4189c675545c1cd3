"""One file from the web: whole and with the right checksum, or not at all."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from sonibook.errors import DatasetError

_BLOCK = 1 << 16
#: Seconds to wait for a connection, and for the next bytes.
_PATIENCE = (30.0, 120.0)


def download(url: str, path: Path, checksum: str | None) -> Path:
    """Download a file, unless it is there already.

    Parameters
    ----------
    url : str
    path : Path
        Takes its name when the file is whole. What came before an interruption waits beside it,
        with the ending ``.part``; it is used again only if there is a checksum, because
        otherwise nothing tells whether both halves are of the same file.
    checksum : str or None
        ``md5:…`` or ``sha256:…``.

    Returns
    -------
    Path
        `path` itself.

    Raises
    ------
    DatasetError
        If the server refuses or the connection breaks, or the checksum is wrong, in which case
        nothing is kept.
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    if checksum and path.exists() and not pooch.hashes.hash_matches(path, checksum):
        path.unlink()
    try:
        pooch.retrieve(
            url,
            known_hash=checksum,
            fname=path.name,
            path=path.parent,
            downloader=_Resuming(path.with_name(f"{path.name}.part"), resume=checksum is not None),
        )
    except ValueError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{url}: what came has another checksum than {checksum}: nothing of it was kept, try "
            "again later."
        ) from None
    return path


class _Resuming:
    """Downloads as pooch asks for it, by way of a ``.part`` file that outlives an interruption."""

    def __init__(self, part: Path, *, resume: bool) -> None:
        self.part, self.resume = part, resume

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        import requests

        if not self.resume:
            self.part.unlink(missing_ok=True)
        self.part.touch()
        try:
            self._fill(url)
        except requests.RequestException as error:
            size = self.part.stat().st_size
            then = "run it again to go on from there" if self.resume else "run it again"
            raise DatasetError(
                f"{url}: broke off after {size:,} bytes ({type(error).__name__}): {then}."
            ) from None
        self.part.replace(output_file)

    def _fill(self, url: str) -> None:
        """Fetch what the part lacks, as a range of bytes where the server knows ranges."""
        import requests
        from tqdm.auto import tqdm

        have = self.part.stat().st_size
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=_PATIENCE) as answer:
            code = answer.status_code
            if code == requests.codes.requested_range_not_satisfiable and have:
                if _total(answer) != have:
                    # The part is longer than the file: it is of another one.
                    self.part.write_bytes(b"")
                    self._fill(url)
                return
            if code == requests.codes.ok:
                have = 0
            elif code != requests.codes.partial_content or _first(answer) != have:
                raise DatasetError(f"{url}: the server answers {code} {answer.reason}.")
            total = _total(answer)
            with (
                self.part.open("r+b") as file,
                tqdm(
                    desc=self.part.stem,
                    total=total,
                    initial=have,
                    unit="B",
                    unit_scale=True,
                    disable=None,
                    leave=False,
                ) as bar,
            ):
                file.truncate(have)
                file.seek(have)
                for block in answer.iter_content(_BLOCK):
                    file.write(block)
                    bar.update(len(block))
                received = file.tell()
        if total is not None and received != total:
            raise requests.ConnectionError(f"{received} of {total} bytes")


def _first(answer: Any) -> int:
    """The first byte of what a server sends, or -1 if it does not say."""
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _total(answer: Any) -> int | None:
    """The size of the whole file, if the server says."""
    match = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    if match:
        return int(match[1])
    length = answer.headers.get("Content-Length")
    return int(length) if length and answer.status_code == 200 else None
