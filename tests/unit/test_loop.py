"""A run: what it leaves, what it learns, and what survives a kill."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from clips import noise, settings_of, tiny
from safetensors import safe_open
from safetensors.torch import load_file
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from sonibook.audio import write_wav
from sonibook.errors import AudioError, CheckpointError, ConfigError, SonibookWarning
from sonibook.files import atomic
from sonibook.metrics import accuracy
from sonibook.model.checkpoint import load_classifier, load_encoder, read_card
from sonibook.model.encoder import CNN12, Classifier
from sonibook.training import loop
from sonibook.training.config import TrainConfig, load_config
from sonibook.training.data import predict
from sonibook.training.distributed import Runtime
from sonibook.training.experiment import prepare
from sonibook.training.loop import train
from sonibook.training.objectives import ContrastiveNetwork

#: These sounds are short: two crops of 0.3 s do not fit into them.
pytestmark = pytest.mark.filterwarnings("ignore:.*hold less sound than two crops")

REPOSITORY = Path(__file__).parents[2]
EPOCHS, STEPS = 3, 6  # of `tiny`, and an epoch of it
KEEPING = {"keep_every": 2}
CONTRASTIVE = {
    "objective": "nt_xent",
    "contrastive": {"projection": 16},
    "augment": {"mix_back_min_snr_db": 0.0},
    "data": {"name": "folder", "crop_seconds": 0.3},
}


@pytest.fixture(scope="module")
def straight(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("straight") / "run"
    train(tiny(**KEEPING), out=out, data_root=sounds)
    return out


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_times(out: Path) -> dict[str, Any]:
    """All that a run's folder holds, but for what tells of the time it took."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix == ".safetensors":
            found |= {f"{name}/{key}": t for key, t in load_file(path).items()}
        elif path.suffix == ".csv":
            found[name] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(out)]
        elif path.suffix == ".json":
            content = json.loads(path.read_text())
            found[name] = {key: content[key] for key in content if key != "provenance"}
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def assert_same_run(first: Path, second: Path) -> None:
    expected, found = without_times(first), without_times(second)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        same = torch.equal(value, found[name]) if torch.is_tensor(value) else value == found[name]
        assert same, name


# --- what a run leaves ---------------------------------------------------------------------------


def test_a_run_leaves_all_that_belongs_to_it(straight):
    names = {path.name for path in straight.iterdir()}
    states = {"state.safetensors", "encoder.safetensors"}
    assert names == {"config.yaml", "log.csv", "kept", "metrics.json"} | states
    rows = rows_of(straight)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [int(row["epoch"]) for row in rows if row["test_accuracy"]] == [2, 3]
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)
    card = read_card(straight / "encoder.safetensors")
    assert card["classes"] == ["high", "low", "noise"]
    assert card["epochs"] == EPOCHS
    assert card["test_clips"] == 24
    assert card["chance"] == pytest.approx(1 / 3)
    config = load_config(straight / "config.yaml")
    assert config == TrainConfig.model_validate(card["config"]) == tiny(**KEEPING)


def test_the_rate_rises_and_falls_by_the_step(straight):
    rates = [float(row["learning_rate"]) for row in rows_of(straight)]
    total, warmup, top = EPOCHS * STEPS, STEPS, 2e-3
    expected = []
    for epoch in range(EPOCHS):
        step = (epoch + 1) * STEPS - 1  # the epoch's last
        falling = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        expected.append(top if step < warmup else top * falling)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_metrics_are_those_of_the_published_weights(straight, sounds):
    network = load_classifier(straight / "encoder.safetensors")
    data = prepare(tiny(), data_root=sounds).test_data
    scores, truth = predict(network, data, least_length=network.encoder.least_length)
    metrics = json.loads((straight / "metrics.json").read_text())
    card = read_card(straight / "encoder.safetensors")
    assert metrics["test"] == card["test"]
    assert metrics["test"]["accuracy"] == accuracy(scores, truth)
    assert metrics["provenance"]["versions"]["torch"]


