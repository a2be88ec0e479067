"""The feature index of a dictionary: what each feature fires on, and its label; kept in a file next to it."""

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
