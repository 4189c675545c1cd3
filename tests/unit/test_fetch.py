"""Fetching data sets from a server of our own, and archives with and without tricks in them."""

import hashlib
import io
import shutil
import stat
import struct
import subprocess
import tarfile
import threading
import zipfile
import zlib
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from sonibook.audio import write_wav
from sonibook.datasets import fetch as fetching
from sonibook.datasets.archives import open_split_zip, unpack
from sonibook.datasets.fetch import SOURCES, Source, download, fetch
from sonibook.errors import DatasetError


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch):
    monkeypatch.delenv("SONIBOOK_DATA", raising=False)


# A server that can break off in the middle, and that knows ranges or does not.


class Server(ThreadingHTTPServer):
    """Serves `files` by name; `broken` says after how many bytes the next answer breaks off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.broken: list[int] = []
        self.ranges = True

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def add(self, name: str, content: bytes, *, checksum: bool = True) -> dict[str, str | None]:
        """The address of a file that is served now, with its checksum."""
        self.files[name] = content
        digest = f"md5:{hashlib.md5(content).hexdigest()}"
        return {self.url(name): digest if checksum else None}

    def get(self, name: str, path: Path, *, checksum: bool = True) -> Path:
        """Serve `CONTENT` by that name, and download it."""
        ((url, digest),) = self.add(name, CONTENT, checksum=checksum).items()
        return download(url, path, digest)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name, wanted = self.path[1:], self.headers.get("Range")
        self.server.requests.append((name, wanted))
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        first, total = 0, len(content)
        if wanted and self.server.ranges:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(total - first))
        self.end_headers()
        last = first + self.server.broken.pop(0) if self.server.broken else total
        self.wfile.write(content[first:last])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


CONTENT = np.random.default_rng(0).bytes(3_000_000)


def leftovers(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_download_is_whole_and_happens_once(server, tmp_path):
    for _ in range(2):
        path = server.get("a.bin", tmp_path / "new" / "a.bin")
        assert path.read_bytes() == CONTENT
    assert server.requests == [("a.bin", None)]
    assert leftovers(tmp_path) == ["new/a.bin"]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.broken = [2_000_000, 500_000]
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"a\.bin: broke off after [\d,]+ bytes .*run it ag"):
            server.get("a.bin", tmp_path / "a.bin")
        assert leftovers(tmp_path) == ["a.bin.part"]
    server.get("a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["a.bin"]
    starts = [int(wanted[6:-1]) for _, wanted in server.requests[1:]]
    assert 0 < starts[0] <= 2_000_000
    assert starts[0] < starts[1] <= 2_500_000


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    server.get("a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("extra", [b"", b"more than there is"])
def test_a_part_as_long_as_the_file_or_longer(server, tmp_path, extra):
    (tmp_path / "a.bin.part").write_bytes(CONTENT + extra)
    server.get("a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_without_a_checksum_nothing_is_continued(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"of another file")
    server.get("a.bin", tmp_path / "a.bin", checksum=False)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.requests == [("a.bin", None)]


def test_a_wrong_checksum_keeps_nothing(server, tmp_path):
    ((url, checksum),) = server.add("a.bin", CONTENT).items()
    server.files["a.bin"] = CONTENT[::-1]
    with pytest.raises(DatasetError, match=r"a\.bin: .*another checksum than md5:.*nothing of it"):
        download(url, tmp_path / "a.bin", checksum)
    assert leftovers(tmp_path) == []


def test_what_the_server_does_not_have(server, tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.zip: the server answers 404"):
        download(server.url("gone.zip"), tmp_path / "gone.zip", "md5:00")
    assert not (tmp_path / "gone.zip").exists()


def test_no_server_at_all(server, tmp_path):
    url = server.url("a.bin").replace(str(server.server_port), "9")
    with pytest.raises(DatasetError, match=r"broke off after 0 bytes \(ConnectionError\)"):
        download(url, tmp_path / "a.bin", None)


# Split zips.

FILES = {
    "FSD50K.dev_audio/": b"",
    "FSD50K.dev_audio/noise.wav": np.random.default_rng(1).bytes(150_000),
    "FSD50K.dev_audio/short.wav": b"short",
    "FSD50K.dev_audio/zeros.wav": bytes(500_000),
    "FSD50K.dev_audio/more.wav": np.random.default_rng(2).bytes(90_000),
}


def write_files(folder: Path) -> None:
    for name, content in FILES.items():
        if not name.endswith("/"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def split_by_program(folder: Path, *options: str) -> list[Path]:
    """A split zip as the program zip writes it."""
    if shutil.which("zip") is None:
        pytest.skip("needs the program zip, to make a real split archive")
    write_files(folder)
    command = ["zip", "-q", "-r", "-s", "64k", *options, "X.zip", "FSD50K.dev_audio"]
    subprocess.run(command, cwd=folder, check=True)
    return [*sorted(folder.glob("X.z[0-9]*")), folder / "X.zip"]


def split_by_hand(folder: Path, *, zip64: bool = False, size: int = 40_000) -> list[Path]:
    """A split zip built byte by byte after the specification: members cut where a part is full."""
    parts, directory = [bytearray(b"PK\7\x08")], bytearray()

    def put(content: bytes, *, whole: bool) -> tuple[int, int]:
        if whole and len(parts[-1]) + len(content) > size:
            parts.append(bytearray())
        start = (len(parts) - 1, len(parts[-1]))
        while content:
            if len(parts[-1]) == size:
                parts.append(bytearray())
            room = size - len(parts[-1])
            parts[-1] += content[:room]
            content = content[room:]
        return start

    for name, content in FILES.items():
        packed = content
        sizes = (zlib.crc32(content), len(packed), len(content))
        fields = (20, 0x800, 0, 0, 0x21, *sizes, len(name.encode()), 0)
        disk, offset = put(struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name.encode(), whole=True)
        put(packed, whole=False)
        extra = struct.pack("<2HB", 0x9999, 1, 7)
        usize, csize, place = len(content), len(packed), offset
        if zip64:
            wide = struct.pack("<3QL", usize, csize, offset, disk)
            extra = struct.pack("<2H", 1, len(wide)) + wide + extra
            usize = csize = place = 0xFFFFFFFF
            disk = 0xFFFF
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0x800, 0, 0, 0x21, sizes[0], csize, usize,
            len(name.encode()), len(extra), 2, disk, 0, 0, place,
        ) + name.encode() + extra + b"hi"  # fmt: skip
    first = put(bytes(directory), whole=False)
    count, comment = len(FILES), b"a comment with PK\5\6 in it"
    if zip64:
        record = (44, 45, 45, len(parts) - 1, first[0], count, count, len(directory), first[1])
        at = put(struct.pack("<4sQ2H2L4Q", b"PK\6\6", *record), whole=True)
        end = struct.pack("<4sLQL", b"PK\6\7", at[0], at[1], at[0] + 1)
        end += struct.pack("<4s4H2LH", b"PK\5\6", *[0xFFFF] * 4, *[0xFFFFFFFF] * 2, len(comment))
        parts[-1] += end + comment
    else:
        last = len(parts) - 1
        numbers = (last, first[0], count, count, len(directory), first[1], len(comment))
        parts[-1] += struct.pack("<4s4H2LH", b"PK\5\6", *numbers) + comment
    paths = [folder / f"X.z{n:02d}" for n in range(1, len(parts))] + [folder / "X.zip"]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    return paths


SPLITTERS = {
    "program": split_by_program,
    "program, zip64": lambda folder: split_by_program(folder, "-fz"),
    "program, stored": lambda folder: split_by_program(folder, "-0"),
    "hand": split_by_hand,
    "hand, zip64": partial(split_by_hand, zip64=True),
    # So small that the central directory itself lies in several parts.
    "hand, small parts": partial(split_by_hand, size=200),
    "hand, one part": partial(split_by_hand, size=10**7),
}


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_a_split_zip_is_read_as_one(tmp_path, splitter):
    parts = SPLITTERS[splitter](tmp_path)
    assert len(parts) > 3 or splitter == "hand, one part"
    with zipfile.ZipFile(open_split_zip(parts)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        assert archive.testzip() is None
        archive.fp.close()


@pytest.mark.parametrize("splitter", ["program", "hand", "hand, zip64"])
def test_ordinary_programs_read_the_joined_zip(tmp_path, splitter):
    """FSD50K's parts, one after the other, are not an archive; joined here, they are."""
    if shutil.which("unzip") is None:
        pytest.skip("needs the program unzip, as an independent reader")
    parts = SPLITTERS[splitter](tmp_path)
    (tmp_path / "plain.zip").write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_split_zip(parts) as joined, (tmp_path / "joined.zip").open("wb") as file:
        shutil.copyfileobj(joined, file)
    test = partial(subprocess.run, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert test(["unzip", "-tq", "plain.zip"]).returncode != 0
    done = test(["unzip", "-tq", "joined.zip"])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_joined_zip_larger_than_4_gib(tmp_path):
    """Beyond 4 GiB an offset needs the zip64 fields that the parts themselves did not need."""
    hole = 3 << 30
    parts = [tmp_path / "X.z01", tmp_path / "X.z02", tmp_path / "X.zip"]
    for part in parts[:2]:
        with part.open("wb") as file:
            file.truncate(hole)
    name, content = b"last.txt", b"beyond the fourth gibibyte"
    crc, size = zlib.crc32(content), len(content)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0x21, crc, size, size, len(name), 0)
    fields = (20, 20, 0, 0, 0, 0x21, crc, size, size, len(name), 0, 0, 2, 0, 0, 0)
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields)
    start = len(local + name + content)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 2, 2, 1, 1, len(entry + name), start, 0)
    parts[2].write_bytes(local + name + content + entry + name + end)
    with open_split_zip(parts) as joined, zipfile.ZipFile(joined) as archive:
        (member,) = archive.infolist()
        assert member.header_offset == 2 * hole
        assert archive.read(member) == content


