"""Many files sonified one after the other, so that memory does not grow with their number."""

from __future__ import annotations

import csv
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonibook.cli.inputs import Sound
from sonibook.cli.output import explain, shown

if TYPE_CHECKING:
    from sonibook.model.encoder import CNN12

#: Of the table that a batch leaves.
COLUMNS = (
    "file",
    "seconds",
    "layer",
    "filter",
    "rank",
    "energy_share",
    "live_share",
    "rms_ratio",
    "peak_scale",
    "padded",
    "silent",
    "input",
    "sonification",
    "picture",
)


class Batch:
    """What is asked of each sound, and what came of all of them.

    Parameters
    ----------
    encoder : CNN12
    layer : int
        Counted from 1.
    filters : list of int, or None
        Filters of that layer; None takes those that are most active.
    top : int or None
        How many of the most active.
    out : Path
        The folder for everything.
    seconds : float > 0, in s
        Longer sounds are cut there.
    pictures : bool
        Whether to draw each pair.

    Attributes
    ----------
    done : int
        Sounds that were sonified.
    failed : dict
        Why the others were not, by file.
    """

    def __init__(
        self,
        encoder: CNN12,
        *,
        layer: int,
        filters: list[int] | None,
        top: int | None,
        out: Path,
        seconds: float,
        pictures: bool = True,
    ) -> None:
        self.encoder, self.layer, self.filters, self.top = encoder, layer, filters, top
        self.out, self.seconds, self.pictures = out, seconds, pictures
        self.done = 0
        self.failed: dict[str, str] = {}

    def over(self, sounds: list[Sound]) -> bool:
        """Sonify every sound; True if the user broke it off.

        The table appears when all is over. Nothing is written if no sound can be read.
        """
        from tqdm.auto import tqdm

        from sonibook.files import atomic

        with (
            ExitStack() as stack,
            tqdm(sounds, unit="clip", file=sys.stderr, disable=None, leave=False) as bar,
        ):
            writer: Any = None
            try:
                for sound in bar:
                    rows = self._rows(sound, bar)
                    if rows is None:
                        continue
                    if writer is None:
                        temporary = stack.enter_context(atomic(self.out / "sonifications.csv"))
                        file = stack.enter_context(
                            temporary.open("w", newline="", encoding="utf-8")
                        )
                        writer = csv.DictWriter(file, COLUMNS)
                        writer.writeheader()
                    writer.writerows(rows)
                    self.done += 1
            except KeyboardInterrupt:
                return True
        return False

    def _rows(self, sound: Sound, bar: Any) -> list[dict[str, object]] | None:
        """Sonify one sound and write what comes of it; None, and a reason kept, if it cannot be."""
        from sonibook.audio import SAMPLE_RATE, read_audio, scale_to_peak
        from sonibook.deconvnet.backward import ForwardPass
        from sonibook.errors import AudioError, SonibookWarning

        with warnings.catch_warnings(record=True) as notices:
            warnings.simplefilter("always", SonibookWarning)
            try:
                if sound.path.is_dir():
                    raise AudioError("the folder holds no sound (WAV, FLAC, OGG or MP3).")
                whole = read_audio(sound.path, unit_peak=False)
                if len(whole) < 2:
                    raise AudioError("holds a single sample, which is no sound.")
                x = scale_to_peak(whole[: round(self.seconds * SAMPLE_RATE)])
                passed = ForwardPass(self.encoder, x, depth=self.layer)
            except (AudioError, OSError) as problem:
                reason = explain(problem)
                named = reason if str(sound.path) in reason else f"{sound.path}: {reason}"
                self.failed[str(sound.path)] = named
                return None
            except UnicodeEncodeError:
                self.failed[str(sound.path)] = (
                    f"{sound.path}: the sound library cannot open a name that is no Unicode text: "
                    "rename the file."
                )
                return None
            if len(x) < len(whole):
                cut = f"only the first {self.seconds:g} s are sonified (see --seconds)."
                bar.write(f"Note: {shown(sound.path)}: {cut}", file=sys.stderr)
            rows = list(self._sonified(passed, x, sound))
        for notice in notices:
            bar.write(f"Note: {shown(sound.path)}: {notice.message}", file=sys.stderr)
        silent = sum(bool(row["silent"]) for row in rows)
        if silent:
            bar.write(
                f"Note: {shown(sound.path)}: {silent} of {len(rows)} sonifications are silent, "
                "because the filter's map is zero all along the clip.",
                file=sys.stderr,
            )
        return rows

    def _sonified(self, passed: Any, x: Any, sound: Sound) -> Iterator[dict[str, object]]:
        from sonibook.audio import SAMPLE_RATE, scale_to_peak, write_wav

        energy = passed.energy(self.layer)[0]
        ranked = passed.most_active(self.layer, len(energy))
        chosen = ranked[: self.top] if self.filters is None else self.filters
        total = float(energy.sum())
        folder = self.out / sound.label
        source = folder / "input.wav"
        write_wav(source, x)
        # One filter at a time: a thousand of a long clip would not fit into memory together.
        for index in chosen:
            raw = passed.sonify(self.layer, [index], rescale=False)[0].numpy()
            peak = float(abs(raw).max())
            s = scale_to_peak(raw, peak=float(abs(x).max())) if peak > 0 else raw
            stem = f"layer{self.layer:02d}-filter{index:04d}"
            target = folder / f"{stem}.wav"
            write_wav(target, s)
            picture = folder / f"{stem}.png"
            if self.pictures:
                titles = _title(sound.label.name), f"Layer {self.layer}, filter {index}"
                _draw(picture, x, s, titles)
            live = passed.maps[self.layer - 1][0, index] > 0
            yield {
                "file": shown(sound.path),
                "seconds": len(x) / SAMPLE_RATE,
                "layer": self.layer,
                "filter": index,
                "rank": ranked.index(index) + 1,
                "energy_share": float(energy[index]) / total if total else 0.0,
                "live_share": float(live.float().mean()),
                "rms_ratio": float((s.astype(float) ** 2).mean() / (x.astype(float) ** 2).mean())
                ** 0.5,
                "peak_scale": float(abs(x).max()) / peak if peak else None,
                "padded": passed.x.shape[2] > len(x),
                "silent": peak == 0,
                "input": shown(source.relative_to(self.out).as_posix()),
                "sonification": shown(target.relative_to(self.out).as_posix()),
                "picture": shown(picture.relative_to(self.out).as_posix())
                if self.pictures
                else None,
            }

    def write_provenance(self, checkpoint: str) -> None:
        """Write beside the table how it came about, and what is not in it."""
        from sonibook.files import atomic
        from sonibook.model.checkpoint import read_card
        from sonibook.results import provenance

        content = {
            **provenance(),
            "checkpoint": {"name": checkpoint, "card": read_card(checkpoint)},
            "layer": self.layer,
            "filters": self.filters,
            "top": self.top,
            "clips": self.done,
            "failed": {shown(path): shown(reason) for path, reason in self.failed.items()},
        }
        with atomic(self.out / "provenance.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _title(name: str) -> str:
    """A clip's name as a title, unless it is too long or not in the font for certain."""
    if len(name) > 30 or not (name.isascii() and name.isprintable()):
        return "Input"
    return name.replace("$", r"\$")  # matplotlib reads mathematics between dollar signs


def _draw(path: Path, x: Any, s: Any, titles: tuple[str, str]) -> None:
    from sonibook.files import atomic
    from sonibook.plots.sound import compare

    figure = compare(x, s, titles=titles)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
