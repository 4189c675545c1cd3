"""Ablation by subtraction: its controls, its tests, and that it measures what it says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from clips import Held
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import own_classifier, own_network
from scipy import stats
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from sonibook.analysis.ablation import AblationResult, Subtraction, ablate, over_runs
from sonibook.analysis.controls import (
    CONTROLS,
    matched,
    normalise,
    partners,
    perturbations,
    projection,
    random_phase,
    scale,
)
from sonibook.cli import main
from sonibook.datasets import open_dataset
from sonibook.datasets.base import Clip, Dataset
from sonibook.deconvnet.backward import ForwardPass
from sonibook.errors import AnalysisError, LayerError
from sonibook.metrics import mean_average_precision
from sonibook.metrics.intervals import holm, mcnemar_test, sign_flip_test
from sonibook.metrics.scores import log_probability
from sonibook.model.encoder import CNN12, Classifier
from sonibook.plots.interventions import ablation_figure


def tones(count: int = 12, samples: int = 4000) -> Held:
    """Tones in noise, low for class 0 and high for class 1."""
    generator, time = np.random.default_rng(0), np.arange(samples) / 8000
    waveforms = []
    for place in range(count):
        phase = generator.uniform(0, 6)
        x = np.sin(2 * np.pi * (400, 1800)[place % 2] * time + phase)
        x = (x + 0.1 * generator.standard_normal(samples)).astype(np.float32)
        waveforms.append(x / np.abs(x).max())
    return Held(waveforms, [place % 2 for place in range(count)], ("low", "high"))


def stranger(seed: int = 0, classes: int = 2) -> nn.Sequential:
    return own_classifier(own_network(8, 8, 12, 16, seed=seed), 16, classes)


def trained_network(data: Dataset) -> nn.Sequential:
    network = stranger()
    x = torch.stack([torch.from_numpy(clip.waveform) for clip in data])[:, None]
    labels = torch.tensor([clip.labels[0] for clip in data])
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        cross_entropy(network(x), labels).backward()
        optimiser.step()
    return network


def sounds(layers: int = 3, samples: int = 4001, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.tensor([1.0, 0.3, 0.01])[:layers, None]
    return levels * torch.randn(layers, samples, generator=generator)


def inputs(samples: int = 4001, **changes: object) -> dict[str, Any]:
    """What `perturbations` takes."""
    return {
        "x": sounds(1, samples, seed=1)[0],
        "s": sounds(3, samples),
        "by_random": sounds(3, samples, seed=2),
        "of_another": sounds(3, samples // 2, seed=3),
        "clip_id": "a clip",
        "seed": 0,
        **changes,
    }


def naive_log_softmax(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array(
        [
            row[label] - np.log(sum(np.exp(one) for one in row.astype(float)))
            for row, label in zip(logits, labels, strict=True)
        ]
    )


def same(first: AblationResult, second: AblationResult) -> bool:
    return first == second and first.model_dump_json(
        exclude={"provenance"}
    ) == second.model_dump_json(exclude={"provenance"})


# --- controls ------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [4000, 4001])
def test_controls_have_the_rms_of_the_sonification(samples):
    given_, taken = inputs(samples), perturbations(**inputs(samples))
    assert taken.shape == (len(CONTROLS), 3, samples)
    reference = np.sqrt(np.mean(given_["s"].numpy().astype(float) ** 2, axis=-1))
    for control, one in zip(CONTROLS, taken, strict=True):
        own = np.sqrt(np.mean(one.numpy().astype(float) ** 2, axis=-1))
        if control != "least squares":
            np.testing.assert_allclose(own, reference, rtol=1e-6)


@pytest.mark.parametrize("samples", [1000, 1001])
def test_random_phase_keeps_the_magnitude_spectrum_and_nothing_else(samples):
    s = sounds(2, samples).double()
    turned = random_phase(s, generator=np.random.default_rng(0))
    spectra = [np.abs(np.fft.rfft(one.numpy())) for one in (s, turned)]
    np.testing.assert_allclose(spectra[0], spectra[1], rtol=1e-9, atol=1e-9)
    assert abs(np.corrcoef(s[0], turned[0])[0, 1]) < 0.15
    # Each layer has phases of its own.
    assert (
        abs(np.corrcoef(random_phase(s[[0, 0]], generator=np.random.default_rng(0)))[0, 1]) < 0.15
    )


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_least_squares_leaves_nothing_that_a_gain_could_explain(seed):
    x, s = sounds(1, 500, seed=seed)[0].double(), sounds(3, 500, seed=seed + 1).double()
    left = x - projection(x, s)
    cosine = (left * s).sum(-1) / (left.norm(dim=-1) * s.norm(dim=-1))
    assert float(cosine.abs().max()) < 1e-12
    # No other gain leaves less.
    gain = np.linalg.lstsq(s[0].numpy()[:, None], x.numpy(), rcond=None)[0]
    np.testing.assert_allclose(projection(x, s)[0], gain * s[0].numpy(), rtol=1e-9, atol=1e-12)


def test_levels_and_residuals_are_as_stated():
    x, s = inputs()["x"], inputs()["s"]
    assert scale(s, x, "peak") is s
    torch.testing.assert_close(scale(s, x, "least squares"), projection(x, s))
    assert normalise(s, "as is") is s
    peaks = normalise(torch.cat([s, 0 * s]), "unit peak").abs().amax(dim=1)
    torch.testing.assert_close(peaks, torch.tensor([1.0, 1, 1, 0, 0, 0]))


def test_what_is_random_depends_on_clip_and_seed_alone():
    every = perturbations(**inputs())
    again = perturbations(**inputs(), controls=["white noise", "random phase"])
    torch.testing.assert_close(again[0], every[CONTROLS.index("white noise")])
    torch.testing.assert_close(again[1], every[CONTROLS.index("random phase")])
    for change in ({"clip_id": "another"}, {"seed": 1}):
        other = perturbations(**inputs(**change), controls=["white noise"])
        assert not torch.equal(other[0], again[0])


def test_silence_gives_silence_under_every_control():
    s = inputs()["s"]
    assert not perturbations(**inputs(s=0 * s)).any()
    assert not matched(0 * s, s).any()
    torch.testing.assert_close(matched(s, s.flip(0)).square().mean(1), s.flip(0).square().mean(1))


def test_controls_say_what_they_need():
    with pytest.raises(ValueError, match="'random weights' needs"):
        perturbations(**inputs(by_random=None))


def test_partners_share_no_label_where_that_can_be():
    clips = [Clip(np.ones(1, np.float32), labels, "") for labels in [(0,), (0,), (1,), (0, 1)]]
    assert partners(clips) == [2, 2, 0, 0]
    assert partners(clips[:2]) == [1, 0]
    assert partners(clips[:1]) == [None]


# --- paired tests --------------------------------------------------------------------------------


def test_sign_flips_agree_with_scipy():
    generator = np.random.default_rng(1)
    differences = generator.normal([0.0, 0.3, 0.6], 1.0, (30, 3))
    ours = sign_flip_test(differences, flips=20_000)
    for column, p in zip(differences.T, ours, strict=True):
        theirs = stats.permutation_test(
            (column,),
            np.mean,
            permutation_type="samples",
            n_resamples=20_000,
            rng=np.random.default_rng(2),
        ).pvalue
        assert p == pytest.approx(theirs, abs=0.012)
        assert p == pytest.approx(stats.ttest_1samp(column, 0).pvalue, abs=0.02)


def test_few_sign_flips_are_all_counted():
    """Of five equal differences, 2 in 2**5 flips are as extreme as what was seen."""
    p = sign_flip_test(np.full((5, 1), 0.1), flips=50_000)[0]
    assert p == pytest.approx(2 / 32, abs=0.005)


def test_sign_flips_leave_out_what_was_not_measured():
    differences = np.random.default_rng(0).normal(0.4, 1, (20, 1))
    longer = np.concatenate([differences, np.full((7, 1), np.nan)])
    first, second = (sign_flip_test(one, flips=20_000)[0] for one in (differences, longer))
    assert first == pytest.approx(second, abs=0.01)
    assert sign_flip_test(np.full((5, 2), np.nan)).tolist() == [1.0, 1.0]
    assert sign_flip_test(np.zeros((5, 1))).tolist() == [1.0]


def test_false_alarms_of_sign_flips_are_as_rare_as_stated():
    differences = np.random.default_rng(3).standard_t(3, (25, 2000))
    share = np.mean(sign_flip_test(differences, flips=999) <= 0.05)
    assert share == pytest.approx(0.05, abs=0.02)


def test_mcnemar_is_the_binomial_test_of_what_differs():
    generator = np.random.default_rng(0)
    first, second = generator.random(200) < 0.7, generator.random(200) < 0.6
    b, c = np.sum(first & ~second), np.sum(~first & second)
    one_tail = stats.binom.cdf(min(b, c), b + c, 0.5)
    assert mcnemar_test(first, second) == pytest.approx(min(2 * one_tail, 1.0))
    assert mcnemar_test(first, second) == mcnemar_test(second, first)
    assert mcnemar_test(first, first) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_step_by_step_definition_rejects(values):
    p = np.array(values)
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for step, place in enumerate(np.argsort(p, kind="stable")):
            if p[place] * (len(p) - step) > level:
                break
            rejected.add(place)
        assert rejected == set(np.flatnonzero(adjusted <= level))


# --- the measure ---------------------------------------------------------------------------------


def test_log_probabilities_are_those_that_networks_are_trained_by():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 1, 1, 2])
    one_hot = np.eye(4, dtype=np.float32)[labels.numpy()]
    single = log_probability(logits.numpy(), one_hot, "single-label")
    np.testing.assert_allclose(
        single, -cross_entropy(logits, labels, reduction="none").numpy(), rtol=1e-5
    )
    targets = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], np.float32)
    multi = log_probability(logits[:2].numpy(), targets, "multi-label")
    losses = binary_cross_entropy_with_logits(logits[0, :2], torch.ones(2))
    assert multi[0] == pytest.approx(-float(losses), rel=1e-5)
    assert np.isnan(multi[1])


def test_residuals_are_what_a_naive_loop_hears():
    data, network = tones(3), stranger()
    arrays = Subtraction(CONTROLS, (1, 3, 4))(network, list(data))
    assert arrays["residual"].shape == (3, len(CONTROLS), 3, 2)
    heard = [ForwardPass(network.encoder, clip.waveform) for clip in data]
    for place, clip in enumerate(data):
        x = torch.from_numpy(clip.waveform)
        partner = partners(list(data))[place]
        with torch.no_grad():
            np.testing.assert_allclose(
                arrays["clip"][place], network(x[None, None])[0], rtol=1e-5, atol=1e-6
            )
            for row, layer in enumerate((1, 3, 4)):
                best = [int(one.energy(layer).argmax()) for one in heard]
                s = heard[place].sonify(layer, [best[place]])[0]
                other = heard[partner].sonify(layer, [best[partner]])[0]
                other = other * s.square().mean().sqrt() / other.square().mean().sqrt()
                gain = (x @ s) / (s @ s)
                for control, taken in {
                    "sonification": s,
                    "another clip": other,
                    "addition": -s,
                    "least squares": gain * s,
                }.items():
                    expected = network((x - taken)[None, None])[0]
                    found = arrays["residual"][place, CONTROLS.index(control), row]
                    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_dead_layers_are_left_out_and_counted():
    network = stranger()
    with torch.no_grad():
        network.encoder[6].bias.fill_(-1e3)  # layer 3 is dead, and layer 4 hears zeros
        network.encoder[9].bias.abs_()
    result = ablate({"own": network}, tones(4), layers=[2, 3])
    own = result.select(quantity="score", condition="sonification")
    assert {row.layer: row.clips for row in own} == {2: 4, 3: 0}
    for quantity in ("score", "drop", "difference"):
        rows = result.select(quantity=quantity, layer={2, 3})
        assert {row.layer for row in rows if row.mean is not None} == {2}
    assert {row.layer for row in result.select(quantity={"p", "mcnemar"})} == {2}


def test_a_clip_alone_has_no_other_clip():
    rows = ablate({"own": stranger()}, tones(1), layers=[2]).select(quantity="score", layer=2)
    assert {row.condition for row in rows if row.clips} == set(CONTROLS) - {"another clip"}


# --- the analysis --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    data = tones()
    network = trained_network(data)
    return data, network, ablate({"own": network}, data)


def test_a_network_of_ones_own_goes_through(found):
    data, _, result = found
    assert result.row("score", network="own", condition="untouched").mean == 1.0
    assert result.score == "accuracy"
    assert result.data.clips == len(data)
    assert len(result.select(quantity="drop")) == 4 * len(CONTROLS)
    assert len(result.select(quantity="difference")) == 4 * (len(CONTROLS) - 1)


def test_scores_drops_and_tests_follow_from_the_logits(found):
    data, network, result = found
    arrays = Subtraction(CONTROLS)(network, list(data))
    truth = np.array([clip.labels[0] for clip in data])
    lost = {}
    for row in result.select(quantity="drop"):
        cell = {"network": "own", "layer": row.layer, "condition": row.condition}
        logits = arrays["residual"][:, CONTROLS.index(row.condition), row.layer - 1].astype(float)
        before, after = (naive_log_softmax(some, truth) for some in (arrays["clip"], logits))
        score = np.mean(logits.argmax(1) == truth)
        assert result.row("score", **cell).mean == pytest.approx(score)
        assert row.mean == pytest.approx(np.mean(before - after), abs=1e-6)
        assert result.row("untouched", **cell).mean == 1.0
        lost[row.layer, row.condition] = before - after, logits.argmax(1) == truth
    for row in result.select(quantity="difference"):
        cell = {"network": "own", "layer": row.layer, "condition": row.condition}
        (s, s_right), (c, c_right) = lost[row.layer, "sonification"], lost[row.layer, row.condition]
        assert row.mean == pytest.approx(np.mean(s - c), abs=1e-6)
        assert row.low <= row.mean <= row.high
        assert result.row("mcnemar", **cell).mean == pytest.approx(mcnemar_test(s_right, c_right))
    p, adjusted = (
        np.array([row.mean for row in result.select(quantity=name)]) for name in ("p", "p_holm")
    )
    np.testing.assert_allclose(adjusted, holm(p))


def test_results_are_the_same_again_and_after_reading(found, tmp_path):
    data, network, whole = found
    result, again, other = (ablate({"own": network}, data, layers=[2], seed=n) for n in (0, 0, 1))
    assert same(result, again)
    assert not same(result, other)
    whole.write(tmp_path / "result.json")
    assert same(whole, AblationResult.read(tmp_path / "result.json"))


def test_the_rules_for_levels_matter_and_are_recorded(found):
    data, network, result = found
    other = ablate({"own": network}, data, layers=[2], level="least squares", residual="unit peak")
    assert other.settings["level"] == "least squares"
    rows = {row.condition: row.model_dump() for row in other.select(quantity="drop")}
    assert rows["sonification"] == {**rows["least squares"], "condition": "sonification"}
    before = result.row("drop", network="own", layer=2, condition="sonification")
    assert before.mean != rows["sonification"]["mean"]


@pytest.mark.usefixtures("quick_processes")
def test_two_processes_give_the_same_json(tmp_path):
    data = open_dataset("soundscapes", split="test", size=6, duration=1.0, task="single-label")
    network = Classifier(CNN12(width=1 / 16, seed=0), data.classes, seed=0).eval()
    one, two = (
        ablate({"small": network}, data, layers=[3, 11], processes=processes, chunk=3)
        for processes in (1, 2)
    )
    assert same(one, two)


def test_several_labels_are_scored_by_map():
    data = open_dataset("soundscapes", split="test", size=8, duration=1.0, events=(1, 2))
    assert data.task == "multi-label"
    network = Classifier(CNN12(width=1 / 16, seed=0), data.classes, seed=0).eval()
    result = ablate({"small": network}, data, layers=[11], controls=["white noise"])
    assert result.score == "mAP"
    arrays = Subtraction(("sonification", "white noise"), (11,))(network, list(data))
    expected = mean_average_precision(arrays["clip"], arrays["targets"])
    untouched = result.row("score", network="small", condition="untouched")
    assert untouched.mean == pytest.approx(expected)
    assert not result.select(quantity="mcnemar")


def test_runs_are_tested_as_runs():
    data = tones(6)
    networks = {f"run {seed}": stranger(seed) for seed in range(3)}
    result = ablate(networks, data, layers=[2], controls=["white noise"], are_runs=True)
    cell = {"layer": 2, "condition": "white noise"}
    of_run = [result.row("difference", network=name, **cell) for name in networks]
    means = [row.mean for row in of_run]
    whole = result.row("difference", **cell)
    assert whole.mean == pytest.approx(np.mean(means))
    assert result.row("p", **cell).mean == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    interval = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    assert (whole.low, whole.high) == pytest.approx(interval)
    twice = over_runs(of_run[:1] * 2, networks=2)
    assert [row.mean for row in twice if row.quantity == "p"] == [1.0]


def test_what_is_refused():
    data, network = tones(4), stranger()
    with pytest.raises(AnalysisError, match="names 3 classes and held has 2"):
        ablate({"own": stranger(classes=3)}, data)
    with pytest.raises(AnalysisError, match="no control 'silence'"):
        ablate({"own": network}, data, controls=["silence"])
    with pytest.raises(AnalysisError, match="no level 'loud'"):
        ablate({"own": network}, data, level="loud")
    with pytest.raises(LayerError, match="Layer 5"):
        ablate({"own": network}, data, layers=[5])
    with pytest.raises(AnalysisError, match="two different networks"):
        ablate({"own": network, "again": network}, data, are_runs=True)


def test_the_figure_says_what_it_shows(found):
    picture = ablation_figure(found[2])
    assert "own: accuracy 1 untouched" in picture.alt
    assert len(picture.figure.axes) == 2
    assert len(picture.image) > 10_000


def test_the_command_writes_result_and_figure(tmp_path, data_root):
    out, figure = tmp_path / "ablation.json", tmp_path / "ablation.png"
    code = main(
        ["analyse", "ablation", "supervised", "--dataset", "esc50", "--folds", "5",
         "--data-root", str(data_root), "--limit", "3", "--layers", "8,11", "--processes", "1",
         "--out", str(out), "--figure", str(figure)]
    )  # fmt: skip
    assert code == 0
    assert figure.stat().st_size > 10_000
    assert json.loads(out.read_text())["settings"]["layers"] == [8, 11]
    assert AblationResult.read(out).names() == ["supervised"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ablation.json", "ablation.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["random", "--dataset", "soundscapes"], "add --probe"),
        (["supervised", "--dataset", "soundscapes"], "classes, which are not the"),
        (["supervised", "--dataset", "soundscapes", "--layers", "a"], "not a list of layers"),
        (
            ["supervised", "--dataset", "soundscapes", "--split", "train", "--probe"],
            "fitted to train",
        ),
    ],
)
def test_the_command_refuses_in_a_sentence(arguments, message, capsys):
    assert main(["analyse", "ablation", *arguments]) == 2
    assert message in capsys.readouterr().err
