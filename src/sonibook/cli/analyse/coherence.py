"""``sonibook analyse coherence``: how alike input and sonification are, with depth."""

from __future__ import annotations

from typing import Annotated

import typer

from sonibook.cli.analyse.options import (
    DatasetName,
    FigureFile,
    Folds,
    Limit,
    Networks,
    Out,
    Processes,
    Seed,
    Split,
    Width,
    finish,
    open_networks,
    open_part,
    streamed,
)
from sonibook.cli.inputs import DataOptions, DataRoot
from sonibook.cli.output import examples

COHERENCE_EXAMPLES = examples(
    "sonibook analyse coherence supervised --dataset soundscapes --limit 40",
    "sonibook analyse coherence supervised random:1 --dataset esc10 --folds 5 --out coherence.json",
)


def coherence(
    networks: Networks,
    dataset: DatasetName,
    split: Split = None,
    folds: Folds = None,
    options: DataOptions = None,
    data_root: DataRoot = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Most coherent frequencies to average.")] = 5,
    nperseg: Annotated[int, typer.Option(min=2, help="Samples in a segment (Welch).")] = 256,
    noverlap: Annotated[
        int | None,
        typer.Option(min=0, help="Samples that segments share.", show_default="half"),
    ] = None,
    seed: Seed = 0,
    width: Width = 0.25,
    limit: Limit = None,
    processes: Processes = None,
    out: Out = None,
    figure: FigureFile = None,
) -> None:
    """Mean coherence of clips and their sonifications, layer by layer (figure 7).

    For each clip and layer: of the most active filter's sonification, the mean of the k most
    coherent frequencies. Beside each network stand the same network with random weights, another
    clip's sonification and white noise.
    """
    from sonibook.analysis.coherence import coherence_by_layer
    from sonibook.plots.coherence import coherence_figure

    data = open_part(dataset, split=split, folds=folds, root=data_root, pairs=options)
    encoders = open_networks(networks, width=width, seed=seed)
    with streamed(out, figure, processes=processes, limit=limit) as streaming:
        result = coherence_by_layer(
            encoders, data, k=k, nperseg=nperseg, noverlap=noverlap, seed=seed, **streaming
        )
        finish(result, out=out, figure=figure, draw=coherence_figure, show=["coherence"])