def test_a_split_zip_that_is_not_whole(tmp_path):
    parts = split_by_hand(tmp_path)
    with pytest.raises(
        DatasetError, match=rf"^{parts[-1]}: the archive has {len(parts)} parts and"
    ):
        open_split_zip(parts[1:])
    content = parts[-1].read_bytes()
    for damaged in (b"", content[:-5], content[: len(content) // 2]):
        parts[-1].write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"X\.zip: is not a whole zip archive"):
            open_split_zip(parts)


# Archives that try to write elsewhere.


def zip_with(name: str, *, mode: int = stat.S_IFREG | 0o644) -> bytes:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.create_system = 3
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("good.txt", "good")
        archive.writestr(info, "/etc/passwd")
    return stream.getvalue()


def tar_with(name: str, *, kind: bytes = tarfile.REGTYPE) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for member, content in (("./good.txt", b"good"), (name, b"bad")):
            info = tarfile.TarInfo(member)
            if member == name and kind != tarfile.REGTYPE:
                info.type, info.linkname = kind, "../../target"
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (zip_with("../out.txt"), "'../out.txt' leads out"),
        (zip_with("a/../../out.txt"), "leads out"),
        (zip_with("/tmp/sonibook-out.txt"), "leads out"),
        (zip_with("..\\out.txt"), "leads out"),
        (zip_with("C:/out.txt"), "leads out"),
        (zip_with("link", mode=stat.S_IFLNK | 0o777), "'link' is a link or a device"),
        (tar_with("../out.txt"), "'../out.txt' leads out"),
        (tar_with("a/../../out.txt"), "leads out"),
        (tar_with("/tmp/sonibook-out.txt"), "leads out"),
        (tar_with("link", kind=tarfile.SYMTYPE), "'link' is a link or a device"),
        (tar_with("link", kind=tarfile.LNKTYPE), "is a link or a device"),
        (tar_with("pipe", kind=tarfile.FIFOTYPE), "is a link or a device"),
    ],
)
def test_nothing_is_unpacked_elsewhere(server, tmp_path, monkeypatch, content, named):
    """And of an archive that tries, nothing stays at all."""
    name = "bad.zip" if content.startswith(b"PK") else "bad.tar.gz"
    source = Source("FSDD", (server.add(name, content, checksum=False),))
    monkeypatch.setitem(SOURCES, "fsdd", source)
    root = tmp_path / "deep" / "root"
    with pytest.raises(
        DatasetError, match=rf"{name}: its member {named}" if "'" in named else named
    ):
        fetch("fsdd", root=root)
    assert leftovers(tmp_path) == []
    assert not Path("/tmp/sonibook-out.txt").exists()


