"""Runs as configurations name them: what each starts from, its seeds, learning rates and costs."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from clips import settings_of, tiny, write_tones
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sonibook.errors import ConfigError, SonibookWarning
from sonibook.model.checkpoint import load_classifier, load_encoder, read_card, save_checkpoint
from sonibook.model.encoder import CHANNELS, CNN12
from sonibook.training import runs
from sonibook.training.config import TrainConfig
from sonibook.training.distributed import Runtime
from sonibook.training.folder import weights_of
from sonibook.training.loop import warmup_cosine
from sonibook.training.runs import Plan, Run, load_run, plan, train_seeds

BRIEF = {"epochs": 1, "warmup_epochs": 0, "batch_size": 12}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("sounds"))


def written(folder: Path, name: str, **changes: object) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings_of(name=name, optimiser=BRIEF, **changes)), "utf-8")
    return path


def starting(start: str, **encoder: object) -> dict[str, object]:
    return {"encoder": {"norm": "none", "start": start, **encoder}}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that are trained, as they are."""
    names: list[str] = []
    train = runs.train

    def counted(config: TrainConfig, **options: object) -> dict:
        names.append(config.name)
        return train(config, **options)

    monkeypatch.setattr(runs, "train", counted)
    return names


# --- what a run starts from ----------------------------------------------------------------------


def test_the_run_that_a_run_starts_from_is_done_first_and_once(sounds, tmp_path, trained):
    configs, folder = tmp_path / "configs", tmp_path / "runs"
    configs.mkdir()
    written(configs, "first")
    written(configs, "second", **starting("first.yaml", depth=5))
    third = written(configs, "third", **starting("second.yaml", fc_only=True))
    card = load_run(third, out=folder / "third").train(data_root=sounds)
    assert trained == ["first", "second", "third"]
    assert card["name"] == "third"
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second", "third"]
    second = load_encoder(folder / "second" / "encoder.safetensors")
    found = load_classifier(folder / "third" / "encoder.safetensors").encoder
    assert found.depth == second.depth == 5
    for name, tensor in second.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name  # fc-only: frozen
    again = written(configs, "fourth", **starting("second.yaml", fc_only=True))
    load_run(again, out=folder / "fourth").train(data_root=sounds)
    assert trained == ["first", "second", "third", "fourth"]


def test_what_a_run_starts_from_is_beside_it_by_its_own_name(tmp_path):
    written(tmp_path, "first")
    second = written(tmp_path, "second", **starting("first.yaml"))
    published = tmp_path / "runs" / "first" / "encoder.safetensors"
    assert load_run(second, out=tmp_path / "runs" / "anything").start.published == published
    assert load_run(second).start.out == Path("runs", "first")
    for other in ({}, starting("supervised")):
        assert load_run(written(tmp_path, "third", **other)).start is None


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"width": 0.25}, r"encoder\.width: .*first\.yaml has the width 0\.0625, not 0\.25"),
        ({"depth": 9}, r"encoder\.depth: .*first\.yaml has 7 blocks, not 9"),
    ],
)
def test_what_cannot_fit_is_refused_before_the_first_run(
    sounds, tmp_path, trained, asked, sentence
):
    written(tmp_path, "first", encoder={"width": 1 / 16, "depth": 7})
    path = written(tmp_path, "second", **starting("first.yaml", **asked))
    second = load_run(path, out=tmp_path / "runs" / "second")
    with pytest.raises(ConfigError, match=sentence):
        second.train(data_root=sounds)
    with pytest.raises(ConfigError, match=sentence):
        train_seeds(second, (0, 1), data_root=sounds)
    assert trained == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_runs_that_wait_for_each_other_are_refused(tmp_path, names):
    for name, start in zip(names, names[1:] + names[0], strict=True):
        written(tmp_path, name, **starting(f"{start}.yaml"))
    with pytest.raises(ConfigError, match=r"encoder\.start: .*\.yaml starts from itself: name an"):
        load_run(tmp_path / "a.yaml")


