"""What `sonibook.analysis.separation` finds."""

from __future__ import annotations

from typing import Literal

from sonibook.analysis.result import Estimate, Record, Result

#: Whose onset is timed: the most active filter's map, and its sound.
LAGS = ("map", "sound")


class Detection(Record):
    """How well a layer's best filters tell whether an event is in a scene.

    Attributes
    ----------
    area : float
        Under the ROC curve, mean over classes, on scenes that the filters were not chosen on.
    low, high : float
        Its 95 % interval, over scenes.
    classes : int
        How many the mean is over.
    """

    area: float
    low: float
    high: float
    classes: int


class LayerSeparation(Record):
    """What one layer's most active filters hold of scenes, and when they begin.

    Attributes
    ----------
    network : str
    baseline : bool
        Whether it is a network with random weights, of the shape of one that was given.
    layer : int
    held : dict of str to Estimate
        By `HOLDINGS`; a scene counts with the mean over its filters.
    lead_of_first : Estimate or None
        By how much the first network's "gain in share" exceeds this one's, scene by scene; None
        for the first network itself, and where it has no such layer.
    lag : dict of str to Estimate, in s
        By `LAGS`: from the onset of a scene's first event.
    detection : Detection or None
        None where no class is on scenes enough.
    """

    network: str
    baseline: bool
    layer: int
    held: dict[str, Estimate]
    lead_of_first: Estimate | None
    lag: dict[str, Estimate]
    detection: Detection | None


class Detector(Record):
    """The filter, of all layers, that tells best of one class of events.

    Attributes
    ----------
    network, event : str
    layer, filter : int
    chosen_area : float
        Area under the ROC curve on the scenes it was chosen on, which flatters it.
    area, low, high : float
        On the others, with its 95 % interval.
    p : float
        Of "no better than chance" there, adjusted for the number of classes (Holm).
    """

    network: str
    event: str
    layer: int
    filter: int
    chosen_area: float
    area: float
    low: float
    high: float
    p: float


class SeparationResult(Result):
    """What filters pick out of scenes; see `separation`.

    Attributes
    ----------
    several : int
        Scenes of two stems or more, which separation is measured on.
    timed : int
        Scenes whose first event stands alone, which timing is measured on.
    mixture : dict of str to Estimate
        ``main stem's share`` and ``SI-SDR`` of the mixtures themselves, to their own main stems.
    input_lag : Estimate, in s
        From the onset of the first event until the mixture itself has begun, by the same rule.
    layers : tuple of LayerSeparation
    detectors : tuple of Detector
    """

    analysis: Literal["separation"] = "separation"
    several: int
    timed: int
    mixture: dict[str, Estimate]
    input_lag: Estimate
    layers: tuple[LayerSeparation, ...]
    detectors: tuple[Detector, ...]
