"""Statistics of a dictionary's features, measured on the activations that the dictionary was trained on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class FeatureStats:
    """Statistics of all n features over the training activations, as float32 tensors."""

    mean_active: Tensor
    """[n]: mean value over the tokens where the feature fires; 0 if it never fires."""
    rate: Tensor | None = None
    """[n]: share of tokens (0..1) where the feature fires; None if only the means were published."""
    mean_map: Tensor | None = None
    """[n, height, width]: mean spatial map of each feature, scaled to a peak of 1 (all 0 if the feature never
    fires). None for dictionaries of text layers."""
