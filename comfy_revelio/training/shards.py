"""Activations harvested from a model, on disk: written by `ShardWriter`, read by `ShardSet`.

The layout of the folder is told in shard_manifest.py.
"""

from .shard_manifest import Items, Source
from .shard_reader import Batch, RowView, ShardSet
from .shard_writer import BudgetReached, ShardWriter

__all__ = ["Batch", "BudgetReached", "Items", "RowView", "ShardSet", "ShardWriter", "Source"]
