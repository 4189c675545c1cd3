"""Layer importances: probes on every layer, and probed encoders as classifiers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from oracles import own_network
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sonibook import sonify
from sonibook.analysis import layers
from sonibook.analysis.ablation import ablate
from sonibook.analysis.controls import white_noise
from sonibook.analysis.layers import layer_importances, read_trained
from sonibook.analysis.result import ResultTable, Row
from sonibook.analysis.sanity import remove_and_retrain
from sonibook.analysis.stream import seeded
from sonibook.audio import write_wav
from sonibook.cli import main
from sonibook.datasets import Soundscapes, open_dataset
from sonibook.datasets.base import Clip, Dataset, Entry, FileDataset
from sonibook.deconvnet.forward import FeatureMaps
from sonibook.errors import AnalysisError, DatasetError, LayerError
from sonibook.files import write_result
from sonibook.metrics import runs_interval, wilson_interval
from sonibook.model.checkpoint import save_checkpoint
from sonibook.model.encoder import CNN12
from sonibook.plots.features import layers_figure
from sonibook.training.probe import (
    STRENGTHS,
    linear_probe,
    probe_features,
    probed,
)

CLASSES = ("low", "middle", "high")


class Tones(Dataset):
    """Tones in noise, by class of another pitch."""

    name, task, classes = "tones", "single-label", CLASSES

    def __init__(self, split: str, count: int = 24, classes: tuple[str, ...] = CLASSES) -> None:
        self.split, self.count, self.classes = split, count, classes
        self.heard = len(classes)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Clip:
        label = index % self.heard
        return Clip(tone(label, f"{self.split} {index}"), (label,), f"{self.split}{index}")


def tone(label: int, name: str, samples: int = 2000) -> np.ndarray:
    generator = np.random.default_rng(list(name.encode()))
    pitch = (300, 500, 800)[label] * generator.uniform(0.9, 1.1)
    x = np.sin(2 * np.pi * pitch * np.arange(samples) / 8000)
    x = (x + 0.5 * generator.standard_normal(samples)).astype(np.float32)
    return x / np.abs(x).max()


def stranger() -> nn.Sequential:
    return own_network(4, 6, 6, 8)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """Clips in files, in three groups, of which one has but low and middle tones."""
    folder = tmp_path_factory.mktemp("tones")
    entries = []
    for place in range(30):
        group, label = "abc"[place // 10], place % (2 if place >= 20 else 3)
        path = folder / f"{place}.wav"
        write_wav(path, tone(label, str(place)))
        entries.append(Entry(path, (label,), str(place), group))
    return FileDataset(entries, name="grouped", classes=CLASSES, split="all")


def features(network: nn.Module, data: Dataset, layer: int) -> np.ndarray:
    rows = [FeatureMaps(network, clip.waveform).maps[layer - 1][0].mean(dim=1) for clip in data]
    return torch.stack(rows).detach().numpy()


def search(splits):
    return GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": STRENGTHS},
        cv=splits,
    )


def probes(result: ResultTable, network: str) -> tuple[Row, ...]:
    return result.select(network=network, quantity="accuracy", condition="probe")


def assert_above(result: ResultTable, network: str, random: str) -> None:
    """How much more accurate a network's probes are than those of random weights."""
    rows = result.select(network=network, quantity="above random")
    own = zip(rows, probes(result, network), probes(result, random), strict=True)
    for above, mine, theirs in own:
        assert above.mean == pytest.approx(mine.mean - theirs.mean)


def test_every_layer_is_probed_as_by_hand():
    training, data, network = Tones("train", 30), Tones("test", 21), stranger()
    result = layer_importances({"own": network}, data, training=training)
    assert result.names() == ["own", "random weights"]
    assert result.row("accuracy", condition="chance").mean == pytest.approx(1 / 3)
    truth = np.arange(21) % 3
    for one in probes(result, "own"):
        model = search(StratifiedKFold(5, shuffle=True, random_state=0))
        model.fit(features(network, training, one.layer), np.arange(30) % 3)
        right = model.predict(features(network, data, one.layer)) == truth
        assert one.mean == pytest.approx(right.mean())
        low, high = wilson_interval(int(right.sum()), 21)
        assert (one.low, one.high) == (low, high)
    assert_above(result, "own", "random weights")
    assert {row.network for row in result.select(quantity="above random")} == {"own"}


