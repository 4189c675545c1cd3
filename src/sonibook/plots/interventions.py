"""What follows when clips, networks or the method are changed (paper, figures 6 and B.3)."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sonibook.analysis.ablation import AblationResult
from sonibook.analysis.alternatives import STARTS, ExplanationResult
from sonibook.analysis.controls import STIMULI, TAKEN
from sonibook.analysis.result import ResultTable
from sonibook.analysis.sanity import BASELINES, randomised
from sonibook.analysis.shifts import is_exact
from sonibook.deconvnet.alternatives import UNPOOLING
from sonibook.plots.features import (
    MARKERS,
    Panel,
    course,
    draw_estimates,
    figure_over_layers,
    first_of_regimes,
    layers_of,
    over_layers,
)
from sonibook.plots.style import CYCLE, GREY, Picture, drawing

#: In the order of their colours; noise, which no one mistakes for an explanation, is grey.
_CONTROLS = (
    "random weights",
    "sonification",
    "another clip",
    "random phase",
    "addition",
    "least squares",
    "white noise",
)
#: What is drawn of unpoolings, where it was measured.
_DRAWN = {
    "coherence": "coherence with the clip",
    "similarity": "similarity to switches",
    "gain in share": "gain in main stem's share",
    "SI-SDR gain": "SI-SDR gain / dB",
}


def ablation_figure(result: AblationResult) -> Picture:
    """Draw what is left of each network's score, and how sonifications differ from controls.

    A row for the first network of each regime. Left, the score of residuals against layer, and of
    the untouched clips; right, the drop by the sonification less that by each control: above zero,
    the sonification is missed more. Filled points are those of Holm's p < 0.05.
    """
    networks = first_of_regimes(result)
    count = len(networks)
    with drawing(8.0, 0.7 + 2.8 * count, count, 2, squeeze=False) as (figure, rows):
        words = [
            _draw_ablation(left, right, result, network)
            for network, (left, right) in zip(networks, rows, strict=True)
        ]
        handles, labels = rows[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    alt = (
        f"Residuals after subtracting each layer's sonification or a control of the same level, "
        f"over {result.data.clips} clips of {result.data.dataset}. {'; '.join(words)}."
    )
    return Picture(figure, alt=alt)


def _draw_ablation(left: Axes, right: Axes, result: AblationResult, network: str) -> str:
    """Draw the scores and the differences of one network, and put them in words."""
    own = result.select(network=network, quantity="score", condition="sonification")
    layers, untouched = layers_of(own), result.row("score", network=network, condition="untouched")
    for number, control in enumerate(_CONTROLS):
        if rows := result.select(network=network, quantity="score", condition=control):
            how = {"baseline": control == "white noise", "band": control == "sonification"}
            draw_estimates(left, layers, rows, label=control, number=number, **how)
    left.axhline(untouched.mean or 0.0, color=GREY, linestyle=":", label="untouched clips")
    over_layers(left, layers, ylabel=result.score, title=network)
    right.axhline(0.0, color=GREY, linewidth=0.8)
    tests = result.select(network=network, quantity="p_holm")
    sure = {(row.layer, row.condition) for row in tests if row.mean is not None and row.mean < 0.05}
    others = [control for control in _CONTROLS if control != "sonification"]
    differences = result.select(network=network, quantity="difference")
    for row in differences:
        if row.mean is None or row.low is None or row.high is None:
            continue
        number = _CONTROLS.index(row.condition)
        colour = GREY if row.condition == "white noise" else CYCLE[number]
        # Side by side, since intervals on top of each other cannot be told apart.
        aside = 0.7 * (others.index(row.condition) / (len(others) - 1) - 0.5)
        filled = colour if (row.layer, row.condition) in sure else "white"
        point: Any = {"marker": MARKERS[number], "markersize": 4.0, "markerfacecolor": filled}
        ends = [[row.mean - row.low], [row.high - row.mean]]
        at = (row.layer or 0) + aside
        right.errorbar(at, row.mean, ends, color=colour, linewidth=1.0, **point)
    label, title = "drop by s − drop by control / nat", "filled: Holm's p < 0.05"
    over_layers(right, sorted(set(layers_of(differences))), ylabel=label, title=title)
    surely = [row.mean or 0.0 for row in differences if (row.layer, row.condition) in sure]
    more, less = sum(mean > 0 for mean in surely), sum(mean < 0 for mean in surely)
    return (
        f"{network}: {result.score} {untouched.mean or 0.0:.2g} untouched; "
        f"{course(f'{result.score} without the sonification', own)}; removing the sonification "
        f"hurts more than the control in {more} and less in {less} of {len(tests)} comparisons"
    )


def stimulation_figure(result: ResultTable) -> Picture:
    """Draw the level of filters' maps on stimuli (above), and on what is left without them (below).

    A column for the first network of each regime.
    """
    networks = first_of_regimes(result)
    drawn = {
        "heard": ("heard instead of the clip", STIMULI),
        "left": ("subtracted from the clip", TAKEN),
    }
    panels = [
        Panel(
            quantity,
            f"map's energy / dB re the clip,\n{ylabel}" if network == networks[0] else "",
            conditions=conditions,
            title=network,
            network=network,
        )
        for quantity, (ylabel, conditions) in drawn.items()
        for network in networks
    ]
    words = []
    for network, quantity in product(networks, drawn):
        rows = result.select(network=network, quantity=quantity, condition="sonification")
        words.append(course(f"{network}, {quantity}", rows))
    return figure_over_layers(
        result,
        panels,
        what="Energy of the most active filter's map when it hears its sonification or a control "
        "instead of the clip, and when these are subtracted from the clip, in dB re the clip",
        columns=len(networks),
        share=True,
        words=f"Sonification: {'; '.join(words)}",
    )


def shifts_figure(result: ResultTable) -> Picture:
    """Draw how alike shifted sonifications are, layer by layer, a curve for each shift.

    A panel for the first network of each regime; multiples of the deepest stride are dashed and
    grey.
    """
    rows = result.select(quantity="cosine")
    deepest = max(row.mean or 1 for row in result.select(quantity="stride"))
    shifts = sorted({int(row.condition) for row in rows})
    networks = first_of_regimes(result)
    panels = [
        Panel(
            "cosine",
            "cosine" if network == networks[0] else "",
            conditions=tuple(str(shift) for shift in shifts if shift % deepest),
            references=tuple(str(shift) for shift in shifts if shift % deepest == 0),
            title=network,
            options={"ylim": (0.0, 1.05)},
            network=network,
        )
        for network in networks
    ]
    exact, other = (
        [row.mean for row in rows if row.mean is not None and is_exact(result, row) == which]
        for which in (True, False)
    )
    return figure_over_layers(
        result,
        panels,
        what="Cosine of a shifted clip's sonification with the shifted sonification",
        legend="shift / samples",
        share=True,
        words=f"Shifts by multiples of a layer's pooling stride: at least {min(exact):.4f}. Other "
        f"shifts: {min(other):.2f} to {max(other):.2f}",
    )


def downsampling_figure(result: ResultTable) -> Picture:
    """Draw what max-pools and strides leave on sonifications, layer by layer.

    Panels for coherence, SI-SDR, spectral lines and the cosine with a sonification that is shifted
    by one sample.
    """
    return figure_over_layers(
        result,
        [
            Panel("coherence", "coherence", options={"ylim": (0.0, 1.0)}),
            Panel("SI-SDR", "SI-SDR to a stem / dB"),
            Panel("lines", "lines of the grid / dB", line=0.0),
            Panel("cosine", "cosine, shifted by 1 sample", conditions=("1",)),
        ],
        what="Sonifications of networks that halve their rate by max-pools and by strides",
        columns=2,
    )


def sanity_figure(result: ResultTable) -> Picture:
    """Draw how alike sonifications stay while layers are randomised, after Adebayo et al. (2018).

    The spectrogram correlation. Above, a curve for each of a few layers, over the randomised ones;
    below, for every layer, the baselines, and the filter with all layers random.
    """
    measure, (network,) = "spectrogram correlation", result.names()
    of = partial(result.row, measure, network=network)
    layers = sorted({row.layer for row in result.rows if row.layer is not None})
    spread = np.linspace(0, len(layers) - 1, min(4, len(layers))).round().astype(int)
    lowest = range(1, max(layers) + 1)
    others = (name for name in result.networks if name != network)
    baselines = (*BASELINES, *others)
    with drawing(8.0, 5.4, 2, of="figures") as (figure, (upper, lower)):
        panels = upper.subplots(1, 2, sharey=True)
        for axes, alone in zip(panels, (False, True), strict=True):
            for number, layer in enumerate(layers[place] for place in spread):
                below = range(1, layer + 1)
                curve = [of(layer=layer, condition=randomised(n, alone=alone)) for n in below]
                text = f"filter of layer {layer}"
                draw_estimates(axes, below, curve, label=text, number=number)
            over_layers(axes, lowest[::2])
            axes.invert_xaxis()
        panels[0].set(title="Random from the filter's layer down", xlabel="lowest random layer")
        panels[1].set(title="Random one layer alone", xlabel="the random layer")
        panels[0].set_ylabel(measure)
        upper.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
        last = lower.subplots()
        for number, condition in enumerate((randomised(1), *baselines)):
            text = condition if number else "all layers random"
            curve = [of(layer=layer, condition=condition) for layer in layers]
            draw_estimates(last, layers, curve, label=text, number=number)
        ticks = layers if len(layers) < 7 else layers[::2]
        over_layers(last, ticks, ylabel=measure, title="All random, and baselines")
        last.set_xlabel("layer of the filter")
        lower.legend(loc="outside right center")
    deepest = layers[-1]
    beside = {condition: of(layer=deepest, condition=condition) for condition in baselines}
    worth = ", ".join(f"{name} {row:.2g}" for name, row in beside.items() if row.mean is not None)
    own, everything = (of(layer=deepest, condition=randomised(n)) for n in (deepest, 1))
    return Picture(
        figure,
        alt="How alike sonifications stay as layers are given random weights, over "
        f"{result.data.clips} clips. {measure.capitalize()} of the filter of layer {deepest}: "
        f"{own:.2g} with that layer random, {everything:.2g} with all below it, too. Beside it: "
        f"{worth}.",
    )


def unpooling_figure(result: ResultTable) -> Picture:
    """Draw what each unpooling comes to, layer by layer: a row a network and start."""
    quantities = [name for name in _DRAWN if result.select(quantity=name)]
    conditions = tuple(f"{start}, {unpooling}" for start in STARTS for unpooling in UNPOOLING)
    words = []
    for network, condition in product(result.names(), conditions):
        rows = result.select(network=network, quantity="coherence", condition=condition)
        words.append(course(f"{network}, {condition}", rows))
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
        columns=len(quantities),
        words=f"Coherence: {'; '.join(words)}",
    )


def explanations_figure(result: ExplanationResult) -> Picture:
    """Draw the coherence of each method's explanations, and the drop that their removal makes."""
    (network,) = result.names()
    methods = tuple(dict.fromkeys(row.condition for row in result.select(quantity="coherence")))
    what, limits = "mean top-5 coherence with the clip", {"ylim": (0.0, 1.02)}
    panels = [
        Panel("coherence", what, methods, network=network, options=limits),
        Panel("drop", "drop when subtracted / nat", methods, network=network, line=0.0),
    ]
    compared = {f"p_holm, {name} beyond sonification" for name in ("coherence", "drop")}
    tests = result.select(quantity=compared)
    sure = sum(row.mean is not None and row.mean < 0.05 for row in tests)
    what = (
        f"{len(methods)} explanations of the most active filters (by Holm's p below 0.05, {sure} "
        f"of {len(tests)} comparisons with sonification differ)"
    )
    return figure_over_layers(result, panels, what=what)


def faithfulness_figure(result: ResultTable) -> Picture:
    """Draw each measure of faithfulness of some explanations of the first network, and controls."""
    network = result.names()[0]
    rows = result.select(network=network)
    drawn = ("sonification", "guided backpropagation", "random weights", "another clip",
             "white noise", "the clip itself")  # fmt: skip
    conditions = tuple(name for name in drawn if any(row.condition == name for row in rows))
    panels = [
        Panel(quantity, quantity, conditions, network=network)
        for quantity in dict.fromkeys(row.quantity for row in rows)
    ]
    what = f"Faithfulness to what {network} names, of explanations at {result.settings['level']}"
    return figure_over_layers(result, panels, what=what, columns=2)
