"""What a chapter of the book needs beside its subject: its clips opened, its numbers kept."""

from __future__ import annotations

import ast
import csv
import inspect
import io
import json
import subprocess
import sys
import tempfile
import textwrap
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile
import torch
from jaxtyping import Float
from torch import Tensor

from sonibook import training
from sonibook.analysis.atlas import Shortened
from sonibook.audio import excerpt
from sonibook.datasets import Dataset, open_dataset
from sonibook.datasets.packed import PackedDataset, pack
from sonibook.errors import DatasetError, ParameterError, SonibookWarning
from sonibook.files import shipped_files, write_text
from sonibook.metrics.intervals import wilson_interval

if TYPE_CHECKING:
    from sonibook.model.encoder import CNN12

_WORDS = {int: "a whole number", float: "a number", str: "text"}
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def record(
    metrics: str | Path | None, *, silent_maps: bool = True, **measured: Any
) -> dict[str, Any]:
    """Check a chapter's parameters; keep its numbers, in a file written whenever a cell has run.

    Parameters
    ----------
    metrics : str or Path, or None
        The JSON file to write, which is not there as long as a number cannot be written; None for
        none.
    silent_maps : bool
        Whether the library may warn, as it does of each silent map.
    **measured
        What to begin with, such as the chapter's parameters.

    Returns
    -------
    dict
        To put numbers into.

    Raises
    ------
    ParameterError
        If papermill passed a parameter that the chapter does not have, or one of its parameters
        has a value that it cannot take.
    """
    if not silent_maps:
        warnings.simplefilter("ignore", SonibookWarning)
    notebook = sys.modules.get("IPython")
    shell = None if notebook is None else notebook.get_ipython()
    if shell is not None:
        _check_parameters(shell.user_ns)
    if metrics is not None and shell is not None:
        path = Path(metrics)

        def write(_: object) -> None:
            path.unlink(missing_ok=True)
            write_text(path, json.dumps(measured, indent=2) + "\n")

        shell.events.register("post_run_cell", write)
    return measured


def _check_parameters(names: dict[str, Any]) -> None:
    """Hold a notebook's variables against the cell that sets them first, by which they are known.

    After it comes papermill's own cell, which sets whatever papermill was told, known or not.
    """
    defaults: dict[str, tuple[ast.expr, str]] = {}
    passed: list[str] = []
    for cell in names.get("In", []):
        try:
            body = ast.parse(cell).body
        except SyntaxError:
            continue
        lines = cell.splitlines()
        assigned = {
            node.targets[0].id: (node.value, lines[node.lineno - 1])
            for node in body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        if cell.startswith("# Parameters"):
            passed += assigned
        elif {"profile", "metrics"} <= set(assigned):
            defaults, passed = assigned, []
    for name in passed:
        if defaults and name not in defaults:
            has = ", ".join(defaults)
            raise ParameterError(f"{name}: no such parameter; this chapter has {has}.")
    for name, (node, line) in defaults.items():
        if isinstance(node, ast.Constant):
            kind = str if node.value is None else type(node.value)
            _check_value(name, names[name], kind, or_none="None" in line)


def _check_value(name: str, value: Any, kind: type[Any], *, or_none: bool) -> None:
    """Refuse a value of another kind than the default's, or one that nothing could use."""
    if name == "profile" and value not in ("smoke", "full"):
        raise ParameterError(f"profile {value!r}: choose smoke or full.")
    right = isinstance(value, (int, float) if kind is float else kind)
    if isinstance(value, bool) or (name == "seed" and right and value < 0):
        right = False
    if kind in _WORDS and not right and not (or_none and value is None):
        words = f"{_WORDS[kind]}{' or None' if or_none else ''}"
        raise ParameterError(f"{name} {value!r}: give {words}{', 0 or more' * (name == 'seed')}.")


def scratch() -> Path:
    """A folder that goes when the notebook ends."""
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="sonibook-", ignore_cleanup_errors=True))
    return Path(_FOLDERS[-1].name)


def open_clips(
    dataset: str,
    *,
    root: str | Path | None,
    split: str,
    seconds: float | None = None,
    **of_soundscapes: Any,
) -> Dataset:
    """Open a data set with options that only synthesised soundscapes take.

    Parameters
    ----------
    dataset : str
        A name that `open_dataset` knows.
    root, split
        As `open_dataset`'s.
    seconds : float >= 0.5, or None
        How long clips are: the `duration` of soundscapes; of recordings, at most the loudest
        stretch of that length. None leaves them as they are.
    **of_soundscapes
        Options of ``"soundscapes"``, such as its `seed`; other sets are opened without.

    Returns
    -------
    Dataset
    """
    if dataset != "soundscapes":
        data = open_dataset(dataset, root=root, split=split)
        return data if seconds is None else Shortened(data, seconds, loudest=True)
    if seconds is not None:
        of_soundscapes["duration"] = seconds
    return open_dataset(dataset, root=root, split=split, **of_soundscapes)


def recordings(dataset: str, *, root: str | Path | None) -> Dataset | None:
    """All of a data set, for a chapter that can do without it; None where it does not lie."""
    try:
        return open_dataset(dataset, root=root)
    except DatasetError:
        return None


def credits_of(data: Dataset, indices: Iterable[int]) -> str:
    """Where clips come from and their licences, in brackets, for a caption.

    Parameters
    ----------
    data : Dataset
    indices : iterable of int
        Of the clips; after the last one comes the first.

    Returns
    -------
    str
        Begins with a space; empty where the data set tells of none, as soundscapes do.
    """
    told = dict.fromkeys(data.credit(index % len(data)) for index in indices)
    told.pop("", None)
    return f" ({'; '.join(told)})" if told else ""


