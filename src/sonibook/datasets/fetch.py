"""Published data sets: how large they are, and how they are downloaded, checked and unpacked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sonibook.datasets import ROOT_VARIABLE, Dataset, open_dataset
from sonibook.datasets.archives import unpack
from sonibook.errors import DatasetError, SonibookWarning

_BLOCK = 1 << 16
#: Seconds to wait for a connection, and for the next bytes.
_PATIENCE = (30.0, 120.0)
#: Clips a split, as published (Gemmeke et al. 2017, Fonseca et al. 2020, Warden 2018). A collection
#: may have lost some.
_CLIPS = {
    "audioset": {"all": 2_084_320, "train": 2_063_949, "test": 20_371, "eval": 20_371}
    | {"balanced_train": 22_160, "unbalanced_train": 2_041_789},
    "fsd50k": {"all": 51_197, "train": 36_796, "val": 4_170, "dev": 40_966}
    | {"test": 10_231, "eval": 10_231},
    "speech_commands": {"all": 105_829, "train": 84_843, "validation": 9_981, "test": 11_005},
}
_CLASSES = {"audioset": 527, "fsd50k": 200, "speech_commands": 35}
#: Classes of ESC-50 and its parts, and clips of each class in each fold (Piczak 2015).
_ESC, _A_FOLD = {"esc50": 50, "esc40": 40, "esc10": 10}, 8


def published_size(name: str, options: Mapping[str, Any]) -> tuple[int, int] | None:
    """Clips and classes that a data set has according to its publication; None if not known here.

    Parameters
    ----------
    name : str
        As `sonibook.open_dataset` knows it.
    options : mapping
        Options to open it with; ``split`` or ``folds`` count.

    Examples
    --------
    >>> published_size("fsd50k", {"split": "eval"})
    (10231, 200)
    >>> published_size("esc10", {"folds": [1, 2, 3, 4]})
    (320, 10)
    """
    if name in _ESC and "folds" in options:
        return _A_FOLD * _ESC[name] * len(options["folds"]), _ESC[name]
    clips = _CLIPS.get(name, {}).get(options.get("split", "all"))
    return None if clips is None or "segments" in options else (clips, _CLASSES[name])


class Source(NamedTuple):
    """Where a data set comes from, and the folder below the data root that it is unpacked to.

    An archive is the addresses of its parts in order, each with its checksum, ``md5:…`` or
    ``sha256:…``, where one is published; `strip` leaves out their top folders.
    """

    folder: str
    archives: tuple[dict[str, str | None], ...]
    strip: bool = False


def _fsd50k(stem: str, **checksums: str) -> dict[str, str | None]:
    """An archive of Zenodo's record 4060432; its parts' endings with their MD5 sums, in order."""
    url = f"https://zenodo.org/records/4060432/files/FSD50K.{stem}"
    return {f"{url}.{end}": f"md5:{digest}" for end, digest in checksums.items()}


def _github(folder: str, repository: str) -> Source:
    """The newest state of a repository. GitHub packs it anew each time: no checksum is stable."""
    url = f"https://github.com/{repository}/archive/refs/heads/master.zip"
    return Source(folder, ({url: None},), strip=True)


_ESC50 = _github("ESC-50", "karolpiczak/ESC-50")

#: The data sets that can be fetched.
SOURCES: dict[str, Source] = {
    "esc10": _ESC50,
    "esc40": _ESC50,
    "esc50": _ESC50,
    "fsdd": _github("FSDD", "Jakobovski/free-spoken-digit-dataset"),
    "fsd50k": Source(
        "FSD50K",
        (
            _fsd50k("ground_truth", zip="ca27382c195e37d2269c4c866dd73485"),
            _fsd50k(
                "dev_audio",
                z01="faa7cf4cc076fc34a44a479a5ed862a3",
                z02="8f9b66153e68571164fb1315d00bc7bc",
                z03="1196ef47d267a993d30fa98af54b7159",
                z04="d088ac4e11ba53daf9f7574c11cccac9",
                z05="81356521aa159accd3c35de22da28c7f",
                zip="c480d119b8f7a7e32fdb58f3ea4d6c5a",
            ),
            _fsd50k(
                "eval_audio",
                z01="3090670eaeecc013ca1ff84fe4442aeb",
                zip="6fa47636c3a3ad5c7dfeba99f2637982",
            ),
        ),
    ),
    "speech_commands": Source(
        "speech_commands_v0.02",
        (
            {
                "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz": "sha256:"
                "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
            },
        ),
    ),
}


def fetch(name: str, *, root: str | Path | None = None) -> Dataset:
    """Download one of `SOURCES`, check it, and unpack it below the data root, made if missing.

    An interrupted download goes on where it stopped when called again, if a checksum is published
    to hold the result against. The set's folder appears when all of it is there and opens. What is
    there already is only opened. DatasetError where a download fails or has the wrong checksum, an
    archive is damaged or tries to write elsewhere, or a folder with the set's name is in the way.
    """
    if name == "audioset":
        raise DatasetError(
            "audioset cannot be fetched, because its clips are parts of YouTube videos: put clips "
            "that you have below AudioSet/<part>/, as Y<id>.wav, beside its tables."
        )
    if name not in SOURCES:
        raise DatasetError(f"{name!r} cannot be fetched: choose one of {', '.join(SOURCES)}.")
    root = root if root is not None else os.environ.get(ROOT_VARIABLE)
    if not root:
        raise DatasetError(f"Where to? Give root=..., --data-root or {ROOT_VARIABLE}.")
    base, source = Path(root), SOURCES[name]
    folder = base / source.folder
    if (data := _complete(name, base)) is not None:
        return data
    if folder.exists():
        raise DatasetError(f"{folder}: is not the whole data set: move it away and fetch again.")
    downloads = base / f".{source.folder}-downloads"
    files = {
        url: download(url, downloads / url.rsplit("/", 1)[1], checksum)
        for archive in source.archives
        for url, checksum in archive.items()
    }
    unpacked = base / f".{source.folder}-unpacked"
    if unpacked.exists():
        shutil.rmtree(unpacked)
    try:
        for archive in source.archives:
            unpack([files[url] for url in archive], unpacked, strip=source.strip)
        if _complete(name, unpacked) is None:
            raise DatasetError(
                f"{', '.join(path.name for path in files.values())}: unpacked, it is not the whole "
                f"of {name}: was it published anew, in another layout?"
            )
        unpacked.replace(folder)
    except DatasetError:
        # What no checksum vouches for is downloaded again by the next try.
        for archive in source.archives:
            for url, checksum in archive.items():
                if checksum is None:
                    files[url].unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    shutil.rmtree(downloads, ignore_errors=True)
    return open_dataset(name, root=base)


def _complete(name: str, root: Path) -> Dataset | None:
    """The data set, if it opens and none of its clips is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SonibookWarning)
        try:
            data = open_dataset(name, root=root)
        except DatasetError:
            return None
    return None if data.missing else data


