"""Listeners: what they are handed, what they score, and whether they can hear at all."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Held

from sonibook.analysis import listeners as listening
from sonibook.analysis.controls import partners
from sonibook.analysis.listeners import listen
from sonibook.analysis.machine_listeners import Listener, missing, open_listeners
from sonibook.analysis.networks import CENTRED, load_network, with_starts
from sonibook.analysis.result import MeasuredOn, ResultTable, Row, fingerprint
from sonibook.cli import main
from sonibook.datasets import open_dataset
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet import sonify
from sonibook.errors import AnalysisError
from sonibook.metrics.intervals import bootstrap_interval, bootstrap_ratio
from sonibook.model.checkpoint import kept_checkpoints, load_encoder, save_checkpoint
from sonibook.model.encoder import CNN12
from sonibook.replication.verdict import judge_claims

ROOT = os.environ.get("SONIBOOK_DATA")
recordings = pytest.mark.skipif(not ROOT, reason="needs the recordings that SONIBOOK_DATA names")


def opened(name: str, data: Dataset) -> Listener:
    """A listener that needs no training part."""
    (listener,) = open_listeners([name], data, None, seed=0, streaming={})
    return listener


def hash_of(clip: Clip) -> int:
    return int(clip.clip_id.rsplit("-", 1)[-1])


@pytest.fixture(scope="module")
def scenes():
    return open_dataset("soundscapes", split="test", size=4, duration=0.6)


@pytest.fixture(scope="module")
def network() -> CNN12:
    return CNN12(width=1 / 16, seed=0).eval()


@pytest.mark.filterwarnings("ignore::sonibook.errors.SonibookWarning")
def test_everything_is_heard_at_the_level_of_the_clip(scenes, network, monkeypatch) -> None:
    played: list[tuple[str, np.ndarray]] = []

    def hear(clip: Clip, sounds: torch.Tensor) -> np.ndarray:
        """Keep what is heard, and hear something in every second clip."""
        played.append((clip.clip_id, sounds.numpy()))
        return np.full(len(sounds), 0.5 if hash_of(clip) % 2 else 0.0)

    listener = Listener("recorder", "a test", hear, where_heard=True)
    monkeypatch.setattr(listening, "open_listeners", lambda *_, **__: (listener,))
    result = listen({"tiny": network}, scenes, limit=3)
    clips = [scenes[index] for index in (0, 1, 2)]
    levels = {clip.clip_id: np.sqrt(np.mean(clip.waveform.astype(float) ** 2)) for clip in clips}
    for clip_id, sounds in played:
        rms = np.sqrt(np.mean(sounds.astype(float) ** 2, axis=1))
        np.testing.assert_allclose(rms, levels[clip_id], rtol=1e-4)
    # tiny and random weights hear each clip once: 3 x 11 sounds; then clip and noise.
    shapes = [len(sounds) for _, sounds in played]
    assert shapes == [33] * 6 + [2] * 3
    first = played[0][1].reshape(3, 11, -1)
    partner = clips[partners(clips)[0]]
    for layer in (1, 6, 11):
        for row, clip in ((0, clips[0]), (1, partner)):
            maps = torch.from_numpy(clip.waveform)
            top = int(network_energy(network, maps, layer).argmax())
            own = sonify(network, maps, layer=layer, filters=[top])[0].numpy()
            heard = first[row, layer - 1]
            assert np.corrcoef(own, heard)[0, 1] == pytest.approx(1.0, abs=1e-4)
        spectra = np.abs(np.fft.rfft(first[[0, 2], layer - 1]))
        np.testing.assert_allclose(spectra[0], spectra[1], atol=1e-3 * spectra.max())
    assert abs(np.corrcoef(first[0, 0], first[2, 0])[0, 1]) < 0.5
    np.testing.assert_allclose(played[6][1][0], clips[0].waveform, rtol=1e-5)
    # Where it hears nothing in the clip itself, it is not asked about the sonification.
    odd = sum(hash_of(clip) % 2 for clip in clips)
    assert {row.clips for row in result.select(network="tiny", quantity="recorder")} == {odd}
    assert result.row("recorder", condition="the clip itself").clips == 3
    shares = result.select(network="tiny", quantity="share of recorder", condition="")
    assert [row.mean for row in shares] == [1.0] * 11


def network_energy(network: CNN12, x: torch.Tensor, layer: int) -> torch.Tensor:
    """Of each map of a layer, by the encoder's own forward pass."""
    with torch.no_grad():
        padded = torch.nn.functional.pad(x, (0, max(network.least_length - len(x), 0)))
        y = padded[None, None]
        for module in network.truncate(layer).features:
            y = module(y)
    return y[0].square().sum(dim=1)


