"""Training dictionaries: the trainer, and the figures by which they are judged."""

from .metrics import feature_stats, measure
from .trainer import TrainConfig, train

__all__ = ["TrainConfig", "feature_stats", "measure", "train"]
