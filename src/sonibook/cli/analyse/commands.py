"""``sonibook analyse``: the analyses, one command each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonibook.cli.analyse.shared import (
    Asked,
    Layers,
    Level,
    Probe,
    ProbeLayer,
    Residual,
    analyse_commands,
    analysis,
    parse_layers,
)
from sonibook.cli.output import shown, table

if TYPE_CHECKING:
    from sonibook.analysis.evolution import EvolutionResult
    from sonibook.analysis.explanation_comparison import ExplanationResult
    from sonibook.analysis.sanity import SanityResult
    from sonibook.analysis.separation_result import SeparationResult
    from sonibook.analysis.ways import WaysResult
    from sonibook.datasets import Dataset
    from sonibook.model.encoder import CNN12

__all__ = ["analyse_commands"]


@analysis(
    "sonibook analyse activations supervised --dataset soundscapes --limit 40",
    "sonibook analyse activations supervised random --dataset esc10 -k 5 --out activations.json",
)
def activations(
    asked: Asked,
    k: Annotated[int, typer.Option("-k", min=1, help="Clips to keep for each filter.")] = 3,
) -> None:
    """Find the clips that activate each filter most, and count dead ones (section 3.3).

    The JSON holds the top clips of every filter of every layer. Printed are, for each layer: the
    share of pairs of a clip and a filter whose map is zero, the share of filters that are live on
    no clip, and how many different clips activate some filter most.
    """
    from sonibook.analysis.activations import top_activations
    from sonibook.plots.features import activations_figure

    result = top_activations(asked.networks, asked.data, k=k, **asked.streaming)
    asked.finish(result, activations_figure, show=["dead maps", "dead filters", "top clips"])


@analysis(
    "sonibook analyse coherence supervised --dataset soundscapes --limit 40",
    "sonibook analyse coherence supervised random:1 --dataset esc10 --folds 5 --out coherence.json",
)
def coherence(
    asked: Asked,
    k: Annotated[int, typer.Option("-k", min=1, help="Most coherent frequencies to average.")] = 5,
    nperseg: Annotated[int, typer.Option(min=2, help="Samples in a segment (Welch).")] = 256,
    noverlap: Annotated[
        int | None,
        typer.Option(min=0, help="Samples that segments share.", show_default="half"),
    ] = None,
) -> None:
    """Mean coherence of clips and their sonifications, layer by layer (figure 7).

    For each clip and layer: of the most active filter's sonification, the mean of the k most
    coherent frequencies. Beside each network stand the same network with random weights, another
    clip's sonification and white noise.
    """
    from sonibook.analysis.coherence import coherence_by_layer
    from sonibook.plots.coherence import coherence_figure

    result = coherence_by_layer(
        asked.networks,
        asked.data,
        k=k,
        nperseg=nperseg,
        noverlap=noverlap,
        seed=asked.seed,
        **asked.streaming,
    )
    asked.finish(result, coherence_figure, show=["coherence"])


@analysis(
    "sonibook analyse selectivity supervised --dataset soundscapes --limit 40",
    "sonibook analyse selectivity supervised --dataset esc10 --filters 8 --figure bands.png",
)
def selectivity(
    asked: Asked,
    filters: Annotated[
        int, typer.Option(min=0, help="Filters to draw for each clip, besides the most active.")
    ] = 4,
) -> None:
    """Measure band selectivity and feature map activity, layer by layer (figure 1).

    Centroid, bandwidth and entropy of the spectrum of each clip's most active filter's
    sonification (and of filters drawn at random), beside those of the clips themselves and of a
    network with random weights; and the share of maps and of steps that are live.
    """
    from sonibook.analysis.selectivity import selectivity_by_layer
    from sonibook.plots.features import selectivity_figure

    result = selectivity_by_layer(
        asked.networks, asked.data, filters=filters, seed=asked.seed, **asked.streaming
    )
    show = ["centroid", "bandwidth", "entropy", "live maps", "live steps"]
    asked.finish(result, selectivity_figure, show=show)


@analysis(
    "sonibook analyse layers supervised --dataset esc10 --folds 5 --out in-domain.json",
    "sonibook analyse layers supervised --dataset fsdd --beside in-domain.json --figure layers.png",
    "sonibook analyse layers random --dataset esc10 --leave-one-out",
)
def layers(
    asked: Asked,
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out",
            help="Measure on the whole data set: leave out each group in turn (of ESC-50 the "
            "fold, of FSDD the speaker), and fit the probes to the others.",
        ),
    ] = False,
    trained: Annotated[
        list[Path] | None,
        typer.Option(
            help="metrics.json of a network of some depth that was trained whole, to set beside "
            "the probes. May be repeated."
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="An earlier result to draw beside this one. May be repeated."),
    ] = None,
) -> None:
    """Fit a linear probe on every layer, beside random weights (figure 4).

    Probes see each layer's mean feature maps. They are fitted to split train, or to the folds
    that are not measured on.
    """
    from sonibook.analysis.layers import LayerResult, layer_importances, read_trained
    from sonibook.plots.features import layers_figure

    if leave_one_out and (asked.part["split"] or asked.part["folds"]):
        raise typer.BadParameter(
            "the whole data set is measured on: give no --split and no --folds.",
            param_hint="--leave-one-out",
        )
    if leave_one_out:
        asked = replace(asked, part={**asked.part, "split": "all"})
    data, training = asked.data, None if leave_one_out else asked.training
    earlier = [LayerResult.read(path) for path in beside or ()]
    runs = [read_trained(path) for path in trained or ()]
    result = layer_importances(
        asked.networks, data, training=training, trained=runs, seed=asked.seed, **asked.streaming
    )
    asked.finish(
        result, lambda own: layers_figure(*earlier, own), show=["accuracy", "above random"]
    )


@analysis(
    "sonibook analyse evolution runs/mine/kept/*.safetensors --dataset esc10 --figure strips.png",
    "sonibook analyse evolution runs/mine/kept/*.safetensors --dataset soundscapes --filter 8:17 "
    "--sounds heard",
    networks=Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT", help="Checkpoints of one run, whose cards say their epochs."
        ),
    ],
    without=["width"],
)
def evolution(
    asked: Asked,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            "-f",
            metavar="LAYER:FILTER",
            help="Filter to follow; may be repeated. By default some of each layer are drawn.",
        ),
    ] = None,
    per_layer: Annotated[
        int, typer.Option(min=1, help="How many are drawn of each layer, where none is named.")
    ] = 1,
    sounds: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", file_okay=False, help="Write what is heard as WAV files."),
    ] = None,
) -> None:
    """Follow filters back through the checkpoints of a training run (section 3.4, figure 5).

    The clip is the one that activates a filter most at the last checkpoint. Every checkpoint
    sonifies it, and is compared with what came out in the end.
    """
    from sonibook.analysis.evolution import feature_evolution
    from sonibook.plots.evolution import evolution_figure

    data, run = asked.data, _open_run(asked.names)
    result = feature_evolution(
        run, data, filters=_pairs(filters), per_layer=per_layer, seed=asked.seed, **asked.streaming
    )
    header = ["layer", "filter", "clip", "epoch", "energy"]
    typer.echo(table([*header, "correlation", "coherence", "cosine"], _evolution_rows(result)))
    if sounds is not None:
        _write_sounds(sounds, result, run, data)
        typer.echo(f"Sounds are in {shown(sounds)}")
    asked.finish(result, evolution_figure)


def _open_run(names: Sequence[str]) -> dict[int, CNN12]:
    """The networks by epoch, as their cards say."""
    from sonibook.errors import CheckpointError
    from sonibook.model.checkpoint import load_encoder, read_card

    run: dict[int, CNN12] = {}
    for name in names:
        epoch = read_card(name).get("epoch")
        if not isinstance(epoch, int):
            raise CheckpointError(
                f"{name}: its card names no epoch: give the checkpoints that a run has kept."
            )
        if epoch in run:
            raise CheckpointError(f"{name}: there is another checkpoint of epoch {epoch}.")
        run[epoch] = load_encoder(name)
    return run


def _pairs(texts: Sequence[str] | None) -> list[tuple[int, int]] | None:
    if not texts:
        return None
    pairs = []
    for text in texts:
        layer, _, index = text.partition(":")
        if not (layer.isdecimal() and index.isdecimal()):
            raise typer.BadParameter(
                f"{text!r} is not LAYER:FILTER such as 8:17.", param_hint="--filter"
            )
        pairs.append((int(layer), int(index)))
    return pairs


def _evolution_rows(result: EvolutionResult) -> list[list[object]]:
    return [
        [
            row.layer,
            row.filter,
            row.clip.clip_id,
            step.epoch,
            step.energy,
            step.correlation,
            step.coherence,
            step.cosine,
        ]
        for row in result.filters
        for step in row.steps
    ]


def _write_sounds(
    folder: Path, result: EvolutionResult, run: dict[int, CNN12], data: Dataset
) -> None:
    """For each filter a folder with the clip and every checkpoint's sonification of it."""
    from sonibook.analysis.evolution import sonify_through_training
    from sonibook.audio import write_wav

    for row in result.filters:
        own = folder / f"layer{row.layer:02d}-filter{row.filter:04d}"
        x = data[row.clip.index].waveform
        heard, _ = sonify_through_training(run, x, layer=row.layer, filter=row.filter)
        write_wav(own / "input.wav", x)
        for step, sound in zip(row.steps, heard.numpy(), strict=True):
            write_wav(own / f"epoch-{step.epoch:04d}.wav", sound)


