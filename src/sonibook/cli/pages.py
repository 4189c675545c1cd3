"""``sonibook atlas`` and ``sonibook export-lab``: what pages show and play."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonibook.cli import common
from sonibook.cli.common import RANDOM, app, command, seed_of, shown, table

if TYPE_CHECKING:
    from sonibook.analysis.networks import Network
    from sonibook.widgets.lab import LabClip, LabNetwork


@command(
    app,
    "sonibook atlas supervised --dataset soundscapes -o size=60 --out atlas",
    "sonibook atlas supervised --dataset esc50 --folds 5 --data-root data --out atlas",
    "sonibook atlas mine.safetensors --dataset folder --data-root recordings --out atlas",
)
def atlas(
    network: Annotated[str, typer.Argument(metavar="NETWORK")],
    dataset: common.DataName,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", file_okay=False)],
    split: common.Split = None,
    folds: str | None = None,
    options: common.DataOptions = None,
    data_root: common.DataRoot = None,
    k: Annotated[int, typer.Option("-k", min=1, max=4)] = 3,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=10,
            metavar="S",
            show_default="1, or what keeps the folder below 60 MB a network",
        ),
    ] = None,
    lab: Annotated[str, typer.Option(metavar="ADDRESS")] = "",
    seed: common.Natural = 0,
    loudest: Annotated[float | None, typer.Option(min=0.05, max=10, metavar="S")] = None,
    limit: common.Limit = None,
    processes: common.Processes = None,
) -> None:
    """Make an atlas: every filter with its top clips and their sonifications (section 3.3).

    One pass over the data finds the clips that activate each filter most; those are sonified, also
    by the same network with random weights. The folder holds a page (index.html) that needs no
    server. An earlier atlas in it is replaced when all is done. What was interrupted goes on where
    it stood when run again.

    Options:
        network: Shipped or imported name, .safetensors file, or module:function, Python code that
            makes a network.
        out: Where the atlas goes.
        k: Clips for each filter.
        seconds: How much of each sonification to keep, around the largest value of the map.
        lab: Where the page finds the lab of the book, such as ../lab.html for an atlas in a folder
            beside it: a click on a filter then opens it there.
        seed: Of the random weights.
        loudest: Take only the loudest S seconds of each clip.
    """
    from sonibook.analysis.atlas import Loudest
    from sonibook.analysis.networks import with_random_weights
    from sonibook.cli.analysis import Asked, told_of
    from sonibook.widgets.atlas import make_atlas

    if dataset == "folder" and folds is None:
        split = split or "all"  # it has no other
    out = out.resolve()
    which = (split, folds, options, data_root, seed)
    asked = Asked([network], dataset, *which, limit=limit, processes=processes, out=out)
    own = asked.networks
    both = with_random_weights(own, seed=seed)
    told = {
        own[0].name: _facts(network, own[0]),
        both[1].name: [
            f"Random weights (He, seed {seed}), never trained. The weights that "
            f"{own[0].name} started from may be of another kind."
        ],
    }
    data = asked.data if loudest is None else Loudest(asked.data, loudest)
    with asked.resumable():
        summary = make_atlas(
            both, data, out, facts=told, lab=lab, k=k, seconds=seconds, **asked.streaming
        )
    rows = [[name, count] for name, count in summary["filters"].items()]
    typer.echo(table(["network", "filters"], rows))
    typer.echo(told_of(**summary["data"]))
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
def export_lab(
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
    from sonibook.model.checkpoint import shipped
    from sonibook.widgets.lab import export_lab as write

    ours = sorted(main_networks(shipped()), key=lambda name: name != _FIRST)
    named = checkpoints or [*ours, RANDOM]
    named = list(dict.fromkeys(named))
    networks = [_lab_network(name, width=width, seed=seed) for name in named]
    recorded = [] if data_root is None else _recordings(data_root)
    manifest = write(networks, [*recorded, *_clips()], out)
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
    from sonibook.model.checkpoint import load_classifier, load_encoder, read_card, shipped
    from sonibook.model.encoder import CNN12
    from sonibook.widgets.lab import LabNetwork

    if name == RANDOM:
        task = f"never trained: random weights (He, seed {seed}), to compare with"
        card = {"task": task, "trained": False}
        return LabNetwork(RANDOM, CNN12(width=width, seed=seed).eval(), card)
    card = read_card(name)
    short = name if name in shipped() else str(card.get("name") or Path(name).stem)
    load = load_classifier if card.get("classes") else load_encoder
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
