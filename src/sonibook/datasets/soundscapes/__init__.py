"""Synthesised scenes of sound events, with every event's onset, offset, gain and stem known."""

from sonibook.datasets.soundscapes.scenes import EVENT_CLASSES as EVENT_CLASSES
from sonibook.datasets.soundscapes.scenes import ComposedScenes as ComposedScenes
from sonibook.datasets.soundscapes.scenes import Event as Event
from sonibook.datasets.soundscapes.scenes import Scene as Scene
from sonibook.datasets.soundscapes.scenes import SceneDataset as SceneDataset
from sonibook.datasets.soundscapes.scenes import Soundscapes as Soundscapes
from sonibook.datasets.soundscapes.scenes import render_event as render_event