@analysis(
    "sonibook analyse separation supervised --dataset soundscapes --limit 100",
    "sonibook analyse separation supervised --dataset soundscapes "
    "--option mixture_of=esc10 --out separation.json --figure separation.png",
    dataset="soundscapes",
    without=["folds"],
)
def separation(
    asked: Asked,
    filters: Annotated[
        int, typer.Option(min=1, help="Most active filters of a layer to sonify.")
    ] = 4,
    method: Annotated[
        str,
        typer.Option(
            help="What to make a filter's sound with: sonification, guided backpropagation, "
            "gradient x input or integrated gradients."
        ),
    ] = "sonification",
) -> None:
    """How much of each source sonifications hold, which filters detect which event, and when.

    The data set must be one of scenes: soundscapes, or mixtures of recordings (--option
    mixture_of=esc10). Beside each network stands the same with random weights.
    """
    from sonibook.analysis.separation import separation as measure
    from sonibook.deconvnet.attributions import METHODS
    from sonibook.plots.separation import separation_figure

    data = asked.data
    named = next((one for one in METHODS if one == method), None)
    if named is None:
        raise typer.BadParameter(f"choose one of {', '.join(METHODS)}.", param_hint="--method")
    result = measure(
        asked.modules, data, filters=filters, method=named, seed=asked.seed, **asked.streaming
    )
    _print_separation(result)
    asked.finish(result, separation_figure)


