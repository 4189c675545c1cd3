"""Networks that name classes, by what a user types: published classifiers, or linear probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sonibook.cli.analyse.options import open_networks
from sonibook.cli.inputs import ALL_FOLDS, open_data, parse_folds

if TYPE_CHECKING:
    from torch import nn

    from sonibook.datasets import Dataset

Probe = Annotated[
    bool,
    typer.Option(
        "--probe",
        help="Let a linear probe on each frozen encoder name the classes, fitted to split train "
        "or the other folds.",
    ),
]
ProbeLayer = Annotated[
    int, typer.Option(min=1, help="Layer whose mean feature maps the probe sees.")
]
Level = Annotated[
    Literal["peak", "least squares"],
    typer.Option(help="At which level sounds are subtracted: the clip's peak, or the best fit."),
]
Residual = Annotated[
    Literal["as is", "unit peak"], typer.Option(help="How the network hears what is left.")
]


def open_classifiers(names: Sequence[str], data: Dataset) -> dict[str, nn.Module]:
    """Published classifiers of the data's classes.

    Parameters
    ----------
    names : sequence of str
        Shipped names or paths.
    data : Dataset

    Returns
    -------
    dict of str to torch.nn.Module

    Raises
    ------
    CheckpointError
        As `load_classifier`, and if a network's classes are not the data's.
    typer.BadParameter
        If a network is named twice, or ``random``, which names no classes.
    """
    from sonibook.errors import CheckpointError
    from sonibook.model.checkpoint import load_classifier

    for name in names:
        if name.partition(":")[0] == "random":
            raise typer.BadParameter(f"{name} names no classes: add --probe.", param_hint="NETWORK")
    found: dict[str, nn.Module] = {}
    for title, name in zip(open_networks(names, width=1.0, seed=0), names, strict=True):
        classifier = load_classifier(name)
        if classifier.classes != data.classes:
            raise CheckpointError(
                f"{name} does not name the {len(data.classes)} classes of {data.name}: take the "
                "data set it was trained for, or add --probe."
            )
        found[title] = classifier
    return found


def open_probed(
    names: Sequence[str], training: Dataset, *, layer: int, width: float, seed: int
) -> dict[str, nn.Module]:
    """Frozen encoders, each with a linear probe fitted to what is not measured on.

    Parameters
    ----------
    names : sequence of str
        As for `open_networks`.
    training : Dataset
        See `training_part`.
    layer : int
        Whose mean feature maps the probes see.
    width, seed
        As for `open_networks`; the seed is the probe's, too.

    Returns
    -------
    dict of str to torch.nn.Module

    Raises
    ------
    CheckpointError, DatasetError, LayerError, typer.BadParameter
        As `open_networks` and `sonibook.training.probe.probed`.
    """
    from sonibook.training.probe import probed

    return {
        title: probed(encoder, training, layer=layer, seed=seed, progress=True)
        for title, encoder in open_networks(names, width=width, seed=seed).items()
    }


def training_part(
    name: str,
    *,
    split: str | None,
    folds: str | None,
    root: Path | None,
    pairs: Sequence[str] | None,
) -> Dataset:
    """What probes may be fitted to: split train, or the folds that are not measured on.

    Parameters
    ----------
    name, split, folds, root, pairs
        As for `open_part`: of the part that is measured on.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        As `sonibook.open_dataset`.
    typer.BadParameter
        If split train, or all of it, is to be measured on.
    """
    if split in ("train", "all"):
        raise typer.BadParameter(
            "probes are fitted to split train: measure on another.", param_hint="--split"
        )
    tested = parse_folds(folds)
    if tested is None:
        return open_data(name, root=root, pairs=pairs, split="train")
    others = [fold for fold in ALL_FOLDS if fold not in tested]
    return open_data(name, root=root, pairs=pairs, folds=others)
