"""Harvested activations on disk: `ShardWriter` writes them, `ShardSet` reads them.

manifest.py describes the layout of a folder of activations.
"""

from .manifest import Items, Source
from .reader import Batch, RowView, ShardSet
from .writer import BudgetReached, ShardWriter

__all__ = ["Batch", "BudgetReached", "Items", "RowView", "ShardSet", "ShardWriter", "Source"]
