"""The pipeline: which networks it takes, what a trial is, and that nothing is measured twice."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sonibook import open_dataset
from sonibook.analysis.activations import TopClipsResult
from sonibook.analysis.evolution import EvolutionResult
from sonibook.audio import write_wav
from sonibook.metrics.similarity import mean_top_coherence
from sonibook.model.checkpoint import (
    kept_checkpoints,
    load_classifier,
    read_card,
    save_checkpoint,
    shipped,
)
from sonibook.model.encoder import CNN12
from sonibook.model.stack import blocks_of
from sonibook.replication import trials as transfer
from sonibook.replication.benchmarks import (
    SEEDS,
    UNTRAINED,
    Benchmark,
    Pretrained,
    pair_sounds,
    pretrained,
)
from sonibook.replication.paper import RECIPES
from sonibook.replication.trials import TrialFile, probe_trials, run_trials
from sonibook.training.config import TrainConfig, load_config
from sonibook.training.data import predict
from sonibook.training.probe import groups_of, linear_probe, probe_features

ROOT = Path(__file__).parents[2]
ESC10 = (0, 1, 10, 11, 12, 20, 21, 38, 40, 41)
TINY = Pretrained("random:3", "random, width 0.0625", 3, 1 / 16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ESC-10, FSDD and some of ESC-40 in small: noisy tones, a pitch for each class."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)

    def sound(place: int) -> np.ndarray:
        tone = np.sin(2 * np.pi * 200 * 1.3 ** (place / 2) * np.arange(2400) / 8000)
        return 0.4 * tone + 0.1 * rng.standard_normal(2400).clip(-3, 3)

    rows = []
    for place, target in enumerate((*ESC10, 2, 3, 4, 5)):
        easy = target in ESC10
        for fold, take in product(range(1, 6 if easy else 3), "A" if easy else "ABCDE"):
            name = f"{fold}-{100 * fold + place}-{take}-{target}.wav"
            write_wav(folder / "ESC-50" / "audio" / name, sound(place))
            rows.append((name, fold, target, f"class{target}", easy, 0, take))
    meta = folder / "ESC-50" / "meta" / "esc50.csv"
    meta.parent.mkdir()
    with meta.open("w", newline="", encoding="utf-8") as file:
        names = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
        csv.writer(file).writerows([names, *rows])
    for digit in range(10):
        for speaker in ("ada", "bo"):
            name = f"{digit}_{speaker}_{6 - digit % 2}.wav"
            write_wav(folder / "FSDD" / "recordings" / name, sound(digit))
    return folder


def published(folder: Path, name: str, **config) -> None:
    card = {"name": name, "config": config} if config else {"name": name}
    save_checkpoint(folder / f"{name}.safetensors", CNN12(width=1 / 16, seed=0), card)


def test_pairs_are_heard_as_they_were_measured(data_root: Path) -> None:
    found = TopClipsResult.read(ROOT / "data" / "results" / "figures-2-3.json")
    pairs = [one for one in found.pairs if one.network == "contrastive" and one.layer in (2, 8)]
    data = open_dataset("esc10", root=data_root)
    whole = pair_sounds(pairs, found.networks, data, seconds=5.0)
    short = pair_sounds(pairs, found.networks, data, seconds=0.5)
    for pair, (x, s), (piece, kept) in zip(pairs, whole.values(), short.values(), strict=True):
        both = (torch.from_numpy(y)[None].double() for y in (x, s))
        assert float(mean_top_coherence(*both)[0]) == pytest.approx(pair.coherence, abs=1e-4)
        assert np.abs(kept).max() == np.abs(s).max()
        start = np.correlate(s, kept, "valid").argmax()
        assert np.array_equal(piece, x[start : start + 4000])
    others = dict.fromkeys(found.networks, "of another network")
    assert pair_sounds(pairs, others, data) == {}


def test_networks_are_chosen_by_what_their_cards_say(tmp_path: Path) -> None:
    forty, plain = {"name": "esc40"}, {"norm": "none", "start": None}
    weight = {"norm": "weight"}
    published(tmp_path, "b", objective="nt_xent", seed=1, data=forty, encoder=weight)
    published(tmp_path, "a", objective="nt_xent", seed=0, data=forty, encoder=plain)
    published(tmp_path, "c", objective="cross_entropy", seed=0, data=forty, encoder=weight)
    # Told the classes of ESC-10; fine-tuned from another; no word of how it was made.
    published(tmp_path, "d", objective="cross_entropy", seed=0, data={"name": "esc50"},
              encoder=weight)  # fmt: skip
    published(tmp_path, "e", objective="cross_entropy", seed=0, data=forty,
              encoder={"norm": "none", "start": "a"})  # fmt: skip
    published(tmp_path, "f")
    found = pretrained({path.stem: path for path in tmp_path.iterdir()})
    random, centred = (
        [f"{kind}:{seed}" for seed in (0, 1, 2, *range(31, 38))] for kind in UNTRAINED
    )
    small = [f"random:{seed}" for seed in (0, 1, 2)]  # beside the networks of that width
    assert [one.name for one in found] == [*random, *small, *centred, "c", "a", "b"]
    assert [one.regime for one in found[-3:]] == [
        "supervised, width 0.0625",
        "contrastive, not normalised, width 0.0625",
        "contrastive, width 0.0625",
    ]
    beside = [one for one in found if one.regime == "random, width 0.0625"]
    widths = [(one.seed, one.load().width) for one in beside]
    assert widths == [(0, 1 / 16), (1, 1 / 16), (2, 1 / 16)]
    assert {one.regime for one in found if one.main} == {*UNTRAINED}
    assert [one.label for one in found] == [one.name for one in found]
    own = Pretrained("/somewhere/a1-gain-0/encoder.safetensors", "contrastive", 0)
    assert (own.label, own.main, own.trained) == ("a1-gain-0", True, True)


def test_benchmarks_leave_no_clip_out_and_test_none_twice(root: Path) -> None:
    for benchmark in (Benchmark.of_folds("esc10", root), Benchmark.of_speakers("fsdd", root)):
        whole = open_dataset(benchmark.dataset, root=root, split="all")
        tested = []
        for split in benchmark.splits:
            train, test = (
                {entry.clip_id for entry in benchmark.open(options).entries}
                for options in (split.train, split.test)
            )
            assert not train & test
            assert len(train | test) == len(whole)
            tested += sorted(test)
        assert sorted(tested) == sorted(entry.clip_id for entry in whole.entries)
    assert Benchmark.of_folds("esc10", root).recordings()["esc10, five folds: fold 2"][:3] == [
        "200",
        "201",
        "202",
    ]
    of_bo = Benchmark.of_speakers("fsdd", root).recordings()["fsdd, a speaker left out: speaker bo"]
    assert set(of_bo) == {"speaker bo"}
    assert len(Benchmark.of_split("fsdd", root).splits) == 1


def test_a_probes_trials_are_those_of_the_probe(root: Path) -> None:
    benchmark = Benchmark.of_folds("esc10", root)
    trials = list(probe_trials(TINY, benchmark, known=()))
    assert [trial.tested for trial in trials] == [f"fold {fold}" for fold in range(1, 6)]
    network = CNN12(width=1 / 16, seed=3).eval()
    training = open_dataset("esc10", root=root, folds=(1, 3, 4, 5))
    features, labels = probe_features(network, training)
    asked, truth = probe_features(network, open_dataset("esc10", root=root, folds=(2,)))
    probe = linear_probe(features, labels, asked, groups=groups_of(training), seed=3)
    right = "".join("1" if one else "0" for one in probe.predicted == truth)
    assert trials[1].right == right
    assert trials[1].metrics["accuracy"] == right.count("1") / 10
    assert trials[1].settings == {"strength": probe.strength}
    known = [trial.key for trial in trials]
    assert len(set(known)) == 5
    assert not list(probe_trials(TINY, benchmark, known=known))
    (again,) = probe_trials(TINY, benchmark, known=known[:2] + known[3:])
    assert again == trials[2]
    other = replace(TINY, seed=4)
    assert not {trial.key for trial in probe_trials(other, benchmark, known=())} & set(known)


def test_a_probe_of_known_speakers_is_not_chosen_for_strangers(tmp_path: Path) -> None:
    root, rng = tmp_path, np.random.default_rng(0)
    for digit, speaker, take in product(range(10), ("ada", "bo"), (0, 5, 6)):
        tone = np.sin(2 * np.pi * 200 * 1.3**digit * np.arange(2400) / 8000)
        x = 0.4 * tone + 0.1 * rng.standard_normal(2400).clip(-3, 3)
        write_wav(root / "FSDD" / "recordings" / f"{digit}_{speaker}_{take}.wav", x)
    (own,) = probe_trials(TINY, Benchmark.of_split("fsdd", root), known=())
    network = CNN12(width=1 / 16, seed=3).eval()
    training, tested = (open_dataset("fsdd", root=root, split=one) for one in ("train", "test"))
    assert groups_of(training)
    assert groups_of(training, tested=tested) is None
    features, labels = probe_features(network, training)
    asked, truth = probe_features(network, tested)
    probe = linear_probe(features, labels, asked, groups=None, seed=3)
    assert own.settings == {"strength": probe.strength}
    assert own.right == "".join("1" if one else "0" for one in probe.predicted == truth)
    left_out = Benchmark.of_speakers("fsdd", root).splits[0]
    parts = [open_dataset("fsdd", root=root, **side) for side in (left_out.train, left_out.test)]
    assert groups_of(parts[0], tested=parts[1]) == groups_of(parts[0])


def test_a_runs_trial_is_what_the_trained_network_says(root: Path, tmp_path: Path) -> None:
    whole = Benchmark.of_folds("esc10", root)
    benchmark = replace(whole, splits=whole.splits[4:])
    config = ROOT / "configs" / "mini" / "a4-cnn12-contrastive-fc.yaml"
    few = ("optimiser.epochs=2", "optimiser.warmup_epochs=0", "optimiser.batch_size=8")
    options = {"runs": tmp_path, "changes": few}
    (trial,) = run_trials(TINY, benchmark, config, known=(), **options)
    assert (trial.row, trial.training, trial.seed, trial.tested) == (
        TINY.regime, "fc-only", 3, "fold 5",
    )  # fmt: skip
    (path,) = tmp_path.glob("a4*/encoder.safetensors")
    network = load_classifier(path)
    scores, targets = predict(
        network, open_dataset("esc10", root=root, folds=(5,)),
        least_length=network.encoder.least_length,
    )  # fmt: skip
    right = scores.argmax(axis=1) == targets.argmax(axis=1)
    assert trial.right == "".join("1" if one else "0" for one in right)
    assert 0 <= trial.metrics["mAP"] <= 1
    assert not list(run_trials(TINY, benchmark, config, known=[trial.key], **options))
    rough = {**options, "changes": (*few, "optimiser.precision=bfloat16")}
    assert not list(run_trials(TINY, benchmark, config, known=[trial.key], **rough))
    more = {**options, "changes": (*few, "optimiser.learning_rate=0.1")}
    assert not list(run_trials(TINY, benchmark, config, known=(), may_train=False, **more))


def test_a_shipped_network_that_is_the_run_is_not_trained_again(root: Path) -> None:
    parts = ('data.train={"folds": [1, 2, 3, 4]}', 'data.test={"folds": [5]}')
    config = ROOT / "configs" / "esc50-supervised.yaml"
    assert transfer._shipped_run(load_config(config, changes=parts)) == "supervised"
    for change in ("seed=1", "optimiser.epochs=10", 'data.test={"folds": [4]}'):
        assert transfer._shipped_run(load_config(config, changes=(*parts, change))) is None
    assert transfer._shipped_run(load_config(config, changes=(*parts, "threads=1"))) is not None


@pytest.mark.parametrize("name", shipped())
def test_retraining_makes_what_is_shipped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    from tools.results_tables import NETWORKS

    stem, _, seed = name.rpartition("-")
    numbered = seed.isdigit()
    network = NETWORKS[stem if numbered else name]
    seed = seed if numbered else network.seeds[0]
    assert int(seed) in network.seeds
    again = load_config(network.config, changes=(f"seed={seed}", *network.changes))
    made = TrainConfig.model_validate(read_card(name)["config"])
    assert again.what_matters() | {"name": made.name} == made.what_matters()


def test_what_is_interrupted_has_every_row_of_fewer_seeds(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    from tools import results_tables
    from tools.results_settings import Settings

    asked = []

    def record(encoder, *_) -> list[None]:
        asked.append((encoder.regime, encoder.seed))
        return []

    monkeypatch.setattr(results_tables, "_runs", record)
    settings = Settings("full", root, tmp_path, tmp_path / "runs", 1)
    fewer = Settings("full", root, tmp_path, tmp_path / "runs", 1, most=2)
    assert fewer.rank < settings.rank
    assert fewer.command("table-a4").endswith(" SEEDS=2")
    starts = ("random", "supervised", "contrastive")
    frozen = ("random", "centred random", "supervised", "contrastive")
    for training, expected in (("fc-only", frozen), ("full", (*starts, "none"))):
        benchmark = Benchmark.of_folds("esc10", root)
        kept = TrialFile(tmp_path / "table.json")
        for one, seeds in ((settings, SEEDS), (fewer, SEEDS[:2])):
            asked.clear()
            list(results_tables._transfer(benchmark, "a4-cnn12", training, kept, one))
            assert asked == [(start, seed) for seed in seeds for start in expected]


def test_the_command_makes_what_is_missing_and_says_what_is_not(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    from tools import results, results_figures
    from tools.results_settings import FEW

    monkeypatch.setattr("sonibook.training.probe.STRENGTHS", (1e-3, 1e-2))
    monkeypatch.setitem(FEW, "figure-5", 4)
    whole = Benchmark.of_folds("esc10", root)
    last = replace(whole, splits=whole.splits[4:])
    monkeypatch.setattr(Benchmark, "of_folds", lambda *_: last)

    def make(*targets: str) -> str:
        options = ("--folder", str(tmp_path), "--runs", str(tmp_path / "runs"))
        arguments = [*targets, *options, "--profile", "quick", "--data-root", str(root)]
        monkeypatch.setattr("sys.argv", ["results.py", *arguments])
        assert results.main() == 0
        return capsys.readouterr().out

    said = make("table-a4", "figure-5", "figure-6-full", "claims")
    assert "table-a4: linear probe, random:31, fold 5: accuracy" in said
    assert "figure-6-full: the networks are not there: not measured yet." in said
    made = {"table-a4.json", "figure-5.json", "claims.json"}
    assert {path.name for path in tmp_path.glob("*.json")} == made
    evolved = json.loads((tmp_path / "figure-5.json").read_text(encoding="utf-8"))
    assert list(evolved["networks"]) == [f"epoch {n}" for n in kept_checkpoints("contrastive")]
    before = (tmp_path / "table-a4.json").read_bytes()
    assert "is up to date" in make("table-a4")
    assert (tmp_path / "table-a4.json").read_bytes() == before
    assert "is up to date" in make("figure-5")
    again = EvolutionResult.read(tmp_path / "figure-5.json")
    there, _ = results_figures.FIGURES["figure-5"]
    monkeypatch.setitem(results_figures.FIGURES, "figure-5", (there, lambda *_: again))
    monkeypatch.setitem(FEW, "figure-5", 3)
    assert "is written" in make("figure-5")  # of other clips
    with pytest.raises(SystemExit):
        make("table-a9")
    assert "there is no table-a9" in capsys.readouterr().err


def test_what_is_trained_anew_is_published_with_the_epochs_that_figure_5_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    from tools import results_tables
    from tools.results_settings import Settings

    def train(config: TrainConfig, *, out: Path, data_root: Path) -> None:
        """Keeps as many epochs as a run does, without training."""
        (out / "kept").mkdir(parents=True)
        (out / "encoder.safetensors").write_text(f"{config.name} {config.seed}")
        for epoch in range(0, config.optimiser.epochs + 1, config.keep_every or 10_000):
            (out / "kept" / f"epoch-{epoch:04d}.safetensors").write_text(f"{epoch}")

    monkeypatch.setattr(results_tables, "train", train)
    monkeypatch.setattr(results_tables, "CHECKPOINTS", tmp_path / "checkpoints")
    results_tables.retrain(Settings("full", tmp_path, tmp_path, tmp_path / "runs", 1))
    published = ROOT / "data" / "checkpoints"
    found = {
        path.relative_to(tmp_path / "checkpoints")
        for path in (tmp_path / "checkpoints").rglob("*.safetensors")
    }
    assert found == {path.relative_to(published) for path in published.rglob("*.safetensors")}


@pytest.mark.filterwarnings("ignore:This processor", "ignore:esc10")  # bfloat16; short clips
def test_the_recipe_is_taken_apart_and_goes_on_where_it_stood(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tools import results_tables
    from tools.results_settings import Settings

    files = {path.stem for path in (ROOT / "configs" / "ablation").glob("*.yaml")}
    assert set(RECIPES) == files
    tiny = load_config(
        ROOT / "configs" / "ablation" / "paper.yaml",
        changes=("data.name=esc10", "encoder.width=0.0625", "data.crop_seconds=0.3",
                 "optimiser.epochs=1", "optimiser.warmup_epochs=0", "optimiser.batch_size=20"),
    )  # fmt: skip
    for stem, rate in {"paper": 1e-3, "all": 2e-3}.items():
        content = tiny.described()
        content["optimiser"]["learning_rate"] = rate
        (tmp_path / f"{stem}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    own = Benchmark.of_split("esc10", root, train={"folds": [1, 2, 3]}, test={"folds": [4]})
    named = replace(own, name="esc40, trained on folds 1 to 3")
    monkeypatch.setattr(Benchmark, "of_split", lambda *_, **__: named)
    monkeypatch.setattr(results_tables, "PARTS", tmp_path)
    monkeypatch.setattr(results_tables, "RECIPE_SEEDS", (20,))
    settings = Settings("full", root, tmp_path, tmp_path / "runs", 1)
    path = tmp_path / "recipe.json"
    for stems in (("paper",), ("paper", "all")):
        monkeypatch.setattr(results_tables, "RECIPES", {stem: RECIPES[stem] for stem in stems})
        results_tables.make("recipe", path, settings)
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = {row["row"]: row["metrics"]["accuracy"]["mean"] for row in found["rows"]}
        assert set(rows) == {"random", "centred random", *(RECIPES[stem] for stem in stems)}
        if stems == ("paper",):
            first = rows
            (run,) = (tmp_path / "runs" / "results").iterdir()
            shutil.rmtree(run)  # what was measured is not trained again
    assert [one.name for one in (tmp_path / "runs" / "results").iterdir()] == ["recipe-all-20"]
    assert {name: rows[name] for name in first} == first
    assert any(one["row"] == "all" for one in found["differences"])


def test_the_same_weights_are_centred_in_some_blocks_alone() -> None:
    from tools.results_probes import _centred

    own, centred = (blocks_of(_centred(31, blocks)) for blocks in ((), (2, 3)))
    for layer, (before, after) in enumerate(zip(own, centred, strict=True), start=1):
        mean = before.conv.weight.mean(dim=(1, 2), keepdim=True)
        shift = mean if layer in (2, 3) else torch.zeros_like(mean)
        torch.testing.assert_close(after.conv.weight, before.conv.weight - shift)


def test_an_event_is_called_what_the_classifier_puts_first() -> None:
    from tools.results_elsewhere import NAMES, TOP, _named

    data = open_dataset("soundscapes", split="test", size=12, duration=2.0, events=(1, 1))
    network = load_classifier("supervised")
    places = []
    for clip in data:
        name = NAMES.get(data.classes[clip.labels[0]])
        if name is not None:
            said = network(torch.from_numpy(clip.waveform)[None, None])[0]
            places.append(int((said > said[network.classes.index(name)]).sum()))
    assert set(NAMES.values()) <= set(network.classes)
    assert set(NAMES) <= set(data.classes)
    found = _named(data, NAMES)
    assert found["all"]["clips"] == len(places) > 5
    assert found["all"]["first"] == pytest.approx(np.mean([place == 0 for place in places]))
    assert found["all"][f"first {TOP}"] == pytest.approx(np.mean([p < TOP for p in places]))
    assert sum(one["clips"] for one in found["classes"].values()) == len(places)


def test_a_file_is_replaced_by_more_networks_and_kept_from_fewer():
    from tools.results_settings import Settings, rank_of

    def rank(profile: str, seeds: int | None = None) -> tuple[int, int]:
        return rank_of({"profile": profile, "seeds": seeds})

    order = [rank("quick"), rank("full", 1), rank("full", 2), rank("frozen"), rank("full")]
    assert order == sorted(set(order))
    settings = Settings("full", Path(), Path(), Path(), 1, most=2)
    assert settings.rank == rank("full", 2)
    assert settings.provenance("figure-7")["seeds"] == 2
    assert "seeds" not in replace(settings, most=None).provenance("figure-7")
