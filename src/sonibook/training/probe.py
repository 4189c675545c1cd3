"""The linear probe: how much a frozen encoder's features tell of the classes.

A logistic regression, or ridge regression to the classes, on the mean feature maps of whole clips.
Its one setting, the strength of regularisation, is chosen by cross-validation within the training
part, so that the test part is looked at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from sonibook.datasets.base import ClipReader, Dataset, FileDataset
from sonibook.errors import DatasetError
from sonibook.metrics.scores import mean_average_precision
from sonibook.model.encoder import CNN12, Classifier
from sonibook.model.stack import blocks_of, check_layer, least_length
from sonibook.training.data import predict

#: Inverse strengths of regularisation to choose from (scikit-learn's C, and 1 / alpha of ridge).
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_MOST_FOLDS = 5
#: How feature maps become a probe's features; see `probe_features`.
FeatureKind: TypeAlias = Literal["mean", "log"]
#: What is fitted to features; see `linear_probe`.
ProbeKind: TypeAlias = Literal["logistic", "ridge"]
#: The classes of clips: a number each, or 1 for each class that a clip has.
_Labels: TypeAlias = Int[ndarray, " clips"] | Float[ndarray, "clips classes"]


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe: the class of every test clip, and the classes it was fitted to, in order.

    Of clips with any number of labels `predicted` has a score for each class, (tested, classes).
    Logits, or ridge's scores, are ``features @ weight.T + bias``. Cross-validation in so many
    folds chose the inverse strength of regularisation (C, or 1 / alpha).
    """

    predicted: Shaped[ndarray, "tested ..."]
    strength: float
    folds: int
    classes: Int[ndarray, " classes"]
    weight: Float[ndarray, "classes channels"]
    bias: Float[ndarray, " classes"]


def over_time(
    maps: Float[Tensor, "batch channel time"], kind: FeatureKind = "mean"
) -> Float[Tensor, "batch features"]:
    """What a probe sees of feature maps; see `probe_features`."""
    mean = maps.mean(dim=2)
    if kind == "mean":
        return mean
    both = torch.cat([mean, maps.amax(dim=2)], dim=1)
    return both.abs().log1p() * both.sign()


def probe_features(
    network: nn.Module,
    data: Dataset | ClipReader,
    *,
    layer: int = 11,
    kind: FeatureKind = "mean",
    batch_size: int = 16,
    progress: bool = False,
) -> tuple[Float[ndarray, "clips features"], _Labels]:
    """What a linear probe sees of each whole clip, and the clips' labels.

    Clips that cannot be read are left out, a few at most.

    Parameters
    ----------
    network : torch.nn.Module
        As `sonibook.model.stack.blocks_of` takes it, in `eval` mode.
    data : Dataset or ClipReader
        At the network's sampling rate. A reader tells afterwards which clips are left out, in its
        ``bad``; with a data set, a `SonibookWarning` does.
    layer : int
        Counted from 1. Maps are taken after the layer's ReLU and pool.
    kind : {"mean", "log"}
        ``"mean"`` averages each map over time. ``"log"`` gives log(1 + mean) and, after these,
        log(1 + maximum) of each map (of what is below zero, that of its magnitude, with its sign):
        for networks whose maps are sparse and of very different sizes, such as SoundNet.
    batch_size : int >= 1
    progress : bool
        Show a progress bar.

    Returns
    -------
    features : ndarray, shape (clips, channels), or twice as many for ``"log"``
    labels : ndarray
        Of int, shape (clips,), if each clip has one label. Else of shape (clips, classes): 1 for
        each class that a clip has.

    Raises
    ------
    LayerError, StackError
        If there is no such layer, or the network is not a stack.
    AudioError
        If a clip's file has vanished, or more than a few cannot be read.
    """
    reader = data if isinstance(data, ClipReader) else ClipReader(data)
    blocks = blocks_of(network)
    check_layer(blocks, layer)
    stack = (
        network.truncate(layer).features
        if isinstance(network, CNN12)
        else nn.Sequential(*(one for block in blocks[:layer] for one in block.modules))
    )
    features, targets = predict(
        lambda x: over_time(stack(x), kind),
        reader,
        least_length=least_length(blocks, layer),
        batch_size=batch_size,
        progress=progress,
    )
    if reader is not data:
        reader.warn()
    return features, targets.argmax(axis=1) if reader.data.task == "single-label" else targets


