"""Activations harvested from a model, on disk: written by `ShardWriter`, read by `ShardSet`.

The layout of the folder is described in manifest.py.
"""

from .manifest import Items, Source
from .reader import Batch, RowView, ShardSet
from .writer import BudgetReached, ShardWriter

__all__ = ["Batch", "BudgetReached", "Items", "RowView", "ShardSet", "ShardWriter", "Source"]
