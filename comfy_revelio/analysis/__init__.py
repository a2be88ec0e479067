"""Asking traces and activations: which features belong to a concept."""

from .contrast import ContrastedFeature, FeaturePeaks, contrast, rank
from .words import labels_of_prompts

__all__ = ["ContrastedFeature", "FeaturePeaks", "contrast", "labels_of_prompts", "rank"]
