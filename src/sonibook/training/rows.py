"""A row of a table, whole: what it starts from, and its seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sonibook.errors import ConfigError
from sonibook.metrics import runs_interval
from sonibook.model.checkpoint import load_encoder
from sonibook.results import write_result
from sonibook.training.config import TrainConfig, load_config
from sonibook.training.experiment import check_size, starting_encoder
from sonibook.training.loop import train

#: What a run publishes.
PUBLISHED = "encoder.safetensors"


def start_of(config: TrainConfig, out: str | Path) -> Path | None:
    """The checkpoint that a run starts from, where its configuration names another's.

    Parameters
    ----------
    config : TrainConfig
    out : str or Path
        The run's folder; the other run lies beside it, by its own name.

    Returns
    -------
    Path or None
        None where the run starts from a checkpoint, or from nothing.
    """
    start = config.encoder.start
    if start is None or not start.endswith(".yaml"):
        return None
    return Path(out).parent / load_config(start).name / PUBLISHED


def from_scratch(config: TrainConfig) -> TrainConfig:
    """The same run from random weights, of the size that it would start from.

    What can be known of a run before those that it waits for.

    Parameters
    ----------
    config : TrainConfig

    Returns
    -------
    TrainConfig
        `config` itself, where it starts from nothing.

    Raises
    ------
    ConfigError
        If what it starts from is of another size than it asks for, or starts from it in turn.
    CheckpointError
        If there is no such checkpoint.
    """
    return _from_scratch(config, ())


def _from_scratch(config: TrainConfig, waiting: tuple[str, ...]) -> TrainConfig:
    asked, start = config.encoder, config.encoder.start
    if start is None:
        return config
    if start in waiting:
        raise ConfigError(f"encoder.start: {start} starts from itself: name another.")
    if start.endswith(".yaml"):
        found = starting_encoder(_from_scratch(load_config(start), (*waiting, start)))
    else:
        found = load_encoder(start)
    check_size(asked, start, width=found.width, depth=found.depth)
    depth = found.depth if asked.depth is None else asked.depth
    fresh = asked.model_copy(update={"start": None, "width": found.width, "depth": depth})
    return config.model_copy(update={"encoder": fresh})


def _ready(config: TrainConfig, out: Path, data_root: str | Path | None) -> Path | None:
    """`start_of`, its run done if it was not yet."""
    start = start_of(config, out)
    if start is not None and not start.exists():
        from_scratch(config)  # what cannot fit is refused before the first run, not after it
        train_row(load_config(str(config.encoder.start)), out=start.parent, data_root=data_root)
    return start


def train_row(
    config: TrainConfig, *, out: str | Path, data_root: str | Path | None = None
) -> dict[str, Any]:
    """Run an experiment, after the one it starts from if that has not been run.

    Parameters
    ----------
    config : TrainConfig
    out : str or Path
        The run's folder.
    data_root : str or Path or None
        Where the data sets lie.

    Returns
    -------
    dict
        The card of the published checkpoint.

    Raises
    ------
    ConfigError, DatasetError, AudioError, CheckpointError
        As `train`.
    """
    start = _ready(config, Path(out), data_root)
    return train(config, out=out, data_root=data_root, start=start)


def train_seeds(
    config: TrainConfig,
    seeds: tuple[int, ...],
    *,
    out: str | Path,
    data_root: str | Path | None = None,
) -> dict[str, Any]:
    """Run an experiment with several seeds, and say how its metrics spread.

    Every run starts from the same checkpoint, where it starts from one.

    Parameters
    ----------
    config : TrainConfig
    seeds : tuple of int
        At least two, all different.
    out : str or Path
        The folder; each run gets one of its own in it, such as ``seed-0``. ``metrics.json`` has
        each metric's values, their mean and its 95 % interval over runs.
    data_root : str or Path or None
        Where the data sets lie.

    Returns
    -------
    dict
        What ``metrics.json`` holds, without its provenance.

    Raises
    ------
    ConfigError
        If there are too few seeds, or as `train`.
    """
    if len(set(seeds)) != len(seeds) or len(seeds) < 2:
        raise ConfigError(f"The seeds {list(seeds)} give no interval: name two or more, once each.")
    out = Path(out)
    start = _ready(config, out, data_root)
    cards = [
        train(
            config.model_copy(update={"seed": seed}),
            out=out / f"seed-{seed}",
            data_root=data_root,
            start=start,
        )
        for seed in seeds
    ]
    if not all(cards):
        return {}  # the main process writes
    metrics = {}
    for name in cards[0]["test"]:
        values = [card["test"].get(name) for card in cards]
        # Counts have no interval, and an infinite d' is left out of a card.
        if all(isinstance(value, float) for value in values):
            metrics[name] = {
                "mean": sum(values) / len(values),
                "interval": list(runs_interval(values)),
                "values": values,
            }
    content = {
        "name": config.name,
        "seeds": list(seeds),
        "data": cards[0]["data"],
        "test_clips": cards[0]["test_clips"],
        "metrics": metrics,
        "interval": "95 % interval of the mean over runs, Student's t",
        "config": config.described(),
    }
    write_result(out / "metrics.json", content)
    return content
