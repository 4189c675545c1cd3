"""What the analyses share on the command line: networks, data, and where results go.

A command declares what is its own, and gets everything else opened in an `Asked`::

    @analysis("sonibook analyse coherence supervised --dataset soundscapes --limit 40")
    def coherence(asked: Asked, k: Annotated[int, typer.Option("-k", min=1)] = 5) -> None:
        asked.finish(asked.measured(coherence_by_layer, k=k), coherence_figure)
"""

from __future__ import annotations

import inspect
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from sonibook import model
from sonibook.audio import SAMPLE_RATE
from sonibook.cli import common
from sonibook.cli.common import check_classes, open_data, parse_numbers, seed_of, shown, table
from sonibook.files import atomic

if TYPE_CHECKING:
    from torch import nn

    from sonibook.analysis.networks import Network
    from sonibook.analysis.result import Result, ResultTable
    from sonibook.analysis.stream import Streaming
    from sonibook.datasets import Dataset
    from sonibook.plots.style import Picture

_FIGURES = (".png", ".svg", ".pdf")
#: More columns of means with their intervals do not fit a line.
_WITH_INTERVALS = 3

Residual = Literal["as is", "unit peak"]
Layers = Annotated[str | None, typer.Option(show_default="all")]

common.app.add_typer(common.analyse_commands, name="analyse")


def _drawable(figure: Path | None) -> Path | None:
    if figure is not None and figure.suffix.lower() not in _FIGURES:
        raise typer.BadParameter(f"choose a name that ends in {', '.join(_FIGURES)}.")
    return figure


@dataclass(frozen=True)
class Asked:
    """What the shared options of an analysis name; opened when first asked for."""

    names: Annotated[list[str], typer.Argument(metavar="NETWORK")]
    dataset: common.DataName
    split: common.Split = None
    folds: str | None = None
    options: common.DataOptions = None
    data_root: common.DataRoot = None
    seed: common.Natural = 0
    width: common.Width = 0.25
    limit: Annotated[int | None, typer.Option(min=1)] = None
    processes: Annotated[int | None, typer.Option(min=1, show_default="all cores")] = None
    out: common.JsonOut = None
    figure: Annotated[Path | None, typer.Option(dir_okay=False, callback=_drawable)] = None

    def __post_init__(self) -> None:
        if self.split is not None and self.folds is not None:
            raise typer.BadParameter("give either --folds or --split.", param_hint="--split")

    @property
    def streaming(self) -> Streaming:
        """How an analysis streams."""
        return {"parts": self._parts, "processes": self.processes, "limit": self.limit}

    @property
    def _parts(self) -> Path | None:
        """Where chunks are kept until all is written: beside `out`."""
        return None if self.out is None else self.out.with_name(f".{self.out.name}.parts")

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """Keep the chunks where the analysis is interrupted, and say so; else remove them."""
        parts = self._parts
        try:
            yield
        except KeyboardInterrupt:
            if parts is not None and parts.is_dir():
                typer.echo("What was measured is kept: run the same again to go on.", err=True)
            raise
        if parts is not None:
            shutil.rmtree(parts, ignore_errors=True)

    @cached_property
    def data(self) -> Dataset:
        """The clips to measure on: split test, unless a user says; at the networks' own rate."""
        if self.folds is not None:
            return self._open(folds=parse_numbers(self.folds, "folds"))
        # A folder has no other part.
        return self._open(split=self.split or ("all" if self.dataset == "folder" else "test"))

    def _open(self, **which: Any) -> Dataset:
        rates = {model.sample_rate_of(network.module) for network in self.networks}
        if len(rates) > 1:
            raise typer.BadParameter(
                f"they take {' and '.join(f'{rate:,}' for rate in sorted(rates))} Hz: analyse them "
                "one by one.",
                param_hint="NETWORK",
            )
        if rates - {SAMPLE_RATE}:
            which["sample_rate"] = rates.pop()
        return open_data(self.dataset, root=self.data_root, pairs=self.options, **which)

    @cached_property
    def networks(self) -> list[Network]:
        """The networks, with what their cards say of them."""
        return open_networks(self.names, width=self.width, seed=self.seed)

    @property
    def training(self) -> Dataset:
        """What probes may be fitted to: split train, or the folds that are not measured on."""
        data, tested = self.data, parse_numbers(self.folds, "folds")
        if tested is None:
            training = self._open(split="train")
        else:  # of ESC-50's five
            training = self._open(folds=[fold for fold in range(1, 6) if fold not in tested])
        ids, others = ({one.clip_id(n) for n in range(len(one))} for one in (data, training))
        if not ids.isdisjoint(others):
            raise typer.BadParameter(
                f"probes are fitted to {training.split}, which has clips of {data.split}: test on "
                "others.",
                param_hint="--split",
            )
        return training

    def measured(self, measure: Callable[..., Any], *, of: Any = None, **options: Any) -> Any:
        """An analysis of the networks, or of what stands in for them."""
        of = self.networks if of is None else of
        return measure(of, self.data, seed=self.seed, **options, **self.streaming)

    def finish(
        self, result: Result, draw: Callable[[Any], Picture], *, show: Sequence[str] = ()
    ) -> None:
        """Print the quantities to `show` and what was measured on, write and draw the result."""
        from sonibook.analysis.result import ResultTable

        if isinstance(result, ResultTable) and show:
            typer.echo(_table_of(result, show))
        typer.echo(common.told_of(**result.data.model_dump()))
        if self.out is not None:
            result.write(self.out)
            typer.echo(f"Written to {shown(self.out)}")
        if self.figure is not None:
            kind = self.figure.suffix.lower().lstrip(".")
            picture = draw(result)
            key = "Subject" if kind == "pdf" else "Description"
            with atomic(self.figure) as temporary:
                picture.figure.savefig(temporary, format=kind, dpi=150, metadata={key: picture.alt})
            typer.echo(f"Drawn to {shown(self.figure)}")


