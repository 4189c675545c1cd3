"""Faithfulness: every measure against its definition, computed anew by other means."""

from __future__ import annotations

import inspect
import os

import numpy as np
import pytest
import torch
from clips import Held
from oracles import own_classifier, own_network
from scipy import signal, stats
from torch import nn

from sonibook.analysis.controls import CONTROLS, as_long_as, partners
from sonibook.analysis.faithfulness import (
    QUANTITIES,
    concentration,
    dose_response,
    faithfulness,
    kept_and_lost,
    partial_clips,
)
from sonibook.analysis.result import ResultTable
from sonibook.cli import main
from sonibook.datasets import open_dataset
from sonibook.deconvnet import sonify
from sonibook.errors import AnalysisError
from sonibook.plots.interventions import faithfulness_figure


def tones() -> Held:
    """Tones in noise: low for class 0, high for class 1."""
    generator, time = np.random.default_rng(0), np.arange(3000) / 8000
    sounds = []
    for place in range(4):
        x = np.sin(2 * np.pi * (400, 1800)[place % 2] * time + generator.uniform(0, 6))
        x += 0.3 * generator.standard_normal(3000)
        sounds.append((x / np.abs(x).max()).astype("f4"))
    return Held(sounds, [0, 1, 0, 1], ("low", "high", "none"))


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    network = own_classifier(own_network(8, 8, 12), 12, 3)
    with torch.no_grad():
        network.head.weight.mul_(30)  # so that it is sure of itself
    return network