def test_epochs_are_kept_from_before_the_first_to_the_last(straight, sounds):
    kept = sorted(path.name for path in (straight / "kept").iterdir())
    assert kept == [f"epoch-{epoch:04d}.safetensors" for epoch in (0, 2, 3)]
    networks = [load_classifier(straight / "kept" / name) for name in kept]
    untrained = prepare(tiny(), data_root=sounds).encoder.fold()
    for name, tensor in networks[0].encoder.state_dict().items():
        assert torch.equal(tensor, untrained.state_dict()[name].half().float()), name
    published = load_classifier(straight / "encoder.safetensors").state_dict()
    assert all(torch.equal(t, published[name]) for name, t in networks[-1].state_dict().items())
    weights = [network.encoder.features.conv4.weight for network in networks]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert [read_card(straight / "kept" / name)["epoch"] for name in kept] == [0, 2, 3]


def test_a_contrastive_run_is_judged_by_its_published_encoder(sounds, tmp_path):
    config = tiny(**CONTRASTIVE, optimiser={"epochs": 2, "warmup_epochs": 0, "batch_size": 8})
    card = train(config, out=tmp_path / "run", data_root=sounds)
    encoder = load_encoder(tmp_path / "run" / "encoder.safetensors")
    assert "classes" not in card
    network = ContrastiveNetwork(encoder, projection=16, seed=0).eval()
    state = load_file(tmp_path / "run" / "state.safetensors")
    head = "model/projection."
    network.projection.load_state_dict(
        {key.removeprefix(head): t for key, t in state.items() if key.startswith(head)}
    )
    whole = prepare(config, data_root=sounds)
    losses, found, rows = [], 0, 0
    for batch in whole.batches(whole.test_data, training=False).epoch(0):
        with torch.no_grad():
            z = network(batch.x).double().numpy()
        unit = z / np.linalg.norm(z, axis=1, keepdims=True)
        for i in range(len(unit)):
            partner, others = (i + 8) % 16, [k for k in range(16) if k != i]
            cosine = unit @ unit[i]
            likely = np.exp(cosine[partner] / 0.1) / np.exp(cosine[others] / 0.1).sum()
            losses.append(-np.log(likely))
            found += partner == max(others, key=lambda k: cosine[k])
            rows += 1
    assert card["test"]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert card["test"]["retrieval"] == pytest.approx(found / rows)
    assert rows == 48
    assert set(rows_of(tmp_path / "run")[-1]) >= {"test_loss", "test_retrieval"}


@pytest.mark.parametrize("fc_only", [False, True], ids=["full", "fc-only"])
def test_a_run_on_many_labels_is_judged_as_scikit_learn_judges(tmp_path, fc_only):
    scenes = {"size": 40, "duration": 0.5}
    data = {
        "name": "soundscapes",
        "crop_seconds": 0.3,
        "train": {**scenes, "split": "train"},
        "test": {**scenes, "split": "test"},
    }
    config = tiny(
        objective="binary_cross_entropy",
        data=data,
        encoder={"width": 1 / 16, "fc_only": fc_only},
        optimiser={"epochs": 1, "warmup_epochs": 0, "batch_size": 20},
    )
    card = train(config, out=tmp_path / "run")
    network = load_classifier(tmp_path / "run" / "encoder.safetensors")
    test_data = prepare(config).test_data
    scores, truth = predict(network, test_data, least_length=network.encoder.least_length)
    present = truth.any(axis=0) & ~truth.all(axis=0)
    expected = {
        "mAP": average_precision_score(truth[:, present], scores[:, present]),
        "mAUC": roc_auc_score(truth[:, present], scores[:, present]),
    }
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert found == card["test"]
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6)
    assert found["d_prime"] == pytest.approx(math.sqrt(2) * stats.norm.ppf(expected["mAUC"]))
    last = rows_of(tmp_path / "run")[-1]
    # The log is of the weights before they are rounded.
    assert float(last["test_mAP"]) == pytest.approx(found["mAP"], abs=0.02)
    assert last["test_d_prime"]