def test_groups_are_left_out_in_turn(grouped):
    network = stranger()
    result = layer_importances({"own": network}, grouped)
    assert result.settings["trained_on"] == "each group left out in turn"
    x = features(network, grouped, 2)
    y = np.array([clip.labels[0] for clip in grouped])
    groups = np.array([entry.group for entry in grouped.entries])
    right = 0
    for group in "abc":
        out = groups == group
        model = search(GroupKFold(2))
        model.fit(x[~out], y[~out], groups=groups[~out])
        right += int((model.predict(x[out]) == y[out]).sum())
    assert probes(result, "own")[1].mean == pytest.approx(right / len(y))


@pytest.mark.filterwarnings("ignore::sonibook.errors.SonibookWarning")
def test_probes_are_fitted_anew_to_what_is_left(grouped):
    network = stranger()
    result = remove_and_retrain({"own": network}, grouped, layers=(2, 4), seed=5)
    y = np.array([clip.labels[0] for clip in grouped])
    groups = np.array([entry.group for entry in grouped.entries])

    def right(taken) -> np.ndarray:
        """Where a probe names the clips of the group that it was not fitted to."""
        left = [torch.from_numpy(c.waveform) - s for c, s in zip(grouped, taken, strict=True)]
        maps = [FeatureMaps(network, x).maps[-1][0] for x in left]
        x, said = torch.stack([one.mean(dim=1) for one in maps]).numpy(), np.zeros_like(y)
        for group in "abc":
            out = groups == group
            model = search(GroupKFold(2)).fit(x[~out], y[~out], groups=groups[~out])
            said[out] = model.predict(x[out])
        return said == y

    def score(condition: str, layer: int | None = None) -> float | None:
        return result.row("accuracy", network="own", layer=layer, condition=condition).mean

    assert score("untouched") == pytest.approx(right([0.0] * len(y)).mean())
    removed = []
    for clip in grouped:
        maps = FeatureMaps(network, clip.waveform)
        filters = [int(maps.energy(layer)[0].argmax()) for layer in (2, 4)]
        sounds = [
            sonify(network, clip.waveform, layer=layer, filters=[chosen])[0]
            for layer, chosen in zip((2, 4), filters, strict=True)
        ]
        generator = seeded(5, "white noise", clip.clip_id)
        removed.append((torch.stack(sounds), white_noise(torch.stack(sounds), generator=generator)))
    for place, layer in enumerate((2, 4)):
        by_sound, by_noise = (right([pair[kind][place] for pair in removed]) for kind in (0, 1))
        assert score("sonification", layer) == pytest.approx(by_sound.mean())
        assert score("white noise", layer) == pytest.approx(by_noise.mean())
        lead = result.row("lead", network="own", layer=layer, condition="white noise").mean
        assert lead == pytest.approx(by_noise.mean() - by_sound.mean())


def test_data_without_groups_is_refused_before_it_is_measured(monkeypatch):
    for module in ("layers", "sanity"):
        monkeypatch.setattr(f"sonibook.analysis.{module}.measure_clips", None)
    for analysis in (layer_importances, remove_and_retrain):
        with pytest.raises(AnalysisError, match="no groups"):
            analysis({"own": stranger()}, Tones("test", 6), layers=(2,))


def test_both_kinds_of_probe_are_fitted_to_the_same_features():
    training, data, network = Tones("train", 30), Tones("test", 21), stranger()
    alone = layer_importances({"own": network}, data, training=training, layers=(2, 4))
    both = layer_importances(
        {"own": network}, data, training=training, layers=(2, 4), probes=("logistic", "ridge")
    )
    assert probes(both, "own") == probes(alone, "own")
    assert [row.layer for row in probes(both, "own")] == [2, 4]
    ridge = both.select(network="own", quantity="accuracy", condition="ridge probe")
    above = both.select(network="own", quantity="above random", condition="ridge probe")
    random = both.select(baseline=True, quantity="accuracy", condition="ridge probe")
    for own, more, less in zip(ridge, above, random, strict=True):
        seen, asked = (features(network, part, own.layer) for part in (training, data))
        said = linear_probe(seen, np.arange(30) % 3, asked, kind="ridge").predicted
        assert own.mean == pytest.approx((said == np.arange(21) % 3).mean())
        assert more.mean == pytest.approx(own.mean - less.mean)
    assert "ridge" in layers_figure(both).alt
    with pytest.raises(LayerError, match="Layer 5"):
        layer_importances({"own": network}, data, training=training, layers=(5,))


