"""``sonibook data``: what data sets there are and what is in them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from sonibook.cli.fetch import FETCH_EXAMPLES, fetch
from sonibook.cli.inputs import DataOptions, DataRoot, open_data
from sonibook.cli.output import error, examples, shown, table
from sonibook.cli.pack import PACK_EXAMPLES, pack

data_commands = typer.Typer(
    help="List, describe, fetch, pack and write out data sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog=examples(
        "sonibook data list --data-root recordings",
        "sonibook data show esc50 --split test",
        "sonibook data fetch fsdd --data-root recordings",
        "sonibook data export soundscapes --count 10 --out scenes",
    ),
)

data_commands.command(
    "fetch", epilog=FETCH_EXAMPLES, short_help="Download, check and unpack a data set."
)(fetch)
data_commands.command(
    "pack", epilog=PACK_EXAMPLES, short_help="Pack a data set for quick training."
)(pack)

_FIRST = 5
Name = Annotated[str, typer.Argument(metavar="NAME", help="As 'sonibook data list' shows it.")]
Split = Annotated[str, typer.Option(help="Which part: all, train or test.")]


@data_commands.command(
    "list", epilog=examples("sonibook data list", "sonibook data list --data-root recordings")
)
def list_datasets(data_root: DataRoot = None) -> None:
    """List the data sets, and which of them can be opened here."""
    from sonibook.datasets import DATASETS, open_dataset
    from sonibook.errors import DatasetError

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


@data_commands.command(
    "show",
    epilog=examples(
        "sonibook data show esc50 --data-root recordings --split test",
        "sonibook data show folder --data-root my_sounds --read-all",
        "sonibook data show soundscapes --option size=200 --option task=single-label",
    ),
)
def show(
    name: Name,
    split: Split = "all",
    options: DataOptions = None,
    data_root: DataRoot = None,
    read_all: Annotated[
        bool,
        typer.Option(
            "--read-all", help="Read every clip, not only 100 evenly spaced ones, and name the bad."
        ),
    ] = False,
) -> None:
    """Describe a data set: clips, classes, durations.

    Durations are measured by reading clips, all of them or an even sample. Those that cannot be
    read are named at the end, and the exit code is 2.
    """
    data = open_data(name, root=data_root, pairs=options, split=split)
    step = 1 if read_all else max(len(data) // 100, 1)
    chosen = range(0, len(data), step)
    durations, bad = _durations(data, chosen)
    counts = Counter(label for index in range(len(data)) for label in data.labels(index))
    typer.echo(f"{data.name} ({data.split}): {len(data)} clips, {data.task}")
    if durations:
        ordered = sorted(durations)
        typer.echo(
            f"durations (of {len(ordered)} clips): {ordered[0]:.2f} to {ordered[-1]:.2f} s, "
            f"median {ordered[len(ordered) // 2]:.2f} s"
        )
    first = [_clip_id(data, index) for index in range(min(_FIRST, len(data)))]
    typer.echo("first ids: " + ", ".join(shown(text) for text in first if text))
    if data.classes:
        typer.echo()
        rows = [[label, text, counts[label]] for label, text in enumerate(data.classes)]
        typer.echo(table(["label", "class", "clips"], rows))
    if bad:
        error(f"{len(bad)} of {len(chosen)} clips cannot be read.")
        for reason in bad:
            typer.echo(f"  {shown(reason)}", err=True)
        raise typer.Exit(2)


def _durations(data: Any, chosen: range) -> tuple[list[float], list[str]]:
    """Durations in s of some clips, and why others cannot be read."""
    from tqdm.auto import tqdm

    from sonibook.audio import SAMPLE_RATE
    from sonibook.errors import AudioError

    durations, bad = [], []
    for index in tqdm(chosen, desc="read", unit="clip", disable=None, leave=False):
        try:
            durations.append(len(data[index].waveform) / SAMPLE_RATE)
        except AudioError as problem:
            bad.append(str(problem))
    return durations, bad


def _clip_id(data: Any, index: int) -> str:
    """The id of a clip, without reading it where it lies in a file."""
    from sonibook.datasets import FileDataset
    from sonibook.errors import AudioError

    if isinstance(data, FileDataset):
        return data.entries[index].clip_id
    try:
        return str(data[index].clip_id)
    except AudioError:
        return ""


@data_commands.command(
    "export",
    epilog=examples(
        "sonibook data export soundscapes --count 10 --out scenes",
        "sonibook data export soundscapes --count 4 --option seed=7 --option duration=2",
    ),
)
def export(
    name: Name,
    count: Annotated[int, typer.Option(min=1, help="How many clips, from the first.")] = 10,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("exported"),
    split: Split = "all",
    options: DataOptions = None,
    data_root: DataRoot = None,
) -> None:
    """Write clips as WAV files (8 kHz, 16 bit), and labels.csv.

    For scenes whose events are known, events.csv says when each event starts and ends, in s, and
    how loud it was set, in dB.
    """
    from tqdm.auto import tqdm

    from sonibook.audio import write_wav
    from sonibook.errors import DatasetError
    from sonibook.files import atomic

    data = open_data(name, root=data_root, pairs=options, split=split)
    if count > len(data):
        raise DatasetError(f"{data.name} ({data.split}) has {len(data)} clips, not {count}.")
    labels: list[list[str]] = []
    events: list[list[object]] = []
    for index in tqdm(range(count), desc="export", unit="clip", disable=None, leave=False):
        clip = data[index]
        file = f"{clip.clip_id}.wav"
        write_wav(out / file, clip.waveform)
        names = ";".join(data.classes[label] for label in clip.labels)
        labels.append([shown(file), shown(clip.clip_id), names])
        if hasattr(data, "scene"):
            events += [
                [file, event.name, event.onset, event.offset, event.gain]
                for event in data.scene(index).events
            ]
    tables = {"labels.csv": (["file", "clip_id", "labels"], labels)}
    if events:
        header = ["file", "class", "onset", "offset", "gain"]
        tables["events.csv"] = (header, events)  # type: ignore[assignment]
    for target, (header, rows) in tables.items():
        with (
            atomic(out / target) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as f,
        ):
            csv.writer(f).writerows([header, *rows])
    typer.echo(f"{count} clips written to {shown(out)}")