@pytest.mark.parametrize("objective", ["cross_entropy", "nt_xent"])
def test_real_recordings_from_configuration_to_metrics(data_root, tmp_path, objective):
    people = {"speakers": ["george", "theo"]}
    data = {
        "name": "fsdd",
        "crop_seconds": 0.3,
        "train": {**people, "split": "train"},
        "test": {**people, "split": "test"},
    }
    changes = CONTRASTIVE if objective == "nt_xent" else {}
    config = tiny(
        **{
            **changes,
            "data": data,
            "optimiser": {"epochs": 1, "warmup_epochs": 0, "batch_size": 64},
        }
    )
    card = train(config, out=tmp_path / "run", data_root=data_root)
    assert card["test_clips"] == 2 * 10 * 5
    assert card["data"] == "fsdd (train), tested on (test)"
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert all(math.isfinite(value) for value in found["test"].values())
    assert len(rows_of(tmp_path / "run")) == 1


@pytest.mark.parametrize(("norm", "least"), [("none", 0.5), ("weight", 0.8), ("batch", 0.8)])
def test_the_loss_falls_and_the_classes_are_learned(sounds, tmp_path, norm, least):
    config = tiny(
        augment={"mixup_alpha": None},
        encoder={"width": 1 / 16, "norm": norm},
        optimiser={"epochs": 20, "warmup_epochs": 1, "batch_size": 8, "learning_rate": 3e-3},
        evaluate_every=20,
    )
    card = train(config, out=tmp_path / "run", data_root=sounds)
    losses = [float(row["train_loss"]) for row in rows_of(tmp_path / "run")]
    assert losses[0] == pytest.approx(math.log(3), rel=0.3)
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    assert card["test"]["accuracy"] > least


