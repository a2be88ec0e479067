"""Dictionaries: features as directions in one activation space, and sparse codes over them."""

from .codes import Codes
from .concept import Concept
from .dictionary import Dictionary
from .feature_stats import FeatureStats
from .load import load_dictionary, peek, probe, save_dictionary

__all__ = [
    "Codes",
    "Concept",
    "Dictionary",
    "FeatureStats",
    "load_dictionary",
    "peek",
    "probe",
    "save_dictionary",
]