def test_a_ratio_of_means_has_the_interval_of_redrawn_clips() -> None:
    generator = np.random.default_rng(0)
    clean = generator.uniform(0.5, 1.0, 60)
    scores = clean * generator.uniform(0.0, 0.8, 60)
    redrawn = bootstrap_interval(scores, clean, statistic=lambda s, c: s.mean() / c.mean())
    assert bootstrap_ratio(scores, clean) == pytest.approx(redrawn, abs=0.015)
    assert redrawn[0] < scores.mean() / clean.mean() < redrawn[1]


def test_shares_are_of_the_same_clips_and_nothing_is_no_share() -> None:
    clean = np.array([1.0, 0.0, 1.0, np.nan])
    own = np.array([[1.0, 0.0], [0.0, 0.0], [np.nan, 1.0], [1.0, 1.0]])
    arrays = {("n", "e", ""): own, ("", "e", "the clip itself"): clean}
    identity = {"n": {"network": "n", "regime": "r", "seed": 0, "baseline": False}}
    first, second = listening._shares(arrays, identity, ["e"], seed=0)
    assert (first.mean, first.clips, first.layer) == (1.0, 2, 1)
    assert (second.mean, second.clips, second.layer) == (0.5, 3, 2)
    arrays["", "e", "the clip itself"] = np.zeros(4)
    assert next(listening._shares(arrays, identity, ["e"], seed=0)).mean is None


@pytest.mark.parametrize("name", ["contrastive", "supervised-esc40"])
def test_a_networks_start_is_what_its_run_kept_of_epoch_0(name: str) -> None:
    network = load_network(name, name)
    _, start = with_starts([network])
    assert (start.name, start.regime, start.baseline) == (f"start of {name}", CENTRED, True)
    kept = load_encoder(kept_checkpoints(name)[0]).state_dict()
    ours = start.module.state_dict()
    assert kept.keys() == ours.keys()
    assert all(torch.equal(kept[key], ours[key]) for key in kept)


def test_a_strided_networks_start_is_strided(tmp_path) -> None:
    path = tmp_path / "strided.safetensors"
    fresh = CNN12(width=1 / 16, norm="weight", downsample="stride", seed=7)
    config = {
        "objective": "cross_entropy",
        "seed": 7,
        "data": {"name": "esc40"},
        "encoder": {"norm": "weight"},
    }
    save_checkpoint(path, fresh, {"config": config})
    network = load_network(str(path), "strided")
    assert network.regime == "supervised, strided, width 0.0625"
    assert network.start is not None
    assert network.start.regime == f"{CENTRED}, strided, width 0.0625"
    assert fingerprint(network.start.module) == fingerprint(network.module)


def test_networks_of_one_start_share_it() -> None:
    names = ("contrastive", "supervised-esc40", "contrastive-32", "supervised")
    every = with_starts([load_network(name, name) for name in names])
    assert [network.name for network in every[4:]] == [
        "start of contrastive, supervised-esc40",
        "start of contrastive-32",
        "start of supervised",
    ]


def test_the_nearest_stem_is_found_whatever_the_gain(scenes) -> None:
    x = torch.from_numpy(scenes[0].waveform)
    clip = Clip(x.numpy(), (0,), "x")
    noise = torch.randn(len(x), generator=torch.Generator().manual_seed(0))
    hear = opened("SI-SDR", scenes).hear
    same, mixed, other = hear(clip, torch.stack([-3 * x, x + noise, noise]))
    assert same == 60.0
    assert -60 <= other < mixed < 60


