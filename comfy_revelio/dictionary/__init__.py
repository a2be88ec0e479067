"""Dictionaries: features as directions in one activation space, and sparse codes over them."""

from .codes import Codes
from .dictionary import Dictionary
from .formats import load_dictionary, peek, probe, save_dictionary
from .stats import FeatureStats

__all__ = ["Codes", "Dictionary", "FeatureStats", "load_dictionary", "peek", "probe", "save_dictionary"]
