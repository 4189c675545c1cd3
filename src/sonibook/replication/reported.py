"""What the paper reports in its tables A.1, A.2, A.4 and A.6: its CNN12 and CNN12_x2 rows.

Each row has the names that the miniature's rows have here, so that the two stand side by side. Of
ESC-50, which the paper does not use, it holds another publication's figure.
"""

from __future__ import annotations

from typing import Literal

from sonibook.analysis.result import Record

#: "linear probe" is fc-only by a logistic regression; see `sonibook.replication.trials`.
Training = Literal["linear probe", "fc-only", "full"]


class Reported(Record):
    """A row of a table of the paper."""

    row: str
    training: Training
    metrics: dict[str, tuple[float, float | None]]
    source: str | None = None


def _precision(
    row: str,
    training: Training,
    mean_precision: tuple[float, float],
    area: tuple[float, float],
    separation: tuple[float, float],
) -> Reported:
    metrics = {"mAP": mean_precision, "mAUC": area, "d_prime": separation}
    return Reported(row=row, training=training, metrics=metrics)


def _accuracy(row: str, training: Training, percent: float, half: float) -> Reported:
    share = (round(percent / 100, 4), round(half / 100, 4))
    return Reported(row=row, training=training, metrics={"accuracy": share})


def _augmented(
    row: str, fc_only: tuple[float, float], full: tuple[float, float]
) -> tuple[Reported, ...]:
    return (
        Reported(row=row, training="fc-only", metrics={"mAP": fc_only}),
        Reported(row=row, training="full", metrics={"mAP": full}),
    )


#: By table; rows in the paper's order.
REPORTED: dict[str, tuple[Reported, ...]] = {
    "A.1": (
        *_augmented("gain", (0.112, 0.002), (0.203, 0.001)),
        *_augmented("+ noise", (0.142, 0.001), (0.210, 0.003)),
        *_augmented("+ time mask", (0.142, 0.001), (0.211, 0.002)),
        *_augmented("+ random SNR (all)", (0.148, 0.003), (0.215, 0.001)),
        *_augmented("all, tau 0.2", (0.120, 0.001), (0.205, 0.002)),
        *_augmented("all, tau 0.3", (0.105, 0.001), (0.200, 0.001)),
        *_augmented("all, CNN12_x2", (0.151, 0.003), (0.217, 0.005)),
    ),
    "A.2": (
        _precision("none", "full", (0.299, 0.001), (0.954, 0.000), (2.378, 0.007)),
        _precision("contrastive", "fc-only", (0.197, 0.003), (0.918, 0.006), (1.966, 0.057)),
        _precision("contrastive", "full", (0.327, 0.009), (0.958, 0.001), (2.436, 0.011)),
        _precision("contrastive, CNN12_x2", "full", (0.332, 0.005), (0.959, 0.001), (2.438, 0.020)),
    ),
    "A.4": (
        _precision("none", "full", (0.362, 0.006), (0.909, 0.001), (1.889, 0.010)),
        _precision("contrastive", "fc-only", (0.306, 0.007), (0.873, 0.003), (1.611, 0.024)),
        _precision("contrastive", "full", (0.424, 0.004), (0.921, 0.001), (2.001, 0.006)),
        _precision("supervised", "fc-only", (0.463, 0.002), (0.935, 0.001), (2.144, 0.015)),
        _precision("supervised", "full", (0.448, 0.004), (0.928, 0.003), (2.068, 0.028)),
        _precision(
            "contrastive, CNN12_x2", "fc-only", (0.307, 0.006), (0.869, 0.004), (1.584, 0.020)
        ),
        _precision("contrastive, CNN12_x2", "full", (0.432, 0.003), (0.924, 0.001), (2.032, 0.004)),
    ),
    "A.6": (
        _accuracy("none", "full", 92.3, 0.5),
        _accuracy("supervised", "fc-only", 36.0, 1.4),
        _accuracy("supervised", "full", 92.9, 0.7),
        _accuracy("contrastive", "fc-only", 29.5, 0.6),
        _accuracy("contrastive", "full", 93.4, 0.7),
    ),
    "ESC-50": (
        Reported(
            row="EnvNet, raw waveform at 44.1 kHz",
            training="full",
            metrics={"accuracy": (0.64, None)},
            source="Tokozume and Harada 2017",
        ),
    ),
}
