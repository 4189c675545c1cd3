"""Published data sets, fetched: downloaded, checked, unpacked, and only then given their name."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sonibook.datasets import ROOT_VARIABLE, Dataset, open_dataset
from sonibook.datasets.download import download
from sonibook.datasets.unpack import unpack
from sonibook.errors import DatasetError, SonibookWarning


@dataclass(frozen=True)
class Download:
    """A file to fetch, and its checksum, ``md5:…`` or ``sha256:…``, where one is published."""

    url: str
    checksum: str | None = None

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Archive:
    """An archive, or a split zip's parts in order; `strip` leaves out its top folder."""

    parts: tuple[Download, ...]
    strip: bool = False


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and the folder below the data root that it is unpacked to."""

    folder: str
    archives: tuple[Archive, ...]


def _fsd50k(stem: str, **checksums: str) -> Archive:
    """An archive of Zenodo's record 4060432; its parts' endings with their MD5 sums, in order."""
    url = f"https://zenodo.org/records/4060432/files/FSD50K.{stem}"
    return Archive(
        tuple(Download(f"{url}.{end}", f"md5:{digest}") for end, digest in checksums.items())
    )


def _github(repository: str) -> Archive:
    """The newest state of a repository. GitHub packs it anew each time: no checksum is stable."""
    url = f"https://github.com/{repository}/archive/refs/heads/master.zip"
    return Archive((Download(url),), strip=True)


_ESC50 = Source("ESC-50", (_github("karolpiczak/ESC-50"),))

#: The data sets that can be fetched.
SOURCES: dict[str, Source] = {
    "esc10": _ESC50,
    "esc40": _ESC50,
    "esc50": _ESC50,
    "fsdd": Source("FSDD", (_github("Jakobovski/free-spoken-digit-dataset"),)),
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
            Archive(
                (
                    Download(
                        "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
                        "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
                    ),
                )
            ),
        ),
    ),
}


def fetch(name: str, *, root: str | Path | None = None) -> Dataset:
    """Download a published data set, check it, and unpack it below the data root.

    An interrupted download goes on where it stopped when called again, if a checksum is published
    to hold the result against. The set's folder appears when all of it is there and opens.

    Parameters
    ----------
    name : {"esc10", "esc40", "esc50", "fsd50k", "fsdd", "speech_commands"}
    root : str or Path, or None
        The data root; made if missing. None: the environment variable ``SONIBOOK_DATA`` says.

    Returns
    -------
    Dataset
        All of it, opened; nothing is downloaded if it is there already.

    Raises
    ------
    DatasetError
        If the set cannot be fetched, a download fails or has the wrong checksum (of that file
        nothing is kept), an archive is damaged or tries to write elsewhere, or a folder with the
        set's name is in the way.
    OSError
        If the disk is full or cannot be written to.
    """
    if name == "audioset":
        raise DatasetError(
            "audioset cannot be fetched, because its clips are parts of YouTube videos: put clips "
            "that you have below AudioSet/<part>/, as Y<id>.wav, beside its tables."
        )
    if name not in SOURCES:
        raise DatasetError(f"{name!r} cannot be fetched: choose one of {', '.join(SOURCES)}.")
    place = root if root is not None else os.environ.get(ROOT_VARIABLE)
    if not place:
        raise DatasetError(
            f"Where to? Name the data root with root=..., --data-root or {ROOT_VARIABLE}."
        )
    base, source = Path(place), SOURCES[name]
    folder = base / source.folder
    if (data := _complete(name, base)) is not None:
        return data
    if folder.exists():
        raise DatasetError(
            f"{folder}: is there, but is not the whole data set: move it away and fetch again."
        )
    downloads = base / f".{source.folder}-downloads"
    files = [
        [download(part.url, downloads / part.file_name, part.checksum) for part in archive.parts]
        for archive in source.archives
    ]
    unpacked = base / f".{source.folder}-unpacked"
    _remove(unpacked)
    try:
        for archive, parts in zip(source.archives, files, strict=True):
            unpack(parts, unpacked, strip=archive.strip)
        if _complete(name, unpacked) is None:
            raise DatasetError(
                f"{', '.join(path.name for parts in files for path in parts)}: unpacked, it is no "
                f"whole {name}: was it published anew, in another layout?"
            )
        unpacked.replace(folder)
    except DatasetError:
        _forget_unchecked(source, files)
        raise
    finally:
        _remove(unpacked)
    _remove(downloads)
    return open_dataset(name, root=base)


def _complete(name: str, root: Path) -> Dataset | None:
    """The data set, if it opens and none of its clips is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SonibookWarning)
        try:
            data = open_dataset(name, root=root)
        except DatasetError:
            return None
    return None if getattr(data, "missing", 0) else data


def _forget_unchecked(source: Source, files: Sequence[Sequence[Path]]) -> None:
    """Remove what no checksum vouches for, so that the next try downloads it again."""
    for archive, paths in zip(source.archives, files, strict=True):
        for part, path in zip(archive.parts, paths, strict=True):
            if part.checksum is None:
                path.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