def groups_of(data: Dataset | ClipReader, *, tested: Dataset | None = None) -> list[str] | None:
    """What a cross-validation must keep together: for ESC-50 the fold, for FSDD the speaker.

    Parameters
    ----------
    data : Dataset or ClipReader
        Of a reader, without the clips that it could not read.
    tested : Dataset or None
        What will be named in the end. A cross-validation should be as hard as that is: where all
        its groups are in `data`, too, such as the same speakers, nothing is kept together.

    Returns
    -------
    list of str, or None
        One for each clip; None where the data set tells fewer than two groups, or `tested` has no
        group of its own.
    """
    data, bad = (data.data, data.bad) if isinstance(data, ClipReader) else (data, {})
    if not isinstance(data, FileDataset):
        return None
    groups = [entry.group for n, entry in enumerate(data.entries) if n not in bad]
    known = set(groups)
    if isinstance(tested, FileDataset) and {entry.group for entry in tested.entries} <= known:
        return None
    return groups if len(known) > 1 else None


def linear_probe(
    features: Float[ndarray, "clips channels"],
    labels: _Labels,
    test_features: Float[ndarray, "tested channels"],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    kind: ProbeKind = "logistic",
    least_scale: float = 0.0,
) -> LinearProbe:
    """Fit a linear probe on training features and let it name the classes of test features.

    Multinomial logistic regression on standardised features; of clips with any number of labels a
    regression for each class, all of one regularisation, the one with the highest mean average
    precision. Mean, scale and regularisation come from the training part alone, within the
    cross-validation from its training folds alone. Ridge regression to 1 for a clip's class and -1
    for the others shrinks weights alike, but a clip that is far on the right side of a boundary
    pulls at it, too. What one kind of probe reads and the other does not is a matter of the probe.

    Parameters
    ----------
    features : ndarray, shape (clips, channels)
    labels : ndarray of int, shape (clips,), or of 0 and 1, shape (clips, classes)
    test_features : ndarray, shape (tested, channels)
    groups : sequence of str, or None
        Clips of one group stay on one side of every split; None splits by class, at random.
    seed : int >= 0
        Of the random splits.
    kind : {"logistic", "ridge"}
    least_scale : float >= 0
        Features whose standard deviation is below this share of the median one are divided by the
        median one: else what hardly ever answers is magnified. 0 standardises every feature;
        infinity divides all by the same number, and so does not standardise.

    Raises
    ------
    DatasetError
        If there are fewer than two classes, or too few clips of one to cross-validate.
    """
    several = labels.ndim == 2
    classes, counts = np.unique(labels, return_counts=True)
    too_few = "A linear probe needs two training clips or groups at least."
    if several:
        classes, least = np.arange(labels.shape[1]), len(labels)
    else:
        if len(classes) < 2:
            raise DatasetError("A linear probe needs training clips of at least two classes.")
        least = int(counts.min())
        too_few = (
            f"Class {classes[counts.argmin()]} has one training clip: a linear probe needs at "
            "least two of each to cross-validate."
        )
    folds = min(_MOST_FOLDS, least if groups is None else len(set(groups)))
    if folds < 2:
        raise DatasetError(too_few)
    search = _search(kind, folds, groups, seed, least_scale=least_scale, several=several)
    # Small matrices: threads would wait for each other more than they work.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Label .* is present in all training examples")
        search.fit(features.astype(np.float64), labels.astype(int), groups=groups)
    tested, channels = test_features.astype(np.float64), features.shape[1]
    if several:
        predicted = search.decision_function(tested)
        # Scores are affine: those of nothing, and of one channel at a time, tell all.
        scores = search.decision_function(np.vstack([np.zeros(channels), np.eye(channels)]))
        weight, bias = (scores[1:] - scores[0]).T, scores[0]
    else:
        predicted = search.predict(tested)
        scaler, regression = search.best_estimator_
        weight, bias = regression.coef_, regression.intercept_
        if len(classes) == 2:  # scikit-learn gives the second one's logit above the first one's
            weight, bias = np.vstack([0 * weight, weight]), np.append(0 * bias, bias)
        weight = weight / scaler.scale_
        bias = bias - weight @ scaler.mean_
    (best,) = search.best_params_.values()
    strength = float(best if kind == "logistic" else 1 / best)
    return LinearProbe(predicted, strength, folds, classes, weight, bias)