def test_from_scratch_has_the_size_of_what_it_waits_for(tmp_path):
    encoder = {"width": 1 / 8, "depth": 9, "norm": "batch", "downsample": "stride"}
    written(tmp_path, "first", encoder=encoder)
    written(tmp_path, "second", **starting("first.yaml", depth=6))
    third = load_run(written(tmp_path, "third", **starting("second.yaml", fc_only=True)))
    fresh = third.from_scratch()
    assert fresh.encoder.model_dump() == {
        "width": 1 / 8,
        "depth": 6,
        "norm": "none",
        "downsample": "stride",
        "start": None,
        "fc_only": True,
    }
    assert fresh.model_copy(update={"encoder": third.config.encoder}) == third.config
    plain = load_run(written(tmp_path, "plain"))
    assert plain.from_scratch() is plain.config


# --- a start is what its configuration says -------------------------------------------------------


def chain(folder: Path, *changes: str) -> Run:
    """The second of two runs, the first of which has been made as its configuration says."""
    written(folder, "first")
    second = written(folder, "second", **starting("first.yaml", fc_only=True))
    return load_run(second, out=folder / "runs" / "second", changes=changes)


def test_a_start_that_was_trained_otherwise_is_refused_and_nothing_is_trained(
    sounds, tmp_path, trained
):
    second = chain(tmp_path)
    load_run(
        tmp_path / "first.yaml", out=second.start.out, changes=("optimiser.learning_rate=0.5",)
    ).train(data_root=sounds)
    for act in (second.train, lambda **how: train_seeds(second, (0, 1), **how)):
        with pytest.raises(ConfigError) as refusal:
            act(data_root=sounds)
        sentence = str(refusal.value)
        assert "runs/first: is not the run that second starts from" in sentence
        assert "optimiser.learning_rate is 0.5 there, not 0.001" in sentence
        assert "--retrain-start" in sentence
        assert "\n" not in sentence
    assert trained == ["first"]
    assert not second.out.exists()


def test_a_start_is_trained_anew_where_that_is_asked_for_and_the_other_run_is_kept(
    sounds, tmp_path, trained
):
    second = chain(tmp_path)
    load_run(tmp_path / "first.yaml", out=second.start.out, changes=("seed=7",)).train(
        data_root=sounds
    )
    with pytest.warns(SonibookWarning, match=r"seed is 7 there, not 3; .* is now .*first-before-1"):
        card = second.train(data_root=sounds, retrain_start=True)
    assert trained == ["first", "first", "second"]
    assert read_card(tmp_path / "runs/first-before-1/encoder.safetensors")["config"]["seed"] == 7
    assert card["start"]["config"] == read_card(second.start.published)["config"]
    assert card["start"]["config"]["seed"] == 3
    second.train(data_root=sounds, retrain_start=True)  # nothing is wrong: nothing is moved
    assert not (tmp_path / "runs" / "first-before-2").exists()


def test_the_settings_of_a_start_are_reached_through_the_chain(sounds, tmp_path, trained):
    changed = chain(tmp_path, "start.optimiser.learning_rate=0.5", "start.seed=7", "seed=8")
    assert changed.config.seed == 8
    assert (changed.start.config.seed, changed.start.config.optimiser.learning_rate) == (7, 0.5)
    card = changed.train(data_root=sounds)
    assert trained == ["first", "second"]
    assert card["start"]["config"]["seed"] == 7
    with pytest.raises(ConfigError, match=r"seed is 7 there, not 3"):
        chain(tmp_path).train(data_root=sounds)
    third = written(tmp_path, "third", **starting("second.yaml"))
    deep = load_run(third, changes=("start.start.seed=9", "start.seed=4"))
    assert (deep.config.seed, deep.start.config.seed, deep.start.start.config.seed) == (3, 4, 9)
    with pytest.raises(ConfigError, match=r"'start\.seed=1': first starts from no other config"):
        load_run(tmp_path / "first.yaml", changes=("start.seed=1",))
    with pytest.raises(ConfigError, match=r"first\.yaml: sed is not a known key"):
        chain(tmp_path, "start.sed=1")


def test_a_card_says_what_its_network_started_from(sounds, tmp_path):
    second = chain(tmp_path)
    card = second.train(data_root=sounds)
    first = read_card(second.start.published)
    assert card["start"] == {
        "checkpoint": "encoder.safetensors",
        "weights": weights_of(second.start.published),
        "config": first["config"],
    }
    assert read_card(second.published)["start"] == card["start"]
    third = written(tmp_path, "third", **starting("second.yaml"))
    last = load_run(third, out=tmp_path / "runs" / "third").train(data_root=sounds)
    assert last["start"]["start"] == card["start"]


