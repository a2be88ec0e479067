"""Asking traces: which features belong to a concept."""

from .contrast import ContrastedFeature, FeaturePeaks, contrast, rank

__all__ = ["ContrastedFeature", "FeaturePeaks", "contrast", "rank"]
