"""The paper's claims about layers, transfer and training (its section 4.1 and both appendices)."""

from __future__ import annotations

from collections.abc import Iterator

from sonibook.replication.encoders import REGIMES
from sonibook.replication.evidence import Evidence, ablation_score, regime_mean, spread_over_layers
from sonibook.replication.measures import Measure, minus, negative
from sonibook.replication.verdict import Claim, Kind, Test

_FOLDS, _OWN, _SPEAKERS = "esc10, five folds", "fsdd, its own split", "fsdd, a speaker left out"
_FORTY, _ONE = "esc40, trained on folds 1 to 4", "esc40, trained on fold 1"
_IN, _OUT = "in-domain", "out-of-domain"
_INITIAL, _TOP = range(1, 5), range(9, 12)


def _test(
    says: str, measure: Measure | None, file: str, kind: Kind = "effect", unit: str = "accuracy"
) -> Test:
    return Test(says=says, kind=kind, unit=unit, file=file, measure=measure)


def _layers(
    evidence: Evidence, domain: str, regime: str, layers: range, less: range = range(0)
) -> Measure | None:
    found = evidence.importances[domain]
    return regime_mean(found, regime, "accuracy", layers, condition="probe", less=less)


def _above(evidence: Evidence, domain: str, regime: str, layers: range) -> Measure | None:
    own, by_random = (_layers(evidence, domain, one, layers) for one in (regime, "random"))
    return minus(own, by_random)


def _steady(evidence: Evidence) -> Iterator[Test]:
    for domain in (_IN, _OUT):
        file = f"figure-4-{domain}"
        for regime in REGIMES:
            for first, then in ((range(1, 4), range(4, 8)), (range(4, 8), range(8, 12))):
                yield _test(
                    f"{domain}, {regime}: layers {then[0]} to {then[-1]} tell more than "
                    f"{first[0]} to {first[-1]}",
                    _layers(evidence, domain, regime, then, first),
                    file,
                )
            yield _test(f"{domain}, {regime}: the top layer tells more than with random weights",
                        _above(evidence, domain, regime, range(11, 12)), file,
                        "control")  # fmt: skip


def _initial(evidence: Evidence) -> Iterator[Test]:
    for domain in (_IN, _OUT):
        file = f"figure-4-{domain}"
        supervised, contrastive = (
            _layers(evidence, domain, regime, _INITIAL) for regime in REGIMES
        )
        yield _test(f"{domain}: contrastive is above supervised, layers 1 to 4",
                    minus(contrastive, supervised), file)  # fmt: skip
        yield _test(f"{domain}: and above random weights",
                    _above(evidence, domain, "contrastive", _INITIAL), file,
                    "control")  # fmt: skip


def _deep(evidence: Evidence) -> Iterator[Test]:
    file = "figure-4-in-domain"
    supervised, contrastive = (_layers(evidence, _IN, regime, _TOP) for regime in REGIMES)
    yield _test("supervised is above contrastive, layers 9 to 11",
                minus(supervised, contrastive), file)  # fmt: skip
    yield _test("and above random weights", _above(evidence, _IN, "supervised", _TOP), file,
                "control")  # fmt: skip


def _all_but_two(evidence: Evidence) -> Iterator[Test]:
    file = "figure-4-out-of-domain"
    for layers, says, sign in (
        (range(1, 10), "contrastive is above supervised, layers 1 to 9", 1),
        (range(10, 12), "supervised is above contrastive, layers 10 and 11", -1),
    ):
        both = [_layers(evidence, _OUT, regime, layers) for regime in REGIMES[::sign]]
        yield _test(says, minus(both[1], both[0]), file)


def _middle(evidence: Evidence) -> Iterator[Test]:
    file = "figure-4-out-of-domain"
    found = {
        regime: _layers(evidence, _OUT, regime, range(5, 8), range(11, 12))
        for regime in (*REGIMES, "random")
    }
    for regime in REGIMES:
        yield _test(f"{regime}: layers 5 to 7 are above layer 11", found[regime], file)
        yield _test(f"{regime}: and further above it than with random weights",
                    minus(found[regime], found["random"]), file, "control")  # fmt: skip


def _frozen(evidence: Evidence) -> Iterator[Test]:
    for file, question in (("table-a4", _FOLDS), ("table-a6", _OWN)):
        for training in ("linear probe", "fc-only"):
            for row in REGIMES:
                yield _test(f"{question}: {row}, {training}, is above the random encoder",
                            evidence.difference(file, question, row, training, "random"),
                            file)  # fmt: skip


