"""The paper's claims about sonifications (its sections 3.2 to 4.2)."""

from __future__ import annotations

from collections.abc import Iterator

from sonibook.analysis.stimulation import STIMULI, TAKEN
from sonibook.replication.encoders import REGIMES, UNTRAINED
from sonibook.replication.evidence import (
    EVOLUTIONS,
    Evidence,
    ablation_score,
    fullness,
    over_filters,
    regime_mean,
    steadier,
)
from sonibook.replication.measures import (
    Measure,
    less,
    minus,
    negative,
    of,
    over_layers,
    over_seeds,
    size,
)
from sonibook.replication.verdict import Claim, Kind, Test, nothing

_ALL, _FIRST, _MIDDLE, _DEEP, _FIG1 = (
    range(1, 12), range(1, 4), range(3, 8), range(8, 12), (8, 9)
)  # fmt: skip
#: A cosine above this is called equal.
_EQUAL = 0.99


def _test(says: str, measure: Measure | None, unit: str, file: str, kind: Kind = "effect") -> Test:
    return Test(says=says, kind=kind, unit=unit, file=file, measure=measure)


def _stimulate(evidence: Evidence) -> Iterator[Test]:
    file = "stimulation"

    def mean(regime: str, quantity: str, control: str) -> Measure | None:
        return regime_mean(evidence.stimulation, regime, quantity, _ALL, condition=control)

    heard, left = (
        {regime: mean(regime, *which) for regime in (*REGIMES, *UNTRAINED)}
        for which in (("above", "white noise"), ("left", "sonification"))
    )
    for regime in REGIMES:
        for control in STIMULI[1:]:
            kind: Kind = "effect" if control == "white noise" else "control"
            yield _test(
                f"{regime}: a filter is more active on its sonification than on {control}",
                mean(regime, "above", control),
                "dB", file, kind,
            )  # fmt: skip
        for weights, named in UNTRAINED.items():
            yield _test(f"{regime}: than on white noise, and by more than with {named}",
                        minus(heard[regime], heard[weights]), "dB", file, "control")  # fmt: skip
        yield _test(f"{regime}: a filter is less active on what is left of the clip",
                    negative(left[regime]), "dB", file)  # fmt: skip
        for weights, named in UNTRAINED.items():
            yield _test(f"{regime}: and loses more than with {named}",
                        minus(left[weights], left[regime]), "dB", file, "control")  # fmt: skip
        for control in TAKEN[1:]:
            instead = f"{control} is subtracted"
            if control not in STIMULI:
                instead = "the clip itself is turned down to that level"
            yield _test(
                f"{regime}: and less than when {instead}",
                mean(regime, "below", control),
                "dB", file, "control",
            )  # fmt: skip


def _shift(evidence: Evidence) -> Iterator[Test]:
    law = evidence.shifts
    for which in (True, False):
        found = None
        if law is not None:
            networks = [
                over_layers(
                    of(row)
                    for row in law.select(network=network, quantity="cosine", layer=8)
                    if law.is_exact(row) == which
                )
                for network in law.names()
            ]
            # Whatever the weights, and so over networks of every regime.
            found = less(over_seeds(dict(enumerate(networks))), _EQUAL)
        offsets = "multiples of the pooling stride" if which else "other offsets"
        yield _test(f"layer 8, {offsets}: cosine above {_EQUAL}", found, "cosine", "figure-b3")


def _early_bands(evidence: Evidence) -> Iterator[Test]:
    def bands(regime: str) -> Measure | None:
        return regime_mean(evidence.selectivity, regime, "bandwidth", _FIRST, condition="drawn")

    for regime in REGIMES:
        own = bands(regime)
        yield _test(f"{regime}: narrower than with random weights, layers 1 to 3",
                    minus(bands("random"), own), "Hz", "figure-1")  # fmt: skip
        yield _test(f"{regime}: narrower than centred random filters",
                    minus(bands("centred random"), own), "Hz", "figure-1", "control")  # fmt: skip


def _deep_bands(evidence: Evidence) -> Iterator[Test]:
    supervised, contrastive, centred = (
        regime_mean(evidence.selectivity, regime, "bandwidth", _DEEP, condition="drawn")
        for regime in (*REGIMES, "centred random")
    )
    yield _test("supervised is narrower than contrastive, layers 8 to 11",
                minus(contrastive, supervised), "Hz", "figure-1")  # fmt: skip
    yield _test("and narrower than centred random filters",
                minus(centred, supervised), "Hz", "figure-1", "control")  # fmt: skip


