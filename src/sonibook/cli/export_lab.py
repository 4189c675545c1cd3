"""``sonibook export-lab``: networks and clips for the lab in the page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonibook.cli.common import examples, shown, table

if TYPE_CHECKING:
    from sonibook.widgets.lab import LabClip, LabNetwork

EXPORT_LAB_EXAMPLES = examples(
    "sonibook export-lab --out build/lab",
    "sonibook export-lab runs/mine/encoder.safetensors random --out build/lab --data-root data",
)

#: The network that the lab opens with, as the book does.
_FIRST = "supervised"
_RANDOM = "random"
#: How names of variants end: a seed, full width, no normalisation.
_VARIANT = re.compile(r"-(\d+|wide|plain)$")
#: Of the test scenes of seed 0: sounds that overlap, sounds apart, and one in a silent clip.
_SCENES = (3, 27, 16, 19, 24, 2)


def export_lab(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", file_okay=False)],
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CHECKPOINT]...",
            help="Shipped names, .safetensors files, or 'random' for an untrained encoder; by "
            "default all that are shipped (without variants, such as other seeds), and random.",
        ),
    ] = None,
    width: Annotated[float, typer.Option(min=1 / 64, help="Of the random encoder.")] = 0.25,
    seed: Annotated[int, typer.Option(min=0, help="Of the random encoder.")] = 0,
    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where ESC-50 lies: a recording of each class of ESC-10 (CC BY) comes first.",
        ),
    ] = None,
) -> None:
    """Write networks and clips as the pieces that the lab in the page loads.

    Weights go out in half precision, a piece a layer. The clips are soundscapes, which sonibook
    synthesises, and recordings where a data root is given. The lab itself is part of the book:
    'make book' builds both.
    """
    from sonibook.model.checkpoint import shipped
    from sonibook.widgets.lab import export_lab as write

    ours = sorted(main_networks(shipped()), key=lambda name: name != _FIRST)
    named = checkpoints or [*ours, _RANDOM]
    named = list(dict.fromkeys(named))
    networks = [_network(name, width=width, seed=seed) for name in named]
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


def _network(name: str, *, width: float, seed: int) -> LabNetwork:
    from sonibook.model.checkpoint import load_classifier, load_encoder, read_card, shipped
    from sonibook.model.encoder import CNN12
    from sonibook.widgets.lab import LabNetwork

    if name == _RANDOM:
        task = f"never trained: random weights (He, seed {seed}), to compare with"
        card = {"task": task, "trained": False}
        return LabNetwork(_RANDOM, CNN12(width=width, seed=seed).eval(), card)
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
