"""The paper's claims about layers, transfer and training (its section 4.1 and both appendices)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

from sonibook.analysis.layers import probe_condition
from sonibook.replication.benchmarks import REGIMES, UNTRAINED
from sonibook.replication.results import (
    Claim,
    Measure,
    Results,
    Test,
    beyond_untrained,
    control,
    effect,
)
from sonibook.training.probe import ProbeKind

_FOLDS, _OWN, _SPEAKERS = "esc10, five folds", "fsdd, its own split", "fsdd, a speaker left out"
_FORTY, _ONE = "esc40, trained on folds 1 to 4", "esc40, trained on fold 1"
_PROBE, _FC, _FULL = "linear probe", "fc-only", "full"
_A1, _A2, _A4, _A6 = "table-a1", "table-a2", "table-a4", "table-a6"
#: Where other classes are transferred to.
_TRANSFER = ((_A4, _FOLDS), (_A6, _OWN), (_A6, _SPEAKERS))
_IN, _OUT = "figure-4-in-domain", "figure-4-out-of-domain"
#: Where layers are probed: the files of the logistic and of the ridge probe.
_PROBED = {
    "ESC-10, each fold left out": (_IN, f"{_IN}-ridge"),
    "digits, their own split": (_OUT, f"{_OUT}-ridge"),
    "digits, each speaker left out": ("figure-4-speakers", "figure-4-speakers"),
}
_S, _C = REGIMES
_FULLER = "`make results RESULTS=full`, which"
_FINE_TUNES = f"{_FULLER} fine-tunes."


def _accuracy(
    results: Results, file: str, layers: range, less: range = range(0)
) -> dict[str, Measure]:
    own = file if results.probe == "logistic" else f"{file}-{results.probe}"
    condition = probe_condition(results.probe)
    return results.means(own, "accuracy", layers, condition=condition, less=less)


@Claim("4.1, figure 6", "10_ablation", "figure-6-full", would_change=_FINE_TUNES)
def _robust(results: Results) -> Iterator[Test]:
    """A network fine-tuned whole is more robust to the removal than a classifier on a frozen one,
    whose loss varies less over layers.
    """
    loss = results.drops("figure-6")[_C] - results.drops("figure-6-full")[_C]
    yield effect("the probe loses more than the network that was trained whole", loss)
    varies = results.spread("figure-6-full", _C) - results.spread("figure-6", _C)
    yield effect("and varies less over layers", varies, unit="variance of accuracy")


@Claim("table A.1", "05_contrastive", _A1, would_change=f"{_FULLER} pretrains seven times a seed.")
def _augmentations(results: Results) -> Iterator[Test]:
    """Contrastive pretraining is better with all four augmentations than with gain alone, and at
    temperature 0.1 than at 0.2 and 0.3.
    """
    row = "+ random SNR (all)"
    for less, training in product(("gain", "all, tau 0.2", "all, tau 0.3"), (_FC, _FULL)):
        says = f"{training}: {row!r} is above {less!r}"
        yield effect(says, results.difference(_A1, _ONE, row, training, less))


@Claim(
    "tables A.1, A.4 and A.6",
    "05_contrastive",
    _A6,
    would_change=f"{_FULLER} trains CNN12_x2, and more seeds of full width.",
)
def _wider(results: Results) -> Iterator[Test]:
    """Contrastive pretraining makes better encoders of wider networks."""
    wide = f"{_C}, width 1"
    for file, question in _TRANSFER:
        gain = results.difference(file, question, wide, _PROBE, _C)
        says = f"{question}: contrastive at full width, linear probe, is above a quarter of the "
        yield effect(says + "width", gain, file=file)
        over_random = results.difference(file, question, wide, _PROBE, "random, width 1")
        yield control(f"{question}: and above random weights of full width", over_random, file=file)
    for training in (_FC, _FULL):
        gain = results.difference(_A1, _ONE, "all, CNN12_x2", training, "+ random SNR (all)")
        says = f"the pretraining data's classes, {training}: CNN12_x2 is above CNN12"
        yield effect(says, gain, file=_A1)


@Claim("table A.2", "05_contrastive", _A2, would_change=_FINE_TUNES)
def _same_domain(results: Results) -> Iterator[Test]:
    """Contrastive pretraining helps a classifier of the very data that it was pretrained on."""
    says = "contrastive, fine-tuned, is above random weights trained alike"
    yield effect(says, results.difference(_A2, _FORTY, _C, _FULL, "random"))
    says = "contrastive, and above training from scratch with standardised weights"
    yield control(says, results.difference(_A2, _FORTY, _C, _FULL, "none"))
    says = "contrastive, fc-only, is above the random encoder"
    yield control(says, results.difference(_A2, _FORTY, _C, _FC, "random"))


@Claim("3.1, tables A.4 and A.6", "09_layers", _A4)
def _performant(results: Results) -> Iterator[Test]:
    """What pretraining learned is good enough for other classes (here: it must beat encoders that
    learned nothing).
    """
    for (file, question), training, row, (weights, named) in product(
        _TRANSFER, (_PROBE, _FC), REGIMES, UNTRAINED.items()
    ):
        gain = results.difference(file, question, row, training, weights)
        yield effect(f"{question}: {row}, {training}, is above {named}", gain, file=file)


def _supervised_above(results: Results, file: str, question: str, training: str) -> Test:
    below = results.difference(file, question, _C, training, _S)
    return effect(f"{question}, {training}: supervised is above contrastive", -below)


@Claim("table A.4", "09_layers", _A4)
def _supervised_fc(results: Results) -> Iterator[Test]:
    """In-domain, a linear classifier does better on the supervised encoder than on the contrastive
    one.
    """
    for training in (_PROBE, _FC):
        yield _supervised_above(results, _A4, _FOLDS, training)
        for weights, named in UNTRAINED.items():
            over = results.difference(_A4, _FOLDS, _S, training, weights)
            yield control(f"{training}: and above {named}", over)


@Claim("table A.4", "09_layers", _A4, would_change=_FINE_TUNES)
def _frozen_best(results: Results) -> Iterator[Test]:
    """In-domain, the supervised encoder is better frozen than fine-tuned."""
    below = results.difference(_A4, _FOLDS, _S, _FULL, _S, _FC)
    yield effect("supervised: fc-only is above fine-tuned", -below)


@Claim("table A.6", "09_layers", _A6)
def _supervised_digits(results: Results) -> Iterator[Test]:
    """Out-of-domain, too, a linear classifier does better on the supervised encoder than on the
    contrastive one.
    """
    for question, training in product((_OWN, _SPEAKERS), (_PROBE, _FC)):
        yield _supervised_above(results, _A6, question, training)


@Claim(
    "tables A.2, A.4 and A.6", "09_layers", _A4, would_change=f"{_FULLER} trains whole networks."
)
def _frozen_below(results: Results) -> Iterator[Test]:
    """A linear classifier on the contrastive encoder does worse than a network trained from
    scratch.
    """
    for file, question in ((_A2, _FORTY), *_TRANSFER):
        gain = results.difference(file, question, "random", _FULL, _C, _FC)
        says = f"{question}: random weights trained whole are above contrastive, fc-only"
        yield effect(says, gain, file=file)


@Claim("tables A.4 and A.6", "09_layers", _A4, would_change=_FINE_TUNES)
def _fine_tuning(results: Results) -> Iterator[Test]:
    """Fine-tuning a pretrained network beats training from scratch, in-domain and out-of-domain."""
    for (file, question), row in product(_TRANSFER, REGIMES):
        gain = results.difference(file, question, row, _FULL, "random")
        says = f"{question}: {row}, fine-tuned, is above random weights trained alike"
        yield effect(says, gain, file=file)
        gain = results.difference(file, question, row, _FULL, "none")
        says = f"{question}: {row}, and above training from scratch with standardised weights"
        yield control(says, gain, file=file)


@Claim("table A.6, B", "09_layers", _A6)
def _too_specific(results: Results) -> Iterator[Test]:
    """Out-of-domain, a linear classifier on the whole frozen encoder does badly: its features are
    too specific.
    """
    for question, row in product((_OWN, _SPEAKERS), REGIMES):
        for weights, named in UNTRAINED.items():
            gain = results.difference(_A6, question, row, _PROBE, weights)
            yield effect(f"{question}: {row} does worse than {named}, linear probe", -gain)
        gain = results.difference(_A6, question, row, _FULL, row, _FC)
        yield control(f"{question}: {row}, fine-tuned, is above {row}, fc-only", gain)


@Claim("B, figure 4", "09_layers", _IN)
def _steady(results: Results) -> Iterator[Test]:
    """Performance rises steadily as layers are added."""
    for file in (_IN, _OUT):
        domain = file.removeprefix("figure-4-")
        top = _accuracy(results, file, range(11, 12))
        for regime in REGIMES:
            for first, then in ((range(1, 4), range(4, 8)), (range(4, 8), range(8, 12))):
                says = f"{domain}, {regime}: layers {then[0]} to {then[-1]} tell more than "
                rise = _accuracy(results, file, then, first)[regime]
                yield effect(says + f"{first[0]} to {first[-1]}", rise, file=file)
            says = f"{domain}, {regime}: the top layer tells more than with "
            yield from beyond_untrained(says, top, regime, file=file)


@Claim("B, figure 4", "09_layers", _IN)
def _initial_layers(results: Results) -> Iterator[Test]:
    """In the initial layers contrastive pretraining does better, in-domain and out-of-domain."""
    for file in (_IN, _OUT):
        domain, found = file.removeprefix("figure-4-"), _accuracy(results, file, range(1, 5))
        says = f"{domain}: contrastive is above supervised, layers 1 to 4"
        yield effect(says, found[_C] - found[_S], file=file)
        yield from beyond_untrained(f"{domain}: and above ", found, _C, file=file)


@Claim("B, figure 4", "09_layers", _IN)
def _deep_supervised(results: Results) -> Iterator[Test]:
    """In-domain, the deep layers do better after supervised pretraining."""
    found = _accuracy(results, _IN, range(9, 12))
    yield effect("supervised is above contrastive, layers 9 to 11", found[_S] - found[_C])
    yield from beyond_untrained("and above ", found, _S)


@Claim("B, figure 4", "09_layers", _OUT)
def _out_of_domain(results: Results) -> Iterator[Test]:
    """Out-of-domain, contrastive pretraining does better in all but the last two layers."""
    found = _accuracy(results, _OUT, range(1, 10))
    yield effect("contrastive is above supervised, layers 1 to 9", found[_C] - found[_S])
    found = _accuracy(results, _OUT, range(10, 12))
    yield effect("supervised is above contrastive, layers 10 and 11", found[_S] - found[_C])


@Claim("B, figure 4", "09_layers", _OUT)
def _middle_best(results: Results) -> Iterator[Test]:
    """Out-of-domain, a classifier on a middle layer beats one on the top layer."""
    found = _accuracy(results, _OUT, range(5, 8), range(11, 12))
    for regime in REGIMES:
        yield effect(f"{regime}: layers 5 to 7 are above layer 11", found[regime])
        says = f"{regime}: and further above it than with "
        yield from beyond_untrained(says, found, regime)


def probe_gains(folder: str | Path) -> list[dict[str, Any]]:
    """What trained networks are worth beyond untrained ones, by both kinds of probe.

    Averages of blocks 8 to 10 and block 11 alone, which were named before they were measured.

    Parameters
    ----------
    folder : str or Path
        Such as ``data/results``; AnalysisError if a file in it is damaged.

    Returns
    -------
    list of dict
        A row for each question, blocks, kind of probe and regime that was measured. Of type
        `Measure`, with intervals over networks: ``accuracy``, in [0, 1], and what it has above
        each kind of untrained network.
    """
    results, rows = Results(Path(folder)), []
    parts = {"8 to 10": range(8, 11), "11": range(11, 12)}
    for (question, files), (blocks, layers) in product(_PROBED.items(), parts.items()):
        for kind, file in zip(get_args(ProbeKind), files, strict=True):
            found = results.means(file, "accuracy", layers, condition=probe_condition(kind))
            for regime in (one for one in REGIMES if found[one].known):
                of = {"asked": question, "blocks": blocks, "probe": kind, "network": regime}
                own = found[regime]
                above = {f"above {name}": own - found[row] for row, name in UNTRAINED.items()}
                rows.append({**of, "accuracy": own, **above})
    return rows


#: In the paper's order.
SCORE_CLAIMS = tuple(one for one in [*globals().values()] if isinstance(one, Claim))
