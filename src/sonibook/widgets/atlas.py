"""The atlas: a folder with a page on which every filter of a network is heard on its top clips.

A page that was opened from disk may load scripts and pictures and nothing else. So each filter's
sounds are a script of their own, loaded when they are first heard: FLAC, at a constant distance
from its quantisation noise. The pieces call the lab's function: it opens the clips, too.
"""

from __future__ import annotations

import base64
import html
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray

from sonibook.analysis.activations import ActivationsResult, agreement_of, top_activations
from sonibook.analysis.atlas import Shortened, TopSound, sonify_top_clips
from sonibook.analysis.networks import Network
from sonibook.analysis.result import key_of
from sonibook.analysis.stream import ChunkCache, Streaming
from sonibook.datasets.base import Dataset
from sonibook.errors import SonibookError
from sonibook.files import provenance, read_json, write_result
from sonibook.model.encoder import CNN12
from sonibook.model.stack import blocks_of, receptive_field
from sonibook.plots.sound import power_spectrogram, small_levels
from sonibook.plots.style import LEVELS
from sonibook.widgets.lab import write_page, write_script
from sonibook.widgets.players import sound_file

#: Of each clip, at most so many seconds are heard, as in the lab.
_MOST_SECONDS = 10.0
#: Signal to quantisation noise of sonifications and of clips, in dB.
_SNR, _CLIP_SNR = 40.0, 60.0
#: What the sonifications of a network may take, in samples: with 5 bits a sample about 40 MB.
_MOST_SAMPLES = 44e6
#: What clips may take, in samples, for them to be there as a whole: about 24 MB.
_MOST_OF_CLIPS = 24e6
#: Height and width of a thumbnail, and how many stand in a row.
_HEIGHT, _WIDTH, _ROW = 40, 48, 16


def make_atlas(
    networks: Sequence[Network],
    data: Dataset,
    out: str | Path,
    *,
    facts: Mapping[str, Sequence[str]] | None = None,
    lab: str = "",
    k: int = 3,
    seconds: float | None = None,
    **streaming: Unpack[Streaming],
) -> dict[str, Any]:
    """Find every filter's top clips, sonify them, and write the folder, whole or not at all.

    Of the same atlas, only the page is written anew; `SonibookError` if the folder holds something
    else. The first of the networks is shown first; the others must have its shape. Of each
    sonification some `seconds` around the largest value of the filter's map are kept: None is a
    second, or less where the folder would become larger than 60 MB a network. `facts` are
    sentences on the networks, by name; `lab` is where the page finds the lab.
    """
    out = Path(out)
    earlier = earlier_in(out, "atlas.json", "an atlas")
    link = f' data-lab="{html.escape(lab, quote=True)}"' if lab else ""
    data = Shortened(data, _MOST_SECONDS)
    modules = {network.name: network.module for network in networks}
    settings = {"k": k, "seconds": seconds, "limit": streaming.get("limit")}
    made_of = ChunkCache.of(out, [key_of("atlas", modules, settings)], data).folder.name
    if earlier.get("made_of") == made_of:
        write_page(out, "atlas", title=html.escape(earlier["title"]), lab=link)
        return earlier
    found = top_activations(networks, data, k=k, **streaming)
    own = {name: [one for one in found.filters if one.network == name] for name in modules}
    longest = max(sum(len(one.top) for one in filters) for filters in own.values())
    if seconds is None:
        seconds = min(1.0, _MOST_SAMPLES / max(longest * data.sample_rate, 1))
    with replaced(out) as folder:
        writer = _Writer(folder, networks, data, found, seconds)
        for index, x, sounds in sonify_top_clips(
            networks, data, found, seconds=seconds, **streaming
        ):
            writer.add(index, x, sounds)
        manifest = writer.manifest(facts or {})
        write_script(folder, "manifest", manifest)
        files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        summary: dict[str, Any] = {
            "title": f"{networks[0].name} over {data.name} ({data.split})",
            "made_of": made_of,
            "data": found.data.model_dump(),
            "licence": data.licence,
            "stretch_seconds": seconds,
            "filters": {name: len(filters) for name, filters in own.items()},
            "bytes": sum(files),
            "largest_file": max(files),
            "provenance": provenance(),
        }
        write_page(folder, "atlas", title=html.escape(summary["title"]), lab=link)
        write_result(folder / "atlas.json", summary)
    return summary