def _supervised_above(evidence: Evidence, file: str, question: str, training: str) -> Test:
    found = evidence.difference(file, question, "contrastive", training, "supervised")
    return _test(f"{training}: supervised is above contrastive", negative(found), file)


def _supervised_best(evidence: Evidence) -> Iterator[Test]:
    file = "table-a4"
    for training in ("linear probe", "fc-only"):
        yield _supervised_above(evidence, file, _FOLDS, training)
        yield _test(f"{training}: and above the random encoder",
                    evidence.difference(file, _FOLDS, "supervised", training, "random"), file,
                    "control")  # fmt: skip


def _finetuned(evidence: Evidence) -> Iterator[Test]:
    for file, question in (("table-a4", _FOLDS), ("table-a6", _OWN), ("table-a6", _SPEAKERS)):
        for row in REGIMES:
            yield _test(f"{question}: {row}, fine-tuned, is above random weights trained alike",
                        evidence.difference(file, question, row, "full", "random"),
                        file)  # fmt: skip
            yield _test(f"{question}: {row}, and above training from scratch with standardised "
                        "weights", evidence.difference(file, question, row, "full", "none"), file,
                        "control")  # fmt: skip


def _same_domain(evidence: Evidence) -> Iterator[Test]:
    file = "table-a2"
    yield _test("contrastive, fine-tuned, is above random weights trained alike",
                evidence.difference(file, _FORTY, "contrastive", "full", "random"),
                file)  # fmt: skip
    yield _test("contrastive, and above training from scratch with standardised weights",
                evidence.difference(file, _FORTY, "contrastive", "full", "none"), file,
                "control")  # fmt: skip
    yield _test("contrastive, fc-only, is above the random encoder",
                evidence.difference(file, _FORTY, "contrastive", "fc-only", "random"), file,
                "control")  # fmt: skip


def _supervised_digits(evidence: Evidence) -> Iterator[Test]:
    for training in ("linear probe", "fc-only"):
        yield _supervised_above(evidence, "table-a6", _OWN, training)


def _frozen_best(evidence: Evidence) -> Iterator[Test]:
    file = "table-a4"
    found = evidence.difference(file, _FOLDS, "supervised", "full", "supervised", "fc-only")
    yield _test("supervised: fc-only is above fine-tuned", negative(found), file)


def _frozen_below(evidence: Evidence) -> Iterator[Test]:
    for file, question in (("table-a2", _FORTY), ("table-a4", _FOLDS), ("table-a6", _OWN)):
        yield _test(f"{question}: random weights trained whole are above contrastive, fc-only",
                    evidence.difference(file, question, "random", "full", "contrastive",
                                        "fc-only"), file)  # fmt: skip


def _too_specific(evidence: Evidence) -> Iterator[Test]:
    file = "table-a6"
    for question in (_OWN, _SPEAKERS):
        for row in REGIMES:
            found = evidence.difference(file, question, row, "linear probe", "random")
            yield _test(f"{question}: {row} does worse than the random encoder, linear probe",
                        negative(found), file)  # fmt: skip
            yield _test(f"{question}: {row}, fine-tuned, is above {row}, fc-only",
                        evidence.difference(file, question, row, "full", row, "fc-only"), file,
                        "control")  # fmt: skip


def _augmentations(evidence: Evidence) -> Iterator[Test]:
    file = "table-a1"
    for row, less in (("+ random SNR (all)", "gain"),
                      ("+ random SNR (all)", "all, tau 0.2"),
                      ("+ random SNR (all)", "all, tau 0.3")):  # fmt: skip
        for training in ("fc-only", "full"):
            yield _test(f"{training}: {row!r} is above {less!r}",
                        evidence.difference(file, _ONE, row, training, less), file)  # fmt: skip


def _wider(evidence: Evidence) -> Iterator[Test]:
    for file, question in (("table-a4", _FOLDS), ("table-a6", _OWN), ("table-a6", _SPEAKERS)):
        yield _test(f"{question}: contrastive at full width, linear probe, is above a quarter of "
                    "the width",
                    evidence.difference(file, question, "contrastive, width 1", "linear probe",
                                        "contrastive"), file)  # fmt: skip
        yield _test(f"{question}: and above random weights of full width",
                    evidence.difference(file, question, "contrastive, width 1", "linear probe",
                                        "random, width 1"), file, "control")  # fmt: skip
    for training in ("fc-only", "full"):
        yield _test(f"the pretraining data's classes, {training}: CNN12_x2 is above CNN12",
                    evidence.difference("table-a1", _ONE, "all, CNN12_x2", training,
                                        "+ random SNR (all)"), "table-a1")  # fmt: skip


