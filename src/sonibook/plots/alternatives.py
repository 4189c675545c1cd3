"""Alternatives to the paper's sonification as figures: other unpoolings, other explanations."""

from __future__ import annotations

from itertools import product

from sonibook.analysis.alternatives import STARTS, ExplanationResult, UnpoolingResult
from sonibook.analysis.faithfulness import FaithfulnessResult
from sonibook.deconvnet.unpooling import UNPOOLING
from sonibook.plots.curves import Panel, course, figure_over_layers
from sonibook.plots.style import Picture

#: What is drawn of what was measured, where it was.
_DRAWN = {
    "coherence": "coherence with the clip",
    "similarity": "similarity to switches",
    "gain in share": "gain in main stem's share",
    "SI-SDR gain": "SI-SDR gain / dB",
}


def unpooling_figure(result: UnpoolingResult) -> Picture:
    """Draw what each unpooling comes to, layer by layer: a row a network and start.

    Parameters
    ----------
    result : UnpoolingResult

    Returns
    -------
    Picture
    """
    quantities = [name for name in _DRAWN if result.select(quantity=name)]
    conditions = tuple(f"{start}, {unpooling}" for start in STARTS for unpooling in UNPOOLING)
    words = []
    for network, condition in product(result.names(), conditions):
        rows = result.select(network=network, quantity="coherence", condition=condition)
        words.append(course(f"{network}, {condition}", [row.layer or 0 for row in rows], rows))
    panels = [
        Panel(
            quantity,
            _DRAWN[quantity],
            conditions=tuple(name for name in conditions if name.startswith(start)),
            labels=tuple(UNPOOLING),
            title=f"{network}, {start}" if quantity == quantities[0] else "",
            network=network,
        )
        for network in result.names()
        for start in STARTS
        for quantity in quantities
    ]
    return figure_over_layers(
        result,
        panels,
        what="Unpoolings compared",
        width=2.8 * len(quantities) + 1.2,
        columns=len(quantities),
        words=f"Coherence: {'; '.join(words)}",
    )


def explanations_figure(result: ExplanationResult) -> Picture:
    """Draw the coherence of each method's explanations, and the drop that their removal makes."""
    (network,) = result.names()
    methods = tuple(dict.fromkeys(row.condition for row in result.select(quantity="coherence")))
    panels = [
        Panel(quantity, ylabel, methods, network=network, options=options, line=line)
        for quantity, ylabel, options, line in (
            ("coherence", "mean top-5 coherence with the clip", {"ylim": (0.0, 1.02)}, None),
            ("drop", "drop when subtracted / nat", {}, 0.0),
        )
    ]
    tests = [row for row in result.rows if row.quantity.startswith("p_holm, ")]
    tests = [row for row in tests if row.quantity.endswith("beyond sonification")]
    sure = sum(row.mean is not None and row.mean < 0.05 for row in tests)
    what = (
        f"{len(methods)} explanations of the most active filters (by Holm's p below 0.05, {sure} "
        f"of {len(tests)} comparisons with sonification differ)"
    )
    return figure_over_layers(result, panels, what=what)


def faithfulness_figure(result: FaithfulnessResult) -> Picture:
    """Draw each measure of faithfulness of the first network's explanations and controls."""
    network = result.names()[0]
    rows = result.select(network=network)
    conditions = tuple(dict.fromkeys(row.condition for row in rows))
    panels = [
        Panel(quantity, quantity, conditions, network=network)
        for quantity in dict.fromkeys(row.quantity for row in rows)
    ]
    what = f"Faithfulness to what {network} names, of explanations at {result.settings['level']}"
    return figure_over_layers(result, panels, what=what, columns=3)