def _search(
    kind: ProbeKind,
    folds: int,
    groups: Sequence[str] | None,
    seed: int,
    *,
    least_scale: float,
    several: bool,
) -> Any:
    """A cross-validation of a regression on standardised features, by groups where there are some.

    Of clips with `several` labels or none it is a regression for each class.
    """
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    class Scaler(StandardScaler):
        """It magnifies nothing that hardly varies."""

        def fit(self, x: ndarray, y: Any = None, sample_weight: Any = None) -> Scaler:
            super().fit(x, y, sample_weight)
            spread = np.sqrt(self.var_)
            if least_scale and spread.any():
                typical = np.median(spread[spread > 0])
                self.scale_[spread < least_scale * typical] = typical
            return self

    def precision(fitted: Any, x: ndarray, y: ndarray) -> float:
        return mean_average_precision(fitted.decision_function(x), y)

    logistic = kind == "logistic"
    regression = LogisticRegression(max_iter=2000) if logistic else RidgeClassifier()
    name, choices = ("C", STRENGTHS) if logistic else ("alpha", [1 / one for one in STRENGTHS])
    at_random = StratifiedKFold
    if several:
        regression, name = OneVsRestClassifier(regression), f"estimator__{name}"
        at_random = KFold
    pipeline = make_pipeline(Scaler(), regression)
    grid = {f"{pipeline.steps[-1][0]}__{name}": choices}
    drawn = at_random(folds, shuffle=True, random_state=seed) if groups is None else None
    scoring = precision if several else None
    return GridSearchCV(pipeline, grid, cv=drawn or GroupKFold(folds), scoring=scoring)


def probed(
    encoder: CNN12, training: Dataset, *, layer: int = 11, seed: int = 0, progress: bool = False
) -> Classifier:
    """A frozen encoder with a linear probe fitted to a training part, as a classifier.

    Parameters
    ----------
    encoder : CNN12
    training : Dataset
        Clips with one label each, or any number.
    layer : int
        Whose mean feature maps the probe sees; counted from 1.
    seed : int >= 0
        As for `linear_probe`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Classifier
        In `eval` mode, its encoder cut to that layer.

    Raises
    ------
    LayerError, DatasetError, AudioError
        As `probe_features` and `linear_probe`, and if a class has no clip where each clip has one
        label.
    """
    reader = ClipReader(training)
    features, labels = probe_features(encoder, reader, layer=layer, progress=progress)
    reader.warn()
    groups = groups_of(reader)
    short = encoder.truncate(layer)
    short.fc1, short.dim = nn.Sequential(), short.channels  # mean feature maps are what it sees
    classifier = Classifier(short, training.classes)
    classifier.head = fit_head(features, labels, training, groups=groups, seed=seed)
    return classifier.eval()


def fit_head(
    features: Float[ndarray, "clips features"],
    labels: _Labels,
    training: Dataset,
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> nn.Linear:
    """A linear probe, fitted to clips of a data set, as a layer from features to logits."""
    if training.task == "single-label":
        missing = sorted({*range(len(training.classes))} - {*labels.tolist()})
        if missing:
            raise DatasetError(
                f"{training.name} ({training.split}) has no clip of "
                f"{training.classes[missing[0]]!r}: a probe must see every class that it is to "
                "name."
            )
    probe = linear_probe(features, labels, features[:1], groups=groups, seed=seed)
    head = nn.Linear(features.shape[1], len(training.classes))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(probe.weight))
        head.bias.copy_(torch.from_numpy(probe.bias))
    return head