def download(url: str, path: Path, checksum: str | None) -> Path:
    """Download a file, unless it is there already; it takes its name when it is whole.

    What came before an interruption waits in a ``.part`` file, and is used again only if there is a
    checksum: else nothing tells whether both halves are of the same file. DatasetError where the
    server refuses, the connection breaks, or the checksum is wrong: then nothing is kept.
    """
    import requests

    if path.exists() and _has(path, checksum):
        return path
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if checksum is None:
        part.unlink(missing_ok=True)
    part.touch()
    try:
        _fill(part, url)
    except requests.RequestException as error:
        reason = f"{part.stat().st_size:,} bytes ({type(error).__name__})"
        then = "run it again" + (" to go on from there" if checksum else "")
        raise DatasetError(f"{url}: broke off after {reason}: {then}.") from None
    if not _has(part, checksum):
        part.unlink()
        raise DatasetError(
            f"{url}: what came has another checksum than {checksum}: nothing of it was kept, try "
            "again later."
        )
    return part.replace(path)


def _has(path: Path, checksum: str | None) -> bool:
    """Whether a file has a checksum, if one is published."""
    if checksum is None:
        return True
    kind, _, digest = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest() == digest


def _fill(part: Path, url: str) -> None:
    """Fetch what a part of a file lacks, as a range of bytes where the server knows ranges."""
    import requests
    from tqdm.auto import tqdm

    have = part.stat().st_size
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=_PATIENCE) as answer:
        code, (first, total) = answer.status_code, _sent(answer)
        if code == requests.codes.requested_range_not_satisfiable and have:
            if total != have:
                # The part is longer than the file: it is of another one.
                part.write_bytes(b"")
                _fill(part, url)
            return
        if code == requests.codes.ok:
            have = 0
        elif code != requests.codes.partial_content or first != have:
            raise DatasetError(f"{url}: the server answers {code} {answer.reason}.")
        bar = {"desc": part.stem, "initial": have, "disable": None, "leave": False}
        with part.open("r+b") as file:
            file.truncate(have)
            file.seek(have)
            with tqdm.wrapattr(file, "write", total=total, **bar) as told:
                for block in answer.iter_content(_BLOCK):
                    told.write(block)
            received = file.tell()
    if total is not None and received != total:
        raise requests.ConnectionError(f"{received} of {total} bytes")


def _sent(answer: Any) -> tuple[int | None, int | None]:
    """Of what a server sends the first byte, and the size of the whole file, if it says."""
    told = answer.headers.get("Content-Range", "")
    first, total = re.match(r"bytes (\d+)-", told), re.search(r"/(\d+)$", told)
    length = answer.headers.get("Content-Length") if answer.status_code == 200 else None
    size = total[1] if total else length
    return int(first[1]) if first else None, int(size) if size else None