def _print_separation(result: SeparationResult) -> None:
    from sonibook.analysis.stems import HOLDINGS

    rows: list[list[object]] = [
        [
            row.layer,
            row.network,
            *(row.held[name].mean for name in HOLDINGS),
            row.lag["sound"].mean,
            None if row.detection is None else row.detection.area,
        ]
        for row in sorted(result.layers, key=lambda row: row.layer)
    ]
    typer.echo(table(["layer", "network", *HOLDINGS, "lag / s", "detection"], rows))
    best: list[list[object]] = [
        [one.event, one.network, one.layer, one.filter, one.chosen_area, one.area, one.p]
        for one in sorted(result.detectors, key=lambda one: one.event)
    ]
    if best:
        header = ["event", "network", "layer", "filter", "area, chosen on", "area, elsewhere", "p"]
        typer.echo("\n" + table(header, best))
    typer.echo(
        f"\n{result.several} scenes of several sources; {result.timed} with a first event alone"
    )


@analysis(
    "sonibook analyse ablation supervised --dataset esc50 --folds 5 --limit 40",
    "sonibook analyse ablation supervised random --probe --dataset esc10 --folds 5",
    "sonibook analyse ablation a.safetensors b.safetensors --runs --dataset soundscapes",
)
def ablation(
    asked: Asked,
    probe: Probe = False,
    probe_layer: ProbeLayer = 11,
    layers: Layers = None,
    level: Level = "peak",
    residual: Residual = "as is",
    runs: Annotated[
        bool,
        typer.Option(
            "--runs", help="The networks differ in their seed alone: test over them, too."
        ),
    ] = False,
) -> None:
    """Subtract each layer's sonification, and controls, and ask again (figure 6).

    Accuracy, or mAP where clips have several labels, on what is left of each clip when the
    sonification of its most active filter is subtracted; beside it, under controls of the same
    RMS: the sonification by random weights, another clip's, one with random phases, white noise,
    the sonification added, and least-squares removal. Tests are paired, clip by clip.
    """
    from sonibook.analysis.ablation import ablate
    from sonibook.plots.interventions import ablation_figure

    wanted = parse_layers(layers)
    classifiers = asked.classifiers(probe, probe_layer)
    result = ablate(
        classifiers,
        asked.data,
        layers=wanted,
        level=level,
        residual=residual,
        are_runs=runs,
        seed=asked.seed,
        **asked.streaming,
    )
    asked.finish(result, ablation_figure, show=["score", "drop", "difference", "p_holm"])


