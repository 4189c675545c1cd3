"""``sonibook data``: what data sets there are, what is in them, and how they come here."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from sonibook.cli import common
from sonibook.cli.common import app, command, error, group, open_data, shown, table
from sonibook.errors import AudioError, DatasetError
from sonibook.files import atomic

_data_commands = group(
    "List, describe, fetch, pack and write out data sets.",
    "sonibook data list --data-root recordings",
    "sonibook data show esc50 --split test",
    "sonibook data fetch fsdd --data-root recordings",
    "sonibook data export soundscapes --count 10 --out scenes",
)
app.add_typer(_data_commands, name="data")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="As 'sonibook data list' shows it.")]
_Part = Annotated[str, typer.Option(help="Which part: all, train or test.")]


@command(_data_commands, "sonibook data list", "sonibook data list --data-root recordings")
def _list(data_root: common.DataRoot = None) -> None:
    """List the data sets, and which of them can be opened here."""
    from sonibook.datasets import DATASETS, open_dataset

    rows: list[list[object]] = []
    reasons: list[str] = []
    for name in DATASETS:
        try:
            data = open_dataset(name, root=data_root)
            rows.append([name, len(data), len(data.classes), data.task, "ready"])
        except DatasetError as problem:
            rows.append([name, None, None, None, "not ready"])
            reasons.append(f"  {name}: {shown(problem)}")
    typer.echo(table(["name", "clips", "classes", "task", "state"], rows))
    if reasons:
        typer.echo("\n".join(["", "Not ready, because:", *reasons]))


@command(
    _data_commands,
    "sonibook data show esc50 --data-root recordings --split test",
    "sonibook data show folder --data-root my_sounds --read-all",
    "sonibook data show soundscapes --option size=200 --option task=single-label",
)
def _show(
    name: _Name,
    split: _Part = "all",
    options: common.DataOptions = None,
    data_root: common.DataRoot = None,
    read_all: Annotated[bool, typer.Option("--read-all")] = False,
) -> None:
    """Describe a data set: clips, classes, durations.

    Durations are measured by reading clips, all of them or an even sample. Those that cannot be
    read are named at the end, and the exit code is 2.

    Options:
        read_all: Read every clip, not only 100 evenly spaced ones, and name the bad.
    """
    from tqdm.auto import tqdm

    data = open_data(name, root=data_root, pairs=options, split=split)
    chosen = range(0, len(data), 1 if read_all else max(len(data) // 100, 1))
    durations, bad = [], []
    for index in tqdm(chosen, desc="read", unit="clip", disable=None, leave=False):
        try:
            durations.append(len(data[index].waveform) / data.sample_rate)
        except AudioError as problem:
            bad.append(problem)
    counts = Counter(label for index in range(len(data)) for label in data.labels(index))
    typer.echo(f"{data.name} ({data.split}): {len(data)} clips, {data.task}")
    if durations:
        ordered = sorted(durations)
        typer.echo(
            f"durations (of {len(ordered)} clips): {ordered[0]:.2f} to {ordered[-1]:.2f} s, "
            f"median {ordered[len(ordered) // 2]:.2f} s"
        )
    first = [data.clip_id(index) for index in range(min(5, len(data)))]
    typer.echo("first ids: " + ", ".join(shown(clip_id) for clip_id in first))
    if data.classes:
        typer.echo()
        rows = [[label, text, counts[label]] for label, text in enumerate(data.classes)]
        typer.echo(table(["label", "class", "clips"], rows))
    if bad:
        error(f"{len(bad)} of {len(chosen)} clips cannot be read.", bad)
        raise typer.Exit(2)


@command(
    _data_commands,
    "sonibook data export soundscapes --count 10 --out scenes",
    "sonibook data export soundscapes --count 4 --option seed=7 --option duration=2",
)
def _export(
    name: _Name,
    count: common.Count = 10,
    out: Path = Path("exported"),
    split: _Part = "all",
    options: common.DataOptions = None,
    data_root: common.DataRoot = None,
) -> None:
    """Write clips as WAV files (16 bit), and labels.csv.

    For scenes whose events are known, events.csv says when each event starts and ends, in s, and
    how loud it was set, in dB.

    Options:
        count: How many clips, from the first.
        out: Folder to write to.
    """
    from tqdm.auto import tqdm

    from sonibook.audio import write_wav

    data = open_data(name, root=data_root, pairs=options, split=split)
    if count > len(data):
        raise DatasetError(f"{data.name} ({data.split}) has {len(data)} clips, not {count}.")
    labels: list[list[object]] = [["file", "clip_id", "labels"]]
    events: list[list[object]] = [["file", "class", "onset", "offset", "gain"]]
    for index in tqdm(range(count), desc="export", unit="clip", disable=None, leave=False):
        clip = data[index]
        file = f"{clip.clip_id}.wav"
        write_wav(out / file, clip.waveform, sample_rate=data.sample_rate)
        names = ";".join(data.classes[label] for label in clip.labels)
        labels.append([shown(file), shown(clip.clip_id), names])
        if hasattr(data, "scene"):
            events += [
                [file, event.name, event.onset, event.offset, event.gain]
                for event in data.scene(index).events
            ]
    for target, rows in {"labels.csv": labels, "events.csv": events}.items():
        if rows[1:]:
            with atomic(out / target) as path, path.open("w", newline="", encoding="utf-8") as f:
                csv.writer(f).writerows(rows)
    typer.echo(f"{count} clips written to {shown(out)}")


@command(
    _data_commands,
    "sonibook data fetch fsdd --data-root recordings",
    "sonibook data fetch fsd50k",
    short_help="Download, check and unpack a data set.",
)
def _fetch(name: _Name, data_root: common.DataRoot = None) -> None:
    """Download a published data set, check it and unpack it below the data root.

    If the download is interrupted, run the same command again: what is whole is kept. AudioSet
    lies on YouTube and cannot be fetched.

    Options:
        name: esc50, fsd50k, fsdd or speech_commands.
    """
    from sonibook.datasets import ROOT_VARIABLE
    from sonibook.datasets.fetch import fetch

    data = fetch(name, root=data_root)
    where: Path | str = data_root if data_root is not None else f"${ROOT_VARIABLE}"
    classes = len(data.classes)
    typer.echo(f"{data.name}: {len(data):,} clips in {classes} classes, in {shown(where)}")


@command(
    _data_commands,
    "sonibook data pack esc50 --data-root recordings --out packs/esc50",
    "sonibook data pack fsd50k --split train --split val --split test --out packs/fsd50k",
    "sonibook data show packed --data-root packs/fsd50k --split val",
    short_help="Pack a data set for quick training.",
)
def _pack(
    name: _Name,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER")],
    splits: Annotated[list[str] | None, typer.Option("--split")] = None,
    options: common.DataOptions = None,
    data_root: common.DataRoot = None,
    shard_mib: common.Count = 1024,
    workers: Annotated[int | None, typer.Option(min=1)] = None,
) -> None:
    """Pack a data set once into a few large files of samples, for quick training.

    Open the result as the data set 'packed', its folder being the data root. If packing is
    interrupted, run the same command again: it goes on where it stopped. Clips that cannot be
    read are named at the end, and the exit code is 2.

    Options:
        out: Folder to pack into.
        splits: Which part, by default all. May be repeated.
        shard_mib: Largest size of a shard, in MiB.
        workers: Threads that decode; by default all processors.
    """
    from sonibook.datasets.packed import pack

    bad: list[str] = []
    for split in splits or ["all"]:
        data = open_data(name, root=data_root, pairs=options, split=split)
        packed = pack(data, out, split=split, shard_bytes=shard_mib << 20, workers=workers)
        typer.echo(f"{data.name} ({data.split}): {len(packed):,} clips in {shown(packed.folder)}")
        bad += packed.bad
    if bad:
        error(f"{len(bad)} clips cannot be read, and are left out.", bad)
        raise typer.Exit(2)