def test_a_contrastive_loss_falls(sounds, tmp_path):
    config = tiny(
        **CONTRASTIVE,
        optimiser={"epochs": 12, "warmup_epochs": 1, "batch_size": 8, "learning_rate": 3e-3},
        evaluate_every=12,
    )
    train(config, out=tmp_path / "run", data_root=sounds)
    losses = [float(row["train_loss"]) for row in rows_of(tmp_path / "run")]
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(sounds, tmp_path):
    brief = {"optimiser": {"epochs": 1, "warmup_epochs": 0, "batch_size": 8}}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny(seed=seed, **brief), out=tmp_path / name, data_root=sounds)
    a, b, c = (load_file(tmp_path / name / "encoder.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["features.conv6.weight"], c["features.conv6.weight"])


@pytest.mark.parametrize("decoupled", [True, False])
def test_weights_are_decayed_and_biases_and_gains_are_not(decoupled):
    config = tiny(optimiser={"decoupled": decoupled, "weight_decay": 0.3})
    network = Classifier(CNN12(width=1 / 16, norm="weight"), ("a", "b"))
    optimiser = loop.adam(config, network)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    assert type(optimiser) is kind
    decay = {id(p): g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    for name, parameter in network.named_parameters():
        assert decay[id(parameter)] == (0.3 if name.endswith("weight") else 0.0), name


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred clips in two classes, three of which are not sounds."""
    root = tmp_path_factory.mktemp("damaged")
    for index in range(100):
        write_wav(root / "ab"[index % 2] / f"{index:03d}.wav", noise(2600, index))
    for index in (10, 12, 99):
        (root / "ab"[index % 2] / f"{index:03d}.wav").write_bytes(b"RIFF: no sound")
    return root


@pytest.mark.parametrize(
    "changes",
    [
        {"log": {"sounds_every": 1}},
        {"encoder": {"width": 1 / 16, "fc_only": True}},
        {"objective": "nt_xent", "augment": {}, "contrastive": {"projection": 16}},
    ],
    ids=["full", "fc-only", "contrastive"],
)
def test_a_run_skips_and_counts_what_cannot_be_read(damaged, tmp_path, monkeypatch, changes):
    brief = {"epochs": 1, "warmup_epochs": 0, "batch_size": 25}
    config = tiny(**{"optimiser": brief, **changes})
    with pytest.warns(SonibookWarning, match="3 training clips and 3 test clips cannot be read"):
        card = train(config, out=tmp_path / "run", data_root=damaged)
    assert card["unreadable_clips"] == {"training": 3, "test": 3}
    assert card["test_clips"] == 97
    assert math.isfinite(float(rows_of(tmp_path / "run")[0]["train_loss"]))
    if "accuracy" in card["test"]:
        assert card["test"]["clips"] == 97
    # Taken up after its last step, the run still knows of the clips that it met before.
    with pytest.warns(SonibookWarning, match="3 training clips"):
        again = train(config, out=tmp_path / "run", data_root=damaged)
    assert again["unreadable_clips"] == card["unreadable_clips"]


def test_a_run_stops_where_too_much_cannot_be_read(damaged, tmp_path):
    for path in sorted(damaged.glob("b/*"))[:5]:
        path.write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"^6 of the 100 clips of folder \(all\) cannot be read, "):
        train(tiny(), out=tmp_path / "run", data_root=damaged)
    assert not (tmp_path / "run" / "encoder.safetensors").exists()


# --- what survives -------------------------------------------------------------------------------

#: Trains, and kills itself in a step of its own, after or before the optimiser has moved.
KILLED = """
import os, signal, sys
from sonibook.training import loop
from sonibook.training.config import load_config
from sonibook.training.distributed import Runtime

config, out, root, die_at, save_every, moved = sys.argv[1:]
loop._SAVE_EVERY = int(save_every)

class Mortal(Runtime):
    steps = 0

    def step(self, optimiser):
        self.steps += 1
        if self.steps == int(die_at):
            if moved == "yes":
                optimiser.step()
            os.kill(os.getpid(), signal.SIGKILL)
        optimiser.step()

loop.train(load_config(config), out=out, data_root=root, runtime=Mortal())
"""


def position_of(out: Path) -> dict[str, Any]:
    with safe_open(out / "state.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["position"])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_within_an_epoch_ends_in_the_same_weights(straight, sounds, tmp_path, seed):
    random = np.random.default_rng(seed)
    die_at = int(random.integers(STEPS + 2, EPOCHS * STEPS)) // STEPS * STEPS + 4
    moved = "yes" if random.random() < 0.5 else "no"
    out = tmp_path / "run"
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(settings_of(**KEEPING)), "utf-8")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, config, out, sounds, str(die_at), "3", moved],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "encoder.safetensors").exists()
    position = position_of(out)
    assert position["step"] == (die_at - 1) // 3 * 3
    assert position["step"] % STEPS == 3  # in the middle of an epoch
    assert len(position["losses"]) == 3
    train(tiny(**KEEPING), out=out, data_root=sounds)
    assert_same_run(straight, out)


class Cut(BaseException):
    """Stands for the end of the process."""


def cut_before(write: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Cut
        return write(*arguments, **options)

    return counted


def test_a_run_cut_off_before_any_of_its_files_is_written_completes_them(
    sounds, tmp_path, monkeypatch
):
    brief = {"epochs": 2, "warmup_epochs": 0, "batch_size": 12}
    config = tiny(keep_every=1, evaluate_every=1, optimiser=brief)
    monkeypatch.setattr(loop, "_SAVE_EVERY", 1)
    expected = tmp_path / "straight"
    train(config, out=expected, data_root=sounds)
    cuts = 0
    while True:
        out, left = tmp_path / f"cut-{cuts}", [cuts]
        with monkeypatch.context() as patched:
            for module in ("files", "model.stack_file", "training.folder"):
                patched.setattr(f"sonibook.{module}.atomic", cut_before(atomic, left))
            try:
                train(config, out=out, data_root=sounds)
            except Cut:
                pass
            else:
                break
        train(config, out=out, data_root=sounds)
        assert_same_run(expected, out)
        cuts += 1
    # The configuration, three kept epochs, two states an epoch, the log twice, what is published.
    assert cuts >= 1 + 3 + 4 + 2 + 2


def test_a_finished_run_is_published_again(straight, sounds, tmp_path):
    out = tmp_path / "run"
    (out / "kept").mkdir(parents=True)
    for path in straight.rglob("*"):
        if path.is_file() and path.name not in ("encoder.safetensors", "metrics.json"):
            (out / path.relative_to(straight)).write_bytes(path.read_bytes())
    train(tiny(**KEEPING), out=out, data_root=sounds)
    assert_same_run(straight, out)


@pytest.mark.parametrize("killed", [False, True])
def test_a_finished_run_is_extended(straight, sounds, tmp_path, monkeypatch, killed):
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    longer = {**settings_of()["optimiser"], "epochs": EPOCHS + 2}
    with pytest.raises(ConfigError, match="another configuration"):
        train(tiny(**{**KEEPING, "optimiser": longer, "seed": 4}), out=out, data_root=sounds)
    config = tiny(**KEEPING, optimiser=longer)
    if killed:
        monkeypatch.setattr("sonibook.training.folder.save", cut_before(None, [0]))
        with pytest.warns(SonibookWarning, match="extends"), pytest.raises(Cut):
            train(config, out=out, data_root=sounds)
        monkeypatch.undo()
        card = train(config, out=out, data_root=sounds)
    else:
        with pytest.warns(SonibookWarning, match=rf"extends a finished run of {EPOCHS} epochs"):
            card = train(config, out=out, data_root=sounds)
    assert (card["epochs"], card["extended_from_epochs"]) == (EPOCHS + 2, [EPOCHS])
    rates = [float(row["learning_rate"]) for row in rows_of(out)]
    total = (EPOCHS + 2) * STEPS
    falling = [
        2e-3 * 0.5 * (1 + math.cos(math.pi * (step - STEPS) / (total - STEPS)))
        for step in (4 * STEPS - 1, total - 1)
    ]
    assert rates[:EPOCHS] == [float(row["learning_rate"]) for row in rows_of(straight)]
    np.testing.assert_allclose(rates[EPOCHS:], falling, rtol=1e-12)
    first, last = (
        load_file(out / "kept" / f"epoch-{epoch:04d}.safetensors") for epoch in (EPOCHS, 5)
    )
    before = load_file(straight / "encoder.safetensors")
    assert all(torch.equal(first[name], tensor) for name, tensor in before.items())
    assert not torch.equal(last["features.conv6.weight"], before["features.conv6.weight"])
    with pytest.raises(ConfigError, match="another configuration"):  # and never shortened
        train(tiny(**KEEPING), out=out, data_root=sounds)


def test_an_unfinished_run_is_not_extended(straight, sounds, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    (out / "encoder.safetensors").unlink()
    longer = {**settings_of()["optimiser"], "epochs": EPOCHS + 2}
    with pytest.raises(ConfigError, match="another configuration"):
        train(tiny(**KEEPING, optimiser=longer), out=out, data_root=sounds)


# --- what is refused -----------------------------------------------------------------------------


def test_another_runs_folder_is_left_alone(straight, sounds):
    before = {path: path.read_bytes() for path in straight.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"another configuration: choose another folder"):
        train(tiny(seed=4, **KEEPING), out=straight, data_root=sounds)
    after = {path: path.read_bytes() for path in straight.rglob("*") if path.is_file()}
    assert after == before


def test_a_damaged_state_is_refused(straight, sounds, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_bytes((straight / "config.yaml").read_bytes())
    (out / "state.safetensors").write_bytes((straight / "state.safetensors").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a checkpoint of this run"):
        train(tiny(**KEEPING), out=out, data_root=sounds)
    assert not (out / "encoder.safetensors").exists()


def test_a_run_that_diverges_stops_at_once_and_says_what_to_do(sounds, tmp_path):
    wild = {"epochs": 3, "warmup_epochs": 0, "batch_size": 8, "learning_rate": 1e20}
    with pytest.raises(ConfigError, match=r"^The loss is (nan|inf) at step \d+: lower optimiser"):
        train(tiny(optimiser=wild), out=tmp_path / "run", data_root=sounds)
    assert not (tmp_path / "run" / "encoder.safetensors").exists()


def test_the_step_whose_loss_is_no_number_is_named(sounds, tmp_path):
    class Spoilt(Runtime):
        """The fifth step's loss comes to nothing."""

        steps = 0

        def mean(self, value: torch.Tensor) -> torch.Tensor:
            self.steps += 1
            return value * torch.nan if self.steps == 5 else value

    with pytest.raises(ConfigError, match=r"^The loss is nan at step 4: "):
        train(tiny(), out=tmp_path / "run", data_root=sounds, runtime=Spoilt())
    assert not (tmp_path / "run" / "state.safetensors").exists()
