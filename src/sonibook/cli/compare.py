"""``sonibook analyse``: checkpoints, sources, attributions, ways back, and what people heard."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonibook import model, plots
from sonibook.cli import common
from sonibook.cli.analysis import Asked, AskedClassifiers, Layers, Residual, analysis
from sonibook.cli.common import analyse_commands, command, parse_numbers, shown, table
from sonibook.errors import CheckpointError

if TYPE_CHECKING:
    from sonibook.analysis.evolution import EvolutionResult
    from sonibook.datasets import Dataset
    from sonibook.model.encoder import CNN12


@analysis(
    "sonibook analyse evolution runs/mine/kept/*.safetensors --dataset esc10 --figure strips.png",
    "sonibook analyse evolution runs/mine/kept/*.safetensors --dataset soundscapes --filter 8:17 "
    "--sounds heard",
    takes=Annotated[list[str], typer.Argument(metavar="CHECKPOINT")],
    without=["width"],
)
def _evolution(
    asked: Asked,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", "-f", metavar="LAYER:FILTER")
    ] = None,
    per_layer: common.Count = 1,
    sounds: Annotated[Path | None, typer.Option(metavar="FOLDER", file_okay=False)] = None,
) -> None:
    """Follow filters back through the checkpoints of a training run (section 3.4, figure 5).

    The clip is the one that activates a filter most at the last checkpoint. Every checkpoint
    sonifies it, and is compared with what came out in the end.

    Options:
        names: Checkpoints of one run, whose cards say their epochs.
        filters: Filter to follow; may be repeated. By default some of each layer are drawn.
        per_layer: How many are drawn of each layer, where none is named.
        sounds: Write what is heard as WAV files.
    """
    from sonibook.analysis.evolution import feature_evolution

    run = _open_run(asked.names)
    chosen = {"filters": _pairs(filters), "per_layer": per_layer}
    result = asked.measured(feature_evolution, of=run, **chosen)
    of_step = ["epoch", "energy", "correlation", "coherence", "cosine"]
    rows = [
        [row.layer, row.filter, row.clip.clip_id, *(getattr(step, name) for name in of_step)]
        for row in result.filters
        for step in row.steps
    ]
    typer.echo(table(["layer", "filter", "clip", *of_step], rows))
    if sounds is not None:
        _write_sounds(sounds, result, run, asked.data)
        typer.echo(f"Sounds are in {shown(sounds)}")
    asked.finish(result, plots.evolution_figure)


def _open_run(names: Sequence[str]) -> dict[int, CNN12]:
    """The networks by epoch, as their cards say."""
    run: dict[int, CNN12] = {}
    for name in names:
        epoch = model.read_card(name).get("epoch")
        if not isinstance(epoch, int):
            raise CheckpointError(f"{name}: names no epoch: give checkpoints that a run has kept.")
        if epoch in run:
            raise CheckpointError(f"{name}: there is another checkpoint of epoch {epoch}.")
        run[epoch] = model.load_encoder(name)
    return run


def _pairs(texts: Sequence[str] | None) -> list[tuple[int, int]] | None:
    pairs = []
    for text in texts or ():
        if (match := re.fullmatch(r"(\d+):(\d+)", text)) is None:
            why = f"{text!r} is not LAYER:FILTER such as 8:17."
            raise typer.BadParameter(why, param_hint="--filter")
        pairs.append((int(match[1]), int(match[2])))
    return pairs or None


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
        write_wav(own / "input.wav", x, sample_rate=result.sample_rate)
        for step, sound in zip(row.steps, heard.numpy(), strict=True):
            path = own / f"epoch-{step.epoch:04d}.wav"
            write_wav(path, sound, sample_rate=result.sample_rate)


@analysis(
    "sonibook analyse separation supervised --dataset soundscapes --limit 100",
    "sonibook analyse separation supervised --dataset soundscapes "
    "--option mixture_of=esc10 --out separation.json --figure separation.png",
    dataset="soundscapes",
    without=["folds"],
)
def _separation(asked: Asked, filters: common.Count = 4, method: str = "sonification") -> None:
    """How much of each source sonifications hold, which filters detect which event, and when.

    The data set must be one of scenes: soundscapes, or mixtures of recordings (--option
    mixture_of=esc10). Beside each network stands the same with random weights.

    Options:
        filters: Most active filters of a layer to sonify.
        method: What to make a filter's sound with: sonification, guided backpropagation, gradient
            x input or integrated gradients.
    """
    from sonibook.analysis.separation import separation
    from sonibook.analysis.sources import SOURCE_SCORES
    from sonibook.deconvnet.alternatives import METHODS

    if method not in METHODS:
        raise typer.BadParameter(f"choose one of {', '.join(METHODS)}.", param_hint="--method")
    result = asked.measured(separation, filters=filters, method=method)
    best: list[list[object]] = [
        [one.event, one.network, one.layer, one.filter, one.chosen_area, one.area, one.p]
        for one in sorted(result.detectors, key=lambda one: one.event)
    ]
    if best:
        header = ["event", "network", "layer", "filter", "area, chosen on", "area, elsewhere", "p"]
        typer.echo(table(header, best) + "\n")
    several, timed = (result.row(name).clips for name in ("sources", "lag of input"))
    typer.echo(f"{several} scenes of several sources; {timed} with a first event alone\n")
    show = [*SOURCE_SCORES, "lag of map", "lag of sound", "detection"]
    asked.finish(result, plots.separation_figure, show=show)


@analysis(
    "sonibook analyse explanations supervised --dataset esc50 --folds 5 --limit 40",
    "sonibook analyse explanations supervised --probe --dataset esc10 --folds 5 --layers 4,8,11",
    takes=Annotated[str, typer.Argument(metavar="NETWORK")],
)
def _explanations(
    asked: AskedClassifiers, steps: common.Count = 32, residual: Residual = "as is"
) -> None:
    """Put gradients through the measures of sonifications.

    Guided backpropagation, gradient x input and integrated gradients of each layer's most active
    filter, as sounds: their coherence with the clip, and what the network misses when they are
    subtracted. Needs Captum: pip install 'sonibook[explain]'.

    Options:
        names: Shipped name, .safetensors file, or with --probe 'random' or 'random:SEED'.
        steps: Of integrated gradients.
    """
    from sonibook.analysis.alternatives import compare_explanations

    wanted = asked.chosen
    ((name, of),) = asked.classifiers.items()
    result = asked.measured(
        compare_explanations,
        of=of,
        name=name,
        layers=wanted,
        steps=steps,
        level=asked.level,
        residual=residual,
    )
    show = ["coherence", "score", "drop", "difference, random phase", "p_holm, random phase"]
    asked.finish(result, plots.explanations_figure, show=show)


@analysis(
    "sonibook analyse faithfulness supervised --dataset esc50 --folds 5 --limit 40 --layers 4,8,11",
    "sonibook analyse faithfulness supervised random --probe --dataset esc10 --folds 5 "
    "--level 'least squares' --out faithful.json",
)
def _faithfulness(
    asked: AskedClassifiers, points: common.Natural = 5, steps: common.Count = 32
) -> None:
    """Measure how faithful sonifications are, as listenable maps (L-MAC) are measured.

    Average increase, drop and gain (AI, AD, AG), faithfulness (FF), input fidelity (Fid-In),
    sparseness, complexity, and the areas under insertion and deletion curves: of the sonifications
    of the most active filters, of controls at their RMS, and of gradients where Captum is there
    (pip install 'sonibook[explain]').

    Options:
        points: Steps of insertion and deletion curves; 0 for none.
        steps: Of integrated gradients.
    """
    from sonibook.analysis.faithfulness import QUANTITIES, faithfulness

    options = {"points": points or None, "steps": steps, "level": asked.level}
    result = asked.measured(faithfulness, layers=asked.chosen, of=asked.classifiers, **options)
    asked.finish(result, plots.faithfulness_figure, show=QUANTITIES)


@analysis(
    "sonibook analyse ways supervised --dataset soundscapes --limit 40",
    "sonibook analyse ways supervised --dataset esc10 --folds 5 --layers 8 --out ways.json",
)
def _ways(asked: Asked, layers: Layers = None) -> None:
    """Sonify a whole layer at once, and without switches, and compare with the paper's way.

    By coherence with the input and similarity to the sound by switches; where the clips are scenes
    with known sources, by separation, too.
    """
    from sonibook.analysis.alternatives import compare_unpoolings
    from sonibook.analysis.sources import SOURCE_SCORES

    wanted = parse_numbers(layers, "layers")
    result = compare_unpoolings(asked.networks, asked.data, layers=wanted, **asked.streaming)
    asked.finish(result, plots.unpooling_figure, show=["coherence", "similarity", *SOURCE_SCORES])


@analysis(
    "sonibook analyse stimulation supervised --dataset esc10 --folds 5 --limit 40",
    "sonibook analyse stimulation supervised random --dataset soundscapes --figure levels.png",
)
def _stimulation(asked: Asked) -> None:
    """How active a filter is on its own sonification, and without it (sections 3.2 and 4.1).

    In dB re its map's energy on the clip: on the sonification of each layer's most active filter
    and on controls at the clip's RMS, and on what is left when each is subtracted. Beside each
    network stands one with random weights.
    """
    from sonibook.analysis.controls import stimulation

    asked.finish(asked.measured(stimulation), plots.stimulation_figure, show=["heard", "left"])


@analysis(
    "sonibook analyse shifts supervised --dataset esc10 --folds 5 --limit 40",
    "sonibook analyse shifts supervised --dataset soundscapes --shift 256 --shift 8645",
)
def _shifts(
    asked: Asked,
    shift: Annotated[
        list[int] | None, typer.Option(min=1, show_default="1 to 8704, the paper's 8645 among them")
    ] = None,
) -> None:
    """Whether the sonification of a shifted clip is the shifted sonification (figure B.3).

    Cosine of the two, layer by layer, of each clip's most active filter. Multiples of a layer's
    stride are followed exactly, other shifts as far as its max-pools allow.

    Options:
        shift: How much later the clip starts, in samples; may be repeated.
    """
    from sonibook.analysis.shifts import SHIFTS, shift_law

    result = asked.measured(shift_law, shifts=shift or SHIFTS)
    asked.finish(result, plots.shifts_figure, show=["cosine"])


@command(
    analyse_commands,
    "sonibook analyse listening listening-*.json --out data/results/listening.json",
)
def _listening(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", exists=True, dir_okay=False)],
    test: Annotated[Path, typer.Option(metavar="FOLDER")] = Path("build/listening-test"),
    seed: common.Natural = 0,
    out: common.JsonOut = None,
) -> None:
    """Score the blind listening test: by task, regime and layers, over listeners.

    Files that do not count are named, each with its reason, and counted: they are of another test
    or version, damaged or changed by hand, have trials that were never offered, failed catch
    trials, or the same listener twice. Simulations are never mixed with people's answers.

    Options:
        files: What listeners saved.
        test: The test that they took: the folder with its trials.json.
        seed: Of the intervals.
    """
    from sonibook.analysis.listening import ListeningTest, score

    result, left_out = score(files, ListeningTest.read(test), seed=seed)
    for one in left_out:
        typer.echo(f"Left out: {shown(one.sentence)}", err=True)
    if result.simulation:
        typer.echo("A simulation: no person listened.\n")
    rows = [
        [row.quantity, row.regime, row.condition, row.layers or "all", f"{row:.2f}", row.clips]
        for row in result.rows
    ]
    header = ["asked", "regime", "condition", "layers", "mean and interval", "listeners"]
    typer.echo(table(header, rows))
    typer.echo(f"{result.listeners} of {len(files)} files count")
    if out is not None:
        result.write(out)
        typer.echo(f"Written to {shown(out)}")