@pytest.mark.parametrize("grouping", [False, True])
def test_fitted_probes_are_kept(grouped, grouping, tmp_path, monkeypatch):
    networks, data = {"own": stranger()}, grouped if grouping else Tones("test", 12)
    training = None if grouping else Tones("train", 15)
    how = {"training": training, "layers": (2,), "parts": tmp_path}
    first = layer_importances(networks, data, **how)
    monkeypatch.setattr(layers, "linear_probe", None)
    assert layer_importances(networks, data, **how) == first
    with pytest.raises(TypeError):  # of another kind none was fitted
        layer_importances(networks, data, **how, probes=("ridge",))


def test_networks_of_two_shapes_each_have_random_weights():
    networks = {"own": stranger(), "CNN12": CNN12(width=1 / 16, depth=3, seed=0).eval()}
    result = layer_importances(networks, Tones("test", 12), training=Tones("train", 12))
    names = ["own", "CNN12", "random weights (own)", "random weights (CNN12)"]
    assert result.names() == names
    assert [len(probes(result, name)) for name in names] == [4, 3, 4, 3]
    for name in networks:
        assert_above(result, name, f"random weights ({name})")


@pytest.mark.usefixtures("quick_processes")
def test_it_is_the_same_resumed_and_with_two_processes(grouped, tmp_path, monkeypatch):
    monkeypatch.setattr("sonibook.training.probe.STRENGTHS", (1e-2, 1.0))
    network = {"own": stranger()}
    first, second = (
        layer_importances(network, grouped, processes=processes, parts=tmp_path)
        for processes in (2, 1)  # the second time from the parts
    )
    assert first == second == layer_importances(network, grouped)


def test_what_is_refused(grouped):
    network = {"own": stranger()}
    with pytest.raises(AnalysisError, match="different classes"):
        layer_importances(network, Tones("test"), training=Tones("train", classes=("a", "b")))
    with pytest.raises(AnalysisError, match="no groups to leave out"):
        layer_importances(network, Tones("test"))
    scenes = open_dataset("soundscapes", size=2)
    with pytest.raises(AnalysisError, match="fitted to one cannot score the other"):
        layer_importances(network, scenes, training=Tones("train"))
    with pytest.raises(AnalysisError, match="choose 1 or more"):
        layer_importances(network, grouped, limit=0)


# --- what was trained whole ----------------------------------------------------------------------


def test_training_runs_are_read(tmp_path):
    encoder = {"depth": 3, "start": "runs/contrastive/encoder.safetensors"}
    config = {"encoder": encoder}
    write_result(
        tmp_path / "one.json", {"test": {"accuracy": 0.75}, "test_clips": 80, "config": config}
    )
    one = read_trained(tmp_path / "one.json")
    assert (one.network, one.layer) == ("contrastive", 3)
    assert (one.low, one.high) == wilson_interval(60, 80)
    seeds = {"accuracy": {"values": [0.7, 0.75, 0.8]}}
    content = {
        "metrics": seeds,
        "test_clips": 80,
        "config": {"encoder": {**encoder, "depth": None}},
    }
    write_result(tmp_path / "three.json", content)
    three = read_trained(tmp_path / "three.json")
    assert three.layer == 11
    assert three.mean == pytest.approx(0.75)
    assert (three.low, three.high) == runs_interval([0.7, 0.75, 0.8])
    (tmp_path / "other.json").write_text(json.dumps({"loss": 1}))
    with pytest.raises(AnalysisError, match=r"other\.json: is not metrics\.json"):
        read_trained(tmp_path / "other.json")
    with pytest.raises(AnalysisError, match="cannot be read"):
        read_trained(tmp_path / "none.json")


def test_figure_and_file(tmp_path):
    content = {
        "test": {"accuracy": 0.9},
        "test_clips": 21,
        "config": {"encoder": {"depth": 4, "start": None}},
    }
    write_result(tmp_path / "metrics.json", content)
    result = layer_importances(
        {"own": stranger()},
        Tones("test", 21),
        training=Tones("train", 30),
        trained=[read_trained(tmp_path / "metrics.json")],
    )
    result.write(tmp_path / "result.json")
    assert ResultTable.read(tmp_path / "result.json") == result
    picture = layers_figure(result, result)
    labels = [text.get_text() for text in picture.figure.legends[0].get_texts()]
    assert labels == ["own, probe", "random weights, probe", "He weights, trained whole", "chance"]
    for axes in picture.figure.axes:
        np.testing.assert_allclose(
            axes.lines[0].get_ydata(), [row.mean for row in probes(result, "own")]
        )
    assert picture.alt.count("own, probe: ") == 2


