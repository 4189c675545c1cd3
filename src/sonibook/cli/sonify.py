"""``sonibook sonify``: files in; sounds, pictures and a table out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sonibook.cli import common
from sonibook.cli.common import app, command, error, shown, table

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
def sonify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE")],
    layer: Annotated[int, typer.Option("--layer", "-l", metavar="L")],
    filters: Annotated[list[int] | None, typer.Option("--filter", "-f", metavar="F")] = None,
    top: Annotated[int | None, typer.Option("--top", "-k", min=1, metavar="K")] = None,
    checkpoint: Annotated[
        str,
        typer.Option("--network", "--checkpoint", "-c", metavar="NAME|PATH|MODULE:FUNCTION"),
    ] = "supervised",
    out: common.Folder = Path("sonified"),
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

    from sonibook.errors import LayerError
    from sonibook.model.checkpoint import open_network
    from sonibook.model.stack import blocks_of, check_filters, check_layer
    from sonibook.sonify_files import COLUMNS, FileSonifier, find_sounds

    encoder, card = open_network(checkpoint)
    blocks = blocks_of(encoder)
    count = blocks[check_layer(blocks, layer) - 1].conv.out_channels
    if top is not None and top > count:
        raise LayerError(f"Layer {layer} has {count} filters: --top can be {count} at most.")
    chosen = None if filters is None else check_filters(blocks, layer, list(dict.fromkeys(filters)))

    sounds = find_sounds(files, leave_out=out)
    sonifier = FileSonifier(
        encoder,
        checkpoint=checkpoint,
        card=card,
        layer=layer,
        filters=chosen,
        top=top,
        out=out,
        seconds=seconds,
        pictures=pictures,
    )
    with tqdm(sounds, unit="clip", file=sys.stderr, disable=None, leave=False) as bar:
        sonifier.run(bar, tell=lambda text: bar.write(f"Note: {shown(text)}", file=sys.stderr))
    if sonifier.done:
        printed = COLUMNS[:11]
        typer.echo(table(printed, [[row[name] for name in printed] for row in sonifier.rows]))
        more, path = sonifier.written - len(sonifier.rows), shown(sonifier.table)
        typer.echo(f"… and {more} more rows in {path}" if more else f"Written to {path}")
    if sonifier.interrupted:
        done = f"{sonifier.done} of {len(sounds)} clips are done" + (
            f": {shown(out)}" if sonifier.done else ""
        )
        typer.echo(f"Interrupted: {done}.", err=True)
        raise typer.Exit(130)
    if sonifier.failed:
        if len(sounds) == 1:
            error(*sonifier.failed.values())
        else:
            share = f"{len(sonifier.failed)} of {len(sounds)}"
            error(f"{share} files could not be sonified.", sonifier.failed.values())
        raise typer.Exit(2)
