"""How good a network is (`scores`), how sure that is (`intervals`), how similar sounds are."""

from sonibook import _names_of

__getattr__ = _names_of(
    __name__,
    intervals="bootstrap_interval bootstrap_means crossed_interval runs_interval wilson_interval",
    scores="accuracy average_precision d_prime mean_auc mean_average_precision "
    "multilabel_intervals multilabel_metrics roc_auc single_label_metrics",
    similarity="",
)
