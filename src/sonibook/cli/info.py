"""``sonibook info``: what a checkpoint is."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sonibook.cli.output import examples, shown, table

INFO_EXAMPLES = examples(
    "sonibook info",
    "sonibook info supervised",
    "sonibook info runs/mine/encoder.safetensors --json",
)


#: Levels of a card that are shown one below the other.
_DEEPEST = 8


def info(
    checkpoint: Annotated[
        str | None, typer.Argument(metavar="[NAME|PATH]", help="Shipped name or .safetensors file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a checkpoint: its blocks and its card. Without one, list those that are shipped."""
    from sonibook.model.checkpoint import load_encoder, read_card, shipped

    if checkpoint is None:
        names = {name: read_card(path) for name, path in shipped().items()}
        if as_json:
            typer.echo(json.dumps(names, indent=2, ensure_ascii=False))
        elif names:
            rows = [[name, card["width"], card.get("data")] for name, card in names.items()]
            typer.echo(table(["name", "width", "data"], rows))
        else:
            typer.echo("No checkpoint is shipped.")
        return

    encoder, card = load_encoder(checkpoint), read_card(checkpoint)
    blocks = _block_rows(encoder)
    parameters = sum(p.numel() for p in encoder.parameters())
    if as_json:
        content = {
            "checkpoint": checkpoint,
            "width": encoder.width,
            "parameters": parameters,
            "least_length": encoder.least_length,
            "blocks": blocks,
            "card": card,
        }
        typer.echo(json.dumps(content, indent=2, ensure_ascii=True))
        return
    typer.echo(f"CNN12, width {encoder.width:g}, {parameters:,} parameters")
    typer.echo(f"takes clips of {encoder.least_length} samples or more, at 8 kHz\n")
    typer.echo(table(list(blocks[0]), [list(row.values()) for row in blocks]))
    typer.echo("\nCard")
    typer.echo(shown("\n".join(_indented(card))))


def _block_rows(network: Any) -> list[dict[str, object]]:
    """The blocks of a network, one dict each; strides and fields in samples, and ms at 8 kHz."""
    from sonibook.audio import SAMPLE_RATE
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
            "receptive_field_ms": 1000 * receptive_field(blocks, layer) / SAMPLE_RATE,
        }
        for layer, block in enumerate(blocks, start=1)
    ]


def _indented(value: dict[str, Any], depth: int = 1) -> list[str]:
    """A nested dict, a line an entry."""
    lines = []
    for key, entry in value.items():
        if isinstance(entry, dict) and depth < _DEEPEST:
            lines += ["  " * depth + f"{key}:", *_indented(entry, depth + 1)]
        else:
            text = ", ".join(map(str, entry)) if isinstance(entry, list) else str(entry)
            lines.append("  " * depth + f"{key}: {text}")
    return lines