@dataclass(frozen=True)
class AskedClassifiers(Asked):
    """An analysis of what networks say: published classifiers, or linear probes."""

    probe: Annotated[bool, typer.Option("--probe")] = False
    probe_layer: common.Count = 11
    layers: Layers = None
    level: Literal["peak", "least squares"] = "peak"

    @property
    def chosen(self) -> tuple[int, ...] | None:
        """The layers, all where that is None."""
        return parse_numbers(self.layers, "layers")

    @property
    def classifiers(self) -> dict[str, nn.Module]:
        """The networks as classifiers of the data's classes."""
        from sonibook.training.probe import probed

        found: dict[str, Any] = {}
        data, training = self.data, self.training if self.probe else None
        for name, network in zip(self.names, self.networks, strict=True):
            if training is not None:
                encoder: Any = network.module
                found[network.name] = probed(
                    encoder, training, layer=self.probe_layer, seed=self.seed, progress=True
                )
            elif seed_of(name, 0) is not None:
                why = f"{name} names no classes: add --probe."
                raise typer.BadParameter(why, param_hint="NETWORK")
            else:
                found[network.name] = classifier = model.load_classifier(name)
                check_classes(name, classifier.classes, data)
        return found


def analysis(
    *lines: str,
    takes: Any = None,
    dataset: str | None = None,
    without: Sequence[str] = (),
    group: typer.Typer = common.analyse_commands,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function that takes an `Asked` and its own options.

    `lines` are examples for its help; `takes` annotates what it takes in the place of networks,
    `dataset` is its default data set, and `without` names shared options that it does not have.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        first, *rest = common.options_of(body)
        kind, own = get_args(first.annotation)[0], {one.name: one for one in rest}
        shared = {one.name: one for one in common.options_of(kind) if one.name not in without}
        if takes is not None:
            shared["names"] = shared["names"].replace(annotation=takes)
        if dataset is not None:
            shared["dataset"] = shared["dataset"].replace(default=dataset)

        @wraps(body)
        def run(**given: Any) -> None:
            if isinstance(given["names"], str):
                given["names"] = [given["names"]]
            asked = kind(**{name: given[name] for name in shared})
            with asked.resumable():
                body(asked, **{name: given[name] for name in own})

        every = [*rest, *(one for name, one in shared.items() if name not in own)]
        every = [one.replace(kind=one.KEYWORD_ONLY) for one in every]
        run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        common.command(group, *lines)(run)
        return body

    return decorate


def open_networks(names: Sequence[str], *, width: float, seed: int) -> list[Network]:
    """Networks as a user names them; a file is called by its stem, where that tells it apart."""
    from sonibook.analysis.networks import load_network

    short = Counter(Path(name).stem for name in names)
    found: dict[str, Network] = {}
    for name in names:
        title = Path(name).stem if short[Path(name).stem] == 1 else name
        if title in found:
            raise typer.BadParameter(f"{name} is named twice.", param_hint="NETWORK")
        own = seed_of(name, seed)
        file = name if own is None else None
        found[title] = load_network(file, title, width=width, seed=own or 0)
    return list(found.values())


def _table_of(result: ResultTable, quantities: Sequence[str]) -> str:
    """Means of the quantities that were measured: up to three with their intervals."""
    rows = result.select(quantity=frozenset(quantities))
    measured = [name for name in quantities if any(row.quantity == name for row in rows)]
    columns = [
        name
        for name in ("layer", "network", "condition")
        if len({getattr(row, name) for row in rows}) > 1
    ]
    if len(quantities) == 1:
        columns += ["mean", "low", "high", "clips"]
        return table(columns, [[getattr(row, name) for name in columns] for row in rows])
    with_intervals = len(measured) <= _WITH_INTERVALS
    lines: dict[tuple[object, ...], dict[str, float | str | None]] = {}
    for row in rows:
        line = lines.setdefault(tuple(getattr(row, name) for name in columns), {})
        line[row.quantity] = row.mean if row.low is None or not with_intervals else f"{row:.3f}"
    return table(
        [*columns, *measured],
        [[*key, *(line.get(name) for name in measured)] for key, line in lines.items()],
    )
