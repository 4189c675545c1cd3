"""Sound files sonified one after the other, into a folder with a table that says what is what.

Memory does not grow with their number. What stands in the folder from earlier runs stays, and
stays described: the tables are joined, and a clip whose folder is taken by another sound or
another network gets a folder of a new name.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TextIO

import numpy as np
import soundfile
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from sonibook.audio import EXTENSIONS, read_audio, scale_to_peak, write_wav
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError, AudioError, SonibookWarning, explain
from sonibook.files import atomic, provenance, read_json, shown, write_text
from sonibook.model.stack_file import sample_rate_of, weights_digest

#: Of the table. The last two say which network it was, by its name and a digest of its weights.
COLUMNS = (
    "file", "seconds", "layer", "filter", "rank", "energy_share", "live_share", "rms_ratio",
    "peak_scale", "padded", "silent", "input", "sonification", "picture", "checkpoint", "weights",
)  # fmt: skip
#: So many of a run's rows are kept to be shown.
_MOST_SHOWN = 40

_Row = dict[str, object]


def find_sounds(arguments: Sequence[Path], *, leave_out: Path) -> dict[Path, Path]:
    """The files that the arguments name, each once, in their order, and labels for them.

    Of folders all sounds are taken, to any depth, by name, but for hidden ones and those below
    `leave_out`. A folder without sounds stands for itself: reading it fails and says so. A label,
    the folder that a file's results go to, is the file's stem, or its path below the folder it was
    found in; where several files would share one, also where case is not told apart, each has a
    digest of its own path added.
    """
    sounds: dict[str, tuple[Path, Path]] = {}
    for argument in arguments:
        for path, label in _sounds_of(argument, leave_out):
            sounds.setdefault(os.path.realpath(path), (path, label))
    shared = Counter(str(label).casefold() for _, label in sounds.values())
    labels = {}
    for real, (path, label) in sounds.items():
        if shared[str(label).casefold()] > 1:
            digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:8]
            label = label.with_name(f"{label.name}-{digest}")
        labels[path] = label
    return labels


def _sounds_of(argument: Path, leave_out: Path) -> Iterator[tuple[Path, Path]]:
    if not argument.is_dir():
        yield argument, Path(argument.stem)
        return
    empty, out = True, os.path.realpath(leave_out)
    for folder, names, files in os.walk(argument):
        names[:] = sorted(
            name
            for name in names
            if not name.startswith(".") and os.path.realpath(Path(folder, name)) != out
        )
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix.lower() in EXTENSIONS and not name.startswith("."):
                empty = False
                yield path, path.relative_to(argument).with_suffix("")
    if empty:
        yield argument, Path(argument.name)


@dataclass(kw_only=True)
class FileSonifier:
    """What is asked of each sound, and what came of all of them.

    `filters` are taken of `layer` (from 1), or the `top` most active; sounds are cut after
    `seconds`. `checkpoint` is what the network is called, `card` what is known of it. `done` sounds
    gave `written` rows, of which `rows` are the first; `failed` says why, by file, others did not.
    AnalysisError where a table or provenance in `out` is not one of ours: it would be lost.
    """

    network: nn.Module
    checkpoint: str
    card: Mapping[str, object]
    layer: int
    filters: list[int] | None
    top: int | None
    out: Path
    seconds: float
    pictures: bool = True

    def __post_init__(self) -> None:
        self.rate, self.table = sample_rate_of(self.network), self.out / "sonifications.csv"
        self.done = self.written = 0
        self.rows: list[_Row] = []
        self.failed: dict[str, str] = {}
        self.interrupted = False
        self._weights = weights_digest(dict(sorted(self.network.state_dict().items())))[:12]
        self._of_folder: dict[str, set[object]] = {}
        for row in _read_table(self.table):
            self._of_folder.setdefault(row["input"], set()).add(row["weights"])
        self._earlier = _read_provenance(self.out / "provenance.json")

    def run(self, sounds: Iterable[tuple[Path, Path]], *, tell: Callable[[str], None]) -> None:
        """Sonify sounds with their labels; `tell` takes notices.

        The table is written even if the user stops it.
        """
        with tempfile.TemporaryFile("w+", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            try:
                for path, label in sounds:
                    rows = self._sonify(path, label, tell)
                    if rows is None:
                        continue
                    writer.writerows(rows)
                    self.rows += rows[: _MOST_SHOWN - len(self.rows)]
                    self.done, self.written = self.done + 1, self.written + len(rows)
            except KeyboardInterrupt:
                self.interrupted = True
            finally:
                if self.done:
                    self._join(file)
                    self._write_provenance()

    def _sonify(self, path: Path, label: Path, tell: Callable[[str], None]) -> list[_Row] | None:
        """Sonify one sound and write what comes of it; None, and a reason kept, if it cannot be."""
        with warnings.catch_warnings(record=True) as notices:
            warnings.simplefilter("always", SonibookWarning)
            try:
                if path.is_dir():
                    raise AudioError("the folder holds no sound (WAV, FLAC, OGG or MP3).")
                whole = read_audio(path, sample_rate=self.rate, unit_peak=False)
                if len(whole) < 2:
                    raise AudioError("holds a single sample, which is not a sound.")
                x = scale_to_peak(whole[: round(self.seconds * self.rate)])
                forward = ForwardPass(self.network, x, depth=self.layer)
            except (AudioError, OSError) as problem:
                reason = explain(problem)
                named = reason if str(path) in reason else f"{path}: {reason}"
                self.failed[str(path)] = named
                return None
            if len(x) < len(whole):
                tell(f"{path}: only the first {self.seconds:g} s are sonified (see --seconds).")
            folder = self._folder(label, x)
            if folder != self.out / label:
                name = folder.relative_to(self.out)
                tell(f"{path}: {label} is taken in {self.out}: it goes to {name}.")
            rows = self._rows(forward, x, path, folder)
        for notice in notices:
            tell(f"{path}: {str(notice.message).removeprefix(f'{path}: ')}")
        silent = sum(bool(row["silent"]) for row in rows)
        if silent:
            tell(
                f"{path}: {silent} of {len(rows)} sonifications are silent, because the filter's "
                "map is zero all along the clip."
            )
        return rows

    def _folder(self, label: Path, x: Float[ndarray, " time"]) -> Path:
        """Where a sound's results go: into a folder of its own, or of earlier runs on the same."""
        for number in count(1):
            name = label.name if number == 1 else f"{label.name}-{number}"
            folder = self.out / label.with_name(name)
            source = folder / "input.wav"
            ours = self._of_folder.get(self._name(source)) == {self._weights}
            if not os.path.lexists(source) or (ours and _holds(source, x, self.rate)):
                break
        return folder

    def _rows(
        self, forward: ForwardPass, x: Float[ndarray, " time"], path: Path, folder: Path
    ) -> list[_Row]:
        """Write the input and its sonifications; if the user stops it, take back what is new."""
        source, earlier = folder / "input.wav", set(folder.glob("*"))
        of_sound = {"file": shown(path), "input": self._name(source)}
        of_sound |= {"checkpoint": shown(self.checkpoint), "weights": self._weights}
        try:
            write_wav(source, x, sample_rate=self.rate)
            rows = [of_sound | row for row in self._sonified(forward, x, folder)]
        except KeyboardInterrupt:
            for fresh in set(folder.glob("*")) - earlier:
                if fresh.is_file():
                    fresh.unlink()
            with suppress(OSError):
                folder.rmdir()
            raise
        self._of_folder[self._name(source)] = {self._weights}
        return rows

    def _sonified(
        self, forward: ForwardPass, x: Float[ndarray, " time"], folder: Path
    ) -> Iterator[_Row]:
        energy = forward.energy(self.layer)[0]
        ranked = forward.most_active(self.layer, len(energy))
        total, input_peak = float(energy.sum()), float(abs(x).max())
        chosen = ranked[: self.top] if self.filters is None else self.filters
        batches = forward.sonify_in_batches(self.layer, chosen, rescale=False)
        for index, sound in chain.from_iterable(zip(*batch, strict=True) for batch in batches):
            raw = sound.cpu().numpy()
            peak = float(abs(raw).max())
            s = scale_to_peak(raw, peak=input_peak) if peak > 0 else raw
            target = folder / f"layer{self.layer:02d}-filter{index:04d}.wav"
            picture = target.with_suffix(".png")
            write_wav(target, s, sample_rate=self.rate)
            if self.pictures:
                titles = _title(folder.name), f"Layer {self.layer}, filter {index}"
                _draw(picture, x, s, titles, self.rate)
            live = forward.maps[self.layer - 1][0, index] > 0
            power = (s.astype(float) ** 2).mean() / (x.astype(float) ** 2).mean()
            yield {
                "seconds": len(x) / self.rate,
                "layer": self.layer,
                "filter": index,
                "rank": ranked.index(index) + 1,
                "energy_share": float(energy[index]) / total if total else 0.0,
                "live_share": float(live.float().mean()),
                "rms_ratio": float(power) ** 0.5,
                "peak_scale": input_peak / peak if peak else None,
                "padded": forward.x.shape[2] > len(x),
                "silent": peak == 0,
                "sonification": self._name(target),
                "picture": self._name(picture) if picture.exists() else None,
            }

    def _name(self, path: Path) -> str:
        return shown(path.relative_to(self.out).as_posix())

    def _join(self, new: TextIO) -> None:
        """Write the table: this run's rows after those of earlier runs that it did not replace."""
        new.seek(0)
        made = {row["sonification"] for row in csv.DictReader(new, COLUMNS)}
        new.seek(0)
        with (
            atomic(self.table) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            earlier = _read_table(self.table)
            writer.writerows(row for row in earlier if row["sonification"] not in made)
            shutil.copyfileobj(new, file)

    def _write_provenance(self) -> None:
        """Write beside the table how it came about, and what is not in it; earlier runs last."""
        content = {
            **provenance(),
            "checkpoint": {"name": self.checkpoint, "card": dict(self.card)},
            "weights": self._weights,
            "layer": self.layer,
            "filters": self.filters,
            "top": self.top,
            "clips": self.done,
            "failed": {shown(path): shown(reason) for path, reason in self.failed.items()},
        }
        if self._earlier:
            content["earlier"] = self._earlier
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_text(self.out / "provenance.json", text)


def _read_table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of an earlier run's table, with every column; those it lacks are empty."""
    if not path.exists():
        return
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, restval="")
            if not set(COLUMNS[:-2]) <= set(reader.fieldnames or ()):
                raise ValueError("it has other columns")
            for row in reader:
                yield {column: row.get(column, "") for column in COLUMNS}
    except (ValueError, csv.Error) as problem:
        raise _not_ours(path, problem) from None