def _activity(evidence: Evidence) -> Iterator[Test]:
    for what in ("maps", "steps"):
        supervised, contrastive, centred = (
            regime_mean(evidence.selectivity, regime, f"live {what}", _DEEP)
            for regime in (*REGIMES, "centred random")
        )
        yield _test(f"supervised has fewer live {what} than contrastive, layers 8 to 11",
                    minus(contrastive, supervised), "share", "figure-1")  # fmt: skip
        yield _test(f"and fewer live {what} than centred random filters",
                    minus(centred, supervised), "share", "figure-1", "control")  # fmt: skip


def _alike_at_first(evidence: Evidence) -> Iterator[Test]:
    bands = evidence.selectivity
    for name, condition, unit in (("bandwidth", "drawn", "Hz"), ("live steps", "", "share")):
        apart = [
            size(minus(*(regime_mean(bands, regime, name, layers, condition=condition)
                         for regime in REGIMES)))
            for layers in ((1,), _FIG1)
        ]  # fmt: skip
        yield _test(f"the regimes differ less in {name} at layer 1 than at layers 8 and 9",
                    minus(apart[1], apart[0]), unit, "figure-1")  # fmt: skip


def _high_bins(evidence: Evidence) -> Iterator[Test]:
    supervised, contrastive = (
        regime_mean(evidence.selectivity, regime, "centroid", _FIG1) for regime in REGIMES
    )
    yield _test("the centroid of contrastive is above that of supervised, layers 8 and 9",
                minus(contrastive, supervised), "Hz", "figure-1")  # fmt: skip


def _deep_noise(evidence: Evidence) -> Iterator[Test]:
    for what, unit in (("centroid", "Hz"), ("entropy", "of 1")):
        rises = {
            regime: regime_mean(evidence.selectivity, regime, what, _DEEP, less=_MIDDLE)
            for regime in (*REGIMES, *UNTRAINED)
        }
        yield _test(f"supervised: the {what} is higher in layers 8 to 11 than in 3 to 7",
                    rises["supervised"], unit, "figure-1")  # fmt: skip
        yield _test(f"and rises more than that of contrastive ({what})",
                    minus(rises["supervised"], rises["contrastive"]), unit,
                    "figure-1")  # fmt: skip
        for weights, named in UNTRAINED.items():
            yield _test(f"and more than with {named} ({what})",
                        minus(rises["supervised"], rises[weights]), unit, "figure-1",
                        "control")  # fmt: skip


def _coupling(evidence: Evidence) -> Iterator[Test]:
    agree = {
        regime: regime_mean(evidence.top_clips, regime, "agreement", (11,))
        for regime in (*REGIMES, *UNTRAINED)
    }
    yield _test("layer 11: top clips of a contrastive filter share a class more often than those "
                "of a supervised one", minus(agree["contrastive"], agree["supervised"]), "share",
                "figures-2-3")  # fmt: skip
    for weights, named in UNTRAINED.items():
        yield _test(f"and more often than with {named}",
                    minus(agree["contrastive"], agree[weights]), "share", "figures-2-3",
                    "control")  # fmt: skip


def _evolves(evidence: Evidence) -> Iterator[Test]:
    for regime, found in evidence.evolutions.items():
        yield _test(f"{regime}: the first checkpoint's spectrogram is fuller than the last one's",
                    over_filters(found, lambda one: fullness(one, 0) - fullness(one, -1)),
                    "share of points", EVOLUTIONS[regime])  # fmt: skip


def _smoother(evidence: Evidence) -> Iterator[Test]:
    for regime, found in evidence.evolutions.items():
        yield _test(f"{regime}: a fixed clip changes less between checkpoints than top clips do",
                    over_filters(found, steadier), "correlation",
                    EVOLUTIONS[regime])  # fmt: skip


def _removal(evidence: Evidence) -> Iterator[Test]:
    result = evidence.ablation()
    by_random = ablation_score(result, "random")
    for regime in REGIMES:
        own = ablation_score(result, regime)
        yield _test(f"{regime} (probe): accuracy falls", own, "accuracy", "figure-6")
        yield _test(f"{regime}: and more than a probe of random weights loses",
                    minus(own, by_random), "accuracy", "figure-6", "control")  # fmt: skip
        for control in ("white noise", "random phase", "another clip", "random weights"):
            what = "that of random weights" if control == "random weights" else control
            yield _test(f"{regime}: and more than when {what} is subtracted",
                        ablation_score(result, regime, control), "accuracy", "figure-6",
                        "control")  # fmt: skip


def _falls(evidence: Evidence) -> Iterator[Test]:
    falls = _coherence_falls(evidence)
    for regime in REGIMES:
        yield _test(f"{regime}: coherence is lower in layers 8 to 11 than in 1 to 3",
                    falls[regime], "coherence", "figure-7")  # fmt: skip
        for weights, named in UNTRAINED.items():
            yield _test(f"{regime}: and falls more than with {named}",
                        minus(falls[regime], falls[weights]), "coherence", "figure-7",
                        "control")  # fmt: skip


