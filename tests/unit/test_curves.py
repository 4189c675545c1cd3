"""Curves of networks that differ in their seed alone: one bold, the others thin and not listed."""

from __future__ import annotations

from sonibook.analysis.result import MeasuredOn, ResultTable, Row
from sonibook.plots.features import Panel, figure_over_layers, first_of_regimes


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
