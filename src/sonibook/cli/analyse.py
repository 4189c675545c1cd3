"""``sonibook analyse``: what is measured layer by layer, one command each; ``sonibook atlas``."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sonibook import model, plots
from sonibook.cli.analysis import Asked, AskedClassifiers, Layers, Residual, analysis
from sonibook.cli.common import app, parse_numbers, seed_of, shown, table, told_of

if TYPE_CHECKING:
    from sonibook.analysis.networks import Network
    from sonibook.analysis.result import ResultTable


@analysis(
    "sonibook analyse activations supervised --dataset soundscapes --limit 40",
    "sonibook analyse activations supervised random --dataset esc10 -k 5 --out activations.json",
)
def _activations(asked: Asked, k: Annotated[int, typer.Option("-k", min=1)] = 3) -> None:
    """Find the clips that activate each filter most, and count dead ones (section 3.3).

    The JSON holds the top clips of every filter of every layer. Printed are, for each layer: the
    share of pairs of a clip and a filter whose map is zero, the share of filters that are live on
    no clip, and how many different clips activate some filter most; then which clip activates most
    of a layer's filters most.

    Options:
        k: Clips to keep for each filter.
    """
    from sonibook.analysis.activations import top_activations

    result = top_activations(asked.networks, asked.data, k=k, **asked.streaming)
    tops: dict[tuple[int, str], Counter[str]] = {}
    for one in result.filters:
        counts = tops.setdefault((one.layer, one.network), Counter())
        counts.update(top.clip_id for top in one.top[:1])
    most = [[*place, *counts.most_common(1)[0]] for place, counts in tops.items() if counts]
    typer.echo(table(["layer", "network", "top clip of most", "filters"], most) + "\n")
    asked.finish(result, plots.activations_figure, show=["dead maps", "dead filters", "top clips"])


@analysis(
    "sonibook analyse top-clips supervised --dataset esc10 --folds 5 --figure pairs.png",
    "sonibook analyse top-clips supervised random --dataset soundscapes --limit 100",
)
def _top_clips(asked: Asked) -> None:
    """How much the clips that activate a filter most agree in class (figures 2 and 3).

    The mean over pairs of a filter's three top clips of their classes in common, as a share of the
    classes that either has; beside it random weights, and pairs of clips drawn at random. The JSON
    holds a pair of clip and sonification of each layer, and the figure shows the first network's.
    """
    from sonibook.analysis.activations import top_clip_agreement

    result = asked.measured(top_clip_agreement)
    layers = [one.layer for one in result.pairs]
    first = next(iter(result.networks))
    asked.finish(
        result, lambda own: plots.top_clips_figure(own, first, layers=layers), show=["agreement"]
    )


@analysis(
    "sonibook analyse coherence supervised --dataset soundscapes --limit 40",
    "sonibook analyse coherence supervised random:1 --dataset esc10 --folds 5 --out coherence.json",
)
def _coherence(
    asked: Asked,
    k: Annotated[int, typer.Option("-k", min=1)] = 5,
    nperseg: Annotated[int, typer.Option(min=2)] = 256,
    noverlap: Annotated[int | None, typer.Option(min=0, show_default="half")] = None,
) -> None:
    """Mean coherence of clips and their sonifications, layer by layer (figure 7).

    For each clip and layer: of the most active filter's sonification, the mean of the k most
    coherent frequencies. Beside each network stand the same network with random weights, another
    clip's sonification and white noise.

    Options:
        k: Most coherent frequencies to average.
        nperseg: Samples in a segment (Welch).
        noverlap: Samples that segments share.
    """
    from sonibook.analysis.coherence import coherence_by_layer

    result = asked.measured(coherence_by_layer, k=k, nperseg=nperseg, noverlap=noverlap)
    asked.finish(result, plots.coherence_figure, show=["coherence"])


@analysis(
    "sonibook analyse selectivity supervised --dataset soundscapes --limit 40",
    "sonibook analyse selectivity supervised --dataset esc10 --filters 8 --figure bands.png",
)
def _selectivity(asked: Asked, filters: Annotated[int, typer.Option(min=0)] = 4) -> None:
    """Measure band selectivity and feature map activity, layer by layer (figure 1).

    Centroid, bandwidth and entropy of the spectrum of each clip's most active filter's
    sonification (and of filters drawn at random), beside those of the clips themselves and of a
    network with random weights; and the share of maps and of steps that are live.

    Options:
        filters: Filters to draw for each clip, besides the most active.
    """
    from sonibook.analysis.coherence import selectivity_by_layer

    result = asked.measured(selectivity_by_layer, filters=filters)
    show = ["centroid", "bandwidth", "entropy", "live maps", "live steps"]
    asked.finish(result, plots.selectivity_figure, show=show)


@analysis(
    "sonibook analyse layers supervised --dataset esc10 --folds 5 --out in-domain.json",
    "sonibook analyse layers supervised --dataset fsdd --beside in-domain.json --figure layers.png",
    "sonibook analyse layers random --dataset esc10 --leave-one-out",
)
def _layers(
    asked: Asked,
    leave_one_out: Annotated[bool, typer.Option("--leave-one-out")] = False,
    features: Literal["mean", "log"] = "mean",
    ridge: Annotated[bool, typer.Option("--ridge")] = False,
    trained: list[Path] | None = None,
    beside: list[Path] | None = None,
) -> None:
    """Fit a linear probe on every layer, beside random weights (figure 4).

    Probes see each layer's feature maps, summed up over time. They are fitted to split train, or
    to the folds that are not measured on.

    Options:
        leave_one_out: Measure on the whole data set: leave out each group in turn (of ESC-50 the
            fold, of FSDD the speaker), and fit the probes to the others.
        features: What probes see of each map: its mean over time, or log(1 + mean) and
            log(1 + maximum), which suits sparse maps of very different sizes.
        ridge: Fit ridge regression, too, beside logistic regression, to the same.
        trained: metrics.json of a network of some depth that was trained whole, to set beside the
            probes. May be repeated.
        beside: An earlier result to draw beside this one. May be repeated.
    """
    from sonibook.analysis.layers import layer_importances, read_trained
    from sonibook.analysis.result import ResultTable

    if leave_one_out and (asked.split or asked.folds):
        raise typer.BadParameter(
            "the whole data set is measured on: give no --split and no --folds.",
            param_hint="--leave-one-out",
        )
    if leave_one_out:
        asked = replace(asked, split="all")
    training = None if leave_one_out else asked.training
    earlier = [ResultTable.read(path, analysis="layers") for path in beside or ()]
    result = asked.measured(
        layer_importances,
        training=training,
        trained=[read_trained(path) for path in trained or ()],
        features=features,
        probes=("logistic", "ridge") if ridge else ("logistic",),
    )
    show = ["accuracy", "mAP", "above random"]
    asked.finish(result, lambda own: plots.layers_figure(*earlier, own), show=show)


@analysis(
    "sonibook analyse listeners supervised --dataset esc10 --folds 5 --out heard.json",
    "sonibook analyse listeners supervised contrastive --dataset esc10 --split all",
)
def _listeners(
    asked: Asked,
    listener: Annotated[list[str] | None, typer.Option(show_default="all that are there")] = None,
) -> None:
    """Ask independent listeners what they still hear in sonifications.

    Which event: a classifier of mel levels and SoundNet, each fitted to split train, or to the
    folds that are not measured on, or with --split all to all folds but the clip's own. Whether it
    is speech (silero-vad), which digit (pocketsphinx), which pitch (CREPE); how intelligible (STOI)
    and good (PESQ) it is as a copy of the clip, and how near to it or its nearest stem (SI-SDR).
    They need pip install 'sonibook[listeners]'; who is missing is named.

    Printed is the share of each listener's score on the clips themselves that is left in the
    sonifications of the most active filters; beside it another clip's, a sound of the same
    spectrum, white noise, random weights, and the weights that the network started from.

    Options:
        listener: Who listens; may be repeated.
    """
    from sonibook.analysis.listeners import OF_CLIPS, listen
    from sonibook.analysis.machine_listeners import LISTENERS, missing

    training = None if asked.split == "all" else asked.training
    result = asked.measured(listen, training=training, listeners=listener)
    away = [f"{name} ({missing(name)})" for name in LISTENERS if missing(name) and not listener]
    if away:
        typer.echo(f"Not there, and not asked: {'; '.join(away)}.\n")
    scores = [
        [name, *(result.row(name, condition=which).mean for which in OF_CLIPS)]
        for name in LISTENERS
        if result.select(quantity=name)
    ]
    typer.echo(table(["listener", *OF_CLIPS], scores) + "\n")
    asked.finish(
        result, plots.listeners_figure, show=[f"share of {name}" for name in LISTENERS] + ["SI-SDR"]
    )


@analysis(
    "sonibook analyse ablation supervised --dataset esc50 --folds 5 --limit 40",
    "sonibook analyse ablation supervised random --probe --dataset esc10 --folds 5",
    "sonibook analyse ablation a.safetensors b.safetensors --runs --dataset soundscapes",
)
def _ablation(
    asked: AskedClassifiers,
    residual: Residual = "as is",
    runs: Annotated[bool, typer.Option("--runs")] = False,
) -> None:
    """Subtract each layer's sonification, and controls, and ask again (figure 6).

    Accuracy, or mAP where clips have several labels, on what is left of each clip when the
    sonification of its most active filter is subtracted; beside it, under controls of the same
    RMS: the sonification by random weights, another clip's, one with random phases, white noise,
    the sonification added, and least-squares removal. Tests are paired, clip by clip.

    Options:
        runs: The networks differ in their seed alone: test over them, too.
    """
    from sonibook.analysis.ablation import ablate

    options = {"level": asked.level, "residual": residual, "are_runs": runs}
    result = asked.measured(ablate, layers=asked.chosen, of=asked.classifiers, **options)
    show = ["score", "drop", "difference", "p_holm"]
    asked.finish(result, plots.ablation_figure, show=show)


@analysis(
    "sonibook analyse sanity supervised --dataset soundscapes --limit 40",
    "sonibook analyse sanity supervised runs/shuffled/checkpoint.safetensors --dataset esc10 "
    "--folds 5 --out sanity.json --figure sanity.png",
)
def _sanity(asked: Asked, layers: Layers = None) -> None:
    """How much a sonification changes as layers forget what they learned (sanity checks).

    The first network is the one that is randomised, from the most active filter's layer down
    and layer by layer; others, such as one trained on shuffled labels, are set beside it. What
    cannot tell of learning stands there, too: the clip itself, the next most active filter, and
    random networks.
    """
    from sonibook.analysis.sanity import sanity

    (name, of), *others = ((network.name, network.module) for network in asked.networks)
    wanted = parse_numbers(layers, "layers")
    result = asked.measured(sanity, of=of, name=name, others=dict(others), layers=wanted)
    typer.echo(table(*_sanity_table(result)))
    asked.finish(result, plots.sanity_figure)


def _sanity_table(result: ResultTable) -> tuple[list[str], list[list[object]]]:
    """Each layer with itself, and with all below it, randomised; then the baselines."""
    from sonibook.analysis.sanity import BASELINES, MEASURES, randomised

    others = [name for name in result.networks if name not in result.names()]
    rows: list[list[object]] = []
    for layer in sorted({row.layer for row in result.rows if row.layer is not None}):
        named = {randomised(layer): "own layer random", randomised(1): "all layers random"}
        for condition in (*named, *BASELINES, *others):
            measured = result.select(layer=layer, condition=condition)
            means = [row.mean for row in measured if row.quantity in MEASURES]
            rows.append([layer, named.get(condition, condition), *means])
    return ["layer", "compared with", *MEASURES], rows


@analysis(
    "sonibook atlas supervised --dataset soundscapes -o size=60 --out atlas",
    "sonibook atlas supervised --dataset esc50 --folds 5 --data-root data --out atlas",
    "sonibook atlas mine.safetensors --dataset folder --data-root recordings --out atlas",
    takes=Annotated[str, typer.Argument(metavar="NETWORK")],
    without=["width", "figure"],
    group=app,
)
def _atlas(
    asked: Asked,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", file_okay=False, resolve_path=True)
    ],
    k: Annotated[int, typer.Option("-k", min=1, max=4)] = 3,
    seconds: Annotated[float | None, typer.Option(min=0.05, max=10, metavar="S")] = None,
    lab: Annotated[str, typer.Option(metavar="ADDRESS")] = "",
    loudest: Annotated[float | None, typer.Option(min=0.05, max=10, metavar="S")] = None,
) -> None:
    """Make an atlas: every filter with its top clips and their sonifications (section 3.3).

    One pass over the data finds the clips that activate each filter most; those are sonified, also
    by the same network with random weights. The folder holds a page (index.html) that needs no
    server. An earlier atlas in it is replaced when all is done. What was interrupted goes on where
    it stood when run again.

    Options:
        names: Shipped or imported name, .safetensors file, or module:function, Python code that
            makes a network.
        out: Where the atlas goes.
        k: Clips for each filter.
        seconds: How much of each sonification to keep, around the largest value of the map; by
            default 1, or what keeps the folder below 60 MB a network.
        lab: Where the page finds the lab of the book, such as ../lab.html for an atlas in a folder
            beside it: a click on a filter then opens it there.
        loudest: Take only the loudest S seconds of each clip.
        seed: Of the random weights.
    """
    from sonibook.analysis.atlas import Shortened
    from sonibook.analysis.networks import with_random_weights
    from sonibook.widgets.atlas import make_atlas

    (own,) = asked.networks
    own, random = with_random_weights([own], seed=asked.seed)
    told = {
        own.name: _facts(asked.names[0], own),
        random.name: [
            f"Random weights (He, seed {asked.seed}), never trained. The weights that {own.name} "
            "started from may be of another kind."
        ],
    }
    data = asked.data if loudest is None else Shortened(asked.data, loudest, loudest=True)
    both, how = [own, random], asked.streaming
    summary = make_atlas(both, data, out, facts=told, lab=lab, k=k, seconds=seconds, **how)
    rows = [[name, count] for name, count in summary["filters"].items()]
    typer.echo(table(["network", "filters"], rows))
    typer.echo(told_of(**summary["data"]))
    typer.echo(
        f"{summary['bytes'] / 1e6:.1f} MB, the largest file "
        f"{summary['largest_file'] / 1e6:.2f} MB, in {shown(out)}"
    )


def _facts(name: str, network: Network) -> list[str]:
    """What a network's card tells of it."""
    from sonibook.widgets.lab import LabNetwork, facts

    if not isinstance(network.module, model.CNN12) or seed_of(name, 0) is not None:
        return []
    if ":" in name and not Path(name).exists():
        return []
    return facts(LabNetwork(network.name, network.module, model.read_card(name)))
