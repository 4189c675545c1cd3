"""A run's folder: where it stands comes back, or is refused; what it tells is read from files."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from clips import batch

from sonibook.errors import CheckpointError, ConfigError
from sonibook.model.encoder import CNN12
from sonibook.training.config import TrainConfig
from sonibook.training.folder import (
    FileLogger,
    check_loggers,
    load_state,
    open_loggers,
    save_state,
)
from sonibook.training.loop import train

COLUMNS = ("train_loss", "test_mAP")
#: What a run of six epochs measures; the test part every second epoch.
MEASURED = [
    {"train_loss": 1 / epoch} | ({"test_mAP": epoch / 10} if epoch % 2 == 0 else {})
    for epoch in range(1, 7)
]
CAPTIONS = ("Hund ä.wav, filter 3", "rain, filter 9")


def config(*to: str) -> TrainConfig:
    return TrainConfig.model_validate({"name": "demo", "data": {"name": "x"}, "log": {"to": to}})


def sounds_of(epoch: int) -> dict[str, np.ndarray]:
    time = np.arange(1000) / 8000
    tones = [level * np.sin(2 * np.pi * 110 * epoch * time) for level in (0.25, 0.5)]
    return {name: tone.astype(np.float32) for name, tone in zip(CAPTIONS, tones, strict=True)}


def run(folder: Path, *to: str, done: int, until: int) -> None:
    """Epochs after `done`, up to `until`, with sounds where the test part is measured."""
    with open_loggers(folder, config(*to), columns=COLUMNS, before=MEASURED[:done]) as loggers:
        for epoch in range(done + 1, until + 1):
            for logger in loggers:
                logger.values(epoch, MEASURED[epoch - 1])
                if epoch % 2 == 0:
                    logger.sounds(epoch, "layer-8", sounds_of(epoch))


def killed_and_resumed(folder: Path, *to: str) -> None:
    """Four epochs are logged, three are saved: the fourth comes again."""
    run(folder, *to, done=0, until=4)
    run(folder, *to, done=3, until=6)


def as_logged(samples: np.ndarray) -> np.ndarray:
    """The peaks and the shape of 16-bit samples, in [-1, 1]."""
    return np.asarray(samples, float) / 32767


# --- files ---------------------------------------------------------------------------------------


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table_has_a_row_an_epoch_however_often_it_is_taken_up(tmp_path):
    killed_and_resumed(tmp_path)
    table = rows(tmp_path)
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4", "5", "6"]
    for row, measured in zip(table, MEASURED, strict=True):
        assert float(row["train_loss"]) == measured["train_loss"]
        assert row["test_mAP"] == (str(measured["test_mAP"]) if "test_mAP" in measured else "")


def test_table_is_that_of_a_run_that_was_never_interrupted(tmp_path):
    killed_and_resumed(tmp_path / "resumed")
    run(tmp_path / "whole", done=0, until=6)
    names = sorted(path.relative_to(tmp_path / "whole") for path in tmp_path.glob("whole/**/*.*"))
    assert len(names) == 1 + 3 * 3
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (
            tmp_path / "resumed" / name
        ).read_bytes()


def test_table_is_there_from_the_start_and_epoch_comes_first(tmp_path):
    FileLogger(tmp_path, ("learning_rate", "epoch", "seconds"), [])
    assert (tmp_path / "log.csv").read_text() == "epoch,learning_rate,seconds\n"


def test_what_was_not_announced_is_refused(tmp_path):
    logger = FileLogger(tmp_path, COLUMNS, [])
    with pytest.raises(ValueError, match="accuracy"):
        logger.values(1, {"accuracy": 0.5})


def test_sounds_are_files_as_loud_as_they_are(tmp_path):
    run(tmp_path, done=0, until=2)
    folder = tmp_path / "sounds" / "epoch-0002" / "layer-8"
    for number, waveform in enumerate(sounds_of(2).values(), start=1):
        samples, rate = soundfile.read(folder / f"{number}.wav")
        assert rate == 8000
        np.testing.assert_allclose(samples, waveform, atol=0.5 / 32768)
    lines = (folder / "captions.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [f"1.wav: {CAPTIONS[0]}", f"2.wav: {CAPTIONS[1]}"]


# --- TensorBoard ---------------------------------------------------------------------------------


def events(folder: Path):
    """What TensorBoard itself reads from a run's folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loaded = accumulator.EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"audio": 0, "scalars": 0}
    )
    loaded.Reload()
    return loaded


def test_tensorboard_shows_every_epoch_once(tmp_path):
    pytest.importorskip("tensorboard")
    killed_and_resumed(tmp_path, "tensorboard")
    loaded = events(tmp_path)
    assert sorted(loaded.Tags()["scalars"]) == sorted(COLUMNS)
    losses = {event.step: event.value for event in loaded.Scalars("train_loss")}
    assert len(loaded.Scalars("train_loss")) == 6
    assert losses == pytest.approx({epoch: 1 / epoch for epoch in range(1, 7)})
    assert [event.step for event in loaded.Scalars("test_mAP")] == [2, 4, 6]


