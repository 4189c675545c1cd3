"""Synthesised scenes of sound events, with every event's onset, offset, gain and stem known."""

from sonibook.datasets.soundscapes.compose import ComposedScenes, compose
from sonibook.datasets.soundscapes.events import EVENT_CLASSES, render_event
from sonibook.datasets.soundscapes.scene import Event, Scene
from sonibook.datasets.soundscapes.scenes import Soundscapes

__all__ = [
    "EVENT_CLASSES",
    "ComposedScenes",
    "Event",
    "Scene",
    "Soundscapes",
    "compose",
    "render_event",
]
