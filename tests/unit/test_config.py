"""Configurations: what is one, what is not, and the sentence that says why."""

import math
from pathlib import Path

import pytest
import yaml
from clips import settings_of

from sonibook.errors import ConfigError
from sonibook.training.config import TrainConfig, load_config

REPOSITORY = Path(__file__).parents[2]


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (settings_of(epochs=3), "epochs is not a known key"),
        (settings_of(data={"name": "folder", "crop": 2}), r"data\.crop is not a known key"),
        (settings_of(optimiser={"batch": 2}), r"optimiser\.batch is not a known key"),
        (settings_of(seed="three"), "seed: input should be a valid integer"),
        (settings_of(seed=-1), "seed: input should be greater than or equal to 0"),
        (settings_of(seed=2**63), "seed: input should be less than"),
        (settings_of(optimiser={"epochs": 1.5}), r"optimiser\.epochs: input should be a valid"),
        (settings_of(optimiser={"epochs": 0}), r"optimiser\.epochs: .* greater than or equal to 1"),
        (settings_of(optimiser={"learning_rate": 0}), "greater than 0"),
        (settings_of(optimiser={"learning_rate": math.inf}), r"learning_rate: .*finite"),
        (settings_of(optimiser={"precision": "float16"}), r"optimiser\.precision: .*'bfloat16'"),
        (settings_of(encoder={"width": 0.001}), r"encoder\.width: input should be greater"),
        (settings_of(encoder={"width": math.nan}), r"encoder\.width"),
        (settings_of(encoder={"depth": 12}), r"encoder\.depth: .* less than or equal to 11"),
        (settings_of(encoder={"norm": "layer"}), r"encoder\.norm: .*'none', 'weight' or 'batch'"),
        (settings_of(encoder={"start": "x"}), "encoder: norm must be none with start"),
        (
            settings_of(encoder={"start": "x", "norm": "none", "downsample": "stride"}),
            "encoder: downsample is the checkpoint's with start",
        ),
        (settings_of(objective="guess"), "objective: "),
        (settings_of(name="../up"), "name: "),
        (settings_of(threads=0), "threads: "),
        (settings_of(keep_every=0), "keep_every: "),
        (settings_of(log={"to": ["paper"]}), r"log\.to\.0: .*'tensorboard'"),
        (settings_of(augment={"time_mask_share": 1.5}), r"augment\.time_mask_share"),
        (settings_of(objective="nt_xent"), r"augment\.mixup_alpha mixes labels, .* nt_xent has"),
        (settings_of(objective="nt_xent", augment={}, encoder={"fc_only": True}), "need labels"),
        (
            settings_of(
                objective="nt_xent", augment={}, data={"name": "folder", "shuffle_labels": True}
            ),
            "need labels",
        ),
        (settings_of(contrastive={"temperature": 0.2}), "contrastive belongs to .* nt_xent alone"),
        (settings_of(encoder={"fc_only": True, "norm": "batch"}), "norm cannot be batch"),
        (settings_of(data=None), "data: "),
        ({"name": "only"}, "data is missing"),
        ([1, 2], "expected keys and values"),
        ("", "expected keys and values"),
        ("name: [", "is not YAML"),
    ],
)
def test_impossible_configurations_name_the_key(tmp_path, content, sentence):
    path = written(tmp_path / "config.yaml", content)
    with pytest.raises(ConfigError, match=sentence) as refusal:
        load_config(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"seed: .*; nonsense is not"):
        load_config(written(tmp_path / "c.yaml", settings_of(seed="x", nonsense=1)))


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "nonesuch.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(binary)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs").rglob("*.yaml")), ids=lambda path: path.stem
)
def test_every_configuration_of_the_project_is_one(path):
    config = load_config(path)
    if config.encoder.start is not None and config.encoder.start.endswith(".yaml"):
        assert load_config(config.encoder.start).name != config.name


# --- changes -------------------------------------------------------------------------------------


def test_changes_replace_values_and_leave_the_rest(tmp_path):
    path = written(tmp_path / "c.yaml", settings_of())
    before = load_config(path)
    changed = load_config(
        path,
        changes=(
            "seed=7",
            "optimiser.epochs=20",
            " log.sounds_every = 5 ",  # of a section that the file does not have
            "data.train.folds=[1, 2]",
            "augment.mixup_alpha=null",
            "optimiser.learning_rate=1.0e-2",
            "encoder.norm=none",
        ),
    )
    assert changed.seed == 7
    assert changed.optimiser.epochs == 20
    assert changed.log.sounds_every == 5
    assert changed.data.train == {"folds": [1, 2]}
    assert changed.augment.mixup_alpha is None
    assert changed.optimiser.learning_rate == 0.01
    assert changed.encoder.norm == "none"
    assert changed.optimiser.batch_size == before.optimiser.batch_size
    assert changed.data.crop_seconds == before.data.crop_seconds
    assert load_config(path) == before
    assert load_config(path, changes=("seed=1", "seed=2")).seed == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("seed", r"^'seed' is not a change: write KEY=VALUE"),
        ("", "is not a change"),
        ("=3", "is not a change"),
        (".seed=3", "is not a change"),
        ("optimiser.=3", "is not a change"),
        ("optimiser..epochs=3", "is not a change"),
        ("seed=[1", r"^'seed=\[1': its value is not YAML"),
        ("name.first=3", r"^'name\.first=3': name is not a section"),
        ("optimiser.epochs.last=3", "epochs is not a section"),
        ("epochs=3", "epochs is not a known key"),
        ("optimiser=3", "optimiser: "),
        ("seed=", "seed: input should be a valid integer"),
        ("optimiser.epochs=many", r"optimiser\.epochs: "),
    ],
)
def test_impossible_changes_are_named(tmp_path, change, sentence):
    path = written(tmp_path / "c.yaml", settings_of())
    with pytest.raises(ConfigError, match=sentence) as refusal:
        load_config(path, changes=(change,))
    assert "\n" not in str(refusal.value)


# --- where a run starts --------------------------------------------------------------------------


def test_another_configuration_is_found_beside_this_one_wherever_one_stands(tmp_path, monkeypatch):
    folder = tmp_path / "configs" / "rows"
    folder.mkdir(parents=True)
    first = written(tmp_path / "configs" / "first.yaml", settings_of(name="first"))
    path = written(folder / "second.yaml", settings_of(encoder={"norm": "none"}))
    monkeypatch.chdir(folder)
    starting = load_config("second.yaml", changes=("encoder.start=../first.yaml",))
    assert starting.encoder.start == str(first.resolve())
    monkeypatch.chdir(tmp_path)
    assert load_config(path, changes=("encoder.start=../first.yaml",)) == starting
    named = load_config(path, changes=("encoder.start=supervised",))
    assert named.encoder.start == "supervised"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective": "binary_cross_entropy", "keep_every": 3, "log": {"to": ["wandb"]}},
        {"objective": "nt_xent", "augment": {}, "contrastive": {"projection": 8}},
        {"encoder": {"norm": "none", "start": "/somewhere/else.yaml", "fc_only": True}},
    ],
)
def test_what_a_run_writes_down_is_a_configuration_again(tmp_path, changes):
    config = TrainConfig.model_validate(settings_of(**changes))
    path = written(tmp_path / "config.yaml", config.model_dump(mode="json"))
    assert load_config(path) == config
