"""Synthesised scenes of sound events, with every event's onset, offset, gain and stem known."""

from sonibook.datasets.soundscapes.events import EVENT_CLASSES, render_event
from sonibook.datasets.soundscapes.scenes import (
    ComposedScenes,
    Event,
    Scene,
    SceneDataset,
    Soundscapes,
    compose,
)

__all__ = [
    "EVENT_CLASSES",
    "ComposedScenes",
    "Event",
    "Scene",
    "SceneDataset",
    "Soundscapes",
    "compose",
    "render_event",
]
