"""Dictionaries: features as directions in one activation space, and sparse codes over them."""

from .codes import Codes
from .concepts import Concept
from .dictionary import Dictionary
from .formats import load_dictionary, peek, probe, save_dictionary
from .stats import FeatureStats

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
