"""Asking traces and activations: which features belong to a concept."""

from .concepts import concept_between
from .contrast import ContrastedFeature, FeaturePeaks, contrast, rank
from .words import labels_of_prompts

__all__ = ["ContrastedFeature", "FeaturePeaks", "concept_between", "contrast", "labels_of_prompts", "rank"]
