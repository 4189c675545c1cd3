"""The linear probe: how much a frozen encoder's features tell of the classes.

A logistic regression on the mean feature maps of whole clips. Its one setting, the strength of
regularisation, is chosen by cross-validation within the training part, so that the test part is
looked at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from torch import Tensor, nn

from sonibook.datasets.base import ClipReader, Dataset, FileDataset
from sonibook.errors import DatasetError
from sonibook.metrics import mean_average_precision
from sonibook.model.encoder import CNN12
from sonibook.training.evaluate import predict

#: Inverse strengths of regularisation to choose from (scikit-learn's C).
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_MOST_FOLDS = 5


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe's answers.

    Attributes
    ----------
    predicted : ndarray of int, shape (clips,)
        The class of every test clip.
    strength : float
        The inverse strength of regularisation (C) that cross-validation chose.
    folds : int
        Folds of the cross-validation.
    classes : ndarray of int, shape (classes,)
        The labels it was fitted to, in order.
    weight, bias : ndarray, shapes (classes, channels) and (classes,)
        Its logits are ``features @ weight.T + bias``.
    """

    predicted: Int[ndarray, " clips"]
    strength: float
    folds: int
    classes: Int[ndarray, " classes"]
    weight: Float[ndarray, "classes channels"]
    bias: Float[ndarray, " classes"]


def mean_features(
    encoder: CNN12,
    data: Dataset,
    *,
    layer: int = 11,
    batch_size: int = 16,
    progress: bool = False,
) -> tuple[Float[ndarray, "clips channels"], Int[ndarray, " clips"]]:
    """The feature maps of a layer, averaged over each whole clip, and the clips' labels.

    Parameters
    ----------
    encoder : CNN12
        In `eval` mode.
    data : Dataset
        Single-label.
    layer : int
        Counted from 1. Maps are taken after the layer's ReLU and pool.
    batch_size : int >= 1
    progress : bool
        Show a progress bar.

    Returns
    -------
    features : ndarray, shape (clips, channels), >= 0
    labels : ndarray of int, shape (clips,)

    Raises
    ------
    LayerError
        If there is no such layer.
    DatasetError
        If the data set is not single-label.
    AudioError
        If a clip cannot be read.
    """
    if data.task != "single-label":
        raise DatasetError(
            f"{data.name} is {data.task}: a linear probe needs one label for every clip."
        )
    short = encoder.truncate(layer)
    features, targets = predict(
        short.pooled,
        data,
        least_length=short.least_length,
        batch_size=batch_size,
        progress=progress,
    )
    return features, targets.argmax(axis=1)


def groups_of(
    data: Dataset, *, tested: Dataset | None = None, left_out: Container[int] = ()
) -> list[str] | None:
    """What a cross-validation must keep together: for ESC-50 the fold, for FSDD the speaker.

    Parameters
    ----------
    data : Dataset
    tested : Dataset or None
        What will be named in the end. A cross-validation should be as hard as that is: where all
        its groups are in `data`, too, such as the same speakers, nothing is kept together.
    left_out : container of int
        Clips that could not be read.

    Returns
    -------
    list of str, or None
        One for each clip; None where the data set tells fewer than two groups, or `tested` has no
        group of its own.
    """
    if not isinstance(data, FileDataset):
        return None
    groups = [entry.group for n, entry in enumerate(data.entries) if n not in left_out]
    known = set(groups)
    if isinstance(tested, FileDataset) and {entry.group for entry in tested.entries} <= known:
        return None
    return groups if len(known) > 1 else None


