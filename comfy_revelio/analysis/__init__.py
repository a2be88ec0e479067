"""Analyses of traces and activations: features of a concept, labels, word maps, the feature index."""

from .concept_of_runs import concept_between, concept_of_runs
from .contrast import Findings, FoundFeature, find_features
from .prompt_labels import labels_of_prompts

__all__ = [
    "Findings",
    "FoundFeature",
    "concept_between",
    "concept_of_runs",
    "find_features",
    "labels_of_prompts",
]
