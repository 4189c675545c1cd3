"""Figures of training and over layers draw what they are handed, the temperature NT-Xent's own."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle
from torch import Tensor

from sonibook import show
from sonibook.analysis.result import MeasuredOn, ResultTable, Row
from sonibook.plots.features import Panel, figure_over_layers, first_of_regimes
from sonibook.plots.training import (
    crops,
    intervals,
    probabilities,
    shares,
    similarity_matrix,
    temperature_picture,
    temperature_words,
)
from sonibook.training.objectives import nt_xent
from sonibook.widgets.animation import TemperatureSlider

RATE = 8000


def views(pairs: int = 6, dim: int = 5) -> Tensor:
    return torch.randn(2 * pairs, dim, generator=torch.Generator().manual_seed(3))


def cosines(z: Tensor) -> Tensor:
    unit = F.normalize(z, dim=1)
    return unit @ unit.T


# The temperature


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0, 10.0])
def test_loss_is_that_of_training(temperature: float) -> None:
    z = views().double()
    probability = probabilities(cosines(z), temperature)
    loss = -probability.diagonal(len(z) // 2).log().mean() / 2
    loss -= probability.diagonal(-len(z) // 2).log().mean() / 2
    assert float(loss) == pytest.approx(float(nt_xent(z, temperature=temperature)), rel=1e-9)
    told = f"the loss is {float(loss):.2f} nats"
    assert told in temperature_words(cosines(z), temperature)


def test_probabilities_by_naive_loops() -> None:
    similarity = cosines(views(pairs=3))
    found = probabilities(similarity, 0.2)
    for i in range(6):
        terms = [0.0 if k == i else math.exp(float(similarity[i, k]) / 0.2) for k in range(6)]
        np.testing.assert_allclose(found[i], np.array(terms) / sum(terms), rtol=1e-6)


def test_similarities_are_left_as_they_are() -> None:
    similarity = cosines(views()).double()
    before = similarity.clone()
    probabilities(similarity, 0.1)
    assert torch.equal(similarity, before)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_shares_are_those_of_the_gradient(temperature: float) -> None:
    similarity = cosines(views().double())
    rows = len(similarity)
    partner = torch.arange(rows).roll(rows // 2)
    tracked = similarity.clone().requires_grad_()
    itself = torch.eye(rows, dtype=torch.bool)
    F.cross_entropy((tracked / temperature).masked_fill(itself, -torch.inf), partner).backward()
    assert tracked.grad is not None
    negative = ~itself & ~F.one_hot(partner, rows).bool()
    pushes = tracked.grad[negative].reshape(rows, rows - 2)
    expected = (pushes / pushes.sum(dim=1, keepdim=True)).sort(dim=1, descending=True).values
    torch.testing.assert_close(shares(similarity, temperature), expected.mean(dim=0))


def test_a_low_temperature_pushes_the_hardest_a_high_one_all() -> None:
    similarity = cosines(views())
    cold, hot = shares(similarity, 0.001), shares(similarity, 1000.0)
    assert float(cold[0]) > 0.9
    torch.testing.assert_close(hot, torch.full_like(hot, 1 / len(hot)), rtol=0.01, atol=0)


@pytest.mark.parametrize("rows", [2, 5])
def test_rows_without_rivals_are_refused(rows: int) -> None:
    with pytest.raises(ValueError, match="not pairs with rivals"):
        probabilities(torch.eye(rows), 0.1)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_an_impossible_temperature_is_named(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        probabilities(torch.eye(4), temperature)


def test_partners_are_framed() -> None:
    figure = similarity_matrix(cosines(views(pairs=3)), names=list("abcdef"))
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    framed = {(round(patch.get_y() + 0.5), round(patch.get_x() + 0.5)) for patch in frames}
    assert framed == {(0, 3), (1, 4), (2, 5), (3, 0), (4, 1), (5, 2)}
    with pytest.raises(ValueError, match="2 names"):
        similarity_matrix(cosines(views(pairs=3)), names=["a", "b"])


def test_bars_are_the_shares() -> None:
    similarity = cosines(views())
    bars = temperature_picture(similarity, 0.1).axes[1].patches
    heights = [bar.get_height() for bar in bars]
    np.testing.assert_allclose(heights, shares(similarity, 0.1))


def test_words_have_the_numbers() -> None:
    similarity = cosines(views())
    words = temperature_words(similarity, 0.1)
    assert f"{float(nt_xent(views(), temperature=0.1)):.2f} nats" in words
    assert f"{float(shares(similarity, 0.1)[0]):.0%} of the push" in words


def test_the_slider_has_a_form_without_a_script_and_keeps_the_similarities() -> None:
    similarity = cosines(views())
    page = TemperatureSlider(similarity, temperature=0.2)._repr_html_()
    assert temperature_words(similarity, 0.2) in page
    assert re.search(r'<img [^>]*alt="[^"]{20,}"', page)
    kept = json.loads(re.findall(r'application/json">(.*?)</script>', page)[0])
    np.testing.assert_allclose(kept["similarity"], similarity, atol=1e-5)
    with pytest.raises(ValueError, match="impossible"):
        TemperatureSlider(similarity, temperature=0.0)


# Training


def test_crops_lie_where_they_were_cut() -> None:
    x = np.random.default_rng(0).standard_normal(2 * RATE).astype("f4")
    figure = crops(x, {"one": 800, "two": 12000}, length=RATE)
    bars = figure.axes[1].patches
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0.1, 1.0), (1.5, 1.0)]
    # The second ends after the clip, and is drawn to its end.
    assert figure.axes[0].get_xlim()[1] == pytest.approx(2.5)
    with pytest.raises(ValueError, match="no crop"):
        crops(x, {}, length=RATE)


def test_lines_draw_every_curve_and_reference() -> None:
    figure = show.lines(
        {"a": ([1, 2, 4], [3.0, 2.0, 1.0]), "b": (range(50), range(50))},
        xlabel="epoch",
        ylabel="loss",
        references={"chance": 0.5},
        log_x=True,
    )
    (axes,) = figure.axes
    drawn = {str(line.get_label()): line for line in axes.get_lines()}
    np.testing.assert_array_equal(drawn["a"].get_xydata(), [[1, 3], [2, 2], [4, 1]])
    assert set(drawn["chance"].get_ydata()) == {0.5}
    assert (drawn["a"].get_marker(), drawn["b"].get_marker()) == ("o", "")
    assert axes.get_xscale() == "log"
    with pytest.raises(ValueError, match="2 values were given for 3 places"):
        show.lines({"a": ([1, 2, 3], [1.0, 2.0])}, xlabel="", ylabel="")


def test_intervals_show_results_ends_and_chance() -> None:
    figure = intervals({"ours": (0.8, 0.7, 0.9), "random": (0.5, 0.4, 0.6)}, xlabel="", chance=0.1)
    (axes,) = figure.axes
    drawn = [np.asarray(line.get_xdata(), float).tolist() for line in axes.get_lines()]
    assert drawn == [[0.7, 0.9], [0.8], [0.4, 0.6], [0.5], [0.1, 0.1]]
    assert [text.get_text() for text in axes.texts] == ["80%", "50%"]
    with pytest.raises(ValueError, match=r"ours: 0\.8 does not lie between"):
        intervals({"ours": (0.8, 0.1, 0.2)}, xlabel="", chance=0.1)


# Over layers


def test_a_legend_lists_one_network_of_a_regime_and_counts_the_rest() -> None:
    networks = [
        ("contrastive-1", "contrastive"),
        ("contrastive", "contrastive"),
        ("random weights", "random"),
        ("random weights-1", "random"),
        ("supervised", "supervised"),
    ]
    rows = [
        Row(network=name, regime=regime, baseline=regime == "random", layer=layer,
            quantity="accuracy", condition=condition, mean=layer / 10, low=0.0, high=1.0, clips=9)
        for name, regime in networks
        for condition in ("probe", "whole")
        for layer in (1, 2)
    ]  # fmt: skip
    data = MeasuredOn(dataset="d", split="all", size=9, clips=9, skipped={})
    table = ResultTable(analysis="a", data=data, networks={}, settings={}, rows=tuple(rows))
    panels = [Panel("accuracy", "accuracy", ("probe", "whole")), Panel("accuracy", "x", ("probe",))]
    drawn = figure_over_layers(table, panels, what="Accuracy", columns=1).figure
    several, single = drawn.axes
    assert several.get_legend_handles_labels()[1] == [
        "contrastive-1, probe (thin: 1 more)",
        "random weights, probe (thin: 1 more)",
        "supervised, probe",
        "contrastive-1, whole (thin: 1 more)",
        "supervised, whole",
    ]
    assert single.get_legend_handles_labels()[1] == [
        "contrastive-1 (thin: 1 more)",
        "random weights (thin: 1 more)",
        "supervised",
    ]
    colours = [line.get_color() for line in single.lines]
    assert colours[0] == colours[1] != colours[4]
    assert single.lines[0].get_linewidth() > single.lines[1].get_linewidth()
    assert first_of_regimes(table) == ["contrastive-1", "random weights", "supervised"]
