"""Dictionaries, whose features are directions in one activation space, and the sparse codes they produce."""

from .activations import Activation
from .codes import Codes
from .concept import Concept
from .dictionary import Dictionary
from .feature_stats import FeatureStats
from .input_transform import InputTransform
from .load import check_file, describe_file, load_dictionary, save_dictionary
from .metadata import Extras, Provenance

__all__ = [
    "Activation",
    "Codes",
    "Concept",
    "Dictionary",
    "Extras",
    "FeatureStats",
    "InputTransform",
    "Provenance",
    "check_file",
    "describe_file",
    "load_dictionary",
    "save_dictionary",
]
