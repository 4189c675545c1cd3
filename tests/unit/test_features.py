"""Training on a frozen encoder's features (fc-only): read once, standardised, folded back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Held, noise, tiny
from safetensors.torch import load_file
from sklearn.preprocessing import StandardScaler

from sonibook.errors import ConfigError
from sonibook.model.checkpoint import load_classifier, load_encoder, read_card, save_checkpoint
from sonibook.model.encoder import CNN12
from sonibook.training import experiment
from sonibook.training.config import TrainConfig
from sonibook.training.data import FeatureBatches
from sonibook.training.distributed import Runtime
from sonibook.training.experiment import Experiment, FcOnly
from sonibook.training.loop import train

WIDTH = 1 / 16
LENGTHS = [2600, 3000, 2600, 100, 4000, 3000, 2600, 3300, 2600, 3000, 2600]


def held(seed: int = 0) -> Held:
    waveforms = [noise(n, seed + place) for place, n in enumerate(LENGTHS)]
    return Held(waveforms, [place % 3 for place in range(len(LENGTHS))])


def encoder_of() -> CNN12:
    return CNN12(width=WIDTH, seed=1).eval()


def batches_of(data: Held, *, runtime: Runtime | None = None, shuffle: bool = False, seed: int = 2):
    asked = {"name": "held", "seed": seed, "data": {"name": "held", "shuffle_labels": shuffle}}
    config = TrainConfig.model_validate({**asked, "optimiser": {"batch_size": 4}})
    return FeatureBatches(encoder_of(), data, config, Runtime() if runtime is None else runtime)


@torch.no_grad()
def features_alone(data: Held) -> np.ndarray:
    """Each clip by itself, padded where it is too short."""
    encoder = encoder_of()
    padded = [np.pad(x, (0, max(0, encoder.least_length - len(x)))) for x in data.waveforms]
    return np.stack([encoder(torch.from_numpy(x)[None, None])[0].numpy() for x in padded])


def test_features_are_standardised_representations_of_whole_clips():
    data = held()
    batches = batches_of(data)
    alone = features_alone(data)
    features, targets = batches.features_of(data)
    unbiased = alone.std(axis=0, ddof=1)
    np.testing.assert_allclose(
        features, (alone - alone.mean(axis=0)) / unbiased, rtol=1e-3, atol=1e-4
    )
    assert targets.argmax(1).tolist() == [place % 3 for place in range(len(LENGTHS))]
    # The test part is seen through the training part's mean and scale, never through its own.
    other = held(seed=50)
    seen = batches.features_of(other)[0].numpy()
    scaler = StandardScaler().fit(alone)
    spread = np.sqrt(len(LENGTHS) / (len(LENGTHS) - 1))
    np.testing.assert_allclose(
        seen * spread, scaler.transform(features_alone(other)), rtol=1e-3, atol=1e-3
    )


def test_an_epoch_deals_every_clip_once_with_its_label_and_can_be_taken_up():
    data = held()
    batches = batches_of(data)
    assert len(batches) == 2
    everything, targets = batches.features_of(data)
    whole = list(batches.epoch(5))
    rows = [int((everything == row).all(1).nonzero()) for batch in whole for row in batch.x]
    assert len(set(rows)) == 8
    dealt = torch.cat([batch.targets for batch in whole])
    assert torch.equal(dealt, targets[rows])
    (second,) = batches.epoch(5, first=1)
    assert torch.equal(second.x, whole[1].x)
    assert not torch.equal(next(batches.epoch(6)).x, whole[0].x)


def test_processes_share_a_batch():
    data = held()
    (whole, *_) = batches_of(data).epoch(0)
    parts = []
    for rank in range(2):
        runtime = Runtime()
        runtime.rank, runtime.processes = rank, 2
        parts.append(next(batches_of(data, runtime=runtime).epoch(0)))
    assert torch.equal(torch.cat([part.x for part in parts]), whole.x)
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)


def test_a_batch_that_cannot_be_divided_is_refused():
    runtime = Runtime()
    runtime.processes = 3
    with pytest.raises(ConfigError, match=r"4 clips cannot be divided .* multiple of 3\.$"):
        batches_of(held(), runtime=runtime)


def test_shuffled_labels_are_dealt_out_once():
    data = held()
    true, dealt = batches_of(data)._targets, batches_of(data, shuffle=True)._targets
    assert torch.equal(true.sum(0), dealt.sum(0))
    assert not torch.equal(true, dealt)
    assert torch.equal(dealt, batches_of(data, shuffle=True)._targets)


def test_the_folded_classifier_of_waveforms_is_the_head_on_standardised_features():
    data = held()
    batches = batches_of(data)
    head = torch.nn.Linear(512, 3)
    with torch.no_grad():
        head.weight.copy_(torch.randn(3, 512, generator=torch.Generator().manual_seed(0)))
    folded = batches.folded(head)
    assert not folded.training
    with torch.no_grad():
        expected = head(batches.features_of(data)[0])
        for row, x in zip(expected, data.waveforms, strict=True):
            padded = np.pad(x, (0, max(0, 2370 - len(x))))
            logits = folded(torch.from_numpy(padded)[None, None])[0]
            torch.testing.assert_close(logits, row, rtol=1e-3, atol=1e-3)


def test_a_feature_that_never_changes_in_training_is_not_blown_up_where_it_does():
    constant = Held([noise(2600, 0)] * 5, [0, 1, 2, 0, 1])
    batches = batches_of(constant)
    assert float(batches.features_of(constant)[0].abs().max()) < 1e-5
    other = held(seed=50)
    moved = features_alone(other) - features_alone(constant)[0]
    np.testing.assert_allclose(batches.features_of(other)[0], moved, rtol=1e-3, atol=1e-4)


# --- a whole run ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "encoder.safetensors"
    save_checkpoint(path, CNN12(width=WIDTH, norm="weight", seed=5), {})
    return path


LONG = {"epochs": 60, "warmup_epochs": 1, "batch_size": 8, "learning_rate": 1e-2}


def asked(start: Path, **more: object) -> dict:
    return {"norm": "none", "start": str(start), **more}


def test_fc_only_reads_each_clip_once_a_part(sounds, start, monkeypatch):
    parts = {"train": held(), "test": held(seed=50)}
    config = tiny(encoder=asked(start, fc_only=True), optimiser=LONG)
    whole = Experiment(config, parts["train"], parts["test"], load_encoder(start))
    task = whole.task(Runtime())
    assert isinstance(task, FcOnly)
    for epoch in range(3):
        for batch in task.batches.epoch(epoch):
            assert batch.x.shape == (8, 512)
        task.evaluate()
    assert set(parts["train"].reads) == set(parts["test"].reads) == {1}
    assert [p.shape for p in task.network.parameters()] == [(3, 512), (3,)]


@pytest.mark.parametrize("depth", [11, 7])
def test_fc_only_learns_on_an_encoder_that_stays_as_it_was(sounds, start, tmp_path, depth):
    config = tiny(encoder=asked(start, fc_only=True, depth=depth), optimiser=LONG)
    card = train(config, out=tmp_path / "run", data_root=sounds)
    assert card["test"]["accuracy"] > 0.9
    published = tmp_path / "run" / "encoder.safetensors"
    assert read_card(published)["depth"] == depth
    classifier = load_classifier(published)
    before = load_encoder(start).truncate(depth).state_dict()
    for name, tensor in classifier.encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert classifier.head.weight.any()


@pytest.mark.parametrize("depth", [11, 7])
def test_full_fine_tuning_starts_from_the_checkpoint_and_changes_it(sounds, start, tmp_path, depth):
    brief = {"epochs": 1, "warmup_epochs": 0, "batch_size": 12, "learning_rate": 1e-4}
    config = tiny(encoder=asked(start, depth=depth), optimiser=brief, keep_every=1)
    train(config, out=tmp_path / "run", data_root=sounds)
    first = load_encoder(tmp_path / "run" / "kept" / "epoch-0000.safetensors").state_dict()
    last = load_classifier(tmp_path / "run" / "encoder.safetensors").encoder.state_dict()
    before = load_encoder(start).truncate(depth).state_dict()
    assert before.keys() == first.keys() == last.keys()
    for name, tensor in before.items():
        assert torch.equal(first[name], tensor), name
        if name.endswith("weight"):
            change = float((last[name] - tensor).norm() / tensor.norm())
            assert 0 < change < 0.2, name  # two steps of 1e-4 lead away from it, and not far


def test_a_frozen_encoder_may_be_a_random_one(sounds, tmp_path):
    config = tiny(encoder={"width": WIDTH, "norm": "weight", "fc_only": True}, optimiser=LONG)
    train(config, out=tmp_path / "run", data_root=sounds)
    encoder = load_classifier(tmp_path / "run" / "encoder.safetensors").encoder
    fresh = experiment.starting_encoder(config).fold().state_dict()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, fresh[name].half().float()), name
    state = load_file(tmp_path / "run" / "state.safetensors")
    assert {name for name in state if name.startswith("model/")} == {"model/weight", "model/bias"}