def linear_probe(
    features: Float[ndarray, "clips channels"],
    labels: Int[ndarray, " clips"],
    test_features: Float[ndarray, "tested channels"],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> LinearProbe:
    """Fit a linear probe on training features and let it name the classes of test features.

    Multinomial logistic regression on standardised features. Mean, scale and regularisation
    come from the training part alone, within the cross-validation from its training folds alone.

    Parameters
    ----------
    features : ndarray, shape (clips, channels)
    labels : ndarray of int, shape (clips,)
    test_features : ndarray, shape (tested, channels)
    groups : sequence of str, or None
        Clips of one group stay on one side of every split; None splits by class, at random.
    seed : int >= 0
        Of the random splits.

    Returns
    -------
    LinearProbe

    Raises
    ------
    DatasetError
        If there are fewer than two classes, or too few clips of one to cross-validate.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise DatasetError("A linear probe needs training clips of at least two classes.")
    available = int(counts.min()) if groups is None else len(set(groups))
    folds = min(_MOST_FOLDS, available)
    if folds < 2:
        raise DatasetError(
            f"Class {classes[counts.argmin()]} has one training clip: a linear probe needs at "
            "least two of each to cross-validate."
        )
    if groups is None:
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    else:
        splits = GroupKFold(folds)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": STRENGTHS},
        cv=splits,
    )
    # Small matrices: threads would wait for each other more than they work.
    with threadpool_limits(1):
        search.fit(features.astype(np.float64), labels, groups=groups)
    scaler, regression = search.best_estimator_
    weight, bias = regression.coef_, regression.intercept_
    if len(classes) == 2:  # scikit-learn gives the second one's logit above the first one's
        weight, bias = np.vstack([0 * weight, weight]), np.append(0 * bias, bias)
    weight = weight / scaler.scale_
    return LinearProbe(
        predicted=search.predict(test_features.astype(np.float64)),
        strength=float(search.best_params_["logisticregression__C"]),
        folds=folds,
        classes=classes,
        weight=weight,
        bias=bias - weight @ scaler.mean_,
    )


def multilabel_probe(
    features: Float[ndarray, "clips channels"],
    targets: Shaped[ndarray, "clips classes"],
    test_features: Float[ndarray, "tested channels"],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[Float[ndarray, "tested classes"], dict[str, float | int]]:
    """Fit a linear probe of clips with any number of labels, and score test features by it.

    A logistic regression for each class on standardised features, all of one regularisation, the
    one with the highest mean average precision in a cross-validation within the training part.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    folds = min(_MOST_FOLDS, len(features) if groups is None else len(set(groups)))
    if folds < 2:
        raise DatasetError("A linear probe needs two training clips or groups at least.")
    shuffled = KFold(folds, shuffle=True, random_state=seed)
    probe = OneVsRestClassifier(LogisticRegression(max_iter=2000))
    search = GridSearchCV(
        make_pipeline(StandardScaler(), probe),
        {"onevsrestclassifier__estimator__C": STRENGTHS},
        cv=shuffled if groups is None else GroupKFold(folds),
        scoring=lambda fitted, x, y: mean_average_precision(fitted.decision_function(x), y),
    )
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Label .* is present in all training examples")
        warnings.filterwarnings("ignore", "Label not .* is present in all training examples")
        search.fit(features.astype(np.float64), targets.astype(int), groups=groups)
    strength = float(search.best_params_["onevsrestclassifier__estimator__C"])
    scores = search.decision_function(test_features.astype(np.float64))
    return scores, {"strength": strength, "folds": folds}


class ProbedEncoder(nn.Module):
    """A frozen encoder and a linear probe as one classifier; make it with `probed`.

    Parameters
    ----------
    encoder : CNN12
        Truncated to the layer that the probe was fitted on.
    classes : sequence of str
    head : torch.nn.Linear
        From mean feature maps to logits.
    """

    def __init__(self, encoder: CNN12, classes: Sequence[str], head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.classes, self.head = encoder, tuple(classes), head

    def forward(self, x: Float[Tensor, "batch 1 time"]) -> Float[Tensor, "batch classes"]:
        """Logits, shape (batch, classes), of waveforms, shape (batch, 1, time)."""
        return self.head(self.encoder.pooled(x))


def probed(
    encoder: CNN12, training: Dataset, *, layer: int = 11, seed: int = 0, progress: bool = False
) -> ProbedEncoder:
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
    ProbedEncoder
        In `eval` mode.

    Raises
    ------
    LayerError, DatasetError, AudioError
        As `mean_features`, `linear_probe` and `multilabel_probe`, and if a class has no clip
        where each clip has one label.
    """
    short, reader = encoder.truncate(layer), ClipReader(training)
    features, targets = predict(
        short.pooled, training, least_length=short.least_length, progress=progress, read=reader
    )
    reader.warn()
    groups = groups_of(training, left_out=reader.bad)
    head = fit_head(features, targets, training, groups=groups, seed=seed)
    return ProbedEncoder(short, training.classes, head).eval()


def fit_head(
    features: Float[ndarray, "clips features"],
    targets: Shaped[ndarray, "clips classes"],
    training: Dataset,
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> nn.Linear:
    """A linear probe, fitted to clips of a data set, as a layer from features to logits."""
    missing = np.flatnonzero(targets.sum(axis=0) == 0)
    if len(missing) and training.task == "single-label":
        raise DatasetError(
            f"{training.name} ({training.split}) has no clip of {training.classes[missing[0]]!r}: "
            "a probe must see every class that it is to name."
        )
    if training.task == "single-label":
        labels = targets.argmax(axis=1)
        probe = linear_probe(features, labels, features[:1], groups=groups, seed=seed)
        weight, bias = probe.weight, probe.bias
    else:  # scores are affine: those of nothing, and of one channel at a time, tell all
        channels = features.shape[1]
        asked = np.vstack([np.zeros(channels), np.eye(channels)])
        scores, _ = multilabel_probe(features, targets, asked, groups=groups, seed=seed)
        weight, bias = (scores[1:] - scores[0]).T, scores[0]
    head = nn.Linear(features.shape[1], len(training.classes))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head
