"""A row of a table: what it starts from, and its seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from clips import settings_of, write_tones
from scipy import stats

from sonibook.errors import ConfigError
from sonibook.model.checkpoint import load_classifier, load_encoder
from sonibook.training import rows
from sonibook.training.config import TrainConfig, load_config
from sonibook.training.rows import from_scratch, start_of, train_row, train_seeds

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
    train = rows.train

    def counted(config: TrainConfig, **options: object) -> dict:
        names.append(config.name)
        return train(config, **options)

    monkeypatch.setattr(rows, "train", counted)
    return names


# --- what a row starts from ----------------------------------------------------------------------


def test_the_run_that_a_row_starts_from_is_done_first_and_once(sounds, tmp_path, trained):
    configs, runs = tmp_path / "configs", tmp_path / "runs"
    configs.mkdir()
    written(configs, "first")
    written(configs, "second", **starting("first.yaml", depth=5))
    third = load_config(written(configs, "third", **starting("second.yaml", fc_only=True)))
    card = train_row(third, out=runs / "third", data_root=sounds)
    assert trained == ["first", "second", "third"]
    assert card["name"] == "third"
    assert sorted(path.name for path in runs.iterdir()) == ["first", "second", "third"]
    second = load_encoder(runs / "second" / "encoder.safetensors")
    found = load_classifier(runs / "third" / "encoder.safetensors").encoder
    assert found.depth == second.depth == 5
    for name, tensor in second.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name  # fc-only: frozen
    again = load_config(written(configs, "fourth", **starting("second.yaml", fc_only=True)))
    train_row(again, out=runs / "fourth", data_root=sounds)
    assert trained == ["first", "second", "third", "fourth"]


def test_start_of_is_beside_the_run_by_its_own_name(tmp_path):
    written(tmp_path, "first")
    second = load_config(written(tmp_path, "second", **starting("first.yaml")))
    published = tmp_path / "runs" / "first" / "encoder.safetensors"
    assert start_of(second, tmp_path / "runs" / "anything") == published
    for other in ({}, starting("supervised")):
        config = TrainConfig.model_validate(settings_of(**other))
        assert start_of(config, tmp_path / "runs" / "x") is None


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
    second = load_config(written(tmp_path, "second", **starting("first.yaml", **asked)))
    with pytest.raises(ConfigError, match=sentence):
        train_row(second, out=tmp_path / "runs" / "second", data_root=sounds)
    with pytest.raises(ConfigError, match=sentence):
        train_seeds(second, (0, 1), out=tmp_path / "runs" / "second", data_root=sounds)
    assert trained == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_rows_that_wait_for_each_other_are_refused(sounds, tmp_path, names):
    for name, start in zip(names, names[1:] + names[0], strict=True):
        written(tmp_path, name, **starting(f"{start}.yaml"))
    config = load_config(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"encoder\.start: .*\.yaml starts from itself: name an"):
        train_row(config, out=tmp_path / "runs" / "a", data_root=sounds)
    assert not (tmp_path / "runs").exists()


def test_from_scratch_has_the_size_of_what_it_waits_for(tmp_path):
    written(tmp_path, "first", encoder={"width": 1 / 8, "depth": 9, "norm": "batch"})
    written(tmp_path, "second", **starting("first.yaml", depth=6))
    third = load_config(written(tmp_path, "third", **starting("second.yaml", fc_only=True)))
    fresh = from_scratch(third)
    assert fresh.encoder.model_dump() == {
        "width": 1 / 8,
        "depth": 6,
        "norm": "none",
        "start": None,
        "fc_only": True,
    }
    assert fresh.model_copy(update={"encoder": third.encoder}) == third
    plain = TrainConfig.model_validate(settings_of())
    assert from_scratch(plain) is plain


# --- seeds ---------------------------------------------------------------------------------------


def test_seeds_are_runs_of_their_own_and_summed_up(sounds, tmp_path, trained):
    first = written(tmp_path, "first")
    config = load_config(written(tmp_path, "second", **starting(first.name, fc_only=True)))
    out = tmp_path / "runs" / "second"
    summary = train_seeds(config, (4, 0, 2), out=out, data_root=sounds)
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
    monkeypatch.setattr(rows, "train", lambda *_, **__: next(cards))
    config = TrainConfig.model_validate(settings_of())
    summary = train_seeds(config, (0, 1, 2), out=tmp_path)
    values = [0.31, 0.35, 0.36]
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert summary["metrics"].keys() == {"mAP"}
    assert summary["metrics"]["mAP"]["interval"] == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [(), (3,), (1, 1), (0, 1, 0)])
def test_seeds_that_give_no_interval_are_refused(sounds, tmp_path, seeds):
    config = TrainConfig.model_validate(settings_of())
    with pytest.raises(ConfigError, match=r"give no interval: name two or more, once each\.$"):
        train_seeds(config, seeds, out=tmp_path / "runs", data_root=sounds)
    assert not (tmp_path / "runs").exists()
