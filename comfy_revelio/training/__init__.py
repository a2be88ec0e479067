"""Train dictionaries: recipes, the trainer, activations on disk, and metrics of trained dictionaries."""

from .config import PRESETS, TrainConfig, preset
from .metrics import error_by_timestep, feature_stats, measure
from .shards import ShardSet, ShardWriter
from .trainer import train

__all__ = [
    "PRESETS",
    "ShardSet",
    "ShardWriter",
    "TrainConfig",
    "error_by_timestep",
    "feature_stats",
    "measure",
    "preset",
    "train",
]
