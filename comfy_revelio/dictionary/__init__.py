"""Dictionaries: features as directions in one activation space, and sparse codes over them."""

from .codes import Codes
from .concept import Concept
from .dictionary import Dictionary
from .feature_stats import FeatureStats
from .load import check_file, describe_file, load_dictionary, save_dictionary

__all__ = [
    "Codes",
    "Concept",
    "Dictionary",
    "FeatureStats",
    "check_file",
    "describe_file",
    "load_dictionary",
    "save_dictionary",
]