def test_a_start_whose_own_start_has_changed_is_refused(sounds, tmp_path):
    second = chain(tmp_path)
    second.train(data_root=sounds)
    third = written(tmp_path, "third", **starting("second.yaml"))
    run = load_run(third, out=tmp_path / "runs" / "third")
    shutil.rmtree(second.start.out)
    assert run.start.mismatch() is None  # it may be gone; it must not be another
    load_run(tmp_path / "first.yaml", out=second.start.out, changes=("seed=7",)).train(
        data_root=sounds
    )
    assert run.start.mismatch() is None  # what lies there is none of this chain
    shutil.rmtree(second.start.out)
    (again := load_run(tmp_path / "first.yaml", out=second.start.out)).train(data_root=sounds)
    assert run.start.mismatch() is None  # the same weights once more
    card, encoder = read_card(again.published), load_encoder(again.published)
    with torch.no_grad():
        encoder.features.conv1.weight.mul_(2)
    save_checkpoint(again.published, encoder, card)
    with pytest.raises(ConfigError, match=r"second: .*from other weights than .*first has now"):
        run.train(data_root=sounds)


def test_a_checkpoint_of_another_origin_in_its_place_is_refused(sounds, tmp_path):
    second = chain(tmp_path)
    save_checkpoint(second.start.published, CNN12(width=1 / 16), {"name": "stranger"})
    with pytest.raises(ConfigError, match="its configuration is of another kind"):
        second.train(data_root=sounds)


def test_what_is_only_watched_makes_no_other_start(sounds, tmp_path, trained):
    second = chain(tmp_path)
    load_run(
        tmp_path / "first.yaml", out=second.start.out, changes=("keep_every=1", "threads=1")
    ).train(data_root=sounds)
    second.train(data_root=sounds)
    assert trained == ["first", "second"]


def test_a_run_does_not_go_on_from_other_weights_than_it_began_with(sounds, tmp_path):
    path = tmp_path / "start.safetensors"
    config = {"norm": "none", "start": str(path)}
    save_checkpoint(path, CNN12(width=1 / 16, seed=1), {})
    run = Run(tiny(encoder=config, optimiser=BRIEF), tmp_path / "run")
    run.train(data_root=sounds)
    run.train(data_root=sounds)
    save_checkpoint(path, CNN12(width=1 / 16, seed=2), {})
    with pytest.raises(ConfigError, match=r"run: holds a run that started from other weights than"):
        run.train(data_root=sounds)


# --- seeds ---------------------------------------------------------------------------------------


def test_seeds_are_runs_of_their_own_and_summed_up(sounds, tmp_path, trained):
    first = written(tmp_path, "first")
    path, out = (
        written(tmp_path, "second", **starting(first.name, fc_only=True)),
        tmp_path / "runs" / "second",
    )
    summary = train_seeds(load_run(path, out=out), (4, 0, 2), data_root=sounds)
    assert trained == ["first", "second", "second", "second"]
    heads, values = [], []
    start = load_encoder(tmp_path / "runs" / "first" / "encoder.safetensors")
    for seed in (4, 0, 2):
        run = json.loads((out / f"seed-{seed}" / "metrics.json").read_text())
        assert run["config"]["seed"] == seed
        values.append(run["test"]["accuracy"])
        classifier = load_classifier(out / f"seed-{seed}" / "encoder.safetensors")
        heads.append(classifier.head.weight)
        for name, tensor in start.state_dict().items():
            assert torch.equal(classifier.encoder.state_dict()[name], tensor), name
    assert not torch.equal(heads[0], heads[1])
    accuracy = summary["metrics"]["accuracy"]
    assert summary["metrics"].keys() == {"accuracy"}
    assert accuracy["values"] == values
    assert accuracy["mean"] == pytest.approx(np.mean(values))
    if len(set(values)) > 1:
        expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
        assert accuracy["interval"] == pytest.approx(expected)
    written_down = json.loads((out / "metrics.json").read_text())
    assert written_down.pop("provenance")["versions"]["torch"]
    assert written_down == summary
    assert written_down["seeds"] == [4, 0, 2]