@analysis(
    "sonibook analyse sanity supervised --dataset soundscapes --limit 40",
    "sonibook analyse sanity supervised runs/shuffled/checkpoint.safetensors --dataset esc10 "
    "--folds 5 --out sanity.json --figure sanity.png",
)
def sanity(
    asked: Asked,
    layers: Layers = None,
) -> None:
    """How much a sonification changes as layers forget what they learned (sanity checks).

    The first network is the one that is randomised, from the most active filter's layer down
    and layer by layer; others, such as one trained on shuffled labels, are set beside it. What
    cannot tell of learning stands there, too: the clip itself, the next most active filter, and
    random networks.
    """
    from sonibook.analysis.sanity import sanity as measure
    from sonibook.plots.interventions import sanity_figure

    opened = asked.modules
    name, *others = opened
    result = measure(
        opened[name],
        asked.data,
        name=name,
        others={other: opened[other] for other in others},
        layers=parse_layers(layers),
        seed=asked.seed,
        **asked.streaming,
    )
    typer.echo(table(*_sanity_table(result)))
    asked.finish(result, sanity_figure)


def _sanity_table(result: SanityResult) -> tuple[list[str], list[list[object]]]:
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
    "sonibook analyse explanations supervised --dataset esc50 --folds 5 --limit 40",
    "sonibook analyse explanations supervised --probe --dataset esc10 --folds 5 --layers 4,8,11",
    networks=Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="Shipped name, .safetensors file, or with --probe 'random' or 'random:SEED'.",
        ),
    ],
)
def explanations(
    asked: Asked,
    probe: Probe = False,
    probe_layer: ProbeLayer = 11,
    layers: Layers = None,
    steps: Annotated[int, typer.Option(min=1, help="Of integrated gradients.")] = 32,
    level: Level = "peak",
    residual: Residual = "as is",
) -> None:
    """Put gradients through the measures of sonifications.

    Guided backpropagation, gradient x input and integrated gradients of each layer's most active
    filter, as sounds: their coherence with the clip, and what the network misses when they are
    subtracted. Needs Captum: pip install 'sonibook[explain]'.
    """
    from sonibook.analysis.explanation_comparison import compare_explanations
    from sonibook.plots.explanations import explanations_figure

    wanted = parse_layers(layers)
    classifiers = asked.classifiers(probe, probe_layer)
    ((name, classifier),) = classifiers.items()
    result = compare_explanations(
        classifier,
        asked.data,
        name=name,
        layers=wanted,
        steps=steps,
        level=level,
        residual=residual,
        seed=asked.seed,
        **asked.streaming,
    )
    header = ["layer", "method", "coherence", result.score, "drop", "- random phase", "p"]
    typer.echo(table(header, _explanation_rows(result)))
    asked.finish(result, explanations_figure)


def _explanation_rows(result: ExplanationResult) -> list[list[object]]:
    rows: list[list[object]] = []
    for one in result.methods:
        means = {(row.quantity, row.layer, row.condition): row.mean for row in one.ablation}
        for layer, coherence in one.coherence.items():
            rows.append(
                [
                    layer,
                    one.method,
                    coherence.mean,
                    means.get(("score", layer, "sonification")),
                    means.get(("drop", layer, "sonification")),
                    means.get(("difference", layer, "random phase")),
                    means.get(("p_holm", layer, "random phase")),
                ]
            )
    return rows


@analysis(
    "sonibook analyse ways supervised --dataset soundscapes --limit 40",
    "sonibook analyse ways supervised --dataset esc10 --folds 5 --layers 8 --out ways.json",
)
def ways(
    asked: Asked,
    layers: Layers = None,
) -> None:
    """Sonify a whole layer at once, and without switches, and compare with the paper's way.

    By coherence with the input and likeness to the paper's way; where the clips are scenes with
    known sources, by separation, too.
    """
    from sonibook.analysis.ways import ways as measure
    from sonibook.plots.ways import ways_figure

    result = measure(asked.modules, asked.data, layers=parse_layers(layers), **asked.streaming)
    typer.echo(table(*_ways_table(result)))
    asked.finish(result, ways_figure)


def _ways_table(result: WaysResult) -> tuple[list[str], list[list[object]]]:
    measures = list(result.ways[0].measures)
    rows: list[list[object]] = [
        [way.layer, way.network, way.start, way.unpooling]
        + [way.measures[name].mean for name in measures]
        for way in result.ways
    ]
    return ["layer", "network", "start", "unpooling", *measures], rows
