"""``sonibook atlas``: a page on which every filter of a network is heard on its top clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonibook.cli.common import (
    DataOptions,
    DataRoot,
    Limit,
    MeasuredData,
    MeasuredFolds,
    MeasuredSplit,
    examples,
    seed_of,
    shown,
    table,
)

if TYPE_CHECKING:
    from sonibook.analysis.networks import Network

ATLAS_EXAMPLES = examples(
    "sonibook atlas supervised --dataset soundscapes -o size=60 --out atlas",
    "sonibook atlas supervised --dataset esc50 --folds 5 --data-root data --out atlas",
    "sonibook atlas mine.safetensors --dataset folder --data-root recordings --out atlas",
)


def atlas(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="Shipped or imported name, .safetensors file, or module:function, Python code "
            "that makes a network.",
        ),
    ],
    dataset: MeasuredData,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", file_okay=False, help="Where the atlas goes."),
    ],
    split: MeasuredSplit = None,
    folds: MeasuredFolds = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    k: Annotated[int, typer.Option("-k", min=1, max=4, help="Clips for each filter.")] = 3,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=10,
            metavar="S",
            help="How much of each sonification to keep, around the largest value of the map.",
            show_default="1, or what keeps the folder below 60 MB a network",
        ),
    ] = None,
    lab: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where the page finds the lab of the book, such as ../lab.html for an atlas in a "
            "folder beside it: a click on a filter then opens it there.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the random weights.")] = 0,
    loudest: Annotated[
        float | None,
        typer.Option(
            min=0.05, max=10, metavar="S", help="Take only the loudest S seconds of each clip."
        ),
    ] = None,
    limit: Limit = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes to work with.", show_default="all cores")
    ] = None,
) -> None:
    """Make an atlas: every filter with its top clips and their sonifications (section 3.3).

    One pass over the data finds the clips that activate each filter most; those are sonified, also
    by the same network with random weights. The folder holds a page (index.html) that needs no
    server. An earlier atlas in it is replaced when all is done. What was interrupted goes on where
    it stood when run again.
    """
    from sonibook.analysis.atlas import Loudest
    from sonibook.analysis.networks import with_random_weights
    from sonibook.cli.analyse.shared import Asked, streamed
    from sonibook.widgets.atlas import make_atlas

    if dataset == "folder" and folds is None:
        split = split or "all"  # it has no other
    out = out.resolve()
    asked = Asked((network,), dataset, split, folds, options, data_root, seed=seed)
    own = asked.networks
    both = with_random_weights(own, seed=seed)
    told = {
        own[0].name: _facts(network, own[0]),
        both[1].name: [
            f"Random weights (He, seed {seed}), never trained. The weights that "
            f"{own[0].name} started from may be of another kind."
        ],
    }
    with streamed(out, processes=processes, limit=limit) as streaming:
        data = asked.data if loudest is None else Loudest(asked.data, loudest)
        summary = make_atlas(
            both, data, out, facts=told, lab=lab, k=k, seconds=seconds, **streaming
        )
    measured = summary["data"]
    rows = [[name, count] for name, count in summary["filters"].items()]
    typer.echo(table(["network", "filters"], rows))
    skipped = ", ".join(f"{count} {reason}" for reason, count in measured["skipped"].items())
    typer.echo(
        f"{measured['dataset']} ({measured['split']}), {measured['clips']} of {measured['size']} "
        f"clips{f'; skipped: {skipped}' if skipped else ''}"
    )
    typer.echo(
        f"{summary['bytes'] / 1e6:.1f} MB, the largest file "
        f"{summary['largest_file'] / 1e6:.2f} MB, in {shown(out)}"
    )


def _facts(name: str, network: Network) -> list[str]:
    """What a network's card tells of it."""
    from sonibook.model.checkpoint import read_card
    from sonibook.model.encoder import CNN12
    from sonibook.widgets.lab import LabNetwork, facts

    if not isinstance(network.module, CNN12) or seed_of(name, 0) is not None:
        return []
    if ":" in name and not Path(name).exists():
        return []
    return facts(LabNetwork(network.name, network.module, read_card(name)))
