"""Configurations: what is one, what is not, and what it asks for, before anything is written."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from clips import noise, settings_of, tiny

from sonibook import open_dataset
from sonibook.audio import write_wav
from sonibook.errors import CheckpointError, ConfigError, DatasetError
from sonibook.model.checkpoint import load_encoder, save_checkpoint
from sonibook.model.encoder import CNN12
from sonibook.training.config import TrainConfig, load_config
from sonibook.training.distributed import Runtime
from sonibook.training.experiment import prepare, starting_encoder
from sonibook.training.loop import train

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


# --- what is opened and checked ------------------------------------------------------------------


SCENES = {"task": "single-label", "size": 8, "duration": 0.5}


def replica(root: Path) -> Path:
    """ESC-50's layout with five clips, one a fold."""
    (root / "ESC-50" / "meta").mkdir(parents=True)
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        write_wav(root / "ESC-50" / "audio" / f"{fold}-1-A-0.wav", noise(3000, fold))
        rows.append(f"{fold}-1-A-0.wav,{fold},0,dog,True,1,A")
    (root / "ESC-50" / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "encoder.safetensors"
    save_checkpoint(path, CNN12(width=1 / 8, norm="weight", seed=5), {})
    return path


# --- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"name": "nonesuch"}, "no data set 'nonesuch'"),
        ({"name": "esc50", "train": {"fold": [1]}}, "fold"),
        ({"name": "esc50", "train": {"root": "x"}}, r"data\.train: name and root"),
        ({"name": "esc50", "test": {"folds": 5}}, "esc50 cannot take folds=5"),
        ({"name": "esc50", "train": {"sample_rate": 16000}}, "the rate 16,000 Hz, and networks"),
        ({"name": "soundscapes", "train": {"size": 8}, "test": {"size": 8}}, "is multi-label"),
        (
            {"name": "soundscapes", "train": SCENES, "test": SCENES, "crop_seconds": 0.1},
            r"crop_seconds: 800 samples are fewer than the 2370 .* at least 0\.29625",
        ),
        ({"name": "soundscapes", "train": {**SCENES, "size": 3}, "test": SCENES}, "lower optimis"),
    ],
)
def test_data_that_cannot_be_trained_on_writes_nothing(tmp_path, data, sentence):
    config = TrainConfig.model_validate(settings_of(data=data))
    with pytest.raises((ConfigError, DatasetError), match=sentence):
        train(config, out=tmp_path / "run", data_root=replica(tmp_path / "data"))
    assert not (tmp_path / "run").exists()


def test_classes_of_both_parts_must_agree(tmp_path):
    data = {"name": "soundscapes", "crop_seconds": 0.3, "train": SCENES, "test": SCENES}
    assert prepare(tiny(data=data)).test_data.split == "all"
    sets = {name: tmp_path / name for name in ("one", "two")}
    for name, root in sets.items():
        write_wav(root / name / "clip.wav", noise(3000, 0))
    mixed = {**data, "test": {**SCENES, "mixture_of": "folder"}}
    with pytest.raises(ConfigError, match=r"different classes \(\d+ and 1\): give both the same"):
        prepare(tiny(data=mixed), data_root=sets["one"])


def test_settings_are_chosen_by_training_clips_that_are_held_out():
    scenes = {"split": "train", "size": 40, "duration": 0.6}
    data = {"name": "soundscapes", "train": scenes, "hold_out": 0.1, "crop_seconds": 0.3}
    config = {"data": data, "objective": "binary_cross_entropy", "augment": {}}
    every = list(open_dataset("soundscapes", **scenes))
    drawn = set()
    for seed in range(3):
        made = prepare(tiny(seed=seed, **config))
        kept, held = ({one.clip_id: one for one in p} for p in (made.train_data, made.test_data))
        assert (len(kept), len(held)) == (36, 4)
        for one in every:
            assert (one.clip_id in kept) != (one.clip_id in held)
            again = (kept | held)[one.clip_id]
            assert again.labels == one.labels
            assert np.array_equal(again.waveform, one.waveform)
        assert made.test_data.split == "a random 10% of train"
        drawn.add(frozenset(held))
    assert len(drawn) == 3
    with pytest.raises(ConfigError, match="leaves one part empty"):
        prepare(tiny(**config | {"data": data | {"hold_out": 0.01}}))