def probabilities(network: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits = network(torch.from_numpy(np.asarray(x, "f4"))[None, None])[0].double().numpy()
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def spectrum(x: np.ndarray) -> np.ndarray:
    """By scipy, without its scale, and the frames that PyTorch has."""
    window = signal.get_window("hann", 256)
    found = signal.stft(x, window=window, nperseg=256, padded=True, boundary="zeros")[2]
    return found[:, : len(x) // 128 + 1] * window.sum()


def most_active(network: nn.Module, x: np.ndarray, layer: int) -> np.ndarray:
    wave = torch.from_numpy(x)
    with torch.no_grad():
        energy = network.encoder[: 3 * layer](wave[None, None])[0].square().sum(dim=1)
    return sonify(network.encoder, wave, layer=layer, filters=[int(energy.argmax())])[0].numpy()


def by_definition(network: nn.Module, x: np.ndarray, s: np.ndarray) -> dict[str, float]:
    whole, kept, lost = (probabilities(network, one) for one in (x, s, x - s))
    c = whole.argmax()
    sizes = np.abs(spectrum(s)).flatten()
    lorenz = np.cumsum(np.sort(sizes)) / sizes.sum()
    return {
        "AI": 100.0 if kept[c] > whole[c] else 0.0,
        "AD": 100 * max(0, whole[c] - kept[c]) / whole[c],
        "AG": 100 * max(0, kept[c] - whole[c]) / (1 - whole[c]),
        "FF": whole[c] - lost[c],
        "Fid-In": float(kept.argmax() == c),
        # Twice the area between the line of equality and Lorenz's curve.
        "sparseness": (len(sizes) + 1 - 2 * lorenz.sum()) / len(sizes),
        "complexity": stats.entropy(sizes),
    }


@pytest.mark.parametrize("level", ["peak", "least squares"])
def test_every_number_follows_from_its_definition(network, level: str) -> None:
    data, layers = tones(), (1, 3)
    result = faithfulness(
        {"net": network}, data, layers=layers, methods=[], points=4, level=level, chunk=4
    )
    partner = partners(list(data))
    for layer in layers:
        sounds = [most_active(network, clip.waveform, layer) for clip in list(data)]
        found: dict[str, list[dict[str, float]]] = {}
        for clip, s, other in zip(list(data), sounds, partner, strict=True):
            x = clip.waveform
            if level == "least squares":
                s = s * float(np.dot(x, s) / np.dot(s, s))
            another = as_long_as(torch.from_numpy(sounds[other]), len(x)).numpy()
            another = another * np.sqrt(np.mean(s.astype(float) ** 2) / np.mean(another**2))
            for condition, one in (("sonification", s), ("another clip", another),
                                   ("the clip itself", x)):  # fmt: skip
                found.setdefault(condition, []).append(by_definition(network, x, one))
        for condition, rows in found.items():
            for quantity in rows[0]:
                ours = result.row(quantity, network="net", layer=layer, condition=condition)
                expected = np.mean([row[quantity] for row in rows])
                assert ours.mean == pytest.approx(expected, abs=2e-3, rel=1e-3), (
                    quantity, condition, layer)  # fmt: skip
    conditions = {row.condition for row in result.rows}
    assert conditions == {*CONTROLS[:5], "the clip itself"}
    assert result.settings["level"] == level
    assert "Faithfulness to what net names" in faithfulness_figure(result).alt


def test_points_come_in_the_order_of_their_size(network) -> None:
    generator = np.random.default_rng(1)
    x, s = generator.standard_normal((2, 3000)).astype("f4")
    inserted, deleted = partial_clips(torch.from_numpy(x), torch.from_numpy(s), 4)
    points, sizes = spectrum(x), np.abs(spectrum(s))
    window = signal.get_window("hann", 256)
    ranks = stats.rankdata(-sizes.flatten(), method="ordinal").reshape(sizes.shape)
    for step, (own, rest) in enumerate(zip(inserted.numpy(), deleted.numpy(), strict=True), 1):
        kept = np.where(ranks <= step / 4 * sizes.size, points, 0)
        expected = signal.istft(kept / window.sum(), window=window, nperseg=256)[1]
        inner = slice(256, 2600)  # beyond the frames that scipy pads
        np.testing.assert_allclose(own[inner], expected[inner], atol=2e-4)
        np.testing.assert_allclose(own + rest, x, atol=1e-5)


def test_curves_are_means_between_silence_and_the_clip(network) -> None:
    data = tones()
    result = faithfulness({"net": network}, data, layers=[2], methods=[], points=3)
    areas = []
    for clip in list(data):
        x = clip.waveform
        s = most_active(network, x, 2)
        inserted, deleted = partial_clips(torch.from_numpy(x), torch.from_numpy(s), 3)
        c = probabilities(network, x).argmax()
        ends = [probabilities(network, one)[c] for one in (np.zeros_like(x), x)]
        first = [probabilities(network, one)[c] for one in inserted.numpy()]
        then = [probabilities(network, one)[c] for one in deleted.numpy()]
        areas.append([(sum(ends) / 2 + sum(middle)) / 3 for middle in (first, then)])
    for name, expected in zip(("insertion", "deletion"), np.mean(areas, axis=0), strict=True):
        row = result.row(name, network="net", layer=2, condition="sonification")
        assert row.mean == pytest.approx(expected, abs=1e-4)


def test_a_dose_is_a_share_of_what_is_taken_away(network) -> None:
    data, shares = tones(), (0.5, 1.0)
    result = dose_response({"net": network}, data, layers=[2], shares=shares)
    for share in (0.0, *shares):
        scores = [
            probabilities(network, clip.waveform - share * most_active(network, clip.waveform, 2))
            for clip in list(data)
        ]
        true = np.mean([p[clip.labels[0]] for p, clip in zip(scores, data, strict=True)])
        of = {"layer": 2, "condition": "sonification"} if share else {}
        own = result.row(f"score at {share:g}", network="net", **of)
        assert own.mean == pytest.approx(true, abs=1e-4)
        for control in ("random weights", "random phase", "white noise") if share else ():
            found = {
                name: result.row(f"{name} at {share:g}", network="net", layer=2, condition=control)
                for name in ("score", "lead")
            }
            assert found["lead"].mean == pytest.approx(found["score"].mean - own.mean)


def test_gradients_stand_beside_it_and_all_is_repeatable(network, tmp_path) -> None:
    pytest.importorskip("captum")
    found = [
        faithfulness({"net": network}, tones(), layers=[2], points=None, steps=4, limit=2)
        for _ in range(2)
    ]
    assert found[0] == found[1]
    conditions = {row.condition for row in found[0].rows}
    assert {"guided backpropagation", "gradient x input", "integrated gradients"} < conditions
    assert {row.quantity for row in found[0].rows} == set(QUANTITIES) - {"insertion", "deletion"}
    found[0].write(tmp_path / "f.json")
    assert ResultTable.read(tmp_path / "f.json") == found[0]


def test_a_sure_classifier_can_gain_nothing() -> None:
    sure = kept_and_lost(np.array([1.0, 0.0]), np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert {name: float(values[0]) for name, values in sure.items()} == {
        "AI": 0.0, "AD": 0.0, "AG": 0.0, "FF": 1.0, "Fid-In": 1.0,
    }  # fmt: skip


def test_one_point_is_sparse_and_many_are_complex() -> None:
    found = concentration(np.vstack([np.eye(1, 1000) + 0.0, 7 * np.ones((1, 1000))]))
    assert found["sparseness"] == pytest.approx([0.999, 0.0])
    assert found["complexity"] == pytest.approx([0.0, np.log(1000)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": 1}, "points 1 is impossible: choose 2 or more"),
        ({"steps": 0}, "steps 0 is impossible: choose 1 or more"),
        ({"level": "loud"}, "no level 'loud'"),
        ({"methods": ["guess"]}, "no method 'guess'"),
    ],
)
def test_what_is_refused(network, changes, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        inspect.unwrap(faithfulness)({"net": network}, tones(), **changes)


def test_clips_of_several_labels_are_refused(network) -> None:
    scenes = open_dataset("soundscapes", size=2, duration=0.6)
    with pytest.raises(AnalysisError, match="soundscapes is multi-label"):
        faithfulness({"net": network}, scenes)
    with pytest.raises(AnalysisError, match="soundscapes is multi-label"):
        dose_response({"net": network}, scenes)
    with pytest.raises(AnalysisError, match=r"Shares \[0.0\] are impossible"):
        dose_response({"net": network}, tones(), shares=[0.0])


@pytest.mark.skipif("SONIBOOK_DATA" not in os.environ, reason="needs recordings: SONIBOOK_DATA")
def test_the_command_measures_a_published_classifier(tmp_path, capsys) -> None:
    out = tmp_path / "f.json"
    code = main(
        ["analyse", "faithfulness", "supervised", "--dataset", "esc50", "--folds", "5", "--limit",
         "2", "--layers", "8", "--points", "0", "--steps", "2", "--processes", "1", "--out",
         str(out), "--figure", str(tmp_path / "f.svg"), "--level", "least squares"]
    )  # fmt: skip
    assert code == 0
    assert "Fid-In" in capsys.readouterr().out
    result = ResultTable.read(out)
    kept = {"network": "supervised", "layer": 8, "condition": "the clip itself"}
    assert result.row("Fid-In", **kept).mean == 1.0
    assert result.row("AI", **kept).mean == result.row("AD", **kept).mean == 0.0
    assert main(["analyse", "faithfulness", "random", "--dataset", "esc50"]) == 2
    assert "add --probe" in capsys.readouterr().err
