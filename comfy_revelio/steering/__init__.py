"""Steering: interventions as pure functions on tokens, h <- h + dz W_dec."""

from .apply import apply, delta
from .intervention import Intervention, TokenContext
from .prompt_concept import ConceptFeatures, contrast_features, contrast_score, paper_delta
from .saeuron import unlearn, unlearning_features
from .selection import Selection, features_in_trace, parse_selection
from .transfer import Transfer

__all__ = [
    "ConceptFeatures",
    "Intervention",
    "Selection",
    "TokenContext",
    "Transfer",
    "apply",
    "contrast_features",
    "contrast_score",
    "delta",
    "features_in_trace",
    "paper_delta",
    "parse_selection",
    "unlearn",
    "unlearning_features",
]