@pytest.mark.parametrize("name", ["X.zip", "X.tar.gz"])
def test_a_damaged_archive(tmp_path, name):
    whole = (zip_with if name.endswith("zip") else tar_with)("fine.txt")
    path = tmp_path / name
    for content in (b"no archive at all", whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=rf"{name}: is (damaged|not a whole)"):
            unpack([path], tmp_path / "out")
    path.write_bytes(whole)
    unpack([path], tmp_path / "out")
    assert leftovers(tmp_path / "out") == ["fine.txt", "good.txt"]


# Whole data sets.


def wav(folder: Path) -> bytes:
    path = folder / "sound.wav"
    write_wav(path, 0.5 * np.sin(np.arange(800)))
    return path.read_bytes()


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def fsdd(server, tmp_path, monkeypatch):
    """FSDD as GitHub packs it."""
    top = "free-spoken-digit-dataset-master"
    files = {f"{top}/recordings/{digit}_ada_{n}.wav": wav(tmp_path)
             for digit in range(10) for n in range(6)}  # fmt: skip
    (tmp_path / "sound.wav").unlink()
    part = server.add("master.zip", zipped({f"{top}/README.md": b"x", **files}), checksum=False)
    monkeypatch.setitem(SOURCES, "fsdd", Source("FSDD", (part,), strip=True))
    return server


