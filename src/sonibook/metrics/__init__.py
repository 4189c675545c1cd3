"""How good a network is (`scores`), how sure that is (`intervals`), how similar sounds are."""

from sonibook.metrics.intervals import (
    bootstrap_interval,
    bootstrap_means,
    crossed_interval,
    runs_interval,
    wilson_interval,
)
from sonibook.metrics.scores import (
    accuracy,
    average_precision,
    d_prime,
    mean_auc,
    mean_average_precision,
    multilabel_intervals,
    multilabel_metrics,
    roc_auc,
    single_label_metrics,
)

__all__ = [
    "accuracy",
    "average_precision",
    "bootstrap_interval",
    "bootstrap_means",
    "crossed_interval",
    "d_prime",
    "mean_auc",
    "mean_average_precision",
    "multilabel_intervals",
    "multilabel_metrics",
    "roc_auc",
    "runs_interval",
    "single_label_metrics",
    "wilson_interval",
]