def _robust(evidence: Evidence) -> Iterator[Test]:
    probed, whole = evidence.ablation(), evidence.ablation("figure-6-full")
    loss = minus(*(ablation_score(some, "contrastive") for some in (probed, whole)))
    yield _test("the probe loses more than the network that was trained whole", loss,
                "figure-6-full")  # fmt: skip
    varies = minus(*(spread_over_layers(some, "contrastive") for some in (whole, probed)))
    yield _test("and varies less over layers", varies, "figure-6-full",
                unit="variance of accuracy")  # fmt: skip


#: In the paper's order.
SCORE_CLAIMS = (
    Claim("robust", "4.1, figure 6", "A network fine-tuned whole is more robust to the removal "
          "than a classifier on a frozen one, whose loss varies less over layers.", _robust,
          "10_ablation", "figure-6-full",
          would_change="`make results RESULTS=full`, which fine-tunes."),
    Claim("augmentations", "table A.1", "Contrastive pretraining is better with all four "
          "augmentations than with gain alone, and at temperature 0.1 than at 0.2 and 0.3.",
          _augmentations, "05_contrastive", "table-a1",
          would_change="`make results RESULTS=full`, which pretrains seven times a seed."),
    Claim("wider", "tables A.1, A.4 and A.6", "Contrastive pretraining makes better encoders of "
          "wider networks.", _wider, "05_contrastive", "table-a6",
          would_change="`make results RESULTS=full`, which trains CNN12_x2, and more seeds of full "
          "width."),
    Claim("same-domain", "table A.2", "Contrastive pretraining helps a classifier of the very data "
          "that it was pretrained on.", _same_domain, "05_contrastive", "table-a2",
          would_change="`make results RESULTS=full`, which fine-tunes."),
    Claim("performant", "3.1, tables A.4 and A.6", "What pretraining learned is good enough for "
          "other classes (here: it must beat the random encoder).", _frozen, "09_layers",
          "table-a4"),
    Claim("supervised-fc", "table A.4", "In-domain, a linear classifier does better on the "
          "supervised encoder than on the contrastive one.", _supervised_best, "09_layers",
          "table-a4"),
    Claim("frozen-best", "table A.4", "In-domain, the supervised encoder is better frozen than "
          "fine-tuned.", _frozen_best, "09_layers", "table-a4",
          would_change="`make results RESULTS=full`, which fine-tunes."),
    Claim("supervised-digits", "table A.6", "Out-of-domain, too, a linear classifier does better "
          "on the supervised encoder than on the contrastive one.", _supervised_digits,
          "09_layers", "table-a6"),
    Claim("frozen-below", "tables A.2, A.4 and A.6", "A linear classifier on the contrastive "
          "encoder does worse than a network trained from scratch.", _frozen_below, "09_layers",
          "table-a4", would_change="`make results RESULTS=full`, which trains whole networks."),
    Claim("fine-tuning", "tables A.4 and A.6", "Fine-tuning a pretrained network beats training "
          "from scratch, in-domain and out-of-domain.", _finetuned, "09_layers", "table-a4",
          would_change="`make results RESULTS=full`, which fine-tunes."),
    Claim("too-specific", "table A.6, B", "Out-of-domain, a linear classifier on the whole frozen "
          "encoder does badly: its features are too specific.", _too_specific, "09_layers",
          "table-a6"),
    Claim("steady", "B, figure 4", "Performance rises steadily as layers are added.", _steady,
          "09_layers", "figure-4-in-domain"),
    Claim("initial-layers", "B, figure 4", "In the initial layers contrastive pretraining does "
          "better, in-domain and out-of-domain.", _initial, "09_layers", "figure-4-in-domain"),
    Claim("deep-supervised", "B, figure 4", "In-domain, the deep layers do better after supervised "
          "pretraining.", _deep, "09_layers", "figure-4-in-domain"),
    Claim("out-of-domain", "B, figure 4", "Out-of-domain, contrastive pretraining does better in "
          "all but the last two layers.", _all_but_two, "09_layers", "figure-4-out-of-domain"),
    Claim("middle-best", "B, figure 4", "Out-of-domain, a classifier on a middle layer beats one "
          "on the top layer.", _middle, "09_layers", "figure-4-out-of-domain"),
)  # fmt: skip