def test_fetch_a_repository(fsdd, tmp_path):
    data = fetch("fsdd", root=tmp_path / "new")
    assert (data.name, len(data)) == ("fsdd", 60)
    assert len(data[0].waveform) == 800
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["FSDD"]
    assert len(fsdd.requests) == 1
    fetch("fsdd", root=tmp_path / "new")
    assert len(fsdd.requests) == 1


def test_fetch_into_the_folder_of_the_environment_variable(fsdd, tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match=r"Where to\? .*--data-root or SONIBOOK_DATA"):
        fetch("fsdd")
    monkeypatch.setenv("SONIBOOK_DATA", str(tmp_path))
    assert len(fetch("fsdd")) == 60


def test_fetch_leaves_what_is_there_alone(fsdd, tmp_path):
    (tmp_path / "FSDD").mkdir()
    (tmp_path / "FSDD" / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"FSDD: is not the whole data set: move it away"):
        fetch("fsdd", root=tmp_path)
    assert leftovers(tmp_path) == ["FSDD/mine.txt"]
    assert fsdd.requests == []


def test_fetch_another_layout(fsdd, tmp_path):
    fsdd.files["master.zip"] = zipped({"top/letter.txt": b"we have moved"})
    with pytest.raises(DatasetError, match=r"master\.zip: unpacked, it is not the whole of fsdd"):
        fetch("fsdd", root=tmp_path)
    assert leftovers(tmp_path) == []