def packed_clips(
    dataset: str, folder: Path, *, root: str | Path | None, seed: int, full: bool
) -> tuple[PackedDataset, PackedDataset]:
    """Pack a data set's training and test parts, to train small networks on.

    Parameters
    ----------
    dataset : str
        A name that `open_dataset` knows; of soundscapes, clips of 2 s with one label each.
    folder : Path
        Where the pack is to be.
    root, seed
        As `open_dataset`'s; `seed` is of soundscapes.
    full : bool
        Five times as many soundscapes.
    """
    parts, factor = [], 5 if full else 1
    for split, size in (("train", 520), ("test", 260)):
        scenes: dict[str, Any] = {"task": "single-label", "duration": 2.0, "size": factor * size}
        whole = open_clips(dataset, root=root, split=split, seed=seed, **scenes)
        parts.append(pack(whole, folder, split=split, progress=False))
    return parts[0], parts[1]


def probe_shares(
    encoders: Mapping[str, CNN12], train: Dataset, test: Dataset, *, seed: int
) -> dict[str, tuple[float, float, float]]:
    """How many test clips a linear probe names correctly on each of some encoders.

    Parameters
    ----------
    encoders : mapping from str to CNN12
        In `eval` mode.
    train, test : Dataset
        What the probes are fitted to, and what they are asked about.
    seed : int
        Of the probes' cross-validation.

    Returns
    -------
    dict from str to (float, float, float)
        The share of test clips, and its 95 % interval (Wilson's), by the encoder's name.
    """
    shares = {}
    for name, encoder in encoders.items():
        features, labels = training.probe_features(encoder, train)
        test_features, test_labels = training.probe_features(encoder, test)
        probe = training.linear_probe(features, labels, test_features, seed=seed)
        shares[name] = share_of(int((probe.predicted == test_labels).sum()), len(test))
    return shares


def share_of(right: int, clips: int) -> tuple[float, float, float]:
    """The share of clips that were named correctly, with its 95 % interval (Wilson's)."""
    return (right / clips, *wilson_interval(right, clips))


def versus(one: tuple[float, float, float], other: tuple[float, float, float]) -> str:
    """In words how a share compares with another, by their intervals; see `probe_shares`."""
    if one[1] > other[2]:
        return "is clearly above"
    return "is clearly below" if one[2] < other[1] else "cannot be told apart from"


def shares_in_words(shares: Mapping[str, tuple[float, float, float]]) -> str:
    """Shares with their intervals as a picture's alternative text; see `probe_shares`."""
    return ". ".join(
        f"{name}: {value:.0%}, interval {low:.0%} to {high:.0%}"
        for name, (value, low, high) in shares.items()
    )


def two_seconds(data: Dataset, index: int, encoder: CNN12) -> Float[Tensor, " time"]:
    """The loudest two seconds of a clip, shape (time,), at unit peak.

    Parameters
    ----------
    data : Dataset
    index : int
        Of the clip; after the last one comes the first.
    encoder : CNN12
        Zeros fill up to its least input.
    """
    whole = data[index % len(data)].waveform
    least = encoder.least_length
    return torch.from_numpy(excerpt(whole, seconds=2.0, least_length=least, unit_peak=True))


def read_log(run: Path | str) -> list[dict[str, str]]:
    """The table of a training run, as text, a row an epoch.

    Parameters
    ----------
    run : Path or str
        The run's folder, or the name of a table that comes with sonibook.
    """
    path = shipped_files("results/*.csv")[run] if isinstance(run, str) else run / "log.csv"
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def kept_sounds(name: str, part: str) -> dict[str, Float[Tensor, " time"]]:
    """Sounds that come with the book, each of shape (time,), by name.

    Parameters
    ----------
    name : str
        Of the file in ``data/results``, without ``.zip``.
    part : str
        The folder in it.
    """
    with zipfile.ZipFile(shipped_files("results/*.zip")[name]) as archive:
        files = [one for one in archive.namelist() if one.startswith(f"{part}/")]
        return {
            Path(one).stem: torch.from_numpy(
                soundfile.read(io.BytesIO(archive.read(one)), dtype="float32")[0]
            )
            for one in files
        }


def results_folder(path: str | Path | None) -> Path:
    """The folder of results files that a reader names; None takes those that come with sonibook."""
    return shipped_files("results")["results"] if path is None else Path(path)


def configs() -> Path | None:
    """The folder of the book's training configurations; None outside its repository."""
    return next((path for path in (Path("../configs"), Path("configs")) if path.is_dir()), None)


def start(
    *arguments: str | Path, processes: int = 1, output: bool = False
) -> subprocess.Popen[str]:
    """Start the command ``sonibook`` beside the notebook.

    Parameters
    ----------
    *arguments
        Of the command.
    processes : int >= 1
        How many to start by ``torchrun``, together.
    output : bool
        Whether to keep what it prints.
    """
    launcher = ["torch.distributed.run", "--nproc-per-node", str(processes), "-m"]
    module = [*(launcher if processes > 1 else []), "sonibook"]
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", *module, *map(str, arguments)],
        stdout=subprocess.PIPE if output else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        text=True,
    )


def source(what: Any) -> str:
    """The source text of a function or method, without its indentation."""
    return textwrap.dedent(inspect.getsource(what))
