"""Recordings: what the attention layers of a model worked with on one run, in memory and in files."""

from softmap.recorded.layer import Inside, OtherLayer, RecordedLayer
from softmap.recorded.pictures import Picture, Place
from softmap.recorded.recording import Attended, Origin, RecordedSequence, Recording

__all__ = [
    "Attended",
    "Inside",
    "Origin",
    "OtherLayer",
    "Picture",
    "Place",
    "RecordedLayer",
    "RecordedSequence",
    "Recording",
]