def test_listeners_that_are_not_there_are_named(scenes, network, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SONIBOOK_NETWORKS", str(tmp_path))
    with pytest.raises(AnalysisError, match="no listener 'dog': choose of event, "):
        listen({"tiny": network}, scenes, listeners=["dog"])
    with pytest.raises(AnalysisError, match="'event, SoundNet' is not there: sonibook import"):
        listen({"tiny": network}, scenes, listeners=["event, SoundNet"])
    with pytest.raises(AnalysisError, match="no groups to leave out in turn"):
        listen({"tiny": network}, scenes, listeners=["event"])
    other = open_dataset("soundscapes", split="train", size=4, task="single-label")
    with pytest.raises(AnalysisError, match="different classes"):
        listen({"tiny": network}, scenes, training=other, listeners=["event"])
    with pytest.raises(AnalysisError, match="nobody to listen"):
        listen({"tiny": network}, scenes, listeners=[])


@recordings
def test_the_classifier_of_events_hears_and_noise_tells_it_nothing() -> None:
    data = open_dataset("esc10", root=ROOT, split="all")
    (listener,) = open_listeners(["event"], data, None, seed=0, streaming={"limit": 3})
    generator = torch.Generator().manual_seed(0)
    scores = []
    for clip in data:
        x = torch.from_numpy(clip.waveform)
        sounds = torch.stack([x, 0.01 * x, torch.randn(len(x), generator=generator)])
        scores.append(listener.hear(clip, sounds))
    clean, quiet, noise = np.mean(scores, axis=0)
    assert clean >= 0.6
    assert quiet == pytest.approx(clean, abs=0.02)  # it does not go by level
    assert noise == pytest.approx(0.1, abs=0.05)
    assert "the other groups of esc10" in listener.who


def heard(folder: Path, supervised: dict[str, list[float]], contrastive: float) -> None:
    """Results of listeners, made up: by listener the shares in layers 1 and 2, 3 to 7, 8 to 11."""
    for file, names in (
        ("listeners-esc10", ("event", "event, SoundNet")),
        ("listeners-fsdd", ("digit", "speech")),
    ):
        rows = []
        for name in names:
            first, middle, deep = supervised[name]
            parts = [first] * 2 + [middle] * 5 + [deep] * 4
            curves = {
                ("supervised", ""): parts,
                ("contrastive", ""): [contrastive] * 11,
                ("contrastive", "another clip"): [0.1] * 11,
                ("contrastive", "random phase"): [0.1] * 11,
                ("random", ""): [0.2] * 11,
                ("centred random", ""): [0.2] * 11,
            }
            rows += [
                Row(network=regime, regime=regime, seed=0, layer=layer, condition=condition,
                    quantity=f"share of {name}", mean=mean, low=mean - 0.01, high=mean + 0.01,
                    clips=40)
                for (regime, condition), means in curves.items()
                for layer, mean in enumerate(means, start=1)
            ]  # fmt: skip
        data = MeasuredOn(dataset="made up", split="all", size=40, clips=40, skipped={})
        table = ResultTable(analysis="a", data=data, networks={}, settings={}, rows=tuple(rows))
        table.write(folder / f"{file}.json")


NAMES = ("event", "event, SoundNet", "digit", "speech")


@pytest.mark.parametrize(
    ("parts", "contrastive", "middle", "discernible"),
    [
        ([0.3, 0.6, 0.2], 0.5, "holds", "holds"),
        ([0.9, 0.6, 0.2], 0.5, "holds in part", "holds"),
        ([0.9, 0.2, 0.6], 0.5, "does not hold here", "does not hold here"),
        ([0.3, 0.6, 0.2], 0.15, "holds", "does not hold here"),
        ([0.3, 0.6, 0.05], 0.15, "holds", "holds in part"),
    ],
)
def test_what_listeners_hear_judges_two_claims(
    tmp_path, parts, contrastive, middle, discernible
) -> None:
    heard(tmp_path, dict.fromkeys(NAMES, parts), contrastive)
    found = {claim.name: claim.judgement.verdict for claim in judge_claims(tmp_path)}
    assert (found["middle-layers"], found["discernible"]) == (middle, discernible)


def test_without_listeners_nothing_is_judged(tmp_path) -> None:
    found = {claim.name: claim for claim in judge_claims(tmp_path)}
    for name, tests in (("middle-layers", 16), ("discernible", 20)):
        assert found[name].judgement.verdict == "not measured yet"
        assert len(found[name].tests) == tests


def clean_and_noise(name: str, clips: list[Clip], data: Dataset) -> tuple[float, float]:
    """Mean scores of a listener on clips, and on white noise of their level."""
    listener = opened(name, data)
    generator = torch.Generator().manual_seed(0)
    scores = []
    for clip in clips:
        x = torch.from_numpy(clip.waveform)
        noise = torch.randn(len(x), generator=generator) * x.square().mean().sqrt()
        scores.append(listener.hear(clip, torch.stack([x, noise])))
    clean, noise = np.nanmean(scores, axis=0)
    return float(clean), float(noise)


@recordings
@pytest.mark.parametrize(
    ("name", "module", "least", "most"),
    [
        ("speech", "silero_vad", 0.95, 0.05),
        ("digit", "pocketsphinx", 0.55, 0.15),
        ("STOI", "pystoi", 0.999, 0.5),
        ("PESQ", "pesq", 4.4, 2.0),
    ],
)
def test_who_is_asked_about_digits_hears_them_and_nothing_in_noise(
    name: str, module: str, least: float, most: float
) -> None:
    pytest.importorskip(module)
    data = open_dataset("fsdd", root=ROOT, split="test")
    clean, noise = clean_and_noise(name, [data[place] for place in range(0, 300, 10)], data)
    assert clean >= least
    assert noise <= most


@recordings
def test_few_clips_of_events_are_taken_for_speech() -> None:
    pytest.importorskip("silero_vad")
    data = open_dataset("esc10", root=ROOT, split="all")
    clips = [data[place] for place in range(0, 400, 20)]
    quiet = [clip for clip in clips if data.classes[clip.labels[0]] != "crying_baby"]
    assert clean_and_noise("speech", quiet, data)[0] <= 0.25


def harmonic(pitch: float, samples: int = 8000) -> np.ndarray:
    time = np.arange(samples) / 8000
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
    return (tone / np.abs(tone).max()).astype(np.float32)


def test_a_pitch_is_the_same_to_half_a_semitone(scenes) -> None:
    if missing("pitch"):
        pytest.skip("torchcrepe is not installed")
    listener = opened("pitch", scenes)
    clip = Clip(harmonic(220.0), (0,), "tone")
    others = [harmonic(220 * 2 ** (cents / 1200)) for cents in (0, 20, 100, 1200)]
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    scores = listener.hear(clip, torch.from_numpy(np.stack([*others, noise, 1e-3 * others[0]])))
    assert scores[[0, 1, 5]].tolist() == [1.0, 1.0, 1.0]
    assert scores[[2, 3]].tolist() == [0.0, 0.0]
    assert scores[4] <= 0.1
    assert np.isnan(listener.hear(Clip(noise, (0,), "noise"), torch.from_numpy(noise[None]))).all()


def test_what_is_too_short_to_judge_is_left_out(scenes) -> None:
    clip = Clip(harmonic(300.0, 1000), (0,), "short")
    sounds = torch.from_numpy(clip.waveform)[None]
    for name, module in (("STOI", "pystoi"), ("PESQ", "pesq")):
        if find_spec(module) is not None:
            listener = opened(name, scenes)
            assert np.isnan(listener.hear(clip, sounds)).all(), name


@pytest.mark.parametrize("name", ["speech", "digit", "pitch", "STOI", "PESQ"])
def test_what_is_not_installed_says_how_to_have_it(scenes, monkeypatch, name: str) -> None:
    monkeypatch.setattr("sonibook.analysis.machine_listeners.find_spec", lambda _: None)
    with pytest.raises(AnalysisError, match=f"'{name}' is not there: pip install"):
        opened(name, scenes)


def test_a_digit_is_asked_of_digits_alone(scenes) -> None:
    pytest.importorskip("pocketsphinx")
    with pytest.raises(AnalysisError, match="no class that is a digit"):
        opened("digit", scenes)
    data = Held([harmonic(300.0)], [0])
    data.classes = ("dog", "4", "five")
    listener = opened("digit", data)
    assert np.isnan(listener.hear(data[0], torch.from_numpy(data.waveforms[0])[None])).all()


def test_the_command_names_who_is_missing_and_writes_all(monkeypatch, tmp_path, capsys) -> None:
    arguments = [
        "analyse", "listeners", "random", "--width", "0.0625", "-d", "soundscapes", "-o", "size=3",
        "-o", "duration=0.6", "--processes", "1",
    ]  # fmt: skip
    monkeypatch.setattr("sonibook.analysis.machine_listeners.find_spec", lambda _: None)
    monkeypatch.setenv("SONIBOOK_NETWORKS", str(tmp_path))
    event = replace(opened("SI-SDR", open_dataset("soundscapes", size=1)), name="event")
    monkeypatch.setattr("sonibook.analysis.machine_listeners._events", lambda *_: event)
    out, figure = tmp_path / "heard.json", tmp_path / "heard.png"
    assert main([*arguments, "--out", str(out), "--figure", str(figure)]) == 0
    told = capsys.readouterr().out
    for name in ("event, SoundNet", "speech", "digit", "pitch", "STOI", "PESQ"):
        assert f"{name} (" in told.partition("Not there, and not asked: ")[2]
    assert "soundscapes (test), 3 of 3 clips" in told
    assert ResultTable.read(out).row("SI-SDR", condition="the clip itself").clips == 3
    assert figure.stat().st_size > 1000
    assert main([*arguments, "--listener", "digit"]) == 2
    assert "The listener 'digit' is not there: pip install" in capsys.readouterr().err


@recordings
@pytest.mark.parametrize(("name", "module"), [("speech", "silero_vad"), ("digit", "pocketsphinx")])
def test_what_came_before_does_not_change_what_is_heard(name: str, module: str) -> None:
    pytest.importorskip(module)
    data = open_dataset("fsdd", root=ROOT, split="test")
    listener = opened(name, data)
    clips = [data[place] for place in range(0, 300, 12)]
    sounds = [torch.from_numpy(clip.waveform)[None] for clip in clips]
    forth = [float(listener.hear(*pair)[0]) for pair in zip(clips, sounds, strict=True)]
    pairs = reversed([*zip(clips, sounds, strict=True)])
    assert forth == [float(listener.hear(*pair)[0]) for pair in pairs][::-1]