def _decays_faster(evidence: Evidence) -> Iterator[Test]:
    falls = _coherence_falls(evidence)
    supervised, contrastive = (
        regime_mean(evidence.coherence, regime, "coherence", _DEEP) for regime in REGIMES
    )
    yield _test("supervised falls more than contrastive",
                minus(falls["supervised"], falls["contrastive"]), "coherence",
                "figure-7")  # fmt: skip
    yield _test("contrastive is above supervised, layers 8 to 11",
                minus(contrastive, supervised), "coherence", "figure-7")  # fmt: skip
    for weights, named in UNTRAINED.items():
        yield _test(f"supervised falls more than with {named}",
                    minus(falls["supervised"], falls[weights]), "coherence", "figure-7",
                    "control")  # fmt: skip


def _coherence_falls(evidence: Evidence) -> dict[str, Measure | None]:
    return {
        regime: regime_mean(evidence.coherence, regime, "coherence", _FIRST, less=_DEEP)
        for regime in (*REGIMES, *UNTRAINED)
    }


_LISTEN = "It was judged by ear, on examples that the authors chose: that takes listeners"

#: In the paper's order.
SOUND_CLAIMS = (
    Claim("stimulation", "3.2, 4.1", "A sonification is what activates its feature map: the map "
          "answers to it, and is less active without it.", _stimulate, "10_ablation",
          "stimulation"),
    Claim("shift", "3.2, figure B.3", "A sonification follows any integer shift of its input.",
          _shift, "06_sonification", "figure-b3",
          would_change="Nothing: it follows from how max-pools pair their inputs."),
    Claim("strided", "3.2", "Strided convolutions in the place of max-pools make much worse "
          "sonifications.", nothing, "06_sonification",
          untestable="No network with strided convolutions was trained.",
          would_change="Training one, with everything else alike."),
    Claim("early-bands", "3.3.1", "Both regimes learn simple band-selective filters in the first "
          "layers.", _early_bands, "07_tour", "figure-1"),
    Claim("alike-at-first", "3.3.1, figure 1", "At layer 1 the two regimes are alike; they part in "
          "the deep layers.", _alike_at_first, "07_tour", "figure-1"),
    Claim("deep-bands", "3.3.1", "Deep supervised layers are more band-selective than contrastive "
          "ones.", _deep_bands, "07_tour", "figure-1"),
    Claim("deep-activity", "3.3.1, figure 1", "Deep supervised maps are less active than "
          "contrastive ones.", _activity, "07_tour", "figure-1"),
    Claim("high-bins", "figure 1", "Contrastive sonifications of layers 8 and 9 have more in the "
          "high frequencies.", _high_bins, "07_tour", "figure-1"),
    Claim("middle-layers", "3.3.2, figure 2", "The most remarkable supervised sonifications are "
          "those of layers 3 to 7.", nothing, "07_tour", "figures-2-3",
          untestable=f"{_LISTEN}; the pairs here were chosen by a rule.",
          would_change="A listening test, blind to the layer."),
    Claim("deep-noise", "3.3.2", "Supervised sonifications of layers 8 to 11 are mostly "
          "high-frequency noise, contrastive ones less so.", _deep_noise, "07_tour", "figure-1"),
    Claim("discernible", "abstract, 3.3.2, figure 3", "Deep contrastive sonifications are more "
          "acoustically discernible than supervised ones.", nothing, "13_separation",
          "figures-2-3",
          untestable=f"{_LISTEN}; what of it can be measured, likeness to the clip, is judged "
          "below.", would_change="A listening test, blind to the regime."),
    Claim("coupling", "3.3.2", "Deep contrastive filters are tied to content; supervised ones "
          "answer to a wider variety of clips.", _coupling, "07_tour", "figures-2-3"),
    Claim("evolution", "3.4, figure 5", "Sonifications of the first checkpoint have a full "
          "spectrogram, which changes over training.", _evolves, "08_growth", "figure-5",
          would_change="Other runs, and filters that are dead in the end, too."),
    Claim("smoother", "3.4", "A clip that stays the same shows a filter grow more smoothly than "
          "the top clip of each checkpoint does.", _smoother, "08_growth", "figure-5",
          would_change="Other runs than this one."),
    Claim("removal", "4.1, figure 6", "Sonifications hold what recognition needs: subtracting them "
          "costs performance drastically.", _removal, "10_ablation", "figure-6"),
    Claim("coherence-falls", "4.2, figure 7", "Coherence with the input falls with depth in both "
          "regimes.", _falls, "11_coherence", "figure-7"),
    Claim("coherence-decay", "abstract, 4.2, figure 7", "Coherence falls faster in the supervised "
          "network.", _decays_faster, "11_coherence", "figure-7"),
)  # fmt: skip
