"""Makes the tables in miniature, trial by trial."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from sonibook.files import write_result
from sonibook.model.checkpoint import read_card, shipped
from sonibook.replication.benchmarks import (
    SEEDS,
    UNTRAINED,
    Benchmark,
    Pretrained,
    pretrained,
)
from sonibook.replication.paper import RECIPES, TABLES
from sonibook.replication.tables import assemble
from sonibook.replication.trials import Trial, TrialFile, probe_trials, run_trials
from sonibook.training.config import TrainConfig, load_config
from sonibook.training.loop import train
from tools.results_settings import Settings

MINI, CHECKPOINTS = Path("configs/mini"), Path("data/checkpoints")
PARTS = Path("configs/ablation")
#: Seeds of the pretrainings of table A.1, and of the random encoders beside them.
A1_SEEDS = (0, 1, 2)
#: Of those of the table that takes the contrastive recipe apart.
RECIPE_SEEDS = (20, 21)
#: Full width as this project could afford it. Adam's steps are as large for every weight, whatever
#: the width, and so move a wider layer's output further: half the rate.
WIDE = ("encoder.width=1", "optimiser.learning_rate=5.0e-4", "optimiser.precision=bfloat16")
#: Without any normalisation, as the paper trains.
PLAIN = ("encoder.norm=none", "optimiser.precision=bfloat16")


@dataclass(frozen=True)
class Network:
    """A network that is published, with `changes` as for `load_config`.

    `kept` are epochs of the first seed that are published, too, for figure 5: multiples of ten.
    """

    config: Path
    seeds: tuple[int, ...] = SEEDS[:1]
    changes: tuple[str, ...] = ()
    kept: tuple[int, ...] = ()


FORTY, FIFTY = Path("configs/esc40-supervised.yaml"), Path("configs/esc50-supervised.yaml")
CONTRASTIVE = Path("configs/esc40-contrastive.yaml")
#: What `make results RETRAIN=1` trains. The first seed's network bears the name alone.
NETWORKS = {
    "contrastive": Network(Path("configs/contrastive.yaml"), SEEDS, kept=(0, 10, 20, 50)),
    "supervised-esc40": Network(Path("configs/supervised-esc40.yaml"), SEEDS, kept=(0, 10, 20, 50)),
    "supervised": Network(FIFTY, (0,)),
    "contrastive-paper": Network(Path("configs/contrastive-paper.yaml"), SEEDS[:3]),
    "contrastive-plain": Network(Path("configs/contrastive-plain.yaml"), (10,)),
    "esc40-supervised-plain": Network(FORTY, (0,), changes=PLAIN),
    "contrastive-wide": Network(CONTRASTIVE, (0,), changes=(*WIDE, "optimiser.epochs=50")),
    "esc40-supervised-wide": Network(FORTY, (0,), changes=(*WIDE, "optimiser.epochs=70")),
}
#: The paper's rows of table A.1, by the stem of their configurations.
AUGMENTED = {
    "gain": "a1-cnn12-gain",
    "+ noise": "a1-cnn12-noise",
    "+ time mask": "a1-cnn12-mask",
    "+ random SNR (all)": "a1-cnn12-all",
    "all, tau 0.2": "a1-cnn12-tau02",
    "all, tau 0.3": "a1-cnn12-tau03",
    "all, CNN12_x2": "a1-cnn12x2-all",
}


def make(target: str, path: Path, settings: Settings) -> None:
    """Measure the trials that a table lacks, writing the file after each."""
    spec, kept = TABLES[target], TrialFile(path, settings.provenance(target))
    if target not in ("table-a1", "recipe"):  # which pretrain their own
        kept.forget({(one.label, one.seed) for one in pretrained(shipped())})

    def write() -> None:
        made = {"provenance": settings.provenance(target)}
        write_result(path, {**assemble(spec, kept), **made, **kept.content()})

    trial = None
    for trial in _trials(target, kept, settings):
        kept.add(trial)
        write()
        shown = ", ".join(f"{name} {value:.3f}" for name, value in trial.metrics.items())
        print(f"{target}: {trial.training}, {trial.network}, {trial.tested}: {shown}", flush=True)
    if trial is not None:
        return
    if not path.exists():
        print(f"{target}: nothing to measure at this profile: not measured yet.")
    elif assemble(spec, kept).items() <= kept.before.items():
        print(f"{path} is up to date.")
    else:
        write()
        print(f"{path}: what was measured before is put together anew.")


def _trials(target: str, kept: TrialFile, settings: Settings) -> Iterator[Trial]:
    if target == "table-a1":
        yield from _augmentations(kept, settings)
    elif target == "recipe":
        yield from _parts_of_recipe(kept, settings)
    elif target == "esc50-folds":
        benchmark = Benchmark.of_folds("esc50", settings.root)
        _remember(benchmark, kept)
        yield from _runs(Pretrained("none", "none", 0), benchmark, FIFTY, kept, settings)
    else:
        for benchmark, stem in _benchmarks(target, settings):
            _remember(benchmark, kept)
            for training in settings.trainings:
                yield from _transfer(benchmark, stem, training, kept, settings)


def _benchmarks(target: str, settings: Settings) -> list[tuple[Benchmark, str]]:
    """Of a table of transfer: its benchmarks, each with the stem of its configurations."""
    root = settings.root
    if target == "table-a4":
        return [(Benchmark.of_folds("esc10", root), "a4-cnn12")]
    if target == "table-a6":
        return [
            (Benchmark.of_split("fsdd", root), "a6-cnn12"),
            (Benchmark.of_speakers("fsdd", root), "a6-cnn12"),
        ]
    forty = Benchmark.of_split("esc40", root, name="trained on folds 1 to 4",
                     train={"folds": [1, 2, 3, 4]}, test={"folds": [5]})  # fmt: skip
    scenes = Benchmark.of_split("soundscapes", None, name="several labels",
                      train={"split": "train", "size": 2000},
                      test={"split": "test", "size": 500})  # fmt: skip
    return [(forty, "a2-cnn12"), (scenes, "a2-multilabel-cnn12")]


def _remember(benchmark: Benchmark, kept: TrialFile) -> None:
    """Which recordings the clips of each part are cut from: intervals ask."""
    for part, recordings in benchmark.recordings().items():
        kept.parts.setdefault(part, recordings)


def _transfer(
    benchmark: Benchmark, stem: str, training: str, kept: TrialFile, settings: Settings
) -> Iterator[Trial]:
    """One training of one benchmark, from every start."""
    if training == "linear probe":
        for encoder in settings.encoders(every=True) if not stem.startswith("a2") else ():
            yield from probe_trials(encoder, benchmark, known=kept.known)
        return
    config = MINI / f"{stem}-contrastive-{'fc' if training == 'fc-only' else 'full'}.yaml"
    scratch = MINI / f"{stem}-scratch.yaml"
    if not scratch.exists():
        scratch = MINI / f"{stem}-supervised.yaml"
    for seed in settings.seeds:  # what is interrupted has every row, of fewer seeds
        for encoder in settings.encoders():
            if training == "full" and encoder.kind == "centred random":
                continue  # the row from scratch
            told = benchmark.dataset == "esc40" and encoder.kind == "supervised"
            if encoder.seed != seed or told:  # it was told these classes
                continue
            yield from _runs(encoder, benchmark, config, kept, settings)
        if training == "full":
            yield from _runs(Pretrained("none", "none", seed), benchmark, scratch, kept, settings)


def _runs(
    encoder: Pretrained, benchmark: Benchmark, config: Path, kept: TrialFile, settings: Settings
) -> Iterator[Trial]:
    fc_only = load_config(config).encoder.fc_only
    may_train = fc_only or "full" in settings.trainings
    if not may_train:  # a shipped network stands in for a run only where nothing was measured
        own = (benchmark.name, encoder.regime, "full", encoder.seed)
        there = {
            trial.tested
            for trial in kept.trials
            if (trial.question, trial.row, trial.training, trial.seed) == own
        }
        left = tuple(split for split in benchmark.splits if split.name not in there)
        benchmark = replace(benchmark, splits=left)
    yield from run_trials(
        encoder,
        benchmark,
        config,
        runs=settings.runs / "results",
        changes=() if fc_only else settings.changes,
        known=kept.known,
        may_train=may_train,
    )


def _augmentations(kept: TrialFile, settings: Settings) -> Iterator[Trial]:
    """Table A.1: the random row needs no pretraining, the others train theirs at profile full."""
    benchmark = Benchmark.of_split("esc40", settings.root, name="trained on fold 1",
                        train={"folds": [1]}, test={"folds": [5]})  # fmt: skip
    _remember(benchmark, kept)
    if "fc-only" in settings.trainings:
        for seed in A1_SEEDS:
            encoder = Pretrained(f"random:{seed}", "random", seed)
            yield from _runs(encoder, benchmark, MINI / "a1-cnn12-all-fc.yaml", kept, settings)
    if "full" not in settings.trainings:
        return
    for seed in A1_SEEDS:
        for row, stem in AUGMENTED.items():
            config = load_config(
                MINI / f"{stem}-pretrain.yaml", changes=(f"seed={seed}", *settings.changes)
            )
            encoder = _pretrained(row, config, f"{stem}-pretrain-{seed}", settings)
            for suffix in ("fc", "full"):
                own = MINI / f"{stem}-{suffix}.yaml"
                yield from _runs(encoder, benchmark, own, kept, settings)


def _parts_of_recipe(kept: TrialFile, settings: Settings) -> Iterator[Trial]:
    """The contrastive recipe part by part, judged by a probe; pretrained at profile full alone."""
    benchmark = Benchmark.of_split("esc40", settings.root, name="trained on folds 1 to 3",
                         train={"folds": [1, 2, 3]}, test={"folds": [4]})  # fmt: skip
    _remember(benchmark, kept)
    for seed, start in product(RECIPE_SEEDS, UNTRAINED):
        one = Pretrained(f"{start}:{seed}", start, seed)
        yield from probe_trials(one, benchmark, known=kept.known)
    if "full" not in settings.trainings:
        return
    there = {(trial.row, trial.seed) for trial in kept.trials}
    for (stem, row), seed in product(RECIPES.items(), RECIPE_SEEDS):
        if (row, seed) not in there:
            config = load_config(PARTS / f"{stem}.yaml", changes=(f"seed={seed}",))
            encoder = _pretrained(row, config, f"recipe-{stem}-{seed}", settings)
            yield from probe_trials(encoder, benchmark, known=kept.known)


def _pretrained(row: str, config: TrainConfig, run: str, settings: Settings) -> Pretrained:
    """Pretrain an encoder for a row of its own."""
    out = settings.runs / "results" / run
    train(config, out=out, data_root=settings.root)
    path = (out / "encoder.safetensors").as_posix()
    return Pretrained(path, row, config.seed, float(read_card(path)["width"]))


def retrain(settings: Settings) -> None:
    """Train the networks from nothing and publish them, instead of the ones that are there."""
    for name, network in NETWORKS.items():
        for seed in network.seeds:
            first = seed == network.seeds[0]
            kept = network.kept if first else ()
            changes = (f"seed={seed}", *(["keep_every=10"] if kept else []), *network.changes)
            own = name if first else f"{name}-{seed}"
            out = settings.runs / own
            train(load_config(network.config, changes=changes), out=out, data_root=settings.root)
            CHECKPOINTS.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(out / "encoder.safetensors", CHECKPOINTS / f"{own}.safetensors")
            for epoch in kept:
                one = CHECKPOINTS / "kept" / own / f"epoch-{epoch:04d}.safetensors"
                one.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(out / "kept" / one.name, one)
            print(f"{own}: published.")