def test_the_command_draws_one_result_beside_another(tmp_path, data_root):
    shallow = tmp_path / "shallow.safetensors"
    save_checkpoint(shallow, CNN12(width=1 / 16, depth=2, seed=0), {})

    def run(*arguments: str) -> int:
        return main(
            ["analyse", "layers", str(shallow), "--dataset", "fsdd", "--data-root",
             str(data_root), "--limit", "60", "--processes", "1", *arguments]
        )  # fmt: skip

    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert run("--split", "train") == 2
    assert run("--leave-one-out", "--split", "test") == 2
    assert run("--out", str(first)) == 0
    figure = tmp_path / "figure.svg"
    drawn = ("--beside", str(first), "--figure", str(figure))
    assert run("--leave-one-out", "--out", str(second), *drawn) == 0
    assert "fsdd (test)" in figure.read_text()
    assert "fsdd (all)" in figure.read_text()
    assert ResultTable.read(second).data.clips == 60


# --- probed encoders -----------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [CLASSES, CLASSES[:2]])
def test_a_probed_encoder_names_what_its_probe_names(classes):
    training, data = Tones("train", 30, classes), Tones("test", 12, classes)
    encoder = CNN12(width=1 / 16, depth=6, seed=0).eval()
    network = probed(encoder, training, layer=4)
    seen, labels = probe_features(encoder, training, layer=4)
    heard, _ = probe_features(encoder, data, layer=4)
    model = search(StratifiedKFold(5, shuffle=True, random_state=0)).fit(seen.astype(float), labels)
    x = torch.stack([torch.from_numpy(clip.waveform) for clip in data])[:, None]
    with torch.no_grad():
        probabilities = network(x).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, model.predict_proba(heard.astype(float)), atol=1e-4)
    probe = linear_probe(seen, labels, heard)
    assert probabilities.argmax(1).tolist() == probe.predicted.tolist()


def test_a_probed_encoder_goes_through_the_ablation():
    encoder = CNN12(width=1 / 16, depth=6, seed=0).eval()
    network = probed(encoder, Tones("train", 30), layer=4)
    result = ablate({"probe": network}, Tones("test", 6), controls=["white noise"])
    assert {row.layer for row in result.select(quantity="drop")} == {1, 2, 3, 4}


def test_a_probe_must_see_every_class():
    training = Tones("train", 30)
    training.classes = (*CLASSES, "unheard")
    training.heard = 3
    with pytest.raises(DatasetError, match="no clip of 'unheard'"):
        probed(CNN12(width=1 / 16, depth=2, seed=0).eval(), training, layer=2)


def test_layers_of_several_labels_are_scored_by_mean_average_precision(monkeypatch):
    monkeypatch.setattr("sonibook.training.probe.STRENGTHS", (1e-2, 1.0))

    def part(split, size):
        return Soundscapes(split=split, size=size, duration=0.8, events=(1, 3), seed=2)

    network, training, data = stranger()[:6], part("train", 24), part("test", 12)
    result = layer_importances({"mine": network}, data, training=training)
    row = result.row("mAP", network="mine", layer=2, condition="probe")

    def features(part):
        with torch.no_grad():
            maps = [FeatureMaps(network, clip.waveform).maps[1][0].mean(dim=1) for clip in part]
        return torch.stack(maps).numpy()

    def targets(part):
        return np.array([[number in clip.labels for number in range(26)] for clip in part], float)

    scores = linear_probe(features(training), targets(training), features(data)).predicted
    truth = targets(data)
    heard = truth.any(axis=0)
    expected = average_precision_score(truth[:, heard], scores[:, heard], average="macro")
    assert row.mean == pytest.approx(expected, abs=1e-6)
    assert row.low < row.high
    above = result.row("above random", network="mine", layer=2)
    other = result.row("mAP", network="random weights", layer=2, condition="probe")
    assert above.mean == pytest.approx(row.mean - other.mean)
    chance = result.row("mAP", condition="chance")
    assert chance.mean == pytest.approx(truth[:, heard].mean())
    assert layers_figure(result).alt.startswith("MAP of linear probes")
    with pytest.raises(AnalysisError, match="no groups to leave out"):
        layer_importances({"mine": network}, data)