def test_tensorboard_plays_the_sounds_as_loud_as_they_are(tmp_path):
    import io

    pytest.importorskip("tensorboard")
    killed_and_resumed(tmp_path, "tensorboard")
    loaded = events(tmp_path)
    tags = sorted(loaded.Tags()["audio"])
    assert len(tags) == 2
    assert tags[0].startswith("layer-8/Hund")
    for caption, tag in zip(CAPTIONS, tags, strict=True):
        assert [event.step for event in loaded.Audio(tag)] == [2, 4, 6]
        for event in loaded.Audio(tag):
            samples, rate = soundfile.read(io.BytesIO(event.encoded_audio_string), dtype="int16")
            assert rate == 8000
            expected = sounds_of(event.step)[caption]
            np.testing.assert_allclose(as_logged(samples), expected, atol=1.01 / 32767)


def test_dashboards_are_closed_however_the_run_ends(tmp_path):
    """What was logged before an error is there; nothing is left open (a warning would fail)."""
    pytest.importorskip("tensorboard")

    def failing_run() -> None:
        with open_loggers(tmp_path, config("tensorboard"), columns=COLUMNS, before=[]) as (
            _,
            logger,
        ):
            logger.values(1, MEASURED[0])
            raise ConfigError("the loss is not finite")

    with pytest.raises(ConfigError, match="not finite"):
        failing_run()
    assert [event.step for event in events(tmp_path).Scalars("train_loss")] == [1]


# --- Weights & Biases and trackio ----------------------------------------------------------------


def logged_tones(files: list[Path]) -> set[bytes]:
    return {soundfile.read(path, dtype="int16")[0].tobytes() for path in files}


def expected_tones(*epochs: int) -> set[bytes]:
    return {
        np.rint(waveform * 32767).astype(np.int16).tobytes()
        for epoch in epochs
        for waveform in sounds_of(epoch).values()
    }


def test_wandb_goes_on_with_the_same_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    killed_and_resumed(tmp_path, "wandb")
    name = (tmp_path / "run-id").read_text()
    records = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert [path.name for path in records] == [f"run-{name}.wandb"] * 2
    for path in records:
        for column in COLUMNS:
            assert column.encode() in path.read_bytes()
    files = list(tmp_path.glob("wandb/offline-run-*/files/media/audio/*.wav"))
    assert logged_tones(files) == expected_tones(2, 4, 6)


def test_trackio_goes_on_with_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    killed_and_resumed(tmp_path, "trackio")
    trackio.finish()
    with sqlite3.connect(tmp_path / "trackio" / "sonibook.db") as connection:
        found = connection.execute("select run_name, step, metrics from metrics").fetchall()
    connection.close()
    assert {row[0] for row in found} == {f"demo-{(tmp_path / 'run-id').read_text()}"}
    losses = {
        step: json.loads(metrics)["train_loss"]
        for _, step, metrics in found
        if "train_loss" in json.loads(metrics)
    }
    assert losses == {epoch: 1 / epoch for epoch in range(1, 7)}
    assert logged_tones(list(tmp_path.glob("trackio/media/**/*.wav"))) == expected_tones(2, 4, 6)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_extra_is_named_before_anything_is_written(name, tmp_path, monkeypatch):
    monkeypatch.setattr("sonibook.training.folder.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"pip install 'sonibook\[{name}\]'"):
        check_loggers((name,))
    with pytest.raises(ConfigError, match="not installed"):
        train(config(name), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- the state -----------------------------------------------------------------------------------


def test_state_holds_weights_moments_and_position(tmp_path):
    def made(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        network = CNN12(width=1 / 16, norm="weight", seed=seed)
        return network, torch.optim.AdamW(network.parameters(), lr=1e-2)

    def step(network: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        network.eval()(batch(2, 2500)).square().sum().backward()
        optimiser.step()

    network, optimiser = made(0)
    step(network, optimiser)
    path = tmp_path / "state.safetensors"
    position = {"step": 1, "seconds": 0.5, "losses": [2.0], "log": [1, "двa"], "epochs": 9}
    position |= {"extended": [3], "unreadable": [[4, "why"]]}
    save_state(path, network, optimiser, position)
    other, other_optimiser = made(1)
    assert load_state(path, other, other_optimiser) == position
    step(network, optimiser)
    step(other, other_optimiser)
    for (name, first), second in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second), name
    wider = CNN12(width=1 / 8, norm="weight")
    with pytest.raises(CheckpointError, match="not a checkpoint of this run"):
        load_state(path, wider, torch.optim.AdamW(wider.parameters()))
