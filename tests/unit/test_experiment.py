"""What a configuration asks for, opened and checked before anything is written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import noise, settings_of, tiny

from sonibook.audio import write_wav
from sonibook.errors import CheckpointError, ConfigError, DatasetError
from sonibook.model.checkpoint import load_encoder, save_checkpoint
from sonibook.model.encoder import CNN12
from sonibook.training.config import TrainConfig
from sonibook.training.distributed import Runtime
from sonibook.training.experiment import prepare, starting_encoder
from sonibook.training.loop import train

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


@pytest.mark.parametrize("objective", ["binary_cross_entropy", "nt_xent"])
def test_scenes_with_many_labels_suit_the_other_objectives(objective):
    scenes = {"size": 8, "duration": 0.7}
    data = {"name": "soundscapes", "crop_seconds": 0.3, "train": scenes, "test": scenes}
    experiment = prepare(tiny(objective=objective, augment={}, data=data))
    task = experiment.task(Runtime())
    batch = next(iter(task.batches.epoch(0)))
    task.network.train()
    loss = task.loss(batch, 0, Runtime())
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
            parts.append(task.loss(batch, 0, runtime).item())
        losses.append(np.mean(parts))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    task = prepare(config).task(Runtime())
    task.network.train()
    batch = next(iter(task.batches.epoch(0)))
    assert task.loss(batch, 0, Runtime()).item() != task.loss(batch, 1, Runtime()).item()
