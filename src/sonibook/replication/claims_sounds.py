"""The paper's claims about sonifications (its sections 3.2 to 4.2), and how each is tested."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sonibook.analysis.controls import STIMULI, TAKEN
from sonibook.analysis.evolution import FilterEvolution
from sonibook.replication.benchmarks import REGIMES
from sonibook.replication.results import (
    EVOLUTIONS,
    Claim,
    Measure,
    Results,
    Test,
    beyond_untrained,
    control,
    effect,
    over_layers,
    over_seeds,
)

_ALL, _FIRST, _MIDDLE, _DEEP = range(1, 12), range(1, 4), range(3, 8), range(8, 12)
#: What lies below the middle.
_LOWEST = range(1, 3)
#: Layers that the paper's figure 1 shows, beside the first.
_SHOWN = (8, 9)
#: A cosine above this is called equal.
_EQUAL = 0.99
#: Who listens for the authors, who judged by ear on examples that they chose, and the file of its
#: answers. This and the tests of what it hears were written before anything was measured.
_LISTENERS = {
    "event": "listeners-esc10",
    "event, SoundNet": "listeners-esc10",
    "digit": "listeners-fsdd",
    "speech": "listeners-fsdd",
}
#: What would be heard anyway: other content through the same network, and the spectrum alone.
_INSTEAD = {"another clip": "that of another clip", "random phase": "a sound of their spectrum"}
_PEOPLE = "People: a blind test, for what machines hear is not what people hear; and more seeds."
_S, _C = REGIMES
_STRIDED, _START = "supervised, strided", "own start"
_CENTRED = "centred random"


@Claim("3.2, 4.1", "10_ablation", "stimulation", unit="dB")
def _stimulation(results: Results) -> Iterator[Test]:
    """A sonification is what activates its feature map: the map answers to it, and is less active
    without it.
    """

    def means(quantity: str, stimulus: str) -> dict[str, Measure]:
        return results.means("stimulation", quantity, _ALL, condition=stimulus)

    noise, left = means("above", "white noise"), means("left", "sonification")
    for regime in REGIMES:
        for stimulus in STIMULI[1:]:
            test = effect if stimulus == "white noise" else control
            says = f"{regime}: a filter is more active on its sonification than on {stimulus}"
            yield test(says, means("above", stimulus)[regime])
        heard = results.means("stimulation", "heard", _DEEP, condition="sonification")[regime]
        says = f"{regime}: in layers 8 to 11 and at equal level, more active on it than on the clip"
        yield control(says, heard)
        says = f"{regime}: than on white noise, and by more than with "
        yield from beyond_untrained(says, noise, regime)
        says = f"{regime}: a filter is less active on what is left of the clip"
        yield effect(says, -left[regime])
        says = f"{regime}: and loses more than with "
        yield from beyond_untrained(says, left, regime, below=True)
        for stimulus in TAKEN[1:]:
            instead = f"{stimulus} is subtracted"
            if stimulus not in STIMULI:
                instead = "the clip itself is turned down to that level"
            says = f"{regime}: and less than when {instead}"
            yield control(says, means("below", stimulus)[regime])


@Claim(
    "3.2, figure B.3",
    "06_sonification",
    "figure-b3",
    unit="cosine",
    universal=True,
    would_change="Nothing: it follows from how max-pools pair their inputs.",
)
def _shift(results: Results) -> Iterator[Test]:
    """A sonification follows any integer shift of its input."""
    for exact in (True, False):
        # Whatever the weights, and so over networks of every regime.
        cosines = [
            over_layers(
                row
                for (quantity, shift, layer), row in rows.items()
                if (quantity, layer) == ("cosine", 8)
                and (int(shift) % (rows["stride", "", 8].mean or 1) == 0) == exact
            )
            for networks in results.networks("figure-b3").values()
            for rows in networks.values()
        ]
        found = over_seeds(dict(enumerate(cosines)), recordings=results.recordings)
        offsets = "multiples of the pooling stride" if exact else "other offsets"
        yield effect(f"layer 8, {offsets}: cosine above {_EQUAL}", found - _EQUAL)


@Claim("3.2", "06_sonification", "strided")
def _strided(results: Results) -> Iterator[Test]:
    """Strided convolutions in the place of max-pools make much worse sonifications."""
    for quantity, says, unit in (
        ("coherence", "sonifications are more coherent with the clip", "of 1"),
        ("SI-SDR", "and closer to a stem of it", "dB"),
    ):
        means = results.means("strided", quantity, _ALL)
        yield effect(f"with max-pools {says}", means[_S] - means[_STRIDED], unit=unit)
        untrained = means[_START] - means[f"{_START}, strided"]
        yield control(
            f"with max-pools {says}, in networks not trained yet, too", untrained, unit=unit
        )
    # The grid of a single stride of two has one line, at half the sampling rate.
    lines = results.means("strided", "lines", range(2, 12))
    says = "with strides spectra stand out more at multiples of the layer's rate"
    yield effect(says, lines[_STRIDED] - lines[_S], unit="dB")
    own = lines[f"{_START}, strided"] - lines[_START]
    yield control("the same in networks not trained yet (lines)", own, unit="dB")


@Claim("3.3.1", "07_tour", "figure-1", unit="Hz")
def _early_bands(results: Results) -> Iterator[Test]:
    """Both regimes learn simple band-selective filters in the first layers."""
    bands = results.means("figure-1", "bandwidth", _FIRST, condition="drawn")
    for regime in REGIMES:
        says = f"{regime}: narrower than with random weights, layers 1 to 3"
        yield effect(says, bands["random"] - bands[regime])
        says = f"{regime}: narrower than centred random filters"
        yield control(says, bands[_CENTRED] - bands[regime])


@Claim("3.3.1, figure 1", "07_tour", "figure-1")
def _alike_at_first(results: Results) -> Iterator[Test]:
    """At layer 1 the two regimes are alike; they part in the deep layers."""
    for name, condition, unit in (("bandwidth", "drawn", "Hz"), ("live steps", "", "share")):
        first, deep = (
            results.means("figure-1", name, layers, condition=condition)
            for layers in ((1,), _SHOWN)
        )
        apart = abs(deep[_S] - deep[_C]) - abs(first[_S] - first[_C])
        says = f"the regimes differ less in {name} at layer 1 than at layers 8 and 9"
        yield effect(says, apart, unit=unit)


@Claim("3.3.1", "07_tour", "figure-1", unit="Hz")
def _deep_bands(results: Results) -> Iterator[Test]:
    """Deep supervised layers are more band-selective than contrastive ones."""
    bands = results.means("figure-1", "bandwidth", _DEEP, condition="drawn")
    yield effect("supervised is narrower than contrastive, layers 8 to 11", bands[_C] - bands[_S])
    yield from beyond_untrained("and narrower than ", bands, _S, below=True)


@Claim("3.3.1, figure 1", "07_tour", "figure-1", unit="share")
def _deep_activity(results: Results) -> Iterator[Test]:
    """Deep supervised maps are less active than contrastive ones."""
    for what in ("maps", "steps"):
        live = results.means("figure-1", f"live {what}", _DEEP)
        says = f"supervised has fewer live {what} than contrastive, layers 8 to 11"
        yield effect(says, live[_C] - live[_S])
        yield from beyond_untrained(f"and fewer live {what} than ", live, _S, below=True)


@Claim("figure 1", "07_tour", "figure-1", unit="Hz")
def _high_bins(results: Results) -> Iterator[Test]:
    """Contrastive sonifications of layers 8 and 9 have more in the high frequencies."""
    centroid = results.means("figure-1", "centroid", _SHOWN)
    says = "the centroid of contrastive is above that of supervised, layers 8 and 9"
    yield effect(says, centroid[_C] - centroid[_S])
    yield from beyond_untrained("and above that of ", centroid, _C)


@Claim("3.3.2, figure 2", "07_tour", "listeners-esc10", unit="share", would_change=_PEOPLE)
def _middle_layers(results: Results) -> Iterator[Test]:
    """The most remarkable supervised sonifications are those of layers 3 to 7."""
    for ear, file in _LISTENERS.items():
        over_deep, over_first = (
            results.means(file, f"share of {ear}", _MIDDLE, less=less) for less in (_DEEP, _LOWEST)
        )
        says = f"{ear}: more is heard in supervised layers 3 to 7 than in "
        yield effect(says + "8 to 11", over_deep[_S], file=file)
        yield effect(says + "1 and 2", over_first[_S], file=file)
        says += "8 to 11, and by more than with "
        yield from beyond_untrained(says, over_deep, _S, file=file)


@Claim("3.3.2", "07_tour", "figure-1")
def _deep_noise(results: Results) -> Iterator[Test]:
    """Supervised sonifications of layers 8 to 11 are mostly high-frequency noise, contrastive ones
    less so.
    """
    for what, unit in (("centroid", "Hz"), ("entropy", "of 1")):
        rises = results.means("figure-1", what, _DEEP, less=_MIDDLE)
        says = f"supervised: the {what} is higher in layers 8 to 11 than in 3 to 7"
        yield effect(says, rises[_S], unit=unit)
        says = f"and rises more than that of contrastive ({what})"
        yield effect(says, rises[_S] - rises[_C], unit=unit)
        says, rest = "and more than with ", f" ({what})"
        yield from beyond_untrained(says, rises, _S, rest=rest, unit=unit)


@Claim(
    "abstract, 3.3.2, figure 3",
    "13_separation",
    "listeners-esc10",
    unit="share",
    would_change=_PEOPLE,
)
def _discernible(results: Results) -> Iterator[Test]:
    """Deep contrastive sonifications are more acoustically discernible than supervised ones."""
    for ear, file in _LISTENERS.items():
        heard = results.means(file, f"share of {ear}", _DEEP)
        says = f"{ear}: more is heard in contrastive layers 8 to 11 than "
        yield effect(says + "in supervised ones", heard[_C] - heard[_S], file=file)
        yield from beyond_untrained(f"{says}with ", heard, _C, file=file)
        for other, named in _INSTEAD.items():
            control_of = results.means(file, f"share of {ear}", _DEEP, condition=other)
            yield control(f"{says}in {named}", heard[_C] - control_of[_C], file=file)


@Claim("3.3.2", "07_tour", "figures-2-3", unit="share")
def _coupling(results: Results) -> Iterator[Test]:
    """Deep contrastive filters are tied to content; supervised ones answer to a wider variety of
    clips.
    """
    agree = results.means("figures-2-3", "agreement", (11,))
    says = "layer 11: top clips of a contrastive filter share a class more often than those of a "
    yield effect(says + "supervised one", agree[_C] - agree[_S])
    yield from beyond_untrained("and more often than with ", agree, _C)


@Claim(
    "3.4, figure 5",
    "08_growth",
    "figure-5",
    unit="share of points",
    would_change="Other runs, and filters that are dead in the end, too.",
)
def _evolution(results: Results) -> Iterator[Test]:
    """Sonifications of the first checkpoint have a full spectrogram, which changes over
    training.
    """

    def thinned(one: FilterEvolution) -> float:
        """By how much the share of points falls that are within 40 dB of the loudest."""
        first, last = (float((one.steps[place].levels > 40).mean()) for place in (0, -1))
        return first - last

    for regime, file in EVOLUTIONS.items():
        says = f"{regime}: the first checkpoint's spectrogram is fuller than the last one's"
        yield effect(says, results.over_filters(regime, thinned), file=file)


@Claim("3.4", "08_growth", "figure-5", unit="correlation", would_change="Other runs than this one.")
def _smoother(results: Results) -> Iterator[Test]:
    """A clip that stays the same shows a filter grow more smoothly than the top clip of each
    checkpoint does.
    """

    def steadier(one: FilterEvolution) -> float:
        """A difference of correlations; NaN for a filter that is silent too often to tell."""
        pairs = [
            step.steadiness - step.top_clip_steadiness
            for step in one.steps
            if step.steadiness is not None and step.top_clip_steadiness is not None
        ]
        return float(np.mean(pairs)) if pairs else float("nan")

    for regime, file in EVOLUTIONS.items():
        says = f"{regime}: a fixed clip changes less between checkpoints than top clips do"
        yield effect(says, results.over_filters(regime, steadier), file=file)


@Claim("4.1, figure 6", "10_ablation", "figure-6")
def _removal(results: Results) -> Iterator[Test]:
    """Sonifications hold what recognition needs: subtracting them costs performance drastically."""
    drops = results.drops("figure-6")
    for regime in REGIMES:
        yield effect(f"{regime} (probe): accuracy falls", drops[regime])
        says = f"{regime}: and more than a probe on "
        yield from beyond_untrained(says, drops, regime, rest=" loses")
        for other in ("white noise", "random phase", "another clip", "random weights"):
            named = "that of random weights" if other == "random weights" else other
            more = results.drops("figure-6", other)[regime]
            yield control(f"{regime}: and more than when {named} is subtracted", more)


@Claim("4.2, figure 7", "11_coherence", "figure-7", unit="coherence")
def _coherence_falls(results: Results) -> Iterator[Test]:
    """Coherence with the input falls with depth in both regimes."""
    falls = results.means("figure-7", "coherence", _FIRST, less=_DEEP)
    for regime in REGIMES:
        says = f"{regime}: coherence is lower in layers 8 to 11 than in 1 to 3"
        yield effect(says, falls[regime])
        yield from beyond_untrained(f"{regime}: and falls more than with ", falls, regime)


@Claim("abstract, 4.2, figure 7", "11_coherence", "figure-7", unit="coherence")
def _coherence_decay(results: Results) -> Iterator[Test]:
    """Coherence falls faster in the supervised network."""
    falls = results.means("figure-7", "coherence", _FIRST, less=_DEEP)
    deep = results.means("figure-7", "coherence", _DEEP)
    yield effect("supervised falls more than contrastive", falls[_S] - falls[_C])
    yield effect("contrastive is above supervised, layers 8 to 11", deep[_C] - deep[_S])
    yield from beyond_untrained("supervised falls more than with ", falls, _S)


#: In the paper's order.
SOUND_CLAIMS = tuple(one for one in [*globals().values()] if isinstance(one, Claim))