@pytest.mark.parametrize("objective", ["binary_cross_entropy", "nt_xent"])
def test_scenes_with_many_labels_suit_the_other_objectives(objective):
    scenes = {"size": 8, "duration": 0.7}
    data = {"name": "soundscapes", "crop_seconds": 0.3, "train": scenes, "test": scenes}
    experiment = prepare(tiny(objective=objective, augment={}, data=data))
    task = experiment.task(Runtime())
    batch = next(iter(task.batches.epoch(0)))
    task.network.train()
    loss = task.loss(batch, 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in task.network.parameters())
    assert len(batch.x) == (8 if objective == "nt_xent" else 4)


# --- where a run starts --------------------------------------------------------------------------


def test_a_fresh_encoder_is_what_is_asked_for_and_follows_from_the_seed():
    first = starting_encoder(tiny(encoder={"width": 0.125, "depth": 5, "norm": "batch"}))
    assert (first.width, first.depth, first.norm) == (0.125, 5, "batch")
    assert starting_encoder(tiny(encoder={})).width == 0.25
    assert starting_encoder(tiny(encoder={})).depth == 11
    weights = [starting_encoder(tiny(seed=seed)).features.conv3.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("depth", [None, 1, 6, 11])
def test_a_published_encoder_is_taken_as_it_is_and_cut(published, depth):
    asked = {"norm": "none", "start": str(published), "depth": depth}
    encoder = starting_encoder(tiny(encoder=asked))
    expected = load_encoder(published).truncate(depth or 11)
    assert (encoder.width, encoder.depth) == (1 / 8, depth or 11)
    assert encoder.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor), name


def test_a_truncated_start_keeps_its_depth(tmp_path, published):
    short = tmp_path / "short.safetensors"
    save_checkpoint(short, load_encoder(published).truncate(6), {})
    asked = {"norm": "none", "start": str(short)}
    assert starting_encoder(tiny(encoder=asked)).depth == 6
    assert starting_encoder(tiny(encoder={**asked, "depth": 4})).depth == 4
    with pytest.raises(ConfigError, match=r"encoder\.depth: .* has 6 blocks, not 7: give that or"):
        starting_encoder(tiny(encoder={**asked, "depth": 7}))


def test_a_start_of_another_size_or_none_is_refused_in_a_sentence(published, sounds, tmp_path):
    for changes, kind, sentence in [
        ({"width": 0.25}, ConfigError, r"encoder\.width: .* has the width 0\.125, not 0\.25: give"),
        ({"start": "nonesuch"}, CheckpointError, "nonesuch: there is no such file"),
    ]:
        asked = {"norm": "none", "start": str(published), **changes}
        with pytest.raises(kind, match=sentence) as refusal:
            train(tiny(encoder=asked), out=tmp_path / "run", data_root=sounds)
        assert "\n" not in str(refusal.value)
        assert not (tmp_path / "run").exists()
    assert starting_encoder(
        tiny(encoder={"norm": "none", "start": str(published), "width": 0.125})
    ).width == pytest.approx(0.125)


# --- what is drawn while training ----------------------------------------------------------------


def test_dropout_is_the_same_however_a_batch_is_divided(tmp_path):
    # The mean loss of a batch is the mean of its parts' losses only if all keep the same channels.
    scenes = {**SCENES, "size": 32}
    data = {"name": "soundscapes", "crop_seconds": 0.3, "train": scenes, "test": SCENES}
    config = tiny(data=data, augment={}, optimiser={"batch_size": 32})
    losses = []
    for processes in (1, 2):
        parts = []
        for rank in range(processes):
            runtime = Runtime()
            runtime.rank, runtime.processes = rank, processes
            task = prepare(config).task(runtime)
            task.network.train()
            batch = next(iter(task.batches.epoch(0)))
            parts.append(task.loss(batch, 0).item())
        losses.append(np.mean(parts))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    task = prepare(config).task(Runtime())
    task.network.train()
    batch = next(iter(task.batches.epoch(0)))
    assert task.loss(batch, 0).item() != task.loss(batch, 1).item()
