"""What the probe says of features that owe nothing to the training of a raw-waveform encoder.

``yardstick``: of mel levels and, where `kymatio` is installed, of wavelet scattering (J. Andén and
S. Mallat, "Deep scattering spectrum", IEEE Transactions on Signal Processing 62, 2014), which are
made by formula; and of CNNs on log-mel spectrograms, those that were trained
(`tools.results_spectrogram`) and one that was not. ``starts``: of networks between the two kinds
that have learned nothing, He weights and the centred, scaled ones that training starts from. Both
on ESC-10, each fold left out in turn, by both kinds of probe. ``scales``: of trained and untrained
networks of three seeds, by logistic probes that standardise every filter, none, or those that
vary enough. What a file holds is not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from sonibook.analysis.layers import left_out, probe_condition
from sonibook.analysis.machine_listeners import features_of
from sonibook.analysis.networks import CENTRED
from sonibook.analysis.result import Estimate, MeasuredOn, ResultTable, Row
from sonibook.datasets import open_dataset
from sonibook.datasets.base import FileDataset
from sonibook.deconvnet.spectrogram import SpectrogramCNN, load_spectrogram_cnn
from sonibook.model.encoder import CNN12
from sonibook.model.stack import blocks_of
from sonibook.replication.benchmarks import REGIMES, SEEDS, Pretrained
from sonibook.training.data import predict
from sonibook.training.probe import ProbeKind, groups_of, linear_probe, probe_features
from tools.results_settings import Settings
from tools.results_spectrogram import MEL_CNN, trained

#: Wavelets an octave, and the octaves that averages of scattering span: 128 ms at 8 kHz.
_Q, _J = 8, 10
#: What probes of ``scales`` divide by at least, as a share of the median filter's spread.
_LITTLE = 0.1
_LEAST_SCALES = {"probe": 0.0, f"probe, least scale {_LITTLE}": _LITTLE, "probe, one scale": np.inf}
#: Which blocks of He weights have their filters centred: each its mean taken off.
_CENTRED = {
    "random": (),
    "first block centred": (1,),
    "other blocks centred": tuple(range(2, 12)),
    "all blocks centred": tuple(range(1, 12)),
}
Features = Float[ndarray, "clips features"]


def make(target: str, path: Path, settings: Settings) -> None:
    """Measure what a file lacks, writing it after each kind of features."""
    data = open_dataset("esc10", root=settings.root, split="all")
    assert isinstance(data, FileDataset)
    rows = [*ResultTable.read(path).rows] if path.exists() else []
    kinds, measure = TARGETS[target]
    for name, regime, seed, layer, features in kinds(data, settings):
        if any((row.network, row.layer) == (name, layer) for row in rows):
            continue
        untrained = regime not in (MEL_CNN, *REGIMES)
        identity = {"network": name, "regime": regime, "seed": seed, "baseline": untrained}
        found = measure(identity | {"layer": layer}, features(), data)
        rows += found
        ResultTable(
            analysis="layers",
            networks={row.network: row.network for row in rows},
            settings={"trained_on": "each group left out in turn", "seed": SEEDS[0]},
            data=MeasuredOn.of(data, clips=len(data), skipped={}),
            rows=tuple(rows),
            provenance=settings.provenance(target),
        ).write(path)
        said = (f"{row.quantity} {row.condition}: {row:.3f}" for row in found)
        print(f"{target}: {name}: {', '.join(said)}", flush=True)
    print(f"{path} has {len(rows)} rows.")


def _probed(identity: dict[str, Any], features: Features, data: FileDataset) -> list[Row]:
    """The accuracy of both probes, and how many directions the features differ in."""
    rows = [
        _accuracy(identity | {"condition": probe_condition(kind)}, features, data, kind=kind)
        for kind in get_args(ProbeKind)
    ]
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    shares = np.linalg.svd(scaled, compute_uv=False) ** 2
    dimension = Estimate(mean=float(shares.sum() ** 2 / (shares**2).sum()), clips=len(data))
    rows.append(Row(**identity, quantity="effective dimension", **dimension.model_dump()))
    return rows


def _accuracy(identity: dict[str, Any], features: Features, data: FileDataset, **how: Any) -> Row:
    """How many clips a probe names that is fitted to all groups but their own."""
    labels = np.array([entry.labels[0] for entry in data.entries])
    right = np.zeros(len(labels), bool)
    for _, out, groups in left_out(data, groups_of(data)):
        parts = (features[~out], labels[~out], features[out])
        probe = linear_probe(*parts, groups=groups, seed=SEEDS[0], **how)
        right[out] = probe.predicted == labels[out]
    share = Estimate.of_share(int(right.sum()), len(right))
    return Row(**identity, quantity="accuracy", **share.model_dump())


def _scaled(identity: dict[str, Any], features: Features, data: FileDataset) -> list[Row]:
    """The accuracy of probes that magnify less and less, and the share of filters concerned."""
    rows = [
        _accuracy(identity | {"condition": condition}, features, data, least_scale=least)
        for condition, least in _LEAST_SCALES.items()
    ]
    spread = features.std(axis=0)
    few = spread < _LITTLE * np.median(spread[spread > 0])
    share = Estimate.of_share(int(few.sum()), len(few))
    return [*rows, Row(**identity, quantity="hardly varying filters", **share.model_dump())]


#: Network, regime, seed, layer, and what makes the features.
_Measured = Iterator[tuple[str, str, int, int | None, Callable[[], Features]]]


def _encoders(data: FileDataset, settings: Settings) -> _Measured:
    for one in settings.encoders():
        if one.seed in SEEDS[:3]:
            for layer in (8, 11):
                features = partial(_of_layer, one.load(), data, layer=layer)
                yield one.name, one.regime, one.seed, layer, features


def _starts(data: FileDataset, _: Settings) -> _Measured:
    for seed in SEEDS:
        for regime, blocks in _CENTRED.items():
            encoder = _centred(seed, blocks)
            yield f"{regime}:{seed}", regime, seed, 11, partial(_of_layer, encoder, data)
        start = Pretrained(f"{CENTRED}:{seed}", CENTRED, seed)
        yield start.name, CENTRED, seed, 11, partial(_of_layer, start.load(), data)


def _centred(seed: int, centred: tuple[int, ...]) -> CNN12:
    encoder = CNN12(width=0.25, seed=seed).eval()
    with torch.no_grad():
        for layer in centred:
            weight = blocks_of(encoder)[layer - 1].conv.weight
            weight -= weight.mean(dim=(1, 2), keepdim=True)
    return encoder


def _of_layer(encoder: CNN12, data: FileDataset, *, layer: int = 11) -> Features:
    return probe_features(encoder, data, layer=layer, progress=True)[0].astype(np.float64)


def _yardsticks(data: FileDataset, settings: Settings) -> _Measured:
    what, mel = features_of("event", 8000)
    yield what, "mel levels", 0, None, partial(_each, mel, data)
    random = f"random {MEL_CNN}"
    untrained = SpectrogramCNN(seed=SEEDS[0]).eval()
    yield f"{random}:{SEEDS[0]}", random, SEEDS[0], None, partial(_last, untrained, data)
    for seed, path in trained(settings).items():
        network = load_spectrogram_cnn(path)
        yield f"{MEL_CNN}:{seed}", MEL_CNN, seed, None, partial(_last, network, data)
    if find_spec("kymatio") is None:
        print("yardstick: no scattering: pip install --no-deps kymatio==0.3.0")
        return
    # Its three-dimensional part wants an older SciPy: the one-dimensional one alone is imported.
    frontend = import_module("kymatio.scattering1d.frontend.numpy_frontend")
    scattering = frontend.ScatteringNumPy1D(J=_J, shape=(len(data[0].waveform),), Q=_Q)

    def of_clip(x: Float[Tensor, "1 time"]) -> Float[ndarray, "1 features"]:
        return np.log(scattering(x[0].numpy()).mean(axis=-1).clip(1e-8))[None]

    name = f"scattering of two orders, {_Q} wavelets an octave"
    yield name, "scattering", 0, None, partial(_each, of_clip, data)


def _last(network: SpectrogramCNN, data: FileDataset) -> Features:
    features, _ = predict(network, data, least_length=network.least_length, progress=True)
    return features.astype(np.float64)


def _each(features: Callable[[Tensor], Features], data: FileDataset) -> Features:
    clips = tqdm(data, desc="features", disable=None)
    return np.concatenate(
        [features(torch.from_numpy(one.waveform)[None].double()) for one in clips]
    )


#: By the name of the results file: whose features, and what is measured of them.
TARGETS = {
    "yardstick": (_yardsticks, _probed),
    "starts": (_starts, _probed),
    "scales": (_encoders, _scaled),
}
