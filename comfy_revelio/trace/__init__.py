"""Traces: what the features did in one sampling run, recorded, asked and stored."""

from .frames import DictionaryNote, Frame
from .ranking import FeatureScore
from .reading import Reading
from .recorder import RunRecorder
from .trace import Trace
from .words import WordFrame, WordRecorder, WordTrace

__all__ = [
    "DictionaryNote",
    "FeatureScore",
    "Frame",
    "Reading",
    "RunRecorder",
    "Trace",
    "WordFrame",
    "WordRecorder",
    "WordTrace",
]
