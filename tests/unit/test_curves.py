"""Curves of networks that differ in their seed alone: one bold, the others thin and not listed."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib.pyplot as plt

from sonibook.analysis.result import Estimate
from sonibook.plots.curves import draw_networks, main_curves


def test_a_legend_lists_one_network_of_a_kind_and_counts_the_rest() -> None:
    rows = [
        SimpleNamespace(layer=layer, value=Estimate(mean=layer / 10, low=0.0, high=1.0, clips=9))
        for layer in (1, 2)
    ]
    names = ("contrastive-1", "contrastive", "random weights", "random weights-1", "supervised")
    networks = [
        SimpleNamespace(network=name, baseline=name.startswith("random"), layers=rows)
        for name in names
    ]
    figure, axes = plt.subplots()
    draw_networks(axes, networks, lambda row: row.value, label="{}, probe")
    labels = axes.get_legend_handles_labels()[1]
    assert labels == [
        "contrastive, probe (thin: 1 more)",
        "random weights, probe (thin: 1 more)",
        "supervised, probe",
    ]
    colours = [line.get_color() for line in axes.lines]
    assert colours[0] == colours[1] != colours[4]
    assert axes.lines[0].get_linewidth() < axes.lines[1].get_linewidth()
    assert [one.network for one in main_curves(networks)] == [names[1], names[2], names[4]]
    plt.close(figure)