def _read_provenance(path: Path) -> list[object]:
    """What earlier runs into this folder left, latest first."""
    if not path.exists():
        return []
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
    except ValueError as problem:
        raise _not_ours(path, problem) from None
    earlier = content.pop("earlier", [])
    return [content, *(earlier if isinstance(earlier, list) else [])]


def _not_ours(path: Path, problem: Exception) -> AnalysisError:
    return AnalysisError(f"{path} is not what sonify writes ({problem}): choose another folder.")


def _holds(path: Path, x: Float[ndarray, " time"], sample_rate: int) -> bool:
    """Whether a file holds this sound, at 16 bits."""
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except (OSError, soundfile.LibsndfileError):
        return False
    alike = rate == sample_rate and samples.shape == x.shape
    return bool(alike and np.abs(samples - x).max() < 1.5 / 32768)


def _title(name: str) -> str:
    """A clip's name as a title, unless it is too long or not in the font for certain."""
    if len(name) > 30 or not (name.isascii() and name.isprintable()):
        return "Input"
    return name.replace("$", r"\$")  # matplotlib reads mathematics between dollar signs


def _draw(path: Path, x: ndarray, s: ndarray, titles: tuple[str, str], rate: int) -> None:
    from sonibook.plots.sound import side_by_side

    figure = side_by_side([x, s], sample_rate=rate, titles=titles)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
