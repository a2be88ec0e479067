"""Steering: interventions as pure functions on tokens. h <- h + dz @ W_dec."""

from .concept import ConceptFeatures, ablate, add, contrast_features, contrast_score, paper_delta
from .intervention import Intervention, TokenContext
from .selection import Selection, parse_selection
from .tokens import apply, delta

__all__ = [
    "ConceptFeatures",
    "Intervention",
    "Selection",
    "TokenContext",
    "ablate",
    "add",
    "apply",
    "contrast_features",
    "contrast_score",
    "delta",
    "paper_delta",
    "parse_selection",
]
