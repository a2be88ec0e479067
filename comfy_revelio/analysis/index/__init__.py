"""A dictionary's feature index: each feature's label and strongest examples, saved next to the dictionary."""

from .builder import IndexBuilder
from .feature_index import FeatureIndex, Label, dictionary_id
from .files import Examples, IndexHead, index_path, read_examples, read_head, read_index, write_index

__all__ = [
    "Examples",
    "FeatureIndex",
    "IndexBuilder",
    "IndexHead",
    "Label",
    "dictionary_id",
    "index_path",
    "read_examples",
    "read_head",
    "read_index",
    "write_index",
]