def earlier_in(out: Path, name: str, what: str) -> dict[str, Any]:
    """What a folder's file `name` tells of what was made there earlier, empty if nothing was."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    try:
        content = read_json(out / name)
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or "provenance" not in content:
        raise SonibookError(f"{out}: is there already and is not {what}: choose another folder.")
    return content


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of `out` when the block ends well."""
    new, old = (out.parent / f".{out.name}.{word}" for word in ("new", "old"))

    def tidy() -> None:
        if old.exists() and not out.exists():  # stopped between the two renames below
            old.rename(out)
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)

    tidy()  # what an earlier run left that was killed
    new.mkdir(parents=True)
    try:
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        tidy()


_Filter = tuple[str, int, int]


class _Writer:
    """Takes sounds as they come, and writes what is complete."""

    def __init__(
        self,
        folder: Path,
        networks: Sequence[Network],
        data: Dataset,
        found: ActivationsResult,
        seconds: float,
    ) -> None:
        self.folder, self.networks, self.data, self.found = folder, networks, data, found
        self.seconds = seconds
        self._filters = {(one.network, one.layer, one.filter): one for one in found.filters}
        #: By rank, until those of all clips have come: where a sound is, what it is like, its file.
        self._waiting: dict[_Filter, dict[int, tuple[list[int], list[float], str]]] = {}
        self._rows: dict[_Filter, list[Any]] = {}
        self._thumbnails: dict[_Filter, UInt8[ndarray, "height width"]] = {}
        self._clips: dict[str, Any] = {}
        chosen = {top.index for one in found.filters for top in one.top}
        self._whole = sum(data.samples(index) for index in chosen) <= _MOST_OF_CLIPS

    def add(self, index: int, x: Float[ndarray, " time"], sounds: Sequence[TopSound]) -> None:
        """A clip, and what filters keep of it."""
        first, last = 0, len(x)
        if not self._whole:
            first = min(sound.start for sound in sounds)
            last = max(sound.start + len(sound.stretch) for sound in sounds)
        classes = [self.data.classes[label] for label in self.data.labels(index)]
        about = {
            "id": self.data.clip_id(index),
            "classes": [name.replace("_", " ") for name in classes],
            "credit": self.data.credit(index),
            "start": first,
        }
        self._clips[str(index)] = about
        rate = self.data.sample_rate
        content = {**about, "flac": flac_text(x[first:last], rate, snr=_CLIP_SNR)}
        write_script(self.folder, f"clips/{index}", content)
        for sound in sounds:
            key = (sound.network, sound.layer, sound.filter)
            # Encoded at once: a network's sounds as they are would fill the memory.
            flac = flac_text(sound.stretch, rate, snr=_SNR)
            where, shape = [sound.start, len(sound.stretch)], [sound.centroid, sound.bandwidth]
            self._waiting.setdefault(key, {})[sound.rank] = (where, shape, flac)
            if sound.rank == 0:
                power = power_spectrogram(sound.stretch)[1:]
                self._thumbnails[key] = small_levels(power, _HEIGHT, _WIDTH, -60.0)
            if len(self._waiting[key]) == len(self._filters[key].top):
                self._finish(key)

    def _finish(self, key: _Filter) -> None:
        """All top clips of a filter have come."""
        network, layer, number = key
        kept = (sound for _, sound in sorted(self._waiting.pop(key).items()))
        places, shapes, files = zip(*kept, strict=True)
        write_script(self.folder, f"{_slug(network)}/{layer:02d}-{number:04d}", files)
        tops = zip(self._filters[key].top, places, strict=True)
        top = [[each.index, _short(each.energy), *place] for each, place in tops]
        self._rows[key] = [*map(_short, np.mean(shapes, axis=0)), top]

    def manifest(self, facts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Write the tables and the thumbnails of each layer; what the page is to know first."""
        data = self.data
        return {
            "data": self.found.data.model_dump() | {"missing": data.missing},
            "licence": data.licence,
            "classes": len(data.classes),
            "rate": data.sample_rate,
            "seconds": self.seconds,
            "most": _MOST_SECONDS,
            "whole": self._whole,
            "thumbnail": [_WIDTH, _HEIGHT, _ROW],
            "networks": [
                {
                    "name": network.name,
                    "folder": _slug(network.name),
                    "facts": list(facts.get(network.name, ())),
                    "lab": _name_in_lab(network),
                    "layers": [
                        self._layer(network, layer)
                        for layer in range(1, len(blocks_of(network.module)) + 1)
                    ],
                }
                for network in self.networks
            ],
            "clips": dict(sorted(self._clips.items(), key=lambda item: int(item[0]))),
        }

    def _layer(self, network: Network, layer: int) -> dict[str, Any]:
        from PIL import Image

        blocks, filters = blocks_of(network.module), self.found.of_layer(network.name, layer)
        rows, height, width = [], -(-len(filters) // _ROW), min(len(filters), _ROW)
        levels = np.zeros((height * _HEIGHT, width * _WIDTH), np.uint8)
        for one in filters:
            key = (network.name, layer, one.filter)
            shape = self._rows.get(key, [None, None, []])
            rows.append([one.live_clips, _short(agreement_of(one, self.data)), *shape])
            if key in self._thumbnails:
                down, across = divmod(one.filter, _ROW)
                here = levels[down * _HEIGHT :, across * _WIDTH :][:_HEIGHT, :_WIDTH]
                here[:] = self._thumbnails[key]
        stem = f"{_slug(network.name)}/{layer:02d}"
        write_script(self.folder, stem, rows)
        # In the colours of the book's spectrograms.
        rgb = mpl.colormaps[LEVELS](levels, bytes=True)[:, :, :3]
        picture = Image.fromarray(np.ascontiguousarray(rgb))
        picture.save(self.folder / f"{stem}.webp", format="webp", quality=60)
        return {
            "filters": len(filters),
            "dead": sum(not one.live_clips for one in filters),
            "milliseconds": _short(1000 * receptive_field(blocks, layer) / self.data.sample_rate),
        }


def flac_text(x: Float[ndarray, " time"], sample_rate: int, *, snr: float) -> str:
    """A sound as a FLAC file in base64, whose quantisation noise is `snr` dB below its RMS."""
    # Rounded to a power of two: FLAC spends nothing on bits that are zero throughout.
    samples = np.asarray(x, np.float64) * 32768
    finest = np.sqrt(12 * np.mean(samples**2)) * 10 ** (-snr / 20)
    step = 2.0 ** max(0, int(np.floor(np.log2(max(finest, 1)))))
    rounded = np.clip(np.rint(samples / step), -32768 / step, 32768 / step - 1) * step
    file = sound_file(rounded.astype(np.int16), sample_rate, compression_level=1.0)
    return base64.b64encode(file).decode()


def _short(value: float | None) -> float | None:
    """Four digits; None for NaN."""
    return None if value is None or np.isnan(value) else float(f"{value:.4g}")


def _slug(name: str) -> str:
    """A name for a folder and a link."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "network"


def _name_in_lab(network: Network) -> str | None:
    """What the lab calls a network: it takes encoders, and has one with random weights."""
    blocks, random = blocks_of(network.module), blocks_of(CNN12(width=0.25, seed=0))
    if network.baseline:
        same = len(blocks) == len(random) and all(
            torch.equal(a.conv.weight.cpu(), b.conv.weight)
            for a, b in zip(blocks, random, strict=True)
        )
        return "random" if same else None
    return _slug(network.name) if isinstance(network.module, CNN12) else None