def test_the_interval_is_students_and_a_metric_that_a_run_lacks_is_left_out(tmp_path, monkeypatch):
    # The runs' cards alone are made up here: what is summed up must not hang on luck.
    tests = [
        {"mAP": 0.31, "d_prime": 1.2, "mAP_classes": 9},
        {"mAP": 0.35, "d_prime": 1.5, "mAP_classes": 9},
        {"mAP": 0.36, "mAP_classes": 9},  # its d' was infinite
    ]
    cards = iter({"test": test, "data": "x", "test_clips": 3} for test in tests)
    monkeypatch.setattr(runs, "train", lambda *_, **__: next(cards))
    run = Run(TrainConfig.model_validate(settings_of()), tmp_path)
    summary = train_seeds(run, (0, 1, 2))
    values = [0.31, 0.35, 0.36]
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert summary["metrics"].keys() == {"mAP"}
    assert summary["metrics"]["mAP"]["interval"] == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [(), (3,), (1, 1), (0, 1, 0)])
def test_seeds_that_give_no_interval_are_refused(sounds, tmp_path, seeds):
    run = Run(TrainConfig.model_validate(settings_of()), tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"give no interval: name two or more, once each\.$"):
        train_seeds(run, seeds, data_root=sounds)
    assert not (tmp_path / "runs").exists()


# --- what it would cost, and the learning rate ----------------------------------------------------


def planned(network: CNN12, /, *, clips: int = 100, **changes: object) -> Plan:
    return plan(tiny(**changes), network, clips=clips, classes=3, runtime=Runtime())


def counted(width: float, depth: int = 11) -> int:
    """Weights and biases, layer by layer."""
    channels = [1, *(round(count * width) for count in CHANNELS[:depth])]
    layers = zip(channels, channels[1:], (7, 7, 5, 5, 5, *[3] * 6), strict=False)
    total = sum(below * above * taps + above for below, above, taps in layers)
    return total + (channels[-1] + 1) * 512 if depth == 11 else total


def test_the_papers_network_has_its_parameters():
    assert counted(1.0) == 13_757_248
    brief = {"data": {"name": "folder", "crop_seconds": 20.0}, "encoder": {"fc_only": True}}
    assert planned(CNN12(), clips=1, **brief).parameters == 13_757_248


@pytest.mark.parametrize("norm", ["none", "weight", "batch"])
@pytest.mark.parametrize("depth", [11, 4])
def test_parameters_are_those_of_what_is_published(norm, depth):
    size = planned(CNN12(width=1 / 16, norm=norm, depth=depth))
    assert size.parameters == counted(1 / 16, depth)


def test_steps_are_whole_batches_times_epochs():
    encoder = CNN12(width=1 / 16)
    size = planned(encoder, clips=103, optimiser={"batch_size": 10, "epochs": 7})
    assert (size.batches, size.steps) == (10, 70)
    assert size.hours > 0


@pytest.mark.parametrize(
    ("changes", "crops"),
    [
        ({}, 7 * 100),
        ({"objective": "nt_xent", "augment": {}}, 7 * 100 * 2),  # two views of a clip
        ({"encoder": {"fc_only": True}}, 103),  # every clip once, whatever the epochs
    ],
    ids=["supervised", "contrastive", "fc-only"],
)
def test_hours_are_those_of_all_crops(monkeypatch, changes, crops):
    clock = itertools.count()  # a second passes between two looks at it
    ticking = SimpleNamespace(perf_counter=lambda: float(next(clock)))
    monkeypatch.setattr(runs, "time", ticking)
    size = planned(
        CNN12(width=1 / 16), clips=103, optimiser={"batch_size": 10, "epochs": 7}, **changes
    )
    trial = round(20 / 0.3)  # crops of 0.3 s in a trial step of 20 s
    assert size.hours == pytest.approx(crops / trial / 3600)


@given(warmup=st.integers(0, 50), rest=st.integers(1, 500))
def test_schedule_rises_linearly_then_falls_along_a_cosine(warmup, rest):
    total = warmup + rest
    factors = [warmup_cosine(step, warmup=warmup, total=total) for step in range(total + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == 1
    np.testing.assert_allclose(factors[:warmup], np.arange(1, warmup + 1) / max(warmup, 1))
    assert all(first >= second for first, second in itertools.pairwise(factors[warmup:]))
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    # A cosine from 1 to 0 is symmetric about its middle, where it is 1/2.
    falling = np.array(factors[warmup:])
    np.testing.assert_allclose(falling + falling[::-1], 1, atol=1e-12)
    angle = np.arccos(2 * falling - 1)
    np.testing.assert_allclose(np.diff(angle), math.pi / rest, rtol=1e-4)