def test_fetch_fsd50k_from_split_archives(server, tmp_path, monkeypatch):
    """Three archives, one of them in parts; one breaks off on the way, and fetching goes on."""
    truth = {
        "FSD50K.ground_truth/vocabulary.csv": b"0,Noise,/m/1\n1,Zeros,/m/2\n",
        "FSD50K.ground_truth/dev.csv": b"fname,labels,mids,split\nnoise,Noise,/m/1,train\n"
        + b"short,Noise,/m/1,train\nzeros,Zeros,/m/2,val\nmore,Noise,/m/1,val\n",
        "FSD50K.ground_truth/eval.csv": b"fname,labels,mids\n7,Noise,/m/1\n",
    }
    made = tmp_path / "made"
    made.mkdir()
    # A split archive with two members cut through; sounds are not opened by fetching.
    split: dict[str, str | None] = {}
    for path in split_by_hand(made):
        split |= server.add(path.name, path.read_bytes())
    evaluation = server.add("eval.zip", zipped({"FSD50K.eval_audio/7.wav": wav(tmp_path)}))
    archives = (server.add("truth.zip", zipped(truth)), split, evaluation)
    monkeypatch.setitem(SOURCES, "fsd50k", Source("FSD50K", archives))
    root = tmp_path / "root"
    server.broken = [10**9, 20_000]
    with pytest.raises(DatasetError, match=r"X\.z01: broke off"):
        fetch("fsd50k", root=root)
    assert not (root / "FSD50K").exists()
    data = fetch("fsd50k", root=root)
    assert (len(data), data.missing) == (5, 0)
    assert sorted(path.name for path in root.iterdir()) == ["FSD50K"]
    assert [name for name, _ in server.requests].count("truth.zip") == 1
    for name, content in FILES.items():
        if not name.endswith("/"):
            assert (root / "FSD50K" / name).read_bytes() == content


def test_fetch_speech_commands(server, tmp_path, monkeypatch):
    sound = wav(tmp_path)
    files = {
        f"./{word}/{speaker}_nohash_0.wav": sound for word in ("bed", "cat") for speaker in "abc"
    }
    files["./validation_list.txt"] = b"bed/b_nohash_0.wav\ncat/b_nohash_0.wav\n"
    files["./testing_list.txt"] = b"bed/c_nohash_0.wav\ncat/c_nohash_0.wav\n"
    files["./_background_noise_/pink.wav"] = sound
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    part = server.add("speech_commands_v0.02.tar.gz", stream.getvalue())
    source = Source("speech_commands_v0.02", (part,))
    monkeypatch.setitem(SOURCES, "speech_commands", source)
    data = fetch("speech_commands", root=tmp_path / "root")
    assert (len(data), data.classes) == (6, ("bed", "cat"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("audioset", r"audioset cannot be fetched.*YouTube"), ("folder", "cannot be fetched: choose")],
)
def test_what_cannot_be_fetched(tmp_path, name, sentence):
    with pytest.raises(DatasetError, match=sentence):
        fetch(name, root=tmp_path)


def test_the_sources_are_as_published():
    """What is fetched is what was checked once by hand: addresses, parts in order, digests."""
    fsd50k = [url for archive in SOURCES["fsd50k"].archives for url in archive]
    assert [url.rsplit("/FSD50K.", 1)[1] for url in fsd50k] == [
        "ground_truth.zip",
        *(f"dev_audio.z0{n}" for n in range(1, 6)), "dev_audio.zip",
        "eval_audio.z01", "eval_audio.zip",
    ]  # fmt: skip
    for source in SOURCES.values():
        for archive in source.archives:
            for checksum in archive.values():
                kind, _, digest = (checksum or "md5:" + "0" * 32).partition(":")
                assert len(bytes.fromhex(digest)) == hashlib.new(kind).digest_size
    assert set(fetching.SOURCES) == {"esc10", "esc40", "esc50", "fsd50k", "fsdd", "speech_commands"}


# The command.


def test_the_command(fsdd, tmp_path, capfd):
    from sonibook.cli import main

    assert main(["data", "fetch", "fsdd", "--data-root", str(tmp_path)]) == 0
    assert capfd.readouterr().out == f"fsdd: 60 clips in 10 classes, in {tmp_path}\n"
    assert main(["data", "fetch", "audioset", "--data-root", str(tmp_path)]) == 2
    assert "YouTube" in capfd.readouterr().err
